// SPDX-License-Identifier: GPL-2.0-only
//! This node's voter slot: the election's machine, its IO and its thread.
//!
//! The thread does nothing but the machine's reads and writes, with buffers that it got at the start: it never
//! waits for memory or for other IO.
//!
//! Locking: the store that is told of the end of leadership is behind a mutex of its own, a leaf, as are the rank and a dead device; the server learns of the lease
//! through [`Leadership`].

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use scoutfs_env::device::{BlockDevice, IoError};
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::thread::{self, JoinHandle};
use scoutfs_env::time::{self, Mono};
use scoutfs_env::{Arc, Box, IoBuf, Vec, try_box};
use scoutfs_format::SECTOR_SIZE;
use scoutfs_format::geometry::Geometry;
use scoutfs_format::voter::ProcessId;
use scoutfs_net::quorum::{Config, ConfigError, Output, Voter, VoterBlock};
use scoutfs_server::DeathOracle;

use super::leadership::Leadership;
use super::rivals::Rivals;
use crate::error::{Error, Result};
use crate::store::Store;

/// The thread looks whether to leave at least this often.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// What a node with a server address is in the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Another node leads, or nobody yet.
    Follower,
    /// This one leads.
    Leads {
        /// Its voter slot.
        slot: u32,
        /// The term.
        term: u64,
    },
    /// It did.
    Lost,
}

/// What the voter tells the node, and the node the voter.
pub(crate) struct Ranks {
    rank: Mutex<Rank>,
    changed: Condvar,
    leadership: Arc<Leadership>,
    /// The term of the server that the mount is connected to; 0 none.
    connected: AtomicU64,
    /// The device does nothing but fail.
    dead_device: Mutex<Option<IoError>>,
}

impl Ranks {
    fn new(rank: Rank, lease_until: Mono) -> Result<Self> {
        Ok(Ranks {
            rank: Mutex::new(rank),
            changed: Condvar::new(),
            leadership: Arc::new(Leadership::new(lease_until))?,
            connected: AtomicU64::new(0),
            dead_device: Mutex::new(None),
        })
    }

    fn set(&self, rank: Rank) {
        *self.rank.lock() = rank;
        self.changed.notify_all();
    }

    /// What the node is now.
    pub fn now(&self) -> Rank {
        *self.rank.lock()
    }

    /// Whether the node neither leads nor has led.
    pub fn follows(&self) -> bool {
        self.now() == Rank::Follower
    }

    /// Waits until the node is no follower any more, or `give_up` says so.
    pub fn wait(&self, give_up: impl Fn() -> bool) -> Rank {
        let mut rank = self.rank.lock();
        while *rank == Rank::Follower && !give_up() {
            rank = self.changed.wait(rank);
        }
        *rank
    }

    /// Has who waits look whether to give up.
    pub fn wake(&self) {
        drop(self.rank.lock());
        self.changed.notify_all();
    }

    /// Whether this node may act as the leader.
    pub fn leadership(&self) -> Arc<Leadership> {
        self.leadership.clone()
    }

    /// Whether the device has done nothing but fail for the dead time.
    pub fn dead_device(&self) -> Option<IoError> {
        *self.dead_device.lock()
    }

    /// The mount is connected to the server of this term; 0 to none.
    pub fn set_connected(&self, term: u64) {
        self.connected.store(term, Ordering::Release);
    }
}

/// This node's voter slot, owned until [`VoterHost::leave`].
pub(crate) struct VoterHost {
    shared: Arc<Shared>,
    thread: Option<JoinHandle>,
}

struct Shared {
    leave: AtomicBool,
    abandon: AtomicBool,
    unmounts: AtomicBool,
    ranks: Arc<Ranks>,
    store: Mutex<Option<Arc<Store>>>,
}

