// SPDX-License-Identifier: GPL-2.0-only
//! POSIX access control lists (POSIX.1e draft 17, as Linux has them).
//!
//! | module | what |
//! | --- | --- |
//! | `list` | [`Acl`], and its bytes |
//! | `rules` | how a list and a mode go together, inheritance, whom a list permits what |
//! | `items` | the lists of inodes: reading, inheriting, following a mode |
//! | `set` | setting and removing a list |
//! | `access` | may a caller read an inode |
//!
//! A list is kept as the value of an extended attribute, in a canonical form: equal lists are equal bytes. Which bytes are
//! a list is decided here alone, for programs that set one, for volumes that hold one, and for `check`.
//!
//! # What must hold
//!
//! - The access list of an inode agrees with its mode: the permissions of owner, others and mask (or, without a mask, of
//!   the group) are those of the mode. So the mode is the most that the list permits to each class.
//! - An access list says more than a mode can: one that does not is not kept, only the mode is set.
//! - Only directories have default lists; symbolic links have none of either kind.
//!
//! All of it holds whether or not a mount has access lists switched on ([`MountOptions::acl`](crate::MountOptions::acl)): with
//! them off, they are neither shown nor set nor handed down, but a change of the mode still changes the list, since
//! other mounts obey it.
//!
//! # Who checks
//!
//! A kernel checks permissions, with the lists that it reads as attributes and may keep as long as it may keep the mode.
//! It also knows what only it can know, and says it with the change: whether the caller is the owner or privileged (else nothing
//! is asked), and whether he is of the file's group (else a new mode comes without set-group-ID, and a new access list with
//! [`SetXattr::kill_sgid`](crate::xattr::SetXattr::kill_sgid)).

mod access;
mod items;
mod list;
mod rules;
mod set;

pub use access::Caller;
pub(crate) use items::Inherited;
pub use list::{Acl, AclError, Entry, Tag};

#[cfg(test)]
pub(crate) mod tests;

/// What an inode has a list for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclKind {
    /// Who may do what with it.
    Access,
    /// What is handed down to what is made in a directory.
    Default,
}

impl AclKind {
    /// Name of the attribute that holds it.
    pub const fn xattr_name(self) -> &'static [u8] {
        match self {
            AclKind::Access => b"system.posix_acl_access",
            AclKind::Default => b"system.posix_acl_default",
        }
    }
}
