// SPDX-License-Identifier: GPL-2.0-only
//! Where the lines of a mount in the background go: to the file that was named, or to syslog. Those of one in the foreground go to
//! standard error as they are.

use std::ffi::CString;
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use scoutfs_env::log::{Level, set_sink};

/// Which volume lines are about. A process mounts one.
static VOLUME: OnceLock<String> = OnceLock::new();

/// Lines go to standard error, which is a file now: with the time and the name of the volume.
pub fn to_file(volume: &Path) {
    name(volume);
    set_sink(|level, line| {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        eprintln!("{now} scoutfs {}: {level}: {line}", volume_name());
    });
}

/// Lines go to syslog, as a daemon's, with the name of the volume.
pub fn to_syslog(volume: &Path) {
    name(volume);
    set_sink(|level, line| syslog(priority(level), format_args!("{}: {level}: {line}", volume_name())));
}

fn name(volume: &Path) {
    // The first stays: it is always the same.
    let _ = VOLUME.set(volume.display().to_string());
}

fn volume_name() -> &'static str {
    VOLUME.get().map_or("", String::as_str)
}

fn priority(level: Level) -> libc::c_int {
    match level {
        Level::Error => libc::LOG_ERR,
        Level::Warn => libc::LOG_WARNING,
        Level::Info => libc::LOG_INFO,
        Level::Debug => libc::LOG_DEBUG,
    }
}

fn syslog(priority: libc::c_int, line: fmt::Arguments<'_>) {
    let Ok(line) = CString::new(line.to_string().replace('\0', "")) else { return };
    // SAFETY: the format takes one string, which outlives the call. Without openlog(3) the program's name is given.
    unsafe { libc::syslog(libc::LOG_DAEMON | priority, c"%s".as_ptr(), line.as_ptr()) };
}
