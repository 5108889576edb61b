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
//! - **A request takes or gives back, never both**, and to give back is never refused. So a request that is made once more, to a server
//!   that has handled it already, or to a new one that others asked first, takes nothing away that somebody still has: what a lock of one kind
//!   has to become of another is asked for in steps ([`FileLockClient::next_step`]). A conversion of fcntl that fails leaves what there was,
//!   whatever servers come and go meanwhile.
//! - Requests of one mount are handled in the order of sending, and each may come again, to a new server, in the same order, after
//!   all that the mount holds was reported. A server hears a mount in one session alone (`scoutfs_net::connection`): if it forgot that, it
//!   would keep what it had granted in it to requests that are refused when they are made once more.
//! - A mount never believes to have more than the server knows, nor reports more: it forgets what it gives back when it asks, and knows what it
//!   was granted when it hears. So reports of different mounts never conflict. What the server before knew beyond them it had granted to requests whose
//!   answers have not come, and which are made once more.
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

pub use client::{Answered, FileLockClient, Progress, Step};
pub use message::{
    ByteRange, FileId, FileLock, FileLockOp, FileLockReply, FileLockRequest, FileLockResult, Found, LockClass,
};
pub use ranges::{Piece, Ranges};
pub use server::{FileLockOutput, FileLockServer, MAX_HELD, MAX_WAITING};
