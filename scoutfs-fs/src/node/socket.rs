// SPDX-License-Identifier: GPL-2.0-only
//! The server's side of streams from mounts: their bytes become inputs of the server, which never waits for a mount.
//!
//! Each stream has two threads: one receives, does the handshake and puts what came on the server's desk (`desk`), where it is handled
//! at once if that takes no waiting; one sends what the stream did not take at once. A mount that sends faster than the server works
//! waits (its own queue is bounded, `inbox`); one that does not take what is sent to it loses the stream.
//!
//! Locking: each socket's outgoing bytes have a mutex, a leaf, never held while receiving or waiting to send.

use core::sync::atomic::AtomicUsize;

use scoutfs_env::net::Stream;
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::{Arc, Box, Vec, random, thread};
use scoutfs_format::msg::STATUS_INVALID;
use scoutfs_net::connection::{ConnectionError, Handshake, Secret, refuse};
use scoutfs_net::frame::Decoder;

use super::desk::Desk;
use super::inbox::Input;
use crate::error::{Error, Result};

/// Bytes that may wait to be sent to one mount, before its stream is ended.
const MAX_UNSENT: usize = 4 << 20;
/// Bytes that are received at once.
const BUFFER: usize = 16 << 10;

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
    /// Bytes that wait on the desk, see [`Inbox`](super::inbox::Inbox).
    pub(super) queued: AtomicUsize,
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
    pub fn start(stream: Box<dyn Stream>, desk: &Arc<Desk>, identity: Identity) -> Result<Arc<Socket>> {
        let socket = Arc::new(Socket {
            stream,
            queued: AtomicUsize::new(0),
            outgoing: Mutex::new(Outgoing::default()),
            changed: Condvar::new(),
        })?;
        let (to_send, to_receive, desk) = (socket.clone(), socket.clone(), desk.clone());
        thread::spawn("scoutfs-send", move || to_send.run_sender()).map_err(|_| Error::NoMemory)?;
        let receiver = thread::spawn("scoutfs-from", move || {
            run_receiver(to_receive, &desk, identity);
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

fn run_receiver(socket: Arc<Socket>, desk: &Desk, identity: Identity) {
    let mut opened = false;
    if let Err(e) = receive(&socket, desk, identity, &mut opened) {
        match &e {
            SocketError::Ended => {}
            e => scoutfs_env::warn!("server: a connection is closed: {e}"),
        }
    }
    socket.finish();
    if opened {
        // It fails when nobody is there any more who wants to know.
        let _ = desk.put(Input::Closed { socket });
    }
}

fn receive(
    socket: &Arc<Socket>,
    desk: &Desk,
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
                    desk.put(Input::Opened { socket: socket.clone(), hello })?;
                }
                continue;
            }
            let payload = Vec::from_slice(frame.payload).map_err(|_| SocketError::NoMemory)?;
            desk.put(Input::Message { socket: socket.clone(), header: frame.header, payload })?;
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
