// SPDX-License-Identifier: GPL-2.0-only
//! A mount's space over transactions, checkpoints, failures and crashes, against a model in which every block has
//! one owner.

use proptest::prelude::*;
use scoutfs_env::alloc_fault;
use scoutfs_format::space::{SPACE_LIST_ENTRIES, SpaceEntry};
use std::vec;
use std::vec::Vec;

use super::super::*;
use super::{base, blocks, geometry, replay};

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Server,
    Free,
    Used,
    Given(u64),
}

/// How far a block that is withheld is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Withheld {
    Open,
    Closing,
    Durable,
}

/// Blocks of the model.
const BLOCKS: [usize; 2] = [60, 90];

/// Every block of the model, as some moment has it.
type View = [Vec<State>; 2];

/// One step of the model. Numbers are reduced to what there is.
#[derive(Clone, Debug)]
enum Step {
    Alloc { meta: bool, want: u64, near: Option<u64> },
    Use { meta: bool, pick: usize, len: u64 },
    Release { meta: bool, pick: usize, len: u64 },
    Free { meta: bool, at: u64, len: u64 },
    Withhold { at: u64, len: u64 },
    ReleaseWithheld,
    Take { extents: Vec<(bool, u64, u64)> },
    Give { meta: bool, want: u64 },
    Forget,
    Close,
    CheckpointAlloc,
    CheckpointFree { at: u64 },
    List { max_inline: usize },
    Undo,
    Done,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let meta = any::<bool>;
    prop_oneof![
        6 => (meta(), 1u64..12, prop::option::of(0u64..90)).prop_map(|(meta, want, near)| Step::Alloc { meta, want, near }),
        6 => (meta(), any::<usize>(), 1u64..20).prop_map(|(meta, pick, len)| Step::Use { meta, pick, len }),
        2 => (meta(), any::<usize>(), 1u64..20).prop_map(|(meta, pick, len)| Step::Release { meta, pick, len }),
        6 => (meta(), 0u64..90, 1u64..8).prop_map(|(meta, at, len)| Step::Free { meta, at, len }),
        3 => (0u64..90, 1u64..8).prop_map(|(at, len)| Step::Withhold { at, len }),
        1 => Just(Step::ReleaseWithheld),
        3 => prop::collection::vec((meta(), 0u64..90, 1u64..20), 1..4).prop_map(|extents| Step::Take { extents }),
        2 => (meta(), 1u64..20).prop_map(|(meta, want)| Step::Give { meta, want }),
        1 => Just(Step::Forget),
        4 => Just(Step::Close),
        3 => Just(Step::CheckpointAlloc),
        2 => (0u64..60).prop_map(|at| Step::CheckpointFree { at }),
        2 => (0usize..40).prop_map(|max_inline| Step::List { max_inline }),
        1 => Just(Step::Undo),
        4 => Just(Step::Done),
        1 => Just(Step::Crash),
    ]
}

/// A transaction that is being committed.
struct Closing {
    token: CommitToken,
    view: View,
    /// Blocks that its checkpoint changed, and what they were.
    undo: Vec<(usize, State)>,
    /// Blocks that its checkpoint uses and that were not used before.
    checkpoint_used: Vec<usize>,
    list: Option<(Vec<u64>, Vec<SpaceEntry>)>,
}

/// A mount, its server, the device, and who owns what.
struct Model {
    space: MountSpace,
    held: [Vec<bool>; 2],
    /// Of the data blocks those that are free and not to be allocated.
    withheld: Vec<Option<Withheld>>,
    open: View,
    closing: Option<Closing>,
    durable: View,
    durable_numbers: (u64, u64),
    /// What is on the device.
    list: Vec<SpaceEntry>,
    records: Vec<Vec<SpaceEntry>>,
    /// Blocks of the list that is on the device.
    list_blocks: Vec<u64>,
    fault: Option<u64>,
}

fn kind_of(meta: bool) -> SpaceKind {
    if meta { SpaceKind::Meta } else { SpaceKind::Data }
}

/// The model's part of an extent.
fn range(blocks: SpaceExtent) -> std::ops::Range<usize> {
    let at = (blocks.extent.start - base(blocks.kind)) as usize;
    at..at + blocks.extent.len as usize
}

/// A run of `true` in `bits` at or after `pick`, of at most `len`.
fn run_of(bits: &[bool], pick: usize, len: u64) -> Option<(u64, u64)> {
    let count = bits.len();
    let at = (0..count).map(|n| (pick % count + n) % count).find(|&at| bits[at])?;
    let run = bits[at..].iter().take(len as usize).take_while(|&&bit| bit).count();
    Some((at as u64, run as u64))
}

