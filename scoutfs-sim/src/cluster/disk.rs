// SPDX-License-Identifier: GPL-2.0-only
//! The disk that all hosts share.
//!
//! # Fault model
//!
//! - A request takes time. A write lands in pieces of whole sectors of 512 bytes, at different times before it returns; from then
//!   on every host reads it.
//! - What has landed is in the disk's volatile cache until it is durable. A flush of a mount makes durable what this mount
//!   had written or read when the flush began, a durable write itself. When power fails, each sector that is not
//!   durable is what it was, or any newer thing that was there since.
//! - The pieces of a write whose mount has crashed or stands still land, are lost, or land later, up to [`LATE`] after; but
//!   not after its machine said that it is dead ([`Disk::bury`]).
//! - A request may be slow, and it may fail: then nothing, a part or all of a write has landed.
//!
//! Not modelled: a disk that lies about its flushes, and one that changes what nobody wrote.
//!
//! # Locking
//!
//! One mutex over everything, never held while a task waits.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use scoutfs_env::device::{BlockDevice, EIO, IO_ALIGN, IoError, IoOp, check_io};
use scoutfs_env::sim::{self, Key, Node};
use scoutfs_env::{Arc as EnvArc, Box as EnvBox, try_box};

use scoutfs_format::geometry::Geometry;

use super::lock;
use crate::disk::ATOM;
use crate::rng::Rng;

/// The longest that a write of a mount that does not live is still on its way.
pub const LATE: Duration = Duration::from_secs(6);

type Bytes = [u8; IO_ALIGN];

/// Mounts, a bit each.
type Mounts = u128;

/// What a block was made that is not durable.
struct Version {
    /// Which change of the disk.
    number: u64,
    bytes: Arc<Bytes>,
    /// Who makes it durable by a flush.
    flushed_by: Mounts,
}

#[derive(Default)]
struct Block {
    durable: Option<Arc<Bytes>>,
    /// From the oldest to the one that is read.
    versions: Vec<Version>,
}

/// A piece of a write that has not landed.
struct Piece {
    due: u64,
    request: u64,
    node: Node,
    block: u64,
    /// Sectors of the block, a bit each.
    sectors: u8,
    bytes: Arc<Bytes>,
}

/// What is at a place of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// Blocks of voters.
    Votes,
    /// Super blocks.
    Supers,
    /// Commit records.
    Records,
    /// Metadata and data.
    Blocks,
}

/// When a mount stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Before it reads.
    Read,
    /// Before the disk is asked for a write: that goes on when the mount does.
    Write,
    /// When the disk has been asked: the write is late.
    Asked,
}

/// Where a mount's next request stops it for a while.
#[derive(Clone, Copy)]
pub struct Snare {
    /// Whose.
    pub node: Node,
    /// To where.
    pub region: Region,
    /// For how long.
    pub pause: Duration,
    /// At which request.
    pub stop: Stop,
}

/// How a mount's requests fare.
#[derive(Clone, Copy, Default)]
pub struct Trouble {
    /// Requests take up to so much longer, until then.
    pub slow: (u64, Duration),
    /// One in so many fails, until then.
    pub failing: (u64, u64),
}

struct State {
    blocks: Vec<Option<Box<Block>>>,
    /// Blocks with a version that a flush of a mount makes durable, by its number.
    unflushed: Vec<BTreeSet<u64>>,
    pieces: Vec<Piece>,
    trouble: Vec<Trouble>,
    number: u64,
    requests: u64,
    watches: Vec<Watch>,
    snare: Option<Snare>,
    geometry: Option<Geometry>,
}

/// A write that is asked for.
pub struct Write<'a> {
    /// By whom.
    pub node: Node,
    /// Where.
    pub offset: u64,
    /// What.
    pub bytes: &'a [u8],
    /// What is there, once there is a volume.
    pub region: Option<Region>,
    /// Another whose write to the same place has not landed.
    pub in_the_way: Option<Node>,
}

/// Sees each write as it is asked for.
pub type Watch = Box<dyn FnMut(&Write<'_>) + Send>;

/// See the module. Clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    size: u64,
    state: Arc<Mutex<State>>,
}

/// A mount's way to a disk.
pub struct Path {
    disk: Disk,
    node: Node,
}

