// SPDX-License-Identifier: GPL-2.0-only
//! The server's side of streams from mounts: their bytes become inputs of the server's thread, which never waits for a mount.
//!
//! Each stream has two threads: one receives, does the handshake and queues what came; one sends what the stream did not take from the
//! server's thread at once. A mount that sends faster than the server works waits (its own queue is bounded); one that does not take what
//! is sent to it loses the stream.
//!
//! Locking: the inbox and each socket's outgoing bytes have a mutex of their own, leaves, never held while
//! receiving or waiting to send.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use scoutfs_env::net::Stream;
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::{Arc, Box, Vec, random, thread};
use scoutfs_format::msg::STATUS_INVALID;
use scoutfs_net::connection::{ConnectionError, Handshake, Hello, Secret, refuse};
use scoutfs_net::frame::{Decoder, Header};

use crate::error::{Error, Result};

/// Bytes of payloads of one socket that may wait for the server's thread, before no more is received.
const MAX_QUEUED: usize = 256 << 10;
/// Bytes that may wait to be sent to one mount, before its stream is ended.
const MAX_UNSENT: usize = 4 << 20;
/// Bytes that are received at once.
const BUFFER: usize = 16 << 10;

/// What the server's thread is told.
pub(super) enum Input {
    /// A mount has greeted and proved on a new socket.
    Opened { socket: Arc<Socket>, hello: Hello },
    /// A message came on it.
    Message { socket: Arc<Socket>, header: Header, payload: Vec<u8> },
    /// It has ended.
    Closed { socket: Arc<Socket> },
}

impl Input {
    /// The server's thread has ended and does not hear it: nobody else would end its stream.
    pub fn is_lost(&self) {
        let (Input::Opened { socket, .. } | Input::Message { socket, .. } | Input::Closed { socket }) = self;
        socket.finish();
    }
}

/// What the server's thread takes its inputs from.
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    /// There is room for more.
    taken: Condvar,
}

#[derive(Default)]
struct State {
    inputs: Vec<Input>,
    /// The thread is to look at something else.
    woken: bool,
    closed: bool,
}

impl Inbox {
    pub fn new() -> Self {
        Inbox { state: Mutex::new(State::default()), arrived: Condvar::new(), taken: Condvar::new() }
    }

    /// Takes all that has arrived; waits up to `timeout` for something.
    pub fn take(&self, timeout: Duration) -> Vec<Input> {
        let mut state = self.state.lock();
        if state.inputs.is_empty() && !state.woken {
            (state, _) = self.arrived.wait_timeout(state, timeout);
        }
        state.woken = false;
        let inputs = core::mem::take(&mut state.inputs);
        drop(state);
        for input in &inputs {
            if let Input::Message { socket, payload, .. } = input {
                socket.queued.fetch_sub(cost(payload), Ordering::AcqRel);
            }
        }
        self.taken.notify_all();
        inputs
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

    fn push(&self, input: Input) -> Result<()> {
        let mut state = self.state.lock();
        if let Input::Message { socket, payload, .. } = &input {
            while socket.queued.load(Ordering::Acquire) > MAX_QUEUED && !state.closed {
                state = self.taken.wait(state);
            }
            socket.queued.fetch_add(cost(payload), Ordering::AcqRel);
        }
        if state.closed {
            return Err(Error::Shutdown("the server has ended"));
        }
        state.inputs.push(input)?;
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }
}

fn cost(payload: &[u8]) -> usize {
    payload.len() + size_of::<Input>()
}

/// To whom a socket of the server must prove itself, and who must prove.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    pub fsid: u64,
    pub term: u64,
    pub secret: Secret,
}

/// A stream from a mount.
pub(super) struct Socket {
    stream: Box<dyn Stream>,
    /// See [`MAX_QUEUED`].
    queued: AtomicUsize,
    outgoing: Mutex<Outgoing>,
    changed: Condvar,
}

#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// The thread that sends has taken some, which go first.
    busy: bool,
    /// Nothing comes after that.
    last: bool,
}

impl Socket {
    /// Starts the threads of a stream that was accepted.
    pub fn start(stream: Box<dyn Stream>, inbox: &Arc<Inbox>, identity: Identity) -> Result<Arc<Socket>> {
        let socket = Arc::new(Socket {
            stream,
            queued: AtomicUsize::new(0),
            outgoing: Mutex::new(Outgoing::default()),
            changed: Condvar::new(),
        })?;
        let (to_send, to_receive, inbox) = (socket.clone(), socket.clone(), inbox.clone());
        thread::spawn("scoutfs-send", move || to_send.run_sender()).map_err(|_| Error::NoMemory)?;
        let receiver = thread::spawn("scoutfs-from", move || {
            run_receiver(to_receive, &inbox, identity);
        });
        if receiver.is_err() {
            socket.end();
            return Err(Error::NoMemory);
        }
        Ok(socket)
    }

