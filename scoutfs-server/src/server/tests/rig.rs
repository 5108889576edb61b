// SPDX-License-Identifier: GPL-2.0-only
//! A volume on a device that remembers every state it went through, and its server.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc as StdArc, Mutex};
use std::vec::Vec;
use std::{format, println, vec};

use scoutfs_btree::{BlockCache, read_range};
use scoutfs_env::device::{BlockDevice, EIO, IoError, IoOp, MemDevice};
use scoutfs_env::time::Mono;
use scoutfs_env::{Arc, Box, IoBuf, try_box};
use scoutfs_format::geometry::{Geometry, MIN_VOLUME_BYTES};
use scoutfs_format::item::ExtentItem;
use scoutfs_format::key::KIND_EXTENT;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::*;
use scoutfs_format::voter::ProcessId;
use scoutfs_format::{BLOCK_SIZE, Key};
use scoutfs_net::quorum::VoterBlock;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::ServerError;
use crate::audit::{Audit, audit};
use crate::merge_job::MergeResult;
use crate::mkfs::{NewVolume, create_volume};
use crate::roots::{Roots, read_roots};
use crate::server::{DeathOracle, Leader, Server};
use crate::super_block::{read_super, read_super_with_take_overs};

pub const FSID: u64 = 0x5c00_7f5f_0000_0001;

/// States of a device, each with the offset of the write that came next.
type Snapshots = Vec<(MemDevice, u64)>;

/// Writes that are on their way: offset and bytes.
pub type LateWrites = Vec<(u64, IoBuf)>;

/// A device in memory, shared with the test, that keeps a snapshot before each write while it records.
#[derive(Clone)]
pub struct TestDevice {
    mem: StdArc<MemDevice>,
    snapshots: StdArc<Mutex<Option<Snapshots>>>,
    failing: StdArc<AtomicBool>,
    held: StdArc<Mutex<Option<LateWrites>>>,
    written: StdArc<Mutex<BTreeSet<u64>>>,
}

impl TestDevice {
    pub fn new(mem: MemDevice) -> Self {
        TestDevice {
            mem: StdArc::new(mem),
            snapshots: StdArc::default(),
            failing: StdArc::default(),
            held: StdArc::default(),
            written: StdArc::default(),
        }
    }

    pub fn fail_writes(&self, fail: bool) {
        self.failing.store(fail, Ordering::Relaxed);
    }

    /// From now on metadata blocks are long on their way, and flushes fail: who writes them dies before he has written more.
    pub fn hold_blocks(&self) {
        *self.held.lock().unwrap() = Some(vec![]);
    }

    /// What is on its way, and will land some time. Later writes do so at once.
    pub fn let_go(&self) -> LateWrites {
        self.held.lock().unwrap().take().unwrap()
    }

    pub fn land(&self, writes: &LateWrites) {
        for (offset, bytes) in writes {
            self.mem.write(*offset, bytes).unwrap();
        }
    }

    /// Numbers of the 64 KiB blocks that were written since this was last called.
    pub fn written_blocks(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *self.written.lock().unwrap())
    }

    pub fn boxed(&self) -> Arc<Box<dyn BlockDevice>> {
        let boxed: Box<dyn BlockDevice> = try_box(self.clone()).unwrap();
        Arc::new(boxed).unwrap()
    }

    pub fn record(&self) {
        *self.snapshots.lock().unwrap() = Some(vec![]);
    }

    /// What a power failure could have left since [`record`](Self::record), writes in order: the state before each
    /// write, the state with that write torn, and the present one.
    pub fn states(&self) -> Vec<(std::string::String, MemDevice)> {
        let writes = self.snapshots.lock().unwrap().take().unwrap();
        let mut states = vec![];
        for (n, (state, offset)) in writes.into_iter().enumerate() {
            let torn = state.snapshot();
            let mut sector = IoBuf::zeroed(4096).unwrap();
            torn.read(offset, &mut sector).unwrap();
            sector[..512].fill(0xee);
            torn.write(offset, &sector).unwrap();
            states.push((format!("before write {n} at {offset}"), state));
            states.push((format!("write {n} at {offset} torn"), torn));
        }
        states.push(("at the end".into(), self.mem.snapshot()));
        states
    }

    pub fn snapshot(&self) -> MemDevice {
        self.mem.snapshot()
    }

    pub fn writes(&self) -> u64 {
        self.mem.stats().writes
    }

    pub fn bytes_read(&self) -> u64 {
        self.mem.stats().read_bytes
    }
}

