// SPDX-License-Identifier: GPL-2.0-only
//! POSIX access control lists, as the values of the attributes `system.posix_acl_access` and
//! `system.posix_acl_default`.
//!
//! A list is [`ACL_VERSION`] as a 32-bit number, then its entries, in the order of their tags. These are the bytes in which
//! Linux hands lists to and takes them from programs, with one thing more fixed: an entry whose tag names nobody in
//! particular has the id [`ACL_NO_ID`], so that equal lists are equal bytes.

use crate::layout::{constants, layout};
use crate::le::{U16, U32};

constants! { ACL_CONSTANTS:
    /// Version of the encoding.
    pub const ACL_VERSION: u32 = 2;
    /// Bytes before the entries: the version.
    pub const ACL_HEADER_LEN: usize = 4;
    /// Most entries of a list: what the kernel takes of a FUSE filesystem in one page, so that every front end can
    /// obey every list.
    pub const MAX_ACL_ENTRIES: usize = 511;

    /// [`AclEntry::tag`]: the file's owner.
    pub const ACL_USER_OBJ: u16 = 0x01;
    /// The user with the entry's id.
    pub const ACL_USER: u16 = 0x02;
    /// The file's group.
    pub const ACL_GROUP_OBJ: u16 = 0x04;
    /// The group with the entry's id.
    pub const ACL_GROUP: u16 = 0x08;
    /// The most that users and groups with ids and the file's group are given.
    pub const ACL_MASK: u16 = 0x10;
    /// All others.
    pub const ACL_OTHER: u16 = 0x20;

    /// [`AclEntry::id`] where there is none; nobody has it.
    pub const ACL_NO_ID: u32 = u32::MAX;
}

layout! {
    /// An entry of a list.
    pub struct AclEntry {
        /// Whom it is about: `ACL_*`.
        pub tag: U16,
        /// Permissions: 4 to read, 2 to write, 1 to execute.
        pub perm: U16,
        /// User or group of [`ACL_USER`] and [`ACL_GROUP`], else [`ACL_NO_ID`].
        pub id: U32,
    }
}
