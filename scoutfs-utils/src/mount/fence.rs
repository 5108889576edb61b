// SPDX-License-Identifier: GPL-2.0-only
//! The fence agent: a program of the administrator's that makes certain that a node cannot write any more, by cutting its power or
//! its way to the device.
//!
//! The server asks, again and again, whether a mount that it has fenced is dead for certain. Where this machine does not know by
//! itself, the program is run, by a thread of its own, for one mount at a time and not too often. What a run of it has confirmed is
//! remembered, until this process ends.
//!
//! Locking: one mutex, a leaf.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use scoutfs_format::voter::ProcessId;
use scoutfs_server::{DeathOracle, Suspect};

use super::LocalProcesses;
use crate::commands::status::voter_address;

/// A run of the program that takes longer is ended, and has failed.
const LIMIT: Duration = Duration::from_secs(30);
/// After a run that failed, the next one begins so much later.
const PACE: Duration = Duration::from_secs(10);
/// How often to look whether the program has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Knows the processes of this machine, and asks the program about others.
pub struct FenceAgent {
    local: LocalProcesses,
    program: Arc<Program>,
    state: Arc<Mutex<State>>,
}

struct Program {
    path: PathBuf,
    device: PathBuf,
    fsid: u64,
}

#[derive(Default)]
struct State {
    /// The program runs.
    running: bool,
    /// When it may run again for a mount, by its rid.
    next: BTreeMap<u64, Instant>,
    /// Confirmed by it.
    dead: Vec<ProcessId>,
}

