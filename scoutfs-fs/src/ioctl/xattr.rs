// SPDX-License-Identifier: GPL-2.0-only
//! What is told of extended attributes.

use core::mem::offset_of;

use scoutfs_env::Vec;
use scoutfs_format::ioctl::{ListxattrHidden, SEARCH_XATTRS_END, SearchXattrs};
use scoutfs_format::item::MAX_XATTR_NAME_LEN;
use scoutfs_format::le::U64;
use zerocopy::IntoBytes;

use super::results::Results;
use super::{Caller, Done, Request};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::xattr::HiddenPosition;

/// Bytes of names that are gathered before they are written to the caller.
const NAMES_PIECE: usize = 64 << 10;

impl Fs {
    /// Names of hidden attributes, for who may read the inode. The position in the argument moves on.
    pub(super) fn ioctl_listxattr_hidden(
        &self,
        request: &Request<'_>,
        out: &mut [u8],
        caller: &Caller<'_>,
    ) -> Result<Done> {
        let mut argument: ListxattrHidden = request.argument()?;
        self.check_readable(request.ino, &caller.credentials.caller())?;
        let mut position = HiddenPosition { hash: argument.hash_pos.get(), id: argument.id_pos.get() };
        // What an ioctl returns is a signed 32-bit number.
        let wanted = argument.buf_bytes.get().min(i32::MAX as u32) as usize;
        let mut names = Vec::new();
        names.resize(wanted.min(NAMES_PIECE), 0u8)?;
        let mut done = 0;
        while done < wanted {
            let len = names.len().min(wanted - done);
            let Some(room) = names.get_mut(..len) else { break };
            let n = self.list_hidden_xattrs(request.ino, &mut position, room)?;
            if n == 0 {
                break;
            }
            let address = argument.buf_ptr.get().checked_add(done as u64).ok_or(Error::Fault)?;
            caller.memory.write(address, room.get(..n).unwrap_or_default())?;
            done += n;
        }
        argument.hash_pos.set(position.hash);
        argument.id_pos.set(position.id);
        Ok(Done { result: Done::count(done).result, ..Done::put(out, &argument)? })
    }

    /// Numbers of the inodes that may have an attribute. The output flags, which nobody hands back for this number, go to the
    /// caller's structure at `address`.
    pub(super) fn ioctl_search_xattrs(
        &self,
        argument: &SearchXattrs,
        address: u64,
        caller: &Caller<'_>,
    ) -> Result<Done> {
        let name_bytes = usize::from(argument.name_bytes.get());
        if name_bytes > MAX_XATTR_NAME_LEN {
            return Err(Error::Invalid("too long a name"));
        }
        let (first, last) = (argument.next_ino.get(), argument.last_ino.get());
        let wanted = argument.nr_inodes.get().min(i32::MAX as u64);
        if wanted == 0 || last < first {
            return Ok(Done::NOTHING);
        }
        let mut name = [0; MAX_XATTR_NAME_LEN];
        let name = name.get_mut(..name_bytes).unwrap_or_default();
        caller.memory.read(argument.name_ptr.get(), name)?;
        let mut results = Results::new(caller, argument.inodes_ptr.get());
        // The search holds no lock.
        let end = self.search_xattrs(name, first, last, wanted, &mut |ino| {
            if results.push(&[U64::new(ino).as_bytes()])? { results.write() } else { Ok(()) }
        })?;
        results.write()?;
        let flags = U64::new(if end { SEARCH_XATTRS_END } else { 0 });
        let at = address.checked_add(offset_of!(SearchXattrs, output_flags) as u64).ok_or(Error::Fault)?;
        caller.memory.write(at, flags.as_bytes())?;
        results.finish(Ok(()))
    }
}
