// SPDX-License-Identifier: GPL-2.0-only
//! Every node of every tree, and which versions its items have.

use core::ops::Range;

use scoutfs_btree::space::SpaceKind;
use scoutfs_btree::tree::{Place as NodePlace, Visitor, walk_down_to};
use scoutfs_btree::{BlockCache, Error as TreeError, Item, Node, OwnedItem};
use scoutfs_env::sync::atomic::{AtomicBool, Ordering};
use scoutfs_env::{Arc, Vec};
use scoutfs_format::Key;
use scoutfs_format::key::{ZONE_FS, ZONE_INDEX, ZONE_ORPHAN, ZONE_SERVER, ZONE_XATTR_INDEX};
use scoutfs_format::tree::TreeRoot;

use super::events::{Event, Events};
use super::issue::{Issue, IssueKind, Place, TreeId};
use super::owners::{Owner, Run, blocks};
use super::parallel::in_order;
use super::{CheckError, Checker, PROGRESS_TOTAL};

/// When more nodes than this have two owners the trees are not followed further: each node may have thousands.
const MAX_SHARED_NODES: u64 = 1000;

/// A tree to be checked.
#[derive(Clone, Copy)]
pub(super) struct Tree {
    pub id: TreeId,
    pub root: TreeRoot,
    /// Nodes that only cover keys below this one are free already.
    pub freed_below: Key,
    /// The versions that its items may have: first and last.
    pub versions: (u64, u64),
    /// Whether the filesystem's items are read from it.
    pub in_forest: bool,
}

/// What was seen of a tree.
#[derive(Default)]
pub(super) struct Seen {
    pub deletions: u64,
    /// All items of the server's tree; it is small. None of other trees.
    pub items: Vec<OwnedItem>,
    /// A node that is not sound was seen.
    pub broken: bool,
}

/// Leaves of one parent, as a piece of work; or the only node of a tree.
struct Leaves {
    parent: NodePlace,
    children: Range<usize>,
}

/// Leaves in one piece of work.
const LEAVES: usize = 32;

/// What was seen of some leaves.
struct Part {
    seen: Seen,
    items: u64,
    events: Vec<Event>,
    /// Where they begin.
    first_keys: Vec<Key>,
}

impl Checker<'_> {
    /// Checks all nodes of a tree and claims their blocks. Those above the leaves are read here, and then the leaves by
    /// several threads.
    pub(super) fn check_tree(&mut self, tree: &Tree) -> Result<Seen, CheckError> {
        let (cache, root) = (self.cache.clone(), tree.root);
        let mut walker = Walker { check: self, tree, leaves: Vec::new(), broken: false, failed: None };
        if let Ok(Some(top)) = NodePlace::of_root(&root)
            && top.level == 0
        {
            walker.leaves.push(Leaves { parent: top, children: 0..1 })?;
        }
        let walked = walk_down_to(&cache, &root, 1, &mut walker);
        let Walker { leaves, broken, failed, .. } = walker;
        let mut seen = Seen { broken, ..Seen::default() };
        match (failed, walked) {
            (Some(e), _) => return Err(e),
            (None, Err(TreeError::NoMemory)) => return Err(CheckError::NoMemory),
            // The walker's own, to end the walk early.
            (None, Err(_)) => seen.broken = true,
            (None, Ok(())) => self.check_leaves(tree, leaves, &mut seen)?,
        }
        if seen.broken {
            self.summary.owners_checked = false;
            self.summary.items_checked &= !tree.in_forest;
        }
        Ok(seen)
    }

    fn check_leaves(&mut self, tree: &Tree, leaves: Vec<Leaves>, seen: &mut Seen) -> Result<(), CheckError> {
        let (count, tree) = (leaves.len(), *tree);
        let stop = Arc::new(AtomicBool::new(false))?;
        let (cache, seq_bound) = (self.cache.clone(), self.sb.seq_bound.get());
        let context = LeafCheck { cache, tree, seq_bound, stop: stop.clone() };
        let work = move |nr| match leaves.get(nr) {
            Some(leaves) => context.check(leaves),
            None => Ok(None),
        };
        in_order(self.threads, count, work, &mut |part| {
            let Some(part) = part.filter(|_| self.shared_nodes <= MAX_SHARED_NODES) else {
                seen.broken = true;
                stop.store(true, Ordering::Relaxed);
                return Ok(());
            };
            seen.deletions += part.seen.deletions;
            seen.broken |= part.seen.broken;
            seen.items.try_extend(part.seen.items)?;
            if tree.in_forest {
                self.tree_items += part.items;
                self.cuts.add(&part.first_keys)?;
            }
            for event in part.events {
                match event {
                    Event::Node(blkno) => self.claim_node(&tree, blkno)?,
                    Event::Issue(Issue { kind, place }) => self.issue(kind, place),
                    Event::Claim(_) | Event::Directory { .. } => {}
                }
            }
            Ok(())
        })
    }

    fn claim_node(&mut self, tree: &Tree, blkno: u64) -> Result<(), CheckError> {
        self.node_seen();
        let shared = self.claim(SpaceKind::Meta, blkno, 1, Owner::Tree(tree.id), None)?;
        self.shared_nodes += u64::from(shared);
        Ok(())
    }

    /// Claims blocks and tells of those that have an owner already. Returns whether there are such.
    pub(super) fn claim(
        &mut self,
        kind: SpaceKind,
        start: u64,
        len: u64,
        owner: Owner,
        place: Option<Place>,
    ) -> Result<bool, CheckError> {
        match self.owners.run(kind, start, len, owner) {
            Some(run) => self.claim_run(run),
            None => {
                let place = place.unwrap_or(Place::Blocks { kind, start, len });
                self.issue(IssueKind::OutsideZones { owner }, place);
                Ok(false)
            }
        }
    }

    pub(super) fn claim_run(&mut self, run: Run) -> Result<bool, CheckError> {
        let Checker { owners, report, summary, .. } = self;
        let mut taken = false;
        owners.claim(run, &mut |found| {
            taken = true;
            summary.issues += 1;
            let (kind, start, len) = blocks(&Run { kind: run.kind.or(found.kind), ..found });
            report(Issue {
                kind: IssueKind::OwnedTwice { first: found.owner, second: run.owner },
                place: Place::Blocks { kind, start, len },
            });
        })?;
        Ok(taken)
    }

    fn node_seen(&mut self) {
        self.summary.nodes += 1;
        if self.summary.nodes.is_multiple_of(64) {
            let total = self.sb.meta_zones.get().saturating_mul(self.geometry.zone_meta_blocks()).max(1);
            let half = PROGRESS_TOTAL / 2;
            // A kernel cannot divide more than 64 bits. No volume has so many nodes that this is too few.
            let done = self.summary.nodes.saturating_mul(half) / total;
            (self.progress)(done.min(half), PROGRESS_TOTAL);
        }
    }
}

