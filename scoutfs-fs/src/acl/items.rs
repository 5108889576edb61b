// SPDX-License-Identifier: GPL-2.0-only
//! The lists of inodes, where they are kept.

use scoutfs_env::Vec;

use super::AclKind;
use super::list::Acl;
use super::rules::MODE_PERMS;
use crate::dir::NewInode;
use crate::error::Result;
use crate::fs::Fs;
use crate::inode::change::Change;
use crate::inode::kind::{FileType, MODE_BITS};
use crate::inode::record::Inode;
use crate::store::Locks;
use crate::xattr::{Replace, Xattr, encode};

impl Fs {
    /// An inode's list of a kind, and the attribute that holds it.
    pub(crate) fn load_acl(
        &self,
        locks: &Locks<'_>,
        inode: &Inode,
        kind: AclKind,
    ) -> Result<Option<(Xattr, Acl)>> {
        if !inode.had_xattrs() {
            return Ok(None);
        }
        let Some(xattr) = Xattr::find(locks, inode.ino, kind.xattr_name())? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        bytes.resize(xattr.value_len, 0)?;
        xattr.read(locks, &mut bytes)?;
        match Acl::parse_stored(&bytes)? {
            Ok(acl) => Ok(Some((xattr, acl))),
            Err(_) => Err(inode.corrupt("its access control list is unsound")),
        }
    }

    /// What an inode that is made in `parent` gets from there.
    pub(crate) fn inherit(
        &self,
        locks: &Locks<'_>,
        parent: &Inode,
        kind: FileType,
        new: &NewInode,
    ) -> Result<Inherited> {
        let mode = new.mode & MODE_BITS;
        if kind == FileType::Symlink {
            return Ok(Inherited { mode, access: None, default: None });
        }
        let default = if self.acls() { self.load_acl(locks, parent, AclKind::Default)? } else { None };
        let Some((_, default)) = default else {
            return Ok(Inherited { mode: mode & !(new.umask & MODE_PERMS), access: None, default: None });
        };
        let mut access = default.try_clone()?;
        let mode = access.inherit(mode);
        let bytes = |kind: AclKind, acl: &Acl| encode(kind.xattr_name(), &acl.encode()?);
        Ok(Inherited {
            mode,
            access: if access.is_minimal() { None } else { Some(bytes(AclKind::Access, &access)?) },
            default: if kind == FileType::Directory {
                Some(bytes(AclKind::Default, &default)?)
            } else {
                None
            },
        })
    }

    /// The change of an inode's access list that goes with a change of its mode to `mode`. `None` when it has no list, or
    /// one that goes together with the mode already.
    pub(crate) fn follow_mode(&self, locks: &Locks<'_>, inode: &Inode, mode: u32) -> Result<Option<Replace>> {
        let Some((old, mut acl)) = self.load_acl(locks, inode, AclKind::Access)? else {
            return Ok(None);
        };
        if acl.mode() == mode & MODE_PERMS {
            return Ok(None);
        }
        acl.set_mode(mode);
        let bytes = encode(AclKind::Access.xattr_name(), &acl.encode()?)?;
        Ok(Some(Replace::value(old, bytes)))
    }
}

/// What a new inode gets from the directory that it is made in.
pub(crate) struct Inherited {
    /// Its mode, without the type.
    pub mode: u32,
    /// Its lists, as attributes are stored.
    access: Option<Vec<u8>>,
    default: Option<Vec<u8>>,
}

impl Inherited {
    /// Adds the lists to a new inode, whose item is created after this.
    pub fn create(&self, change: &mut Change<'_, '_>, inode: &mut Inode) -> Result<()> {
        let lists = [(AclKind::Access, &self.access), (AclKind::Default, &self.default)];
        for (kind, bytes) in lists {
            let Some(bytes) = bytes else { continue };
            let xattr = Xattr::next_of(inode, kind.xattr_name(), bytes)?;
            xattr.create(change, bytes)?;
        }
        Ok(())
    }

    /// Most items that the lists take.
    pub const MAX_ITEMS: u32 = 4;

    /// Bytes of the lists.
    pub fn bytes(&self) -> usize {
        [&self.access, &self.default].into_iter().flatten().map(|list| list.len()).sum()
    }
}
