// SPDX-License-Identifier: GPL-2.0-only
//! That locks of files exclude each other: as far as programs know what they have.
//!
//! A program on a mount whose lease has ended may have lost its locks and not know it yet; every use of the mount tells it, so what it has
//! is in nobody's way.

use scoutfs_env::sim::Node;
use scoutfs_fs::file_locks::{ByteRange, LockClass, Mode};

/// A lock that a program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// On this mount.
    pub node: Node,
    /// Which program of it.
    pub owner: u64,
    /// How it was taken.
    pub class: LockClass,
    /// Of these bytes.
    pub range: ByteRange,
    /// Alone, or with others.
    pub mode: Mode,
}

/// All that programs have of the one file that is locked.
#[derive(Default)]
pub struct FileLocks(Vec<Held>);

impl FileLocks {
    /// A program was given a lock. Says what is in its way, if anything of a mount that `is_valid` is.
    pub fn taken(&mut self, lock: Held, is_valid: impl Fn(Node) -> bool) -> Result<(), String> {
        let excludes = |other: &Held| {
            other.class == lock.class
                && (other.node, other.owner) != (lock.node, lock.owner)
                && (other.mode == Mode::Write || lock.mode == Mode::Write)
                && other.range.start() <= lock.range.end()
                && lock.range.start() <= other.range.end()
        };
        // Of the one that has it, too: it may have been given and lost before the program ran on.
        let other =
            self.0.iter().find(|other| excludes(other) && is_valid(other.node) && is_valid(lock.node));
        if let Some(other) = other {
            return Err(format!("{lock:?} was given, and there is {other:?}"));
        }
        self.0.push(lock);
        Ok(())
    }

    /// A program is about to give a lock back.
    pub fn given_back(&mut self, lock: &Held) {
        self.0.retain(|other| other != lock);
    }

    /// A mount is dead, and its programs.
    pub fn died(&mut self, node: Node) {
        self.0.retain(|lock| lock.node != node);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scoutfs_env::sim::{self, Config, Outcome};

    use super::*;

    #[test]
    fn locks_in_each_others_way_are_found() {
        let longest = Duration::from_secs(1);
        let config = Config { seed: 1, preempt: 1, longest, steps: 1000, trace: false, backtraces: false };
        let report = sim::run(config, || {
            let (a, b) = (sim::add_node(0), sim::add_node(0));
            let range = |start, end| ByteRange::new(start, end).expect("a range");
            let held = |node, start, end, mode| Held {
                node,
                owner: 1,
                class: LockClass::Fcntl,
                range: range(start, end),
                mode,
            };
            let mut locks = FileLocks::default();
            let first = held(a, 0, 4, Mode::Read);
            assert!(locks.taken(first, |_| true).is_ok());
            assert!(locks.taken(held(b, 4, 8, Mode::Read), |_| true).is_ok());
            assert!(locks.taken(held(b, 5, 8, Mode::Write), |_| true).is_ok());
            assert!(locks.taken(Held { class: LockClass::Flock, ..first }, |_| true).is_ok());
            let second = held(b, 4, 9, Mode::Write);
            assert!(locks.taken(second, |_| true).is_err());
            assert!(locks.taken(second, |node| node != a).is_ok(), "of a mount without a lease");
            locks.died(b);
            locks.given_back(&first);
            assert!(locks.taken(second, |_| true).is_ok());
        });
        assert_eq!(report.outcome, Outcome::Finished);
    }
}
