// SPDX-License-Identifier: GPL-2.0-only
//! Going to the background, and being fit to write back dirty memory from there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use thiserror::Error;

/// Why nothing was started.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Threads do not survive a fork.
    #[error("the process has {count} threads, it must have one to go to the background")]
    Threads {
        /// How many there are.
        count: usize,
    },
    /// A system call failed.
    #[error("cannot go to the background: {0}")]
    System(#[from] io::Error),
}

/// What became of the child. This process should exit with the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// It serves.
    Serving,
    /// It ended before it served.
    Failed {
        /// Its exit code, or 128 and the signal.
        code: u8,
        /// What it said.
        message: String,
    },
}

/// The child's line to the process that waits for it.
#[derive(Debug)]
pub struct Ready {
    status: File,
    log: Option<PathBuf>,
}

impl Ready {
    /// Says that the mount serves, and leaves the terminal: standard output and error go to the log file
    /// or, without one, nowhere.
    pub fn serving(mut self) -> io::Result<()> {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let output = match &self.log {
            Some(path) => OpenOptions::new().append(true).create(true).open(path)?,
            None => null.try_clone()?,
        };
        std::env::set_current_dir("/")?;
        replace(&null, libc::STDIN_FILENO)?;
        replace(&output, libc::STDOUT_FILENO)?;
        replace(&output, libc::STDERR_FILENO)?;
        // From now on it stays when its parent ends.
        rustix::process::set_parent_process_death_signal(None)?;
        self.status.write_all(&[SERVING])
    }
}

/// Makes descriptor `number` one of `file`.
fn replace(file: &File, number: RawFd) -> io::Result<()> {
    // SAFETY: the standard streams, which nothing here takes to be a particular file.
    match unsafe { libc::dup2(file.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// What the child writes first: that it serves, or that a message follows.
const SERVING: u8 = 0;
const FAILED: u8 = 1;

/// Runs `child` in a process of its own and waits until it serves or has ended.
///
/// Must be called before there are threads. `child` mounts, calls [`Ready::serving`], serves, and returns
/// the exit code, or an error, which is passed to the parent when it comes before `serving`. It does not return to
/// the caller in the child, which keeps no descriptor that this program was started with but the standard streams.
/// `log` should be absolute: the child leaves the current directory.
pub fn run_in_background(
    log: Option<PathBuf>,
    child: impl FnOnce(Ready) -> Result<u8, String>,
) -> Result<Started, DaemonError> {
    let count = std::fs::read_dir("/proc/self/task")?.count();
    if count != 1 {
        return Err(DaemonError::Threads { count });
    }
    fork_and_wait(log, child)
}

fn fork_and_wait(
    log: Option<PathBuf>,
    child: impl FnOnce(Ready) -> Result<u8, String>,
) -> Result<Started, DaemonError> {
    let (read_end, write_end) = io::pipe()?;
    let read_end = File::from(std::os::fd::OwnedFd::from(read_end));
    let write_end = File::from(std::os::fd::OwnedFd::from(write_end));
    io::stdout().flush()?;
    // SAFETY: there is only this thread, so no lock is held by one that the child does not have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error().into()),
        0 => {
            drop(read_end);
            let code = run_child(write_end, log, child);
            // SAFETY: ends the process. Exit handlers and buffers are the parent's.
            unsafe { libc::_exit(code.into()) }
        }
        pid => {
            drop(write_end);
            wait_for(pid, read_end)
        }
    }
}

fn run_child(status: File, log: Option<PathBuf>, child: impl FnOnce(Ready) -> Result<u8, String>) -> u8 {
    // Who gives up waiting ends what it waits for.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    // It fails only for a process that leads a group, which a fresh child does not.
    let _ = rustix::process::setsid();
    let mut failure = match status.try_clone() {
        Ok(file) => file,
        Err(_) => return 1,
    };
    close_inherited();
    let ready = Ready { status, log };
    match catch_unwind(AssertUnwindSafe(|| child(ready))) {
        Ok(Ok(code)) => code,
        Ok(Err(message)) => {
            // After `serving` nobody reads it; then the log has it.
            if failure.write_all(&[&[FAILED], message.as_bytes()].concat()).is_err() {
                eprintln!("{message}");
            }
            1
        }
        Err(_) => 101,
    }
}

/// Closes what this program got from the one that ran it, the standard streams excepted. Someone may wait until
/// the last copy of such a descriptor is closed. What this program opened itself is close-on-exec.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    for number in numbers.filter(|number| *number > libc::STDERR_FILENO).collect::<Vec<_>>() {
        // SAFETY: looks at a flag, and closes descriptors that nothing in here owns.
        unsafe {
            if libc::fcntl(number, libc::F_GETFD) & libc::FD_CLOEXEC == 0 {
                libc::close(number);
            }
        }
    }
}

