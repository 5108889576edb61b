// SPDX-License-Identifier: GPL-2.0-only
//! The end of a transaction.

use core::mem;

use scoutfs_btree::OwnedItem;
use scoutfs_env::{AllocError, Vec};

use crate::cache::ItemCache;
use crate::forced::Forced;
use crate::item::Usage;

impl ItemCache {
    /// Closes the transaction: calls `keep` with copies of all dirty items, ascending by key, deletions as
    /// tombstones; if `keep` succeeds they are clean.
    ///
    /// When `keep` returns, [`ItemReader`](crate::ItemReader) must see the batch: its items may be evicted at
    /// once. `keep` must not call the cache. The batch is empty when nothing is dirty. Each write is in it
    /// wholly or not at all. On an error, which is that of `keep` or no memory, the transaction goes on as if
    /// nothing had happened.
    pub fn take_dirty<R, E: From<AllocError>>(
        &self,
        keep: impl FnOnce(Vec<OwnedItem>) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut map = self.map.write();
        let mut forced = self.forced.lock();
        let mut dirty_pages = self.dirty_pages.lock();
        let nr_pages = dirty_pages.len();

        let mut batch = Vec::with_capacity(self.dirty_items())?;
        // Pages do not overlap, and cover none of the others, so in the order of their first keys all items ascend.
        let mut others = forced.iter().peekable();
        for (first, ()) in dirty_pages.iter() {
            while let Some(item) = others.next_if(|item| item.key < *first) {
                batch.push(item.copy()?)?;
            }
            if let Some(page) = map.page_mut(first) {
                page.items.get_mut().copy_dirty(&mut batch)?;
            }
        }
        for item in others {
            batch.push(item.copy()?)?;
        }
        let result = keep(batch)?;

        while let Some((first, ())) = dirty_pages.pop_first() {
            let Some(page) = map.page_mut(&first) else {
                continue;
            };
            let items = page.items.get_mut();
            let before = items.usage();
            items.set_clean();
            self.totals.replace(before, items.usage());
        }
        // Who did not look when writing will hardly look later. A read that is going on may have missed them.
        self.reads.make_stale_if(|low, high| forced.first_in(low, high).is_some());
        let forgotten = mem::take(&mut *forced);
        for item in forgotten.iter() {
            self.totals.replace(Forced::usage(item), Usage::default());
        }
        drop(dirty_pages);
        drop(forced);
        drop(map);
        // Takes its time; others go on.
        drop(forgotten);
        self.keep_limit(nr_pages);
        Ok(result)
    }
}
