// SPDX-License-Identifier: GPL-2.0-only
//! Several log trees and a tail as one sorted source of changes.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::tree::TreeRoot;

use super::{Tail, TailSource};
use crate::Error;
use crate::block::BlockCache;
use crate::tree::{ChangeSource, Cursor, Item};

/// The items of some log trees, oldest first, and of the tail that follows them. Of a key that is in several the one to keep
/// comes: the highest version, and of equal ones, which are writes of one transaction, the later one.
pub struct Union<'a> {
    logs: Vec<Cursor<'a>>,
    tail: Option<TailSource<'a>>,
    /// What each source has next, the tail last.
    heads: Vec<Head>,
    /// Which source has the next item; `None` when that was not looked for.
    next: Option<usize>,
}

/// What a source has next.
#[derive(Clone, Copy)]
enum Head {
    /// It was not looked at.
    Unknown,
    /// Key and version of an item.
    Item(Key, u64),
    End,
}

impl<'a> Union<'a> {
    /// Begins at the first item at or above `from`.
    pub fn new(
        cache: &'a BlockCache,
        logs: &[TreeRoot],
        tail: Option<&'a Tail>,
        from: Key,
    ) -> Result<Self, Error> {
        let mut cursors = Vec::with_capacity(logs.len())?;
        for root in logs {
            cursors.push(Cursor::new(cache, *root, from))?;
        }
        let mut heads = Vec::new();
        heads.resize(logs.len() + 1, Head::Unknown)?;
        let tail = tail.map(|tail| TailSource::new(tail, from));
        Ok(Union { logs: cursors, tail, heads, next: None })
    }

    fn source(&mut self, at: usize) -> Option<&mut (dyn ChangeSource + 'a)> {
        match self.logs.get_mut(at) {
            Some(log) => Some(log),
            None => self.tail.as_mut().map(|tail| tail as &mut (dyn ChangeSource + 'a)),
        }
    }

    /// Looks at the sources that moved on, and finds the one with the next item.
    fn choose(&mut self) -> Result<(), Error> {
        let mut best: Option<(usize, Key, u64)> = None;
        for at in 0..self.heads.len() {
            if let Some(Head::Unknown) = self.heads.get(at) {
                let item = match self.source(at) {
                    Some(source) => source.peek()?.map(|item| (item.key, item.version)),
                    None => None,
                };
                if let Some(head) = self.heads.get_mut(at) {
                    *head = item.map_or(Head::End, |(key, version)| Head::Item(key, version));
                }
            }
            if let Some(&Head::Item(key, version)) = self.heads.get(at)
                && best.is_none_or(|(_, k, v)| key < k || (key == k && version >= v))
            {
                best = Some((at, key, version));
            }
        }
        self.next = best.map(|(at, ..)| at);
        Ok(())
    }
}

impl ChangeSource for Union<'_> {
    fn peek(&mut self) -> Result<Option<Item<'_>>, Error> {
        if self.next.is_none() {
            self.choose()?;
        }
        match self.next.and_then(|at| self.source(at)) {
            Some(source) => source.peek(),
            None => Ok(None),
        }
    }

    fn advance(&mut self) {
        let Some(&Head::Item(key, _)) = self.next.and_then(|at| self.heads.get(at)) else {
            return;
        };
        // All that have the key move on.
        for at in 0..self.heads.len() {
            if let Some(&Head::Item(other, _)) = self.heads.get(at)
                && other == key
            {
                if let Some(source) = self.source(at) {
                    source.advance();
                }
                if let Some(head) = self.heads.get_mut(at) {
                    *head = Head::Unknown;
                }
            }
        }
        self.next = None;
    }
}
