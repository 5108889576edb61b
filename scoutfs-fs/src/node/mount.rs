// SPDX-License-Identifier: GPL-2.0-only
//! From a device to a working filesystem, and back.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, AtomicU64};
use core::time::Duration;

use scoutfs_btree::BlockCache;
use scoutfs_btree::ring::{RING_BYTES, RingOwner, RingWriter};
use scoutfs_btree::space::{MountSpace, SpaceKind};
use scoutfs_env::device::{BlockDevice, RetryDevice};
use scoutfs_env::net::Network;
use scoutfs_env::sync::Mutex;
use scoutfs_env::thread::JoinHandle;
use scoutfs_env::time::Mono;
use scoutfs_env::{Arc, Box, IoBuf, time, try_box};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{CommitNumber, JoinReply, JoinRequest, MSG_JOIN, MSG_SEQ, SeqReply, SeqRequest};
use scoutfs_format::voter::ProcessId;
use scoutfs_item::{ItemCache, Limits};
use scoutfs_net::connection::Secret;
use scoutfs_net::quorum::{Config, Timing};
use scoutfs_server::roots::read_roots;
use scoutfs_server::super_block::{read_super, read_super_with_take_overs};
use scoutfs_server::{DeathOracle, Leader, Server};
use zerocopy::{FromBytes, IntoBytes};

use super::cancel::Cancel;
use super::client::Client;
use super::counted::{CountedDevice, InFlight};
use super::flusher::start_flusher;
use super::lead::{Lead, Parts};
use super::leadership::Leadership;
use super::lease;
use super::link::Link;
use super::orphans::OrphanScan;
use super::port::Port;
use super::revoker::start_revoker;
use super::server_host::{Door, Oracle, ServerHost};
use super::session::Session;
use super::voter::{Rank, Ranks, VoterHost};
use super::worker::{self, Intervals, Worker};
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::table::InodeTable;
use crate::store::{
    DataWrites, FileLocks, Identity, KnownFences, LockTable, News, Numbers, OpenInodes, Reader, RootsCell,
    Slot, SpaceCell, Store, Trans, Tuning, Wish,
};

/// The times of the election. The lease outlasts a disk that is busy for some seconds; a claim is prompt on a disk
/// that is not.
const TIMING: Timing = Timing {
    lease_ms: 6000,
    margin_ms: 1000,
    patience_ms: 6000,
    dead_ms: 8000,
    prompt_ms: 250,
    settle_ms: 300,
    ..Timing::DEFAULT
};

/// How often, and in which intervals, unmounting waits for memory.
const LEAVE_ATTEMPTS: u32 = 200;
const LEAVE_PAUSE: Duration = Duration::from_millis(20);

/// Who unmounts without a lease waits so long for a server to confirm it: others need about that to elect one.
const SERVER_PATIENCE: Duration = Duration::from_secs(30);
/// Who has one makes all durable without a server, this long before it ends.
const LAST_COMMIT: Duration = Duration::from_secs(2);

/// How to mount.
#[derive(Clone, Copy, Debug)]
pub struct MountOptions {
    /// This node may be elected to run the server, at this address.
    pub server_addr: Option<SocketAddr>,
    /// Change nothing of the filesystem.
    pub read_only: bool,
    /// Access control lists are on: they are shown, set, obeyed and handed down. They stay true to the mode when they
    /// are off, too.
    pub acl: bool,
    /// Who mounts: a machine confirms the death of its own processes by this.
    pub process: ProcessId,
    /// An open transaction is committed after this long.
    pub commit_interval: Duration,
    /// The log is given to be merged when nothing changed for this long.
    pub idle_interval: Duration,
    /// Bytes of metadata blocks in memory.
    pub block_cache_bytes: usize,
    /// Bytes of items in memory.
    pub item_cache_bytes: usize,
    /// The times of the election. All mounts of a volume use the same; only tests use others than the default.
    pub timing: Timing,
}

impl MountOptions {
    /// Defaults for a process.
    pub fn new(process: ProcessId) -> Self {
        MountOptions {
            server_addr: None,
            read_only: false,
            acl: true,
            process,
            commit_interval: Duration::from_secs(5),
            idle_interval: Duration::from_secs(10),
            block_cache_bytes: 256 << 20,
            item_cache_bytes: 512 << 20,
            timing: TIMING,
        }
    }
}