impl Shared {
    fn new(rank: Rank, lease_until: Mono) -> Result<Arc<Self>> {
        Ok(Arc::new(Shared {
            leave: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            unmounts: AtomicBool::new(false),
            ranks: Arc::new(Ranks::new(rank, lease_until)?)?,
            store: Mutex::new(None),
        })?)
    }

    /// Whether the mount has failed, other than by being unmounted.
    fn mount_has_failed(&self) -> bool {
        let failed = self.store.lock().as_ref().is_some_and(|store| store.trans.check().is_err());
        failed && !self.unmounts.load(Ordering::Acquire)
    }

    /// Whether programs may still get answers that this node's kernel kept under the lease of a leader.
    fn kernel_answers(&self) -> bool {
        let lease_end = self.ranks.leadership.lease_end();
        let knows = |store: &Arc<Store>| store.kernel_knows.load(Ordering::Acquire);
        lease_end < Mono::MAX
            && time::mono_now() < lease_end
            && !self.unmounts.load(Ordering::Acquire)
            && self.store.lock().as_ref().is_some_and(|store| !knows(store))
    }

    /// Looks whether the slot is to be left although nobody unmounts: the mount has failed or can lead no more, and nothing is written
    /// as the leader any more, nor answered. The next leader may begin at once then.
    fn gives_up(&self) -> bool {
        let leadership = &self.ranks.leadership;
        if self.mount_has_failed() && !leadership.is_lost() {
            scoutfs_env::info!("the mount has failed: its voter slot is left to others");
            leadership.lose();
            self.ranks.set(Rank::Lost);
        }
        if !leadership.is_lost() {
            return false;
        }
        if *self.ranks.rank.lock() != Rank::Lost {
            self.lost();
        }
        // What is dropped is to look like a crash.
        !leadership.is_acting() && !self.abandon.load(Ordering::Acquire) && !self.kernel_answers()
    }

    fn lost(&self) {
        self.ranks.leadership.lose();
        self.ranks.set(Rank::Lost);
        scoutfs_env::error!("this node is no longer the leader: the mount shuts down");
        if let Some(store) = &*self.store.lock() {
            store.fail("this node is no longer the leader");
        }
    }
}

/// The machine and its IO.
struct Runner {
    machine: Voter,
    device: Arc<Box<dyn BlockDevice>>,
    fsid: u64,
    geometry: Geometry,
    /// Both copies of all voters.
    sectors: IoBuf,
    sector: IoBuf,
    blocks: Vec<Option<VoterBlock>>,
    /// Voters of which nothing could be read the last time: a bit each.
    unreadable: u32,
    reads: Failures,
    writes: Failures,
}

/// Since when requests of a kind have done nothing but fail, and with what.
///
/// That is no silence of others: no slot is taken because of it.
#[derive(Clone, Copy, Default)]
pub(super) struct Failures(Option<(Mono, IoError)>);

impl Failures {
    /// One has ended.
    pub fn note(&mut self, now: Mono, result: core::result::Result<(), IoError>) {
        match result {
            Ok(()) => self.0 = None,
            Err(e) => drop(self.0.get_or_insert((now, e))),
        }
    }

    /// The first failure, when there was no success in the time after it.
    pub fn for_longer_than(&self, time: Duration, now: Mono) -> Option<IoError> {
        self.0.filter(|(since, _)| now.saturating_duration_since(*since) > time).map(|(_, e)| e)
    }
}

