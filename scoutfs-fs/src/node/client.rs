// SPDX-License-Identifier: GPL-2.0-only
//! How a mount talks to the server: requests that wait for their answers.
//!
//! One thread of the mount receives ([`Client::receive`]): it wakes the requests whose answers came and returns the
//! server's own messages, which the node carries out. Any thread may ask ([`Client::request`]).
//!
//! Locking: one mutex over the table of open requests, a leaf, never held while sending or waiting for the queue.

use core::time::Duration;

use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::{AllocError, Arc, OrdMap, Vec};
use scoutfs_format::msg::{MSG_LOCK, STATUS_AGAIN, STATUS_NO_MEMORY, STATUS_NO_SPACE, STATUS_OK};
use scoutfs_net::frame::{self, Decoder, FrameError};

use super::transport::{End, Received};
use crate::counters::Counters;
use crate::error::{Error, Result};

/// How long to wait for memory before trying again, where nothing else can be done.
pub(super) const MEMORY_PAUSE: Duration = Duration::from_millis(10);

/// The mount's end of the connection to the server.
pub(crate) struct Client {
    end: End,
    state: Mutex<State>,
    answered: Condvar,
    counters: Arc<Counters>,
}

struct State {
    next_id: u64,
    next_seq: u64,
    requests: OrdMap<u64, Request>,
    closed: bool,
}

/// A request that somebody waits for.
enum Request {
    Open,
    Answered { status: u16, payload: Vec<u8> },
}

/// A message from the server that nobody waits for: its own requests, and answers about locks.
pub(crate) struct Order {
    /// `MSG_*`.
    pub kind: u8,
    /// It is an answer.
    pub response: bool,
    /// Of an answer: `STATUS_*`.
    pub status: u16,
    /// To be repeated in the answer.
    pub id: u64,
    /// By kind.
    pub payload: Vec<u8>,
}

impl Client {
    /// A client over one end of a connection.
    pub fn new(end: End, counters: Arc<Counters>) -> Self {
        Client {
            end,
            counters,
            state: Mutex::new(State { next_id: 1, next_seq: 1, requests: OrdMap::new(), closed: false }),
            answered: Condvar::new(),
        }
    }

    /// As [`Client::request`], but `None` when the server says to ask again.
    pub fn try_request(&self, kind: u8, payload: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.request_once(kind, payload)? {
            (STATUS_OK, answer) => Ok(Some(answer)),
            (STATUS_AGAIN, _) => Ok(None),
            (STATUS_NO_SPACE, _) => Err(Error::NoSpace),
            (STATUS_NO_MEMORY, _) => Err(Error::NoMemory),
            (other, _) => Err(Error::Server(other)),
        }
    }

    /// Asks the server and waits for its answer. Not to be called while in a transaction.
    pub fn request(&self, kind: u8, payload: &[u8]) -> Result<Vec<u8>> {
        loop {
            let (status, answer) = self.request_once(kind, payload)?;
            match status {
                STATUS_OK => return Ok(answer),
                STATUS_AGAIN => scoutfs_env::time::sleep(Duration::from_millis(10)),
                STATUS_NO_SPACE => return Err(Error::NoSpace),
                STATUS_NO_MEMORY => return Err(Error::NoMemory),
                other => return Err(Error::Server(other)),
            }
        }
    }

    fn request_once(&self, kind: u8, payload: &[u8]) -> Result<(u16, Vec<u8>)> {
        let id = self.open_request()?;
        if let Err(e) = self.send(kind, false, STATUS_OK, id, payload) {
            self.state.lock().requests.remove(&id);
            return Err(e);
        }
        let mut state = self.state.lock();
        loop {
            if let Some(Request::Answered { .. }) = state.requests.get(&id)
                && let Some(Request::Answered { status, payload }) = state.requests.remove(&id)
            {
                return Ok((status, payload));
            }
            if state.closed {
                state.requests.remove(&id);
                return Err(Error::Shutdown("the server is gone"));
            }
            state = self.answered.wait(state);
        }
    }