impl Model {
    fn new() -> Self {
        let view = BLOCKS.map(|count| vec![State::Server; count]);
        let mut space = MountSpace::new(geometry(), 0, 0);
        space.set_reserve_blocks(4);
        Model {
            space,
            held: BLOCKS.map(|count| vec![false; count]),
            withheld: vec![None; BLOCKS[1]],
            open: view.clone(),
            closing: None,
            durable: view,
            durable_numbers: (0, 0),
            list: vec![],
            records: vec![],
            list_blocks: vec![],
            fault: None,
        }
    }

    /// Does something to the space. If memory fails it is done again without that: a failure changes nothing.
    fn run<T>(
        &mut self,
        mut op: impl FnMut(&mut MountSpace) -> Result<T, SpaceError>,
    ) -> Result<T, SpaceError> {
        if let Some(nth) = self.fault {
            alloc_fault::fail_after(nth);
            let result = op(&mut self.space);
            let tripped = alloc_fault::tripped();
            alloc_fault::clear();
            if !tripped {
                return result;
            }
            // Nothing goes on without the memory that it asked for.
            assert_eq!(result.err(), Some(SpaceError::NoMemory));
            self.check();
        }
        op(&mut self.space)
    }

    /// Does what needs no memory.
    fn run_without_memory<T>(&mut self, op: impl FnOnce(&mut MountSpace) -> Result<T, SpaceError>) -> T {
        alloc_fault::fail_after(0);
        let result = op(&mut self.space);
        alloc_fault::clear();
        result.unwrap()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Alloc { meta: false, want, near } => {
                let near = near.map(|near| base(SpaceKind::Data) + near);
                let result = self.run(|space| space.alloc_data(want, near));
                self.allocated(SpaceKind::Data, want, result);
            }
            Step::Alloc { meta: true, want, .. } => {
                let privileged = want % 2 == 0;
                let free = self.space.free_blocks(SpaceKind::Meta);
                let result = self.run(|space| space.alloc_meta(privileged));
                assert_eq!(result.is_ok(), free > if privileged { 0 } else { 4 });
                self.allocated(SpaceKind::Meta, 1, result.map(|blkno| Extent::new(blkno, 1)));
            }
            Step::Use { meta, pick, len } => {
                let kind = kind_of(meta);
                let Some((at, len)) = run_of(&self.held[kind as usize], pick, len) else { return };
                let part = blocks(kind, at, len);
                self.run(|space| space.use_held(part)).unwrap();
                self.held[kind as usize][range(part)].fill(false);
                self.open[kind as usize][range(part)].fill(State::Used);
            }
            Step::Release { meta, pick, len } => {
                let kind = kind_of(meta);
                let Some((at, len)) = run_of(&self.held[kind as usize], pick, len) else { return };
                let part = blocks(kind, at, len);
                self.run(|space| space.release_held(part)).unwrap();
                self.held[kind as usize][range(part)].fill(false);
            }
            Step::Free { meta, at, len } => self.free(kind_of(meta), at, len, false),
            Step::Withhold { at, len } => self.free(SpaceKind::Data, at, len, true),
            Step::ReleaseWithheld => {
                self.run(MountSpace::release_withheld).unwrap();
                self.move_withheld(Withheld::Durable, None);
            }
            Step::Take { ref extents } => self.take(extents),
            Step::Give { meta, want } => self.give(kind_of(meta), want),
            Step::Forget => {
                let through = self.durable_numbers.1;
                self.run(|space| space.forget_given(through)).unwrap();
                for state in self.open.iter_mut().flatten() {
                    if matches!(state, State::Given(number) if *number <= through) {
                        *state = State::Server;
                    }
                }
            }
            Step::Close => {
                let result = self.run(MountSpace::close_trans);
                if self.closing.is_some() {
                    assert_eq!(result, Err(SpaceError::CommitPending));
                    return;
                }
                let view = self.open.clone();
                let token = result.unwrap();
                self.move_withheld(Withheld::Open, Some(Withheld::Closing));
                self.closing =
                    Some(Closing { token, view, undo: vec![], checkpoint_used: vec![], list: None });
            }
            Step::CheckpointAlloc => self.checkpoint_alloc(),
            Step::CheckpointFree { at } => self.checkpoint_free(at),
            Step::List { max_inline } => self.make_list(max_inline),
            Step::Undo => self.undo(),
            Step::Done => self.done(),
            Step::Crash => self.crash(),
        }
    }

    fn move_withheld(&mut self, from: Withheld, to: Option<Withheld>) {
        self.withheld.iter_mut().filter(|at| **at == Some(from)).for_each(|at| *at = to);
    }

    fn allocated(&mut self, kind: SpaceKind, want: u64, result: Result<Extent, SpaceError>) {
        let extent = match result {
            Ok(extent) => extent,
            Err(error) => {
                let pending = self.space.pending_blocks(kind);
                assert!(match error {
                    SpaceError::NoSpace { pending: found, .. } => {
                        found == pending && self.space.free_blocks(kind) == 0
                    }
                    SpaceError::Reserved { pending: found, free, .. } => found == pending && free <= 4,
                    _ => false,
                });
                return;
            }
        };
        assert!(extent.len >= 1 && extent.len <= want);
        let part = range(SpaceExtent { kind, extent });
        self.assert_unknown(kind, part.clone());
        assert!(kind == SpaceKind::Meta || self.withheld[part.clone()].iter().all(Option::is_none));
        self.held[kind as usize][part].fill(true);
    }

    /// No state that may be found after a crash refers to the blocks, nor does anyone else.
    fn assert_unknown(&self, kind: SpaceKind, part: std::ops::Range<usize>) {
        let kind = kind as usize;
        for view in
            [Some(&self.open), self.closing.as_ref().map(|closing| &closing.view), Some(&self.durable)]
        {
            assert!(
                view.is_none_or(|view| view[kind][part.clone()].iter().all(|&state| state == State::Free))
            );
        }
        assert!(!self.held[kind][part].contains(&true));
    }

    fn free(&mut self, kind: SpaceKind, at: u64, len: u64, withhold: bool) {
        let len = if kind == SpaceKind::Meta { 1 } else { len };
        let part = at as usize..((at + len) as usize).min(BLOCKS[kind as usize]);
        if part.is_empty() {
            return;
        }
        let extent = blocks(kind, at, part.len() as u64).extent;
        let by_checkpoint = |at: &usize| {
            kind == SpaceKind::Meta && self.closing.as_ref().is_some_and(|c| c.checkpoint_used.contains(at))
        };
        let in_use = self.open[kind as usize][part.clone()].iter().all(|&state| state == State::Used)
            && !part.clone().any(|at| by_checkpoint(&at));
        let result = self.run(|space| match kind {
            SpaceKind::Meta => space.free_meta(extent.start),
            SpaceKind::Data if withhold => space.withhold_data(extent.start, extent.len),
            SpaceKind::Data => space.free_data(extent.start, extent.len),
        });
        // Blocks of the server look as if they were in use: only their owner knows.
        let foreign = self.open[kind as usize][part.clone()].contains(&State::Server);
        if in_use {
            assert_eq!(result, Ok(()));
            if withhold {
                // What the open transaction itself put to use nobody else knows.
                let before = self.closing.as_ref().map_or(&self.durable, |closing| &closing.view);
                for at in part.clone().filter(|at| before[1][*at] != State::Free) {
                    self.withheld[at] = Some(Withheld::Open);
                }
            }
            self.open[kind as usize][part].fill(State::Free);
        } else if foreign {
            // Undone as a mount that is right would never have done it.
            if result.is_ok() {
                self.crash();
            }
        } else {
            assert!(matches!(result, Err(SpaceError::Owned { .. })), "{result:?}");
        }
    }

    fn take(&mut self, extents: &[(bool, u64, u64)]) {
        // The server hands out what it has, and does not know anything else.
        let mut bits = [0, 1].map(|kind| -> Vec<bool> {
            let closing = self.closing.as_ref().map(|closing| &closing.view[kind]);
            (0..BLOCKS[kind])
                .map(|at| {
                    [Some(&self.open[kind]), closing, Some(&self.durable[kind])]
                        .iter()
                        .flatten()
                        .all(|view| view[at] == State::Server)
                })
                .collect()
        });
        let mut parts = vec![];
        for &(meta, at, len) in extents {
            let kind = kind_of(meta);
            if let Some((at, len)) = run_of(&bits[kind as usize], at as usize, len) {
                parts.push(blocks(kind, at, len));
                bits[kind as usize][range(blocks(kind, at, len))].fill(false);
            }
        }
        let number = self.next_taken();
        self.run(|space| space.take(number, &parts)).unwrap();
        for part in parts {
            self.open[part.kind as usize][range(part)].fill(State::Free);
        }
    }

    /// The number that the mount takes next, found by trying a wrong one.
    fn next_taken(&mut self) -> u64 {
        match self.space.take(u64::MAX, &[]) {
            Err(SpaceError::HandOverOrder { last, .. }) => last + 1,
            other => panic!("{other:?}"),
        }
    }

    fn give(&mut self, kind: SpaceKind, want: u64) {
        let result = self.run(|space| space.alloc_to_give(kind, want, false));
        self.allocated(kind, want, result);
        let Ok(extent) = result else { return };
        let part = SpaceExtent { kind, extent };
        let number = self.run(|space| space.give(&[part])).unwrap();
        self.held[kind as usize][range(part)].fill(false);
        self.open[kind as usize][range(part)].fill(State::Given(number));
    }

    fn checkpoint_alloc(&mut self) {
        let Some(closing) = self.closing.as_ref().filter(|closing| closing.list.is_none()) else { return };
        let token = closing.token;
        let free = self.space.free_blocks(SpaceKind::Meta);
        match self.run(|space| space.checkpoint_alloc(token)) {
            Ok(blkno) => self.checkpoint_took(blkno),
            Err(error) => {
                let pending = self.space.pending_blocks(SpaceKind::Meta);
                assert_eq!((error, free), (SpaceError::NoSpace { kind: SpaceKind::Meta, pending }, 0));
            }
        }
    }

    fn checkpoint_took(&mut self, blkno: u64) {
        let at = (blkno - base(SpaceKind::Meta)) as usize;
        self.assert_unknown(SpaceKind::Meta, at..at + 1);
        self.checkpoint_set(at, State::Used);
        self.closing.as_mut().unwrap().checkpoint_used.push(at);
    }

    fn checkpoint_set(&mut self, at: usize, state: State) {
        let closing = self.closing.as_mut().unwrap();
        closing.undo.push((at, closing.view[0][at]));
        closing.view[0][at] = state;
        self.open[0][at] = state;
    }

    fn checkpoint_free(&mut self, at: u64) {
        let Some(closing) = self.closing.as_ref().filter(|closing| closing.list.is_none()) else { return };
        let (token, blkno) = (closing.token, base(SpaceKind::Meta) + at);
        let at = at as usize;
        if [self.open[0][at], closing.view[0][at]].contains(&State::Server) {
            return;
        }
        let in_use = self.open[0][at] == State::Used && closing.view[0][at] == State::Used;
        let result = self.run(|space| space.checkpoint_free(token, blkno));
        if !in_use {
            assert!(matches!(result, Err(SpaceError::Owned { .. })), "{result:?}");
            return;
        }
        assert_eq!(result, Ok(()));
        self.checkpoint_set(at, State::Free);
        let closing = self.closing.as_mut().unwrap();
        if closing.checkpoint_used.contains(&at) {
            // As if the checkpoint had never had it: from now on others may.
            closing.checkpoint_used.retain(|&used| used != at);
            closing.undo.retain(|&(changed, _)| changed != at);
        }
    }

    fn make_list(&mut self, max_inline: usize) {
        let Some(closing) = self.closing.as_ref().filter(|closing| closing.list.is_none()) else { return };
        let token = closing.token;
        // The old list goes with the checkpoint that writes a new one.
        for blkno in self.list_blocks.clone() {
            let at = (blkno - base(SpaceKind::Meta)) as usize;
            if self.open[0][at] == State::Used && self.closing.as_ref().unwrap().view[0][at] == State::Used {
                self.checkpoint_free(at as u64);
            }
        }
        if let Some(nth) = self.fault {
            alloc_fault::fail_after(nth);
            let result = self.space.checkpoint_list(token, max_inline);
            alloc_fault::clear();
            if result.is_err() {
                return self.undo();
            }
            return self.list_made(max_inline, result);
        }
        let result = self.space.checkpoint_list(token, max_inline);
        self.list_made(max_inline, result);
    }

    fn list_made(&mut self, max_inline: usize, result: Result<CheckpointSpace, SpaceError>) {
        match result {
            Ok(made) => {
                for &blkno in &made.blocks {
                    self.checkpoint_took(blkno);
                }
                assert!(made.entries.len() <= max_inline.max(made.blocks.len() * SPACE_LIST_ENTRIES));
                let closing = self.closing.as_mut().unwrap();
                closing.list = Some((made.blocks.to_vec(), made.entries.to_vec()));
            }
            Err(error) => {
                assert!(matches!(error, SpaceError::NoSpace { .. }), "{error}");
                self.undo();
            }
        }
    }

    fn undo(&mut self) {
        let Some(closing) = &mut self.closing else { return };
        let token = closing.token;
        closing.list = None;
        closing.checkpoint_used.clear();
        for (at, state) in closing.undo.drain(..).rev() {
            closing.view[0][at] = state;
            self.open[0][at] = state;
        }
        self.run_without_memory(|space| space.undo_checkpoint(token));
    }

    fn done(&mut self) {
        let Some(closing) = &self.closing else { return };
        let token = closing.token;
        if closing.list.is_none() && !closing.undo.is_empty() {
            self.undo();
        }
        let closing = self.closing.as_ref().unwrap();
        match &closing.list {
            Some((blocks, entries)) => {
                self.list_blocks = blocks.clone();
                // With no blocks they are in the checkpoint's record.
                let inline = blocks.is_empty();
                self.list = if inline { vec![] } else { entries.clone() };
                self.records = if inline { vec![entries.clone()] } else { vec![] };
            }
            None => {
                let entries = self.run(|space| space.trans_entries(token)).unwrap();
                self.records.push(entries.to_vec());
            }
        }
        self.run_without_memory(|space| space.commit_done(token));
        self.move_withheld(Withheld::Closing, Some(Withheld::Durable));
        self.durable = self.closing.take().unwrap().view;
        self.durable_numbers = (token.taken(), token.given());
        self.check_device();
    }

    /// What is on the device gives the durable state, to the block.
    fn check_device(&self) -> SpaceReplay {
        let replay = replay(&self.list, &self.records).unwrap();
        replay.check(self.durable_numbers.1).unwrap();
        for kind in SpaceKind::ALL {
            let mut found = vec![State::Used; BLOCKS[kind as usize]];
            for extent in replay.free(kind).iter() {
                found[range(SpaceExtent { kind, extent })].fill(State::Free);
            }
            for (number, extents) in replay.given() {
                for &part in extents.iter().filter(|part| part.kind == kind) {
                    found[range(part)].fill(State::Given(number));
                }
            }
            let expected = self.durable[kind as usize].iter().map(|&state| match state {
                // Neither is written down.
                State::Server => State::Used,
                other => other,
            });
            assert!(
                found.iter().copied().eq(expected),
                "{kind}: {found:?}\n{:?}",
                self.durable[kind as usize]
            );
        }
        replay
    }

    fn crash(&mut self) {
        let (taken, given) = self.durable_numbers;
        self.space = self.check_device().into_mount(taken, given).unwrap();
        self.space.set_reserve_blocks(4);
        self.open = self.durable.clone();
        self.closing = None;
        self.held = BLOCKS.map(|count| vec![false; count]);
        self.withheld.fill(None);
    }

    fn check(&self) {
        for kind in SpaceKind::ALL {
            let free = self.open[kind as usize].iter().filter(|&&state| state == State::Free).count();
            let held = self.held[kind as usize].iter().filter(|&&held| held).count();
            assert_eq!(self.space.held_blocks(kind), held as u64);
            let withheld = if kind == SpaceKind::Data { self.withheld.iter().flatten().count() } else { 0 };
            let found = self.space.free_blocks(kind) + self.space.pending_blocks(kind);
            assert_eq!(found + (held + withheld) as u64, free as u64, "{kind}");
        }
        let withheld = self.withheld.iter().filter(|at| **at == Some(Withheld::Durable)).count();
        assert_eq!(self.space.withheld_blocks(SpaceKind::Data), withheld as u64);
        let given = self
            .open
            .iter()
            .flatten()
            .filter(|state| matches!(state, State::Given(n) if *n <= self.durable_numbers.1));
        let found: u64 =
            self.space.given().flat_map(|(_, extents)| extents).map(|part| part.extent.len).sum();
        assert_eq!(found, given.count() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_block_has_one_owner_and_replay_finds_it(
        steps in prop::collection::vec((step(), prop::option::weighted(0.3, 0u64..6)), 1..150),
    ) {
        let mut model = Model::new();
        let all = (0..2).map(|kind| (kind == 0, 0, BLOCKS[1 - kind] as u64)).collect();
        model.step(&Step::Take { extents: all });
        model.step(&Step::Close);
        model.step(&Step::Done);
        for (step, fault) in steps {
            model.fault = fault;
            model.step(&step);
            model.check();
        }
        model.fault = None;
        model.step(&Step::Done);
        model.crash();
        model.check();
    }
}
