// SPDX-License-Identifier: GPL-2.0-only
//! Runs the server of the elected node: one thread for all that may wait or goes by time, and one that runs pieces of merges.
//!
//! Mounts come as streams ([`Door`]), the mount of this very node too: it sends the bytes that others send over the network,
//! through a pipe. What can be handled in memory alone is handled by who received it (`desk`). The server's thread takes all other messages
//! that have arrived, handles them, commits once for all of them, and only then
//! sends the answers. It never waits for a mount. It acts only while this node's lease as the leader is valid: it looks before
//! it handles anything, and again after a commit, before anybody hears of it. When the lease had ended and goes on, nobody else
//! led: what was written counts, and the mounts, which could not renew their leases meanwhile, are given time.
//!
//! Both threads wait for memory, for as long as [`MEMORY_LIMIT`]: what a handler changes in memory must agree, and a server that stops
//! takes its mount with it. Meanwhile requests stay queued. They wait for nobody who might be the one to free memory, and the
//! voter's thread, which keeps the lease, needs none.
//!
//! Locking: the server's thread has the server locked for a round, and not while it waits for something to do. The merge thread gets
//! its jobs and gives its results through one mutex, a leaf.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use scoutfs_btree::BlockCache;
use scoutfs_env::net::{Stream, pipe};
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::thread::{self, JoinHandle};
use scoutfs_env::time::Mono;
use scoutfs_env::{Arc, Box, memory, time, try_box};
use scoutfs_net::connection::Secret;
use scoutfs_server::merge_job::{MergeJob, MergeResult};
use scoutfs_server::{DeathOracle, LeaderLease, LeaseState, Server};

use super::desk::{Desk, Engine};
use super::inbox::Input;
use super::leadership::{Acting, Leadership, Lease};
use super::peers::Peers;
use super::socket::{Identity, Socket};
use crate::counters::{Counter, Counters};
use crate::error::{Error, Result};

/// The longest that the thread sleeps with nothing to do.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// How long the server waits for memory before it stops.
pub(super) const MEMORY_LIMIT: Duration = Duration::from_secs(60);
/// When one round takes longer, mounts that wanted to renew their leases meanwhile are given time.
const LONG_ROUND: Duration = Duration::from_secs(2);

/// How often to look whether mounts are dead for certain: until then they have their leases, and what those who were fenced could
/// still write is left alone.
const DEATHS_CHECK: Duration = Duration::from_millis(500);

/// Tells who is dead for certain.
pub(super) type Oracle = Arc<Box<dyn DeathOracle + Send + Sync>>;

/// What the threads and the mount share.
struct Shared {
    desk: Arc<Desk>,
    identity: Identity,
    stop: AtomicBool,
    /// Write no clean state.
    abandon: AtomicBool,
    merge: Mutex<Merge>,
    merge_changed: Condvar,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Merge {
    job: Option<MergeJob>,
    result: Option<MergeResult>,
    stop: bool,
}

impl Shared {
    /// The merger ends with its piece.
    fn stop_merger(&self) {
        self.merge.lock().stop = true;
        self.merge_changed.notify_all();
    }
}

/// The running server of this node.
pub(crate) struct ServerHost {
    shared: Arc<Shared>,
    server: Option<JoinHandle>,
    merger: Option<JoinHandle>,
}

/// Where streams of mounts go.
#[derive(Clone)]
pub(super) struct Door(Arc<Shared>);

impl Door {
    /// A mount has opened this stream.
    pub fn accept(&self, stream: Box<dyn Stream>) -> Result<()> {
        Socket::start(stream, &self.0.desk, self.0.identity).map(drop)
    }

    /// Whether the server has ended.
    pub fn is_closed(&self) -> bool {
        self.0.desk.inbox.is_closed()
    }

