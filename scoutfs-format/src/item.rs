// SPDX-License-Identifier: GPL-2.0-only
//! Values of the filesystem's items.

use crate::layout::{Fnv, constants, layout};
use crate::le::{I64, U32, U64};

constants! { ITEM_CONSTANTS:
    /// Inode number of the root directory.
    pub const ROOT_INO: u64 = 1;
    /// First inode number that is handed out after mkfs.
    pub const FIRST_FREE_INO: u64 = 1024;
    /// Inode numbers of one lock group at its largest, and of one batch from the server.
    pub const INO_GROUP: u64 = 1024;
    /// Bytes of the longest file name.
    pub const MAX_NAME_LEN: usize = 255;
    /// Bytes of the longest symbolic link target.
    pub const MAX_SYMLINK_LEN: usize = 4095;
    /// Most links of an inode.
    pub const MAX_LINKS: u32 = i32::MAX as u32;
    /// Largest file size in bytes.
    pub const MAX_FILE_BYTES: u64 = i64::MAX as u64;
    /// Bytes of the longest extended attribute name.
    pub const MAX_XATTR_NAME_LEN: usize = 255;
    /// Bytes of the longest extended attribute value.
    pub const MAX_XATTR_VALUE_LEN: usize = 65_535;
    /// Bytes of one part of an extended attribute: header, name and value in the first one.
    pub const XATTR_PART_LEN: usize = 4096;
    /// Position of a directory's first entry; `.` and `..` are 0 and 1.
    pub const FIRST_DIR_POS: u64 = 2;

    /// [`ExtentItem::flags`]: allocated, reads as zeros.
    pub const EXTENT_UNWRITTEN: u8 = 1;
    /// [`ExtentItem::flags`]: no blocks, the data are in the archive.
    pub const EXTENT_OFFLINE: u8 = 2;

    /// [`InodeItem::flags`]: a truncation to `size` is not finished; extents may lie past it.
    pub const INODE_TRUNCATE: u32 = 1;
    /// [`InodeItem::flags`]: a regular file of which nothing may change but attributes outside `user.`.
    pub const INODE_RETENTION: u32 = 2;

    /// [`DirentHeader::file_type`]: unknown types are corruption. FIFO.
    pub const FT_FIFO: u8 = 0;
    /// Character device.
    pub const FT_CHR: u8 = 1;
    /// Directory.
    pub const FT_DIR: u8 = 2;
    /// Block device.
    pub const FT_BLK: u8 = 3;
    /// Regular file.
    pub const FT_REG: u8 = 4;
    /// Symbolic link.
    pub const FT_LNK: u8 = 5;
    /// Socket.
    pub const FT_SOCK: u8 = 6;
}

layout! {
    /// A point in time.
    pub struct Time {
        /// Seconds since 1970, negative before.
        pub sec: I64,
        /// Nanoseconds, below 1e9.
        pub nsec: U32,
        pub pad: U32,
    }

    /// An inode.
    pub struct InodeItem {
        /// Bytes; for a directory the sum of its entries' name lengths.
        pub size: U64,
        /// Version of the write that last changed the inode; the seq of its entry in the change index.
        pub meta_seq: U64,
        /// Version of the write that last changed a regular file's data; 0 never.
        pub data_seq: U64,
        /// Counts calls that may have changed contents or size.
        pub data_version: U64,
        /// 4 KiB blocks with data on this volume.
        pub online_blocks: U64,
        /// 4 KiB blocks whose data are in the archive.
        pub offline_blocks: U64,
        /// Position of a directory's next entry.
        pub next_dir_pos: U64,
        /// Id of the next extended attribute.
        pub next_xattr_id: U64,
        /// Counts changes, for NFS.
        pub version: U64,
        pub atime: Time,
        pub mtime: Time,
        pub ctime: Time,
        pub crtime: Time,
        pub nlink: U32,
        pub uid: U32,
        pub gid: U32,
        /// Type and permissions as in stat.
        pub mode: U32,
        /// Device number of special files: major in the high half, minor in the low half.
        pub rdev: U64,
        /// `INODE_*`.
        pub flags: U32,
        pub pad: U32,
        /// The project's number; new inodes inherit that of their directory.
        pub project: U64,
        /// A directory's parent, so that renames can check ancestry without a search; 0 for others.
        pub parent: U64,
    }

    /// Value of a dirent item, before the name.
    pub struct DirentHeader {
        /// The inode that the entry names.
        pub ino: U64,
        /// `FT_*`.
        pub file_type: u8,
        pub pad: [u8; 7],
    }

    /// Value of a readdir item, before the name.
    pub struct ReaddirHeader {
        /// The inode that the entry names.
        pub ino: U64,
        /// Hash of the name, to find the dirent item.
        pub name_hash: U64,
        /// `FT_*`.
        pub file_type: u8,
        pub pad: [u8; 7],
    }

    /// Value of a back reference.
    pub struct BackrefItem {
        /// Hash of the entry's name.
        pub name_hash: U64,
    }

    /// Begins the first part of an extended attribute, before the name (with its namespace prefix) and the value.
    pub struct XattrHeader {
        /// Bytes of the value over all parts.
        pub val_len: U32,
        /// Bytes of the name.
        pub name_len: u8,
        pub pad: [u8; 3],
    }

    /// Value of an extent.
    pub struct ExtentItem {
        /// First data block; 0 for none.
        pub blkno: U64,
        /// Blocks.
        pub len: U64,
        /// `EXTENT_*`.
        pub flags: u8,
        pub pad: [u8; 3],
        /// Fences of mounts that were known when the file got these blocks: who was fenced by a later one may still write to them, as long as
        /// its death is not confirmed.
        pub fences: U32,
    }
}

/// Hash of a directory entry's or extended attribute's name: FNV-1a over the bytes, 64 bits.
pub const fn name_hash(name: &[u8]) -> u64 {
    Fnv::new().bytes(name).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_hash_is_fnv1a() {
        assert_eq!(name_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(name_hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(name_hash(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
