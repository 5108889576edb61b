// SPDX-License-Identifier: GPL-2.0-only
//! Watches the blocks of voters that are written: who owns a slot votes once in a term.
//!
//! Two that win with one voter's vote are kept apart by more rules than this one, so what they do shows it in few seeds only.

use std::collections::BTreeMap;

use scoutfs_env::sim;
use scoutfs_format::voter::{MAGIC_QUORUM, QuorumBlock};
use zerocopy::FromBytes;

use super::disk::Watch;

/// What sees the writes of a run.
pub fn watch() -> Watch {
    // By slot and term: for whom.
    let mut votes: BTreeMap<(u32, u64), u32> = BTreeMap::new();
    Box::new(move |write| {
        let Ok((block, _)) = QuorumBlock::read_from_prefix(write.bytes) else { return };
        if block.magic.get() != MAGIC_QUORUM {
            return;
        }
        let (voter, term, vote) = (block.voter.get(), block.vote_term.get(), block.vote_for.get());
        let first = *votes.entry((voter, term)).or_insert(vote);
        if first != vote {
            sim::fail(format_args!(
                "{:?}, voter {voter}, votes for voter {vote} in term {term}, after it voted for {first} in it",
                write.node
            ));
        }
    })
}
