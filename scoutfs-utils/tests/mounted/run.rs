// SPDX-License-Identifier: GPL-2.0-only
//! External programs: each ends in time, or is ended and fails the test.

use std::borrow::BorrowMut;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{ThreadId, current, sleep};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, openat};
use rustix::path::Arg;
use rustix::process::{Pid, Signal, kill_process_group};

/// What a short command may take on a machine that does many other things.
pub const SOON: Duration = Duration::from_secs(60);

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A `scoutfs` command.
pub fn scoutfs<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scoutfs"));
    command.args(arguments).env_remove("SCOUTFS_MOUNT_PATH");
    command
}

/// A program with arguments.
pub fn program<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

/// Starts a program, while no other test does.
///
/// Between fork and exec a child holds all files of this process, those of the other tests too, whose `umount` would
/// find the target busy. One at a time: a test that starts `umount` has closed its files before, and no child of others has them.
pub fn spawn(command: &mut Command) -> Child {
    let _one = wait_for_turn();
    command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"))
}

/// The thread that has daemons asleep, and how many.
static ASLEEP: Mutex<Option<(ThreadId, usize)>> = Mutex::new(None);
static WOKEN: Condvar = Condvar::new();

/// Waits until no other thread has a daemon asleep. Nobody starts a program or puts a daemon to sleep while the result is kept.
fn wait_for_turn() -> MutexGuard<'static, Option<(ThreadId, usize)>> {
    let mut asleep = ASLEEP.lock().unwrap_or_else(PoisonError::into_inner);
    while asleep.is_some_and(|(thread, _)| thread != current().id()) {
        asleep = WOKEN.wait(asleep).unwrap_or_else(PoisonError::into_inner);
    }
    asleep
}

/// A daemon is about to be put to sleep by this thread: until it wakes up other tests start no programs. A child that is about to
/// begin closes what it has of all our files, and the daemon would have to answer; two tests could wait for each other for ever.
pub fn falls_asleep() {
    let mut asleep = wait_for_turn();
    let count = asleep.map_or(0, |(_, count)| count);
    *asleep = Some((current().id(), count + 1));
}

/// A daemon that slept goes on, or is dead.
pub fn woke_up() {
    let mut asleep = ASLEEP.lock().unwrap_or_else(PoisonError::into_inner);
    *asleep = asleep.and_then(|(thread, count)| (count > 1).then_some((thread, count - 1)));
    WOKEN.notify_all();
}

/// As `openat`, but programs that another test starts meanwhile do not get the file.
pub fn open_at(dir: impl AsFd, path: impl Arg, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    openat(dir, path, flags | OFlags::CLOEXEC, mode)
}

/// Runs a command to its end, for `limit` at most: then it and its children are killed, and the test fails.
pub fn run_for(mut command: impl BorrowMut<Command>, limit: Duration) -> Ended {
    let command = command.borrow_mut();
    let (ended, in_time) = run_or_kill(command, limit);
    assert!(in_time, "{command:?} took more than {limit:?}; killed: {}", ended.stderr);
    ended
}

/// Runs a command for `limit` at most, then kills it and its children. Says whether it ended by itself.
///
/// Its output goes to memory files, not pipes: a daemon that keeps one open must not keep us waiting.
pub fn run_or_kill(command: &mut Command, limit: Duration) -> (Ended, bool) {
    let memory = || File::from(memfd_create("output", MemfdFlags::CLOEXEC).unwrap());
    let (mut stdout, mut stderr) = (memory(), memory());
    command.stdin(Stdio::null()).process_group(0);
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let mut child = spawn(command);
    let start = Instant::now();
    let (status, in_time) = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break (status, true);
        }
        if start.elapsed() > limit {
            let group = Pid::from_child(&child);
            let _ = kill_process_group(group, Signal::KILL);
            let status = (0..100).find_map(|_| {
                sleep(Duration::from_millis(50));
                child.try_wait().unwrap()
            });
            break (status.unwrap_or_else(|| panic!("{command:?} cannot be killed")), false);
        }
        sleep(Duration::from_millis(2).max(start.elapsed() / 20).min(Duration::from_millis(50)));
    };
    (Ended { status, stdout: text(&mut stdout), stderr: text(&mut stderr) }, in_time)
}

/// Runs a short command that must succeed. Gives what it printed.
pub fn run(command: impl BorrowMut<Command>) -> String {
    run_well_for(command, SOON)
}

/// Runs a command that must succeed within `limit`. Gives what it printed.
pub fn run_well_for(mut command: impl BorrowMut<Command>, limit: Duration) -> String {
    let command = command.borrow_mut();
    let ended = run_for(&mut *command, limit);
    assert!(ended.status.success(), "{command:?}: {}\n{}{}", ended.status, ended.stdout, ended.stderr);
    ended.stdout
}

/// Runs a short command that must fail with an exit status and a message. Gives the message.
pub fn run_refused(mut command: impl BorrowMut<Command>) -> String {
    let command = command.borrow_mut();
    let ended = run_for(&mut *command, SOON);
    assert!(!ended.status.success(), "{command:?} succeeded: {}", ended.stdout);
    assert_eq!(ended.status.signal(), None, "{command:?} was killed: {}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{command:?}: {}", ended.stderr);
    assert!(!ended.stderr.trim().is_empty(), "{command:?} failed and said nothing");
    ended.stderr
}

/// Waits until `done`, or says that `what` did not happen.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(10));
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
