// SPDX-License-Identifier: GPL-2.0-only
//! What one mount owns.

use scoutfs_env::{OrdMap, Vec};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::space::{
    ENTRY_FORGOTTEN, ENTRY_FREE, ENTRY_GIVEN, ENTRY_USED, SPACE_LIST_ENTRIES, SpaceEntry,
};

use super::pool::{By, Pool};
use super::{Extent, ExtentSet, FreeRuns, SpaceError, SpaceExtent, SpaceKind, entries};

/// A transaction that is being committed, and what the header of its record says of hand-overs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitToken {
    id: u64,
    numbers: Numbers,
}

impl CommitToken {
    /// Number of the last hand-over from the server that is taken.
    pub fn taken(&self) -> u64 {
        self.numbers.taken
    }

    /// Number of the last hand-over to the server that is given.
    pub fn given(&self) -> u64 {
        self.numbers.given
    }
}

/// What a checkpoint writes down.
#[derive(Debug)]
pub struct CheckpointSpace {
    /// Numbers of the blocks that the list goes into; none when the record takes the entries itself.
    pub blocks: Vec<u64>,
    /// All that the mount owns.
    pub entries: Vec<SpaceEntry>,
}

/// Numbers of the last hand-overs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    taken: u64,
    given: u64,
}

/// A hand-over that is known to be taken.
struct Forgotten {
    number: u64,
    extents: Vec<SpaceExtent>,
}

/// How far the checkpoint of the transaction that is being committed has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checkpoint {
    Open,
    ListMade,
}

/// A change of the open transaction that there was no memory for when it was made.
#[derive(Clone, Copy)]
enum Late {
    Use(SpaceExtent),
    Free(SpaceExtent),
    Withhold(SpaceExtent),
}

struct Closing {
    token: CommitToken,
    forgotten: Vec<Forgotten>,
    checkpoint: Checkpoint,
}

/// All space that one mount owns, and what its transactions do to it: the one place where it is known.
///
/// There is always an open transaction, and at most one that is being committed.
///
/// - **Open.** [`alloc_meta`](Self::alloc_meta) and [`alloc_data`](Self::alloc_data) *hold* blocks. That is in memory only,
///   belongs to no transaction, and may last as long as it takes to write what goes into the blocks; after a crash they
///   are free. [`use_held`](Self::use_held), in the transaction that begins to refer to them, puts them to use.
///   [`free_meta`](Self::free_meta) and [`free_data`](Self::free_data) take blocks back.
/// - **Commit.** [`close_trans`](Self::close_trans), then a record with the [`trans_entries`](Self::trans_entries), or a
///   checkpoint: [`checkpoint_alloc`](Self::checkpoint_alloc) and [`checkpoint_free`](Self::checkpoint_free) for its trees and
///   for the blocks of the list before, then [`checkpoint_list`](Self::checkpoint_list). A checkpoint that failed on
///   the way is taken back as if it had never begun with [`undo_checkpoint`](Self::undo_checkpoint). At the end
///   [`commit_done`](Self::commit_done), when the record counts; only then is space that the transaction freed or took
///   allocated again.
/// - **Hand-overs.** [`take`](Self::take) adds space from the server. [`give`](Self::give) gives held blocks away, empty or with
///   something in them; [`given`](Self::given) says which hand-overs the server may be told of; when it has taken them,
///   [`forget_given`](Self::forget_given).
///
/// All times are logarithmic in the number of extents, those of closing and committing a transaction linear in what
/// it changed, and that of a checkpoint's list linear in all extents.
pub struct MountSpace {
    geometry: Geometry,
    pools: [Pool; 2],
    reserve_blocks: u64,
    given: OrdMap<u64, Vec<SpaceExtent>>,
    open: Numbers,
    open_forgotten: Vec<Forgotten>,
    /// In order. Has room for `promised` more.
    late: Vec<Late>,
    promised: usize,
    closing: Option<Closing>,
    durable: Numbers,
    last_token: u64,
}

