// SPDX-License-Identifier: GPL-2.0-only
//! The ioctls about extended attributes.

use core::mem::offset_of;

use scoutfs_format::ioctl::{ListxattrHidden, SEARCH_XATTRS_END, SearchXattrs};
use scoutfs_format::item::MAX_XATTR_NAME_LEN;
use scoutfs_fs::Fs;
use scoutfs_fs::xattr::HiddenPosition;
use zerocopy::IntoBytes;

use super::caller::{Capability, Credentials};
use super::convert::errno;
use super::user_memory::UserMemory;
use crate::fuse::{Context, Errno};

/// Bytes of names that are gathered before they are written to the caller.
const NAMES_BATCH: usize = 64 << 10;
/// Inode numbers that are gathered before they are written to the caller.
const INODES_BATCH: usize = 8192;

/// Writes names of hidden attributes to the caller, who must be allowed to read the inode. Moves the position in the
/// argument on; returns the bytes.
pub fn list_hidden(
    fs: &Fs,
    ino: u64,
    ctx: &Context<'_>,
    argument: &mut ListxattrHidden,
) -> Result<usize, Errno> {
    fs.check_readable(ino, &Credentials::of(ctx).caller()).map_err(errno)?;
    let memory = UserMemory::of(ctx.pid)?;
    let mut position = HiddenPosition { hash: argument.hash_pos.get(), id: argument.id_pos.get() };
    // What an ioctl returns is a signed 32-bit number.
    let wanted = argument.buf_bytes.get().min(i32::MAX as u32) as usize;
    let mut names = vec![0; wanted.min(NAMES_BATCH)];
    let mut done = 0;
    while done < wanted {
        let room = names.len().min(wanted - done);
        let n = fs.list_hidden_xattrs(ino, &mut position, &mut names[..room]).map_err(errno)?;
        if n == 0 {
            break;
        }
        let address = argument.buf_ptr.get().checked_add(done as u64).ok_or(Errno::FAULT)?;
        memory.write(address, &names[..n])?;
        done += n;
    }
    argument.hash_pos = position.hash.into();
    argument.id_pos = position.id.into();
    Ok(done)
}

/// Writes the numbers of the inodes that may have an attribute to the caller, who must be privileged; returns how many. The
/// output flags, which the kernel does not hand back for this number, go to the caller's structure at `address`.
pub fn search(fs: &Fs, ctx: &Context<'_>, argument: &SearchXattrs, address: u64) -> Result<usize, Errno> {
    if !Credentials::of(ctx).has(Capability::SysAdmin) {
        return Err(Errno::PERM);
    }
    let memory = UserMemory::of(ctx.pid)?;
    let name_bytes = usize::from(argument.name_bytes.get());
    if name_bytes > MAX_XATTR_NAME_LEN {
        return Err(Errno::INVAL);
    }
    let (first, last) = (argument.next_ino.get(), argument.last_ino.get());
    let wanted = argument.nr_inodes.get().min(i32::MAX as u64);
    if wanted == 0 || last < first {
        return Ok(0);
    }
    let mut name = [0; MAX_XATTR_NAME_LEN];
    let name = &mut name[..name_bytes];
    memory.read(argument.name_ptr.get(), name)?;

    let mut batch = Batch { memory, address: argument.inodes_ptr.get(), inodes: Vec::new(), count: 0 };
    let mut failed = None;
    let searched = fs.search_xattrs(name, first, last, wanted, &mut |ino| {
        batch.add(ino).map_err(|e| {
            failed = Some(e);
            scoutfs_fs::Error::Interrupted
        })
    });
    if let Some(e) = failed {
        return Err(e);
    }
    let end = searched.map_err(errno)?;
    batch.flush()?;
    let flags = if end { SEARCH_XATTRS_END } else { 0 };
    let at = address.checked_add(offset_of!(SearchXattrs, output_flags) as u64).ok_or(Errno::FAULT)?;
    memory.write(at, &flags.to_le_bytes())?;
    Ok(batch.count)
}

/// Inode numbers on their way to the caller.
struct Batch {
    memory: UserMemory,
    /// Where the next ones go.
    address: u64,
    inodes: Vec<u64>,
    count: usize,
}

impl Batch {
    fn add(&mut self, ino: u64) -> Result<(), Errno> {
        self.inodes.push(ino);
        self.count += 1;
        if self.inodes.len() == INODES_BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Errno> {
        let bytes = self.inodes.as_bytes();
        self.memory.write(self.address, bytes)?;
        self.address = self.address.checked_add(bytes.len() as u64).ok_or(Errno::FAULT)?;
        self.inodes.clear();
        Ok(())
    }
}