    /// A stream to the server from within the process.
    pub fn connect(&self) -> Result<Box<dyn Stream>> {
        let (here, there) = pipe()?;
        let stream: Box<dyn Stream> = try_box(here)?;
        self.accept(try_box(there)?)?;
        Ok(stream)
    }
}

impl ServerHost {
    /// Starts the threads.
    pub fn start(
        mut server: Box<Server>,
        cache: Arc<BlockCache>,
        leadership: Arc<Leadership>,
        counters: Arc<Counters>,
        oracle: Option<Oracle>,
    ) -> Result<ServerHost> {
        let sb = server.super_block();
        let identity = Identity { fsid: sb.id.fsid.get(), term: server.term(), secret: Secret(sb.secret) };
        let shared = Arc::new(Shared {
            desk: Arc::new(Desk::new())?,
            identity,
            stop: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            merge: Mutex::new(Merge::default()),
            merge_changed: Condvar::new(),
            counters,
        })?;
        let spawn_failed = |_| Error::NoMemory;
        let held: Box<dyn LeaderLease + Send> =
            try_box(HeldLease { shared: shared.clone(), leadership: leadership.clone() })?;
        server.set_lease(held);
        let for_server = shared.clone();
        let (server_acts, merger_acts) = (Acting::new(&leadership), Acting::new(&leadership));
        let server = thread::spawn("scoutfs-server", move || {
            let oracle = oracle.as_ref();
            let stopped = memory::patiently(MEMORY_LIMIT, || run(server, &for_server, &leadership, oracle));
            let engine = for_server.desk.close();
            for_server.stop_merger();
            if !stopped {
                leadership.lose();
            }
            drop(server_acts);
            if let Some(Engine { mut peers, .. }) = engine {
                peers.finish();
            }
        })
        .map_err(spawn_failed)?;
        let for_merger = shared.clone();
        let merger = thread::spawn("scoutfs-merge", move || {
            memory::patiently(MEMORY_LIMIT, || merge(&for_merger, &cache));
            drop(merger_acts);
        })
        .map_err(spawn_failed)?;
        Ok(ServerHost { shared, server: Some(server), merger: Some(merger) })
    }

    /// Where streams of mounts go.
    pub fn door(&self) -> Door {
        Door(self.shared.clone())
    }

    /// Ends the server: it writes its clean state, unless it has failed.
    pub fn stop(mut self) {
        self.stop_threads();
    }

    /// Ends the server as it is, as a crash would.
    pub fn abandon(self) {
        self.shared.abandon.store(true, Ordering::Release);
    }

    fn stop_threads(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.desk.inbox.wake();
        if let Some(server) = self.server.take() {
            server.join();
        }
        self.shared.stop_merger();
        if let Some(merger) = self.merger.take() {
            merger.join();
        }
    }
}

impl Drop for ServerHost {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

/// False when it ends otherwise than by being stopped: leadership is lost, or the server has failed. Nothing is answered then: mounts ask
/// the next server again, which goes on with what is durable.
fn run(
    mut server: Box<Server>,
    shared: &Shared,
    leadership: &Arc<Leadership>,
    oracle: Option<&Oracle>,
) -> bool {
    // What a take-over has changed is committed before anything else, with a look at the lease before and after: the first
    // super block has named the blocks that it writes, if it was in time.
    if !may_act(&mut server, shared, leadership) {
        return false;
    }
    if let Err(e) = server.commit() {
        scoutfs_env::error!("server: the first commit failed: {e}");
        return false;
    }
    // No mount could renew its lease before now.
    let now = time::mono_now();
    server.resumed(now);
    let peers = Peers::new(shared.identity.fsid, shared.identity.term);
    shared.desk.open(server, peers, leadership.clone());
    let mut rounds = Rounds { is_out: false, deaths_due: now.saturating_add(DEATHS_CHECK), began: now };
    let mut wait = Duration::ZERO;
    loop {
        shared.desk.inbox.wait(wait);
        let mut engine = shared.desk.lock();
        let Some(engine) = &mut *engine else { return false };
        let stopping = shared.stop.load(Ordering::Acquire);
        if !rounds.round(engine, shared, leadership, oracle, wait, stopping) {
            return false;
        }
        if stopping {
            rounds.end(&mut engine.server, shared);
            return true;
        }
        let now = time::mono_now();
        rounds.began = now;
        wait = engine.server.next_wakeup(now).saturating_duration_since(now).min(LONGEST_WAIT);
    }
}

/// What the server's thread remembers from round to round.
struct Rounds {
    /// Whether the merger has a piece.
    is_out: bool,
    deaths_due: Mono,
    /// When the one before ended, and the wait for this one began.
    began: Mono,
}

impl Rounds {
    /// Handles what has come and does what time asks for. False when the server cannot go on.
    #[inline(never)]
    fn round(
        &mut self,
        engine: &mut Engine,
        shared: &Shared,
        leadership: &Leadership,
        oracle: Option<&Oracle>,
        waited: Duration,
        stopping: bool,
    ) -> bool {
        let inputs = shared.desk.inbox.take();
        if !may_act(&mut engine.server, shared, leadership) {
            inputs.iter().for_each(Input::is_lost);
            return false;
        }
        for input in &inputs {
            if matches!(input, Input::Closed { .. }) {
                self.deaths_due = Mono::ZERO;
            }
            engine.handle(input);
        }
        drop(inputs);
        let Engine { server, peers, .. } = engine;
        peers.forget_strangers(|rid| server.is_member(rid));
        if let Some(result) = shared.merge.lock().result.take() {
            self.is_out = false;
            server.job_done(time::mono_now(), result);
        }
        let then = time::mono_now();
        if then.saturating_duration_since(self.began) >= waited + LONG_ROUND {
            server.resumed(then);
        }
        server.set_beating(&leadership.beating());
        server.tick(then);
        if let Some(oracle) = oracle
            && then >= self.deaths_due
        {
            server.recheck_deaths(&***oracle);
            server.ask_about_deaths(then, |rid| peers.is_connected(rid));
            self.deaths_due = then.saturating_add(DEATHS_CHECK);
        }
        if server.dirty()
            && let Err(e) = server.commit()
        {
            scoutfs_env::error!("server: a commit failed: {e}");
        }
        if server.failed().is_some() {
            scoutfs_env::error!("the server of this node has failed: another is to lead");
            return false;
        }
        if !may_act(server, shared, leadership) {
            return false;
        }
        let mut merge = shared.merge.lock();
        if merge.job.is_none()
            && merge.result.is_none()
            && !stopping
            && let Some(job) = server.poll_job()
        {
            merge.job = Some(job);
            self.is_out = true;
            shared.merge_changed.notify_all();
        }
        drop(merge);
        engine.send();
        !engine.is_mute
    }