    /// Sends bytes, or queues what the stream does not take at once. Without memory, or when the mount does not take them, the stream
    /// ends.
    pub fn send(&self, mut bytes: &[u8]) {
        let mut outgoing = self.outgoing.lock();
        if outgoing.bytes.is_empty() && !outgoing.busy {
            // To wake the other thread would take longer.
            match self.stream.try_send(bytes) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(_) => {
                    drop(outgoing);
                    self.end();
                    return;
                }
            }
            if bytes.is_empty() {
                return;
            }
        }
        let fits = outgoing.bytes.len() + bytes.len() <= MAX_UNSENT;
        if !fits || outgoing.bytes.extend_from_slice(bytes).is_err() {
            drop(outgoing);
            scoutfs_env::warn!("server: a mount does not take what is sent to it; its connection is closed");
            self.end();
            return;
        }
        drop(outgoing);
        self.changed.notify_one();
    }

    /// Ends the stream when what was queued is sent.
    pub fn finish(&self) {
        self.outgoing.lock().last = true;
        self.changed.notify_one();
    }

    /// Ends the stream now.
    pub fn end(&self) {
        self.finish();
        self.stream.shutdown();
    }

    fn run_sender(&self) {
        let mut outgoing = self.outgoing.lock();
        loop {
            if !outgoing.bytes.is_empty() {
                let bytes = core::mem::take(&mut outgoing.bytes);
                outgoing.busy = true;
                drop(outgoing);
                if self.stream.send(&bytes).is_err() {
                    break;
                }
                outgoing = self.outgoing.lock();
                outgoing.busy = false;
            } else if outgoing.last {
                drop(outgoing);
                break;
            } else {
                outgoing = self.changed.wait(outgoing);
            }
        }
        self.stream.shutdown();
    }
}

fn run_receiver(socket: Arc<Socket>, inbox: &Inbox, identity: Identity) {
    let mut opened = false;
    if let Err(e) = receive(&socket, inbox, identity, &mut opened) {
        match &e {
            SocketError::Ended => {}
            e => scoutfs_env::warn!("server: a connection is closed: {e}"),
        }
    }
    socket.finish();
    if opened {
        // It fails when nobody is there any more who wants to know.
        let _ = inbox.push(Input::Closed { socket });
    }
}

fn receive(
    socket: &Arc<Socket>,
    inbox: &Inbox,
    identity: Identity,
    opened: &mut bool,
) -> core::result::Result<(), SocketError> {
    let mut nonce = [0; 16];
    random::fill(&mut nonce);
    let Identity { fsid, term, secret } = identity;
    let mut handshake = Some(Handshake::new(fsid, term, secret, nonce));
    let mut decoder = Decoder::new();
    let mut buffer = Vec::new();
    buffer.resize(BUFFER, 0).map_err(|_| SocketError::NoMemory)?;
    loop {
        let received = socket.stream.receive(&mut buffer).map_err(|_| SocketError::Ended)?;
        let Some(bytes) = buffer.get(..received).filter(|bytes| !bytes.is_empty()) else {
            return Err(SocketError::Ended);
        };
        decoder.push(bytes).map_err(|_| SocketError::NoMemory)?;
        while let Some(frame) = decoder.next()? {
            if let Some(shaking) = &mut handshake {
                let mut out = Vec::new();
                let greeted = shaking.handle_frame(&frame, &mut out);
                if let Err(ConnectionError::Greeting(_)) = &greeted {
                    // Both sides say what does not fit.
                    let _ = refuse(fsid, term, STATUS_INVALID, &mut out);
                }
                socket.send(&out);
                if let Some(hello) = greeted? {
                    handshake = None;
                    *opened = true;
                    inbox.push(Input::Opened { socket: socket.clone(), hello })?;
                }
                continue;
            }
            let payload = Vec::from_slice(frame.payload).map_err(|_| SocketError::NoMemory)?;
            inbox.push(Input::Message { socket: socket.clone(), header: frame.header, payload })?;
        }
    }
}

/// Why nothing more is received.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error("it has ended")]
    Ended,
    #[error("no memory")]
    NoMemory,
    #[error(transparent)]
    Frame(#[from] scoutfs_net::frame::FrameError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl From<Error> for SocketError {
    fn from(e: Error) -> Self {
        match e {
            Error::NoMemory => SocketError::NoMemory,
            _ => SocketError::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use scoutfs_env::net::{Pipe, pipe};
    use scoutfs_env::try_box;

    use super::*;

    /// A mount that has just connected to a server that ends waits for nothing else than the end of its stream.
    #[test]
    fn streams_that_the_server_did_not_hear_of_end_with_it() {
        let identity = Identity { fsid: 1, term: 1, secret: Secret([0; scoutfs_env::auth::PROOF_LEN]) };
        let open = |inbox: &Arc<Inbox>| {
            let (here, there) = pipe().unwrap();
            let hello = Hello { rid: 1, term: 0, attempt: 1, ack: 0, nonce: [0; 16] };
            let socket = Socket::start(try_box(there).unwrap(), inbox, identity).unwrap();
            inbox.push(Input::Opened { socket, hello }).unwrap();
            here
        };
        let has_ended = |stream: Pipe| {
            let (told, ended) = channel();
            std::thread::spawn(move || {
                told.send(matches!(stream.receive(&mut [0; 8]), Ok(0) | Err(_))).unwrap();
            });
            ended.recv_timeout(Duration::from_secs(20)) == Ok(true)
        };
        let inbox = Arc::new(Inbox::new()).unwrap();
        // Taken, but the server finds that it may not act.
        let taken = open(&inbox);
        inbox.take(Duration::ZERO).iter().for_each(Input::is_lost);
        assert!(has_ended(taken));
        let waiting = open(&inbox);
        inbox.close();
        assert!(has_ended(waiting));
    }
}