impl MountSpace {
    /// A mount without space. `taken` and `given` are the last numbers of hand-overs that were used in its slot before.
    pub fn new(geometry: Geometry, taken: u64, given: u64) -> Self {
        let parts = [FreeRuns::new(), FreeRuns::new()];
        Self::from_parts(geometry, parts, Default::default(), OrdMap::new(), taken, given)
    }

    pub(super) fn from_parts(
        geometry: Geometry,
        free: [FreeRuns; 2],
        given_sets: [ExtentSet; 2],
        given_extents: OrdMap<u64, Vec<SpaceExtent>>,
        taken: u64,
        given: u64,
    ) -> Self {
        let [free_meta, free_data] = free;
        let [given_meta, given_data] = given_sets;
        let numbers = Numbers { taken, given };
        MountSpace {
            geometry,
            pools: [
                Pool::new(SpaceKind::Meta, free_meta, given_meta),
                Pool::new(SpaceKind::Data, free_data, given_data),
            ],
            reserve_blocks: 0,
            given: given_extents,
            open: numbers,
            open_forgotten: Vec::new(),
            late: Vec::new(),
            promised: 0,
            closing: None,
            durable: numbers,
            last_token: 0,
        }
    }

    fn pool(&self, kind: SpaceKind) -> &Pool {
        &self.pools[kind as usize]
    }

    fn pool_mut(&mut self, kind: SpaceKind) -> &mut Pool {
        &mut self.pools[kind as usize]
    }

    /// Blocks that can be allocated now, the reserve included.
    pub fn free_blocks(&self, kind: SpaceKind) -> u64 {
        self.pool(kind).free.set().blocks()
    }

    /// Blocks that can be allocated when the commits of the current transactions are done: those that they freed or took.
    pub fn pending_blocks(&self, kind: SpaceKind) -> u64 {
        let late = self.late.iter().map(|late| match late {
            Late::Free(blocks) if blocks.kind == kind => blocks.extent.len,
            _ => 0,
        });
        self.pool(kind).pending() + late.sum::<u64>()
    }

    /// Blocks that are free and not to be allocated yet, as far as they are committed.
    pub fn withheld_blocks(&self, kind: SpaceKind) -> u64 {
        self.pool(kind).withheld.blocks()
    }

    /// What was [withheld](Self::withhold_promised) and is committed can be allocated. Can be called again without memory.
    pub fn release_withheld(&mut self) -> Result<(), SpaceError> {
        self.pools.iter_mut().try_for_each(Pool::release_withheld)
    }

    /// Blocks that are held.
    pub fn held_blocks(&self, kind: SpaceKind) -> u64 {
        self.pool(kind).held.blocks()
    }

    /// Entries that a list of all the mount's space takes at most, if nothing changes.
    pub fn list_entries(&self) -> usize {
        let given = self.given.values().map(|extents| extents.len()).sum::<usize>();
        self.pools.iter().map(Pool::nr_extents).sum::<usize>() + given
    }

    /// Metadata blocks that are kept for those who are privileged.
    pub fn reserve_blocks(&self) -> u64 {
        self.reserve_blocks
    }

    /// Sets how many metadata blocks are kept for commits, deletes and merges.
    pub fn set_reserve_blocks(&mut self, blocks: u64) {
        self.reserve_blocks = blocks;
    }

    /// Refuses who is not privileged to take `blocks` metadata blocks of the reserve.
    fn check_reserve(&self, blocks: u64) -> Result<(), SpaceError> {
        let pool = self.pool(SpaceKind::Meta);
        let (free, reserve) = (pool.free.set().blocks(), self.reserve_blocks);
        if free.checked_sub(blocks).is_none_or(|rest| rest < reserve) {
            return Err(SpaceError::Reserved { free, reserve, pending: pool.pending() });
        }
        Ok(())
    }

    /// Holds a metadata block. Only the privileged (commits, deletes, merges) may use the reserve.
    ///
    /// [`SpaceError::NoSpace`] and [`SpaceError::Reserved`] say whether a commit would help.
    pub fn alloc_meta(&mut self, privileged: bool) -> Result<u64, SpaceError> {
        if !privileged {
            self.check_reserve(1)?;
        }
        Ok(self.pool_mut(SpaceKind::Meta).hold(1, None)?.start)
    }

