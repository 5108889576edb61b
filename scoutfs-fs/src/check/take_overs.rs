// SPDX-License-Identifier: GPL-2.0-only
//! Blocks that leaders took who have not committed since: the super block names them.
//!
//! The server's tree has them as free, loose or in empty zones, because it is of the time before. They have their owner before the
//! tree's items are looked at, and are cut out of what these say. A zone of which they are a part holds metadata, which the super block's
//! number of such zones does not know yet.

use scoutfs_btree::space::SpaceKind;
use scoutfs_env::Vec;
use scoutfs_format::voter::TakeOver;

use super::issue::{IssueKind, Place};
use super::owners::{Owner, Run};
use super::{CheckError, Checker};

/// See the module.
#[derive(Default)]
pub(super) struct TakeOvers {
    /// In the order of the device.
    runs: Vec<Run>,
    /// Blocks of 4 KiB of them that the server's tree has as free.
    free: u64,
    /// Zones of which they are a part and that are empty in the server's tree.
    pub zones: u64,
}

impl TakeOvers {
    /// The first one that has a block from `at` to `last`.
    fn next(&self, at: u64, last: u64) -> Option<Run> {
        self.runs.iter().find(|run| run.last >= at && run.first <= last).copied()
    }
}

impl Checker<'_> {
    /// Claims what the super block names. To be done first.
    pub(super) fn take_overs(&mut self, take_overs: &[TakeOver]) -> Result<(), CheckError> {
        for take_over in take_overs {
            let (start, len) = (take_over.start.get(), take_over.len.get().into());
            self.claim(SpaceKind::Meta, start, len, Owner::Quarantine, None)?;
            let Some(run) = self.owners.run(SpaceKind::Meta, start, len, Owner::Quarantine) else { continue };
            self.take_overs.runs.push(run)?;
        }
        scoutfs_env::sort::sort_by_key(&mut self.take_overs.runs, |run| run.first);
        Ok(())
    }

    /// Claims what the server's tree has as free, but for what was taken.
    pub(super) fn claim_free(&mut self, run: Run) -> Result<(), CheckError> {
        let (base, blocks) = (self.geometry.first_data_block(), self.geometry.zone_data_blocks());
        let mut at = run.first;
        while at <= run.last
            && let Some(taken) = self.take_overs.next(at, run.last)
        {
            let from = taken.first.max(at);
            if run.kind.is_some() {
                self.claim_part(run, at, from)?;
                let end = taken.last.min(run.last) + 1;
                self.take_overs.free += end - from;
                at = end;
            } else {
                // Of whole zones: this one is not empty.
                let zone = base + (from - base) / blocks * blocks;
                self.claim_part(run, at, zone)?;
                self.take_overs.zones += 1;
                at = zone + blocks;
                self.claim_free(Run { first: zone, last: at - 1, kind: Some(SpaceKind::Meta), ..run })?;
            }
        }
        self.claim_part(run, at, run.last + 1)
    }

    fn claim_part(&mut self, run: Run, first: u64, end: u64) -> Result<(), CheckError> {
        if first < end {
            self.claim_run(Run { first, last: end - 1, ..run })?;
        }
        Ok(())
    }

    /// After all items of the server's tree.
    pub(super) fn check_take_overs(&mut self) {
        let taken: u64 = self.take_overs.runs.iter().map(|run| run.last - run.first + 1).sum();
        let free = self.take_overs.free;
        if taken != free && self.summary.items_checked {
            self.issue(IssueKind::TakenOver { taken, free }, Place::Volume);
        }
    }
}