impl Runner {
    #[inline(never)]
    fn new(
        device: &Arc<Box<dyn BlockDevice>>,
        fsid: u64,
        geometry: Geometry,
        config: Config,
        super_term: u64,
    ) -> Result<Box<Runner>> {
        let mut machine = Voter::new(config).map_err(|e| match e {
            ConfigError::NoMemory(_) => Error::NoMemory,
            ConfigError::Timing(_) => Error::Invalid("times of an election that do not go together"),
            ConfigError::Voters { .. } => Error::Invalid("a number of voters that no volume has"),
        })?;
        machine.raise_term(super_term);
        let nr_voters = geometry.nr_voters() as usize;
        let mut blocks = Vec::new();
        blocks.resize(nr_voters, None)?;
        let runner = try_box(Runner {
            machine,
            device: device.clone(),
            fsid,
            geometry,
            sectors: IoBuf::zeroed(nr_voters * 2 * SECTOR_SIZE)?,
            sector: IoBuf::zeroed(SECTOR_SIZE)?,
            blocks,
            unreadable: 0,
            reads: Failures::default(),
            writes: Failures::default(),
        })?;
        Ok(runner)
    }

    /// Does one piece of work that the machine wants, or sleeps. Gives what the node must know.
    fn step(&mut self) -> Option<Output> {
        match self.machine.poll_output() {
            Some(Output::ReadAll) => self.read(),
            Some(Output::Write(block)) => self.write(&block),
            Some(other) => return Some(other),
            None => {
                let now = time::mono_now();
                let due = self.machine.next_wakeup().unwrap_or(Mono::MAX);
                let sleep = due.saturating_duration_since(now).min(LONGEST_SLEEP);
                if !sleep.is_zero() {
                    time::sleep(sleep);
                }
                self.machine.handle_timeout(time::mono_now());
            }
        }
        None
    }

    fn read(&mut self) {
        let nr_voters = self.geometry.nr_voters();
        let mut readable = 0;
        let mut failed = Ok(());
        for voter in 0..nr_voters {
            let mut copies = [false; 2];
            for copy in 0..2u32 {
                let at = (voter * 2 + copy) as usize * SECTOR_SIZE;
                let offset = self.geometry.quorum_block_offset(voter, copy);
                let read = self.device.read(offset, &mut self.sectors[at..at + SECTOR_SIZE]);
                copies[copy as usize] = read.is_ok();
                failed = failed.and(read);
            }
            let sector = |copy: usize| {
                let at = (voter as usize * 2 + copy) * SECTOR_SIZE;
                copies[copy].then(|| &self.sectors[at..at + SECTOR_SIZE])
            };
            let newest = VoterBlock::newest([sector(0), sector(1)], self.fsid, voter, nr_voters);
            let bit = 1 << voter;
            match &newest {
                Ok(_) => self.unreadable &= !bit,
                Err(e) if self.unreadable & bit == 0 => {
                    self.unreadable |= bit;
                    scoutfs_env::warn!("voter slot {voter}: {e}");
                }
                Err(_) => {}
            }
            readable += u32::from(copies[0] || copies[1]);
            if let Some(block) = self.blocks.get_mut(voter as usize) {
                *block = newest.ok();
            }
        }
        let now = time::mono_now();
        if readable == 0 {
            self.reads.note(now, failed);
            self.machine.handle_io_error(now);
        } else {
            self.reads.note(now, Ok(()));
            self.machine.handle_blocks(now, &self.blocks);
        }
    }

    fn write(&mut self, block: &VoterBlock) {
        let offset = self.geometry.quorum_block_offset(block.voter, (block.write_nr & 1) as u32);
        if let Err(e) = block.encode(self.fsid, &mut self.sector) {
            scoutfs_env::error!("voter slot {}: {e}", block.voter);
            self.machine.handle_io_error(time::mono_now());
            return;
        }
        let written = self.device.flush_and_write_durable(offset, &self.sector);
        let now = time::mono_now();
        self.writes.note(now, written);
        match written {
            Ok(()) => self.machine.handle_written(now),
            Err(e) => {
                scoutfs_env::warn!("voter slot {}: {e}", block.voter);
                self.machine.handle_io_error(now);
            }
        }
    }

    /// Whether the device does nothing but fail, since longer than an owner of a slot takes to be dead.
    fn dead_device(&self, now: Mono) -> Option<IoError> {
        let dead = self.machine.dead_time();
        self.reads.for_longer_than(dead, now).or_else(|| self.writes.for_longer_than(dead, now))
    }

