// SPDX-License-Identifier: GPL-2.0-only
//! How a mount talks to the server: requests that wait for their answers, over a connection that outlives sockets and servers.
//!
//! One thread of the mount connects and receives (`session`): it wakes the requests whose answers came, and hands on the
//! server's own messages. Any thread may ask ([`Client::request`]); who asks while there is no server waits for one.
//!
//! Who serves a program that was killed does not wait for long ([`Killed`]), but for answers that somebody must take: numbers
//! of hand-overs follow each other ([`Client::request_surely`]).
//!
//! Locking: `sending` is held while bytes go into the stream, so that they go in order; then `state`, a leaf over the connection and the
//! table of open requests, never held while sending or waiting for anything else.

use core::time::Duration;

use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::net::Stream;
use scoutfs_env::sync::{Condvar, Mutex, MutexGuard};
use scoutfs_env::thread;
use scoutfs_env::time::{self, Mono};
use scoutfs_env::{Arc, Box, OrdMap, Vec};
use scoutfs_format::le::U64;
use scoutfs_format::msg::{
    HandOverHeader, MSG_FILE_LOCK_REPORT, MSG_JOIN, MSG_LEAVE, MSG_LOCK, MSG_LOCK_REPORT, MSG_OPENS_REPORT,
    MSG_RECOVERED, MSG_SEQ, MSG_SPACE, Recovered, STATUS_AGAIN, STATUS_NO_MEMORY, STATUS_NO_SPACE,
    STATUS_NOT_MEMBER, STATUS_OK, SeqReply,
};
use scoutfs_net::connection::{Connection, ConnectionError, Event, RequestId, Secret};
use scoutfs_net::frame::{Frame, FrameError};
use zerocopy::{FromBytes, IntoBytes};

use crate::counters::Counters;
use crate::error::{Error, Result};

/// How long to wait for memory before trying again, where nothing else can be done.
pub(crate) const MEMORY_PAUSE: Duration = Duration::from_millis(10);
/// Who may give up waiting looks at least this often whether to.
pub(crate) const LOOK: Duration = Duration::from_millis(500);
/// Why a mount shuts down that is no member any more.
pub(crate) const FENCED: &str = "the mount was fenced";
/// Bytes that are gathered before they are sent.
const GATHER: usize = 64 << 10;

/// A mount's end of its connection to the server.
pub(crate) struct Client {
    sending: Mutex<Vec<u8>>,
    state: Mutex<State>,
    answered: Condvar,
    /// The client is closed.
    closing: Condvar,
    counters: Arc<Counters>,
    /// Runs once, when the answer to a request of this kind has arrived and before who asked goes on.
    #[cfg(test)]
    pub on_answer: Mutex<Option<OnAnswer>>,
}

/// `MSG_*`, and what runs.
#[cfg(test)]
type OnAnswer = (u8, std::boxed::Box<dyn FnOnce() + Send>);

struct State {
    connection: Connection,
    stream: Option<Arc<Box<dyn Stream>>>,
    /// Requests that somebody waits for.
    requests: OrdMap<u64, Request>,
    given: Given,
    /// The mount has asked to join, so that servers may know it.
    joined: bool,
    /// The mount has left by its own record, whatever servers know of it.
    left: Option<Mono>,
    closed: bool,
    /// When the server was last heard, or the stream to it was opened.
    heard: Mono,
    /// Without a server requests fail from then on.
    give_up: Option<Mono>,
}

/// The newest numbers that any server has given, whatever became of them here.
#[derive(Clone, Copy, Default)]
pub(super) struct Given {
    /// Seq of a transaction.
    pub seq: u64,
    /// Hand-over of space.
    pub hand_over: u64,
}

/// Whether who waits for the server was killed, and has waited for a moment since. Most answers come in that time, and no operation
/// is left halfway because of it. Each wait has one of its own.
#[derive(Default)]
pub(crate) struct Killed(Option<Mono>);

