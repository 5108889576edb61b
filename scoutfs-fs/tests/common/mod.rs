// SPDX-License-Identifier: GPL-2.0-only
//! A volume on a device in memory.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc as StdArc, Mutex, RwLock, RwLockWriteGuard};
use std::time::Duration;

use scoutfs_env::device::{BlockDevice, EIO, IoError, IoOp, MemDevice, ReadAhead};
use scoutfs_env::net::{Network, TcpNetwork};
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::geometry::{Geometry, MAX_VOTERS, super_offset};
use scoutfs_format::voter::ProcessId;
use scoutfs_fs::check::Summary;
use scoutfs_fs::dir::NewInode;
use scoutfs_fs::mkfs::{Options, mkfs};
use scoutfs_fs::{Cancel, Fs, Mount, MountOptions};
use scoutfs_net::quorum::VoterBlock;
use scoutfs_server::DeathOracle;

/// What a node of a cluster is made of, besides its device.
type Parts = (Arc<Box<dyn Network>>, MountOptions, Arc<Box<dyn DeathOracle + Send + Sync>>);

/// All former mounts of these tests are dead, and those that live beat.
struct AllDead;

impl DeathOracle for AllDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        true
    }
}

/// Of the clients of a volume all but the newest are dead, by their numbers.
struct NewestLives(StdArc<AtomicU64>);

impl DeathOracle for NewestLives {
    fn is_dead(&self, process: &ProcessId) -> bool {
        (1..self.0.load(Ordering::Relaxed)).contains(&process.pid.get())
    }
}

/// Nobody is known to be dead.
struct NoneDead;

impl DeathOracle for NoneDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        false
    }
}

/// A device that several owners share, as a disk is. It hangs while `hung` is held for writing, and fails when no requests
/// are `left`. It may also fail all that is not a read.
struct Shared {
    memory: StdArc<MemDevice>,
    hung: StdArc<RwLock<()>>,
    slow_merges: StdArc<AtomicU64>,
    left: StdArc<AtomicU64>,
    only_reads: StdArc<AtomicBool>,
    ahead: StdArc<Mutex<Option<Vec<ReadAhead>>>>,
    own: StdArc<Own>,
}

/// What is special about a node's way to the device.
#[derive(Default)]
pub struct Own {
    /// Whether it has written a super block.
    pub leads: AtomicBool,
    /// Writes of super blocks fail.
    pub no_supers: AtomicBool,
    /// Writes of commit records fail.
    pub no_records: AtomicBool,
    /// Writes of threads that are named [`WRITER`] fail.
    pub no_data: AtomicBool,
    /// Writes to this offset fail; 0 is none.
    pub bad: AtomicU64,
    /// Writes of threads that are named [`WRITER`] are on their way while this is held for writing.
    pub late_data: RwLock<()>,
    /// How many of them are.
    pub late: AtomicU64,
    /// Reads of threads that are named [`READER`] are on their way while this is held for writing.
    pub late_reads: RwLock<()>,
    /// How many of them are.
    pub reading: AtomicU64,
}

/// A thread of a test that writes data and nothing else.
pub const WRITER: &str = "writer";

/// A thread of a test that reads.
// Each test file uses a part of this module.
#[allow(dead_code)]
pub const READER: &str = "reader";

impl Own {
    fn admit(&self, offset: u64, len: usize, size: u64) -> Result<(), IoError> {
        let is_super = (0..MAX_VOTERS).any(|voter| (0..2).any(|copy| super_offset(voter, copy) == offset));
        let geometry = Geometry::new(size, 2).unwrap();
        let is_record =
            (geometry.slot_offset(0)..geometry.slot_offset(geometry.nr_slots())).contains(&offset);
        if is_super {
            self.leads.store(true, Ordering::Relaxed);
        }
        let is_writer = std::thread::current().name() == Some(WRITER);
        if is_super && self.no_supers.load(Ordering::Relaxed)
            || is_writer && self.no_data.load(Ordering::Relaxed)
            || offset != 0 && offset == self.bad.load(Ordering::Relaxed)
            || is_record && self.no_records.load(Ordering::Relaxed)
        {
            return Err(IoError { op: IoOp::Write, offset, len, errno: EIO });
        }
        Ok(())
    }
}