    /// Leaves the slot, if there is one. On a device that does nothing but fail it is left as by a crash.
    fn leave(&mut self) {
        self.machine.leave(time::mono_now());
        while !matches!(self.step(), Some(Output::Left)) && self.dead_device(time::mono_now()).is_none() {}
    }

    /// Tells the machine which owners of slots are dead for certain.
    fn confirm_deaths(&mut self, oracle: &dyn DeathOracle) {
        let mut dead: [Option<ProcessId>; 4] = [None; 4];
        let owners = self.machine.slots().filter(|s| !s.confirmed_dead).filter_map(|s| s.block);
        let owners = owners.filter(|b| b.owned && oracle.is_dead(&b.process)).map(|b| b.process);
        for (place, process) in dead.iter_mut().zip(owners) {
            *place = Some(process);
        }
        for process in dead.iter().flatten() {
            self.machine.set_confirmed_dead(time::mono_now(), process);
        }
    }
}

impl VoterHost {
    /// Claims a voter slot and waits until this node leads. Says in the log what it waits for. Fails when the device has done
    /// nothing but fail for the dead time.
    #[inline(never)]
    pub fn elect(
        device: &Arc<Box<dyn BlockDevice>>,
        fsid: u64,
        geometry: Geometry,
        config: Config,
        super_term: u64,
        oracle: &dyn DeathOracle,
    ) -> Result<VoterHost> {
        let rid = config.rid;
        let patience = Duration::from_millis(config.timing.lease_ms);
        let nr_voters = geometry.nr_voters() as usize;
        let mut runner = Runner::new(device, fsid, geometry, config, super_term)?;
        let mut rivals = Rivals::new(rid, nr_voters, time::mono_now())?;
        let mut slot = None;
        let term = loop {
            match runner.step() {
                Some(Output::BecameLeader { term }) => break term,
                Some(Output::SlotOwned { voter }) => slot = Some(voter),
                Some(Output::SlotLost { voter }) => {
                    scoutfs_env::warn!("voter slot {voter} was lost to another mount");
                    slot = None;
                }
                Some(Output::Standby) => {
                    scoutfs_env::info!("all voter slots have owners: waiting for one to become free");
                }
                _ => {}
            }
            let now = time::mono_now();
            if let Some(e) = runner.dead_device(now) {
                return Err(Error::Election(e));
            }
            runner.confirm_deaths(oracle);
            // Of a device that fails nothing is known.
            if runner.reads.0.is_some() {
                continue;
            }
            if let Err(e) = rivals.look(now, slot.is_some(), &runner.machine) {
                runner.leave();
                return Err(e);
            }
        };
        let slot = slot.ok_or(Error::Shutdown("elected without a voter slot"))?;
        let lease_until = runner.machine.lease_until().unwrap_or(Mono::ZERO);
        let shared = Shared::new(Rank::Leads { slot, term }, lease_until)?;
        let for_thread = shared.clone();
        let thread = thread::spawn("scoutfs-voter", move || beat(runner, &for_thread, patience, None))
            .map_err(|_| Error::NoMemory)?;
        Ok(VoterHost { shared, thread: Some(thread) })
    }

    /// Claims a voter slot, votes and stands from now on, in a thread of its own. [`VoterHost::ranks`] tells what comes of it.
    #[inline(never)]
    pub fn start(
        device: &Arc<Box<dyn BlockDevice>>,
        fsid: u64,
        geometry: Geometry,
        config: Config,
        super_term: u64,
        oracle: Arc<Box<dyn DeathOracle + Send + Sync>>,
    ) -> Result<VoterHost> {
        // A leader that leaves votes until another leads, for two dead times at most.
        let timing = &config.timing;
        let patience = Duration::from_millis(timing.lease_ms.saturating_add(2 * timing.dead_ms));
        let runner = Runner::new(device, fsid, geometry, config, super_term)?;
        let shared = Shared::new(Rank::Follower, Mono::ZERO)?;
        let for_thread = shared.clone();
        let thread =
            thread::spawn("scoutfs-voter", move || beat(runner, &for_thread, patience, Some(&**oracle)))
                .map_err(|_| Error::NoMemory)?;
        Ok(VoterHost { shared, thread: Some(thread) })
    }