impl BlockDevice for TestDevice {
    fn size_bytes(&self) -> u64 {
        self.mem.size_bytes()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.mem.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        if self.failing.load(Ordering::Relaxed) {
            return Err(IoError { op: IoOp::Write, offset, len: buf.len(), errno: EIO });
        }
        if let Some(held) = &mut *self.held.lock().unwrap()
            && buf.len() == BLOCK_SIZE
        {
            let mut bytes = IoBuf::zeroed(buf.len()).unwrap();
            bytes.copy_from_slice(buf);
            held.push((offset, bytes));
            return Ok(());
        }
        self.written.lock().unwrap().insert(offset / BLOCK_SIZE as u64);
        if let Some(snapshots) = &mut *self.snapshots.lock().unwrap() {
            snapshots.push((self.mem.snapshot(), offset));
        }
        self.mem.write(offset, buf)
    }

    fn flush(&self) -> Result<(), IoError> {
        if self.held.lock().unwrap().is_some() {
            return Err(IoError { op: IoOp::Flush, offset: 0, len: 0, errno: EIO });
        }
        self.mem.flush()
    }
}

/// Everybody is dead, or nobody.
pub struct Dead(pub bool);

impl DeathOracle for Dead {
    fn is_dead(&self, _process: &ProcessId) -> bool {
        self.0
    }
}

/// One is dead.
pub struct DeadProcess(pub ProcessId);

impl DeathOracle for DeadProcess {
    fn is_dead(&self, process: &ProcessId) -> bool {
        *process == self.0
    }
}

/// The mount of a leader with this voter slot, where nothing else is said.
pub fn leader_rid(voter: u32) -> u64 {
    1000 + u64::from(voter)
}

/// A voter slot that the mount `rid` owns, which led in a term; 0 in none.
pub fn own_voter_slot(dev: &TestDevice, geometry: &Geometry, voter: u32, rid: u64, leader_term: u64) {
    let free = VoterBlock::free(voter, 2);
    let process = super::mount::process(rid);
    let block = VoterBlock { owned: true, nonce: 5, rid, process, term: leader_term, leader_term, ..free };
    let mut sector = IoBuf::zeroed(scoutfs_format::SECTOR_SIZE).unwrap();
    block.encode(FSID, &mut sector).unwrap();
    dev.write(geometry.quorum_block_offset(voter, 0), &sector).unwrap();
}

/// A voter slot whose owner left cleanly.
pub fn leave_voter_slot(dev: &TestDevice, geometry: &Geometry, voter: u32) {
    let mut sector = IoBuf::zeroed(scoutfs_format::SECTOR_SIZE).unwrap();
    let (rid, free) = (leader_rid(voter), VoterBlock::free(voter, 2));
    VoterBlock { nonce: 5, rid, process: super::mount::process(rid), ..free }
        .encode(FSID, &mut sector)
        .unwrap();
    dev.write(geometry.quorum_block_offset(voter, 0), &sector).unwrap();
}

pub fn geometry(bytes: u64) -> Geometry {
    Geometry::new(bytes, 1).unwrap()
}

/// A small volume with `2 * quorum - 1` voter slots.
pub fn make_volume_for(quorum: u32) -> TestDevice {
    let dev = TestDevice::new(MemDevice::new(MIN_VOLUME_BYTES));
    let geometry = Geometry::new(MIN_VOLUME_BYTES, quorum).unwrap();
    create_volume(&dev.boxed(), &new_volume(geometry)).unwrap();
    dev
}

pub fn make_volume(bytes: u64) -> TestDevice {
    let dev = TestDevice::new(MemDevice::new(bytes));
    mkfs(&dev);
    dev
}