fn region_of(geometry: &Geometry, offset: u64) -> Region {
    if offset >= geometry.zones_offset() {
        return Region::Blocks;
    }
    if offset >= geometry.slot_offset(0) {
        return Region::Records;
    }
    let is_super = |voter: u32| (0..2).any(|copy| geometry.super_offset(voter, copy) == offset);
    if (0..geometry.nr_voters()).any(is_super) { Region::Supers } else { Region::Votes }
}

fn bit(node: Node) -> Mounts {
    1 << node.number()
}

impl State {
    fn grow(&mut self, node: Node) {
        let count = node.number() + 1;
        assert!(count <= Disk::MOST_MOUNTS + 1, "too many mounts for one run");
        if self.unflushed.len() < count {
            self.unflushed.resize_with(count, BTreeSet::new);
            self.trouble.resize_with(count, Trouble::default);
        }
    }

    fn block(&mut self, block: u64) -> &mut Block {
        self.blocks[block as usize].get_or_insert_default()
    }

    fn visible(&self, block: u64) -> Option<&Arc<Bytes>> {
        let block = self.blocks[block as usize].as_ref()?;
        block.versions.last().map(|version| &version.bytes).or(block.durable.as_ref())
    }

    /// Another whose write to a part of this place has not landed.
    fn in_the_way(&self, node: Node, offset: u64, len: usize) -> Option<Node> {
        let blocks = offset / IO_ALIGN as u64..(offset + len as u64) / IO_ALIGN as u64;
        self.pieces
            .iter()
            .find(|piece| piece.node != node && blocks.contains(&piece.block))
            .map(|piece| piece.node)
    }

    /// Lands what is due by now.
    fn settle(&mut self) {
        if !sim::active() || self.pieces.is_empty() {
            return;
        }
        let now = sim::now_ns();
        let mut due: Vec<Piece> = self.pieces.extract_if(.., |piece| piece.due <= now).collect();
        // Those of one moment in the order of their requests.
        due.sort_by_key(|piece| (piece.due, piece.request));
        for piece in due {
            self.land(&piece);
        }
    }

    fn land(&mut self, piece: &Piece) {
        let bytes = if piece.sectors == u8::MAX {
            piece.bytes.clone()
        } else {
            let mut bytes = self.visible(piece.block).map_or([0; IO_ALIGN], |bytes| **bytes);
            for sector in (0..8).filter(|sector| piece.sectors & (1 << sector) != 0) {
                let range = sector * ATOM..(sector + 1) * ATOM;
                bytes[range.clone()].copy_from_slice(&piece.bytes[range]);
            }
            Arc::new(bytes)
        };
        self.number += 1;
        let version = Version { number: self.number, bytes, flushed_by: bit(piece.node) };
        self.block(piece.block).versions.push(version);
        self.unflushed[piece.node.number()].insert(piece.block);
    }

    /// Makes versions of a block durable up to the newest that `is_covered` says.
    fn harden(&mut self, block: u64, is_covered: impl Fn(&Version) -> bool) {
        let block = self.block(block);
        if let Some(newest) = block.versions.iter().rposition(is_covered) {
            block.durable = block.versions.drain(..=newest).next_back().map(|version| version.bytes);
        }
    }

    /// Whether this request fails.
    fn fails(&self, node: Node) -> bool {
        let (until, one_in) = self.trouble[node.number()].failing;
        until > sim::now_ns() && sim::below(one_in) == 0
    }

    fn latency(&self, node: Node, base_us: u64) -> Duration {
        let (until, extra) = self.trouble[node.number()].slow;
        let mut took = Duration::from_micros(base_us + sim::below(3 * base_us));
        if sim::below(300) == 0 {
            took += Duration::from_millis(sim::below(60));
        }
        if until > sim::now_ns() {
            took += Duration::from_micros(sim::below(extra.as_micros() as u64));
        }
        took
    }
}

impl Disk {
    /// Mounts of a run.
    pub const MOST_MOUNTS: usize = Mounts::BITS as usize - 1;

    /// An empty disk.
    pub fn new(size: u64) -> Disk {
        let mut blocks = Vec::new();
        blocks.resize_with((size / IO_ALIGN as u64) as usize, || None);
        let state = State {
            blocks,
            unflushed: Vec::new(),
            pieces: Vec::new(),
            trouble: Vec::new(),
            number: 0,
            requests: 0,
            watches: Vec::new(),
            snare: None,
            geometry: None,
        };
        Disk { size, state: Arc::new(Mutex::new(state)) }
    }

