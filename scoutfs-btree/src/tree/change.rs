// SPDX-License-Identifier: GPL-2.0-only
//! What to change in a tree, by which rule, and how much at once.

use scoutfs_format::Key;

use super::{Cursor, Item, OwnedItem};
use crate::Error;

/// Changes in strictly ascending key order.
pub trait ChangeSource {
    /// The next change, which stays the next one; `None` after the last.
    fn peek(&mut self) -> Result<Option<Item<'_>>, Error>;

    /// Moves on from the change that [`peek`](Self::peek) gave.
    fn advance(&mut self);
}

impl ChangeSource for Cursor<'_> {
    fn peek(&mut self) -> Result<Option<Item<'_>>, Error> {
        Cursor::peek(self)
    }

    fn advance(&mut self) {
        Cursor::advance(self);
    }
}

/// Changes from a sorted slice.
#[derive(Debug, Clone)]
pub struct SliceSource<'a> {
    items: &'a [OwnedItem],
}

impl<'a> SliceSource<'a> {
    /// All of a slice.
    pub fn new(items: &'a [OwnedItem]) -> Self {
        SliceSource { items }
    }

    /// The part of a sorted slice that begins at `from`.
    pub fn starting_at(items: &'a [OwnedItem], from: &Key) -> Self {
        let start = items.partition_point(|item| item.key < *from);
        SliceSource { items: items.get(start..).unwrap_or_default() }
    }
}

impl ChangeSource for SliceSource<'_> {
    fn peek(&mut self) -> Result<Option<Item<'_>>, Error> {
        Ok(self.items.first().map(OwnedItem::borrow))
    }

    fn advance(&mut self) {
        self.items = self.items.get(1..).unwrap_or_default();
    }
}

/// What becomes of a change and of the item that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A mount's own log tree: the higher version stays, the change when they are equal (it is the mount's later
    /// write). Deletions are kept.
    Log,
    /// The fs tree: the higher version stays, what is there when they are equal. A deletion with a version below
    /// `tombstone_floor` is dropped, as are those that happen to be in a leaf that is written anew.
    Merge {
        /// No log tree that is not merged yet may hold an item with a lower version than this.
        tombstone_floor: u64,
    },
    /// The server's own tree: a change replaces, a deletion removes. Versions are 0.
    Plain,
}

/// What an item and a change with its key become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Winner {
    Old,
    Change,
    Neither,
}

impl Rule {
    /// Decides between a change and the item with its key, if there is one.
    pub(super) fn decide(&self, old: Option<&Item<'_>>, change: &Item<'_>) -> Winner {
        let (winner, item) = match old {
            Some(old) if self.keeps(old, change) => (Winner::Old, old),
            _ => (Winner::Change, change),
        };
        if item.deletion && self.drops_deletion(item.version) { Winner::Neither } else { winner }
    }

    fn keeps(&self, old: &Item<'_>, change: &Item<'_>) -> bool {
        match self {
            Rule::Log => old.version > change.version,
            Rule::Merge { .. } => old.version >= change.version,
            Rule::Plain => false,
        }
    }

    /// Whether a deletion of this version leaves nothing behind.
    pub(super) fn drops_deletion(&self, version: u64) -> bool {
        match self {
            Rule::Log => false,
            Rule::Merge { tombstone_floor } => version < *tombstone_floor,
            Rule::Plain => true,
        }
    }

    /// Whether deletions can be in the tree that have to be looked for.
    pub(super) fn sweeps(&self) -> bool {
        matches!(self, Rule::Merge { .. })
    }
}

/// How much to do at once. At least one change is applied, so that repeated calls come to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Changes to apply.
    pub max_changes: u64,
    /// No further change is applied once this many blocks are written or begun. Completing the tree takes up to
    /// [`SLACK_PER_LEVEL`](Self::SLACK_PER_LEVEL) more for each level, a new one on top included.
    pub max_blocks: u64,
}

impl Limit {
    /// Blocks of each level by which `max_blocks` may be passed: what the last change began, the rest of the nodes that it
    /// took apart, and a neighbour to join.
    pub const SLACK_PER_LEVEL: u64 = 6;

    /// All at once.
    pub const NONE: Limit = Limit { max_changes: u64::MAX, max_blocks: u64::MAX };
}

/// A source of changes, checked and limited.
pub(super) struct Batch<'a> {
    source: &'a mut dyn ChangeSource,
    limit: Limit,
    /// Key of the change to apply next.
    key: Option<Key>,
    /// Key of the change that the limit kept from being applied.
    rest: Option<Key>,
    taken: u64,
}

impl<'a> Batch<'a> {
    pub(super) fn new(source: &'a mut dyn ChangeSource, limit: Limit) -> Result<Self, Error> {
        let key = source.peek()?.map(|item| item.key);
        Ok(Batch { source, limit, key, rest: None, taken: 0 })
    }

    /// Key of the next change.
    pub(super) fn key(&self) -> Option<Key> {
        self.key
    }

    /// The next change. A deletion has no value.
    pub(super) fn peek(&mut self) -> Result<Option<Item<'_>>, Error> {
        if self.key.is_none() {
            return Ok(None);
        }
        let Some(mut item) = self.source.peek()? else {
            return Ok(None);
        };
        if item.deletion {
            item.value = &[];
        }
        Ok(Some(item))
    }

    /// Moves on. `blocks` were written or begun so far.
    pub(super) fn advance(&mut self, blocks: u64) -> Result<(), Error> {
        let previous = self.key.take();
        self.taken = self.taken.saturating_add(1);
        self.source.advance();
        let key = self.source.peek()?.map(|item| item.key);
        if let (Some(previous), Some(key)) = (previous, key)
            && key <= previous
        {
            return Err(Error::Unsorted { previous, key });
        }
        if self.taken >= self.limit.max_changes || blocks >= self.limit.max_blocks {
            self.rest = key;
        } else {
            self.key = key;
        }
        Ok(())
    }

    /// Changes applied so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Key of the first change that was not applied.
    pub(super) fn rest(&self) -> Option<Key> {
        self.rest
    }
}
