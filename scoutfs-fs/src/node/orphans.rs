// SPDX-License-Identifier: GPL-2.0-only
//! The thread that looks, now and then, for unlinked inodes that nobody has deleted: those that a node had open which died,
//! and those whose deletion failed. And it closes the inodes that were open in passing only.

use core::time::Duration;

use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::thread::{self, JoinHandle};
use scoutfs_env::{Arc, random, time};

use crate::error::{Error, Result};
use crate::fs::Fs;

/// Between scans of one node; each varies it, so that nodes do not look at the same time.
const INTERVAL: Duration = Duration::from_secs(60);

/// How often it closes what was open in passing.
const CLOSE: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct OrphanScan {
    shared: Arc<Shared>,
    thread: JoinHandle,
}

struct Shared {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl OrphanScan {
    /// Starts the thread, which scans at once.
    pub fn start(fs: &Arc<Fs>) -> Result<OrphanScan> {
        let shared = Arc::new(Shared { stopped: Mutex::new(false), changed: Condvar::new() })?;
        let (fs, running) = (fs.clone(), shared.clone());
        let thread =
            thread::spawn("scoutfs-orphans", move || running.run(&fs)).map_err(|_| Error::NoMemory)?;
        Ok(OrphanScan { shared, thread })
    }

    /// Ends the thread, between two inodes.
    pub fn stop(self) {
        *self.shared.stopped.lock() = true;
        self.shared.changed.notify_all();
        self.thread.join();
    }
}

impl Shared {
    fn run(&self, fs: &Fs) {
        loop {
            if let Err(e) = self.scan(fs) {
                if fs.store().trans.check().is_err() {
                    return;
                }
                scoutfs_env::warn!("looking for unlinked inodes: {}", fs.store().verdict(e));
            }
            let pause = INTERVAL / 2 + Duration::from_millis(random::u64() % INTERVAL.as_millis() as u64);
            let end = time::mono_now().saturating_add(pause);
            let mut stopped = self.stopped.lock();
            loop {
                let left = end.saturating_duration_since(time::mono_now());
                if *stopped {
                    drop(stopped);
                    fs.close_passing(true);
                    return;
                }
                if left.is_zero() {
                    break;
                }
                (stopped, _) = self.changed.wait_timeout(stopped, left.min(CLOSE));
                drop(stopped);
                fs.close_passing(false);
                stopped = self.stopped.lock();
            }
        }
    }

    fn scan(&self, fs: &Fs) -> Result<()> {
        fs.store().horizon()?;
        let mut next = Some(0);
        while let Some(from) = next {
            if *self.stopped.lock() {
                return Ok(());
            }
            next = fs.scan_some_orphans(from, 1)?;
        }
        Ok(())
    }
}