fn wait_for(pid: libc::pid_t, mut status: File) -> Result<Started, DaemonError> {
    let mut first = [0];
    let mut message = String::new();
    if status.read(&mut first)? == 1 {
        if first == [SERVING] {
            return Ok(Started::Serving);
        }
        let mut bytes = Vec::new();
        status.read_to_end(&mut bytes)?;
        message = String::from_utf8_lossy(&bytes).into_owned();
    }
    let pid = rustix::process::Pid::from_raw(pid);
    let options = rustix::process::WaitOptions::empty();
    let ended = rustix::io::retry_on_intr(|| rustix::process::waitpid(pid, options))
        .map_err(io::Error::from)?
        .map(|(_, ended)| ended);
    let code = ended.and_then(|ended| ended.exit_status().or(ended.terminating_signal().map(|s| 128 + s)));
    // It served nothing, so it failed, whatever it says.
    let code = code.and_then(|code| u8::try_from(code).ok()).filter(|&code| code != 0).unwrap_or(1);
    if message.is_empty() {
        message = format!("the background process ended with status {code} before it served");
    }
    Ok(Started::Failed { code, message })
}

/// Tells the kernel that this thread, and those that it starts, write back dirty memory, so that they do not wait for that
/// themselves. Needs CAP_SYS_RESOURCE.
pub fn set_io_flusher() -> io::Result<()> {
    Ok(rustix::process::configure_io_flusher_behavior(true)?)
}

/// Keeps this process's memory from being swapped out: what is in use now, and the rest from its first use on.
pub fn lock_memory() -> io::Result<()> {
    use rustix::mm::MlockAllFlags as Flags;
    Ok(rustix::mm::mlockall(Flags::CURRENT | Flags::FUTURE | Flags::ONFAULT)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The test runner has threads, so these go around the check. The children do next to nothing.

    #[test]
    fn a_process_with_threads_is_refused() {
        let error = run_in_background(None, |_| Ok(0)).unwrap_err();
        assert!(matches!(error, DaemonError::Threads { count } if count > 1));
    }

    #[test]
    fn the_parent_returns_while_the_child_serves() {
        let (mut read_end, mut write_end) = io::pipe().unwrap();
        let started = fork_and_wait(None, move |ready| {
            ready.serving().map_err(|error| error.to_string())?;
            let mut one = [0];
            let _ = read_end.read(&mut one);
            Ok(0)
        });
        // Not by closing it: the child has a copy.
        write_end.write_all(&[1]).unwrap();
        assert_eq!(started.unwrap(), Started::Serving);
    }

    #[test]
    fn the_child_does_not_keep_the_callers_pipes_open() {
        let (mut read_end, write_end) = io::pipe().unwrap();
        let (mut release, mut hold) = io::pipe().unwrap();
        // SAFETY: a copy that is not close-on-exec, as a shell would pass it on; closed below.
        let inherited = unsafe { libc::dup(write_end.as_raw_fd()) };
        let started = fork_and_wait(None, move |ready| {
            // As it would not be there after exec.
            drop(write_end);
            ready.serving().map_err(|error| error.to_string())?;
            let mut one = [0];
            let _ = release.read(&mut one);
            Ok(0)
        });
        // SAFETY: the copy made above.
        unsafe { libc::close(inherited) };
        let mut rest = Vec::new();
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(read_end.read_to_end(&mut rest).unwrap()));
        let ended = receive.recv_timeout(std::time::Duration::from_secs(10));
        hold.write_all(&[1]).unwrap();
        assert_eq!(started.unwrap(), Started::Serving);
        assert_eq!(ended, Ok(0));
    }

    #[test]
    fn the_childs_error_reaches_the_parent() {
        let started = fork_and_wait(None, |_| Err("no such volume".to_owned())).unwrap();
        assert_eq!(started, Started::Failed { code: 1, message: "no such volume".to_owned() });
    }

    #[test]
    fn a_child_that_ends_silently_is_a_failure() {
        for (code, expected) in [(0, 1), (7, 7)] {
            let started = fork_and_wait(None, move |_| Ok(code)).unwrap();
            assert!(matches!(started, Started::Failed { code, .. } if code == expected));
        }
    }
}
