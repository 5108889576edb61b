// SPDX-License-Identifier: GPL-2.0-only
//! The structs of the FUSE ABI. Every field is in host byte order; times are seconds and nanoseconds.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Declares wire structs, each with the size that the ABI gives it.
macro_rules! wire {
    ($( $(#[$doc:meta])* $name:ident = $size:literal { $( $field:ident: $ty:ty, )* } )*) => { $(
        $(#[$doc])*
        // The layout is stated in full; not every field is of use here.
        #[allow(dead_code)]
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub(crate) struct $name { $( pub(crate) $field: $ty, )* }
        const _: () = assert!(size_of::<$name>() == $size);
    )* };
}

wire! {
    /// Begins every request. `total_extlen` counts units of 8 bytes at the request's end.
    InHeader = 40 {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16,
    }
    /// Begins every reply and notification. `error` is a negative errno, or a notification's code.
    OutHeader = 16 { len: u32, error: i32, unique: u64, }

    /// The part of INIT that every kernel sends; `InitInExt` follows if INIT_EXT is set.
    InitIn = 16 { major: u32, minor: u32, max_readahead: u32, flags: u32, }
    InitInExt = 4 { flags2: u32, }
    InitOut = 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32,
        max_background: u16, congestion_threshold: u16, max_write: u32, time_gran: u32,
        max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11],
    }

    AttrOutBody = 88 {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    AttrOut = 104 { attr_valid: u64, attr_valid_nsec: u32, padding: u32, attr: AttrOutBody, }
    EntryOut = 128 {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32, attr: AttrOutBody,
    }
    ForgetIn = 8 { nlookup: u64, }
    BatchForgetIn = 8 { count: u32, padding: u32, }
    GetattrIn = 16 { getattr_flags: u32, padding: u32, fh: u64, }
    SetattrIn = 88 {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64,
        atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    StatxIn = 24 { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32, }
    StatxTime = 16 { sec: i64, nsec: u32, reserved: i32, }
    StatxOutBody = 256 {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32,
        mode: u16, spare0: u16, ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: StatxTime, btime: StatxTime, ctime: StatxTime, mtime: StatxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    StatxOut = 288 {
        attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: StatxOutBody,
    }

    MknodIn = 16 { mode: u32, rdev: u32, umask: u32, padding: u32, }
    MkdirIn = 8 { mode: u32, umask: u32, }
    RenameIn = 8 { newdir: u64, }
    Rename2In = 16 { newdir: u64, flags: u32, padding: u32, }
    LinkIn = 8 { oldnodeid: u64, }
    AccessIn = 8 { mask: u32, padding: u32, }

    OpenIn = 8 { flags: u32, open_flags: u32, }
    OpenOut = 16 { fh: u64, open_flags: u32, backing_id: i32, }
    CreateIn = 16 { flags: u32, mode: u32, umask: u32, open_flags: u32, }
    ReleaseIn = 24 { fh: u64, flags: u32, release_flags: u32, lock_owner: u64, }
    FlushIn = 24 { fh: u64, unused: u32, padding: u32, lock_owner: u64, }
    ReadIn = 40 {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    WriteIn = 40 {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    WriteOut = 8 { size: u32, padding: u32, }
    FsyncIn = 16 { fh: u64, fsync_flags: u32, padding: u32, }
    FallocateIn = 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32, }
    LseekIn = 24 { fh: u64, offset: u64, whence: u32, padding: u32, }
    LseekOut = 8 { offset: u64, }
    CopyFileRangeIn = 56 {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
    }
    CopyFileRangeOut = 8 { bytes_copied: u64, }
    StatfsOut = 80 {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
        bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6],
    }

    /// SETXATTR before SETXATTR_EXT was negotiated; `SetxattrInExt` follows it after.
    SetxattrIn = 8 { size: u32, flags: u32, }
    SetxattrInExt = 8 { setxattr_flags: u32, padding: u32, }
    GetxattrIn = 8 { size: u32, padding: u32, }
    GetxattrOut = 8 { size: u32, padding: u32, }

    FileLockBody = 24 { start: u64, end: u64, typ: u32, pid: u32, }
    LkIn = 48 { fh: u64, owner: u64, lk: FileLockBody, lk_flags: u32, padding: u32, }

    IoctlIn = 32 { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32, }
    IoctlIovecBody = 16 { base: u64, len: u64, }
    IoctlOut = 16 { result: i32, flags: u32, in_iovs: u32, out_iovs: u32, }
    InterruptIn = 8 { unique: u64, }

    /// The fixed part of a directory entry; the name follows, padded with zeros to a multiple of 8.
    Dirent = 24 { ino: u64, off: u64, namelen: u32, typ: u32, }

    NotifyInvalInodeOut = 24 { ino: u64, off: i64, len: i64, }
    NotifyInvalEntryOut = 16 { parent: u64, namelen: u32, flags: u32, }
    NotifyPruneOut = 16 { count: u32, padding: u32, spare: u64, }
}

/// `_IOR(229, 0, u32)`: makes a freshly opened `/dev/fuse` another channel of an existing connection.
pub(crate) const DEV_IOC_CLONE: libc::Ioctl = 0x8004_e500_u32 as libc::Ioctl;
