// SPDX-License-Identifier: GPL-2.0-only
//! Naming a mount, and knowing which mounts of this machine are certainly dead.
//!
//! The kernel does not know the machine's and the boot's names that userspace goes by; who mounts gives them as options. A mount
//! that was not given them names a machine of its own, of which nobody knows anything.
//!
//! Mounts of a kernel have the process id 0 and, in place of a start, a number of their own. This module knows which of them
//! live; it says nothing of processes.

use core::sync::atomic::{AtomicU64, Ordering};

use scoutfs_env::sync::Mutex;
use scoutfs_env::{random, AllocError, OrdMap};
use scoutfs_format::voter::ProcessId;
use scoutfs_server::DeathOracle;

use super::clock;

/// The machine and its boot, as userspace names them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) machine_id: [u8; 16],
    pub(crate) boot_id: [u8; 16],
}

/// The numbers of mounts that live.
static LIVE: Mutex<OrdMap<u64, ()>> = Mutex::new(OrdMap::new());
static LAST: AtomicU64 = AtomicU64::new(0);

/// The name of a mount; it counts as alive until this is dropped.
pub(crate) struct Identity {
    machine: Option<Machine>,
    process: ProcessId,
}

impl Identity {
    pub(crate) fn new(machine: Option<Machine>) -> Result<Self, AllocError> {
        // Grows over a reload of the module, too.
        let now = clock::mono_ns();
        let number = LAST.fetch_max(now, Ordering::Relaxed).max(now);
        let number = LAST.fetch_add(1, Ordering::Relaxed).max(number);
        LIVE.lock().insert(number, ())?;
        let Machine { machine_id, boot_id } = machine.unwrap_or_else(|| {
            let mut unknown = Machine { machine_id: [0; 16], boot_id: [0; 16] };
            random::fill(&mut unknown.machine_id);
            random::fill(&mut unknown.boot_id);
            unknown
        });
        let process = ProcessId { machine_id, boot_id, pid: 0.into(), start: number.into() };
        Ok(Identity { machine, process })
    }

    pub(crate) fn process(&self) -> ProcessId {
        self.process
    }

    /// What this machine knows.
    pub(crate) fn oracle(&self) -> Oracle {
        Oracle(self.machine)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let mut live = LIVE.lock();
        live.remove(&self.process.start.get());
        if live.is_empty() {
            // Nobody gives its memory back when the module goes.
            *live = OrdMap::new();
        }
    }
}

/// Knows the mounts of this kernel.
pub(crate) struct Oracle(Option<Machine>);

impl DeathOracle for Oracle {
    fn is_dead(&self, process: &ProcessId) -> bool {
        let Some(machine) = self.0 else { return false };
        if process.machine_id != machine.machine_id {
            return false;
        }
        if process.boot_id != machine.boot_id {
            return true;
        }
        process.pid.get() == 0 && !LIVE.lock().contains_key(&process.start.get())
    }
}