impl Killed {
    /// How long to go on: for ever if he was not.
    pub fn left(&mut self) -> Option<Duration> {
        if !thread::is_killed() {
            return None;
        }
        let now = time::mono_now();
        Some(self.0.get_or_insert(now.saturating_add(LOOK)).saturating_duration_since(now))
    }
}

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Nobody, once he was killed: nothing depends on the answer.
    UntilKilled,
    /// Always somebody.
    Surely,
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
    /// What it is.
    pub of: OrderOf,
    /// By kind.
    pub payload: Vec<u8>,
}

/// What an [`Order`] is.
#[derive(Clone, Copy)]
pub(crate) enum OrderOf {
    /// A request, to be answered.
    Request(RequestId),
    /// An answer, with its `STATUS_*`.
    Answer(u16),
}

/// What came with a frame.
pub(super) enum Arrived {
    /// Nothing for anybody else.
    Nothing,
    /// Messages flow, with the server of this term; whether the session goes on.
    Established { term: u64, resumed: bool },
    /// For the node.
    Order(Order),
}

impl Given {
    /// An answer came.
    fn note(&mut self, kind: u8, payload: &[u8]) {
        match kind {
            MSG_SEQ => {
                if let Ok(reply) = SeqReply::read_from_bytes(payload) {
                    self.seq = self.seq.max(reply.seq.get());
                }
            }
            MSG_SPACE => {
                if let Ok((head, _)) = HandOverHeader::read_from_prefix(payload) {
                    self.hand_over = self.hand_over.max(head.number.get());
                }
            }
            _ => {}
        }
    }
}

impl Client {
    /// The client of the mount `rid`.
    pub fn new(fsid: u64, rid: u64, secret: Secret, counters: Arc<Counters>) -> Self {
        Client {
            sending: Mutex::new(Vec::new()),
            state: Mutex::new(State {
                connection: Connection::mount(fsid, rid, secret),
                stream: None,
                requests: OrdMap::new(),
                given: Given::default(),
                joined: false,
                left: None,
                closed: false,
                heard: Mono::ZERO,
                give_up: None,
            }),
            answered: Condvar::new(),
            closing: Condvar::new(),
            counters,
            #[cfg(test)]
            on_answer: Mutex::new(None),
        }
    }

    /// As [`Client::request_surely`], but `None` when the server says to ask again.
    pub fn try_request(&self, kind: u8, payload: &[u8]) -> Result<Option<Vec<u8>>> {
        self.try_request_as(kind, payload, Waits::Surely)
    }

    fn try_request_as(&self, kind: u8, payload: &[u8], waits: Waits) -> Result<Option<Vec<u8>>> {
        match self.request_once(kind, payload, waits)? {
            (STATUS_OK, answer) => Ok(Some(answer)),
            (STATUS_AGAIN, _) => Ok(None),
            (STATUS_NO_SPACE, _) => Err(Error::NoSpace),
            (STATUS_NO_MEMORY, _) => Err(Error::NoMemory),
            (STATUS_NOT_MEMBER, _) => Err(Error::Shutdown(FENCED)),
            (other, _) => Err(Error::Server(other)),
        }
    }

    /// Asks the server and waits for its answer, and for a server if there is none. Not to be called while in a transaction.
    /// [`Error::Interrupted`] when the calling thread was killed: the server may have heard it, and its answer is dropped.
    pub fn request(&self, kind: u8, payload: &[u8]) -> Result<Vec<u8>> {
        self.request_as(kind, payload, Waits::UntilKilled)
    }

    /// As [`Client::request`], but nobody stops waiting because he was killed.
    pub fn request_surely(&self, kind: u8, payload: &[u8]) -> Result<Vec<u8>> {
        self.request_as(kind, payload, Waits::Surely)
    }