/// A mounted volume. Dropping it without [`Mount::unmount`] is what a crash looks like to others.
pub struct Mount {
    fs: Arc<Fs>,
    store: Arc<Store>,
    /// What runs, until it is unmounted.
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    receiver: Option<JoinHandle>,
    lease: Option<JoinHandle>,
    worker: Option<JoinHandle>,
    revoker: Option<JoinHandle>,
    orphans: Option<OrphanScan>,
    flusher: Option<JoinHandle>,
    port: Option<Port>,
    server: Option<ServerHost>,
    lead: Option<Lead>,
    voter: Option<VoterHost>,
}

impl Mount {
    /// Mounts the volume on a device, alone: no other node can connect. See [`Mount::open_in`].
    ///
    /// Waits until this node leads; fails when it sees that another does.
    pub fn open(
        device: Arc<Box<dyn BlockDevice>>,
        options: &MountOptions,
        oracle: &dyn DeathOracle,
    ) -> Result<Mount> {
        let Some(address) = options.server_addr else {
            return Err(Error::NoServer);
        };
        let node = Node::new(device, options)?;
        let mut running = Running::default();
        let config = node.config(address, options);
        let voter = VoterHost::elect(&node.device, node.fsid, node.geometry, config, node.term, oracle)?;
        let Rank::Leads { slot, term } = voter.ranks().wait(|| true) else {
            return Err(Error::Shutdown("the lease as the leader ended at once"));
        };
        let base = node.base(options)?;
        // The super block as the last leader left it, now that there is no other.
        let read = read_super_with_take_overs(&**base.device);
        let (sb, take_overs) = read.map_err(|e| Error::from(scoutfs_server::ServerError::from(e)))?;
        let (device, cache) = (base.device.clone(), base.cache.clone());
        let leader = Leader { voter: slot, term, rid: node.rid };
        let server =
            Server::open(device, cache.clone(), (&sb, &take_overs), leader, oracle, time::mono_now())?;
        let ranks = voter.ranks();
        let server = ServerHost::start(server, cache, ranks.leadership(), node.counters.clone(), None)?;
        *node.door.lock() = Some(server.door());
        running.server = Some(server);
        running.voter = Some(voter);
        Self::finish(node, base, None, Some(ranks), None, running, options)
    }

    /// Mounts the volume on a device, as a node of a network.
    ///
    /// Waits until some node leads. One with a server address may be elected, now or later. Fails when the device has done
    /// nothing but fail for the dead time.
    pub fn open_in(
        device: Arc<Box<dyn BlockDevice>>,
        network: Arc<Box<dyn Network>>,
        options: &MountOptions,
        oracle: Arc<Box<dyn DeathOracle + Send + Sync>>,
    ) -> Result<Mount> {
        Self::open_until(device, network, options, oracle, &Cancel::new()?)
    }

    /// As [`Mount::open_in`], until it is cancelled: [`Error::Interrupted`].
    pub fn open_until(
        device: Arc<Box<dyn BlockDevice>>,
        network: Arc<Box<dyn Network>>,
        options: &MountOptions,
        oracle: Arc<Box<dyn DeathOracle + Send + Sync>>,
        cancel: &Cancel,
    ) -> Result<Mount> {
        cancel.finish(Self::open_node(device, network, options, oracle, cancel))
    }

