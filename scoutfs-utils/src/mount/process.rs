// SPDX-License-Identifier: GPL-2.0-only
//! Naming this process, and knowing which processes are certainly dead.
//!
//! A machine can confirm the death of its own former mounts: the process is gone, or the machine was booted since. It
//! knows nothing of other machines, so the machine's own name must be its alone: it is made of the machine id and, since
//! copied installations may share that, the id of the hardware.

use std::fs;

use scoutfs_format::item::name_hash;
use scoutfs_format::voter::ProcessId;
use scoutfs_server::DeathOracle;

/// When a process started, in clock ticks since boot; `None` when there is no such process.
fn start_of(pid: u64) -> Option<u64> {
    living_since(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The same, by the text of `stat`. A zombie does nothing more; but one whose first thread has ended may have others, which
/// wait for their last writes.
fn living_since(stat: &str) -> Option<u64> {
    // The second field is the command in parentheses, which may hold anything.
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    if matches!(state, "Z" | "X") && threads <= 1 {
        return None;
    }
    fields.nth(1)?.parse().ok()
}

fn hex_id(text: &str) -> [u8; 16] {
    let mut id = [0; 16];
    let digits: Vec<u8> = text.bytes().filter_map(|b| (b as char).to_digit(16)).map(|d| d as u8).collect();
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        *byte = pair[0] << 4 | pair.get(1).copied().unwrap_or(0);
    }
    id
}

pub(super) fn boot_id() -> [u8; 16] {
    hex_id(&fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default())
}

pub(super) fn machine_id() -> [u8; 16] {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let machine = read("/etc/machine-id");
    let hardware = read("/sys/class/dmi/id/product_uuid");
    let host = read("/proc/sys/kernel/hostname");
    let mut id = [0; 16];
    let (low, high) = id.split_at_mut(8);
    low.copy_from_slice(&name_hash(format!("{machine}/{hardware}").as_bytes()).to_le_bytes());
    high.copy_from_slice(&name_hash(format!("{host}/{hardware}/{machine}").as_bytes()).to_le_bytes());
    id
}

/// This process.
pub fn this_process() -> ProcessId {
    let pid = std::process::id().into();
    ProcessId {
        machine_id: machine_id(),
        boot_id: boot_id(),
        pid: u64::into(pid),
        start: start_of(pid).unwrap_or(0).into(),
    }
}

/// Knows the processes of this machine.
pub struct LocalProcesses {
    machine_id: [u8; 16],
    boot_id: [u8; 16],
}

impl LocalProcesses {
    /// As things are now.
    pub fn new() -> Self {
        LocalProcesses { machine_id: machine_id(), boot_id: boot_id() }
    }
}

impl Default for LocalProcesses {
    fn default() -> Self {
        Self::new()
    }
}

impl DeathOracle for LocalProcesses {
    fn is_dead(&self, process: &ProcessId) -> bool {
        if process.machine_id != self.machine_id {
            return false;
        }
        if process.boot_id != self.boot_id {
            return true;
        }
        // A mount of the kernel itself: no process says whether it lives.
        process.pid.get() != 0 && start_of(process.pid.get()) != Some(process.start.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_an_ended_one_is_dead() {
        let oracle = LocalProcesses::new();
        let me = this_process();
        assert!(!oracle.is_dead(&me));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = u64::from(child.id());
        let other = ProcessId { pid: pid.into(), start: start_of(pid).unwrap().into(), ..me };
        assert!(!oracle.is_dead(&other));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(oracle.is_dead(&other));
    }

    #[test]
    fn a_zombie_is_dead_when_its_last_thread_is() {
        let stat = |state, threads| {
            format!("7 (a) b) {state} 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 {threads} 0 4711 99 100")
        };
        assert_eq!(living_since(&stat("S", 4)), Some(4711));
        assert_eq!(living_since(&stat("Z", 4)), Some(4711), "others still write");
        assert_eq!(living_since(&stat("Z", 1)), None);
        assert_eq!(living_since(&stat("Z", 0)), None);
        assert_eq!(living_since(&stat("X", 0)), None);
    }

    #[test]
    fn a_reused_pid_and_an_earlier_boot_are_dead_but_another_machine_is_unknown() {
        let oracle = LocalProcesses::new();
        let me = this_process();
        assert!(oracle.is_dead(&ProcessId { start: (me.start.get() + 1).into(), ..me }));
        assert!(oracle.is_dead(&ProcessId { boot_id: [7; 16], ..me }));
        assert!(!oracle.is_dead(&ProcessId { machine_id: [7; 16], boot_id: [7; 16], ..me }));
    }

    #[test]
    fn a_mount_of_the_running_kernel_is_unknown_and_one_of_an_earlier_boot_is_dead() {
        let oracle = LocalProcesses::new();
        let kernel = ProcessId { pid: 0.into(), ..this_process() };
        assert!(!oracle.is_dead(&kernel));
        assert!(oracle.is_dead(&ProcessId { boot_id: [7; 16], ..kernel }));
    }
}