impl Shared {
    fn admit(&self, op: IoOp, offset: u64, len: usize) -> Result<&MemDevice, IoError> {
        drop(self.hung.read().unwrap());
        if op != IoOp::Read && self.only_reads.load(Ordering::Relaxed) {
            return Err(IoError { op, offset, len, errno: EIO });
        }
        let take = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(1) };
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(&self.memory),
            Err(_) => Err(IoError { op, offset, len, errno: EIO }),
        }
    }
}

impl BlockDevice for Shared {
    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        if std::thread::current().name() == Some(READER) {
            self.own.reading.fetch_add(1, Ordering::Relaxed);
            drop(self.own.late_reads.read().unwrap());
            self.own.reading.fetch_sub(1, Ordering::Relaxed);
        }
        self.admit(IoOp::Read, offset, buf.len())?.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        if std::thread::current().name() == Some("scoutfs-merge") {
            std::thread::sleep(Duration::from_millis(self.slow_merges.load(Ordering::Relaxed)));
        }
        self.own.admit(offset, buf.len(), self.size_bytes())?;
        if std::thread::current().name() == Some(WRITER) {
            self.own.late.fetch_add(1, Ordering::Relaxed);
            drop(self.own.late_data.read().unwrap());
            self.own.late.fetch_sub(1, Ordering::Relaxed);
        }
        self.admit(IoOp::Write, offset, buf.len())?.write(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.admit(IoOp::Flush, 0, 0)?.flush()
    }
    fn read_ahead(&self, request: ReadAhead) {
        match &mut *self.ahead.lock().unwrap() {
            Some(held) => held.push(request),
            None => self.read_now(request),
        }
    }
}

impl Shared {
    fn read_now(&self, ReadAhead { pieces, done }: ReadAhead) {
        done(pieces.into_iter().all(|(offset, memory)| self.read(offset, memory).is_ok()));
    }
}

/// The counter of this name.
// Each test file uses a part of this module.
#[allow(dead_code)]
pub fn counter(fs: &Fs, wanted: &str) -> u64 {
    let mut found = None;
    fs.for_each_counter(&mut |name: &str, value| {
        if name == wanted {
            found = Some(value);
        }
        Ok(())
    })
    .unwrap();
    found.unwrap()
}

/// A volume in memory.
pub struct Volume {
    memory: StdArc<MemDevice>,
    hung: StdArc<RwLock<()>>,
    slow_merges: StdArc<AtomicU64>,
    left: StdArc<AtomicU64>,
    only_reads: StdArc<AtomicBool>,
    /// What is read ahead while it is held back.
    ahead: StdArc<Mutex<Option<Vec<ReadAhead>>>>,
    /// Clients that were mounted.
    clients: StdArc<AtomicU64>,
}

// Each test file uses a part of this module.
#[allow(dead_code)]
impl Volume {
    /// A new volume that one mount makes work.
    pub fn new(bytes: u64) -> Volume {
        Self::with_quorum(bytes, 1)
    }

    /// A new volume that works when so many mounts are there.
    pub fn with_quorum(bytes: u64, quorum: u32) -> Volume {
        let volume = Volume::on(MemDevice::new(bytes));
        mkfs(&volume.device(), &Options { quorum, force: false }).unwrap();
        volume
    }

    fn on(memory: MemDevice) -> Volume {
        let left = StdArc::new(AtomicU64::new(u64::MAX));
        Volume {
            memory: StdArc::new(memory),
            hung: StdArc::default(),
            slow_merges: StdArc::default(),
            left,
            only_reads: StdArc::default(),
            ahead: StdArc::default(),
            clients: StdArc::default(),
        }
    }

