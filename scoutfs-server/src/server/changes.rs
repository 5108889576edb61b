// SPDX-License-Identifier: GPL-2.0-only
//! Changes of the server's tree that the next commit applies.

use scoutfs_btree::OwnedItem;
use scoutfs_env::{AllocError, OrdMap, Vec};
use scoutfs_format::Key;
use zerocopy::{Immutable, IntoBytes};

/// The last change of each key since the last commit; `None` removes the item.
#[derive(Default)]
pub(crate) struct Changes {
    map: OrdMap<Key, Option<Vec<u8>>>,
}

impl Changes {
    pub const fn new() -> Self {
        Changes { map: OrdMap::new() }
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, key: Key, value: &T) -> Result<(), AllocError> {
        self.map.insert(key, Some(Vec::from_slice(value.as_bytes())?))?;
        Ok(())
    }

    pub fn delete(&mut self, key: Key) -> Result<(), AllocError> {
        self.map.insert(key, None)?;
        Ok(())
    }

    /// Takes all changes, as items in key order.
    pub fn take(&mut self) -> Result<Vec<OwnedItem>, AllocError> {
        let mut items = Vec::with_capacity(self.map.len())?;
        while let Some((key, value)) = self.map.pop_first() {
            let deletion = value.is_none();
            let value = value.unwrap_or_default();
            items.push(OwnedItem { key, version: 0, deletion, value })?;
        }
        Ok(items)
    }
}