    /// Holds up to `want` (not 0) data blocks that lie side by side, beginning at `near` if that is free.
    ///
    /// [`SpaceError::NoSpace`] says whether a commit would help.
    pub fn alloc_data(&mut self, want: u64, near: Option<u64>) -> Result<Extent, SpaceError> {
        self.pool_mut(SpaceKind::Data).hold(want, near)
    }

    /// Where up to `want` data blocks that lie side by side may be held one by one, with `near`. None when nothing is free.
    pub fn suggest_data(&mut self, want: u64) -> Option<Extent> {
        self.pool_mut(SpaceKind::Data).suggest(want)
    }

    /// Holds up to `want` blocks from the longest run, to be given away. Only the privileged (who feeds merges) may give
    /// the reserve away.
    pub fn alloc_to_give(
        &mut self,
        kind: SpaceKind,
        want: u64,
        privileged: bool,
    ) -> Result<Extent, SpaceError> {
        let mut want = want;
        if kind == SpaceKind::Meta && !privileged {
            self.check_reserve(1)?;
            want = want.min(self.free_blocks(kind).saturating_sub(self.reserve_blocks));
        }
        self.pool_mut(kind).hold_longest(want)
    }

    /// Held blocks are in use from the open transaction on.
    ///
    /// [`SpaceError::NotInSet`] when they are not all held.
    pub fn use_held(&mut self, blocks: SpaceExtent) -> Result<(), SpaceError> {
        self.pool_mut(blocks.kind).use_held(blocks.extent)
    }

    /// From now on `count` calls of [`use_promised`](Self::use_promised) and [`free_promised`](Self::free_promised) cannot
    /// fail for want of memory. To be taken back with [`end_promise`](Self::end_promise).
    pub fn promise(&mut self, count: usize) -> Result<(), SpaceError> {
        let promised = self.promised.checked_add(count).ok_or(SpaceError::NoMemory)?;
        self.late.reserve(promised)?;
        self.promised = promised;
        Ok(())
    }

    /// Of what was promised, `count` calls were made or will not be made.
    pub fn end_promise(&mut self, count: usize) {
        self.promised = self.promised.saturating_sub(count);
    }

    /// As [`use_held`](Self::use_held). Without memory it is done when the transaction is closed.
    pub fn use_promised(&mut self, blocks: SpaceExtent) -> Result<(), SpaceError> {
        self.now_or_late(Late::Use(blocks))
    }

    /// As [`free_data`](Self::free_data). Without memory it is done when the transaction is closed.
    pub fn free_promised(&mut self, start: u64, len: u64) -> Result<(), SpaceError> {
        self.now_or_late(Late::Free(SpaceExtent::new(SpaceKind::Data, start, len)))
    }

    /// As [`free_promised`](Self::free_promised), but the blocks are not allocated before [`release_withheld`](Self::release_withheld):
    /// somebody else may still write to them. What is durable calls them free, so whoever takes this mount's space back has to see
    /// to it himself.
    pub fn withhold_promised(&mut self, start: u64, len: u64) -> Result<(), SpaceError> {
        self.now_or_late(Late::Withhold(SpaceExtent::new(SpaceKind::Data, start, len)))
    }

    fn now_or_late(&mut self, change: Late) -> Result<(), SpaceError> {
        if self.late.is_empty() {
            match self.make(change) {
                Err(SpaceError::NoMemory) => {}
                done => return done,
            }
        }
        Ok(self.late.push(change)?)
    }

    fn make(&mut self, change: Late) -> Result<(), SpaceError> {
        match change {
            Late::Use(blocks) => self.use_held(blocks),
            Late::Free(blocks) => self.free(By::Open, blocks, false),
            Late::Withhold(blocks) => self.free(By::Open, blocks, true),
        }
    }