pub fn new_volume(geometry: Geometry) -> NewVolume {
    NewVolume {
        geometry,
        fsid: FSID,
        uuid: [7; 16],
        secret: [9; 32],
        fs_items: scoutfs_env::Vec::new(),
        ino_bound: 2,
        inodes: 1,
    }
}

pub fn mkfs(dev: &TestDevice) {
    create_volume(&dev.boxed(), &new_volume(geometry(dev.size_bytes()))).unwrap();
}

pub struct Rig {
    pub dev: TestDevice,
    pub cache: Arc<BlockCache>,
    pub geometry: Geometry,
    pub server: Server,
    pub now: Mono,
    /// Requests of the server to mounts that were not looked at.
    pub inbox: Vec<(u64, u8, Vec<u8>)>,
    /// Answers that were sent and not looked at: mount, request, status, payload.
    answers: Vec<(u64, u64, u16, Vec<u8>)>,
    next_id: u64,
}

impl Rig {
    pub fn smallest() -> Rig {
        Rig::open(make_volume(MIN_VOLUME_BYTES), &Dead(true))
    }

    pub fn open(dev: TestDevice, dead: &dyn DeathOracle) -> Rig {
        Rig::open_at(dev, 0, dead)
    }

    /// As the leader with this voter slot.
    pub fn open_at(dev: TestDevice, voter: u32, dead: &dyn DeathOracle) -> Rig {
        Rig::lead(dev, voter, leader_rid(voter), dead).unwrap()
    }

    /// As the leader whose mount is `rid`.
    pub fn lead(dev: TestDevice, voter: u32, rid: u64, dead: &dyn DeathOracle) -> Result<Rig, ServerError> {
        let boxed = dev.boxed();
        let (sb, take_overs) = read_super_with_take_overs(&**boxed).unwrap();
        let cache = BlockCache::new(boxed.clone(), FSID, sb.geometry, 512).unwrap();
        let cache = Arc::new(cache).unwrap();
        let leader = Leader { voter, term: sb.sb.term.get() + 1, rid };
        let now = Mono::from_ns(1_000_000_000);
        let server = Server::open(boxed, cache.clone(), (&sb, &take_overs), leader, dead, now)?;
        Ok(Rig {
            dev,
            cache,
            geometry: sb.geometry,
            server: *server,
            now,
            inbox: vec![],
            answers: vec![],
            next_id: 1,
        })
    }

    /// The server crashes, and the next one begins on what is on the device.
    pub fn reopen(self, dead: &dyn DeathOracle) -> Rig {
        Rig::open(self.dev, dead)
    }

    /// The same, with another voter slot.
    pub fn reopen_at(self, voter: u32, dead: &dyn DeathOracle) -> Rig {
        Rig::open_at(self.dev, voter, dead)
    }

    pub fn advance(&mut self, by: Duration) {
        self.now = self.now.saturating_add(by);
    }

    pub fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn send(&mut self, rid: u64, id: u64, kind: u8, flags: u8, payload: &[u8]) {
        let header = MessageHeader {
            kind,
            flags,
            id: U64::new(id),
            payload_len: U32::new(payload.len() as u32),
            ..Default::default()
        };
        self.server.handle(self.now, rid, &header, payload);
    }

    fn receive(&mut self) {
        while let Some(message) = self.server.poll_message() {
            let payload = message.payload.to_vec();
            if message.response {
                self.answers.push((message.to, message.id, message.status, payload));
            } else {
                self.inbox.push((message.to, message.kind, payload));
            }
        }
    }

    /// Answers that were sent by now; requests of the server go to the inbox.
    pub fn poll(&mut self) -> Vec<(u64, u64, u16, Vec<u8>)> {
        self.receive();
        std::mem::take(&mut self.answers)
    }

