// SPDX-License-Identifier: GPL-2.0-only
//! The end of a transaction.

use scoutfs_btree::OwnedItem;
use scoutfs_env::{AllocError, Vec};

use crate::cache::ItemCache;

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
        let mut dirty_pages = self.dirty_pages.lock();
        let nr_pages = dirty_pages.len();

        let mut batch = Vec::with_capacity(self.dirty_items())?;
        // Pages do not overlap, so in the order of their first keys their items ascend.
        for (first, ()) in dirty_pages.iter() {
            if let Some(page) = map.page_mut(first) {
                page.items.get_mut().copy_dirty(&mut batch)?;
            }
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
            // Who did not look when writing will hardly look later. A read that is going on needs the page,
            // though.
            let (forced, last) = (page.forced, page.last);
            if forced && !self.reads.overlap(&first, &last) {
                self.drop_page(&mut map, &first);
            }
        }
        drop(dirty_pages);
        drop(map);
        self.keep_limit(nr_pages);
        Ok(result)
    }
}
