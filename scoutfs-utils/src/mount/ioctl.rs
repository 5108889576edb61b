// SPDX-License-Identifier: GPL-2.0-only
//! The ioctls of a mounted volume: numbers and structures of the C implementation.

use scoutfs_format::ioctl::{
    ALLOC_AVAILABLE, ALLOC_META, AllocDetail, AllocDetailEntry, IOC_ALLOC_DETAIL, IOC_LISTXATTR_HIDDEN,
    IOC_SEARCH_XATTRS, IOC_STAT_MORE, IOC_STATFS_MORE, IOC_WALK_INODES, ListxattrHidden, StatfsMore,
    WALK_DATA_SEQ, WALK_META_SEQ, WalkInodes, WalkInodesEntry,
};
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ};
use scoutfs_fs::Fs;
use zerocopy::{FromBytes, IntoBytes};

use super::convert::errno;
use super::user_memory::UserMemory;
use super::xattr_ioctl;
use crate::fuse::{Context, Errno, Ioctl, IoctlReply};

/// Entries of a change index that are gathered before they are written to the caller.
const WALK_BATCH: usize = 8192;

fn done(result: usize, out_len: usize) -> Result<IoctlReply, Errno> {
    Ok(IoctlReply::Done { result: i32::try_from(result).unwrap_or(i32::MAX), out_len })
}

fn argument<T: FromBytes>(ioctl: &Ioctl<'_>) -> Result<T, Errno> {
    T::read_from_bytes(ioctl.data).map_err(|_| Errno::INVAL)
}

fn put(out: &mut [u8], bytes: &[u8]) -> Result<IoctlReply, Errno> {
    out.get_mut(..bytes.len()).ok_or(Errno::INVAL)?.copy_from_slice(bytes);
    done(0, bytes.len())
}

/// Carries out an ioctl on `ino`.
pub fn run(
    fs: &Fs,
    ino: u64,
    ctx: &Context<'_>,
    ioctl: &Ioctl<'_>,
    out: &mut [u8],
) -> Result<IoctlReply, Errno> {
    let pid = ctx.pid;
    match ioctl.cmd {
        IOC_WALK_INODES => walk_inodes(fs, UserMemory::of(pid)?, &argument(ioctl)?),
        IOC_STAT_MORE => put(out, fs.stat_more(ino).map_err(errno)?.as_bytes()),
        IOC_STATFS_MORE => put(out, statfs_more(fs)?.as_bytes()),
        IOC_ALLOC_DETAIL => alloc_detail(fs, UserMemory::of(pid)?, &argument(ioctl)?),
        IOC_LISTXATTR_HIDDEN => {
            let mut list: ListxattrHidden = argument(ioctl)?;
            let bytes = xattr_ioctl::list_hidden(fs, ino, ctx, &mut list)?;
            put(out, list.as_bytes())?;
            done(bytes, size_of::<ListxattrHidden>())
        }
        IOC_SEARCH_XATTRS => done(xattr_ioctl::search(fs, ctx, &argument(ioctl)?, ioctl.arg)?, 0),
        _ => Err(Errno::NOTTY),
    }
}

fn walk_inodes(fs: &Fs, memory: UserMemory, walk: &WalkInodes) -> Result<IoctlReply, Errno> {
    let kind = match walk.index {
        WALK_META_SEQ => KIND_META_SEQ,
        WALK_DATA_SEQ => KIND_DATA_SEQ,
        _ => return Err(Errno::INVAL),
    };
    let position = |e: &WalkInodesEntry| (e.major.get(), e.ino.get());
    let (first, last) = (position(&walk.first), position(&walk.last));
    let wanted = walk.nr_entries.get().min(i32::MAX as u32) as usize;
    if wanted == 0 || first > last {
        return done(0, 0);
    }
    let mut entries: Vec<WalkInodesEntry> = Vec::new();
    let mut address = walk.entries_ptr.get();
    let mut count = 0;
    let mut failed = None;
    let walked = fs.walk_index(kind, first, last, wanted, &mut |seq, ino| {
        entries.push(WalkInodesEntry { major: seq.into(), ino: ino.into(), ..WalkInodesEntry::default() });
        count += 1;
        if entries.len() == WALK_BATCH {
            let bytes = entries.as_bytes();
            if let Err(e) = memory.write(address, bytes) {
                failed = Some(e);
                return Err(scoutfs_fs::Error::Interrupted);
            }
            address = address.wrapping_add(bytes.len() as u64);
            entries.clear();
        }
        Ok(())
    });
    if let Some(e) = failed {
        return Err(e);
    }
    walked.map_err(errno)?;
    memory.write(address, entries.as_bytes())?;
    done(count, 0)
}

fn statfs_more(fs: &Fs) -> Result<StatfsMore, Errno> {
    let stat = fs.statfs().map_err(errno)?;
    let store = fs.store();
    Ok(StatfsMore {
        fsid: store.fsid().into(),
        rid: store.rid().into(),
        committed_seq: store.committed_seq().into(),
        total_meta_blocks: stat.total_meta.into(),
        total_data_blocks: (stat.total_data + stat.unassigned).into(),
        reserved_meta_blocks: stat.reserved_meta.into(),
    })
}

fn alloc_detail(fs: &Fs, memory: UserMemory, detail: &AllocDetail) -> Result<IoctlReply, Errno> {
    let stat = fs.statfs().map_err(errno)?;
    let rid = fs.store().rid();
    let entry = |id: u64, blocks: u64, flags: u8| AllocDetailEntry {
        id: id.into(),
        blocks: blocks.into(),
        store: u8::from(id != 0),
        flags: flags | ALLOC_AVAILABLE,
        pad: [0; 6],
    };
    let entries = [
        entry(0, stat.server_free_meta, ALLOC_META),
        entry(0, stat.server_free_data + stat.unassigned, 0),
        entry(rid, stat.free_meta - stat.server_free_meta, ALLOC_META),
        entry(rid, stat.free_data - stat.server_free_data, 0),
    ];
    if detail.entries_nr.get() < entries.len() as u64 {
        return Err(Errno::OVERFLOW);
    }
    memory.write(detail.entries_ptr.get(), entries.as_bytes())?;
    done(entries.len(), 0)
}
