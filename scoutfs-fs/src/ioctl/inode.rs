// SPDX-License-Identifier: GPL-2.0-only
//! What is told of, or done to, an inode.

use core::mem::offset_of;

use scoutfs_env::Vec;
use scoutfs_format::ioctl::{
    AttrX, DIRENT_ALIGN, DIRENT_LAST, Dirent, FIEMAP_SYNC, Fiemap, FiemapExtent, GetReferringEntries,
    InoPath, InoPathResult,
};
use scoutfs_format::le::{U16, U32, U64};
use zerocopy::IntoBytes;

use super::results::Results;
use super::{Caller, Done, Request};
use crate::dir::Referring;
use crate::error::{Error, Result};
use crate::fs::Fs;

/// Extents that are gathered under the file's lock at once.
const EXTENTS: usize = 1024;

/// Bytes of an entry before its name.
const DIRENT_NAME: usize = offset_of!(Dirent, name);

impl Fs {
    pub(super) fn ioctl_ino_path(&self, get: &InoPath, caller: &Caller<'_>) -> Result<Done> {
        // Without the NUL. Where there is no room for that, no name fits either.
        let room = usize::from(get.result_bytes.get()).saturating_sub(size_of::<InoPathResult>() + 1);
        let found = self.ino_path(get.ino.get(), get.dir_ino.get(), get.dir_pos.get(), room)?;
        let found = found.ok_or(Error::NotFound)?;
        let path_bytes = u16::try_from(found.path.len() + 1).map_err(|_| Error::NameTooLong)?;
        let header = InoPathResult {
            dir_ino: U64::new(found.dir),
            dir_pos: U64::new(found.pos),
            path_bytes: U16::new(path_bytes),
            pad: [0; 6],
        };
        let mut result = Vec::with_capacity(size_of::<InoPathResult>() + found.path.len() + 1)?;
        for part in [header.as_bytes(), &found.path, &[0]] {
            result.extend_from_slice(part)?;
        }
        caller.memory.write(get.result_ptr.get(), &result)?;
        Ok(Done::NOTHING)
    }

    pub(super) fn ioctl_referring_entries(
        &self,
        get: &GetReferringEntries,
        caller: &Caller<'_>,
    ) -> Result<Done> {
        if !get.entries_ptr.get().is_multiple_of(DIRENT_ALIGN) {
            return Err(Error::Invalid("room for entries that is not aligned"));
        }
        let mut results = Results::new(caller, get.entries_ptr.get());
        let mut gather = || -> Result<()> {
            let mut room = get.entries_bytes.get();
            let mut from = Some((get.dir_ino.get(), get.dir_pos.get()));
            while results.count() < i32::MAX as usize
                && let Some((dir, pos)) = from
                && let Some(entry) = self.next_referring(get.ino.get(), dir, pos)?
            {
                let end = DIRENT_NAME + entry.name.len() + 1;
                let bytes = end.next_multiple_of(DIRENT_ALIGN as usize);
                let Some(left) = room.checked_sub(bytes as u64) else {
                    if results.count() == 0 {
                        return Err(Error::Invalid("too little room for an entry"));
                    }
                    break;
                };
                room = left;
                let head = dirent(get.ino.get(), &entry, bytes)?;
                let zeros = [0u8; DIRENT_ALIGN as usize + 1];
                let padding = zeros.get(..bytes - end + 1).unwrap_or(&zeros);
                let head = head.as_bytes().get(..DIRENT_NAME).unwrap_or(&[]);
                if results.push(&[head, &entry.name, padding])? {
                    results.write()?;
                }
                if entry.last {
                    break;
                }
                from = entry.after();
            }
            Ok(())
        };
        let gathered = gather();
        results.finish(gathered)
    }

    pub(super) fn ioctl_get_attr_x(&self, request: &Request<'_>, caller: &Caller<'_>) -> Result<Done> {
        let mut x: AttrX = request.argument()?;
        let len = self.get_attr_x(request.ino, &mut x)?;
        // The number says that the caller only writes.
        caller.memory.write(request.arg, x.as_bytes().get(..len).unwrap_or(&[]))?;
        Ok(Done::NOTHING)
    }

    pub(super) fn ioctl_fiemap(
        &self,
        request: &Request<'_>,
        out: &mut [u8],
        caller: &Caller<'_>,
    ) -> Result<Done> {
        let mut map: Fiemap = request.argument()?;
        if map.extent_count.get() > u32::MAX / size_of::<FiemapExtent>() as u32 {
            return Err(Error::Invalid("more extents than memory"));
        }
        if map.flags.get() & !FIEMAP_SYNC != 0 {
            return Err(Error::UnknownFlags);
        }
        if map.length.get() == 0 {
            return Err(Error::Invalid("a range of no bytes"));
        }
        let mut start = map.start.get();
        let end = start.saturating_add(map.length.get());
        let only_count = map.extent_count.get() == 0;
        let mut left = if only_count { u32::MAX } else { map.extent_count.get() };
        let mut address = request.arg.checked_add(size_of::<Fiemap>() as u64).ok_or(Error::Fault)?;
        let mut found = 0u32;
        loop {
            let extents = self.fiemap(request.ino, start, end, EXTENTS.min(left as usize))?;
            let Some(last) = extents.last() else { break };
            start = last.logical.get() + last.length.get();
            if !only_count {
                caller.memory.write(address, extents.as_bytes())?;
                address = address.checked_add(extents.as_bytes().len() as u64).ok_or(Error::Fault)?;
            }
            // No more than were asked for.
            left -= extents.len() as u32;
            found += extents.len() as u32;
            if left == 0 || start >= end {
                break;
            }
        }
        map.mapped_extents = U32::new(found);
        Done::put(out, &map)
    }
}

/// An entry as callers see it, of `bytes` bytes in all.
fn dirent(ino: u64, entry: &Referring, bytes: usize) -> Result<Dirent> {
    let too_long = |_| Error::Corrupt { ino, what: "a name is too long" };
    Ok(Dirent {
        dir_ino: U64::new(entry.dir),
        dir_pos: U64::new(entry.pos),
        ino: U64::new(ino),
        entry_bytes: U16::new(u16::try_from(bytes).map_err(too_long)?),
        flags: if entry.last { DIRENT_LAST } else { 0 },
        // The type's bits of a mode, moved to the lowest place, are those of readdir(3).
        d_type: (entry.kind.mode() >> 12) as u8,
        name_len: u8::try_from(entry.name.len()).map_err(too_long)?,
        name: [0; 3],
    })
}
