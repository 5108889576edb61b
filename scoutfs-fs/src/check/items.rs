// SPDX-License-Identifier: GPL-2.0-only
//! The pass over all items: the change index, orphans, the search index, and then inode by inode.
//!
//! A statement about two items is proven from both: an inode looks up its entry in the index, and an entry its inode, so
//! that each has exactly the other.

use scoutfs_btree::{BlockCache, ForestRoots, Item};
use scoutfs_env::{Arc, Vec};
use scoutfs_format::Key;
use scoutfs_format::geometry::Geometry;
use scoutfs_format::item::{InodeItem, ROOT_INO};
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ, ZONE_FS, ZONE_INDEX, ZONE_ORPHAN, ZONE_XATTR_INDEX};
use scoutfs_format::voter::SuperBlock;

use super::cuts::{Cuts, inside};
use super::events::{Event, Events};
use super::forest::Forest;
use super::inode::InodeState;
use super::issue::{Issue, IssueKind, Place};
use super::parallel::in_order;
use super::reach::Reach;
use super::space::Found;
use super::{CheckError, Checker, PROGRESS_TOTAL};

/// What is the same for all pieces of the pass.
pub(super) struct Volume {
    cache: Arc<BlockCache>,
    roots: ForestRoots,
    pub sb: SuperBlock,
    pub geometry: Geometry,
}

/// What was counted.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub items: u64,
    pub inodes: u64,
    pub directories: u64,
    pub data_blocks: u64,
}

/// What a piece of the pass found.
struct Part {
    /// The part of an inode that a cut before this piece goes through.
    head: Option<InodeState>,
    head_events: Vec<Event>,
    /// Whether other inodes follow.
    more: bool,
    events: Vec<Event>,
    /// The last inode, which may go on in the next piece.
    tail: Option<InodeState>,
    counts: Counts,
}

/// A piece of the pass over all items.
pub(super) struct Pass<'p> {
    pub volume: &'p Volume,
    pub forest: Forest<'p>,
    pub events: Events,
    pub counts: Counts,
}

impl Checker<'_> {
    /// Checks all items of the filesystem.
    pub(super) fn check_items(&mut self, found: Found) -> Result<(), CheckError> {
        let cuts = core::mem::replace(&mut self.cuts, Cuts::new()).finish()?;
        let nr_pieces = cuts.len();
        let volume =
            Volume { cache: self.cache.clone(), roots: found.forest, sb: self.sb, geometry: self.geometry };
        let volume = Arc::new(volume)?;
        let shared = volume.clone();
        let mut reach = Reach::new();
        // What ends inodes that were cut.
        let mut ends = Pass::new(&volume);
        let mut open: Option<InodeState> = None;
        let work = move |nr: usize| match cuts.get(nr) {
            Some(first) => {
                let last = cuts.get(nr + 1).map_or(Key::MAX, |next| next.saturating_prev());
                Pass::new(&shared).piece(*first, last)
            }
            None => Err(CheckError::NoMemory),
        };
        in_order(self.threads, nr_pieces, work, &mut |part| {
            if let Some(head) = part.head {
                match &mut open {
                    Some(state) if state.ino == head.ino => ends.join(state, &head),
                    _ => {
                        if let Some(before) = open.replace(head) {
                            ends.end_inode(before)?;
                        }
                        ends.no_inode_item(open.as_ref());
                    }
                }
                self.act(&mut reach, &ends.forest, ends.events.take()?)?;
                self.act(&mut reach, &ends.forest, part.head_events)?;
            }
            if part.more {
                if let Some(before) = open.take() {
                    ends.end_inode(before)?;
                }
                open = part.tail;
                self.act(&mut reach, &ends.forest, ends.events.take()?)?;
            }
            self.act(&mut reach, &ends.forest, part.events)?;
            self.count(&part.counts);
            Ok(())
        })?;
        if let Some(last) = open {
            ends.end_inode(last)?;
            self.act(&mut reach, &ends.forest, ends.events.take()?)?;
        }
        self.count(&ends.counts);
        if !ends.forest.has(Key::inode(ROOT_INO))? {
            self.issue(IssueKind::NoRoot, Place::Volume);
        }
        let (counted, found) = (found.inodes, self.summary.inodes);
        if i64::try_from(found) != Ok(counted) {
            self.issue(IssueKind::InodeCount { counted, found }, Place::Volume);
        }
        Ok(())
    }

    /// Acts on what was found.
    fn act(&mut self, reach: &mut Reach, forest: &Forest<'_>, events: Vec<Event>) -> Result<(), CheckError> {
        for event in events {
            match event {
                Event::Issue(Issue { kind, place }) => self.issue(kind, place),
                Event::Claim(run) => drop(self.claim_run(run)?),
                Event::Directory { ino, parent, up } => {
                    if let Some(through) = reach.go_up(forest, ino, parent, up)? {
                        self.issue(IssueKind::DirLoop { through }, Place::Inode { ino });
                    }
                }
                Event::Node(_) => {}
            }
        }
        Ok(())
    }

    fn count(&mut self, counts: &Counts) {
        let summary = &mut self.summary;
        summary.items += counts.items;
        summary.inodes += counts.inodes;
        summary.directories += counts.directories;
        summary.data_blocks = summary.data_blocks.saturating_add(counts.data_blocks);
        let half = PROGRESS_TOTAL / 2;
        // As in `node_seen`.
        let done = summary.items.saturating_mul(half) / self.tree_items.max(1);
        (self.progress)(half + done.min(half), PROGRESS_TOTAL);
    }
}

impl<'p> Pass<'p> {
    fn new(volume: &'p Volume) -> Pass<'p> {
        let forest = Forest { cache: &volume.cache, roots: &volume.roots };
        Pass { volume, forest, events: Events::default(), counts: Counts::default() }
    }

    /// Checks the items of a range.
    fn piece(mut self, first: Key, last: Key) -> Result<Part, CheckError> {
        let volume = self.volume;
        let all = Forest { cache: &volume.cache, roots: &volume.roots };
        let cut = inside(&first);
        let mut head = None;
        let mut head_events = Vec::new();
        let mut more = false;
        let mut inode: Option<InodeState> = None;
        all.for_each(first, last, &mut |item| {
            let pass = &mut self;
            pass.counts.items += 1;
            match item.key.zone {
                ZONE_INDEX => pass.index_item(item),
                ZONE_ORPHAN => pass.orphan_item(item),
                ZONE_XATTR_INDEX => pass.srch_item(item),
                ZONE_FS => {
                    let ino = item.key.first;
                    let state = match inode.take() {
                        Some(state) if state.ino == ino => inode.insert(state),
                        None if cut == Some(ino) && !more => inode.insert(pass.go_on(ino)?),
                        before => {
                            match before {
                                Some(before) if cut == Some(before.ino) => {
                                    head = Some(before);
                                    head_events = pass.events.take()?;
                                }
                                Some(before) => pass.end_inode(before)?,
                                None => {}
                            }
                            more = true;
                            inode.insert(pass.begin_inode(item)?)
                        }
                    };
                    pass.inode_item(state, item)
                }
                // It was told when the tree was walked.
                _ => Ok(()),
            }
        })?;
        if let Some(state) = &mut inode {
            // No attribute is cut.
            self.end_xattr(state)?;
        }
        if !more && let Some(state) = inode.take() {
            head = Some(state);
            head_events = self.events.take()?;
        }
        let events = self.events.take()?;
        Ok(Part { head, head_events, more, events, tail: inode, counts: self.counts })
    }

    pub fn issue(&mut self, kind: IssueKind, key: Key) {
        self.events.issue(kind, Place::Item { key });
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
