// SPDX-License-Identifier: GPL-2.0-only
//! A mount that commits, crashes in the middle of it, and is mounted again: the last durable state is always there.

use proptest::prelude::*;
use scoutfs_env::IoBuf;
use scoutfs_format::Key;
use scoutfs_format::ring::RECORD_CHECKPOINT;
use scoutfs_format::tree::MAX_VALUE_LEN;
use std::vec;
use std::vec::Vec;

use super::super::*;
use super::{commit, key, owner, parse, record, write};

/// What a record holds, to compare.
#[derive(Clone, Debug, PartialEq)]
struct Content {
    commit_nr: u64,
    checkpoint_nr: u64,
    trans_seq: u64,
    items: Vec<(Key, Vec<u8>)>,
}

fn contents(state: &RingState) -> Vec<Content> {
    let content = |record: &Record| Content {
        commit_nr: record.commit_nr(),
        checkpoint_nr: record.header().checkpoint_nr.get(),
        trans_seq: record.header().trans_seq.get(),
        items: record.items().map(|item| (item.key, item.value.to_vec())).collect(),
    };
    state.records().iter().map(|record| content(record)).collect()
}

/// A mount that commits, crashes and is mounted again, and what must be in its ring.
struct Sim {
    ring: Vec<u8>,
    writer: RingWriter,
    epoch: u64,
    trans_seq: u64,
    durable: Vec<Content>,
    /// What would be durable if one of the records torn since the last commit were whole.
    torn: Vec<Vec<Content>>,
}

impl Sim {
    fn new(junk: bool) -> Self {
        let mut ring = vec![if junk { 0xa5 } else { 0 }; RING_BYTES];
        let mut writer = RingWriter::open(&ring, owner(1)).unwrap();
        let place = commit(&mut ring, &mut writer, &record(RECORD_CHECKPOINT, 0, &[])).unwrap();
        let durable =
            vec![Content { commit_nr: place.commit_nr(), checkpoint_nr: 1, trans_seq: 0, items: vec![] }];
        Sim { ring, writer, epoch: 1, trans_seq: 0, durable, torn: vec![] }
    }

    /// Places the next record: the one that is asked for if there is room, else a checkpoint.
    fn next(&mut self, lens: &[usize], checkpoint: bool) -> (Placement, IoBuf, Vec<Content>) {
        self.trans_seq += 1;
        let mut flags = if checkpoint { RECORD_CHECKPOINT } else { 0 };
        let mut lens = lens;
        let mut builder = record(flags, self.trans_seq, lens);
        let place = self.writer.place(builder.frames(), flags).unwrap_or_else(|_| {
            (flags, lens) = (RECORD_CHECKPOINT, &[MAX_VALUE_LEN]);
            builder = record(flags, self.trans_seq, lens);
            assert_eq!(builder.frames(), CHECKPOINT_FRAMES);
            self.writer.place(CHECKPOINT_FRAMES, flags).expect("a checkpoint always fits")
        });
        let mut after = if flags == 0 { self.durable.clone() } else { vec![] };
        let value = |n: usize, len| vec![self.trans_seq as u8 ^ n as u8; len];
        after.push(Content {
            commit_nr: place.commit_nr(),
            checkpoint_nr: after.first().map_or(place.commit_nr(), |checkpoint| checkpoint.commit_nr),
            trans_seq: self.trans_seq,
            items: lens.iter().enumerate().map(|(n, &len)| (key(n as u64), value(n, len))).collect(),
        });
        (place, builder.encode(&place).unwrap(), after)
    }

    fn check(&mut self) {
        let found = contents(&parse(&self.ring).unwrap().unwrap());
        // A torn record may become whole when what is written over it is torn as well. It is one of the former owner's
        // and nobody was told of it, so it may count or not.
        if let Some(at) = self.torn.iter().position(|torn| *torn == found) {
            self.durable = self.torn.swap_remove(at);
        }
        let brief = |all: &[Content]| -> Vec<_> {
            all.iter().map(|c| (c.commit_nr, c.checkpoint_nr, c.trans_seq, c.items.len())).collect()
        };
        assert_eq!(brief(&found), brief(&self.durable));
        assert!(found == self.durable, "values differ");
    }

    fn remount(&mut self) {
        self.epoch += 1;
        let state = parse(&self.ring).unwrap().unwrap();
        self.writer = RingWriter::open(&self.ring, owner(self.epoch)).unwrap();
        assert!(self.writer.commit_nr() >= state.commit_nr());
    }
}

/// A commit of a simulated mount.
#[derive(Clone, Debug)]
struct Step {
    /// Lengths of the items' values.
    lens: Vec<usize>,
    checkpoint: bool,
    /// A crash in the middle of it: the sectors of 512 bytes that reach the device.
    crash: Option<u128>,
}

fn step() -> impl Strategy<Value = Step> {
    let small = prop::collection::vec(0usize..200, 0..10);
    let large = prop::collection::vec(1500usize..4096, 0..14);
    let lens = prop_oneof![4 => small, 1 => large];
    let sectors =
        prop_oneof![any::<u128>(), (0u32..128).prop_map(|n| (1 << n) - 1), Just(u128::MAX), Just(0)];
    let crash = prop::option::weighted(0.2, sectors);
    (lens, prop::bool::weighted(0.1), crash).prop_map(|(lens, checkpoint, crash)| Step {
        lens,
        checkpoint,
        crash,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_last_durable_state_is_found_after_any_crash(
        junk in any::<bool>(),
        // Crashes only while a checkpoint is written: then most rings become full before.
        calm in any::<bool>(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut sim = Sim::new(junk);
        for Step { lens, checkpoint, crash } in steps {
            let (place, bytes, after) = sim.next(&lens, checkpoint && !calm);
            let is_checkpoint = after.len() == 1;
            match crash.filter(|_| is_checkpoint || !calm) {
                None => {
                    write(&mut sim.ring, &place, &bytes);
                    sim.writer.written(&place).unwrap();
                    sim.durable = after;
                    sim.torn.clear();
                }
                Some(sectors) => {
                    let at = place.offset_bytes() as usize;
                    for (n, sector) in bytes.chunks(512).enumerate() {
                        if sectors & 1 << n != 0 {
                            sim.ring[at + n * 512..at + (n + 1) * 512].copy_from_slice(sector);
                        }
                    }
                    // What reached the device as a whole counts, though nobody was told.
                    if sim.ring[at..at + bytes.len()] == bytes[..] {
                        sim.durable = after;
                    } else {
                        sim.torn.push(after);
                    }
                    sim.check();
                    sim.remount();
                }
            }
            sim.check();
        }
    }
}
