// SPDX-License-Identifier: GPL-2.0-only
//! Numbers and structures of the ioctls.
//!
//! They are those of the C implementation (reference facts, section 2.4), in native byte order of the little-endian
//! machines that it runs on, so that existing archive agents work unchanged. Only the ioctls that exist here are
//! described; the others join when they are built. Those of our own have numbers from 64 on.

use crate::layout::{constants, layout};
use crate::le::{U16, U32, U64};
use crate::msg::ConfirmDeath;

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
    /// The next path of an inode: [`InoPath`].
    pub const IOC_INO_PATH: u32 = number(WRITE, 2, size_of::<InoPath>());
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
    /// Inode numbers in use: [`GetAllocatedInos`]. Returns how many.
    pub const IOC_GET_ALLOCATED_INOS: u32 = number(WRITE, 16, size_of::<GetAllocatedInos>());
    /// The directory entries that name an inode: [`GetReferringEntries`]. Returns how many.
    pub const IOC_GET_REFERRING_ENTRIES: u32 = number(WRITE, 17, size_of::<GetReferringEntries>());
    /// Chosen attributes of an inode: [`AttrX`], which is also where they are written to.
    pub const IOC_GET_ATTR_X: u32 = number(WRITE, 18, size_of::<AttrX>());
    /// Sets chosen attributes of an inode: [`AttrX`].
    pub const IOC_SET_ATTR_X: u32 = number(WRITE, 19, size_of::<AttrX>());
    /// Ours: what `FS_IOC_FIEMAP` does, where the kernel does not forward that: [`Fiemap`], with the extents behind it.
    pub const IOC_FIEMAP: u32 = number(WRITE | READ, 64, size_of::<Fiemap>());
    /// Ours: what a mount has done so far: [`GetCounters`]. Returns the number of counters.
    pub const IOC_GET_COUNTERS: u32 = number(WRITE, 65, size_of::<GetCounters>());
    /// Ours: the administrator says that a mount that is fenced is dead for certain: [`ConfirmDeath`]. Returns `DEATH_*`.
    pub const IOC_CONFIRM_DEATH: u32 = number(WRITE, 66, size_of::<ConfirmDeath>());
    /// Alignment of [`GetReferringEntries::entries_ptr`] and of each entry, in bytes.
    pub const DIRENT_ALIGN: u64 = 16;
    /// [`Dirent::flags`]: no entry that names the inode follows.
    pub const DIRENT_LAST: u8 = 1;
    /// [`AttrX::x_mask`]: `meta_seq`. What cannot be set is passed over by a set.
    pub const ATTR_META_SEQ: u64 = 1 << 0;
    /// [`AttrX::x_mask`]: `data_seq`.
    pub const ATTR_DATA_SEQ: u64 = 1 << 1;
    /// [`AttrX::x_mask`]: `data_version`.
    pub const ATTR_DATA_VERSION: u64 = 1 << 2;
    /// [`AttrX::x_mask`]: `online_blocks`.
    pub const ATTR_ONLINE_BLOCKS: u64 = 1 << 3;
    /// [`AttrX::x_mask`]: `offline_blocks`.
    pub const ATTR_OFFLINE_BLOCKS: u64 = 1 << 4;
    /// [`AttrX::x_mask`]: `ctime_sec` and `ctime_nsec`.
    pub const ATTR_CTIME: u64 = 1 << 5;
    /// [`AttrX::x_mask`]: `crtime_sec` and `crtime_nsec`.
    pub const ATTR_CRTIME: u64 = 1 << 6;
    /// [`AttrX::x_mask`]: `size`.
    pub const ATTR_SIZE: u64 = 1 << 7;
    /// [`AttrX::x_mask`]: [`ATTR_BIT_RETENTION`] of `bits`.
    pub const ATTR_RETENTION: u64 = 1 << 8;
    /// [`AttrX::x_mask`]: `project_id`.
    pub const ATTR_PROJECT_ID: u64 = 1 << 9;
    /// All bits of [`AttrX::x_mask`] that there are.
    pub const ATTR_ALL: u64 = (1 << 10) - 1;
    /// [`AttrX::x_flags`]: the file's data, up to the size that is set, are in the archive.
    pub const ATTR_FLAG_SIZE_OFFLINE: u64 = 1;
    /// [`AttrX::bits`]: the file is retained: nothing of it changes.
    pub const ATTR_BIT_RETENTION: u64 = 1;
    /// [`Fiemap::flags`]: what was written is written out first. There are no other flags.
    pub const FIEMAP_SYNC: u32 = 1;
    /// [`FiemapExtent::flags`]: no extent of the file follows.
    pub const FIEMAP_EXTENT_LAST: u32 = 1;
    /// [`FiemapExtent::flags`]: it has no place on the device: the data are in the archive.
    pub const FIEMAP_EXTENT_UNKNOWN: u32 = 2;
    /// [`FiemapExtent::flags`]: it is allocated and reads as zeros.
    pub const FIEMAP_EXTENT_UNWRITTEN: u32 = 0x800;
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

    /// Argument of [`IOC_INO_PATH`].
    pub struct InoPath {
        pub ino: U64,
        /// The entry to begin with, by directory and then by position; 0 and 0 at first.
        pub dir_ino: U64,
        pub dir_pos: U64,
        /// Address of an [`InoPathResult`] with the path behind it.
        pub result_ptr: U64,
        /// Bytes there.
        pub result_bytes: U16,
        pub pad: [u8; 6],
    }

    /// Result of [`IOC_INO_PATH`], before the path.
    pub struct InoPathResult {
        /// The entry with which the path ends.
        pub dir_ino: U64,
        pub dir_pos: U64,
        /// Bytes of the path, with a NUL at its end and no slash at its beginning.
        pub path_bytes: U16,
        pub pad: [u8; 6],
    }

    /// Argument of [`IOC_GET_ALLOCATED_INOS`].
    pub struct GetAllocatedInos {
        /// The first inode number of interest; only numbers of its group are found.
        pub start_ino: U64,
        /// Address of an array of 64-bit numbers, aligned to 8 bytes.
        pub inos_ptr: U64,
        /// Bytes there.
        pub inos_bytes: U64,
    }

    /// Argument of [`IOC_GET_REFERRING_ENTRIES`].
    pub struct GetReferringEntries {
        pub ino: U64,
        /// The entry to begin with, by directory and then by position; 0 and 0 at first.
        pub dir_ino: U64,
        pub dir_pos: U64,
        /// Address of room for entries ([`Dirent`]), aligned to [`DIRENT_ALIGN`].
        pub entries_ptr: U64,
        /// Bytes there.
        pub entries_bytes: U64,
    }

    /// A directory entry. The name begins in `name` and goes on behind it, with a NUL at its end.
    pub struct Dirent {
        /// The directory.
        pub dir_ino: U64,
        /// The position in it.
        pub dir_pos: U64,
        /// The inode that it names.
        pub ino: U64,
        /// From the beginning of this entry to that of the next one.
        pub entry_bytes: U16,
        /// `DIRENT_*`.
        pub flags: u8,
        /// `DT_*` of readdir(3).
        pub d_type: u8,
        /// Bytes of the name without the NUL.
        pub name_len: u8,
        pub name: [u8; 3],
    }

    /// Argument of [`IOC_GET_ATTR_X`] and [`IOC_SET_ATTR_X`].
    pub struct AttrX {
        /// Which attributes: `ATTR_*`.
        pub x_mask: U64,
        /// `ATTR_FLAG_*`.
        pub x_flags: U64,
        pub meta_seq: U64,
        pub data_seq: U64,
        pub data_version: U64,
        pub online_blocks: U64,
        pub offline_blocks: U64,
        pub ctime_sec: U64,
        pub ctime_nsec: U32,
        pub crtime_nsec: U32,
        pub crtime_sec: U64,
        pub size: U64,
        /// `ATTR_BIT_*`.
        pub bits: U64,
        pub project_id: U64,
    }

    /// Argument and result of [`IOC_FIEMAP`]: the kernel's `struct fiemap`.
    pub struct Fiemap {
        /// First byte of interest.
        pub start: U64,
        /// Bytes of interest.
        pub length: U64,
        /// `FIEMAP_*`; unknown ones come back with the error.
        pub flags: U32,
        /// Result: the extents found.
        pub mapped_extents: U32,
        /// Room for this many extents behind the structure; with 0 they are only counted.
        pub extent_count: U32,
        pub reserved: U32,
    }

    /// The kernel's `struct fiemap_extent`. All in bytes.
    pub struct FiemapExtent {
        pub logical: U64,
        /// On the device; 0 for none.
        pub physical: U64,
        pub length: U64,
        pub reserved64: [U64; 2],
        /// `FIEMAP_EXTENT_*`.
        pub flags: U32,
        pub reserved: [U32; 3],
    }

    /// Argument of [`IOC_GET_COUNTERS`].
    pub struct GetCounters {
        /// Address of an array of [`CounterEntry`].
        pub entries_ptr: U64,
        /// Its length; with too little room the call fails with EOVERFLOW.
        pub entries_nr: U64,
    }

    /// A counter. Counters begin at 0 with the mount and never go back.
    pub struct CounterEntry {
        /// Its name, with zeros behind it, at least one.
        pub name: [u8; 32],
        pub value: U64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `_IOC` of the C implementation's header gives for its structures.
    #[test]
    fn numbers_are_those_of_the_c_implementation() {
        assert_eq!(
            [IOC_WALK_INODES, IOC_INO_PATH, IOC_STAT_MORE, IOC_STATFS_MORE, IOC_ALLOC_DETAIL],
            [0x4048_e801, 0x4028_e802, 0x8038_e805, 0x8030_e80a, 0x4010_e80c]
        );
        assert_eq!(
            [IOC_GET_ALLOCATED_INOS, IOC_GET_REFERRING_ENTRIES, IOC_GET_ATTR_X, IOC_SET_ATTR_X],
            [0x4018_e810, 0x4028_e811, 0x4068_e812, 0x4068_e813]
        );
        // `FS_IOC_FIEMAP` but for type and number.
        assert_eq!(IOC_FIEMAP, 0xc020_660b & 0xffff_0000 | IOCTL_MAGIC << 8 | 64);
        assert_eq!(size_of::<FiemapExtent>(), 56);
    }
}