    /// Makes the changes that there was no memory for. Those that an error leaves are made next time.
    fn catch_up(&mut self) -> Result<(), SpaceError> {
        let mut made = 0;
        let done = loop {
            let Some(change) = self.late.get(made) else { break Ok(()) };
            match self.make(*change) {
                Ok(()) => made += 1,
                Err(e) => break Err(e),
            }
        };
        self.late.drain(..made);
        done
    }

    /// Held blocks are not needed. Cannot fail for want of memory when they are all that was held there.
    ///
    /// [`SpaceError::NotInSet`] when they are not all held.
    pub fn release_held(&mut self, blocks: SpaceExtent) -> Result<(), SpaceError> {
        self.pool_mut(blocks.kind).release(blocks.extent)
    }

    /// The open transaction frees a metadata block.
    ///
    /// [`SpaceError::Owned`] when it is not in use, as far as that can be known.
    pub fn free_meta(&mut self, blkno: u64) -> Result<(), SpaceError> {
        self.free(By::Open, SpaceExtent::new(SpaceKind::Meta, blkno, 1), false)
    }

    /// The open transaction frees data blocks.
    ///
    /// [`SpaceError::Owned`] when they are not all in use, as far as that can be known.
    pub fn free_data(&mut self, start: u64, len: u64) -> Result<(), SpaceError> {
        self.free(By::Open, SpaceExtent::new(SpaceKind::Data, start, len), false)
    }

    /// As [`withhold_promised`](Self::withhold_promised), without a promise.
    #[cfg(test)]
    pub(super) fn withhold_data(&mut self, start: u64, len: u64) -> Result<(), SpaceError> {
        self.free(By::Open, SpaceExtent::new(SpaceKind::Data, start, len), true)
    }

    fn free(&mut self, by: By, blocks: SpaceExtent, withhold: bool) -> Result<(), SpaceError> {
        blocks.kind.check_zones(&self.geometry, blocks.extent)?;
        self.pool_mut(blocks.kind).free(by, blocks.extent, withhold)
    }

    /// Takes hand-over `number` from the server: its blocks are the mount's and can be allocated when the open
    /// transaction is committed.
    ///
    /// [`SpaceError::HandOverOrder`] when it is not the next one; [`SpaceError::Owned`] when a block is the mount's already.
    pub fn take(&mut self, number: u64, extents: &[SpaceExtent]) -> Result<(), SpaceError> {
        let last = self.open.taken;
        if last.checked_add(1) != Some(number) {
            return Err(SpaceError::HandOverOrder { last, found: number });
        }
        let sets = distinct(extents)?;
        for (pool, set) in self.pools.iter_mut().zip(&sets) {
            for extent in set.iter() {
                pool.kind.check_zones(&self.geometry, extent)?;
                pool.check_foreign(extent)?;
            }
            pool.open.added.reserve(set.nr_extents())?;
        }
        for (pool, set) in self.pools.iter_mut().zip(&sets) {
            for extent in set.iter() {
                pool.open.added.insert(extent)?;
            }
        }
        self.open.taken = number;
        Ok(())
    }

    /// Gives held blocks to the server, with the open transaction; returns the number of the hand-over.
    ///
    /// [`SpaceError::NotInSet`] when the blocks are not all held.
    pub fn give(&mut self, extents: &[SpaceExtent]) -> Result<u64, SpaceError> {
        let last = self.open.given;
        let order = SpaceError::HandOverOrder { last, found: last };
        let number = last.checked_add(1).ok_or(order)?;
        let sets = distinct(extents)?;
        if sets.iter().all(ExtentSet::is_empty) {
            return Err(SpaceError::Impossible { start: 0, len: 0 });
        }
        for (pool, set) in self.pools.iter_mut().zip(&sets) {
            pool.check_all_held(set)?;
            pool.reserve_use(set.nr_extents())?;
            pool.given.reserve(set.nr_extents())?;
        }
        self.given.insert(number, Vec::from_slice(extents)?)?;
        for (pool, set) in self.pools.iter_mut().zip(&sets) {
            for extent in set.iter() {
                pool.use_reserved(extent)?;
                pool.given.insert(extent)?;
            }
        }
        self.open.given = number;
        Ok(number)
    }

