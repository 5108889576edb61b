// SPDX-License-Identifier: GPL-2.0-only
//! A mount's slot: the ring of commit records.
//!
//! A commit is one record in the ring; the newest valid record is the mount's state. The bytes are described in
//! [`scoutfs_format::ring`]; this folder makes and reads them. It does no IO: callers read and write rings and
//! placed records.
//!
//! | module | what |
//! | --- | --- |
//! | `error` | [`RingError`]: what can be wrong with a ring or a record |
//! | `frame` | the 4 KiB frames: sealing, checking, putting a record's stream back together |
//! | `builder` | [`RecordBuilder`]: gathers a record and encodes it |
//! | `record` | [`Record`]: a record that was read and checked; its logs, space entries and items |
//! | `state` | [`parse_ring`]: the newest record of a ring and all that it builds on |
//! | `follow` | [`Follower`]: what came after a state that is known |
//! | `writer` | [`RingWriter`]: where the next record goes |
//!
//! # What must hold
//!
//! - A record counts as a whole or not at all: one damaged or missing frame and it was never written.
//! - The newest checkpoint and all records after it are never written over, so a torn write leaves the state before it.
//! - A checkpoint always fits: a record that would make it impossible is refused with
//!   [`RingError::NeedCheckpoint`].
//! - A number is never used twice in a slot, and after a write error the same bytes go to the same place. So frames
//!   of different records cannot be mistaken for one record.
//!   (A record that was torn by a crash may become whole later, when the next owner's first record is torn over it. It
//!   carries the former owner's epoch, which is asked for no more, and nobody was told that it counts.)
//! - Frames begin at multiples of 4 KiB with a header that no content of a record can reach.
//!
//! # Reading another mount's ring
//!
//! A ring is read in one go, or followed from a state that is known, while its owner may be writing to it. What is read then may be older than expected, or
//! have gaps. A reader compares [`RingState::commit_nr`] with what it was promised, and reads again on a lower number
//! or on an error that is [transient](RingError::may_be_transient).
//!
//! Nothing here locks.

mod builder;
mod error;
mod follow;
mod frame;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub use builder::RecordBuilder;
pub use error::RingError;
pub use follow::Follower;
pub use record::{Record, RecordItem};
pub use state::{RingState, parse_ring};
pub use writer::{CHECKPOINT_FRAMES, Placement, RingWriter};

use scoutfs_format::SECTOR_SIZE;
use scoutfs_format::geometry::RING_FRAMES;

/// Bytes of a ring.
pub const RING_BYTES: usize = RING_FRAMES as usize * SECTOR_SIZE;

/// Whose ring it is: what every frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOwner {
    /// The volume.
    pub fsid: u64,
    /// The mount slot.
    pub slot: u16,
    /// The owner's epoch in the slot.
    pub epoch: u64,
}