    #[inline(never)]
    fn open_node(
        device: Arc<Box<dyn BlockDevice>>,
        network: Arc<Box<dyn Network>>,
        options: &MountOptions,
        oracle: Arc<Box<dyn DeathOracle + Send + Sync>>,
        cancel: &Cancel,
    ) -> Result<Mount> {
        let node = Node { cancel: Some(cancel.clone()), ..Node::new(device, options)? };
        let base = node.base(options)?;
        let mut running = Running::default();
        let mut ranks = None;
        if let Some(address) = options.server_addr {
            let config = node.config(address, options);
            let listener = network.listen(address).map_err(|why| Error::Network { address, why })?;
            running.port = Some(Port::open(listener, node.door.clone())?);
            let Node { fsid, rid, geometry, term, .. } = node;
            let voter = VoterHost::start(&node.device, fsid, geometry, config, term, oracle.clone())?;
            let parts = Parts {
                rid,
                device: base.device.clone(),
                cache: base.cache.clone(),
                counters: node.counters.clone(),
                oracle: oracle.clone(),
                door: node.door.clone(),
            };
            ranks = Some(voter.ranks());
            running.lead = Some(Lead::start(voter.ranks(), parts)?);
            running.voter = Some(voter);
        }
        Self::finish(node, base, Some(network), ranks, Some(oracle), running, options)
    }

    /// Joins whoever leads.
    #[inline(never)]
    fn finish(
        node: Node,
        base: Base,
        network: Option<Arc<Box<dyn Network>>>,
        ranks: Option<Arc<Ranks>>,
        oracle: Option<Oracle>,
        mut running: Running,
        options: &MountOptions,
    ) -> Result<Mount> {
        let Node { fsid, rid, geometry, secret, counters, door, requests, cancel, .. } = node;
        let alone = network.is_none();
        let client = Arc::new(Client::new(fsid, rid, secret, counters.clone()))?;
        if let Some(cancel) = &cancel {
            cancel.attach(&client);
        }
        let link = Link::new(base.device.clone(), fsid, geometry, network, door);
        let dead_time = Duration::from_millis(options.timing.dead_ms);
        let leadership = ranks.as_ref().map(|ranks| ranks.leadership());
        let (session, receiver) = Session::start(client.clone(), link, ranks, oracle, dead_time)?;
        let joined = Joined::ask(&base, geometry, fsid, rid, options, &client);
        let store = match joined
            .and_then(|joined| joined.store(base, geometry, client.clone(), counters, leadership, options))
        {
            Ok(store) => store,
            Err(e) => {
                client.close();
                receiver.join();
                if cancel.is_some_and(|cancel| cancel.is_cancelled()) {
                    running.leave_election();
                }
                return Err(session.gave_up().unwrap_or(e));
            }
        };
        session.attach(&store);
        running.receiver = Some(receiver);
        running.lease = Some(lease::start(&store, requests)?);
        if let Some(voter) = &running.voter {
            voter.on_lost(&store);
        }
        let fs = new_fs(&store, options)?;
        let mount = Mount { fs, store, running: Mutex::new(running) };
        let revoker = start_revoker(&mount.fs)?;
        mount.running.lock().revoker = Some(revoker);
        let worker = start(&mount.fs, options)?;
        mount.running.lock().worker = Some(worker);
        if options.read_only {
            return Ok(mount);
        }
        let flusher = start_flusher(&mount.fs)?;
        mount.running.lock().flusher = Some(flusher);
        if alone {
            mount.fs.scan_orphans()?;
        } else {
            let orphans = OrphanScan::start(&mount.fs)?;
            mount.running.lock().orphans = Some(orphans);
        }
        Ok(mount)
    }

    /// The filesystem.
    pub fn fs(&self) -> &Fs {
        &self.fs
    }

    /// What this node is in the election; none without a server address. Not while it is unmounted.
    pub fn rank(&self) -> Option<Rank> {
        self.running.lock().voter.as_ref().map(|voter| voter.ranks().now())
    }

    /// The mount will be left: from now on nobody waits long for a server, if there is none.
    pub fn begin_unmount(&self) {
        let left = self.store.lease_left();
        let patience = if left > LAST_COMMIT { left - LAST_COMMIT } else { SERVER_PATIENCE };
        self.store.client.give_up_at(time::mono_now().saturating_add(patience));
    }

