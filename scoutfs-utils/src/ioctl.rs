// SPDX-License-Identifier: GPL-2.0-only
//! Calling the ioctls of a mounted volume.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use scoutfs_format::ioctl::{
    AllocDetail, AllocDetailEntry, IOC_ALLOC_DETAIL, IOC_STAT_MORE, IOC_STATFS_MORE, IOC_WALK_INODES,
    StatMore, StatfsMore, WalkInodes, WalkInodesEntry,
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