    /// As [`Client::request`], for when no receiver runs yet: receives by itself.
    pub fn request_alone(&self, kind: u8, payload: &[u8]) -> Result<Vec<u8>> {
        loop {
            let id = self.open_request()?;
            self.send(kind, false, STATUS_OK, id, payload)?;
            let (status, answer) = loop {
                if let Some(answer) = self.take_answer(id) {
                    break answer;
                }
                if self.receive(Duration::from_millis(100))?.is_none() {
                    return Err(Error::Shutdown("the server is gone"));
                }
            };
            match status {
                STATUS_OK => return Ok(answer),
                STATUS_AGAIN => scoutfs_env::time::sleep(Duration::from_millis(10)),
                STATUS_NO_SPACE => return Err(Error::NoSpace),
                STATUS_NO_MEMORY => return Err(Error::NoMemory),
                other => return Err(Error::Server(other)),
            }
        }
    }

    fn open_request(&self) -> Result<u64> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Shutdown("the server is gone"));
        }
        let id = state.next_id;
        state.requests.insert(id, Request::Open)?;
        state.next_id += 1;
        Ok(id)
    }

    fn take_answer(&self, id: u64) -> Option<(u16, Vec<u8>)> {
        let mut state = self.state.lock();
        match state.requests.get(&id) {
            Some(Request::Answered { .. }) => match state.requests.remove(&id) {
                Some(Request::Answered { status, payload }) => Some((status, payload)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Sends a request whose answer comes as an [`Order`].
    pub fn post(&self, kind: u8, payload: &[u8]) -> Result<()> {
        let id = {
            let mut state = self.state.lock();
            state.next_id += 1;
            state.next_id - 1
        };
        self.send(kind, false, STATUS_OK, id, payload)
    }

    /// Answers an [`Order`].
    pub fn answer(&self, kind: u8, id: u64, status: u16, payload: &[u8]) -> Result<()> {
        self.send(kind, true, status, id, payload)
    }

    /// Sends a message that nobody waits for.
    fn send(&self, kind: u8, response: bool, status: u16, id: u64, payload: &[u8]) -> Result<()> {
        // The seq is given and the message queued under one lock, so that messages leave in the order of their seqs.
        let mut state = self.state.lock();
        let header = frame::Header { kind, response, status, seq: state.next_seq, ack: 0, id, term: 0 };
        let mut message = Vec::new();
        frame::encode(&header, payload, &mut message).map_err(|_| Error::NoMemory)?;
        self.end.send(message)?;
        state.next_seq += 1;
        self.counters.message_sent(kind);
        Ok(())
    }

    /// Receives for up to `timeout`: answers wake their requests, orders are returned. `None` says that the
    /// connection is closed.
    ///
    /// A message that came is not lost for want of memory: it waits for it, and so does what came after it.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Vec<Order>>> {
        let mut orders = Vec::new();
        match self.end.receive(timeout) {
            Received::Timeout => {}
            Received::Closed => {
                self.close();
                return Ok(None);
            }
            Received::Messages(messages) => {
                for message in &messages {
                    while let Err(e) = self.decode(message, &mut orders) {
                        if !matches!(e, FrameError::NoMemory(_)) {
                            scoutfs_env::error!("a message from the server is damaged: {e}");
                            self.close();
                            return Ok(None);
                        }
                        scoutfs_env::time::sleep(MEMORY_PAUSE);
                    }
                }
            }
        }
        Ok(Some(orders))
    }

    /// Takes a message, which is one frame, or nothing of it.
    fn decode(&self, message: &[u8], orders: &mut Vec<Order>) -> core::result::Result<(), FrameError> {
        let mut decoder = Decoder::new();
        decoder.push(message)?;
        while let Some(frame) = decoder.next()? {
            self.arrived(&frame, orders)?;
        }
        Ok(())
    }

    fn arrived(
        &self,
        frame: &frame::Frame<'_>,
        orders: &mut Vec<Order>,
    ) -> core::result::Result<(), AllocError> {
        let payload = Vec::from_slice(frame.payload)?;
        let frame::Header { kind, id, status, response, .. } = frame.header;
        self.counters.message_received(kind);
        if response && kind != MSG_LOCK {
            if let Some(request) = self.state.lock().requests.get_mut(&id) {
                *request = Request::Answered { status, payload };
            }
            self.answered.notify_all();
        } else {
            orders.push(Order { kind, response, id, status, payload })?;
        }
        Ok(())
    }

    /// Ends the connection: all requests fail.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.answered.notify_all();
        self.end.close();
    }
}
