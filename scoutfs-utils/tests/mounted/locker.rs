// SPDX-License-Identifier: GPL-2.0-only
//! A process that takes locks on files as it is told, line by line: this very program, started anew.

use std::fs::File;
use std::io::{BufRead, BufReader, Write, stdin};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Signal;

use crate::run::{SOON, open_at, spawn, wait_until};

/// Begins each line of an answer: the test harness prints lines, too.
const MARK: &str = "locker: ";

/// What a process that waits must not do meanwhile: to be answered. Longer only makes the test surer.
const MEANWHILE: Duration = Duration::from_millis(300);

/// The process.
pub struct Locker {
    child: Child,
    /// Its thread that obeys.
    thread: i32,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Locker {
    /// Starts a process that opens a file for reading and writing.
    pub fn new(path: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "locker::obey", "--ignored", "--nocapture"]);
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
        let (orders, lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (say, answers) = channel();
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                // The harness begins its own line without an end.
                if let Some((_, answer)) = line.split_once(MARK)
                    && say.send(answer.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        let mut locker = Locker { child, thread: 0, orders, answers };
        locker.thread = locker.ask("thread").parse().unwrap();
        assert_eq!(locker.ask(&format!("open {}", path.display())), "ok");
        locker
    }

    /// Gives an order.
    pub fn begin(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// The answer to it.
    pub fn answer(&mut self) -> String {
        self.answer_within(SOON)
    }

    /// The answer to it, which may take long.
    pub fn answer_within(&mut self, limit: Duration) -> String {
        self.answers.recv_timeout(limit).unwrap_or_else(|e| panic!("no answer within {limit:?}: {e}"))
    }

    /// Gives an order and waits for the answer.
    pub fn ask(&mut self, order: &str) -> String {
        self.begin(order);
        self.answer()
    }

    /// Gives an order that has it wait for a lock, and sees that it does.
    pub fn wait(&mut self, order: &str) {
        self.begin(order);
        let proc = format!("/proc/{0}/task/{1}/syscall", self.child.id(), self.thread);
        let (fcntl, flock) = (libc::SYS_fcntl.to_string(), libc::SYS_flock.to_string());
        wait_until("the process waits for a lock", SOON, || {
            let call = std::fs::read_to_string(&proc).unwrap_or_default();
            let call = call.split(' ').next().unwrap_or_default();
            call == fcntl || call == flock
        });
        self.still_waits();
    }

    /// It has no answer yet.
    pub fn still_waits(&mut self) {
        assert_eq!(self.answers.recv_timeout(MEANWHILE), Err(RecvTimeoutError::Timeout));
    }

    /// Sends a signal: USR1 interrupts what it waits for, USR2 does not.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().cast_signed();
        // SAFETY: only a system call.
        let result = unsafe { libc::syscall(libc::SYS_tgkill, pid, self.thread, signal.as_raw()) };
        assert_eq!(result, 0);
    }

    /// Kills it and waits until it is gone, which says that nothing in the kernel holds it.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        wait_until("a killed process is gone", SOON, || self.child.try_wait().unwrap().is_some());
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // One that hangs in the kernel must not keep the test from ending.
        for _ in 0..100 {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(20)),
                _ => return,
            }
        }
    }
}

extern "C" fn nothing(_: libc::c_int) {}

fn handle(signal: libc::c_int, flags: libc::c_int) {
    // SAFETY: the action is valid and all of it is set; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = flags;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// The other process's side.
#[test]
#[ignore = "not a test: the process that others talk to"]
fn obey() {
    handle(libc::SIGUSR1, 0);
    handle(libc::SIGUSR2, libc::SA_RESTART);
    // As many descriptors as were opened; orders are about the last one.
    let mut files: Vec<OwnedFd> = Vec::new();
    for line in stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["open", path] => open_at(CWD, path, OFlags::RDWR | OFlags::CREATE, Mode::RUSR | Mode::WUSR)
                .map(|file| files.push(file))
                .map(|()| "ok".to_owned())
                .map_err(std::io::Error::from),
            ["thread"] => Ok(rustix::thread::gettid().as_raw_nonzero().to_string()),
            ["dup"] => files.last().unwrap().try_clone().map(|file| {
                files.push(file);
                "ok".to_owned()
            }),
            // The last one, or the first.
            ["close"] => Ok(files.pop()).map(|_| "ok".to_owned()),
            ["close", "first"] => Ok(files.remove(0)).map(|_| "ok".to_owned()),
            ["write"] => File::from(files.last().unwrap().try_clone().unwrap())
                .write_all(b"x")
                .map(|()| "ok".to_owned()),
            ["flock", how] => flock(files.last().unwrap(), how),
            [call, mode, start, len] => {
                fcntl(files.last().unwrap(), call, mode, start.parse().unwrap(), len.parse().unwrap())
            }
            _ => panic!("what is {line}?"),
        };
        println!("{MARK}{}", answer.unwrap_or_else(|e| name_of(&e)));
    }
}

fn name_of(e: &std::io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::EAGAIN) => "EAGAIN".into(),
        Some(libc::EINTR) => "EINTR".into(),
        Some(libc::EDEADLK) => "EDEADLK".into(),
        Some(libc::EIO) => "EIO".into(),
        Some(libc::ENOTCONN | libc::ECONNABORTED) => "ENOTCONN".into(),
        _ => e.to_string(),
    }
}

fn done(result: libc::c_int) -> std::io::Result<String> {
    if result == 0 { Ok("ok".into()) } else { Err(std::io::Error::last_os_error()) }
}

/// `sh`, `ex`, `un`, and `try-sh`, `try-ex` that do not wait.
fn flock(file: &OwnedFd, how: &str) -> std::io::Result<String> {
    let how = match how {
        "sh" => libc::LOCK_SH,
        "ex" => libc::LOCK_EX,
        "un" => libc::LOCK_UN,
        "try-sh" => libc::LOCK_SH | libc::LOCK_NB,
        "try-ex" => libc::LOCK_EX | libc::LOCK_NB,
        _ => panic!("what is {how}?"),
    };
    // SAFETY: only a system call.
    done(unsafe { libc::flock(file.as_raw_fd(), how) })
}

/// `set`, `wait`, `get`, and the same with `ofd-`; `r`, `w` or `u`.
fn fcntl(file: &OwnedFd, call: &str, mode: &str, start: i64, len: i64) -> std::io::Result<String> {
    let call = match call {
        "set" => libc::F_SETLK,
        "wait" => libc::F_SETLKW,
        "get" => libc::F_GETLK,
        "ofd-set" => libc::F_OFD_SETLK,
        "ofd-wait" => libc::F_OFD_SETLKW,
        "ofd-get" => libc::F_OFD_GETLK,
        _ => panic!("what is {call}?"),
    };
    let mut lock = libc::flock {
        l_type: match mode {
            "r" => libc::F_RDLCK,
            "w" => libc::F_WRLCK,
            _ => libc::F_UNLCK,
        } as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    // SAFETY: the call reads and writes this one structure.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), call, &mut lock) };
    if result == 0 && matches!(call, libc::F_GETLK | libc::F_OFD_GETLK) {
        let mode = match i32::from(lock.l_type) {
            libc::F_RDLCK => "r",
            libc::F_WRLCK => "w",
            _ => return Ok("free".into()),
        };
        return Ok(format!("{mode} {} {} by {}", lock.l_start, lock.l_len, lock.l_pid));
    }
    done(result)
}

impl Locker {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}
