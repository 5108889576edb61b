// SPDX-License-Identifier: GPL-2.0-only
//! Locks of files: ranges by fcntl, or all of the file by flock; with and without waiting.

use std::time::Duration;

use scoutfs_env::sim;
use scoutfs_fs::Error;
use scoutfs_fs::file_locks::{ByteRange, LockClass, Mode, WantedLock};

use super::super::file_locks::Held;
use super::super::work::End;
use super::{LOCKED, Program, lock};

impl Program<'_> {
    /// Takes a lock, keeps it for a moment and gives it back. A program has one at a time, so none waits for itself.
    pub(super) fn lock_file(&self) -> Result<(), End> {
        let ino = self.find_in_root(LOCKED)?;
        let class = if sim::below(3) == 0 { LockClass::Flock } else { LockClass::Fcntl };
        let range = if class == LockClass::Flock {
            ByteRange::ALL
        } else {
            let start = sim::below(8);
            ByteRange::new(start, start + sim::below(4)).expect("a range")
        };
        let mode = if sim::below(2) == 0 { Mode::Write } else { Mode::Read };
        let (owner, pid) = (1 + self.number as u64, 1 + self.number as u32);
        let wanted = WantedLock { ino, class, owner, file: 0, pid, range, mode };
        let stop = || lock(&self.world.flow).stop;
        let waits = sim::below(2) == 0;
        match self.fs.set_lock(&wanted, waits.then_some(&stop as &dyn Fn() -> bool)) {
            Ok(()) => {}
            Err(Error::Locked) if !waits => return Ok(()),
            Err(Error::Interrupted) if waits && stop() => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        sim::note(format_args!("locked {class:?} {range:?} {mode:?}"));
        let held = Held { node: self.node, owner, class, range, mode };
        let is_valid = |node| lock(&self.world.rules).is_valid(node, sim::clock_of);
        let taken = lock(&self.world.file_locks).taken(held, is_valid);
        if let Err(why) = taken {
            return Err(End::Unexpected(why));
        }
        sim::sleep(Duration::from_millis(sim::below(100)));
        // Others may have it before this returns.
        lock(&self.world.file_locks).given_back(&held);
        sim::note(format_args!("unlocked {class:?} {range:?}"));
        self.fs.set_lock(&WantedLock { mode: Mode::Null, ..wanted }, None)?;
        Ok(())
    }
}
