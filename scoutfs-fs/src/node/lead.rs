// SPDX-License-Identifier: GPL-2.0-only
//! Runs the server when this node is elected, at any time of the mount.
//!
//! A thread waits for the election, so that the voter's never waits for anything. A node leads once: when it has lost leadership its mount
//! shuts down.
//!
//! Locking: one mutex over the server's host, a leaf; the door is behind that of the link.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use scoutfs_btree::BlockCache;
use scoutfs_env::device::BlockDevice;
use scoutfs_env::sync::Mutex;
use scoutfs_env::thread::{self, JoinHandle};
use scoutfs_env::{Arc, Box, memory, time};
use scoutfs_server::super_block::read_super_with_take_overs;
use scoutfs_server::{DeathOracle, Leader, Server, ServerError};

use super::leadership::Acting;
use super::server_host::{Door, MEMORY_LIMIT, ServerHost};
use super::voter::{Rank, Ranks};
use crate::counters::Counters;
use crate::error::{Error, Result};

/// How often to ask whether former leaders are dead by now.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What a server is made of.
pub(super) struct Parts {
    pub device: Arc<Box<dyn BlockDevice>>,
    pub cache: Arc<BlockCache>,
    pub counters: Arc<Counters>,
    pub oracle: Arc<Box<dyn DeathOracle + Send + Sync>>,
    /// This node's mount.
    pub rid: u64,
    /// Opened while the server runs.
    pub door: Arc<Mutex<Option<Door>>>,
}

/// See the module.
pub(super) struct Lead {
    shared: Arc<Shared>,
    thread: Option<JoinHandle>,
}

struct Shared {
    ranks: Arc<Ranks>,
    stop: AtomicBool,
    host: Mutex<Option<ServerHost>>,
}

impl Lead {
    /// Waits for the election from now on.
    pub fn start(ranks: Arc<Ranks>, parts: Parts) -> Result<Lead> {
        let shared = Arc::new(Shared { ranks, stop: AtomicBool::new(false), host: Mutex::new(None) })?;
        let for_thread = shared.clone();
        let thread =
            thread::spawn("scoutfs-lead", move || run(&for_thread, &parts)).map_err(|_| Error::NoMemory)?;
        Ok(Lead { shared, thread: Some(thread) })
    }

    /// Ends the server, if it runs: cleanly, or as a crash would.
    pub fn stop(mut self, cleanly: bool) {
        self.join();
        if let Some(host) = self.shared.host.lock().take() {
            if cleanly { host.stop() } else { host.abandon() }
        }
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.ranks.wake();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.join();
    }
}

fn run(shared: &Shared, parts: &Parts) {
    let Rank::Leads { slot, term } = shared.ranks.wait(|| shared.stop.load(Ordering::Acquire)) else {
        return;
    };
    let leadership = shared.ranks.leadership();
    let acting = Acting::new(&leadership);
    if leadership.is_lost() {
        return;
    }
    match memory::patiently(MEMORY_LIMIT, || serve_when_possible(shared, parts, slot, term)) {
        Ok(host) => {
            *parts.door.lock() = Some(host.door());
            *shared.host.lock() = Some(host);
        }
        Err(e) => {
            scoutfs_env::error!("this node was elected and cannot serve: {e}");
            leadership.lose();
        }
    }
    drop(acting);
}

/// Serves, as soon as enough is known of former leaders. Others would have to wait for the same.
fn serve_when_possible(shared: &Shared, parts: &Parts, slot: u32, term: u64) -> Result<ServerHost> {
    let leadership = shared.ranks.leadership();
    let mut told = false;
    loop {
        match serve(shared, parts, slot, term) {
            // Nothing was written.
            Err(Error::Volume(e @ ServerError::FormerLeaders { .. }))
                if !leadership.is_lost() && !shared.stop.load(Ordering::Acquire) =>
            {
                if !told {
                    scoutfs_env::error!("this node was elected and cannot serve yet: {e}");
                }
                told = true;
                time::sleep(ASK_AGAIN);
            }
            done => return done,
        }
    }
}

fn serve(shared: &Shared, parts: &Parts, slot: u32, term: u64) -> Result<ServerHost> {
    let Parts { device, cache, counters, oracle, rid, .. } = parts;
    // The super block as the last leader left it, now that there is no other.
    let read = read_super_with_take_overs(&***device);
    let (sb, take_overs) = read.map_err(|e| Error::from(ServerError::from(e)))?;
    let leader = Leader { voter: slot, term, rid: *rid };
    let server = Server::open(
        device.clone(),
        cache.clone(),
        (&sb, &take_overs),
        leader,
        &***oracle,
        time::mono_now(),
    )?;
    let leadership = shared.ranks.leadership();
    ServerHost::start(server, cache.clone(), leadership, counters.clone(), Some(oracle.clone()))
}
