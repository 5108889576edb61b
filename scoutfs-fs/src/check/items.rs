// SPDX-License-Identifier: GPL-2.0-only
//! The pass over all items: the change index, orphans, the search index, and then inode by inode.
//!
//! A statement about two items is proven from both: an inode looks up its entry in the index, and an entry its inode, so
//! that each has exactly the other.

use scoutfs_btree::Item;
use scoutfs_format::Key;
use scoutfs_format::item::{InodeItem, ROOT_INO};
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ, ZONE_FS, ZONE_INDEX, ZONE_ORPHAN, ZONE_XATTR_INDEX};

use super::forest::Forest;
use super::inode::InodeState;
use super::issue::{IssueKind, Place};
use super::reach::Reach;
use super::space::Found;
use super::{CheckError, Checker, PROGRESS_TOTAL};

/// The pass over all items.
pub(super) struct Pass<'p, 'c> {
    pub check: &'p mut Checker<'c>,
    pub forest: Forest<'p>,
    pub reach: Reach,
}

impl Checker<'_> {
    /// Checks all items of the filesystem.
    pub(super) fn check_items(&mut self, found: &Found) -> Result<(), CheckError> {
        let forest = Forest { cache: self.cache, roots: &found.forest };
        let all = Forest { cache: self.cache, roots: &found.forest };
        let mut pass = Pass { check: self, forest, reach: Reach::new() };
        let mut inode: Option<InodeState> = None;
        all.for_each(&mut |item| {
            pass.item_seen();
            match item.key.zone {
                ZONE_INDEX => pass.index_item(item),
                ZONE_ORPHAN => pass.orphan_item(item),
                ZONE_XATTR_INDEX => pass.srch_item(item),
                ZONE_FS => {
                    let state = match inode.take() {
                        Some(state) if state.ino == item.key.first => inode.insert(state),
                        before => {
                            if let Some(before) = before {
                                pass.end_inode(before)?;
                            }
                            inode.insert(pass.begin_inode(item)?)
                        }
                    };
                    pass.inode_item(state, item)
                }
                // It was told when the tree was walked.
                _ => Ok(()),
            }
        })?;
        if let Some(last) = inode {
            pass.end_inode(last)?;
        }
        if !pass.forest.has(Key::inode(ROOT_INO))? {
            self.issue(IssueKind::NoRoot, Place::Volume);
        }
        let (counted, found) = (found.inodes, self.summary.inodes);
        if i64::try_from(found) != Ok(counted) {
            self.issue(IssueKind::InodeCount { counted, found }, Place::Volume);
        }
        Ok(())
    }
}

impl Pass<'_, '_> {
    pub fn issue(&mut self, kind: IssueKind, key: Key) {
        self.check.issue(kind, Place::Item { key });
    }

    fn item_seen(&mut self) {
        let check = &mut *self.check;
        check.summary.items += 1;
        if check.summary.items.is_multiple_of(4096) {
            let half = PROGRESS_TOTAL / 2;
            let done =
                u128::from(check.summary.items) * u128::from(half) / u128::from(check.tree_items.max(1));
            (check.progress)(half + u64::try_from(done).unwrap_or(half).min(half), PROGRESS_TOTAL);
        }
    }

    /// Tells of a value that should be empty.
    pub fn check_empty(&mut self, item: &Item<'_>) {
        if !item.value.is_empty() {
            let found = item.value.len();
            self.issue(IssueKind::ValueLength { expected: 0, found }, item.key);
        }
    }

    fn index_item(&mut self, item: &Item<'_>) -> Result<(), CheckError> {
        let key = item.key;
        let (index, seq, ino) = (key.kind, key.second, key.third);
        if key != Key::index(index, seq, ino) {
            self.issue(IssueKind::UnknownKey, key);
            return Ok(());
        }
        let seq_of: fn(&InodeItem) -> u64 = match index {
            KIND_META_SEQ => |inode| inode.meta_seq.get(),
            KIND_DATA_SEQ => |inode| inode.data_seq.get(),
            _ => {
                self.issue(IssueKind::UnknownKey, key);
                return Ok(());
            }
        };
        self.check_empty(item);
        let found = self.forest.inode(ino)?.as_ref().map(seq_of);
        match found {
            None => self.issue(IssueKind::IndexWithoutInode { seq }, key),
            Some(found) if found != seq => self.issue(IssueKind::IndexSeq { seq, found }, key),
            Some(_) => {}
        }
        Ok(())
    }

    fn orphan_item(&mut self, item: &Item<'_>) -> Result<(), CheckError> {
        let key = item.key;
        if key != Key::orphan(key.second) {
            self.issue(IssueKind::UnknownKey, key);
            return Ok(());
        }
        self.check_empty(item);
        match self.forest.inode(key.second)?.map(|inode| inode.nlink.get()) {
            None => self.issue(IssueKind::OrphanWithoutInode, key),
            Some(0) => {}
            Some(nlink) => self.issue(IssueKind::OrphanHasLinks { nlink }, key),
        }
        Ok(())
    }
}
