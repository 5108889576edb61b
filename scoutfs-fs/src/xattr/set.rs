// SPDX-License-Identifier: GPL-2.0-only
//! Setting and removing extended attributes.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::item::{MAX_XATTR_VALUE_LEN, XATTR_PART_LEN};
use scoutfs_item::Spot;

use crate::counters::Counter;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::{Change, INODE_CHANGE_ITEMS, Touch};
use crate::inode::record::Inode;
use crate::store::{LockMode, Locks, Need};
use crate::xattr::name::{Class, Tags};
use crate::xattr::value::{MAX_PARTS, Xattr, encode};

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

/// How to set an attribute. Made of a [`SetXattrMode`], all else is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetXattr {
    /// What if it is, or is not, there. Not looked at for access control lists.
    pub mode: SetXattrMode,
    /// The caller may change attributes with tags (on Linux: has CAP_SYS_ADMIN).
    pub privileged: bool,
    /// An access control list takes set-group-ID away from the file: the caller is not of its group.
    pub kill_sgid: bool,
}

impl From<SetXattrMode> for SetXattr {
    fn from(mode: SetXattrMode) -> Self {
        SetXattr { mode, privileged: false, kill_sgid: false }
    }
}

impl Fs {
    /// Sets an attribute. One that is an access control list changes the mode as well, or the mode alone.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] and [`Error::NoAttribute`] by the mode; [`Error::TooBig`] for a value of more than 65,535
    /// bytes; [`Error::NotPermitted`] for a name with tags without privilege; for names see
    /// [`the module`](crate::xattr), for access control lists see [`acl`](crate::acl).
    pub fn setxattr(&self, ino: u64, name: &[u8], value: &[u8], how: impl Into<SetXattr>) -> Result<()> {
        let how = how.into();
        self.writable()?;
        let class = self.class_of(name)?;
        if value.len() > MAX_XATTR_VALUE_LEN {
            return Err(Error::TooBig);
        }
        match class {
            Class::Acl(kind) => return self.set_acl(ino, kind, value, how.kill_sgid),
            Class::Tagged(_) if !how.privileged => return Err(Error::NotPermitted),
            _ => {}
        }
        self.count(Counter::Setxattr);
        let bytes = encode(name, value)?;
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Write)])?;
        let mut state = pin.data.write();
        state.seal();
        let mut inode = self.load(&locks, ino)?;
        check_retention(&inode, name)?;
        let old = Xattr::find(&locks, ino, name)?;
        match (how.mode, old) {
            (SetXattrMode::Create, Some(_)) => return Err(Error::Exists),
            (SetXattrMode::Replace, None) => return Err(Error::NoAttribute),
            _ => {}
        }
        let mut replace = Replace::with(&mut inode, old, name, bytes)?;
        replace.indexed = matches!(class, Class::Tagged(tags) if tags.contains(Tags::SRCH));
        self.write_xattr(&locks, &mut inode, &replace)
    }

    /// Removes an attribute. `privileged` as in [`SetXattr`].
    ///
    /// # Errors
    ///
    /// [`Error::NoAttribute`] when it is not there (an access control list is no attribute to Linux: to remove none
    /// is no error); [`Error::NotPermitted`] for a name with tags without privilege.
    pub fn removexattr(&self, ino: u64, name: &[u8], privileged: bool) -> Result<()> {
        self.writable()?;
        let class = self.class_of(name)?;
        if matches!(class, Class::Tagged(_)) && !privileged {
            return Err(Error::NotPermitted);
        }
        self.count(Counter::Setxattr);
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Write)])?;
        let mut state = pin.data.write();
        state.seal();
        let mut inode = self.load(&locks, ino)?;
        check_retention(&inode, name)?;
        let old = match Xattr::find(&locks, ino, name)? {
            None if matches!(class, Class::Acl(_)) => return Ok(()),
            old => old.ok_or(Error::NoAttribute)?,
        };
        let mut replace = Replace::remove(Some(old));
        replace.indexed = matches!(class, Class::Tagged(tags) if tags.contains(Tags::SRCH));
        self.write_xattr(&locks, &mut inode, &replace)
    }

    /// What a caller's name says.
    pub(crate) fn class_of(&self, name: &[u8]) -> Result<Class> {
        match Class::of(name)? {
            Class::Acl(_) if !self.acls() => Err(Error::NotSupported),
            class => Ok(class),
        }
    }

    /// Carries out the change of an attribute, and changes the inode.
    pub(crate) fn write_xattr(&self, locks: &Locks<'_>, inode: &mut Inode, replace: &Replace) -> Result<()> {
        let hold = locks.hold(replace.need())?;
        let mut change = Change::new(&hold);
        change.inode(inode, Touch::Meta)?;
        replace.write(&mut change)?;
        inode.touch_ctime(self.store().now());
        change.finish(&[inode]);
        Ok(())
    }
}

