// SPDX-License-Identifier: GPL-2.0-only
//! A change of several items that happens as a whole or not at all.
//!
//! The item cache has no undo. So an operation first takes all steps that can fail: it creates new items, and
//! makes those dirty that it will update or delete. Then [`Change::finish`] takes the steps that cannot fail.
//! When a step fails, dropping the change deletes again what it created.
//!
//! The change index moves along: each inode that changes gets the version of this change as its `meta_seq`
//! (and `data_seq`, when a regular file's data changed), and exactly one index item of each kind stands for it.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ};
use scoutfs_item::Spot;
use zerocopy::IntoBytes;

use crate::error::Result;
use crate::inode::record::Inode;
use crate::store::Hold;

/// What of an inode changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// Anything but file data.
    Meta,
    /// A regular file's data or size.
    Data,
}

/// Items that one inode's change may write at most: itself, two old and two new index items.
pub(crate) const INODE_CHANGE_ITEMS: u32 = 5;

/// See the module.
pub(crate) struct Change<'h, 's> {
    hold: &'h Hold<'s>,
    /// Created here: deleted again unless the change is finished.
    created: Vec<Key>,
    /// Dirty, to be deleted.
    deleted: Vec<(Key, Spot)>,
}

/// Steps for which there is room at once.
const STEPS: usize = 8;

/// Makes room for one more step.
fn make_room<T>(steps: &mut Vec<T>) -> Result<()> {
    if steps.len() == steps.capacity() {
        steps.reserve(STEPS.max(steps.len()))?;
    }
    Ok(())
}

impl<'h, 's> Change<'h, 's> {
    pub fn new(hold: &'h Hold<'s>) -> Self {
        Change { hold, created: Vec::new(), deleted: Vec::new() }
    }

    pub fn hold(&self) -> &'h Hold<'s> {
        self.hold
    }

    /// Creates an item.
    pub fn create(&mut self, key: Key, parts: &[&[u8]]) -> Result<()> {
        self.create_near(key, &mut Spot::default(), parts)
    }

    /// Creates an item, with a guess where it will be; notes where it is.
    pub fn create_near(&mut self, key: Key, spot: &mut Spot, parts: &[&[u8]]) -> Result<()> {
        make_room(&mut self.created)?;
        self.hold.create_near(key, spot, parts)?;
        self.created.push(key)?;
        Ok(())
    }

    /// Creates an empty item that is known not to be there, without reading: a version is an index item's once, an attribute's
    /// id is used once, and an inode with links has no orphan item.
    pub fn create_known(&mut self, key: Key) -> Result<()> {
        make_room(&mut self.created)?;
        self.hold.create_absent(key, &[])?;
        self.created.push(key)?;
        Ok(())
    }

    /// Will delete an item.
    pub fn delete(&mut self, key: Key) -> Result<()> {
        self.delete_near(key, Spot::default())
    }

    /// Will delete an item, which is about at this spot.
    pub fn delete_near(&mut self, key: Key, mut spot: Spot) -> Result<()> {
        make_room(&mut self.deleted)?;
        self.hold.dirty(key, &mut spot)?;
        self.deleted.push((key, spot))?;
        Ok(())
    }

    /// Will delete an empty item that is known to be there, without reading: writing it again makes it dirty.
    pub fn delete_known(&mut self, key: Key) -> Result<()> {
        make_room(&mut self.deleted)?;
        self.hold.create_force(key, &[])?;
        self.deleted.push((key, Spot::default()))?;
        Ok(())
    }

    /// Will update an inode, which must be given to [`Change::finish`].
    pub fn inode(&mut self, inode: &mut Inode, touch: Touch) -> Result<()> {
        self.hold.dirty(Key::inode(inode.ino), &mut inode.spot)?;
        let version = self.hold.version();
        let old = inode.item.meta_seq.get();
        if old != version {
            self.create_known(Key::index(KIND_META_SEQ, version, inode.ino))?;
            self.delete_known(Key::index(KIND_META_SEQ, old, inode.ino))?;
            inode.item.meta_seq.set(version);
        }
        if touch == Touch::Data {
            let old = inode.item.data_seq.get();
            if old != version {
                self.create_known(Key::index(KIND_DATA_SEQ, version, inode.ino))?;
                if old != 0 {
                    self.delete_known(Key::index(KIND_DATA_SEQ, old, inode.ino))?;
                }
                inode.item.data_seq.set(version);
            }
            let calls = inode.item.data_version.get().wrapping_add(1);
            inode.item.data_version.set(calls);
        }
        let changes = inode.item.version.get().wrapping_add(1);
        inode.item.version.set(changes);
        Ok(())
    }

    /// Creates an inode.
    pub fn new_inode(&mut self, inode: &mut Inode) -> Result<()> {
        let version = self.hold.version();
        inode.item.meta_seq.set(version);
        self.create_near(Key::inode(inode.ino), &mut inode.spot, &[inode.item.as_bytes()])?;
        self.create_known(Key::index(KIND_META_SEQ, version, inode.ino))
    }

    /// Takes the steps that cannot fail: writes the inodes and deletes what is to be deleted.
    pub fn finish(mut self, inodes: &[&Inode]) {
        self.created.clear();
        for inode in inodes {
            self.hold.update_dirty(Key::inode(inode.ino), inode.spot, &[inode.item.as_bytes()]);
        }
        for (key, spot) in &self.deleted {
            self.hold.delete_dirty(*key, *spot);
        }
    }
}

impl Drop for Change<'_, '_> {
    fn drop(&mut self) {
        for key in &self.created {
            self.hold.delete_dirty(*key, Spot::default());
        }
    }
}
