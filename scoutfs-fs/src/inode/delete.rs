// SPDX-License-Identifier: GPL-2.0-only
//! Deleting inodes that have no links and no users.
//!
//! An orphan item exists exactly while an inode has no links. Deletion frees the extents, then removes the other
//! items, in transactions of bounded size, and last of all, in one transaction, the inode, its orphan item, its index
//! items and the last extents. So a crash at any point leaves an inode that the scan at the next mount finds and goes on with.

use scoutfs_btree::space::budget::DELETE_BYTES;
use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::key::{
    KIND_DATA_SEQ, KIND_EXTENT, KIND_INODE, KIND_META_SEQ, KIND_XATTR, ZONE_XATTR_INDEX,
};

use crate::counters::Counter;
use crate::data::extent::{MAX_BLOCK, Remap, remap_need};
use crate::error::Result;
use crate::fs::Fs;
use crate::inode::change::Change;
use crate::inode::record::Inode;
use crate::store::{LockMode, Locks, Need};
use crate::xattr::{Class, Tags, Xattr};

/// Leftovers that a scan looks at before it says where to go on.
const SCAN_INODES: usize = 1024;
/// Items that one transaction removes at most.
const STEP_ITEMS: usize = 128;
const STEP_NEED: Need = Need { items: STEP_ITEMS as u32 + 1, bytes: 0, privileged: true };
const _: () = assert!(STEP_NEED.total_bytes() <= DELETE_BYTES);

impl Fs {
    /// Deletes leftovers: unlinked inodes that nobody uses.
    pub fn scan_orphans(&self) -> Result<()> {
        self.store().horizon()?;
        let mut from = Some(0);
        while let Some(first) = from {
            from = self.scan_some_orphans(first, SCAN_INODES)?;
        }
        Ok(())
    }

    /// Deletes leftovers at or after inode number `from`, at most `max` of them. Returns where to go on, or
    /// `None` when there are no more.
    pub fn scan_some_orphans(&self, from: u64, max: usize) -> Result<Option<u64>> {
        let mut next = from;
        for _ in 0..max {
            let Some(ino) = self.store().next_orphan(next)? else {
                return Ok(None);
            };
            self.delete_if_unused(ino)?;
            let Some(after) = ino.checked_add(1) else {
                return Ok(None);
            };
            next = after;
        }
        Ok(Some(next))
    }

    /// Deletes an inode that has no links. Called by the table for an inode that nobody can reach any more.
    pub(crate) fn delete_unlinked(&self, ino: u64) -> Result<()> {
        let locks = self.store().lock(&[(ino, LockMode::Write)])?;
        let Some(mut inode) = Inode::load(&locks, ino)? else {
            return Ok(());
        };
        if inode.nlink() != 0 {
            return Ok(());
        }
        // Who closes it last there deletes it.
        if self.store().lock_table.is_open_elsewhere(ino) {
            self.passing.note_left();
            return Ok(());
        }
        // Often there is nothing else.
        let (next, last) = (Key::inode(ino).saturating_next(), Key::inode_last(ino));
        if locks.next_near(next, last, &mut inode.spot.clone(), |_, _| ())?.is_none() {
            return self.delete_last(&locks, &mut inode, &Remap::default());
        }
        let mut first = 0;
        let extents = loop {
            let remap = self.remap(&locks, ino, first, MAX_BLOCK, None, |_| None)?;
            let Some(next) = remap.next else {
                break remap;
            };
            self.free_extents(&locks, &mut inode, first, MAX_BLOCK, |_, _| ())?;
            first = next;
        };
        // The kinds between the inode and its extents, and those after.
        let gaps = [
            (Key::inode(ino).saturating_next(), Key::kind_first(ino, KIND_EXTENT).saturating_prev()),
            (Key::kind_first(ino, KIND_EXTENT + 1), Key::inode_last(ino)),
        ];
        const { assert!(KIND_INODE < KIND_EXTENT) };
        for (first, last) in gaps {
            while self.delete_some(&locks, first, last)? {}
        }
        self.delete_last(&locks, &mut inode, &extents)
    }

    /// Removes about [`STEP_ITEMS`] items in one transaction; false when there were none. An attribute's entry in the search
    /// index goes with its first part.
    fn delete_some(&self, locks: &Locks<'_>, first: Key, last: Key) -> Result<bool> {
        // The last item may be an attribute, which brings its index entry.
        let mut keys = Vec::with_capacity(STEP_ITEMS + 1)?;
        let mut from = first;
        while keys.len() < STEP_ITEMS
            && let Some((key, entry)) = locks.next(from, last, |key, value| (key, index_entry(key, value)))?
        {
            keys.push(key)?;
            if let Some(entry) = entry {
                keys.push(entry)?;
            }
            from = key.saturating_next();
        }
        if keys.is_empty() {
            return Ok(false);
        }
        let hold = locks.hold(STEP_NEED)?;
        let mut change = Change::new(&hold);
        for key in &keys {
            if key.zone == ZONE_XATTR_INDEX { change.delete_known(*key)? } else { change.delete(*key)? }
        }
        change.finish(&[]);
        Ok(true)
    }

    /// The last transaction: the inode, what stands for it elsewhere, and its last extents.
    fn delete_last(&self, locks: &Locks<'_>, inode: &mut Inode, extents: &Remap) -> Result<()> {
        let ino = inode.ino;
        let hold = locks.hold(remap_need(extents, true))?;
        let mut change = Change::new(&hold);
        extents.prepare(&mut change, inode)?;
        change.delete_near(Key::inode(ino), inode.spot)?;
        change.delete_known(Key::orphan(ino))?;
        change.delete_known(Key::index(KIND_META_SEQ, inode.item.meta_seq.get(), ino))?;
        if inode.item.data_seq.get() != 0 {
            change.delete_known(Key::index(KIND_DATA_SEQ, inode.item.data_seq.get(), ino))?;
        }
        extents.finish(self.store(), &hold, ino);
        change.finish(&[]);
        hold.inode_delta(-1);
        self.count(Counter::DeleteInode);
        Ok(())
    }
}

/// The entry in the search index that an item of an inode stands for.
fn index_entry(key: Key, value: &[u8]) -> Option<Key> {
    if key.kind != KIND_XATTR || key.fourth != 0 {
        return None;
    }
    // Deleting goes on whatever it finds.
    let (xattr, name) = Xattr::parse(key.first, key, value).ok()?;
    Class::has(name, Tags::SRCH).then(|| xattr.index_key())
}
