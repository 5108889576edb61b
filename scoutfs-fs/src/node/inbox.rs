// SPDX-License-Identifier: GPL-2.0-only
//! What has come for the server and is not handled yet, in the order in which it came.
//!
//! What must hold: what was put in is handled in order, so only who has the server to itself takes it out (`desk`); and it is taken out
//! by somebody: who puts something in and does not see to it himself has the server's thread woken.
//!
//! Locking: one mutex, a leaf, never held while receiving or handling.

use core::sync::atomic::Ordering;
use core::time::Duration;

use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::{Arc, Vec};
use scoutfs_net::connection::Hello;
use scoutfs_net::frame::Header;

use super::socket::Socket;
use crate::error::{Error, Result};

/// Bytes of payloads of one socket that may wait for the server, before no more is received.
const MAX_QUEUED: usize = 256 << 10;

/// What the server is told.
pub(super) enum Input {
    /// A mount has greeted and proved on a new socket.
    Opened { socket: Arc<Socket>, hello: Hello },
    /// A message came on it.
    Message { socket: Arc<Socket>, header: Header, payload: Vec<u8> },
    /// It has ended.
    Closed { socket: Arc<Socket> },
}

impl Input {
    /// The server has ended and does not hear it: nobody else would end its stream.
    pub fn is_lost(&self) {
        let (Input::Opened { socket, .. } | Input::Message { socket, .. } | Input::Closed { socket }) = self;
        socket.finish();
    }
}

/// See the module.
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    /// There is room for more.
    taken: Condvar,
}

#[derive(Default)]
struct State {
    inputs: Vec<Input>,
    /// The server's thread is to look: at what has come, or at something else.
    woken: bool,
    /// Receivers that wait for room.
    waiting: usize,
    closed: bool,
}

impl Inbox {
    pub fn new() -> Self {
        Inbox { state: Mutex::new(State::default()), arrived: Condvar::new(), taken: Condvar::new() }
    }

    /// Waits up to `timeout` until the server's thread is woken.
    pub fn wait(&self, timeout: Duration) {
        let mut state = self.state.lock();
        if !state.woken {
            (state, _) = self.arrived.wait_timeout(state, timeout);
        }
        state.woken = false;
    }

    /// Takes all that has come.
    pub fn take(&self) -> Vec<Input> {
        self.take_if(usize::MAX, |_| true).unwrap_or_default()
    }

    /// Takes all that has come, if it is no more than `most` and `wanted` says so of each; `None` if not.
    pub fn take_if(&self, most: usize, wanted: impl Fn(&Input) -> bool) -> Option<Vec<Input>> {
        let mut state = self.state.lock();
        if state.inputs.len() > most || !state.inputs.iter().all(wanted) {
            return None;
        }
        let inputs = core::mem::take(&mut state.inputs);
        for input in &inputs {
            if let Input::Message { socket, payload, .. } = input {
                socket.queued.fetch_sub(cost(payload), Ordering::AcqRel);
            }
        }
        let waiting = state.waiting > 0;
        drop(state);
        if waiting {
            self.taken.notify_all();
        }
        Some(inputs)
    }

    /// How much has come.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.state.lock().inputs.len()
    }

    /// Whether the server's thread is to look.
    #[cfg(test)]
    pub fn is_woken(&self) -> bool {
        self.state.lock().woken
    }

    /// Wakes the server's thread, now or when it next waits.
    pub fn wake(&self) {
        self.state.lock().woken = true;
        self.arrived.notify_one();
    }

    /// Nothing is taken any more: sockets end.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let lost = core::mem::take(&mut state.inputs);
        drop(state);
        lost.iter().for_each(Input::is_lost);
        self.taken.notify_all();
    }

    /// Whether nothing is taken any more.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Puts something in, when there is room. The caller sees to it that it is taken, or calls [`Inbox::wake`].
    pub fn put(&self, input: Input) -> Result<()> {
        let mut state = self.state.lock();
        if let Input::Message { socket, payload, .. } = &input {
            while socket.queued.load(Ordering::Acquire) > MAX_QUEUED && !state.closed {
                state.waiting += 1;
                state = self.taken.wait(state);
                state.waiting -= 1;
            }
            socket.queued.fetch_add(cost(payload), Ordering::AcqRel);
        }
        if state.closed {
            return Err(Error::Shutdown("the server has ended"));
        }
        Ok(state.inputs.push(input)?)
    }
}

fn cost(payload: &[u8]) -> usize {
    payload.len() + size_of::<Input>()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use scoutfs_env::net::{Pipe, Stream, pipe};
    use scoutfs_env::try_box;

    use super::super::desk::Desk;
    use super::super::socket::Identity;
    use super::*;
    use scoutfs_net::connection::Secret;

    /// A mount that has just connected to a server that ends waits for nothing else than the end of its stream.
    #[test]
    fn streams_that_the_server_did_not_hear_of_end_with_it() {
        let identity = Identity { fsid: 1, term: 1, secret: Secret([0; scoutfs_env::auth::PROOF_LEN]) };
        let open = |desk: &Arc<Desk>| {
            let (here, there) = pipe().unwrap();
            let hello = Hello { rid: 1, term: 0, attempt: 1, ack: 0, nonce: [0; 16] };
            let socket = Socket::start(try_box(there).unwrap(), desk, identity).unwrap();
            desk.put(Input::Opened { socket, hello }).unwrap();
            here
        };
        let has_ended = |stream: Pipe| {
            let (told, ended) = channel();
            std::thread::spawn(move || {
                told.send(matches!(stream.receive(&mut [0; 8]), Ok(0) | Err(_))).unwrap();
            });
            ended.recv_timeout(Duration::from_secs(20)) == Ok(true)
        };
        let desk = Arc::new(Desk::new()).unwrap();
        // Taken, but the server finds that it may not act.
        let taken = open(&desk);
        desk.inbox.take().iter().for_each(Input::is_lost);
        assert!(has_ended(taken));
        let waiting = open(&desk);
        desk.close();
        assert!(has_ended(waiting));
    }
}