    /// The hand-overs that are durably given and not known to be taken, in order: the server is told of them until
    /// it has taken them.
    pub fn given(&self) -> impl Iterator<Item = (u64, &[SpaceExtent])> {
        let durable = self.durable.given;
        let all = self.given.iter().map(|(&number, extents)| (number, &**extents));
        all.take_while(move |&(number, _)| number <= durable)
    }

    /// The server has taken all hand-overs up to `through`: they are no longer the mount's, from the open transaction on.
    ///
    /// [`SpaceError::NotGiven`] when one of them is not durable.
    pub fn forget_given(&mut self, through: u64) -> Result<(), SpaceError> {
        let durable = self.durable.given;
        if through > durable {
            return Err(SpaceError::NotGiven { number: through, durable });
        }
        let mut count = 0;
        let mut nr_extents = 0;
        for (_, extents) in self.given.range(..=through) {
            count += 1;
            nr_extents += extents.len();
        }
        self.open_forgotten.reserve(count)?;
        for pool in &mut self.pools {
            pool.given.reserve(nr_extents)?;
        }
        for _ in 0..count {
            let Some((number, extents)) = self.given.pop_first() else { break };
            for blocks in &extents {
                self.pool_mut(blocks.kind).given.remove(blocks.extent)?;
            }
            self.open_forgotten.push(Forgotten { number, extents })?;
        }
        Ok(())
    }

    /// Closes the open transaction, which is then being committed, and opens the next one.
    ///
    /// [`SpaceError::CommitPending`] when the one before is not committed. On an error it stays open.
    pub fn close_trans(&mut self) -> Result<CommitToken, SpaceError> {
        if self.closing.is_some() {
            return Err(SpaceError::CommitPending);
        }
        self.catch_up()?;
        for pool in &mut self.pools {
            pool.reserve_close()?;
        }
        for pool in &mut self.pools {
            pool.close();
        }
        self.last_token += 1;
        let token = CommitToken { id: self.last_token, numbers: self.open };
        let forgotten = core::mem::take(&mut self.open_forgotten);
        self.closing = Some(Closing { token, forgotten, checkpoint: Checkpoint::Open });
        Ok(token)
    }

    fn closing(&mut self, token: CommitToken) -> Result<&mut Closing, SpaceError> {
        self.closing.as_mut().filter(|closing| closing.token == token).ok_or(SpaceError::NoCommit)
    }

    /// What the transaction that is being committed did, for a record that is not a checkpoint, in the order in which it
    /// must be replayed.
    ///
    /// [`SpaceError::CheckpointOrder`] when a checkpoint has begun: its blocks would not be in it.
    pub fn trans_entries(&mut self, token: CommitToken) -> Result<Vec<SpaceEntry>, SpaceError> {
        let closing = self.closing(token)?;
        let mut out = Vec::new();
        // First, for the blocks may have come back since.
        for Forgotten { number, .. } in &closing.forgotten {
            out.push(entries::entry(SpaceKind::Meta, ENTRY_FORGOTTEN, *number, 0, 0))?;
        }
        if self.pools.iter().any(|pool| !pool.checkpoint.is_empty()) {
            return Err(SpaceError::CheckpointOrder);
        }
        for pool in &self.pools {
            for extent in pool.closing.used.iter() {
                entries::push(&mut out, pool.kind, ENTRY_USED, 0, extent)?;
            }
        }
        let first_given = self.durable.given.saturating_add(1);
        for (&number, extents) in self.given.range(first_given..=token.numbers.given) {
            push_given(&mut out, number, extents)?;
        }
        for pool in &self.pools {
            for extent in pool.closing.added.iter().chain(pool.closing.withheld.iter()) {
                entries::push(&mut out, pool.kind, ENTRY_FREE, 0, extent)?;
            }
        }
        Ok(out)
    }

    /// Allocates a metadata block, from the reserve if need be, for the checkpoint of the transaction that is
    /// being committed.
    pub fn checkpoint_alloc(&mut self, token: CommitToken) -> Result<u64, SpaceError> {
        self.checkpoint_open(token)?;
        self.pool_mut(SpaceKind::Meta).checkpoint_alloc()
    }

