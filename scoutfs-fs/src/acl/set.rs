// SPDX-License-Identifier: GPL-2.0-only
//! Setting and removing a list.

use super::AclKind;
use super::list::Acl;
use super::rules::MODE_PERMS;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::kind::{FileType, S_ISGID};
use crate::store::LockMode;
use crate::xattr::{Replace, Xattr, encode};

impl Fs {
    /// Sets a list as a program has it, or removes it when it has no entries; whether there is one does not matter.
    /// An access list sets the mode, too, and with `kill_sgid` takes set-group-ID away from it.
    ///
    /// # Errors
    ///
    /// [`Error::NotSupported`] for symbolic links, other encodings, and when lists are off; [`Error::AccessDenied`] for a
    /// default list of what is no directory; [`Error::NotPermitted`] for a file that is retained; [`Error::Invalid`] and
    /// [`Error::TooBig`] for what is no list.
    pub(crate) fn set_acl(&self, ino: u64, kind: AclKind, list: &[u8], kill_sgid: bool) -> Result<()> {
        let acl = Acl::parse(list)?;
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Write)])?;
        let mut state = pin.data.write();
        state.seal();
        let mut inode = self.load(&locks, ino)?;
        inode.check_changeable()?;
        match inode.kind() {
            FileType::Symlink => return Err(Error::NotSupported),
            FileType::Directory => {}
            _ if kind == AclKind::Access => {}
            _ if acl.is_none() => return Ok(()),
            _ => return Err(Error::AccessDenied),
        }
        let mut old = None;
        if inode.had_xattrs() {
            old = Xattr::find(&locks, ino, kind.xattr_name())?;
        }
        let mut kept = acl;
        if kind == AclKind::Access
            && let Some(acl) = &kept
        {
            let mut mode = inode.item.mode.get() & !MODE_PERMS | acl.mode();
            if kill_sgid {
                mode &= !S_ISGID;
            }
            inode.item.mode.set(mode);
            if acl.is_minimal() {
                kept = None;
            }
        } else if kept.is_none() && old.is_none() {
            return Ok(());
        }
        let replace = match kept {
            Some(acl) => {
                let bytes = encode(kind.xattr_name(), &acl.encode()?)?;
                Replace::with(&mut inode, old, kind.xattr_name(), bytes)?
            }
            None => Replace::remove(old),
        };
        self.write_xattr(&locks, &mut inode, &replace)
    }
}
