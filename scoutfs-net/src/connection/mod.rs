// SPDX-License-Identifier: GPL-2.0-only
//! One mount and one server, over any number of sockets.
//!
//! | module | what |
//! | --- | --- |
//! | `greeting` | the first message both ways |
//! | `handshake` | proofs that both sides can read the device |
//!
//! Sockets break; a *session* lasts. It begins with the first greeting between a mount and a server of some term
//! and ends when the mount greets a server of another term: both keep it as long as the mount is a member, whatever the socket does and
//! for however long. In a session every message has a seq; it is sent
//! again on each new socket until the other side has acknowledged it, and one that comes twice is dropped.
//! Acknowledgements travel in the headers of messages that go the other way, and in the greetings.
//!
//! # What must hold
//!
//! - In a session, each message is handled exactly once, in the order of sending.
//! - A new session means another server, or that the mount is a member no more, or not yet. There is no second one between a mount and
//!   a server that has heard it: what the server has done in the first would be done twice, and what it has granted nobody would
//!   know of. A mount that wants one is refused, and is fenced when its lease has ended.
//! - With a new session answers that were not sent yet are dropped, and a late answer to a request of an earlier session is ignored.
//!   Requests of a mount that have no answer stay and wait until [`Connection::resend_requests`] puts them into the new session,
//!   those too that are made until then; only [`Connection::request_first`] goes before them. The other side may therefore see a
//!   request that an earlier server has already carried out, and must expect it, but sees them in the order in which they were made.
//! - The newest socket of a mount counts: sockets are numbered by the mount, and a greeting that comes out of
//!   order is refused.
//! - The cost of a message does not depend on how many are on their way.

mod greeting;
mod handshake;
#[cfg(test)]
mod tests;

pub use greeting::{GreetingError, Hello, refuse};
pub use handshake::Handshake;

use core::fmt;

use handshake::{Said, Side};
use scoutfs_env::auth::PROOF_LEN;
use scoutfs_env::{AllocError, OrdMap, Vec};
use scoutfs_format::FORMAT_HASH;
use scoutfs_format::le::U64;
use scoutfs_format::msg::{Challenge, Greeting, MSG_CHALLENGE, MSG_GREETING, MSG_PROOF, Proof, STATUS_OK};
use zerocopy::{FromBytes, IntoBytes};

use crate::frame::{self, Frame, FrameError, Header};

/// The volume's secret, from its super block. It is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; PROOF_LEN]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why a socket must be closed. The session goes on with the next socket, unless the variant says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The two sides do not belong together.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    /// A message came while no greeting was complete, or a greeting came later.
    #[error("a message of kind {kind} came out of place")]
    OutOfPlace {
        /// `MSG_*`.
        kind: u8,
    },
    /// Messages of another term than the session's.
    #[error("a message has term {found}, the session has {expected}")]
    Term {
        /// As received.
        found: u64,
        /// Of the session.
        expected: u64,
    },
    /// Messages are missing.
    #[error("message {found} came when {expected} was due")]
    Gap {
        /// Seq that came.
        found: u64,
        /// Seq that was due.
        expected: u64,
    },
    /// The other side acknowledges what was never sent, or no longer what it had. The two sides do not
    /// have the same session.
    #[error("the other side acknowledges {found}, which is not in {acked} to {sent}")]
    Ack {
        /// As received.
        found: u64,
        /// Acknowledged before.
        acked: u64,
        /// Last seq sent.
        sent: u64,
    },
    /// A response to a request that the other side cannot have received.
    #[error("a response came to request {id}, which is not known to have been received")]
    EarlyResponse {
        /// Id of the request.
        id: u64,
    },
    /// No memory for an answer.
    #[error(transparent)]
    NoMemory(#[from] AllocError),
    /// A response of another kind than its request.
    #[error("a response of kind {found} came to a request of kind {expected}")]
    ResponseKind {
        /// As received.
        found: u8,
        /// Of the request.
        expected: u8,
    },
}

/// Names a request of the other side in the session in which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    session: u64,
    id: u64,
}

