// SPDX-License-Identifier: GPL-2.0-only
//! Runs the server of the elected node: one thread that owns it, and one that runs pieces of merges for it.
//!
//! Mounts come as streams ([`Door`]), the mount of this very node too: it sends the bytes that others send over the network,
//! through a pipe. The server's thread takes all messages that have arrived, handles them, commits once for all of them, and only then
//! sends the answers. It never waits for a mount. It acts only while this node's lease as the leader is valid: it looks before
//! it handles anything, and again after a commit, before anybody hears of it. When the lease had ended and goes on, nobody else
//! led: what was written counts, and the mounts, which could not renew their leases meanwhile, are given time.
//!
//! Both threads wait for memory, for as long as [`MEMORY_LIMIT`]: what a handler changes in memory must agree, and a server that stops
//! takes its mount with it. Meanwhile requests stay queued. They wait for nobody who might be the one to free memory, and the
//! voter's thread, which keeps the lease, needs none.
//!
//! Locking: the merge thread gets its jobs and gives its results through one mutex, a leaf.

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

use super::leadership::{Acting, Leadership, Lease};
use super::peers::Peers;
use super::socket::{Identity, Inbox, Input, Socket};
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
    inbox: Arc<Inbox>,
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
        Socket::start(stream, &self.0.inbox, self.0.identity).map(drop)
    }

    /// Whether the server has ended.
    pub fn is_closed(&self) -> bool {
        self.0.inbox.is_closed()
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
            inbox: Arc::new(Inbox::new())?,
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
            let mut peers = Peers::new(for_server.identity.fsid, for_server.identity.term);
            let oracle = oracle.as_ref();
            let stopped = memory::patiently(MEMORY_LIMIT, || {
                serve(&mut server, &mut peers, &for_server, &leadership, oracle)
            });
            for_server.inbox.close();
            for_server.stop_merger();
            if !stopped {
                leadership.lose();
            }
            drop(server_acts);
            peers.finish();
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
        self.shared.inbox.wake();
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
fn serve(
    server: &mut Server,
    peers: &mut Peers,
    shared: &Shared,
    leadership: &Leadership,
    oracle: Option<&Oracle>,
) -> bool {
    // Whether the merger has a piece.
    let mut is_out = false;
    let mut deaths_due = time::mono_now().saturating_add(DEATHS_CHECK);
    // What a take-over has changed is committed before anything else, with a look at the lease before and after: the first
    // super block has named the blocks that it writes, if it was in time.
    if !may_act(server, shared, leadership) {
        return false;
    }
    if let Err(e) = server.commit() {
        scoutfs_env::error!("server: the first commit failed: {e}");
        return false;
    }
    // No mount could renew its lease before now.
    server.resumed(time::mono_now());
    loop {
        let stopping = shared.stop.load(Ordering::Acquire);
        let now = time::mono_now();
        let wait = if stopping {
            Duration::ZERO
        } else {
            server.next_wakeup(now).saturating_duration_since(now).min(LONGEST_WAIT)
        };
        let inputs = shared.inbox.take(wait);
        if !may_act(server, shared, leadership) {
            inputs.iter().for_each(Input::is_lost);
            return false;
        }
        for input in &inputs {
            if matches!(input, Input::Closed { .. }) {
                deaths_due = Mono::ZERO;
            }
            if let Some(incoming) = peers.handle(input)
                && let Input::Message { payload, .. } = input
            {
                server.handle(time::mono_now(), incoming.rid, &incoming.header, payload);
            }
        }
        drop(inputs);
        peers.forget_strangers(|rid| server.is_member(rid));
        if let Some(result) = shared.merge.lock().result.take() {
            is_out = false;
            server.job_done(time::mono_now(), result);
        }
        let then = time::mono_now();
        if then.saturating_duration_since(now) >= wait + LONG_ROUND {
            server.resumed(then);
        }
        server.tick(then);
        if let Some(oracle) = oracle
            && then >= deaths_due
        {
            server.recheck_deaths(&***oracle);
            server.ask_about_deaths(then, |rid| peers.is_connected(rid));
            deaths_due = then.saturating_add(DEATHS_CHECK);
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
            is_out = true;
            shared.merge_changed.notify_all();
        }
        drop(merge);
        let mut sent = Ok(());
        while let Some(message) = server.poll_message() {
            sent = sent.and_then(|()| peers.send(message));
        }
        if let Err(e) = sent.and_then(|()| peers.transmit()) {
            scoutfs_env::error!("server: a message cannot be sent: {e}");
            return false;
        }
        if stopping {
            break;
        }
    }
    // Mounts that go on do so with another server, which finds what is durable.
    if server.failed().is_none() && !shared.abandon.load(Ordering::Acquire) && !server.has_members() {
        // The merger writes until its piece is done; only then is nothing in flight, as the clean state says.
        let mut merge = shared.merge.lock();
        while is_out && merge.result.is_none() {
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
    true
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
        shared.inbox.wake();
    }
}