    fn request_as(&self, kind: u8, payload: &[u8], waits: Waits) -> Result<Vec<u8>> {
        loop {
            match self.try_request_as(kind, payload, waits)? {
                Some(answer) => return Ok(answer),
                None => time::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Tells the server that the mount's last record is durable. One that has seen the record itself knows no such member
    /// any more.
    pub fn leave(&self, payload: &[u8]) -> Result<()> {
        self.state.lock().left.get_or_insert(time::mono_now());
        loop {
            let (status, answer) = match self.request_once(MSG_LEAVE, payload, Waits::Surely) {
                // Nobody is left to tell; the next server finds the record.
                Err(Error::Shutdown(_)) => return Ok(()),
                other => other?,
            };
            match (status, answer) {
                (STATUS_OK | STATUS_NOT_MEMBER, _) => return Ok(()),
                (STATUS_AGAIN, _) => time::sleep(Duration::from_millis(10)),
                (STATUS_NO_MEMORY, _) => return Err(Error::NoMemory),
                (other, _) => return Err(Error::Server(other)),
            }
        }
    }

    /// In a new session of a mount that is only just joining: a server that knows it from a former server's time grants
    /// nothing to anybody before it has heard what the mount has. That is nothing but numbers.
    pub(super) fn tell_joining(&self) -> Result<()> {
        let Given { seq, hand_over } = {
            let state = self.state.lock();
            if !state.joined || state.left.is_some() {
                return Ok(());
            }
            state.given
        };
        let said = Recovered {
            seq: U64::new(seq),
            last_seq: U64::new(seq),
            taken: U64::new(hand_over),
            commit_nr: U64::ZERO,
        };
        self.post(MSG_RECOVERED, said.as_bytes())
    }

    /// Whether [`Client::leave`] was called: a new server is to be told nothing else.
    pub(super) fn has_left(&self) -> bool {
        self.state.lock().left.is_some()
    }

    /// How long ago that was.
    pub(super) fn left_since(&self) -> Option<Duration> {
        let left = self.state.lock().left?;
        Some(time::mono_now().saturating_duration_since(left))
    }

    fn request_once(&self, kind: u8, payload: &[u8], waits: Waits) -> Result<(u16, Vec<u8>)> {
        let payload = Vec::from_slice(payload)?;
        let id = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(Error::Shutdown("the server is gone"));
            }
            state.requests.reserve(1)?;
            state.joined |= kind == MSG_JOIN;
            let id = state.connection.request(kind, payload).map_err(frame_error)?;
            if state.requests.insert(id, Request::Open).is_err() {
                state.connection.forget(id);
                return Err(Error::NoMemory);
            }
            id
        };
        self.counters.message_sent(kind);
        self.transmit();
        let mut state = self.state.lock();
        let (mut killed, mut interrupted) = (Killed::default(), false);
        loop {
            match state.requests.get(&id) {
                Some(Request::Open) if !state.closed => {}
                _ => break,
            }
            let after_kill = if waits == Waits::UntilKilled { killed.left() } else { None };
            state = match (state.give_up, after_kill) {
                (None, None) => self.answered.wait(state),
                (None, Some(left)) => {
                    interrupted = left.is_zero();
                    if interrupted {
                        break;
                    }
                    self.answered.wait_timeout(state, left).0
                }
                (Some(end), _) => {
                    let left = end.saturating_duration_since(time::mono_now());
                    if left.is_zero() && state.stream.is_none() {
                        break;
                    }
                    self.answered.wait_timeout(state, left.max(LOOK)).0
                }
            };
        }
        let request = state.requests.remove(&id);
        if matches!(request, Some(Request::Open)) {
            state.connection.forget(id);
        }
        drop(state);
        match request {
            Some(Request::Answered { status, payload }) => {
                #[cfg(test)]
                self.run_on_answer(kind);
                Ok((status, payload))
            }
            _ if interrupted => Err(Error::Interrupted),
            _ => Err(Error::Shutdown("the server is gone")),
        }
    }

    #[cfg(test)]
    fn run_on_answer(&self, kind: u8) {
        let hook = self.on_answer.lock().take_if(|(wanted, _)| *wanted == kind);
        if let Some((_, run)) = hook {
            run();
        }
    }

    /// Sends a request whose answer comes as an [`Order`], or is not of interest.
    pub fn post(&self, kind: u8, payload: &[u8]) -> Result<()> {
        self.enqueue(kind, payload)?;
        self.transmit();
        Ok(())
    }

    /// As [`Client::post`], but in a new session it goes before all that [`Client::resend`] puts there.
    pub(super) fn post_first(&self, kind: u8, payload: &[u8]) -> Result<()> {
        let payload = Vec::from_slice(payload)?;
        self.state.lock().connection.request_first(kind, payload).map_err(frame_error)?;
        self.counters.message_sent(kind);
        self.transmit();
        Ok(())
    }

    /// As [`Client::post`], but it goes with the next [`Client::transmit`].
    pub fn enqueue(&self, kind: u8, payload: &[u8]) -> Result<()> {
        let payload = Vec::from_slice(payload)?;
        self.state.lock().connection.request(kind, payload).map_err(frame_error)?;
        self.counters.message_sent(kind);
        Ok(())
    }

    /// Answers an [`Order`].
    pub fn answer(&self, kind: u8, id: RequestId, status: u16, payload: &[u8]) -> Result<()> {
        let payload = Vec::from_slice(payload)?;
        self.state.lock().connection.respond(id, kind, status, payload).map_err(frame_error)?;
        self.counters.message_sent(kind);
        self.transmit();
        Ok(())
    }

    /// Sends what is to be sent. A stream that does not take it is ended; all is sent again on the next.
    pub fn transmit(&self) {
        let mut bytes = self.sending.lock();
        loop {
            bytes.clear();
            let stream = {
                let mut state = self.state.lock();
                let Some(stream) = state.stream.clone() else { return };
                while bytes.len() < GATHER {
                    match state.connection.poll_transmit(&mut bytes) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(e) => {
                            scoutfs_env::warn!("sending to the server: {e}");
                            stream.shutdown();
                            return;
                        }
                    }
                }
                stream
            };
            if bytes.is_empty() {
                return;
            }
            if stream.send(&bytes).is_err() {
                stream.shutdown();
                return;
            }
        }
    }

