// SPDX-License-Identifier: GPL-2.0-only
//! Calling the ioctls of a mounted volume.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use scoutfs_format::ioctl::{
    AllocDetail, AllocDetailEntry, IOC_ALLOC_DETAIL, IOC_LISTXATTR_HIDDEN, IOC_SEARCH_XATTRS, IOC_STAT_MORE,
    IOC_STATFS_MORE, IOC_WALK_INODES, ListxattrHidden, SEARCH_XATTRS_END, SearchXattrs, StatMore, StatfsMore,
    WalkInodes, WalkInodesEntry,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Opens something in a mounted volume for ioctls.
pub fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn call<T: FromBytes + IntoBytes + Immutable>(
    file: &File,
    number: u32,
    argument: &mut T,
) -> io::Result<usize> {
    // SAFETY: the number's size field is the size of `T`, all of whose bytes may be read and written; the pointers in
    // the arguments used here come from the safe wrappers below and are valid for the lengths beside them.
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