    /// The server was stopped. Mounts that go on do so with another, which finds what is durable.
    fn end(&self, server: &mut Server, shared: &Shared) {
        if server.failed().is_some() || shared.abandon.load(Ordering::Acquire) || server.has_members() {
            return;
        }
        // The merger writes until its piece is done; only then is nothing in flight, as the clean state says.
        let mut merge = shared.merge.lock();
        while self.is_out && merge.result.is_none() {
            merge = shared.merge_changed.wait(merge);
        }
        let result = merge.result.take();
        drop(merge);
        if let Some(result) = result {
            server.job_done(time::mono_now(), result);
        }
        if let Err(e) = server.stop_clean() {
            scoutfs_env::error!("server: writing the clean state: {e}");
        }
    }
}

/// The lease, for the server's own commits.
struct HeldLease {
    shared: Arc<Shared>,
    leadership: Arc<Leadership>,
}

impl LeaderLease for HeldLease {
    fn confirm(&self) -> LeaseState {
        match self.leadership.wait(|| self.shared.abandon.load(Ordering::Acquire)) {
            Lease::Valid => LeaseState::Valid,
            Lease::Resumed => {
                scoutfs_env::warn!(
                    "the leader's lease had ended in a commit; nobody else led meanwhile, and it goes on"
                );
                LeaseState::Resumed(time::mono_now())
            }
            Lease::Over => LeaseState::Over,
        }
    }
}

/// Waits until the lease as the leader is valid. False when there will be none.
fn may_act(server: &mut Server, shared: &Shared, leadership: &Leadership) -> bool {
    match leadership.wait(|| shared.abandon.load(Ordering::Acquire)) {
        Lease::Valid => true,
        Lease::Resumed => {
            scoutfs_env::warn!("the leader's lease had ended; nobody else led meanwhile, and it goes on");
            server.resumed(time::mono_now());
            true
        }
        Lease::Over => false,
    }
}

fn merge(shared: &Shared, cache: &BlockCache) {
    let mut merge = shared.merge.lock();
    loop {
        if merge.stop {
            return;
        }
        let Some(job) = merge.job.take() else {
            merge = shared.merge_changed.wait(merge);
            continue;
        };
        drop(merge);
        let result = job.run(cache);
        shared.counters.inc(Counter::MergePiece);
        merge = shared.merge.lock();
        merge.result = Some(result);
        shared.merge_changed.notify_all();
        shared.desk.inbox.wake();
    }
}