/// The change of one attribute of an inode: to be there, to have another value, or not to be there.
pub(crate) struct Replace {
    old: Option<Xattr>,
    new: Option<(Xattr, Vec<u8>)>,
    /// The name says that it is indexed.
    indexed: bool,
}

impl Replace {
    /// Another value, with a new id if it was not there. `bytes` are all of the attribute.
    pub fn with(inode: &mut Inode, old: Option<Xattr>, name: &[u8], bytes: Vec<u8>) -> Result<Replace> {
        match old {
            Some(old) => Ok(Replace::value(old, bytes)),
            None => {
                let new = Xattr::next_of(inode, name, &bytes)?;
                Ok(Replace { old, new: Some((new, bytes)), indexed: false })
            }
        }
    }

    /// Another value of an attribute that is there, which keeps its id. `bytes` are all of it.
    pub fn value(old: Xattr, bytes: Vec<u8>) -> Replace {
        let new = old.with_bytes(&bytes);
        Replace { old: Some(old), new: Some((new, bytes)), indexed: false }
    }

    /// Not to be there.
    pub fn remove(old: Option<Xattr>) -> Replace {
        Replace { old, new: None, indexed: false }
    }

    /// What it takes inside the transaction, with the change of the inode.
    pub fn need(&self) -> Need {
        Need {
            items: 2 * MAX_PARTS as u32 + 1 + INODE_CHANGE_ITEMS,
            bytes: self.new.as_ref().map_or(0, |(_, bytes)| bytes.len()) + 256,
            // Only what goes makes room.
            privileged: self.old.is_some() && self.new.is_none(),
        }
    }

    /// Goes from the old value's parts to the new one's, as the last that can fail in its change. What can fail comes first:
    /// the index entry, making the old parts dirty, creating the new ones, and the one update that may need more room, that of
    /// the old value's last part when the new value goes on in it. All other updates are of the same size or less. The index entry of
    /// a value that is replaced stays as it is: it names the id.
    pub fn write(&self, change: &mut Change<'_, '_>) -> Result<()> {
        let old_parts = self.old.map_or(0, |old| old.nr_parts());
        let bytes = self.new.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        let new_parts = bytes.len().div_ceil(XATTR_PART_LEN);
        if self.indexed {
            match (&self.old, &self.new) {
                (None, Some((new, _))) => change.create_known(new.index_key())?,
                (Some(old), None) => change.delete_known(old.index_key())?,
                _ => {}
            }
        }
        let hold = change.hold();
        let mut spot = Spot::default();
        if let Some(old) = self.old {
            for nr in 0..old_parts {
                if nr < new_parts {
                    hold.dirty(old.key(nr), &mut spot)?;
                } else {
                    change.delete_near(old.key(nr), spot)?;
                }
            }
        }
        if let Some((new, _)) = &self.new {
            for nr in old_parts..new_parts {
                change.create_near(new.key(nr), &mut spot, &[part(bytes, nr)])?;
            }
            let kept = old_parts.min(new_parts);
            if let Some(last) = kept.checked_sub(1) {
                hold.update(new.key(last), &[part(bytes, last)])?;
                for nr in 0..last {
                    hold.update_dirty(new.key(nr), spot, &[part(bytes, nr)]);
                }
            }
        }
        Ok(())
    }
}

/// One part of all of an attribute.
fn part(bytes: &[u8], nr: usize) -> &[u8] {
    let start = nr * XATTR_PART_LEN;
    bytes.get(start..bytes.len().min(start + XATTR_PART_LEN)).unwrap_or(&[])
}

impl Xattr {
    /// Creates all parts of an attribute that is new.
    pub fn create(&self, change: &mut Change<'_, '_>, bytes: &[u8]) -> Result<()> {
        for nr in 0..self.nr_parts() {
            change.create(self.key(nr), &[part(bytes, nr)])?;
        }
        Ok(())
    }

    /// Its entry in the search index, if its name says that it has one.
    pub fn index_key(&self) -> Key {
        Key::srch(self.hash, self.ino, self.id)
    }
}

/// A retained file keeps its users' attributes; what administrators and the archive attach may change.
fn check_retention(inode: &Inode, name: &[u8]) -> Result<()> {
    if name.starts_with(b"user.") { inode.check_changeable() } else { Ok(()) }
}
