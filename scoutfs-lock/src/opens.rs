// SPDX-License-Identifier: GPL-2.0-only
//! Which inodes of a group are open.
//!
//! An inode without links lives until it is open nowhere. Nobody is asked for that: who gives a group's lock back says which of
//! its inodes are open there, and who gets it for writing is told which are open elsewhere. What is opened while others have the
//! lock needs the lock, so the holder for writing knows of all; what is closed in between is still told of as open, and whoever
//! closed it looks, under the lock, whether the inode has lost its links meanwhile.

use scoutfs_format::le::U64;
use scoutfs_format::msg::{OPEN_WORDS, OpenInodes};

use crate::name::GROUP_ORDER;

const _: () = assert!(OPEN_WORDS * 64 == 1 << GROUP_ORDER);

/// Open inodes of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Opens([u64; OPEN_WORDS]);

impl Opens {
    /// The word and the bit of an inode number.
    const fn place(ino: u64) -> (usize, u64) {
        let place = ino & ((1 << GROUP_ORDER) - 1);
        ((place / 64) as usize, 1 << (place % 64))
    }

    /// Notes an inode of the group as open.
    pub fn insert(&mut self, ino: u64) {
        let (word, bit) = Self::place(ino);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Notes an inode of the group as closed.
    pub fn remove(&mut self, ino: u64) {
        let (word, bit) = Self::place(ino);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    /// Whether an inode of the group is open.
    pub fn contains(&self, ino: u64) -> bool {
        let (word, bit) = Self::place(ino);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Adds those that are open in another set of the same group.
    pub fn add(&mut self, other: &Opens) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// As received; any bits are fine.
    pub fn from_raw(raw: &OpenInodes) -> Opens {
        let mut opens = Opens::default();
        for (word, raw) in opens.0.iter_mut().zip(&raw.words) {
            *word = raw.get();
        }
        opens
    }

    /// As it is sent.
    pub fn to_raw(&self) -> OpenInodes {
        let mut words = [U64::ZERO; OPEN_WORDS];
        for (raw, word) in words.iter_mut().zip(&self.0) {
            *raw = U64::new(*word);
        }
        OpenInodes { words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn it_is_a_set(group in 0u64..1 << 40, steps: Vec<(bool, u16)>, others: Vec<u16>) {
            let ino = |n: u16| (group << GROUP_ORDER) + u64::from(n) % (1 << GROUP_ORDER);
            let (mut opens, mut model) = (Opens::default(), BTreeSet::new());
            for (insert, n) in steps {
                if insert {
                    opens.insert(ino(n));
                    model.insert(ino(n));
                } else {
                    opens.remove(ino(n));
                    model.remove(&ino(n));
                }
                prop_assert_eq!(opens.is_empty(), model.is_empty());
            }
            let mut other = Opens::default();
            for n in others {
                other.insert(ino(n));
                model.insert(ino(n));
            }
            opens.add(&other);
            for n in 0..1 << GROUP_ORDER {
                prop_assert_eq!(opens.contains(ino(n)), model.contains(&ino(n)));
            }
            prop_assert_eq!(Opens::from_raw(&opens.to_raw()), opens);
        }
    }
}
