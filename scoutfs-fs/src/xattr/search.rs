// SPDX-License-Identifier: GPL-2.0-only
//! Which inodes have an attribute.

use scoutfs_format::item::{MAX_XATTR_NAME_LEN, name_hash};

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::xattr::name::{Class, Tags};

impl Fs {
    /// Calls `f` with the inodes from `first` to `last`, ascending, each once, that have the attribute `name`, up to `max` of
    /// them. Returns whether there are no more. The name must have the tag `srch.`.
    ///
    /// Shows everything that was synced anywhere before the call, and maybe more, but nothing that is not. Another name with
    /// the same 64-bit hash is found, too: who must be certain looks at the inode. Looking here would take a lock and a
    /// read for each.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name that is too long or has no such tag. An error of `f` ends the search.
    pub fn search_xattrs(
        &self,
        name: &[u8],
        first: u64,
        last: u64,
        max: u64,
        f: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<bool> {
        if name.len() > MAX_XATTR_NAME_LEN || !Class::has(name, Tags::SRCH) {
            return Err(Error::Invalid("a name without the tag that makes it searchable"));
        }
        let mut before = None;
        let mut count = 0;
        let mut end = true;
        self.store().walk_srch(name_hash(name), first, last, &mut |ino| {
            if before == Some(ino) {
                return Ok(true);
            }
            before = Some(ino);
            if count == max {
                end = false;
                return Ok(false);
            }
            count += 1;
            f(ino).map(|()| true)
        })?;
        Ok(end)
    }
}
