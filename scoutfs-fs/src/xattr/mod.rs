// SPDX-License-Identifier: GPL-2.0-only
//! Extended attributes.
//!
//! | module | what |
//! | --- | --- |
//! | `name` | which names there may be, and what they say |
//! | `value` | an attribute's parts: finding and reading them |
//! | `get` | getxattr, listxattr |
//! | `set` | setxattr, removexattr |
//! | `hidden` | the names of hidden attributes |
//! | `search` | which inodes have an attribute |
//!
//! An attribute is one or more items ("parts") of up to 4096 bytes: a header, the name and the value, cut. All parts but
//! the last are full. They lie behind each other at (hash of the name, id, part).
//!
//! # Names
//!
//! Those of the namespaces `user.`, `trusted.` and `security.` are stored as they are; kernels know who may use them. The
//! two of POSIX ACLs are in [`acl`](crate::acl). Names of the namespace `scoutfs.` have tags right behind it, in any order,
//! each at most once: `hide.` keeps an attribute out of listxattr, `srch.` puts it into the search index. Only privileged
//! callers change those. There are no others; `totl.` and `indx.` are refused (EOPNOTSUPP).
//!
//! # What must hold
//!
//! - Replacing an attribute keeps its id, so that what names the id stays true, and moves from the old complete value to
//!   the new one at once; ids are never reused within an inode.
//! - An attribute with `srch.` has exactly one entry in the search index, at (hash of the name, inode, id), and an entry has its
//!   attribute. They come and go in one transaction, and when an inode is deleted, with the attribute's first part.
//!
//! # Locking
//!
//! As everything, the inode's cluster lock, then its local lock (shared to read). The search index has no lock of its own: an
//! entry is written under its inode's lock, so that the versions of one key ascend, and read from committed trees, as the
//! change index is.

mod get;
mod hidden;
mod name;
mod search;
mod set;
mod value;

pub use hidden::HiddenPosition;
pub(crate) use name::{Class, Tags};
pub(crate) use set::Replace;
pub use set::{SetXattr, SetXattrMode};
pub(crate) use value::{Xattr, encode};

#[cfg(test)]
mod tests;