    /// Makes everything durable and leaves the volume clean. Operations fail from then on. Does nothing the second time.
    ///
    /// # Errors
    ///
    /// Where there is no server, and none comes, all is made durable as long as the lease lasts. Then the mount is as one that
    /// died: what was synced is safe. In any case the next server takes back what the mount held.
    pub fn unmount(&self) -> Result<()> {
        let mut running = self.running.lock();
        if running.receiver.is_none() {
            return Ok(());
        }
        self.begin_unmount();
        if let Some(voter) = &running.voter {
            voter.begin_unmount();
        }
        running.stop_flusher(&self.fs);
        self.fs.drop_reservations();
        if let Some(orphans) = running.orphans.take() {
            orphans.stop();
        }
        // Nothing may be committed after the clean record.
        running.stop_worker(&self.store);
        let mut attempt = 1;
        let left = loop {
            match self.leave() {
                // Nobody is left who could sync again.
                Err(Error::NoMemory) if attempt < LEAVE_ATTEMPTS => {
                    attempt += 1;
                    time::sleep(LEAVE_PAUSE);
                }
                left => break left,
            }
        };
        running.stop_receiver(&self.store);
        if let Some(server) = running.server.take() {
            server.stop();
        }
        if let Some(lead) = running.lead.take() {
            lead.stop(true);
        }
        if let Some(voter) = running.voter.take() {
            voter.leave();
        }
        left
    }

    /// Can be called again when it failed for want of memory.
    fn leave(&self) -> Result<()> {
        let commit_nr = match self.store.left() {
            Some(commit_nr) => commit_nr,
            None => {
                // What it need not hear, it reads in the ring.
                if self.store.client.has_server() {
                    match self.store.tell_server() {
                        // It is gone since.
                        Ok(()) | Err(Error::Shutdown(_)) => {}
                        Err(e) => return Err(e),
                    }
                }
                self.store.commit(Wish { leave: true, ..Wish::default() })?
            }
        };
        self.store.trans.fail("the volume is unmounted");
        let message = CommitNumber {
            slot: U32::new(self.store.identity.slot),
            pad: U32::ZERO,
            epoch: U64::new(self.store.identity.epoch),
            commit_nr: U64::new(commit_nr),
        };
        self.store.client.leave(message.as_bytes())
    }
}

impl Running {
    /// A mount that is given up has no part in the election any more. One that leads is as one that died.
    fn leave_election(&mut self) {
        if let Some(lead) = self.lead.take() {
            lead.stop(false);
        }
        if let Some(voter) = self.voter.take()
            && voter.ranks().follows()
        {
            voter.leave();
        }
    }

    /// Writes what was gathered, or gives it up where the mount has failed.
    fn stop_flusher(&mut self, fs: &Fs) {
        if let Some(flusher) = self.flusher.take() {
            fs.stop_delaying();
            flusher.join();
        }
    }

    fn stop_worker(&mut self, store: &Store) {
        store.worker.stop();
        store.lock_table.stop();
        for thread in [self.worker.take(), self.revoker.take()].into_iter().flatten() {
            thread.join();
        }
    }

    fn stop_receiver(&mut self, store: &Store) {
        store.client.close();
        for thread in [self.receiver.take(), self.lease.take()].into_iter().flatten() {
            thread.join();
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mut running = core::mem::take(&mut *self.running.lock());
        if let Some(voter) = &running.voter {
            voter.abandon();
        }
        self.store.fail("the mount is gone");
        // The server writes no clean state for a mount that did not leave.
        if let Some(server) = running.server.take() {
            server.abandon();
        }
        if let Some(lead) = running.lead.take() {
            lead.stop(false);
        }
        // Nobody answers any more.
        self.store.client.close();
        running.stop_flusher(&self.fs);
        if let Some(orphans) = running.orphans.take() {
            orphans.stop();
        }
        running.stop_worker(&self.store);
        running.stop_receiver(&self.store);
    }
}

/// What a mount begins with.
struct Node {
    /// Whose requests are not repeated: a voter must not be late, and knows what a failed one means.
    device: Arc<Box<dyn BlockDevice>>,
    counters: Arc<Counters>,
    requests: Arc<InFlight>,
    rid: u64,
    fsid: u64,
    geometry: Geometry,
    secret: Secret,
    /// Of the super block.
    term: u64,
    /// Of this node's server, while it runs.
    door: Arc<Mutex<Option<Door>>>,
    cancel: Option<Cancel>,
}

/// What reads and writes the volume.
struct Base {
    device: Arc<Box<dyn BlockDevice>>,
    cache: Arc<BlockCache>,
}

impl Node {
    #[inline(never)]
    fn new(device: Arc<Box<dyn BlockDevice>>, options: &MountOptions) -> Result<Node> {
        if options.server_addr.is_some_and(|address| address.port() == 0) {
            return Err(Error::Invalid("the server address has no port"));
        }
        let counters = Arc::new(Counters::new())?;
        let requests = Arc::new(InFlight::default())?;
        let device: Box<dyn BlockDevice> =
            try_box(CountedDevice::new(device, counters.clone(), requests.clone()))?;
        let device = Arc::new(device)?;
        let first = read_super(&**device).map_err(|e| Error::from(scoutfs_server::ServerError::from(e)))?;
        Ok(Node {
            device,
            counters,
            requests,
            rid: scoutfs_env::random::u64().max(1),
            fsid: first.sb.id.fsid.get(),
            geometry: first.geometry,
            secret: Secret(first.sb.secret),
            term: first.sb.term.get(),
            door: Arc::new(Mutex::new(None))?,
            cancel: None,
        })
    }

