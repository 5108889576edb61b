// SPDX-License-Identifier: GPL-2.0-only
//! The mounts that talk to the server: for each its connection, which outlives its sockets.
//!
//! That of a member lasts as long as the server: what the mount was answered and what not is told by it alone, so it is never begun anew
//! in a term. Who comes back too late finds itself fenced, not forgotten.
//!
//! Part of the [`Engine`](super::desk::Engine), which is locked as a whole; no locks of its own.

use scoutfs_env::{Arc, Box, OrdMap, Vec, try_box};
use scoutfs_format::msg::{MSG_RESPONSE, MessageHeader, STATUS_INVALID, STATUS_NOT_MEMBER};
use scoutfs_net::connection::{Connection, ConnectionError, Event, GreetingError, Hello, RequestId, refuse};
use scoutfs_net::frame::{Frame, FrameError};
use scoutfs_server::Outgoing;

use super::inbox::Input;
use super::socket::Socket;

/// See the module.
pub(super) struct Peers {
    fsid: u64,
    term: u64,
    /// By the mount's rid.
    peers: OrdMap<u64, Peer>,
}

struct Peer {
    connection: Box<Connection>,
    socket: Option<Arc<Socket>>,
    /// Requests of the mount that are not answered, by their id.
    asked: OrdMap<u64, RequestId>,
}

/// A message of a mount for the server.
pub(super) struct Incoming {
    /// The mount.
    pub rid: u64,
    /// Its header, as the server wants to know it.
    pub header: MessageHeader,
}

impl Peers {
    pub fn new(fsid: u64, term: u64) -> Self {
        Peers { fsid, term, peers: OrdMap::new() }
    }

    /// Takes an input. Gives what is for the server; the payload is the input's.
    #[inline(never)]
    pub fn handle(&mut self, input: &Input) -> Option<Incoming> {
        match input {
            Input::Opened { socket, hello } => {
                self.open(socket, hello);
                None
            }
            Input::Closed { socket } => {
                self.close(socket);
                None
            }
            Input::Message { socket, header, payload } => {
                let (&rid, peer) =
                    self.peers.iter_mut().find(|(_, peer)| is_socket(peer.socket.as_ref(), socket))?;
                // Memory first: what was taken is not sent again, and there is no other session in which it might be.
                if peer.asked.reserve(1).is_err() {
                    peer.lose("no memory for a request");
                    return None;
                }
                let incoming = match peer.connection.handle_frame(&Frame { header: *header, payload }) {
                    Ok(Some(Event::Request { id, kind, .. })) => {
                        // There is room.
                        peer.asked.insert(header.id, id).ok().map(|_| (kind, false, 0))
                    }
                    Ok(Some(Event::Response { kind, status, .. })) => Some((kind, true, status)),
                    Ok(Some(Event::Established { .. }) | None) => None,
                    Err(e) => {
                        scoutfs_env::warn!("server: mount {rid:016x}: {e}; its connection is closed");
                        peer.lose("a bad message");
                        None
                    }
                };
                let (kind, response, status) = incoming?;
                let header = MessageHeader {
                    kind,
                    flags: if response { MSG_RESPONSE } else { 0 },
                    status: status.into(),
                    id: header.id.into(),
                    ..Default::default()
                };
                Some(Incoming { rid, header })
            }
        }
    }

    #[inline(never)]
    fn open(&mut self, socket: &Arc<Socket>, hello: &Hello) {
        let opened = self.try_open(socket, hello);
        let Err(e) = opened else { return };
        let status = match &e {
            ConnectionError::Greeting(GreetingError::NoSession { .. }) | ConnectionError::Ack { .. } => {
                STATUS_NOT_MEMBER
            }
            _ => STATUS_INVALID,
        };
        scoutfs_env::info!("server: mount {:016x} is refused: {e}", hello.rid);
        let mut out = Vec::new();
        if refuse(self.fsid, self.term, status, &mut out).is_ok() {
            socket.send(&out);
        }
        socket.finish();
    }

    fn try_open(&mut self, socket: &Arc<Socket>, hello: &Hello) -> Result<(), ConnectionError> {
        if self.peers.get(&hello.rid).is_none() {
            let connection = try_box(Connection::server(self.fsid, self.term))?;
            self.peers.insert(hello.rid, Peer { connection, socket: None, asked: OrdMap::new() })?;
        }
        let Some(peer) = self.peers.get_mut(&hello.rid) else { return Ok(()) };
        peer.connection.handle_hello(hello)?;
        if let Some(old) = peer.socket.replace(socket.clone()) {
            old.end();
        }
        Ok(())
    }

    fn close(&mut self, socket: &Arc<Socket>) {
        let peer = self.peers.values_mut().find(|peer| is_socket(peer.socket.as_ref(), socket));
        if let Some(peer) = peer {
            peer.socket = None;
            peer.connection.handle_disconnected();
        }
    }

    /// Whether there is a stream to a mount.
    pub fn is_connected(&self, rid: u64) -> bool {
        self.peers.get(&rid).is_some_and(|peer| peer.socket.is_some())
    }

    /// Forgets those without a socket that `is_member` does not know.
    pub fn forget_strangers(&mut self, is_member: impl Fn(u64) -> bool) {
        self.peers.retain(|rid, peer| peer.socket.is_some() || is_member(*rid));
    }

    /// Queues a message of the server. One to a mount that is not there is dropped.
    pub fn send(&mut self, message: Outgoing) -> Result<(), FrameError> {
        let Some(peer) = self.peers.get_mut(&message.to) else { return Ok(()) };
        let Outgoing { kind, response, status, id, payload, .. } = message;
        if !response {
            return peer.connection.request(kind, payload).map(drop);
        }
        match peer.asked.remove(&id) {
            Some(id) => peer.connection.respond(id, kind, status, payload),
            None => Ok(()),
        }
    }

    /// Gives the sockets what is to be sent.
    #[inline(never)]
    pub fn transmit(&mut self) -> Result<(), FrameError> {
        let mut out = Vec::new();
        for peer in self.peers.values_mut() {
            let Some(socket) = &peer.socket else { continue };
            out.clear();
            while peer.connection.poll_transmit(&mut out)? {}
            if !out.is_empty() {
                socket.send(&out);
            }
        }
        Ok(())
    }

    /// Ends all sockets, when what was queued is sent.
    pub fn finish(&mut self) {
        for peer in self.peers.values_mut() {
            if let Some(socket) = peer.socket.take() {
                socket.finish();
            }
        }
    }
}

impl Peer {
    fn lose(&mut self, why: &str) {
        if let Some(socket) = self.socket.take() {
            scoutfs_env::debug!("server: a socket is given up: {why}");
            socket.end();
        }
        self.connection.handle_disconnected();
    }
}

fn is_socket(known: Option<&Arc<Socket>>, socket: &Arc<Socket>) -> bool {
    known.is_some_and(|known| Arc::ptr_eq(known, socket))
}
