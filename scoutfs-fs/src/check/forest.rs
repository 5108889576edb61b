// SPDX-License-Identifier: GPL-2.0-only
//! The filesystem's items as a mount reads them: of all trees and records the highest version, deletions dropped.

use scoutfs_btree::{BlockCache, ForestRoots, Item, ItemGuard, lookup, read_range};
use scoutfs_format::Key;
use scoutfs_format::item::InodeItem;
use zerocopy::FromBytes;

use super::CheckError;

/// All trees and records of a volume.
pub(super) struct Forest<'a> {
    pub cache: &'a BlockCache,
    pub roots: &'a ForestRoots,
}

impl Forest<'_> {
    /// Calls `each` with all items of a range in key order.
    pub fn for_each(
        &self,
        first: Key,
        last: Key,
        each: &mut dyn FnMut(&Item<'_>) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        let mut next = Some(first);
        while let Some(from) = next.filter(|from| *from <= last) {
            let piece = read_range(self.cache, self.roots, from, from, last)?;
            for item in &piece.items {
                each(&item.borrow())?;
            }
            next = piece.last.next();
        }
        Ok(())
    }

    /// What `f` makes of the item with a key, if there is one.
    pub fn get<R>(&self, key: Key, f: impl FnOnce(&Item<'_>) -> R) -> Result<Option<R>, CheckError> {
        let mut in_tail: Option<Item<'_>> = None;
        for item in self.roots.tails.iter().filter_map(|tail| tail.get(&key)) {
            if in_tail.is_none_or(|best| item.version > best.version) {
                in_tail = Some(item);
            }
        }
        let mut in_tree: Option<ItemGuard> = None;
        let logs = self.roots.logs.iter().map(|log| &log.root);
        for root in logs.chain([&self.roots.fs_root]) {
            if let Some(found) = lookup(self.cache, root, &key)?
                && in_tree.as_ref().is_none_or(|best| found.item().version > best.item().version)
            {
                in_tree = Some(found);
            }
        }
        // Of equal versions a record's goes first, as where ranges are read.
        let in_tree = in_tree.as_ref().map(ItemGuard::item);
        let best = match (in_tail, in_tree) {
            (Some(tail), Some(tree)) if tree.version > tail.version => Some(tree),
            (None, tree) => tree,
            (tail, _) => tail,
        };
        Ok(best.filter(|item| !item.deletion).map(|item| f(&item)))
    }

    /// Whether there is an item.
    pub fn has(&self, key: Key) -> Result<bool, CheckError> {
        Ok(self.get(key, |_| ())?.is_some())
    }

    /// An inode's item. One of a wrong length is told elsewhere and counts as none here.
    pub fn inode(&self, ino: u64) -> Result<Option<InodeItem>, CheckError> {
        Ok(self.get(Key::inode(ino), |item| InodeItem::read_from_bytes(item.value).ok())?.flatten())
    }
}
