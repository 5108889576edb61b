// SPDX-License-Identifier: GPL-2.0-only
//! Watches the super blocks that are written: there is one leader at a time.
//!
//! A term has one leader. And no leader that was not held up, so that its lease could end between looking and writing, writes after
//! the leader of a later term has.

use std::collections::BTreeMap;
use std::sync::Arc;

use scoutfs_env::sim::{self, Node};
use scoutfs_format::geometry::{MAX_VOTERS, super_offset};
use scoutfs_format::voter::{MAGIC_SUPER, SuperBlock};
use zerocopy::FromBytes;

use super::disk::{Watch, Write};
use super::host::World;
use super::lock;

/// What sees the writes of a run. The volume is made already.
pub fn watch(world: &Arc<World>) -> Watch {
    let mut leaders: BTreeMap<u64, Node> = BTreeMap::new();
    let world = Arc::downgrade(world);
    Box::new(move |write| {
        let Write { node, offset, bytes, .. } = *write;
        let is_super = (0..MAX_VOTERS).any(|voter| (0..2).any(|copy| super_offset(voter, copy) == offset));
        let Ok((sb, _)) = SuperBlock::read_from_prefix(bytes) else { return };
        let Some(world) = world.upgrade() else { return };
        if !is_super || sb.id.magic.get() != MAGIC_SUPER {
            return;
        }
        let term = sb.term.get();
        let leader = *leaders.entry(term).or_insert(node);
        if leader != node {
            sim::fail(format_args!("{leader:?} and {node:?} both lead in term {term}"));
        }
        let held_up = lock(&world.history).is_suspect(node);
        let later = leaders.range(term + 1..).next();
        if let Some((later, leader)) = later
            && !held_up
        {
            sim::fail(format_args!(
                "{node:?} writes as the leader of term {term}, and {leader:?} has led in {later}"
            ));
        }
    })
}
