// SPDX-License-Identifier: GPL-2.0-only
//! Log lines: [`error!`], [`warn!`], [`info!`] and [`debug!`], with the arguments of `format_args!`.
//!
//! Nothing is allocated. In a process lines go to a sink (standard error at first); in the kernel to its
//! log, cut at 256 bytes. Lines below [`set_max_level`] are dropped before they are formatted.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::backend;
pub use crate::{debug, error, info, warn};

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Data or a service are lost or in danger.
    Error = 0,
    /// Something is wrong, but dealt with.
    Warn = 1,
    /// A rare event that an administrator wants to see: mounted, elected, fenced.
    Info = 2,
    /// For developers.
    Debug = 3,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
        })
    }
}

/// Takes the lines of a process.
#[cfg(feature = "std")]
pub type Sink = fn(Level, fmt::Arguments<'_>);

static MAX_LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Sends the lines of this process to `sink` from now on.
#[cfg(feature = "std")]
pub fn set_sink(sink: Sink) {
    backend::log::set_sink(sink);
}

/// Drops lines less grave than `level` from now on. At first it is [`Level::Info`].
pub fn set_max_level(level: Level) {
    MAX_LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether a line of `level` would be shown.
pub fn enabled(level: Level) -> bool {
    level as u8 <= MAX_LEVEL.load(Ordering::Relaxed)
}

/// Writes one line, without a newline at its end. The macros call this.
pub fn write(level: Level, line: fmt::Arguments<'_>) {
    if enabled(level) {
        backend::log::write(level, line);
    }
}

/// Logs at [`Level::Error`](crate::log::Level::Error).
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Error, ::core::format_args!($($arg)*)) };
}

/// Logs at [`Level::Warn`](crate::log::Level::Warn).
#[macro_export]
macro_rules! warn {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Warn, ::core::format_args!($($arg)*)) };
}

/// Logs at [`Level::Info`](crate::log::Level::Info).
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Info, ::core::format_args!($($arg)*)) };
}

/// Logs at [`Level::Debug`](crate::log::Level::Debug).
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Debug, ::core::format_args!($($arg)*)) };
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::sync::Mutex;
    use std::vec::Vec;

    #[test]
    fn lines_reach_the_sink_when_their_level_is_enabled() {
        static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());
        set_sink(|level, line| LINES.lock().unwrap().push((level, line.to_string())));
        let block = 7;
        crate::warn!("block {block} is {}", "stale");
        crate::debug!("not shown");
        set_max_level(Level::Debug);
        crate::debug!("shown");
        let lines = LINES.lock().unwrap();
        assert_eq!(
            *lines,
            [(Level::Warn, "block 7 is stale".to_string()), (Level::Debug, "shown".to_string())]
        );
    }
}