/// What a received message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Greetings were exchanged; messages flow.
    Established {
        /// Term of the server.
        term: u64,
        /// Whether the session goes on; otherwise a new one begins.
        resumed: bool,
    },
    /// The other side asks.
    Request {
        /// For [`Connection::respond`].
        id: RequestId,
        /// `MSG_*`.
        kind: u8,
        /// What it says.
        payload: &'a [u8],
    },
    /// The other side answers.
    Response {
        /// From [`Connection::request`].
        id: u64,
        /// `MSG_*`.
        kind: u8,
        /// `STATUS_*`.
        status: u16,
        /// What it says.
        payload: &'a [u8],
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Socket {
    Closed,
    /// Connected; the other side's challenge is due (mount only: a server has seen to all that before).
    Greeting,
    /// The server of this term has proved that it can read the device, and its greeting is due (mount only).
    Challenged {
        term: u64,
    },
    Open,
}

/// A request of this side that has no answer yet.
#[derive(Debug)]
struct Request {
    kind: u8,
    payload: Vec<u8>,
    /// Its place in this session; 0 when it is not in it.
    seq: u64,
    /// Nobody waits for the answer. It stays until it is answered or the session ends, so that it can still be
    /// sent in its place.
    forgotten: bool,
}

/// A message of this session that the other side has not acknowledged.
#[derive(Debug)]
enum Outgoing {
    /// The payload is with the request.
    Request {
        id: u64,
    },
    Response {
        id: u64,
        kind: u8,
        status: u16,
        payload: Vec<u8>,
    },
}

/// One side of the talk between a mount and a server. A mount has one; a server has one for each mount.
///
/// - `handle_*`: [`handle_connected`](Self::handle_connected) (mount), [`handle_hello`](Self::handle_hello)
///   (server), [`handle_frame`](Self::handle_frame), [`handle_disconnected`](Self::handle_disconnected).
/// - Commands: [`request`](Self::request), [`request_first`](Self::request_first), [`respond`](Self::respond),
///   [`forget`](Self::forget), [`resend_requests`](Self::resend_requests).
/// - [`poll_transmit`](Self::poll_transmit) after each of them, until it gives no more.
/// - Getters: [`is_open`](Self::is_open), [`term`](Self::term), [`unanswered`](Self::unanswered),
///   [`unacknowledged`](Self::unacknowledged).
///
/// It needs no clock: that a peer is dead is found by the socket's keepalive and user timeout, and by leases.
///
/// A mount: connect a socket, `handle_connected`, then feed frames; `Established` comes first. A server: give a
/// [`Handshake`] the frames of an accepted socket until it gives a [`Hello`], find the mount's connection or make one,
/// `handle_hello`, then feed frames. On any error close the socket and call `handle_disconnected`.
#[derive(Debug)]
pub struct Connection {
    fsid: u64,
    /// This side's mount; 0 for a server.
    rid: u64,
    /// A mount's: for the handshake.
    secret: Option<Secret>,
    socket: Socket,
    nonce: [u8; 16],
    greeting_due: bool,
    proof_due: Option<[u8; PROOF_LEN]>,
    /// Number of the newest socket.
    attempt: u64,
    /// A mount: the highest term of a server that it has talked to. A server: its own.
    term: u64,
    has_session: bool,
    /// The requests of earlier sessions are in this one, so others may follow. A server has none that matter.
    resent: bool,
    /// Counts sessions.
    session: u64,
    /// Seq of the last message that was put into the session.
    last_seq: u64,
    /// All messages up to this seq were acknowledged.
    acked: u64,
    /// All messages up to this seq were given to the socket.
    transmitted: u64,
    /// All messages up to this seq were received.
    received: u64,
    last_id: u64,
    outgoing: OrdMap<u64, Outgoing>,
    requests: OrdMap<u64, Request>,
}

impl Connection {
    fn new(fsid: u64, rid: u64, term: u64, secret: Option<Secret>) -> Self {
        Connection {
            fsid,
            rid,
            secret,
            socket: Socket::Closed,
            nonce: [0; 16],
            greeting_due: false,
            proof_due: None,
            attempt: 0,
            term,
            has_session: false,
            resent: rid == 0,
            session: 0,
            last_seq: 0,
            acked: 0,
            transmitted: 0,
            received: 0,
            last_id: 0,
            outgoing: OrdMap::new(),
            requests: OrdMap::new(),
        }
    }

    /// The side of the mount `rid`, which is not 0.
    pub fn mount(fsid: u64, rid: u64, secret: Secret) -> Self {
        Self::new(fsid, rid, 0, Some(secret))
    }

    /// The side of the server of `term`, for one mount.
    pub fn server(fsid: u64, term: u64) -> Self {
        Self::new(fsid, 0, term, None)
    }

    /// Whether messages flow.
    pub fn is_open(&self) -> bool {
        self.socket == Socket::Open
    }

    /// A mount: the highest term of a server that it has talked to, 0 none. A server: its own.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Requests of this side without an answer.
    pub fn unanswered(&self) -> usize {
        self.requests.len()
    }

    /// Messages of this session that the other side may not have received.
    pub fn unacknowledged(&self) -> usize {
        self.outgoing.len()
    }

    /// A mount's socket is connected; `nonce` is random. The greeting is transmitted next. A socket that was there
    /// before counts as closed.
    pub fn handle_connected(&mut self, nonce: [u8; 16]) {
        self.socket = Socket::Greeting;
        self.greeting_due = true;
        self.proof_due = None;
        self.nonce = nonce;
        self.attempt = self.attempt.saturating_add(1);
    }

    /// A server has accepted a socket on which the mount greeted and proved ([`Handshake`]). On success the mount's
    /// socket that was there before is to be closed, and this one counts. On error the new one is to be closed
    /// (after [`refuse`], best with [`STATUS_NOT_MEMBER`](scoutfs_format::msg::STATUS_NOT_MEMBER) for
    /// [`GreetingError::NoSession`] and [`ConnectionError::Ack`]), and nothing has changed.
    pub fn handle_hello(&mut self, hello: &Hello) -> Result<Event<'static>, ConnectionError> {
        if hello.attempt <= self.attempt {
            return Err(GreetingError::OldSocket { found: hello.attempt, newest: self.attempt }.into());
        }
        if hello.term > self.term {
            return Err(GreetingError::NewerTerm { theirs: hello.term, ours: self.term }.into());
        }
        let resumed = hello.term == self.term;
        if resumed {
            if !self.has_session {
                return Err(GreetingError::NoSession { term: self.term }.into());
            }
            self.acknowledge(hello.ack)?;
        } else if self.received > 0 {
            return Err(GreetingError::SecondSession { term: self.term }.into());
        } else {
            self.begin_session(self.term);
        }
        self.attempt = hello.attempt;
        self.open();
        self.greeting_due = true;
        Ok(Event::Established { term: self.term, resumed })
    }

    /// The socket is gone, or is being closed. The session waits for the next one.
    pub fn handle_disconnected(&mut self) {
        self.socket = Socket::Closed;
        self.greeting_due = false;
        self.proof_due = None;
    }

    /// A frame came. `None` means that there is nothing to do (a duplicate, or an answer that nobody waits for
    /// any more). On error close the socket.
    pub fn handle_frame<'a>(&mut self, frame: &Frame<'a>) -> Result<Option<Event<'a>>, ConnectionError> {
        let header = &frame.header;
        match self.socket {
            Socket::Closed => return Err(ConnectionError::OutOfPlace { kind: header.kind }),
            Socket::Greeting if header.kind == MSG_CHALLENGE => {
                return self.handle_challenge(frame).map(|()| None);
            }
            Socket::Greeting => return self.handle_greeting(frame, None).map(Some),
            Socket::Challenged { term } => return self.handle_greeting(frame, Some(term)).map(Some),
            Socket::Open => {}
        }
        if header.kind == MSG_GREETING {
            return Err(ConnectionError::OutOfPlace { kind: header.kind });
        }
        if header.term != self.term {
            return Err(ConnectionError::Term { found: header.term, expected: self.term });
        }
        if header.seq > self.received {
            let expected = self.received.saturating_add(1);
            if header.seq != expected {
                return Err(ConnectionError::Gap { found: header.seq, expected });
            }
        }
        // A message that is sent again carries a fresh ack, but one of an older copy may come late.
        if header.ack > self.acked {
            self.acknowledge(header.ack)?;
        }
        if header.seq <= self.received {
            return Ok(None);
        }
        if !header.response {
            self.received = header.seq;
            return Ok(Some(Event::Request {
                id: RequestId { session: self.session, id: header.id },
                kind: header.kind,
                payload: frame.payload,
            }));
        }
        match self.requests.get(&header.id) {
            Some(request) if request.seq == 0 || request.seq > self.acked => {
                return Err(ConnectionError::EarlyResponse { id: header.id });
            }
            Some(request) if request.kind != header.kind => {
                return Err(ConnectionError::ResponseKind { found: header.kind, expected: request.kind });
            }
            Some(_) | None => {}
        }
        self.received = header.seq;
        match self.requests.remove(&header.id) {
            Some(request) if !request.forgotten => {}
            Some(_) | None => return Ok(None),
        }
        Ok(Some(Event::Response {
            id: header.id,
            kind: header.kind,
            status: header.status,
            payload: frame.payload,
        }))
    }

    /// The server's challenge came to a mount.
    fn handle_challenge(&mut self, frame: &Frame<'_>) -> Result<(), ConnectionError> {
        let challenge = Challenge::ref_from_bytes(frame.payload).map_err(|_| GreetingError::Length {
            found: frame.payload.len(),
            expected: size_of::<Challenge>(),
        })?;
        let term = frame.header.term;
        if term < self.term {
            return Err(GreetingError::OldTerm { theirs: term, ours: self.term }.into());
        }
        let Some(secret) = self.secret else {
            return Err(ConnectionError::OutOfPlace { kind: frame.header.kind });
        };
        let said = Said {
            fsid: self.fsid,
            rid: self.rid,
            term,
            attempt: self.attempt,
            mount_nonce: self.nonce,
            server_nonce: challenge.nonce,
        };
        said.check(&secret, Side::Server, &challenge.proof)?;
        self.proof_due = Some(said.prove(&secret, Side::Mount));
        self.socket = Socket::Challenged { term };
        Ok(())
    }

    /// The server's greeting came to a mount. `proved` is the term of a server that has shown that it can read the device: another
    /// may only refuse.
    fn handle_greeting(
        &mut self,
        frame: &Frame<'_>,
        proved: Option<u64>,
    ) -> Result<Event<'static>, ConnectionError> {
        // Volume and format come before the status: they say why a server refuses.
        let greeting = greeting::parse(frame, self.fsid)?;
        if !frame.header.response {
            return Err(ConnectionError::OutOfPlace { kind: frame.header.kind });
        }
        let term = greeting.term.get();
        if term < self.term {
            return Err(GreetingError::OldTerm { theirs: term, ours: self.term }.into());
        }
        if frame.header.status != STATUS_OK {
            return Err(GreetingError::Refused { status: frame.header.status }.into());
        }
        if term == 0 || proved.is_some_and(|proved| proved != term) {
            return Err(ConnectionError::Term { found: term, expected: proved.unwrap_or(self.term) });
        }
        if proved.is_none() {
            return Err(GreetingError::Proof.into());
        }
        let resumed = self.has_session && term == self.term;
        if resumed {
            self.acknowledge(frame.header.ack)?;
        } else {
            self.begin_session(term);
        }
        self.open();
        Ok(Event::Established { term, resumed })
    }

    /// Ends the session and the socket, so that the next greeting begins a new session: for a mount that a server
    /// of the same term refused with [`STATUS_NOT_MEMBER`](scoutfs_format::msg::STATUS_NOT_MEMBER): one that has not joined
    /// yet may go on, another learns that it was fenced. A server of an older term is still refused.
    pub fn end_session(&mut self) {
        self.begin_session(self.term);
        self.has_session = false;
        self.handle_disconnected();
    }

    fn begin_session(&mut self, term: u64) {
        self.term = term;
        self.has_session = true;
        self.resent = self.rid == 0;
        self.session = self.session.saturating_add(1);
        self.last_seq = 0;
        self.acked = 0;
        self.transmitted = 0;
        self.received = 0;
        self.outgoing.clear();
        self.requests.retain(|_, request| !request.forgotten);
        for request in self.requests.values_mut() {
            request.seq = 0;
        }
    }

    fn open(&mut self) {
        self.socket = Socket::Open;
        self.transmitted = self.acked;
    }

    fn acknowledge(&mut self, ack: u64) -> Result<(), ConnectionError> {
        if ack < self.acked || ack > self.last_seq {
            return Err(ConnectionError::Ack { found: ack, acked: self.acked, sent: self.last_seq });
        }
        self.acked = ack;
        self.transmitted = self.transmitted.max(ack);
        while let Some((seq, _)) = self.outgoing.first_key_value()
            && *seq <= ack
        {
            self.outgoing.pop_first();
        }
        Ok(())
    }

    /// Sends a request and returns its id, which comes back with the response. In a mount's new session, and without one, it waits for
    /// [`resend_requests`](Self::resend_requests); without a socket it waits for the next one. On failure nothing
    /// has changed.
    pub fn request(&mut self, kind: u8, payload: Vec<u8>) -> Result<u64, FrameError> {
        self.request_when(self.resent, kind, payload)
    }

    /// As [`request`](Self::request), but in a new session it goes before the requests that were left from earlier ones.
    pub fn request_first(&mut self, kind: u8, payload: Vec<u8>) -> Result<u64, FrameError> {
        self.request_when(true, kind, payload)
    }

    fn request_when(&mut self, now: bool, kind: u8, payload: Vec<u8>) -> Result<u64, FrameError> {
        check_len(kind, &payload)?;
        let id = self.last_id.saturating_add(1);
        let request = Request { kind, payload, seq: 0, forgotten: false };
        self.requests.insert(id, request)?;
        if self.has_session
            && now
            && let Err(e) = self.send_request(id)
        {
            self.requests.remove(&id);
            return Err(e.into());
        }
        self.last_id = id;
        Ok(id)
    }

    /// Answers a request. Does nothing when the session of the request has ended. On failure nothing has
    /// changed, and the payload is lost.
    pub fn respond(
        &mut self,
        id: RequestId,
        kind: u8,
        status: u16,
        payload: Vec<u8>,
    ) -> Result<(), FrameError> {
        check_len(kind, &payload)?;
        if !self.has_session || id.session != self.session {
            return Ok(());
        }
        self.send(Outgoing::Response { id: id.id, kind, status, payload })?;
        Ok(())
    }

    /// Gives up waiting for an answer: none will come. The other side may still see the request.
    pub fn forget(&mut self, id: u64) {
        match self.requests.get_mut(&id) {
            Some(request) if request.seq != 0 => request.forgotten = true,
            Some(_) => {
                self.requests.remove(&id);
            }
            None => {}
        }
    }

    /// Gives up waiting for answers to requests of a kind that were left from earlier sessions, or made since this one began.
    pub fn forget_left(&mut self, kind: u8) {
        self.requests.retain(|_, request| request.seq != 0 || request.kind != kind);
    }

    /// Puts the requests that were left from earlier sessions into this one, in the order in which they were
    /// made. Does nothing without a session. On failure some may be; call it again.
    pub fn resend_requests(&mut self) -> Result<(), AllocError> {
        if !self.has_session {
            return Ok(());
        }
        let mut from = 0;
        while let Some((&id, request)) = self.requests.ceiling(&from) {
            let seq = request.seq;
            from = id.saturating_add(1);
            if seq == 0 {
                self.send_request(id)?;
            }
        }
        self.resent = true;
        Ok(())
    }

    fn send_request(&mut self, id: u64) -> Result<(), AllocError> {
        let seq = self.send(Outgoing::Request { id })?;
        if let Some(request) = self.requests.get_mut(&id) {
            request.seq = seq;
        }
        Ok(())
    }

    fn send(&mut self, message: Outgoing) -> Result<u64, AllocError> {
        let seq = self.last_seq.saturating_add(1);
        self.outgoing.insert(seq, message)?;
        self.last_seq = seq;
        Ok(seq)
    }

    /// Adds the next message to the bytes to be sent and says whether there was one. Several may be gathered for
    /// one write to the socket. On failure `out` is unchanged and the message comes again.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Result<bool, FrameError> {
        if self.greeting_due {
            self.encode_greeting(out)?;
            self.greeting_due = false;
            return Ok(true);
        }
        if let Some(proof) = self.proof_due {
            let header = self.handshake_header(MSG_PROOF);
            frame::encode(&header, Proof { proof }.as_bytes(), out)?;
            self.proof_due = None;
            return Ok(true);
        }
        if self.socket != Socket::Open || self.transmitted >= self.last_seq {
            return Ok(false);
        }
        // Everything after what was acknowledged is there, and so is the request of each.
        let seq = self.transmitted.saturating_add(1);
        let (id, kind, response, status, payload) = match self.outgoing.get(&seq) {
            Some(Outgoing::Request { id }) => match self.requests.get(id) {
                Some(request) => (*id, request.kind, false, STATUS_OK, &request.payload),
                None => return Ok(false),
            },
            Some(Outgoing::Response { id, kind, status, payload }) => (*id, *kind, true, *status, payload),
            None => return Ok(false),
        };
        let header = Header { kind, response, status, seq, ack: self.received, id, term: self.term };
        frame::encode(&header, payload, out)?;
        self.transmitted = seq;
        Ok(true)
    }

    fn encode_greeting(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let greeting = Greeting {
            fsid: U64::new(self.fsid),
            format_hash: U64::new(FORMAT_HASH),
            term: U64::new(if self.rid == 0 || self.has_session { self.term } else { 0 }),
            rid: U64::new(self.rid),
            nonce: self.nonce,
        };
        frame::encode(&self.handshake_header(MSG_GREETING), greeting.as_bytes(), out)
    }

    fn handshake_header(&self, kind: u8) -> Header {
        Header {
            kind,
            response: self.rid == 0,
            status: STATUS_OK,
            seq: 0,
            ack: self.received,
            id: self.attempt,
            term: self.term,
        }
    }
}

fn check_len(kind: u8, payload: &[u8]) -> Result<(), FrameError> {
    if payload.len() > scoutfs_format::msg::MAX_PAYLOAD {
        return Err(FrameError::TooLong { kind, len: payload.len() });
    }
    Ok(())
}