    /// Frees a metadata block, as [`free_meta`](Self::free_meta) does, for the checkpoint of the transaction that is being
    /// committed.
    pub fn checkpoint_free(&mut self, token: CommitToken, blkno: u64) -> Result<(), SpaceError> {
        self.checkpoint_open(token)?;
        self.free(By::Checkpoint, SpaceExtent::new(SpaceKind::Meta, blkno, 1), false)
    }

    fn checkpoint_open(&mut self, token: CommitToken) -> Result<(), SpaceError> {
        match self.closing(token)?.checkpoint {
            Checkpoint::Open => Ok(()),
            Checkpoint::ListMade => Err(SpaceError::CheckpointOrder),
        }
    }

    /// All that the mount owns as of the transaction that is being committed, and the blocks to write it to. When there
    /// are no more than `max_inline` entries there are no blocks: the entries go into the checkpoint's record.
    ///
    /// The checkpoint can allocate and free no more after this. On an error it may have blocks of the list, and must be
    /// [undone](Self::undo_checkpoint).
    pub fn checkpoint_list(
        &mut self,
        token: CommitToken,
        max_inline: usize,
    ) -> Result<CheckpointSpace, SpaceError> {
        self.checkpoint_open(token)?;
        let mut entries = self.checkpoint_entries(token)?;
        let mut blocks = Vec::new();
        if entries.len() > max_inline {
            // Taking a block makes at most one extent more.
            for _ in 0..entries.len().div_ceil(SPACE_LIST_ENTRIES - 1) {
                blocks.reserve(1)?;
                blocks.push(self.pool_mut(SpaceKind::Meta).checkpoint_alloc()?)?;
            }
            entries = self.checkpoint_entries(token)?;
        }
        self.closing(token)?.checkpoint = Checkpoint::ListMade;
        Ok(CheckpointSpace { blocks, entries })
    }

    fn checkpoint_entries(&self, token: CommitToken) -> Result<Vec<SpaceEntry>, SpaceError> {
        let mut out = Vec::new();
        for pool in &self.pools {
            for extent in pool.free_as_of_commit() {
                entries::push(&mut out, pool.kind, ENTRY_FREE, 0, extent)?;
            }
        }
        // The open transaction may have given more, and forgotten some.
        for Forgotten { number, extents } in &self.open_forgotten {
            push_given(&mut out, *number, extents)?;
        }
        for (&number, extents) in self.given.range(..=token.numbers.given) {
            push_given(&mut out, number, extents)?;
        }
        Ok(out)
    }

    /// Takes back all that the checkpoint of the transaction that is being committed did, since it failed. The transaction
    /// is still being committed, with or without another checkpoint. Does nothing when there was none.
    pub fn undo_checkpoint(&mut self, token: CommitToken) -> Result<(), SpaceError> {
        self.closing(token)?.checkpoint = Checkpoint::Open;
        self.pools.iter_mut().try_for_each(Pool::undo_checkpoint)
    }

    /// The record of the transaction that is being committed counts. Needs no memory.
    pub fn commit_done(&mut self, token: CommitToken) -> Result<(), SpaceError> {
        self.closing(token)?;
        self.pools.iter_mut().try_for_each(Pool::commit_done)?;
        self.durable = token.numbers;
        self.closing = None;
        Ok(())
    }
}

fn push_given(out: &mut Vec<SpaceEntry>, number: u64, extents: &[SpaceExtent]) -> Result<(), SpaceError> {
    for blocks in extents {
        entries::push(out, blocks.kind, ENTRY_GIVEN, number, blocks.extent)?;
    }
    Ok(())
}

/// Sorts extents by kind; [`SpaceError::Overlap`] when two of them overlap.
fn distinct(extents: &[SpaceExtent]) -> Result<[ExtentSet; 2], SpaceError> {
    let mut sets = [ExtentSet::new(), ExtentSet::new()];
    for blocks in extents {
        sets[blocks.kind as usize].insert(blocks.extent)?;
    }
    Ok(sets)
}
