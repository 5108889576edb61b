// SPDX-License-Identifier: GPL-2.0-only
//! Locks of files: ranges by fcntl, or all of the file by flock; with and without waiting, and turned into others.

use std::time::Duration;

use scoutfs_env::sim;
use scoutfs_fs::Error;
use scoutfs_fs::file_locks::{ByteRange, LockClass, Mode, WantedLock};

use super::super::file_locks::Held;
use super::super::work::End;
use super::{LOCKED, Program, lock};

impl Program<'_> {
    /// Takes a lock, keeps it for a moment, now and then makes another of it, and gives it back. A program has one at a time, so none
    /// waits for itself, but two that both want to write what both read.
    pub(super) fn lock_file(&self) -> Result<(), End> {
        let ino = self.find_in_root(LOCKED)?;
        let class = if sim::below(3) == 0 { LockClass::Flock } else { LockClass::Fcntl };
        let range = if class == LockClass::Flock {
            ByteRange::ALL
        } else {
            let start = sim::below(8);
            ByteRange::new(start, start + sim::below(4)).expect("a range")
        };
        let owner = 1 + self.number as u64;
        let mut held = Held { node: self.node, owner, class, range, mode: any_mode() };
        if !self.set_lock(ino, &held)? {
            return Ok(());
        }
        self.is_told(&held)?;
        sim::sleep(Duration::from_millis(sim::below(100)));
        if sim::below(3) == 0 {
            match self.convert_lock(ino, &held)? {
                Some(now) => held = now,
                None => return Ok(()),
            }
            sim::sleep(Duration::from_millis(sim::below(100)));
        }
        // Others may have it before this returns.
        lock(&self.world.file_locks).given_back(&held);
        sim::note(format_args!("unlocked {class:?} {range:?}"));
        self.fs.set_lock(&WantedLock { mode: Mode::Null, ..self.wanted(ino, &held) }, None)?;
        Ok(())
    }

    /// Makes of a lock one of another mode and of more bytes. With fcntl what was held is held all the time, at least in the weaker of
    /// both modes, and when it is refused in the old one; flock loses it.
    fn convert_lock(&self, ino: u64, held: &Held) -> Result<Option<Held>, End> {
        let (old, mode) = (*held, any_mode());
        let (start, end) = (old.range.start(), old.range.end());
        let longer = ByteRange::new(start - sim::below(start.min(3) + 1), end.saturating_add(sim::below(4)));
        let range = if old.class == LockClass::Flock { old.range } else { longer.expect("a range") };
        let (new, least) = (Held { range, mode, ..old }, Held { mode: mode.min(old.mode), ..old });
        lock(&self.world.file_locks).given_back(&old);
        let keeps = old.class == LockClass::Fcntl || mode == old.mode;
        if keeps {
            self.is_told(&least)?;
        }
        let done = self.set_lock(ino, &new)?;
        lock(&self.world.file_locks).given_back(&least);
        if !done && !keeps {
            sim::note(format_args!("lost {:?}", old.class));
            return Ok(None);
        }
        let now = if done { new } else { old };
        self.is_told(&now)?;
        Ok(Some(now))
    }

    fn wanted(&self, ino: u64, lock: &Held) -> WantedLock {
        let Held { owner, class, range, mode, .. } = *lock;
        WantedLock { ino, class, owner, file: 0, pid: owner as u32, range, mode }
    }

    /// Whether it was given.
    fn set_lock(&self, ino: u64, wanted: &Held) -> Result<bool, End> {
        let stop = || lock(&self.world.flow).stop;
        let waits = sim::below(2) == 0;
        match self.fs.set_lock(&self.wanted(ino, wanted), waits.then_some(&stop as &dyn Fn() -> bool)) {
            Ok(()) => Ok(true),
            Err(Error::Locked) if !waits => Ok(false),
            Err(Error::Interrupted) if waits && stop() => Ok(false),
            Err(Error::Deadlock) if waits && wanted.class == LockClass::Fcntl => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// A program knows that it has a lock.
    fn is_told(&self, held: &Held) -> Result<(), End> {
        let Held { class, range, mode, .. } = held;
        sim::note(format_args!("locked {class:?} {range:?} {mode:?}"));
        let is_valid = |node| lock(&self.world.rules).is_valid(node, sim::clock_of);
        lock(&self.world.file_locks).taken(*held, is_valid).map_err(End::Unexpected)
    }
}

fn any_mode() -> Mode {
    if sim::below(2) == 0 { Mode::Write } else { Mode::Read }
}