    /// The way of a mount.
    pub fn path(&self, node: Node) -> Path {
        lock(&self.state).grow(node);
        Path { disk: self.clone(), node }
    }

    /// The same, for who takes any device.
    pub fn device(&self, node: Node) -> EnvArc<EnvBox<dyn BlockDevice>> {
        let device: EnvBox<dyn BlockDevice> = try_box(self.path(node)).expect("memory");
        EnvArc::new(device).expect("memory")
    }

    /// Has `watch` see each write from now on, as others do.
    pub fn watch(&self, watch: Watch) {
        lock(&self.state).watches.push(watch);
    }

    /// How a volume on it is laid out.
    pub fn set_geometry(&self, geometry: Geometry) {
        lock(&self.state).geometry = Some(geometry);
    }

    /// Lays a snare, in place of another.
    pub fn lay(&self, snare: Option<Snare>) {
        lock(&self.state).snare = snare;
    }

    /// How a mount's requests fare from now on.
    pub fn trouble(&self, node: Node, change: impl FnOnce(&mut Trouble)) {
        change(&mut lock(&self.state).trouble[node.number()]);
    }

    /// What a mount has on its way is late, or lost when it has crashed.
    pub fn delay(&self, node: Node, late: bool, lost: bool) {
        let mut state = lock(&self.state);
        state.settle();
        let now = sim::now_ns();
        state.pieces.retain_mut(|piece| {
            if piece.node != node {
                return true;
            }
            if lost && sim::below(3) == 0 {
                return false;
            }
            if late && sim::below(2) == 0 {
                piece.due = now + sim::below(LATE.as_nanos() as u64);
            }
            true
        });
    }

    /// Nothing of this mount lands any more.
    pub fn bury(&self, node: Node) {
        let mut state = lock(&self.state);
        state.settle();
        state.pieces.retain(|piece| piece.node != node);
    }

    /// Power fails, and comes back.
    pub fn lose_power(&self) {
        let mut rng = Rng::new(if sim::active() { sim::random() } else { 1 });
        let mut state = lock(&self.state);
        state.settle();
        state.pieces.clear();
        for block in state.blocks.iter_mut().flatten().filter(|block| !block.versions.is_empty()) {
            let versions = std::mem::take(&mut block.versions);
            let mut bytes = block.durable.as_ref().map_or([0; IO_ALIGN], |bytes| **bytes);
            // Mostly kept in one block, mostly lost in another.
            let odds = rng.below(4);
            for (at, sector) in bytes.chunks_exact_mut(ATOM).enumerate() {
                if rng.below(4) < odds {
                    let kept = rng.pick(&versions);
                    sector.copy_from_slice(&kept.bytes[at * ATOM..(at + 1) * ATOM]);
                }
            }
            block.durable = Some(Arc::new(bytes));
        }
        state.unflushed.iter_mut().for_each(BTreeSet::clear);
    }
}

impl Path {
    fn wait(&self, base_us: u64) {
        let took = lock(&self.disk.state).latency(self.node, base_us);
        sim::sleep(took);
    }

    /// Stands still, when a snare is laid here.
    fn step_into_snare(&self, offset: u64, stop: Stop) {
        let pause = {
            let mut state = lock(&self.disk.state);
            let region = state.geometry.map(|geometry| region_of(&geometry, offset));
            let fits =
                |snare: &Snare| snare.node == self.node && snare.stop == stop && Some(snare.region) == region;
            match state.snare.take_if(|snare| fits(snare)) {
                Some(snare) => snare.pause,
                None => return,
            }
        };
        sim::note(format_args!("{:?} stands still for {pause:?} at {offset}, {stop:?}", self.node));
        if stop == Stop::Asked {
            self.disk.delay(self.node, true, false);
        }
        sim::pause(self.node, pause);
        sim::sleep(Duration::from_nanos(1));
    }

