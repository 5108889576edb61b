// SPDX-License-Identifier: GPL-2.0-only
//! A connection within one process: two queues of encoded messages.
//!
//! The node that runs the server talks to it through the very bytes that other nodes send over the network:
//! every message is encoded, checked and decoded. Only the sockets are missing.
//!
//! Locking: each queue has one mutex that is held for the push or pop alone.

use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::{AllocError, Arc, Vec};

use core::time::Duration;

/// One direction: encoded messages in order.
struct Queue {
    state: Mutex<QueueState>,
    arrived: Condvar,
}

struct QueueState {
    messages: Vec<Vec<u8>>,
    closed: bool,
    /// The receiver is to look at something else.
    woken: bool,
}

impl Queue {
    fn new() -> Self {
        Queue {
            state: Mutex::new(QueueState { messages: Vec::new(), closed: false, woken: false }),
            arrived: Condvar::new(),
        }
    }
}

/// One end of a connection.
pub struct End {
    send: Arc<Queue>,
    receive: Arc<Queue>,
}

/// What [`End::receive`] found.
pub enum Received {
    /// Messages, in the order in which they were sent.
    Messages(Vec<Vec<u8>>),
    /// Nothing came in time.
    Timeout,
    /// The other end is closed and nothing is left.
    Closed,
}

/// A connected pair.
pub fn pair() -> Result<(End, End), AllocError> {
    let a = Arc::new(Queue::new())?;
    let b = Arc::new(Queue::new())?;
    Ok((End { send: a.clone(), receive: b.clone() }, End { send: b, receive: a }))
}

impl End {
    /// Queues a message. A closed connection swallows it, as a network would.
    pub fn send(&self, message: Vec<u8>) -> Result<(), AllocError> {
        let mut state = self.send.state.lock();
        if !state.closed {
            state.messages.push(message)?;
        }
        drop(state);
        self.send.arrived.notify_one();
        Ok(())
    }

    /// Takes all messages that have arrived, waiting up to `timeout` for the first.
    pub fn receive(&self, timeout: Duration) -> Received {
        let mut state = self.receive.state.lock();
        if state.messages.is_empty() && !state.closed && !state.woken {
            (state, _) = self.receive.arrived.wait_timeout(state, timeout);
        }
        state.woken = false;
        if !state.messages.is_empty() {
            Received::Messages(core::mem::take(&mut state.messages))
        } else if state.closed {
            Received::Closed
        } else {
            Received::Timeout
        }
    }

    /// Wakes the receiver of this end, now or when it next waits, though nothing arrived.
    pub fn wake_self(&self) {
        self.receive.state.lock().woken = true;
        self.receive.arrived.notify_one();
    }

    /// Closes both directions: what is queued can still be received.
    pub fn close(&self) {
        for queue in [&self.send, &self.receive] {
            queue.state.lock().closed = true;
            queue.arrived.notify_all();
        }
    }
}