impl FenceAgent {
    /// Will run this program for the volume on this device.
    pub fn new(path: PathBuf, device: PathBuf, fsid: u64) -> Self {
        let program = Arc::new(Program { path, device, fsid });
        FenceAgent { local: LocalProcesses::new(), program, state: Arc::default() }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DeathOracle for FenceAgent {
    fn is_dead(&self, process: &ProcessId) -> bool {
        self.local.is_dead(process) || lock(&self.state).dead.contains(process)
    }

    fn confirm(&self, suspect: &Suspect) -> bool {
        if self.is_dead(&suspect.process) {
            return true;
        }
        let mut state = lock(&self.state);
        let due = state.next.get(&suspect.rid).is_none_or(|next| *next <= Instant::now());
        if state.running || !due {
            return false;
        }
        let (program, shared, suspect) = (self.program.clone(), self.state.clone(), *suspect);
        let run = move || {
            let fenced = program.run(&suspect);
            let mut state = lock(&shared);
            state.running = false;
            if fenced {
                state.next.remove(&suspect.rid);
                state.dead.push(suspect.process);
            } else {
                state.next.insert(suspect.rid, Instant::now() + PACE);
            }
        };
        // Without a thread it is tried again.
        state.running = thread::Builder::new().name("scoutfs-fence".into()).spawn(run).is_ok();
        false
    }
}

impl Program {
    /// Runs it to its end. True when it says that the mount is fenced.
    fn run(&self, suspect: &Suspect) -> bool {
        let rid = format!("{:016x}", suspect.rid);
        let address = voter_address(&self.device, suspect.rid);
        let ip = address.map(|address| address.ip().to_string()).unwrap_or_default();
        let mut command = Command::new(&self.path);
        command
            .arg(&rid)
            .arg(&ip)
            .env("SCOUTFS_FENCED_REQ_RID", &rid)
            .env("SCOUTFS_FENCED_REQ_IP", &ip)
            .env("SCOUTFS_FENCED_REQ_FSID", format!("{:016x}", self.fsid))
            .env("SCOUTFS_FENCED_REQ_DEVICE", &self.device)
            .env("SCOUTFS_FENCED_REQ_REASON", "unresponsive")
            .stdin(Stdio::null())
            .process_group(0);
        scoutfs_env::info!("mount {rid}: running the fence agent {}", self.path.display());
        match run_for(&mut command, LIMIT) {
            Ok(()) => {
                scoutfs_env::info!("mount {rid}: the fence agent says that it is fenced");
                true
            }
            Err(why) => {
                scoutfs_env::error!("mount {rid}: the fence agent {}: {why}", self.path.display());
                false
            }
        }
    }
}

/// Runs a command, the first of a process group, for `limit` at most.
fn run_for(command: &mut Command, limit: Duration) -> Result<(), String> {
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let end = Instant::now() + limit;
    loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(status.to_string()),
            None if Instant::now() < end => thread::sleep(LOOK),
            None => break,
        }
    }
    // It has not been waited for, so the number is still its own.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = child.wait();
    Err(format!("it took more than {} s", limit.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        command
    }

    #[test]
    fn a_program_that_fails_or_takes_too_long_has_not_fenced() {
        assert_eq!(run_for(&mut sh("exit 0"), LIMIT), Ok(()));
        assert!(run_for(&mut sh("exit 3"), LIMIT).is_err_and(|why| why.contains('3')));
        assert!(run_for(&mut sh("kill -9 $$"), LIMIT).is_err());
        assert!(run_for(&mut Command::new("/no/such/program"), LIMIT).is_err());
        let limit = Duration::from_millis(200);
        assert!(run_for(&mut sh("sleep 1000 & wait"), limit).is_err_and(|why| why.contains("took more")));
    }

    #[test]
    fn what_the_program_confirms_is_dead_and_it_does_not_run_for_processes_of_this_machine() {
        let agent = |path: &str| FenceAgent::new(path.into(), "/dev/null".into(), 1);
        let other = ProcessId { machine_id: [7; 16], pid: 5.into(), ..Default::default() };
        let suspect = |rid, process| Suspect { rid, process };
        let good = agent("true");
        let end = Instant::now() + LIMIT;
        while !good.confirm(&suspect(1, other)) {
            assert!(Instant::now() < end);
            thread::sleep(LOOK);
        }
        assert!(good.is_dead(&other));
        assert!(!good.is_dead(&ProcessId { pid: 6.into(), ..other }));
        // One that was on this machine and is gone, and a program that would not say so.
        let bad = agent("false");
        let gone = ProcessId { boot_id: [9; 16], ..crate::mount::this_process() };
        assert!(bad.confirm(&suspect(2, gone)) && !lock(&bad.state).running);
        assert!(!bad.confirm(&suspect(3, other)));
        while lock(&bad.state).running {
            assert!(Instant::now() < end);
            thread::sleep(LOOK);
        }
        // Not again at once.
        assert!(!bad.confirm(&suspect(3, other)) && !lock(&bad.state).running);
        assert!(!bad.confirm(&suspect(4, other)) && lock(&bad.state).running, "another has its own time");
    }

    /// Invariants 56 (slow fencing holds nothing up) and 59 (asking twice does no harm): the server's thread is what asks, and it
    /// serves and beats go on while the program runs, which here ends only after it was asked for many times.
    #[test]
    fn a_program_that_takes_long_is_not_waited_for_and_runs_once() {
        let dir = std::env::temp_dir().join(format!("scoutfs-fence-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let script = dir.join("agent");
        let runs = dir.join("agent.runs");
        let text = "#!/bin/sh\necho run >> $0.runs\nwhile [ ! -e $0.go ]; do sleep 0.05; done\n";
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let agent = FenceAgent::new(script, "/dev/null".into(), 1);
        let process = ProcessId { machine_id: [7; 16], pid: 5.into(), ..Default::default() };
        let suspect = Suspect { rid: 1, process };
        let began = Instant::now();
        assert!(!agent.confirm(&suspect));
        while !runs.exists() {
            assert!(began.elapsed() < LIMIT, "it does not begin");
            thread::sleep(LOOK);
        }
        for _ in 0..10 {
            assert!(!agent.confirm(&suspect) && !agent.is_dead(&process));
        }
        std::fs::write(dir.join("agent.go"), "").unwrap();
        while !agent.confirm(&suspect) {
            assert!(began.elapsed() < LIMIT, "it does not end");
            thread::sleep(LOOK);
        }
        assert!(agent.confirm(&suspect));
        assert_eq!(std::fs::read_to_string(&runs).unwrap(), "run\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
