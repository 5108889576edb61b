// SPDX-License-Identifier: GPL-2.0-only
//! Locks that programs have on files, by fcntl and flock, as they hold across nodes.
//!
//! They have nothing to do with cluster locks: the filesystem itself does not care for them. The server has the table of all; a
//! mount asks it for each, and remembers what it was granted.
//!
//! | module | what |
//! | --- | --- |
//! | `message` | what is said, parsed and checked |
//! | `ranges` | [`Ranges`]: what one owner holds of one file |
//! | `server` | [`FileLockServer`]: who holds what, who waits |
//! | `client` | [`FileLockClient`]: what a mount was granted, and what it has asked for |
//! | `deadlock` | whether somebody would wait for himself |
//!
//! # What must hold
//!
//! - Locks of different owners that overlap are for reading. An owner is a mount and its name for a process or open file
//!   description: other mounts may use the same names.
//! - The locks of fcntl and of flock do not see each other, as on Linux.
//! - Requests of one mount are handled in the order of sending, and each may come again to a new server, in the same order,
//!   after all that the mount held was reported. To handle one again gives what it gave before, or what is right by now.
//! - A mount never reports more than the server before knew: it forgets what it gives back when it asks, and knows what it was
//!   granted when it hears. So reports of different mounts never conflict.
//! - A lock that is free goes to who asks first, and who waits does not keep others from it, as on Linux; among those who wait, to
//!   who has waited longest.
//! - What one mount can have, held and waited for, has an end ([`MAX_HELD`], [`MAX_WAITING`]).

mod client;
mod deadlock;
mod message;
mod ranges;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Answered, FileLockClient};
pub use message::{
    ByteRange, FileId, FileLock, FileLockOp, FileLockReply, FileLockRequest, FileLockResult, Found, LockClass,
};
pub use ranges::{Piece, Ranges};
pub use server::{FileLockOutput, FileLockServer, MAX_HELD, MAX_WAITING};