    /// A request and its answer, with a commit in between if it needs one.
    pub fn request(&mut self, rid: u64, id: u64, kind: u8, payload: &[u8]) -> (u16, Vec<u8>) {
        self.send(rid, id, kind, 0, payload);
        let _ = self.server.commit();
        self.receive();
        let at = self.answers.iter().position(|(to, i, _, _)| (*to, *i) == (rid, id));
        let (_, _, status, payload) =
            self.answers.remove(at.unwrap_or_else(|| panic!("no answer to {kind}")));
        (status, payload)
    }

    pub fn call<T: FromBytes>(
        &mut self,
        rid: u64,
        kind: u8,
        payload: &(impl IntoBytes + Immutable),
    ) -> Result<T, u16> {
        let id = self.new_id();
        let (status, bytes) = self.request(rid, id, kind, payload.as_bytes());
        if status != STATUS_OK {
            return Err(status);
        }
        Ok(T::read_from_prefix(&bytes).unwrap().0)
    }

    /// Runs the server until it has nothing left to do now.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            self.server.tick(self.now);
            let job = self.server.poll_job();
            let had_job = job.is_some();
            if let Some(job) = job {
                let result: MergeResult = job.run(&self.cache);
                self.server.job_done(self.now, result);
            }
            let wakes = self.server.next_wakeup(self.now) <= self.now;
            self.server.commit().unwrap();
            if !had_job && !wakes {
                self.receive();
                return;
            }
        }
        panic!("the server never settles");
    }

    pub fn items(&self) -> BTreeMap<Key, (u64, Vec<u8>)> {
        items(&self.dev)
    }
}

/// What a reader of the device sees.
pub fn items(dev: &TestDevice) -> BTreeMap<Key, (u64, Vec<u8>)> {
    let boxed = dev.boxed();
    let sb = read_super(&**boxed).unwrap();
    let cache = BlockCache::new(boxed.clone(), FSID, sb.geometry, 512).unwrap();
    let roots = read_roots(&**boxed, &cache, &sb.geometry).unwrap();
    items_of(&cache, &roots)
}

/// All items that a reader with these roots sees.
pub fn items_of(cache: &BlockCache, roots: &Roots) -> BTreeMap<Key, (u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut from = Some(Key::MIN);
    while let Some(key) = from {
        let range = read_range(cache, &roots.forest, key, Key::MIN, Key::MAX).unwrap();
        for item in &range.items {
            found.insert(item.key, (item.version, item.value.to_vec()));
        }
        from = range.last.next();
    }
    found
}

/// Audits a device with a cache of its own. The data are those that the items on the device name.
pub fn audit_device(dev: &TestDevice) -> Audit {
    let boxed = dev.boxed();
    let (sb, take_overs) = read_super_with_take_overs(&**boxed).unwrap();
    let cache = BlockCache::new(boxed.clone(), FSID, sb.geometry, 512).unwrap();
    let roots = read_roots(&**boxed, &cache, &sb.geometry).unwrap();
    let items = items(dev);
    audit(&cache, &roots, &take_overs, |visit| {
        for (key, (_, value)) in &items {
            if key.kind == KIND_EXTENT {
                let extent = ExtentItem::read_from_bytes(value).unwrap();
                visit(key.first, extent.blkno.get(), extent.len.get())?;
            }
        }
        Ok(())
    })
    .unwrap()
}

pub fn assert_sound(dev: &TestDevice, when: &str) -> Audit {
    let audit = audit_device(dev);
    for issue in &audit.issues {
        println!("{when}: {issue}");
    }
    assert!(audit.issues.is_empty(), "{when}: {} issues", audit.issues.len());
    audit
}

/// Every state that a crash could have left must be sound, must open, and must become sound and quiet again. `left` says
/// what is checked after that.
pub fn crash_everywhere(dev: &TestDevice, what: &str, left: impl Fn(&mut Rig)) {
    let states = dev.states();
    println!("{what}: {} states", states.len());
    for (when, state) in states {
        let dev = TestDevice::new(state);
        let when = format!("{what}, {when}");
        assert_sound(&dev, &when);
        let mut rig = Rig::open(dev.clone(), &Dead(true));
        rig.settle();
        assert_sound(&dev, &format!("{when}, then recovered"));
        left(&mut rig);
    }
}
