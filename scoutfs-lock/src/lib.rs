// SPDX-License-Identifier: GPL-2.0-only
//! The cluster lock protocol, as state machines.
//!
//! A lock covers a range of keys. A mount holds it in a [`Mode`]; while it does, it may cache what is in the range
//! (read) or change it (write). The server grants and revokes.
//!
//! | module | what |
//! | --- | --- |
//! | `name` | [`LockName`]: which lock, and the range of keys that it covers |
//! | `message` | [`Mode`], [`Message`]: what is said about a lock, parsed and checked |
//! | `client` | [`LockClient`]: the locks of one mount and their users |
//! | `server` | [`LockServer`]: who holds what, who waits, who must give back |
//! | `opens` | [`Opens`]: which inodes of a group are open |
//! | [`file_locks`] | locks that programs have on files (fcntl, flock): a protocol of its own |
//! | `ready` | a list of the locks that have something to say, which needs no memory |
//! | `error` | [`LockError`] |
//!
//! # What must hold
//!
//! - At each moment a lock is held for writing by one mount and by nobody else, or for reading by any number. A
//!   mount holds what it was granted until it has been *invalidated*: its users are gone, what it changed is
//!   committed, and nothing of the range is cached.
//! - The server never believes that a mount holds less than it does. It may believe more; a revoke of what is
//!   not held is answered at once.
//! - Messages about one lock between two sides arrive in the order of sending; messages about different locks may
//!   overtake each other. A mount has at most one request for a lock outstanding, and the server at most one
//!   revoke for each mount and lock.
//! - *Generations* count the grants and revokes of a server and never go back, over changes of server too. So late
//!   duplicates are known: of a grant or revoke, because its generation is not newer than what was seen; of a
//!   request, because it was made before the newest grant; of an answer, because no revoke waits for it.
//! - Each grant of write carries a version from the server's counter, drawn when the grant is sent: it is higher
//!   than every version that was used under the lock before.
//! - Requests for a lock are served in the order of their coming; a mount that must give a lock back serves its own
//!   waiters again later.
//!
//! # Locks
//!
//! None. A machine belongs to one thread at a time; its host puts a lock around it.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod client;
mod error;
pub mod file_locks;
mod message;
mod name;
mod opens;
mod ready;
mod server;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use client::{Acquire, Cancel, Granted, LockClient, Output, Revoked, Ticket};
pub use error::LockError;
pub use message::{Message, Mode};
pub use name::{GROUP_ORDER, LockName};
pub use opens::Opens;
pub use server::{Grant, LockServer, ServerOutput};