    #[inline(never)]
    fn base(&self, options: &MountOptions) -> Result<Base> {
        let device: Box<dyn BlockDevice> = try_box(RetryDevice::new(self.device.clone()))?;
        let device = Arc::new(device)?;
        let capacity = (options.block_cache_bytes / scoutfs_format::BLOCK_SIZE).max(64);
        let cache = Arc::new(BlockCache::new(device.clone(), self.fsid, self.geometry, capacity)?)?;
        Ok(Base { device, cache })
    }

    fn config(&self, address: SocketAddr, options: &MountOptions) -> Config {
        Config {
            nr_voters: self.geometry.nr_voters(),
            rid: self.rid,
            address,
            process: options.process,
            seed: scoutfs_env::random::u64(),
            timing: options.timing,
        }
    }
}

/// What the server gave a mount that joins, and what it read then.
struct Joined {
    identity: Identity,
    log: Box<Slot>,
    commit_nr: u64,
    roots: RootsCell,
    tuning: Tuning,
    seq: u64,
    reply: JoinReply,
    /// When it asked.
    asked: Mono,
}

// Two steps, each of which leaves little on the stack when it ends: a kernel's has no room for both at once.
impl Joined {
    /// Joins the volume: gets a slot, and reads what is there.
    #[inline(never)]
    fn ask(
        base: &Base,
        geometry: Geometry,
        fsid: u64,
        rid: u64,
        options: &MountOptions,
        client: &Client,
    ) -> Result<Joined> {
        let bad_answer = |_| Error::Shutdown("an answer of the server has a wrong length");
        let request = JoinRequest {
            rid: U64::new(rid),
            process: options.process,
            read_only: U32::new(options.read_only.into()),
            pad: U32::ZERO,
        };
        let asked = time::mono_now();
        let reply = client.request(MSG_JOIN, request.as_bytes()).map_err(|e| match e {
            Error::NoSpace => Error::NoReserve,
            e => e,
        })?;
        let reply = JoinReply::read_from_bytes(&reply).map_err(|_| bad_answer(()))?;
        let closed = SeqRequest { closed_below: U64::ZERO };
        let seq = client.request(MSG_SEQ, closed.as_bytes())?;
        let seq = SeqReply::read_from_bytes(&seq).map_err(|_| bad_answer(()))?.seq.get();

        let slot = reply.slot.get();
        let identity = Identity {
            rid,
            slot,
            epoch: reply.epoch.get(),
            process: options.process,
            offset: geometry.slot_offset(slot),
        };
        let mut ring = IoBuf::zeroed(RING_BYTES)?;
        base.device.read(identity.offset, &mut ring)?;
        let owner = RingOwner {
            fsid,
            slot: u16::try_from(slot).map_err(|_| Error::Shutdown("the server gave an impossible slot"))?,
            epoch: identity.epoch,
        };
        let ring = RingWriter::open(&ring, owner)?;
        let commit_nr = ring.commit_nr();

        let roots = first_roots(base, &geometry, slot)?;
        let tuning = Tuning::for_volume(&geometry);
        let merged_through = reply.merged_through.get();
        let log = boxed(|| Slot::new(identity, ring, merged_through, seq, tuning.max_log_bytes))?;
        Ok(Joined { identity, log, commit_nr, roots, tuning, seq, reply, asked })
    }

