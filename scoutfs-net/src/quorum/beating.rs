// SPDX-License-Identifier: GPL-2.0-only
//! The voters that a leader needs, so that it notices when it has lost the network.

use scoutfs_format::geometry::MAX_VOTERS;

const MAX_OTHERS: usize = MAX_VOTERS as usize - 1;

/// Another voter that beats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherVoter {
    /// Its mount.
    pub rid: u64,
    /// Whether it says that its mount is connected to the server of this leader.
    pub connected: bool,
}

/// The voters that beat, as a leader saw them last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beating {
    /// Voters that are a majority of all slots.
    quorum: usize,
    others: [OtherVoter; MAX_OTHERS],
    count: usize,
}

impl Beating {
    /// The leader beats, and these do. A majority of all slots is `quorum`.
    pub fn new(quorum: usize, others: impl Iterator<Item = OtherVoter>) -> Self {
        let mut beating = Beating { quorum, ..Beating::default() };
        for (place, other) in beating.others.iter_mut().zip(others) {
            *place = other;
            beating.count += 1;
        }
        beating
    }

    /// Whether the leader reaches too few for it to have the network, itself included: fewer than a majority, and not all that beat.
    pub fn lacks(&self, is_reached: impl Fn(&OtherVoter) -> bool) -> bool {
        let others = self.others.get(..self.count).unwrap_or_default();
        let reached = others.iter().filter(|other| is_reached(other)).count();
        reached + 1 < self.quorum.min(self.count + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(quorum: usize, connected: &[bool]) -> bool {
        let others = connected.iter().zip(1..).map(|(&connected, rid)| OtherVoter { rid, connected });
        Beating::new(quorum, others).lacks(|other| other.connected)
    }

    #[test]
    fn a_leader_needs_a_majority_or_all_that_beat() {
        assert!(!lacks(1, &[]) && !lacks(2, &[]) && !lacks(3, &[true]));
        assert!(lacks(2, &[false]) && !lacks(2, &[true]));
        assert!(lacks(2, &[false, false]) && !lacks(2, &[false, true]));
        assert!(lacks(3, &[true, false]) && lacks(3, &[true, false, false, false]));
        assert!(!lacks(3, &[true, true, false, false]));
        assert!(!Beating::default().lacks(|_| false));
        // No more than there are slots.
        assert!(!lacks(8, &[true; 20]) && lacks(8, &[false; 20]));
    }
}