    /// There is a stream to a server, and a greeting to be sent. False when the client is closed.
    pub(super) fn connected(&self, stream: &Arc<Box<dyn Stream>>) -> bool {
        let mut nonce = [0; 16];
        scoutfs_env::random::fill(&mut nonce);
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.connection.handle_connected(nonce);
        state.stream = Some(stream.clone());
        state.heard = time::mono_now();
        true
    }

    /// Waits for some time; true when the client is closed.
    pub(crate) fn wait_closed(&self, pause: Duration) -> bool {
        let end = time::mono_now().saturating_add(pause);
        let mut state = self.state.lock();
        loop {
            let left = end.saturating_duration_since(time::mono_now());
            if state.closed || left.is_zero() {
                return state.closed;
            }
            state = self.closing.wait_timeout(state, left).0;
        }
    }

    /// How long nothing was heard on the stream, if there is one.
    pub(super) fn silence(&self) -> Option<Duration> {
        let state = self.state.lock();
        state.stream.as_ref()?;
        Some(time::mono_now().saturating_duration_since(state.heard))
    }

    /// Ends the stream; who receives on it notices.
    pub(super) fn hang_up(&self) {
        let stream = self.state.lock().stream.clone();
        if let Some(stream) = stream {
            stream.shutdown();
        }
    }

    /// The stream has ended. `forget` ends the session as well: the server does not know it.
    pub(super) fn disconnected(&self, forget: bool) {
        let mut state = self.state.lock();
        state.connection.handle_disconnected();
        if forget {
            state.connection.end_session();
        }
        state.stream = None;
    }

