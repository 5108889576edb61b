// SPDX-License-Identifier: GPL-2.0-only
//! Every node of every tree, and which versions its items have.

use scoutfs_btree::space::SpaceKind;
use scoutfs_btree::tree::{Place as NodePlace, Visitor, walk};
use scoutfs_btree::{Error as TreeError, Item, Node};
use scoutfs_format::Key;
use scoutfs_format::key::{ZONE_FS, ZONE_INDEX, ZONE_ORPHAN, ZONE_SERVER, ZONE_XATTR_INDEX};
use scoutfs_format::tree::TreeRoot;

use super::issue::{IssueKind, Place, TreeId};
use super::owners::{Owner, Run, blocks};
use super::{CheckError, Checker, PROGRESS_TOTAL};

/// When more nodes than this have two owners the trees are not followed further: each node may have thousands.
const MAX_SHARED_NODES: u64 = 1000;

/// A tree to be checked.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    pub deletions: u64,
    /// Whether all nodes were sound.
    pub whole: bool,
}

impl Checker<'_> {
    /// Checks all nodes of a tree, claims their blocks, and calls `each` for all items.
    pub(super) fn check_tree(
        &mut self,
        tree: &Tree,
        each: &mut dyn FnMut(&Item<'_>) -> Result<(), CheckError>,
    ) -> Result<Seen, CheckError> {
        let (cache, root) = (self.cache, tree.root);
        let mut walker =
            Walker { check: self, tree, each, seen: Seen { deletions: 0, whole: true }, failed: None };
        let walked = walk(cache, &root, &mut walker);
        let (seen, failed) = (walker.seen, walker.failed);
        if let Some(e) = failed {
            return Err(e);
        }
        // Any other error is the walker's own, to end the walk early.
        if let Err(TreeError::NoMemory) = walked {
            return Err(CheckError::NoMemory);
        }
        if !seen.whole {
            self.summary.owners_checked = false;
            self.summary.items_checked &= !tree.in_forest;
        }
        Ok(seen)
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
            report(super::Issue {
                kind: IssueKind::OwnedTwice { first: found.owner, second: run.owner },
                place: Place::Blocks { kind, start, len },
            });
        })?;
        Ok(taken)
    }

    /// Checks what can be said of an item of a tree or of a record by itself.
    pub(super) fn check_version(&mut self, tree: &Tree, item: &Item<'_>) {
        let place = || Place::TreeItem { tree: tree.id, key: item.key };
        let version = item.version;
        let server = tree.id == TreeId::Server;
        let known = match item.key.zone {
            ZONE_SERVER => server,
            ZONE_INDEX | ZONE_ORPHAN | ZONE_XATTR_INDEX | ZONE_FS => !server,
            _ => false,
        };
        if !known {
            self.issue(IssueKind::UnknownKey, place());
        }
        let bound = if server { 1 } else { self.sb.seq_bound.get() };
        let (min, max) = tree.versions;
        if version >= bound {
            self.issue(IssueKind::VersionNotGivenOut { version, bound }, place());
        } else if version < min || version > max {
            self.issue(IssueKind::VersionOutsideLog { version, min, max }, place());
        }
    }

    fn node_seen(&mut self) {
        self.summary.nodes += 1;
        if self.summary.nodes.is_multiple_of(64) {
            let total = self.sb.meta_zones.get().saturating_mul(self.geometry.zone_meta_blocks()).max(1);
            let half = PROGRESS_TOTAL / 2;
            let done = u128::from(self.summary.nodes) * u128::from(half) / u128::from(total);
            (self.progress)(u64::try_from(done).unwrap_or(half).min(half), PROGRESS_TOTAL);
        }
    }
}

struct Walker<'w, 'c> {
    check: &'w mut Checker<'c>,
    tree: &'w Tree,
    each: &'w mut dyn FnMut(&Item<'_>) -> Result<(), CheckError>,
    seen: Seen,
    failed: Option<CheckError>,
}

impl Walker<'_, '_> {
    /// Ends the walk.
    fn stop<T>(&mut self, e: CheckError) -> Result<T, TreeError> {
        self.failed = Some(e);
        Err(TreeError::NoMemory)
    }
}

impl Visitor for Walker<'_, '_> {
    fn node(&mut self, place: &NodePlace, node: &Node) -> Result<(), TreeError> {
        if place.last < self.tree.freed_below {
            return Ok(());
        }
        self.check.node_seen();
        let blkno = place.block.blkno.get();
        match self.check.claim(SpaceKind::Meta, blkno, 1, Owner::Tree(self.tree.id), None) {
            Ok(shared) => self.check.shared_nodes += u64::from(shared),
            Err(e) => return self.stop(e),
        }
        if self.check.shared_nodes > MAX_SHARED_NODES {
            self.seen.whole = false;
            return Err(TreeError::NoSpace);
        }
        if node.level() > 0 {
            return Ok(());
        }
        for index in 0..node.len() {
            let item = node.item(index);
            self.seen.deletions += u64::from(item.deletion);
            self.check.tree_items += u64::from(self.tree.in_forest);
            self.check.check_version(self.tree, &item);
            if let Err(e) = (self.each)(&item) {
                return self.stop(e);
            }
        }
        Ok(())
    }

    fn broken(&mut self, place: &NodePlace, error: TreeError) -> Result<(), TreeError> {
        if place.last < self.tree.freed_below {
            return Ok(());
        }
        self.seen.whole = false;
        let (tree, block, first, last) = (self.tree.id, place.block, place.first, place.last);
        self.check.issue(IssueKind::Node { error }, Place::Node { tree, block, first, last });
        Ok(())
    }
}
