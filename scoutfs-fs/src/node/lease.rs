// SPDX-License-Identifier: GPL-2.0-only
//! Keeps the mount's lease: asks for it to go on as long as the mount's own requests to the device end.
//!
//! A thread of its own, so that nothing else that takes long (a large commit, a server that is waited for) costs the lease. A mount
//! whose requests do not end could not give locks back: others should not wait for it longer than for its lease.

use core::time::Duration;

use scoutfs_env::thread::{self, JoinHandle};
use scoutfs_env::time::{self, Mono};
use scoutfs_env::{Arc, error};

use super::client::FENCED;
use super::counted::InFlight;
use crate::error::{Error, Result};
use crate::store::Store;

/// How often to look.
const LOOK: Duration = Duration::from_millis(500);
/// A request to the device that takes longer than this many looks is stuck: about half a lease.
const STUCK: usize = 6;

/// Starts the thread. It ends when the store's client is closed.
pub(super) fn start(store: &Arc<Store>, requests: Arc<InFlight>) -> Result<JoinHandle> {
    let store = store.clone();
    thread::spawn("scoutfs-lease", move || keep(&store, &requests)).map_err(|_| Error::NoMemory)
}

fn keep(store: &Store, requests: &InFlight) {
    let mut asked = Mono::ZERO;
    while !store.client.wait_closed(LOOK) {
        // One that has failed is given up when its lease ends.
        if store.trans.check().is_err() {
            return;
        }
        let now = time::mono_now();
        let stuck = requests.tick() > STUCK;
        if stuck || now.saturating_duration_since(asked) < store.numbers.lease() / 4 {
            continue;
        }
        asked = now;
        match store.renew() {
            Err(Error::Shutdown(why)) if why == FENCED => {
                error!("the mount was fenced: it shuts down");
                store.fail(FENCED);
                return;
            }
            // Without memory it is tried again, without a server others wait for one.
            _ => {}
        }
    }
}