    /// Takes a frame: answers wake their requests.
    pub(super) fn arrived(&self, frame: &Frame<'_>) -> core::result::Result<Arrived, ConnectionError> {
        // Memory first: what was taken is not given again.
        let payload = Vec::from_slice(frame.payload)?;
        let mut state = self.state.lock();
        state.heard = time::mono_now();
        let event = state.connection.handle_frame(frame)?;
        if let Some(Event::Request { kind, .. } | Event::Response { kind, .. }) = &event {
            self.counters.message_received(*kind);
        }
        Ok(match event {
            None => Arrived::Nothing,
            Some(Event::Established { term, resumed }) => Arrived::Established { term, resumed },
            Some(Event::Request { id, kind, .. }) => {
                Arrived::Order(Order { kind, of: OrderOf::Request(id), payload })
            }
            Some(Event::Response { id, kind, status, .. }) => {
                state.given.note(kind, &payload);
                let Some(request) = state.requests.get_mut(&id) else {
                    return Ok(Arrived::Order(Order { kind, of: OrderOf::Answer(status), payload }));
                };
                *request = Request::Answered { status, payload };
                drop(state);
                self.answered.notify_all();
                Arrived::Nothing
            }
        })
    }

    /// Another server has taken over: what was said to the old one of locks is void. Tells what servers have given.
    pub(super) fn begin_recovery(&self) -> Given {
        let mut state = self.state.lock();
        for kind in [MSG_LOCK, MSG_LOCK_REPORT, MSG_OPENS_REPORT, MSG_FILE_LOCK_REPORT, MSG_RECOVERED] {
            state.connection.forget_left(kind);
        }
        state.given
    }

    /// Puts the requests of earlier sessions into this one; until then new ones wait, too. To be called again when it fails.
    pub(super) fn resend(&self) -> Result<()> {
        let mut state = self.state.lock();
        if planted(Fault::DropResend) {
            (0..=u8::MAX).for_each(|kind| state.connection.forget_left(kind));
        }
        Ok(state.connection.resend_requests()?)
    }

    /// Whether [`Client::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Whether there is a stream to a server.
    pub fn has_server(&self) -> bool {
        self.state.lock().stream.is_some()
    }

    /// Fails when nobody waits for a server any more, and there is none, or when who waits was killed.
    pub fn check_patience(&self, killed: &mut Killed) -> Result<()> {
        let state = self.state.lock();
        match state.give_up {
            Some(end) if state.stream.is_none() && time::mono_now() >= end => {
                Err(Error::Shutdown("there is no server"))
            }
            // Who leaves does not wait for long, and must not do half of it.
            None if killed.left().is_some_and(|left| left.is_zero()) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    /// Takes a mutex that others may have while they wait for the server.
    pub fn lock_unless_killed<'a, T>(&self, mutex: &'a Mutex<T>) -> Result<MutexGuard<'a, T>> {
        match mutex.lock_unless_killed() {
            Some(guard) => Ok(guard),
            None if self.is_leaving() => Ok(mutex.lock()),
            None => Err(Error::Interrupted),
        }
    }

    /// Has all who wait for answers look whether they were killed.
    pub fn wake(&self) {
        drop(self.state.lock());
        self.answered.notify_all();
    }

    /// From `end` on nobody waits for a server any more.
    pub(super) fn give_up_at(&self, end: Mono) {
        self.state.lock().give_up.get_or_insert(end);
        self.answered.notify_all();
    }

    /// Whether [`Client::give_up_at`] was called: who then waits for a server in vain says nothing of the mount.
    pub(super) fn is_leaving(&self) -> bool {
        self.state.lock().give_up.is_some()
    }

    /// Ends the connection: all requests fail.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let stream = state.stream.take();
        drop(state);
        self.closing.notify_all();
        self.answered.notify_all();
        if let Some(stream) = stream {
            stream.shutdown();
        }
    }
}

fn frame_error(e: FrameError) -> Error {
    match e {
        FrameError::NoMemory(_) => Error::NoMemory,
        _ => Error::Invalid("a message that is too long"),
    }
}

#[cfg(test)]
mod tests;
