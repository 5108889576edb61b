// SPDX-License-Identifier: GPL-2.0-only
//! Setting and removing extended attributes.

use scoutfs_format::item::{MAX_XATTR_VALUE_LEN, XATTR_PART_LEN, name_hash};

use crate::counters::Counter;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::{Change, INODE_CHANGE_ITEMS, Touch};
use crate::inode::record::Inode;
use crate::store::{LockMode, Locks, Need};
use crate::xattr::value::{MAX_PARTS, Xattr, check_name, encode, nr_parts};

/// What setting an attribute does when it is, or is not, there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetXattrMode {
    /// Creates or replaces.
    Any,
    /// Fails when it is there.
    Create,
    /// Fails when it is not there.
    Replace,
}

impl Fs {
    /// Sets an attribute.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] and [`Error::NoAttribute`] by the mode; [`Error::TooBig`] for a value of more than 65,535 bytes.
    pub fn setxattr(&self, ino: u64, name: &[u8], value: &[u8], mode: SetXattrMode) -> Result<()> {
        self.writable()?;
        check_name(name)?;
        if value.len() > MAX_XATTR_VALUE_LEN {
            return Err(Error::TooBig);
        }
        self.count(Counter::Setxattr);
        let bytes = encode(name, value)?;
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Write)])?;
        let _state = pin.data.write();
        let mut inode = self.load(&locks, ino)?;
        check_retention(&inode, name)?;
        let old = Xattr::find(&locks, ino, name)?;
        match (mode, old) {
            (SetXattrMode::Create, Some(_)) => return Err(Error::Exists),
            (SetXattrMode::Replace, None) => return Err(Error::NoAttribute),
            _ => {}
        }
        let new = Xattr {
            ino,
            hash: name_hash(name),
            id: old.map_or(inode.item.next_xattr_id.get(), |old| old.id),
            name_len: name.len(),
            value_len: value.len(),
        };
        if old.is_none() {
            let next = new.id.checked_add(1).ok_or(Error::NoSpace)?;
            inode.item.next_xattr_id.set(next);
        }
        self.write_xattr(&locks, &mut inode, old, Some((&new, &bytes)))
    }

    /// Removes an attribute.
    ///
    /// # Errors
    ///
    /// [`Error::NoAttribute`] when it is not there.
    pub fn removexattr(&self, ino: u64, name: &[u8]) -> Result<()> {
        self.writable()?;
        check_name(name)?;
        self.count(Counter::Setxattr);
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Write)])?;
        let _state = pin.data.write();
        let mut inode = self.load(&locks, ino)?;
        check_retention(&inode, name)?;
        let old = Xattr::find(&locks, ino, name)?.ok_or(Error::NoAttribute)?;
        self.write_xattr(&locks, &mut inode, Some(old), None)
    }

    /// Goes from the old value's parts to the new one's. What can fail comes first: making the old parts dirty, creating
    /// the new ones, and the one update that may need more room, that of the old value's last part when the new value
    /// goes on in it. All other updates are of the same size or less.
    fn write_xattr(
        &self,
        locks: &Locks<'_>,
        inode: &mut Inode,
        old: Option<Xattr>,
        new: Option<(&Xattr, &[u8])>,
    ) -> Result<()> {
        let old_parts = old.map_or(0, |old| old.nr_parts());
        let bytes = new.map_or(&[][..], |(_, bytes)| bytes);
        let new_parts = bytes.len().div_ceil(XATTR_PART_LEN);
        debug_assert!(new.is_none_or(|(new, _)| nr_parts(new.name_len, new.value_len) == new_parts));
        let part = |nr: usize| {
            let start = nr * XATTR_PART_LEN;
            bytes.get(start..bytes.len().min(start + XATTR_PART_LEN)).unwrap_or(&[])
        };
        let hold = locks.hold(Need {
            items: 2 * MAX_PARTS as u32 + INODE_CHANGE_ITEMS,
            bytes: bytes.len() + 256,
            privileged: new.is_none(),
        })?;
        let mut change = Change::new(&hold);
        change.inode(inode, Touch::Meta)?;
        if let Some(old) = old {
            for nr in 0..old_parts {
                if nr < new_parts { hold.dirty(old.key(nr))? } else { change.delete(old.key(nr))? }
            }
        }
        if let Some((new, _)) = new {
            for nr in old_parts..new_parts {
                change.create(new.key(nr), &[part(nr)])?;
            }
            let kept = old_parts.min(new_parts);
            if let Some(last) = kept.checked_sub(1) {
                hold.update(new.key(last), &[part(last)])?;
                for nr in 0..last {
                    hold.update_dirty(new.key(nr), &[part(nr)]);
                }
            }
        }
        inode.touch_ctime(self.store().now());
        change.finish(&[inode]);
        Ok(())
    }
}

/// A retained file keeps its users' attributes; what administrators and the archive attach may change.
fn check_retention(inode: &Inode, name: &[u8]) -> Result<()> {
    if name.starts_with(b"user.") { inode.check_changeable() } else { Ok(()) }
}
