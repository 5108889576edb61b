// SPDX-License-Identifier: GPL-2.0-only
//! Calling the ioctls of a mounted volume.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use scoutfs_format::ioctl::{
    AllocDetail, AllocDetailEntry, AttrX, CounterEntry, Dirent, Fiemap, FiemapExtent, GetAllocatedInos,
    GetCounters, GetReferringEntries, IOC_ALLOC_DETAIL, IOC_CONFIRM_DEATH, IOC_FIEMAP,
    IOC_GET_ALLOCATED_INOS, IOC_GET_ATTR_X, IOC_GET_COUNTERS, IOC_GET_REFERRING_ENTRIES, IOC_INO_PATH,
    IOC_LISTXATTR_HIDDEN, IOC_SEARCH_XATTRS, IOC_SET_ATTR_X, IOC_STAT_MORE, IOC_STATFS_MORE, IOC_WALK_INODES,
    InoPath, InoPathResult, ListxattrHidden, SEARCH_XATTRS_END, SearchXattrs, StatMore, StatfsMore,
    WalkInodes, WalkInodesEntry,
};
use scoutfs_format::msg::ConfirmDeath;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The kernel's own number for FIEMAP, `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: u32 = 0xc020_660b;

/// Extents asked for at once.
const EXTENTS: usize = 512;

