// SPDX-License-Identifier: GPL-2.0-only
//! Whole zones out of loose metadata blocks, for a volume that is full of data.
//!
//! Free metadata blocks lie all over the zones that hold metadata: the loose ones, and the working set, which is as large
//! as it must be but does not care where it lies. A zone of which nothing is in use, but which the working set has a part
//! of, becomes empty when the working set takes loose blocks elsewhere instead. Nothing is copied: only free space changes hands.
//!
//! What must hold: only blocks that no durable tree refers to leave the working set, and as many stay usable as the commit
//! takes that makes the change durable (see `commit`).

use scoutfs_btree::space::{Extent, ExtentSet, SpaceKind};
use scoutfs_env::Vec;

use super::Server;
use super::free_space::{first_block, zone_blocks, zone_extent};
use crate::error::ServerError;

/// A zone of which only the working set and the free space have blocks.
struct Unused {
    /// Blocks of it that the working set has.
    worked: u64,
    zone: u64,
}

impl Server {
    /// Makes zones empty, as many as can be, and gives back what the working set does not need. Tells whether there was
    /// something to be done.
    pub(super) fn clear_zones(&mut self) -> Result<bool, ServerError> {
        let kind = SpaceKind::Meta;
        let blocks = zone_blocks(&self.geometry, kind);
        let mut movable = self.work.usable.blocks().saturating_sub(self.commit_reserve());
        let mut surplus = self.work.total().saturating_sub(self.work_target());
        let mut unused = self.unused_zones()?;
        // Those of which the working set has least are cleared first.
        scoutfs_env::sort::sort_by_key(&mut unused, |of| of.worked);
        let mut cleared = false;
        // Loose blocks that the working set takes instead, at the next commit (see `balance_work`).
        let mut owed = 0;
        for Unused { worked, zone } in &unused {
            let replaced = worked.saturating_sub(surplus);
            // Besides those of this very zone.
            let loose = (self.free.of(kind).blocks() + worked).saturating_sub(blocks);
            if *worked > movable || owed + replaced > loose {
                break;
            }
            let whole = zone_extent(&self.geometry, kind, Extent::new(*zone, 1));
            while let Some(part) = self.work.usable.first_common(whole)? {
                self.work.usable.remove(part)?;
                self.free.add(kind, part, &mut self.changes)?;
            }
            movable -= worked;
            surplus -= worked - replaced;
            owed += replaced;
            cleared = true;
        }
        // The more loose blocks there are, the fewer zones are kept for metadata.
        let mut spare = surplus.min(movable);
        while spare > 0
            && let Some(last) = self.work.usable.iter().last()
        {
            let len = last.len.min(spare);
            let part = Extent::new(last.start + last.len - len, len);
            self.work.usable.remove(part)?;
            self.free.add(kind, part, &mut self.changes)?;
            spare -= len;
            cleared = true;
        }
        Ok(cleared)
    }

    /// The zones of which the working set has usable blocks, and all else is free.
    fn unused_zones(&self) -> Result<Vec<Unused>, ServerError> {
        let kind = SpaceKind::Meta;
        let (first, blocks) = (first_block(&self.geometry, kind), zone_blocks(&self.geometry, kind));
        let mut unused = Vec::new();
        let mut at = 0;
        while let Some(found) = self.work.usable.at_or_after(at) {
            let zone = (found.start.max(at) - first) / blocks;
            let whole = zone_extent(&self.geometry, kind, Extent::new(zone, 1));
            let worked = common_blocks(&self.work.usable, whole)?;
            if worked + common_blocks(self.free.of(kind), whole)? == blocks {
                unused.push(Unused { worked, zone })?;
            }
            at = whole.start + whole.len;
        }
        Ok(unused)
    }
}

/// Blocks of an extent that are in a set.
fn common_blocks(set: &ExtentSet, extent: Extent) -> Result<u64, ServerError> {
    let end = extent.start + extent.len;
    let (mut at, mut blocks) = (extent.start, 0);
    while at < end
        && let Some(part) = set.first_common(Extent::new(at, end - at))?
    {
        blocks += part.len;
        at = part.start + part.len;
    }
    Ok(blocks)
}