    /// Makes what operations stand on.
    #[inline(never)]
    fn store(
        self,
        base: Base,
        geometry: Geometry,
        client: Arc<Client>,
        counters: Arc<Counters>,
        leadership: Option<Arc<Leadership>>,
        options: &MountOptions,
    ) -> Result<Arc<Store>> {
        let Joined { identity, log, commit_nr, roots, tuning, seq, reply, asked } = self;
        let space = new_space(geometry, &reply)?;
        let limits = Limits { page_bytes: 16 << 10, cache_bytes: options.item_cache_bytes };
        Ok(Arc::new(Store {
            reader: boxed(|| Ok(Reader::new(base.device, base.cache, geometry, identity.slot, roots)))?,
            items: boxed(|| Ok(ItemCache::new(limits)))?,
            trans: boxed(|| Ok(Trans::new(seq)))?,
            space,
            lock_table: boxed(|| Ok(LockTable::new()))?,
            file_locks: boxed(|| Ok(FileLocks::new()))?,
            opens: OpenInodes::new(),
            kernel_knows: AtomicBool::new(false),
            fences: KnownFences::default(),
            news: News::new(),
            client,
            worker: Worker::new(),
            checkpoint_need: AtomicU64::new(log.checkpoint_blocks(0)),
            unmerged_bytes: AtomicU64::new(0),
            owed: Default::default(),
            slot: Mutex::new(log),
            commit_waits: AtomicBool::new(false),
            identity,
            tuning,
            data_writes: DataWrites::default(),
            commit_nr: AtomicU64::new(commit_nr),
            numbers: shared_numbers(&reply, asked, leadership)?,
            inode_delta: Mutex::new(0),
            read_only: options.read_only,
            counters,
        })?)
    }
}

/// Makes a large value, in a frame of its own.
#[inline(never)]
fn boxed<T>(make: impl FnOnce() -> Result<T>) -> Result<Box<T>> {
    Ok(try_box(make()?)?)
}

/// The lease and what was fetched ahead, in a frame of its own.
#[inline(never)]
fn shared_numbers(
    reply: &JoinReply,
    asked: Mono,
    leadership: Option<Arc<Leadership>>,
) -> Result<Arc<Numbers>> {
    Ok(Arc::new(Numbers::new(reply.down_given.get(), reply.lease_ms.get(), asked, leadership))?)
}

/// What others have on the volume, in a frame of its own.
#[inline(never)]
fn first_roots(base: &Base, geometry: &Geometry, own_slot: u32) -> Result<RootsCell> {
    let roots = read_roots(&**base.device, &base.cache, geometry)?;
    RootsCell::new(roots.forest_without(Some(own_slot))?)
}

/// The space that a mount begins with, in a frame of its own.
#[inline(never)]
fn new_space(geometry: Geometry, reply: &JoinReply) -> Result<SpaceCell> {
    let mut space = MountSpace::new(geometry, reply.down_given.get(), reply.up_taken.get());
    space.set_reserve_blocks(reply.reserve_blocks.get());
    SpaceCell::new(space)
}

/// The filesystem over a store, in a frame of its own.
#[inline(never)]
fn new_fs(store: &Arc<Store>, options: &MountOptions) -> Result<Arc<Fs>> {
    Ok(Arc::new(Fs::new(store.clone(), InodeTable::new()?, options.acl))?)
}

/// The first record, the first space, what is told of space while there is no server, and the worker.
fn start(fs: &Arc<Fs>, options: &MountOptions) -> Result<JoinHandle> {
    let store = fs.store();
    store.commit(Wish { always: true, ..Wish::default() })?;
    if !options.read_only {
        store.take_reserve()?;
        store.request_space(SpaceKind::Data, 0)?;
        store.commit(Wish::default())?;
    }
    store.statfs()?;
    let intervals = Intervals { commit: options.commit_interval, idle: options.idle_interval };
    worker::start_worker(fs, intervals)
}
