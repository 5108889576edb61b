// SPDX-License-Identifier: GPL-2.0-only
//! Watches the writes to blocks of metadata and of data: nobody writes what another may write.
//!
//! - While a write to a block has not landed nobody else writes to it, however late it is.
//! - A mount whose lease has ended writes to no block that another has written since.
//!
//! So it is, with what is in quarantine, whether or not anybody reads what the two have written.

use std::collections::BTreeMap;
use std::sync::Arc;

use scoutfs_env::device::IO_ALIGN;
use scoutfs_env::sim::{self, Node};

use super::disk::{Region, Watch, Write};
use super::host::World;
use super::lock;

/// What sees the writes of a run.
pub fn watch(world: &Arc<World>) -> Watch {
    // By block: who has written it last, and when by the true time.
    let mut last: BTreeMap<u64, (Node, u64)> = BTreeMap::new();
    let world = Arc::downgrade(world);
    Box::new(move |write| {
        let Write { node, offset, bytes, region, in_the_way } = *write;
        if region != Some(Region::Blocks) {
            return;
        }
        let Some(world) = world.upgrade() else { return };
        if let Some(other) = in_the_way {
            sim::fail(format_args!("{node:?} writes at {offset}, where a write of {other:?} has not landed"));
        }
        let now = sim::now_ns();
        let ended =
            lock(&world.rules).lease_over(node, sim::clock_of(node)).map(|over| now.saturating_sub(over));
        let first = offset / IO_ALIGN as u64;
        for block in first..first + (bytes.len() / IO_ALIGN) as u64 {
            let before = last.insert(block, (node, now));
            if let (Some(ended), Some((other, when))) = (ended, before)
                && other != node
                && when > ended
            {
                sim::fail(format_args!(
                    "{node:?} writes at {offset} without a lease, where {other:?} has written since it ended"
                ));
            }
        }
    })
}
