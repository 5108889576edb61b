// SPDX-License-Identifier: GPL-2.0-only
//! Numbers and structures of the ioctls.
//!
//! They are those of the C implementation (reference facts, section 2.4), in native byte order of the little-endian
//! machines that it runs on, so that existing archive agents work unchanged. Only the ioctls that exist here are
//! described; the others join when they are built.

use crate::layout::{constants, layout};
use crate::le::{U16, U32, U64};

/// Direction bits of an ioctl number: the caller writes arguments.
const WRITE: u32 = 1;
/// Direction bits of an ioctl number: the caller reads results.
const READ: u32 = 2;

const fn number(dir: u32, nr: u32, size: usize) -> u32 {
    dir << 30 | (size as u32) << 16 | IOCTL_MAGIC << 8 | nr
}

constants! { IOCTL_CONSTANTS:
    /// The `type` of all ioctl numbers.
    pub const IOCTL_MAGIC: u32 = 0xe8;
    /// Entries of a change index: [`WalkInodes`]. Returns the number of entries.
    pub const IOC_WALK_INODES: u32 = number(WRITE, 1, size_of::<WalkInodes>());
    /// More of an inode: [`StatMore`].
    pub const IOC_STAT_MORE: u32 = number(READ, 5, size_of::<StatMore>());
    /// Names of the hidden attributes of a file: [`ListxattrHidden`]. Returns their bytes, 0 behind the last one (or when
    /// the next one does not fit).
    pub const IOC_LISTXATTR_HIDDEN: u32 = number(READ | WRITE, 8, size_of::<ListxattrHidden>());
    /// Inodes that may have an attribute: [`SearchXattrs`]. Returns the number of inodes.
    pub const IOC_SEARCH_XATTRS: u32 = number(WRITE, 9, size_of::<SearchXattrs>());
    /// [`SearchXattrs::output_flags`]: there are no more up to `last_ino`.
    pub const SEARCH_XATTRS_END: u64 = 1;
    /// More of the volume: [`StatfsMore`].
    pub const IOC_STATFS_MORE: u32 = number(READ, 10, size_of::<StatfsMore>());
    /// One entry for each store of space: [`AllocDetail`]. Returns the number of entries.
    pub const IOC_ALLOC_DETAIL: u32 = number(WRITE, 12, size_of::<AllocDetail>());
    /// [`AllocDetailEntry::flags`]: metadata blocks of 64 KiB; else data blocks of 4 KiB.
    pub const ALLOC_META: u8 = 1;
    /// [`AllocDetailEntry::flags`]: the blocks can be allocated.
    pub const ALLOC_AVAILABLE: u8 = 2;
    /// [`WalkInodes::index`]: all changes.
    pub const WALK_META_SEQ: u8 = 0;
    /// [`WalkInodes::index`]: changes of regular files' data.
    pub const WALK_DATA_SEQ: u8 = 1;
}

layout! {
    /// A position in, and an entry of, a change index.
    pub struct WalkInodesEntry {
        /// The seq.
        pub major: U64,
        pub ino: U64,
        /// Always 0.
        pub minor: U32,
        pub pad: [u8; 4],
    }

    /// Argument of [`IOC_WALK_INODES`].
    pub struct WalkInodes {
        pub first: WalkInodesEntry,
        pub last: WalkInodesEntry,
        /// Address of an array of [`WalkInodesEntry`].
        pub entries_ptr: U64,
        /// Its length.
        pub nr_entries: U32,
        /// Which index.
        pub index: u8,
        pub pad: [u8; 11],
    }

    /// Argument of [`IOC_LISTXATTR_HIDDEN`]. The position is zeros to begin with, and is moved on.
    pub struct ListxattrHidden {
        /// Position: an attribute's id.
        pub id_pos: U64,
        /// Address of memory for names, each of which is followed by a zero.
        pub buf_ptr: U64,
        /// Its length.
        pub buf_bytes: U32,
        /// Position: the high half of a name's hash; goes before the id.
        pub hash_pos: U32,
    }

    /// Argument of [`IOC_SEARCH_XATTRS`].
    pub struct SearchXattrs {
        /// The lowest inode number of interest.
        pub next_ino: U64,
        /// The highest one.
        pub last_ino: U64,
        /// Address of the name.
        pub name_ptr: U64,
        /// Address of an array of 64-bit inode numbers.
        pub inodes_ptr: U64,
        /// Result: `SEARCH_XATTRS_*`.
        pub output_flags: U64,
        /// Length of the array.
        pub nr_inodes: U64,
        /// Bytes of the name.
        pub name_bytes: U16,
        pub pad: [u8; 6],
    }

    /// Result of [`IOC_STAT_MORE`].
    pub struct StatMore {
        pub meta_seq: U64,
        pub data_seq: U64,
        pub data_version: U64,
        pub online_blocks: U64,
        pub offline_blocks: U64,
        pub crtime_sec: U64,
        pub crtime_nsec: U32,
        pub pad: [u8; 4],
    }

    /// Argument of [`IOC_ALLOC_DETAIL`].
    pub struct AllocDetail {
        /// Address of an array of [`AllocDetailEntry`].
        pub entries_ptr: U64,
        /// Its length.
        pub entries_nr: U64,
    }

    /// One store of space.
    pub struct AllocDetailEntry {
        /// Whose it is: 0 the server's, else the mount's rid.
        pub id: U64,
        /// Blocks in it.
        pub blocks: U64,
        /// Kind of store: 0 the server's, 1 the mount's.
        pub store: u8,
        /// `ALLOC_*`.
        pub flags: u8,
        pub pad: [u8; 6],
    }

    /// Result of [`IOC_STATFS_MORE`].
    pub struct StatfsMore {
        pub fsid: U64,
        pub rid: U64,
        pub committed_seq: U64,
        pub total_meta_blocks: U64,
        pub total_data_blocks: U64,
        pub reserved_meta_blocks: U64,
    }
}
