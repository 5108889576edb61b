// SPDX-License-Identifier: GPL-2.0-only
//! Walking the change index, the search index and the orphans, in committed trees, without locks.

use scoutfs_btree::{RangeItems, read_range};
use scoutfs_format::Key;
use scoutfs_format::key::{KIND_ORPHAN, ZONE_ORPHAN};
use scoutfs_format::msg::{HorizonReply, MSG_HORIZON};
use zerocopy::FromBytes;

use super::Store;
use crate::error::{Error, Result};

impl Store {
    fn read_committed(&self, from: Key, last: Key) -> Result<RangeItems> {
        Ok(self.reader.with_roots(|roots| read_range(&self.reader.cache, &roots.forest, from, from, last))?)
    }

    /// Asks the server up to where the index is complete. Everything that was synced anywhere before this call is below.
    pub(crate) fn horizon(&self) -> Result<u64> {
        let payload = self.client.request(MSG_HORIZON, &[])?;
        let (reply, commits) = HorizonReply::read_from_prefix(&payload)
            .map_err(|_| Error::Shutdown("an answer of the server has a wrong length"))?;
        self.news.note(commits, self.identity.slot)?;
        self.catch_up()?;
        Ok(reply.horizon.get())
    }

    /// Calls `f` with up to `max` entries (seq, inode number) of the change index `kind`, ascending, from `first` to
    /// `last`, below the horizon. Returns the horizon: no entry below it can appear any more.
    pub fn walk_index(
        &self,
        kind: u8,
        first: (u64, u64),
        last: (u64, u64),
        max: usize,
        f: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<u64> {
        let horizon = self.horizon()?;
        let Some(highest) = horizon.checked_sub(1) else { return Ok(horizon) };
        let end = last.min((highest, u64::MAX));
        if first > end {
            return Ok(horizon);
        }
        let last = Key::index(kind, end.0, end.1);
        let mut from = Key::index(kind, first.0, first.1);
        let mut left = max;
        while left > 0 && from <= last {
            let range = self.read_committed(from, last)?;
            for item in &range.items {
                if left == 0 {
                    break;
                }
                f(item.key.second, item.key.third)?;
                left -= 1;
            }
            match range.last.next() {
                Some(next) if range.last < last => from = next,
                _ => break,
            }
        }
        Ok(horizon)
    }

    /// Calls `f` with the inode number of each entry of the search index for a hash, ascending, from `first` to `last`, until it
    /// returns false. An inode may come more than once. Sees everything that was synced anywhere before this call.
    pub fn walk_srch(
        &self,
        hash: u64,
        first: u64,
        last: u64,
        f: &mut dyn FnMut(u64) -> Result<bool>,
    ) -> Result<()> {
        self.horizon()?;
        let last = Key::srch(hash, last, u64::MAX);
        let mut from = Key::srch(hash, first, 0);
        while from <= last {
            let range = self.read_committed(from, last)?;
            for item in &range.items {
                if !f(item.key.second)? {
                    return Ok(());
                }
            }
            match range.last.next() {
                Some(next) if range.last < last => from = next,
                _ => break,
            }
        }
        Ok(())
    }

    /// The first committed orphan at or after an inode number, as far as this mount knows: see [`Store::horizon`].
    pub fn next_orphan(&self, from: u64) -> Result<Option<u64>> {
        let last = Key::new(ZONE_ORPHAN, 0, KIND_ORPHAN, u64::MAX, u64::MAX, u8::MAX);
        let mut from = Key::orphan(from);
        loop {
            let range = self.read_committed(from, last)?;
            if let Some(item) = range.items.first() {
                return Ok(Some(item.key.second));
            }
            match range.last.next() {
                Some(next) if range.last < last => from = next,
                _ => return Ok(None),
            }
        }
    }
}
