// SPDX-License-Identifier: GPL-2.0-only
//! Whether this node may act as the leader now: what its voter tells its server.
//!
//! A lease ends when the device or the machine was held up for too long. Nothing is written or answered then, until the voter
//! has found that nobody else led meanwhile and the lease goes on, or that leadership is lost.
//!
//! Locking: one mutex, a leaf, for sleeping, and another for the voters that beat.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use scoutfs_env::Arc;
use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::probe::{self, Event};
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::time::{self, Mono};
use scoutfs_net::quorum::Beating;

/// How often who waits looks whether to give up.
const LOOK: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Leadership {
    /// End of the lease, in nanoseconds of the monotonic clock.
    lease_until: AtomicU64,
    lost: AtomicBool,
    /// Threads that write as the leader.
    acting: AtomicU32,
    asleep: Mutex<()>,
    changed: Condvar,
    beating: Mutex<Beating>,
}

/// Held by a thread that writes as the leader, or is about to: it looks afterwards whether leadership is lost.
pub(super) struct Acting(Arc<Leadership>);

impl Acting {
    pub fn new(leadership: &Arc<Leadership>) -> Self {
        leadership.acting.fetch_add(1, Ordering::SeqCst);
        Acting(leadership.clone())
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        self.0.acting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What waiting for a valid lease has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// It is valid, and was all the time.
    Valid,
    /// It is valid again.
    Resumed,
    /// Leadership is lost, or nobody wants to know any more.
    Over,
}

impl Leadership {
    pub fn new(lease_until: Mono) -> Self {
        Leadership {
            lease_until: AtomicU64::new(lease_until.as_ns()),
            lost: AtomicBool::new(false),
            acting: AtomicU32::new(0),
            asleep: Mutex::new(()),
            changed: Condvar::new(),
            beating: Mutex::new(Beating::default()),
        }
    }

    /// The voter has seen these beat.
    pub fn set_beating(&self, beating: &Beating) {
        *self.beating.lock() = *beating;
    }

    /// The voters that beat, as seen last.
    pub(super) fn beating(&self) -> Beating {
        *self.beating.lock()
    }

    /// The voter knows this of the lease.
    pub fn set_lease(&self, until: Mono) {
        if self.lease_until.swap(until.as_ns(), Ordering::AcqRel) != until.as_ns() {
            probe::tell(Event::LeaderLease(until));
            self.wake();
        }
    }

    /// Another leads, or may. It stays so.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether leadership is lost.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Whether anything may still be written as the leader. Once leadership is lost and this is false, it stays so.
    pub(super) fn is_acting(&self) -> bool {
        self.acting.load(Ordering::SeqCst) > 0
    }

    fn wake(&self) {
        drop(self.asleep.lock());
        self.changed.notify_all();
    }

    /// When the lease ends, as far as it is known; [`Mono::MAX`] of a node that has never led. The lease of the leader's own mount
    /// ends with it, by which the next leader takes that mount back without waiting.
    pub fn lease_end(&self) -> Mono {
        match self.lease_until.load(Ordering::Acquire) {
            0 => Mono::MAX,
            until => Mono::from_ns(until),
        }
    }

    fn is_valid(&self) -> bool {
        time::mono_now().as_ns() < self.lease_until.load(Ordering::Acquire)
    }

    /// Whether the lease is valid now.
    pub(super) fn is_leading(&self) -> bool {
        let leads = !self.is_lost() && self.is_valid() || planted(Fault::LeadWithoutLease);
        if leads {
            probe::tell(Event::Leads);
        }
        leads
    }

    /// Waits until the lease is valid or leadership is lost, or `give_up` says so.
    pub fn wait(&self, give_up: impl Fn() -> bool) -> Lease {
        let mut lease = Lease::Valid;
        loop {
            let goes_on = planted(Fault::LeadWithoutLease);
            if self.is_lost() && !goes_on {
                return Lease::Over;
            }
            if self.is_valid() || goes_on {
                probe::tell(Event::Leads);
                return lease;
            }
            if give_up() {
                return Lease::Over;
            }
            lease = Lease::Resumed;
            let asleep = self.asleep.lock();
            if !self.is_lost() && !self.is_valid() {
                drop(self.changed.wait_timeout(asleep, LOOK));
            }
        }
    }
}
