// SPDX-License-Identifier: GPL-2.0-only
//! Where other nodes connect to, when this node's server runs. A stream that comes while it does not is closed.
//!
//! Locking: none of its own; the door is behind the mutex of [`Link`](super::link::Link).

use core::time::Duration;

use scoutfs_env::net::Listener;
use scoutfs_env::sync::Mutex;
use scoutfs_env::sync::atomic::{AtomicBool, Ordering};
use scoutfs_env::thread::{self, JoinHandle};
use scoutfs_env::{Arc, Box, time};

use super::server_host::Door;
use crate::error::{Error, Result};

/// After a stream that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Port {
    shared: Arc<Shared>,
    thread: Option<JoinHandle>,
}

struct Shared {
    listener: Box<dyn Listener>,
    closed: AtomicBool,
    door: Arc<Mutex<Option<Door>>>,
}

impl Port {
    /// Begins to accept streams.
    pub fn open(listener: Box<dyn Listener>, door: Arc<Mutex<Option<Door>>>) -> Result<Port> {
        let shared = Arc::new(Shared { listener, closed: AtomicBool::new(false), door })?;
        let for_thread = shared.clone();
        let thread =
            thread::spawn("scoutfs-port", move || accept(&for_thread)).map_err(|_| Error::NoMemory)?;
        Ok(Port { shared, thread: Some(thread) })
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.listener.shutdown();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

fn accept(shared: &Shared) {
    while !shared.closed.load(Ordering::Acquire) {
        match shared.listener.accept() {
            Ok(stream) => {
                let door = shared.door.lock().clone();
                let accepted = match door {
                    Some(door) => door.accept(stream),
                    None => {
                        stream.shutdown();
                        Ok(())
                    }
                };
                if let Err(e) = accepted {
                    scoutfs_env::warn!("server: a stream cannot be accepted: {e}");
                }
            }
            Err(e) if !shared.closed.load(Ordering::Acquire) => {
                scoutfs_env::warn!("server: {e}");
                time::sleep(PAUSE);
            }
            Err(_) => {}
        }
    }
}
