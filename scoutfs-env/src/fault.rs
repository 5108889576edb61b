// SPDX-License-Identifier: GPL-2.0-only
//! Faults that the cluster simulation plants in the protocols, to see that it finds them. Only a build with the feature
//! `sim` has them: in all others [`planted`] is the constant `false`, and what it guards is not compiled.

/// A way to get a protocol wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// None.
    None,
    /// A commit's record does not wait for the data that it refers to.
    SkipDataFlush,
    /// Nor does a super block for the blocks that it refers to.
    SkipServerFlush,
    /// A commit's record is not made durable.
    VolatileRecord,
    /// A lock is granted before the revoke of those in its way is answered.
    GrantBeforeRevoke,
    /// A lock goes back without a commit of what was written under it.
    RevokeWithoutCommit,
    /// Items stay in the cache when the lock that covers them goes back.
    KeepCacheOnRevoke,
    /// Whoever gets a lock does not read what others have committed under it.
    IgnoreNews,
    /// A mount does not tell a new server which locks it holds.
    ForgetLocks,
    /// Requests are not sent again in a new session.
    DropResend,
    /// A voter votes for two candidates of one term.
    VoteTwice,
    /// The winner of an election does not wait for the end of an older lease.
    ServeAtOnce,
    /// A leader goes on without a valid lease.
    LeadWithoutLease,
    /// A hand-over of space has the number of the one before.
    ReuseHandOver,
    /// The super block is read before the slots that it tells how to read.
    SuperBeforeSlots,
    /// A mount reads, and its commits count, after its lease has ended.
    IgnoreLease,
    /// A mount is fenced before its lease has ended.
    FenceEarly,
    /// A record that a fenced mount wrote late counts.
    LateRecordCounts,
    /// Deletions are dropped while logs still hold what they hide.
    DropTombstones,
    /// Logs that were merged are merged again.
    MergeAgain,
    /// A mount whose lease ran out counts as dead: what it may still write is used again.
    ReuseQuarantined,
    /// Blocks that a fenced mount may still write are written in place.
    WriteInPlace,
    /// A leader that follows one which may live writes blocks before a super block names them.
    WriteUnnamed,
}

impl Fault {
    /// All of them, without [`Fault::None`].
    pub const ALL: &'static [Fault] = &[
        Fault::SkipDataFlush,
        Fault::SkipServerFlush,
        Fault::VolatileRecord,
        Fault::GrantBeforeRevoke,
        Fault::RevokeWithoutCommit,
        Fault::KeepCacheOnRevoke,
        Fault::IgnoreNews,
        Fault::ForgetLocks,
        Fault::DropResend,
        Fault::VoteTwice,
        Fault::ServeAtOnce,
        Fault::LeadWithoutLease,
        Fault::ReuseHandOver,
        Fault::SuperBeforeSlots,
        Fault::IgnoreLease,
        Fault::FenceEarly,
        Fault::LateRecordCounts,
        Fault::DropTombstones,
        Fault::MergeAgain,
        Fault::ReuseQuarantined,
        Fault::WriteInPlace,
        Fault::WriteUnnamed,
    ];
}

#[cfg(feature = "sim")]
static PLANTED: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

/// Plants a fault in this process; [`Fault::None`] takes it away.
#[cfg(feature = "sim")]
pub fn plant(fault: Fault) {
    PLANTED.store(fault as u32, core::sync::atomic::Ordering::Relaxed);
}

/// Whether this fault is planted.
#[cfg(feature = "sim")]
#[inline]
pub fn planted(fault: Fault) -> bool {
    PLANTED.load(core::sync::atomic::Ordering::Relaxed) == fault as u32
}

/// Whether this fault is planted: never.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub const fn planted(_: Fault) -> bool {
    false
}