/// Checks what can be said of an item of a tree or of a record by itself.
pub(super) fn check_version(tree: &Tree, seq_bound: u64, item: &Item<'_>, events: &mut Events) {
    let place = || Place::TreeItem { tree: tree.id, key: item.key };
    let version = item.version;
    let server = tree.id == TreeId::Server;
    let known = match item.key.zone {
        ZONE_SERVER => server,
        ZONE_INDEX | ZONE_ORPHAN | ZONE_XATTR_INDEX | ZONE_FS => !server,
        _ => false,
    };
    if !known {
        events.issue(IssueKind::UnknownKey, place());
    }
    let bound = if server { 1 } else { seq_bound };
    let (min, max) = tree.versions;
    if version >= bound {
        events.issue(IssueKind::VersionNotGivenOut { version, bound }, place());
    } else if version < min || version > max {
        events.issue(IssueKind::VersionOutsideLog { version, min, max }, place());
    }
}

fn broken(tree: &Tree, place: &NodePlace, error: TreeError) -> Issue {
    let (tree, block, first, last) = (tree.id, place.block, place.first, place.last);
    Issue { kind: IssueKind::Node { error }, place: Place::Node { tree, block, first, last } }
}

/// What a thread needs to check leaves of a tree.
struct LeafCheck {
    cache: Arc<BlockCache>,
    tree: Tree,
    seq_bound: u64,
    /// The tree is not followed further.
    stop: Arc<AtomicBool>,
}

impl LeafCheck {
    fn check(&self, leaves: &Leaves) -> Result<Option<Part>, CheckError> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut part = Part { seen: Seen::default(), items: 0, events: Vec::new(), first_keys: Vec::new() };
        let mut events = Events::default();
        let parent = match leaves.parent.level {
            0 => None,
            _ => Some(Node::read(&self.cache, &leaves.parent)?),
        };
        for index in leaves.children.clone() {
            let place = match &parent {
                Some(parent) if index < parent.len() => parent.child(index, leaves.parent.last),
                Some(_) => break,
                None => leaves.parent,
            };
            if place.last < self.tree.freed_below {
                continue;
            }
            part.first_keys.push(place.first)?;
            match Node::read(&self.cache, &place) {
                Ok(leaf) => self.leaf(&leaf, &mut part, &mut events)?,
                Err(TreeError::NoMemory) => return Err(CheckError::NoMemory),
                Err(error) => {
                    part.seen.broken = true;
                    events.push(Event::Issue(broken(&self.tree, &place, error)));
                }
            }
        }
        part.events = events.take()?;
        Ok(Some(part))
    }

    fn leaf(&self, leaf: &Node, part: &mut Part, events: &mut Events) -> Result<(), CheckError> {
        events.push(Event::Node(leaf.reference().blkno.get()));
        part.items += leaf.len() as u64;
        for index in 0..leaf.len() {
            let item = leaf.item(index);
            part.seen.deletions += u64::from(item.deletion);
            check_version(&self.tree, self.seq_bound, &item, events);
            if self.tree.id == TreeId::Server {
                part.seen.items.push(item.to_owned()?)?;
            }
        }
        Ok(())
    }
}

/// Visits the nodes above the leaves.
struct Walker<'w, 'c> {
    check: &'w mut Checker<'c>,
    tree: &'w Tree,
    leaves: Vec<Leaves>,
    broken: bool,
    failed: Option<CheckError>,
}

impl Walker<'_, '_> {
    fn inner_node(&mut self, place: &NodePlace, node: &Node) -> Result<(), CheckError> {
        if place.last >= self.tree.freed_below {
            self.check.claim_node(self.tree, place.block.blkno.get())?;
        }
        if place.level == 1 {
            let mut first = 0;
            while first < node.len() {
                let end = node.len().min(first + LEAVES);
                self.leaves.push(Leaves { parent: *place, children: first..end })?;
                first = end;
            }
        }
        Ok(())
    }
}

impl Visitor for Walker<'_, '_> {
    fn node(&mut self, place: &NodePlace, node: &Node) -> Result<(), TreeError> {
        if let Err(e) = self.inner_node(place, node) {
            self.failed = Some(e);
            return Err(TreeError::NoMemory);
        }
        if self.check.shared_nodes > MAX_SHARED_NODES {
            return Err(TreeError::NoSpace);
        }
        Ok(())
    }

    fn broken(&mut self, place: &NodePlace, error: TreeError) -> Result<(), TreeError> {
        if place.last >= self.tree.freed_below {
            self.broken = true;
            let Issue { kind, place } = broken(self.tree, place, error);
            self.check.issue(kind, place);
        }
        Ok(())
    }
}
