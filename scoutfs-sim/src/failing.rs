// SPDX-License-Identifier: GPL-2.0-only
//! A disk on which requests fail.
//!
//! A request that fails does nothing, which is one of the things that a failed write may have done; the crash tests have
//! the others.
//!
//! # Locking
//!
//! The plan is behind one mutex, a leaf, held to count a request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scoutfs_env::device::{BlockDevice, EIO, IoError, IoOp};

use crate::disk::Disk;

/// Which requests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Requests of this kind are counted. A durable write is a write.
    pub op: IoOp,
    /// So many of them succeed.
    pub after: u64,
    /// How many fail then.
    pub count: u64,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    seen: u64,
    failed: u64,
}

/// See the module. Copies of this value are the same disk.
#[derive(Clone)]
pub struct FailingDisk {
    disk: Disk,
    state: Arc<Mutex<State>>,
}

impl FailingDisk {
    /// A disk on which nothing fails yet.
    pub fn new(disk: Disk) -> FailingDisk {
        FailingDisk { disk, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to count, for this plan.
    pub fn fail(&self, plan: Plan) {
        *self.state() = State { plan: Some(plan), seen: 0, failed: 0 };
    }

    /// Lets everything succeed again, and says how many requests failed.
    pub fn heal(&self) -> u64 {
        std::mem::take(&mut *self.state()).failed
    }

    /// How many requests failed since the plan was made.
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    /// Whether the plan is that one request fails.
    pub fn once(&self) -> bool {
        self.state().plan.is_some_and(|plan| plan.count == 1)
    }

    fn admit(&self, op: IoOp, offset: u64, len: usize) -> Result<(), IoError> {
        let mut state = self.state();
        let Some(plan) = state.plan.filter(|plan| plan.op == op) else { return Ok(()) };
        state.seen += 1;
        if state.seen <= plan.after || state.failed >= plan.count {
            return Ok(());
        }
        state.failed += 1;
        Err(IoError { op, offset, len, errno: EIO })
    }
}

impl BlockDevice for FailingDisk {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.admit(IoOp::Read, offset, buf.len())?;
        self.disk.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.admit(IoOp::Write, offset, buf.len())?;
        self.disk.write(offset, buf)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.admit(IoOp::Flush, 0, 0)?;
        self.disk.flush()
    }

    fn write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.admit(IoOp::Write, offset, buf.len())?;
        self.disk.write_durable(offset, buf)
    }
}
