// SPDX-License-Identifier: GPL-2.0-only
//! May a caller read an inode. Kernels check for nearly everything; this is for what only this project knows of, and what a
//! kernel therefore lets pass.

use super::AclKind;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::store::LockMode;

/// To read, among permissions.
const READ: u8 = 4;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// User.
    pub uid: u32,
    /// All groups.
    pub groups: &'a [u32],
    /// May read whatever permissions say.
    pub reads_all: bool,
}

impl Caller<'_> {
    pub(super) fn in_group(&self, gid: u32) -> bool {
        self.groups.contains(&gid)
    }
}

impl Fs {
    /// Fails unless the caller may read an inode.
    ///
    /// # Errors
    ///
    /// [`Error::AccessDenied`].
    pub fn check_readable(&self, ino: u64, caller: &Caller<'_>) -> Result<()> {
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Read)])?;
        let _state = pin.data.read();
        let inode = self.load(&locks, ino)?;
        if caller.reads_all {
            return Ok(());
        }
        let (uid, gid) = (inode.item.uid.get(), inode.item.gid.get());
        let acl = if self.acls() { self.load_acl(&locks, &inode, AclKind::Access)? } else { None };
        let permitted = match acl {
            Some((_, acl)) => acl.permits(caller, uid, gid, READ),
            None => {
                let mode = inode.item.mode.get();
                let shift = if caller.uid == uid {
                    6
                } else if caller.in_group(gid) {
                    3
                } else {
                    0
                };
                mode >> shift & u32::from(READ) != 0
            }
        };
        if permitted { Ok(()) } else { Err(Error::AccessDenied) }
    }
}
