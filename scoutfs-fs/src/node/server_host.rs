// SPDX-License-Identifier: GPL-2.0-only
//! Runs the server of the elected node: one thread that owns it, and one that runs pieces of merges for it.
//!
//! The server's thread takes all messages that have arrived, handles them, commits once for all of them, and only then
//! sends the answers. It never waits for a mount. It acts only while this node's lease as the leader is valid: it looks before
//! it handles anything, and again after a commit, before anybody hears of it. When the lease had ended and goes on, nobody else
//! led: what was written counts, and the mounts, which could not renew their leases meanwhile, are given time.
//!
//! Locking: the merge thread gets its jobs and gives its results through one mutex, a leaf.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use scoutfs_btree::BlockCache;
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::thread::{self, JoinHandle};
use scoutfs_env::{Arc, Vec, time};
use scoutfs_format::msg::MSG_RESPONSE;
use scoutfs_net::frame::{self, Decoder};
use scoutfs_server::Server;
use scoutfs_server::merge_job::{MergeJob, MergeResult};

use super::leadership::{Leadership, Lease};
use super::transport::{End, Received};
use crate::counters::{Counter, Counters};
use crate::error::{Error, Result};

/// The longest that the thread sleeps with nothing to do.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// What the two threads and the mount share.
struct Shared {
    end: End,
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

/// The running server of this node.
pub(crate) struct ServerHost {
    shared: Arc<Shared>,
    server: Option<JoinHandle>,
    merger: Option<JoinHandle>,
}

impl ServerHost {
    /// Starts the threads. `rid` is the mount at the other end of the connection.
    pub fn start(
        server: Server,
        cache: Arc<BlockCache>,
        end: End,
        rid: u64,
        leadership: Arc<Leadership>,
        counters: Arc<Counters>,
    ) -> Result<ServerHost> {
        let shared = Arc::new(Shared {
            end,
            stop: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            merge: Mutex::new(Merge::default()),
            merge_changed: Condvar::new(),
            counters,
        })?;
        let spawn_failed = |_| Error::NoMemory;
        let for_server = shared.clone();
        let server = thread::spawn("scoutfs-server", move || serve(server, &for_server, rid, &leadership))
            .map_err(spawn_failed)?;
        let for_merger = shared.clone();
        let merger =
            thread::spawn("scoutfs-merge", move || merge(&for_merger, &cache)).map_err(spawn_failed)?;
        Ok(ServerHost { shared, server: Some(server), merger: Some(merger) })
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
        self.shared.end.wake_self();
        if let Some(server) = self.server.take() {
            server.join();
        }
        self.shared.merge.lock().stop = true;
        self.shared.merge_changed.notify_all();
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

fn serve(mut server: Server, shared: &Shared, rid: u64, leadership: &Leadership) {
    let mut decoder = Decoder::new();
    let mut seq = 0;
    // Whether the merger has a piece.
    let mut is_out = false;
    loop {
        let stopping = shared.stop.load(Ordering::Acquire);
        let now = time::mono_now();
        let wait = if stopping {
            Duration::ZERO
        } else {
            server.next_wakeup(now).saturating_duration_since(now).min(LONGEST_WAIT)
        };
        let received = shared.end.receive(wait);
        if !may_act(&mut server, shared, leadership) {
            shared.end.close();
            return;
        }
        match received {
            Received::Messages(messages) => {
                for message in &messages {
                    if let Err(e) = handle(&mut server, &mut decoder, message, rid) {
                        scoutfs_env::error!("server: a message of this mount is damaged: {e}");
                        shared.end.close();
                        return;
                    }
                }
            }
            Received::Timeout => {}
            Received::Closed => break,
        }
        if let Some(result) = shared.merge.lock().result.take() {
            is_out = false;
            server.job_done(time::mono_now(), result);
        }
        server.tick(time::mono_now());
        if server.dirty()
            && let Err(e) = server.commit()
        {
            scoutfs_env::error!("server: a commit failed: {e}");
        }
        if !may_act(&mut server, shared, leadership) {
            shared.end.close();
            return;
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
        while let Some(message) = server.poll_message() {
            seq += 1;
            let header = frame::Header {
                kind: message.kind,
                response: message.response,
                status: message.status,
                seq,
                ack: 0,
                id: message.id,
                term: server.term(),
            };
            let mut bytes = Vec::new();
            let sent = frame::encode(&header, &message.payload, &mut bytes).is_ok()
                && shared.end.send(bytes).is_ok();
            if !sent {
                scoutfs_env::error!("server: no memory for an answer");
                shared.end.close();
                return;
            }
        }
        if stopping {
            break;
        }
    }
    if server.failed().is_none() && !shared.abandon.load(Ordering::Acquire) {
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
    shared.end.close();
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

fn handle(
    server: &mut Server,
    decoder: &mut Decoder,
    message: &[u8],
    rid: u64,
) -> core::result::Result<(), frame::FrameError> {
    decoder.push(message)?;
    while let Some(frame) = decoder.next()? {
        let header = scoutfs_format::msg::MessageHeader {
            kind: frame.header.kind,
            flags: if frame.header.response { MSG_RESPONSE } else { 0 },
            status: frame.header.status.into(),
            id: frame.header.id.into(),
            seq: frame.header.seq.into(),
            term: frame.header.term.into(),
            ..Default::default()
        };
        server.handle(time::mono_now(), rid, &header, frame.payload);
    }
    Ok(())
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
        shared.end.wake_self();
    }
}