    /// The device does nothing until the result is dropped.
    pub fn hang(&self) -> RwLockWriteGuard<'_, ()> {
        self.hung.write().unwrap()
    }

    /// Each write of a merge takes so long from now on.
    pub fn slow_merges(&self, ms: u64) {
        self.slow_merges.store(ms, Ordering::Relaxed);
    }

    /// What is read ahead from now on is read with [`Volume::read_held`].
    pub fn hold_ahead(&self) {
        *self.ahead.lock().unwrap() = Some(vec![]);
    }

    /// Reads what was held back. Gives how many requests that were.
    pub fn read_held(&self) -> usize {
        let held = self.ahead.lock().unwrap().take().unwrap();
        let count = held.len();
        let device = self.shared(&StdArc::default());
        held.into_iter().for_each(|request| device.read_now(request));
        count
    }

    /// The device does so many requests from now on, and then fails all.
    pub fn die_after(&self, requests: u64) {
        self.left.store(requests, Ordering::Relaxed);
    }

    /// From now on the device fails all that is not a read.
    pub fn refuse_writes(&self) {
        self.only_reads.store(true, Ordering::Relaxed);
    }

    pub fn device(&self) -> Arc<Box<dyn BlockDevice>> {
        self.device_of(&StdArc::default())
    }

    fn device_of(&self, own: &StdArc<Own>) -> Arc<Box<dyn BlockDevice>> {
        let device: Box<dyn BlockDevice> = try_box(self.shared(own)).unwrap();
        Arc::new(device).unwrap()
    }

    fn shared(&self, own: &StdArc<Own>) -> Shared {
        Shared {
            memory: self.memory.clone(),
            hung: self.hung.clone(),
            slow_merges: self.slow_merges.clone(),
            left: self.left.clone(),
            only_reads: self.only_reads.clone(),
            ahead: self.ahead.clone(),
            own: own.clone(),
        }
    }

    pub fn mount(&self) -> Mount {
        self.try_mount().unwrap()
    }

    pub fn try_mount(&self) -> scoutfs_fs::Result<Mount> {
        Mount::open(self.device(), &Self::options(), &AllDead)
    }

    /// With a lease of the leader that ends after so long.
    pub fn mount_with_lease(&self, lease_ms: u64) -> Mount {
        self.mount_with_lease_by(lease_ms, &StdArc::default())
    }

    /// The same, with a way of its own to the device.
    pub fn mount_with_lease_by(&self, lease_ms: u64, own: &StdArc<Own>) -> Mount {
        let mut options = Self::options();
        options.timing.lease_ms = lease_ms;
        Mount::open(self.device_of(own), &options, &AllDead).unwrap()
    }

    /// A node of a cluster, which runs the server at an address, or joins one that another runs.
    pub fn node(&self, address: SocketAddr, runs_server: bool) -> Mount {
        self.try_node(address, runs_server).unwrap()
    }

    pub fn try_node(&self, address: SocketAddr, runs_server: bool) -> scoutfs_fs::Result<Mount> {
        self.join(runs_server.then_some(address), 0, try_box(NoneDead).unwrap())
    }

    /// A node of a cluster, until that is cancelled.
    pub fn node_until(
        &self,
        address: SocketAddr,
        runs_server: bool,
        cancel: &Cancel,
    ) -> scoutfs_fs::Result<Mount> {
        let (network, options, oracle) =
            Self::parts(runs_server.then_some(address), 0, try_box(NoneDead).unwrap());
        Mount::open_until(self.device(), network, &options, oracle, cancel)
    }

    /// A node that may run the server, with a way of its own to the device.
    pub fn node_with(&self, address: SocketAddr, own: &StdArc<Own>) -> Mount {
        self.join_with(Some(address), 0, try_box(NoneDead).unwrap(), own).unwrap()
    }

    /// The node that runs the server, and knows that of the volume's clients only the newest lives.
    pub fn node_that_knows(&self, address: SocketAddr) -> Mount {
        self.join(Some(address), 0, try_box(NewestLives(self.clients.clone())).unwrap()).unwrap()
    }

    /// A node of a cluster that another runs the server of.
    pub fn try_client(&self) -> scoutfs_fs::Result<Mount> {
        self.try_client_with(&StdArc::default())
    }

    /// The same, with a way of its own to the device.
    pub fn try_client_with(&self, own: &StdArc<Own>) -> scoutfs_fs::Result<Mount> {
        let pid = self.clients.fetch_add(1, Ordering::Relaxed) + 1;
        self.join_with(None, pid, try_box(NoneDead).unwrap(), own)
    }

    fn join(
        &self,
        server_addr: Option<SocketAddr>,
        pid: u64,
        oracle: Box<dyn DeathOracle + Send + Sync>,
    ) -> scoutfs_fs::Result<Mount> {
        self.join_with(server_addr, pid, oracle, &StdArc::default())
    }

    fn join_with(
        &self,
        server_addr: Option<SocketAddr>,
        pid: u64,
        oracle: Box<dyn DeathOracle + Send + Sync>,
        own: &StdArc<Own>,
    ) -> scoutfs_fs::Result<Mount> {
        let (network, options, oracle) = Self::parts(server_addr, pid, oracle);
        Mount::open_in(self.device_of(own), network, &options, oracle)
    }

    fn parts(server_addr: Option<SocketAddr>, pid: u64, oracle: Box<dyn DeathOracle + Send + Sync>) -> Parts {
        let network: Box<dyn Network> = try_box(TcpNetwork::default()).unwrap();
        let process = ProcessId { pid: pid.into(), ..ProcessId::default() };
        let options = MountOptions { server_addr, process, ..Self::options() };
        (Arc::new(network).unwrap(), options, Arc::new(oracle).unwrap())
    }

    fn options() -> MountOptions {
        MountOptions {
            server_addr: Some("127.0.0.1:7001".parse().unwrap()),
            commit_interval: Duration::from_millis(500),
            idle_interval: Duration::from_millis(500),
            ..MountOptions::new(ProcessId::default())
        }
    }

    /// Voter slots that have an owner.
    pub fn owned_voter_slots(&self) -> usize {
        let device = self.device();
        let sb = scoutfs_server::super_block::read_super(&**device).unwrap();
        let (geometry, fsid) = (sb.geometry, sb.sb.id.fsid.get());
        let block = |voter| {
            let mut copies =
                [(); 2].map(|()| scoutfs_env::IoBuf::zeroed(scoutfs_format::SECTOR_SIZE).unwrap());
            for (copy, sector) in (0..).zip(&mut copies) {
                device.read(geometry.quorum_block_offset(voter, copy), sector).unwrap();
            }
            let copies = [Some(&copies[0][..]), Some(&copies[1][..])];
            VoterBlock::newest(copies, fsid, voter, geometry.nr_voters())
        };
        (0..geometry.nr_voters()).filter(|voter| block(*voter).is_ok_and(|block| block.owned)).count()
    }

    /// What the disk holds at this moment, as after a crash of everything.
    pub fn crash(&self) -> Volume {
        Volume::on(self.memory.snapshot())
    }

    /// Nothing of what is in the zones is there any more.
    pub fn lose_zones(&self) {
        let device = self.device();
        let geometry = Geometry::new(device.size_bytes(), 1).unwrap();
        let zeros = scoutfs_env::IoBuf::zeroed(1 << 20).unwrap();
        let (mut at, end) =
            (geometry.zones_offset(), geometry.zones_offset() + geometry.nr_zones() * geometry.zone_bytes());
        while at < end {
            let len = (end - at).min(1 << 20) as usize;
            device.write(at, &zeros[..len]).unwrap();
            at += len as u64;
        }
    }

    /// The volume must be sound. Tells what is in it.
    pub fn check(&self) -> Summary {
        let mut issues = std::vec::Vec::new();
        let summary = scoutfs_fs::check::check(
            &self.device(),
            &mut |issue| issues.push(issue.to_string()),
            &mut |_, _| (),
        )
        .unwrap();
        assert_eq!((issues, summary.issues, summary.changed), (vec![], 0, false));
        summary
    }
}

/// A regular file of the super user.
pub fn file() -> NewInode {
    NewInode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 }
}

/// A directory of the super user.
// As above.
#[allow(dead_code)]
pub fn dir() -> NewInode {
    NewInode { mode: 0o040_755, ..file() }
}

/// A file's name.
// As above.
#[allow(dead_code)]
pub fn name(i: usize) -> Vec<u8> {
    format!("file-{i:06}").into_bytes()
}