    /// What comes of the election.
    pub fn ranks(&self) -> Arc<Ranks> {
        self.shared.ranks.clone()
    }

    /// The mount shuts down when leadership ends.
    pub fn on_lost(&self, store: &Arc<Store>) {
        *self.shared.store.lock() = Some(store.clone());
        if self.shared.ranks.leadership.is_lost() {
            store.fail("this node is no longer the leader");
        }
    }

    /// The mount ends: from now on that is no failure.
    pub fn begin_unmount(&self) {
        self.shared.unmounts.store(true, Ordering::Release);
    }

    /// The mount is dropped: the slot is left as by a crash.
    pub fn abandon(&self) {
        self.shared.abandon.store(true, Ordering::Release);
    }

    /// Leaves the slot cleanly.
    pub fn leave(mut self) {
        self.shared.leave.store(true, Ordering::Release);
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

impl Drop for VoterHost {
    fn drop(&mut self) {
        self.abandon();
        self.join();
    }
}

/// Beats until the slot is left. On a disk that takes no writes any more it is given up after `patience`: a crash would
/// look the same. `oracle` tells whose death is certain.
///
/// The slot of a mount that has failed is left as well, so that somebody else can have it, and lead: when nothing is written as the
/// leader any more, and after it has voted for another leader if it was one.
fn beat(mut runner: Box<Runner>, shared: &Shared, patience: Duration, oracle: Option<&dyn DeathOracle>) {
    let ranks = &shared.ranks;
    let mut left_by = None;
    let mut slot = None;
    while !shared.abandon.load(Ordering::Acquire) || left_by.is_some() {
        let leaves = shared.leave.load(Ordering::Acquire) || shared.gives_up();
        if left_by.is_none() && leaves {
            let now = time::mono_now();
            left_by = Some(now.saturating_add(patience));
            runner.machine.leave(now);
        }
        let leaving = left_by.is_some();
        if left_by.is_some_and(|by| time::mono_now() >= by) {
            scoutfs_env::warn!("the voter slot could not be left cleanly");
            return;
        }
        runner.machine.set_connected(ranks.connected.load(Ordering::Acquire));
        match runner.step() {
            Some(Output::Left) => return,
            Some(Output::SlotOwned { voter }) => slot = Some(voter),
            Some(Output::BecameLeader { term }) if !leaving => {
                if let Some(until) = runner.machine.lease_until() {
                    ranks.leadership.set_lease(until);
                }
                if let Some(slot) = slot {
                    ranks.set(Rank::Leads { slot, term });
                }
            }
            Some(Output::LostLeadership { .. }) if !leaving => shared.lost(),
            Some(Output::SlotLost { voter }) if !leaving => {
                slot = None;
                if *ranks.rank.lock() == Rank::Follower {
                    scoutfs_env::warn!("voter slot {voter} was lost to another mount");
                } else {
                    shared.lost();
                }
            }
            Some(Output::Standby) => {
                scoutfs_env::info!("all voter slots have owners: this node stands by");
            }
            _ => {}
        }
        if let Some(beating) = runner.machine.beating() {
            ranks.leadership.set_beating(&beating);
        }
        *ranks.dead_device.lock() = runner.dead_device(time::mono_now());
        if let Some(until) = runner.machine.lease_until() {
            ranks.leadership.set_lease(until);
        } else if let Some(oracle) = oracle {
            runner.confirm_deaths(oracle);
        }
    }
}
