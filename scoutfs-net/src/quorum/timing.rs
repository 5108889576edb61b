// SPDX-License-Identifier: GPL-2.0-only
//! The times of an election.

use core::time::Duration;

/// The times of an election, in milliseconds. All nodes of a volume use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From one beat of an owner to the next.
    pub beat_ms: u64,
    /// How long a leader may act after the start of the last reading that confirmed it.
    pub lease_ms: u64,
    /// Added to a lease by those who wait for its end: for clocks that run differently.
    pub margin_ms: u64,
    /// A leader that did not beat for so long is stood against. Any time is safe: the winner waits for the leader's lease in any
    /// case. About a lease, so that a leader whose lease goes on is left alone, and the election is over when the lease and
    /// its margin are.
    pub patience_ms: u64,
    /// A leader that too few of the voters that beat have been connected to for so long resigns. They say so when they have heard
    /// nothing for a while, so this need only be longer than it takes to connect once more.
    pub isolation_ms: u64,
    /// An owner that did not beat for so long is no longer counted upon, and no write of a machine that runs is
    /// still on its way after it. More than `lease_ms + margin_ms`.
    pub dead_ms: u64,
    /// How long a slot must be silent although its owner is confirmed dead: more than a beat, so that a wrong
    /// confirmation (a copied machine with the same boot id) is noticed.
    pub confirmed_ms: u64,
    /// A slot that was silent for so long is taken although nobody confirms the death of its owner; `None`: never.
    pub presumed_ms: Option<u64>,
    /// A write is *prompt* when it is durable within this time from the start of the reading that it followed.
    pub prompt_ms: u64,
    /// From a prompt claim to the reading that tells whether it stands. More than `prompt_ms` by what two clocks can
    /// differ in that time.
    pub settle_ms: u64,
}

/// Times that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A beat of no length.
    #[error("the beat interval is 0 ms")]
    NoBeat,
    /// A leader could not hold on to its lease.
    #[error("a lease of {lease_ms} ms is too short for a beat every {beat_ms} ms")]
    Lease {
        /// As given.
        lease_ms: u64,
        /// As given.
        beat_ms: u64,
    },
    /// A voter would be taken for dead while it leads.
    #[error("the dead time of {dead_ms} ms must be more than lease {lease_ms} ms and margin {margin_ms} ms")]
    Dead {
        /// As given.
        dead_ms: u64,
        /// As given.
        lease_ms: u64,
        /// As given.
        margin_ms: u64,
    },
    /// A live owner would be taken for dead.
    #[error("silence of {found_ms} ms does not tell anything with a beat every {beat_ms} ms")]
    Silence {
        /// As given.
        found_ms: u64,
        /// As given.
        beat_ms: u64,
    },
    /// Another claimer might not be seen.
    #[error("settling for {settle_ms} ms does not show every claim that takes {prompt_ms} ms")]
    Settle {
        /// As given.
        settle_ms: u64,
        /// As given.
        prompt_ms: u64,
    },
}

impl Timing {
    /// For real volumes.
    pub const DEFAULT: Timing = Timing {
        beat_ms: 200,
        lease_ms: 2000,
        margin_ms: 500,
        patience_ms: 1700,
        isolation_ms: 2000,
        dead_ms: 3000,
        confirmed_ms: 600,
        presumed_ms: Some(120_000),
        prompt_ms: 80,
        settle_ms: 100,
    };

    /// Checks that the times go together.
    pub fn check(&self) -> Result<(), TimingError> {
        let &Timing { beat_ms, lease_ms, margin_ms, dead_ms, prompt_ms, settle_ms, .. } = self;
        if beat_ms == 0 {
            return Err(TimingError::NoBeat);
        }
        if lease_ms / 3 < beat_ms {
            return Err(TimingError::Lease { lease_ms, beat_ms });
        }
        if dead_ms <= lease_ms.saturating_add(margin_ms) {
            return Err(TimingError::Dead { dead_ms, lease_ms, margin_ms });
        }
        if self.confirmed_ms / 2 < beat_ms {
            return Err(TimingError::Silence { found_ms: self.confirmed_ms, beat_ms });
        }
        if self.patience_ms / 2 < beat_ms {
            return Err(TimingError::Silence { found_ms: self.patience_ms, beat_ms });
        }
        if self.isolation_ms / 2 < beat_ms {
            return Err(TimingError::Silence { found_ms: self.isolation_ms, beat_ms });
        }
        if let Some(found_ms) = self.presumed_ms
            && found_ms < dead_ms
        {
            return Err(TimingError::Silence { found_ms, beat_ms });
        }
        if settle_ms <= prompt_ms.saturating_add(prompt_ms / 16) {
            return Err(TimingError::Settle { settle_ms, prompt_ms });
        }
        Ok(())
    }

    pub(super) fn beat(&self) -> Duration {
        Duration::from_millis(self.beat_ms)
    }

    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// How long others wait for the end of a lease.
    pub(super) fn lease_and_margin(&self) -> Duration {
        Duration::from_millis(self.lease_ms.saturating_add(self.margin_ms))
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms)
    }

    pub(super) fn isolation(&self) -> Duration {
        Duration::from_millis(self.isolation_ms)
    }

    pub(super) fn dead(&self) -> Duration {
        Duration::from_millis(self.dead_ms)
    }

    pub(super) fn confirmed(&self) -> Duration {
        Duration::from_millis(self.confirmed_ms)
    }

    pub(super) fn presumed(&self) -> Option<Duration> {
        self.presumed_ms.map(Duration::from_millis)
    }

    pub(super) fn prompt(&self) -> Duration {
        Duration::from_millis(self.prompt_ms)
    }

    pub(super) fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_would_allow_two_leaders_are_refused() {
        let with = |change: fn(&mut Timing)| {
            let mut timing = Timing::DEFAULT;
            change(&mut timing);
            timing.check()
        };
        assert_eq!(Timing::DEFAULT.check(), Ok(()));
        assert_eq!(with(|t| t.beat_ms = 0), Err(TimingError::NoBeat));
        assert!(matches!(with(|t| t.lease_ms = 500), Err(TimingError::Lease { .. })));
        assert!(matches!(with(|t| t.dead_ms = 2500), Err(TimingError::Dead { .. })));
        assert!(matches!(with(|t| t.confirmed_ms = 300), Err(TimingError::Silence { .. })));
        assert!(matches!(with(|t| t.patience_ms = 300), Err(TimingError::Silence { .. })));
        assert!(matches!(with(|t| t.isolation_ms = 300), Err(TimingError::Silence { .. })));
        assert!(matches!(with(|t| t.presumed_ms = Some(100)), Err(TimingError::Silence { .. })));
        assert!(matches!(with(|t| t.settle_ms = 80), Err(TimingError::Settle { .. })));
    }
}