    fn put(&self, offset: u64, buf: &[u8], durable: bool) -> Result<(), IoError> {
        check_io(self, IoOp::Write, offset, buf)?;
        let Path { node, .. } = *self;
        let first = offset / IO_ALIGN as u64;
        let blocks = buf.chunks_exact(IO_ALIGN).enumerate();
        let blocks =
            blocks.map(|(at, bytes)| (first + at as u64, Arc::new(<Bytes>::try_from(bytes).expect("4096"))));
        if !sim::active() {
            let mut state = lock(&self.disk.state);
            for (block, bytes) in blocks {
                *state.block(block) = Block { durable: Some(bytes), versions: Vec::new() };
            }
            return Ok(());
        }
        // Whoever stands still between asking and having asked has asked for nothing.
        sim::point();
        self.step_into_snare(offset, Stop::Write);
        let (request, fails) = {
            let mut state = lock(&self.disk.state);
            state.settle();
            let mut watches = std::mem::take(&mut state.watches);
            let region = state.geometry.map(|geometry| region_of(&geometry, offset));
            let in_the_way = state.in_the_way(node, offset, buf.len());
            for watch in &mut watches {
                watch(&Write { node, offset, bytes: buf, region, in_the_way });
            }
            state.watches = watches;
            state.requests += 1;
            let request = state.requests;
            let fails = state.fails(node);
            let took = state.latency(node, 60).as_nanos() as u64;
            let now = sim::now_ns();
            for (block, bytes) in blocks {
                if fails && sim::below(2) == 0 {
                    continue;
                }
                let split = if sim::below(4) == 0 { sim::random() as u8 } else { u8::MAX };
                for sectors in [split, !split].into_iter().filter(|sectors| *sectors != 0) {
                    let due = now + sim::below(took + 1);
                    let bytes = bytes.clone();
                    state.pieces.push(Piece { due, request, node, block, sectors, bytes });
                }
            }
            (request, fails)
        };
        self.step_into_snare(offset, Stop::Asked);
        // Until all of it has landed, however late.
        loop {
            let due = {
                let mut state = lock(&self.disk.state);
                state.settle();
                state.pieces.iter().filter(|piece| piece.request == request).map(|piece| piece.due).max()
            };
            let Some(due) = due else { break };
            let left = Duration::from_nanos(due.saturating_sub(sim::now_ns()) + 1);
            sim::block(Key::number(usize::MAX), Some(left), "a write");
        }
        if fails {
            return Err(IoError { op: IoOp::Write, offset, len: buf.len(), errno: EIO });
        }
        if durable {
            let mut state = lock(&self.disk.state);
            for block in first..first + (buf.len() / IO_ALIGN) as u64 {
                // What others put on top meanwhile stays as it is.
                state.harden(block, |version| version.flushed_by & bit(node) != 0);
            }
        }
        Ok(())
    }
}

impl BlockDevice for Path {
    fn size_bytes(&self) -> u64 {
        self.disk.size
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        check_io(self, IoOp::Read, offset, buf)?;
        let Path { node, .. } = *self;
        if sim::active() {
            self.step_into_snare(offset, Stop::Read);
            self.wait(30);
        }
        let mut state = lock(&self.disk.state);
        state.settle();
        if sim::active() && state.fails(node) {
            return Err(IoError { op: IoOp::Read, offset, len: buf.len(), errno: EIO });
        }
        let first = offset / IO_ALIGN as u64;
        for (at, part) in buf.chunks_exact_mut(IO_ALIGN).enumerate() {
            let number = first + at as u64;
            match state.visible(number) {
                None => part.fill(0),
                Some(bytes) => part.copy_from_slice(&**bytes),
            }
            let mut unflushed = false;
            if let Some(block) = &mut state.blocks[number as usize] {
                for version in &mut block.versions {
                    version.flushed_by |= bit(node);
                    unflushed = true;
                }
            }
            if unflushed {
                state.unflushed[node.number()].insert(number);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.put(offset, buf, false)
    }

    fn flush(&self) -> Result<(), IoError> {
        let Path { node, .. } = *self;
        if !sim::active() {
            return Ok(());
        }
        let (through, fails) = {
            let mut state = lock(&self.disk.state);
            state.settle();
            (state.number, state.fails(node))
        };
        self.wait(200);
        if fails {
            return Err(IoError { op: IoOp::Flush, offset: 0, len: 0, errno: EIO });
        }
        let mut state = lock(&self.disk.state);
        for block in std::mem::take(&mut state.unflushed[node.number()]) {
            let covered =
                |version: &Version| version.number <= through && version.flushed_by & bit(node) != 0;
            state.harden(block, covered);
            let left = state.block(block).versions.iter().any(|version| version.flushed_by & bit(node) != 0);
            if left {
                state.unflushed[node.number()].insert(block);
            }
        }
        Ok(())
    }

    fn write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.put(offset, buf, true)
    }
}