/// Opens something in a mounted volume for ioctls.
pub fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn call<T: FromBytes + IntoBytes + Immutable>(
    file: &File,
    number: u32,
    argument: &mut T,
) -> io::Result<usize> {
    // SAFETY: the number's size field is the size of `T`, or of what `T` begins with when room follows it, all of whose
    // bytes may be read and written; the pointers in the arguments used here come from the safe wrappers below and are
    // valid for the lengths beside them.
    let n = unsafe { libc::ioctl(file.as_raw_fd(), number as _, argument as *mut T) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

/// Entries of a change index from `first` to `last`, as many as `entries` can hold. Gives their number.
pub fn walk_inodes(
    file: &File,
    index: u8,
    first: WalkInodesEntry,
    last: WalkInodesEntry,
    entries: &mut [WalkInodesEntry],
) -> io::Result<usize> {
    let mut argument = WalkInodes {
        first,
        last,
        entries_ptr: (entries.as_mut_ptr() as u64).into(),
        nr_entries: (entries.len() as u32).into(),
        index,
        pad: [0; 11],
    };
    call(file, IOC_WALK_INODES, &mut argument)
}

/// The names of a file's hidden attributes, piece by piece.
pub struct HiddenNames<'f> {
    file: &'f File,
    position: ListxattrHidden,
    names: Vec<u8>,
}

impl<'f> HiddenNames<'f> {
    /// From the beginning.
    pub fn new(file: &'f File) -> Self {
        HiddenNames { file, position: ListxattrHidden::default(), names: vec![0; 64 << 10] }
    }

    /// Some more names; `None` after the last.
    pub fn next_some(&mut self) -> io::Result<Option<impl Iterator<Item = &[u8]>>> {
        self.position.buf_ptr = (self.names.as_mut_ptr() as u64).into();
        self.position.buf_bytes = (self.names.len() as u32).into();
        let bytes = call(self.file, IOC_LISTXATTR_HIDDEN, &mut self.position)?;
        let names = self.names.get(..bytes).ok_or(io::ErrorKind::InvalidData)?;
        let names = names.split_inclusive(|b| *b == 0).map(|name| name.strip_suffix(&[0]).unwrap_or(name));
        Ok((bytes != 0).then_some(names))
    }
}

/// Inodes from `first` to `last` that may have an attribute, as many as `inodes` can hold. Gives their number, and whether there
/// are no more.
pub fn search_xattrs(
    file: &File,
    name: &[u8],
    first: u64,
    last: u64,
    inodes: &mut [u64],
) -> io::Result<(usize, bool)> {
    let name_bytes = u16::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut argument = SearchXattrs {
        next_ino: first.into(),
        last_ino: last.into(),
        name_ptr: (name.as_ptr() as u64).into(),
        inodes_ptr: (inodes.as_mut_ptr() as u64).into(),
        nr_inodes: (inodes.len() as u64).into(),
        name_bytes: name_bytes.into(),
        ..SearchXattrs::default()
    };
    let n = call(file, IOC_SEARCH_XATTRS, &mut argument)?;
    Ok((n, argument.output_flags.get() & SEARCH_XATTRS_END != 0))
}

/// More of an inode.
pub fn stat_more(file: &File) -> io::Result<StatMore> {
    let mut argument = StatMore::default();
    call(file, IOC_STAT_MORE, &mut argument)?;
    Ok(argument)
}

/// More of the volume.
pub fn statfs_more(file: &File) -> io::Result<StatfsMore> {
    let mut argument = StatfsMore::default();
    call(file, IOC_STATFS_MORE, &mut argument)?;
    Ok(argument)
}

/// All stores of space.
pub fn alloc_detail(file: &File) -> io::Result<Vec<AllocDetailEntry>> {
    let mut entries = vec![AllocDetailEntry::default(); 64];
    loop {
        let mut argument = AllocDetail {
            entries_ptr: (entries.as_mut_ptr() as u64).into(),
            entries_nr: (entries.len() as u64).into(),
        };
        match call(file, IOC_ALLOC_DETAIL, &mut argument) {
            Ok(n) => {
                entries.truncate(n);
                return Ok(entries);
            }
            Err(e) if e.raw_os_error() == Some(libc::EOVERFLOW) && entries.len() < 1 << 20 => {
                entries.resize(entries.len() * 2, AllocDetailEntry::default());
            }
            Err(e) => return Err(e),
        }
    }
}

/// The answer makes no sense.
fn bad_answer() -> io::Error {
    io::Error::other("the volume gave an answer that makes no sense")
}

/// A path of an inode, from the root, and the directory and position of the entry with which it ends.
pub struct PathOfInode {
    /// The directory.
    pub dir: u64,
    /// The position.
    pub pos: u64,
    /// The path.
    pub path: Vec<u8>,
}

/// The first path of `ino` that ends with an entry at or after a directory and a position in it.
pub fn ino_path(file: &File, ino: u64, dir: u64, pos: u64) -> io::Result<Option<PathOfInode>> {
    let mut result = vec![0u8; u16::MAX.into()];
    let mut argument = InoPath {
        ino: ino.into(),
        dir_ino: dir.into(),
        dir_pos: pos.into(),
        result_ptr: (result.as_mut_ptr() as u64).into(),
        result_bytes: u16::MAX.into(),
        pad: [0; 6],
    };
    match call(file, IOC_INO_PATH, &mut argument) {
        Ok(_) => {}
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(e) => return Err(e),
    }
    let (header, rest) = InoPathResult::read_from_prefix(&result).map_err(|_| bad_answer())?;
    let path = rest.get(..usize::from(header.path_bytes)).and_then(|path| path.split_last());
    let (_, path) = path.ok_or_else(bad_answer)?;
    Ok(Some(PathOfInode { dir: header.dir_ino.get(), pos: header.dir_pos.get(), path: path.to_vec() }))
}

/// Up to `max` inode numbers in use, from `start` to the end of its group.
pub fn allocated_inos(file: &File, start: u64, max: usize) -> io::Result<Vec<u64>> {
    let mut inos = vec![0u64; max];
    let mut argument = GetAllocatedInos {
        start_ino: start.into(),
        inos_ptr: (inos.as_mut_ptr() as u64).into(),
        inos_bytes: (inos.as_bytes().len() as u64).into(),
    };
    let n = call(file, IOC_GET_ALLOCATED_INOS, &mut argument)?;
    inos.truncate(n);
    Ok(inos)
}

/// A directory entry that names an inode.
pub struct ReferringEntry {
    /// The structure, of whose name only the beginning is in it.
    pub head: Dirent,
    /// The name.
    pub name: Vec<u8>,
}

/// Entries that name `ino`, from a directory and a position in it on; none at the end.
pub fn referring_entries(file: &File, ino: u64, dir: u64, pos: u64) -> io::Result<Vec<ReferringEntry>> {
    // 128-bit numbers are aligned as entries must be.
    let mut room = vec![0u128; 16 << 10];
    let mut argument = GetReferringEntries {
        ino: ino.into(),
        dir_ino: dir.into(),
        dir_pos: pos.into(),
        entries_ptr: (room.as_mut_ptr() as u64).into(),
        entries_bytes: (room.as_bytes().len() as u64).into(),
    };
    let n = call(file, IOC_GET_REFERRING_ENTRIES, &mut argument)?;
    let mut bytes = room.as_bytes();
    let mut next = || {
        let (head, _) = Dirent::read_from_prefix(bytes).ok()?;
        let name = bytes.get(std::mem::offset_of!(Dirent, name)..)?.get(..head.name_len.into())?.to_vec();
        bytes = bytes.get(head.entry_bytes.get().into()..)?;
        Some(ReferringEntry { head, name })
    };
    (0..n).map(|_| next().ok_or_else(bad_answer)).collect()
}

/// The attributes of `mask`.
pub fn get_attr_x(file: &File, mask: u64) -> io::Result<AttrX> {
    let mut argument = AttrX { x_mask: mask.into(), ..AttrX::default() };
    call(file, IOC_GET_ATTR_X, &mut argument)?;
    Ok(argument)
}

/// Sets the attributes of `x.x_mask`.
pub fn set_attr_x(file: &File, x: &AttrX) -> io::Result<()> {
    call(file, IOC_SET_ATTR_X, &mut x.clone()).map(|_| ())
}

/// Says that a fenced mount is dead. Gives `DEATH_*`.
pub fn confirm_death(file: &File, rid: u64) -> io::Result<u32> {
    let done = call(file, IOC_CONFIRM_DEATH, &mut ConfirmDeath { rid: rid.into() })?;
    Ok(u32::try_from(done).unwrap_or(0))
}

/// All counters of a mount.
pub fn counters(file: &File) -> io::Result<Vec<CounterEntry>> {
    let mut entries = vec![CounterEntry::default(); 128];
    loop {
        let mut argument = GetCounters {
            entries_ptr: (entries.as_mut_ptr() as u64).into(),
            entries_nr: (entries.len() as u64).into(),
        };
        match call(file, IOC_GET_COUNTERS, &mut argument) {
            Ok(n) => {
                entries.truncate(n);
                return Ok(entries);
            }
            Err(e) if e.raw_os_error() == Some(libc::EOVERFLOW) && entries.len() < 1 << 16 => {
                entries.resize(entries.len() * 2, CounterEntry::default());
            }
            Err(e) => return Err(e),
        }
    }
}

/// The argument of FIEMAP with room for extents behind it, as the kernel wants them.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct FiemapWithRoom {
    head: Fiemap,
    extents: [FiemapExtent; EXTENTS],
}

/// Extents of a file from byte `start` on; none at the end. Over FUSE the kernel does not ask the filesystem for FIEMAP, so there it
/// is an ioctl of our own.
pub fn fiemap(file: &File, start: u64) -> io::Result<Vec<FiemapExtent>> {
    let mut argument = Box::new(FiemapWithRoom {
        head: Fiemap {
            start: start.into(),
            // As far as the largest file, for some filesystems refuse more.
            length: (i64::MAX as u64).saturating_sub(start).into(),
            extent_count: (EXTENTS as u32).into(),
            ..Fiemap::default()
        },
        extents: [FiemapExtent::default(); EXTENTS],
    });
    match call(file, FS_IOC_FIEMAP, &mut *argument) {
        Ok(_) => {}
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOTTY)) => {
            call(file, IOC_FIEMAP, &mut *argument)?;
        }
        Err(e) => return Err(e),
    }
    let found = argument.extents.get(..argument.head.mapped_extents.get() as usize);
    Ok(found.ok_or_else(bad_answer)?.to_vec())
}
