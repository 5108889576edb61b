// SPDX-License-Identifier: GPL-2.0-only
//! Giving up a mount that is under way: who mounts may be killed while it waits for a server.
//!
//! Locking: one mutex, a leaf over the client's own.

use scoutfs_env::Arc;
use scoutfs_env::sync::Mutex;

use super::client::Client;
use crate::error::{Error, Result};

/// Ends a mount that has not come to its end, from any thread; see [`Mount::open_until`](super::Mount::open_until). Clones stand for the
/// same mount.
#[derive(Clone)]
pub struct Cancel(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    cancelled: bool,
    client: Option<Arc<Client>>,
}

impl Cancel {
    /// For one mount.
    pub fn new() -> Result<Self> {
        Ok(Cancel(Arc::new(Mutex::new(State::default()))?))
    }

    /// The mount is to end with [`Error::Interrupted`], soon. Does nothing once it has come to its end.
    pub fn cancel(&self) {
        let mut state = self.0.lock();
        state.cancelled = true;
        if let Some(client) = state.client.take() {
            client.close();
        }
    }

    /// Whether it is.
    pub(super) fn is_cancelled(&self) -> bool {
        self.0.lock().cancelled
    }

    /// The mount waits for a server by this client from now on.
    pub(super) fn attach(&self, client: &Arc<Client>) {
        let mut state = self.0.lock();
        if state.cancelled {
            client.close();
        } else {
            state.client = Some(client.clone());
        }
    }

    /// The mount has come to its end, whatever that is; cancelled, it has failed.
    pub(super) fn finish<T>(&self, mounted: Result<T>) -> Result<T> {
        let cancelled = {
            let mut state = self.0.lock();
            state.client = None;
            state.cancelled
        };
        if cancelled { Err(Error::Interrupted) } else { mounted }
    }
}
