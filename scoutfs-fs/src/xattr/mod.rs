// SPDX-License-Identifier: GPL-2.0-only
//! Extended attributes.
//!
//! | module | what |
//! | --- | --- |
//! | `value` | an attribute's parts: finding and reading them |
//! | `get` | getxattr, listxattr |
//! | `set` | setxattr, removexattr |
//!
//! An attribute is one or more items ("parts") of up to 4096 bytes: a header, the name and the value, cut. All parts but
//! the last are full. They lie behind each other at (hash of the name, id, part).
//!
//! What must hold: replacing an attribute keeps its id, so that what names the id stays true, and moves from the old
//! complete value to the new one at once; ids are never reused within an inode.
//!
//! Names of the namespaces `user.`, `trusted.` and `security.` and the two of POSIX ACLs are stored as they are; there
//! are no others.
//!
//! Locking: as everything, the inode's cluster lock, then its local lock (shared to read).

mod get;
mod set;
mod value;

pub use set::SetXattrMode;

#[cfg(test)]
mod tests;
