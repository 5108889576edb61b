// SPDX-License-Identifier: GPL-2.0-only
//! The thread that writes what small writes have gathered in memory (see [`delayed`](crate::data::delayed)), a moment later.

use scoutfs_env::Arc;
use scoutfs_env::thread::{self, JoinHandle};

use crate::error::{Error, Result};
use crate::fs::Fs;

/// Starts the thread, which ends after [`Fs::stop_delaying`].
pub(super) fn start_flusher(fs: &Arc<Fs>) -> Result<JoinHandle> {
    let running = fs.clone();
    fs.start_delaying();
    let started = thread::spawn("scoutfs-write", move || while running.write_next_delayed() {});
    started.map_err(|_| {
        fs.stop_delaying();
        Error::NoMemory
    })
}
