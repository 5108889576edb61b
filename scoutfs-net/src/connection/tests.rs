// SPDX-License-Identifier: GPL-2.0-only
//! A mount and servers over sockets that cut, lose and break.

use proptest::prelude::*;
use scoutfs_format::msg::{MSG_INOS, MSG_LOCK, MSG_SEQ, STATUS_NOT_MEMBER};
use std::collections::VecDeque;
use std::string::ToString;
use std::vec::Vec as StdVec;

use super::*;
use crate::frame::Decoder;

const FSID: u64 = 7;
const RID: u64 = 9;
const SECRET: Secret = Secret([5; 32]);

/// Both ends of a socket; bytes are delivered when the test says so.
struct Wire {
    mount: Connection,
    server: Connection,
    connected: bool,
    to_server: Vec<u8>,
    to_mount: Vec<u8>,
    server_in: Decoder,
    mount_in: Decoder,
    /// Of the socket, until the mount has proved.
    handshake: Option<Handshake>,
    nonce: u8,
    /// The mount has to say something first in a new session.
    holds_back: bool,
    at_mount: StdVec<Seen>,
    at_server: StdVec<Seen>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Established(u64, bool),
    Request(RequestId, u8, StdVec<u8>),
    Response(u64, u8, u16, StdVec<u8>),
}

fn seen(event: Event<'_>) -> Seen {
    match event {
        Event::Established { term, resumed } => Seen::Established(term, resumed),
        Event::Request { id, kind, payload } => Seen::Request(id, kind, payload.to_vec()),
        Event::Response { id, kind, status, payload } => Seen::Response(id, kind, status, payload.to_vec()),
    }
}

impl Wire {
    fn new(term: u64) -> Self {
        Wire {
            mount: Connection::mount(FSID, RID, SECRET),
            server: Connection::server(FSID, term),
            connected: false,
            to_server: Vec::new(),
            to_mount: Vec::new(),
            server_in: Decoder::new(),
            mount_in: Decoder::new(),
            handshake: None,
            nonce: 0,
            holds_back: false,
            at_mount: StdVec::new(),
            at_server: StdVec::new(),
        }
    }

    fn connect(&mut self) {
        self.cut();
        self.nonce = self.nonce.wrapping_add(1);
        self.mount.handle_connected([self.nonce; 16]);
        self.connected = true;
        self.handshake = Some(Handshake::new(FSID, self.server.term(), SECRET, [!self.nonce; 16]));
    }

    fn cut(&mut self) {
        self.connected = false;
        self.handshake = None;
        self.to_server.clear();
        self.to_mount.clear();
        self.server_in = Decoder::new();
        self.mount_in = Decoder::new();
        self.mount.handle_disconnected();
        self.server.handle_disconnected();
    }

    /// Moves up to `limit` bytes each way.
    fn step(&mut self, limit: usize) -> Result<(), ConnectionError> {
        if !self.connected {
            return Ok(());
        }
        while self.mount.poll_transmit(&mut self.to_server).unwrap() {}
        let n = limit.min(self.to_server.len());
        self.server_in.push(&self.to_server[..n]).unwrap();
        self.to_server.drain(..n);
        while let Some(frame) = self.server_in.next().unwrap() {
            let event = match &mut self.handshake {
                None => self.server.handle_frame(&frame)?,
                Some(handshake) => match handshake.handle_frame(&frame, &mut self.to_mount)? {
                    None => None,
                    Some(hello) => {
                        self.handshake = None;
                        Some(self.server.handle_hello(&hello)?)
                    }
                },
            };
            self.at_server.extend(event.map(seen));
        }
        while self.server.poll_transmit(&mut self.to_mount).unwrap() {}
        let n = limit.min(self.to_mount.len());
        self.mount_in.push(&self.to_mount[..n]).unwrap();
        self.to_mount.drain(..n);
        while let Some(frame) = self.mount_in.next().unwrap() {
            let event = self.mount.handle_frame(&frame)?.map(seen);
            if matches!(event, Some(Seen::Established(_, false))) && !self.holds_back {
                self.mount.resend_requests().unwrap();
            }
            self.at_mount.extend(event);
        }
        Ok(())
    }

    fn settle(&mut self) {
        for _ in 0..4 {
            self.step(usize::MAX).unwrap();
        }
    }
}

fn payload(bytes: &[u8]) -> Vec<u8> {
    Vec::from_slice(bytes).unwrap()
}

#[derive(Debug, Clone)]
enum Act {
    Ask(bool),
    Answer(bool),
    Step(usize),
    Break,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => any::<bool>().prop_map(Act::Ask),
        3 => any::<bool>().prop_map(Act::Answer),
        5 => (1usize..200).prop_map(Act::Step),
        1 => Just(Act::Break),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn each_message_is_handled_once_and_in_order_whatever_sockets_do(
        acts in proptest::collection::vec(act(), 1..200),
    ) {
        let mut wire = Wire::new(3);
        wire.connect();
        wire.settle();
        let mut asked = [0u32; 2];
        // Requests of the other side that were not answered yet, for mount and server.
        let mut open: [VecDeque<(RequestId, StdVec<u8>)>; 2] = Default::default();
        let mut handled = [0u32; 2];
        let mut answered: [StdVec<u32>; 2] = Default::default();
        let mut ids: [StdVec<u64>; 2] = Default::default();
        let heal = (0..1000).map(|i| match i % 3 {
            0 => Act::Step(usize::MAX),
            1 => Act::Answer(true),
            _ => Act::Answer(false),
        });
        for act in acts.into_iter().chain(heal) {
            match act {
                Act::Ask(by_mount) => {
                    let side = by_mount as usize;
                    let who = if by_mount { &mut wire.mount } else { &mut wire.server };
                    ids[side].push(who.request(MSG_LOCK, payload(&asked[side].to_le_bytes())).unwrap());
                    asked[side] += 1;
                }
                Act::Answer(by_mount) => {
                    if let Some((id, bytes)) = open[by_mount as usize].pop_front() {
                        let who = if by_mount { &mut wire.mount } else { &mut wire.server };
                        who.respond(id, MSG_LOCK, STATUS_OK, payload(&bytes)).unwrap();
                    }
                }
                Act::Step(limit) => {
                    if !wire.connected {
                        wire.connect();
                    }
                    wire.step(limit).unwrap();
                }
                Act::Break => wire.cut(),
            }
            for (side, events) in [(1, &mut wire.at_mount), (0, &mut wire.at_server)] {
                for event in events.drain(..) {
                    match event {
                        Seen::Established(term, _) => prop_assert_eq!(term, 3),
                        Seen::Request(id, kind, bytes) => {
                            prop_assert_eq!(kind, MSG_LOCK);
                            prop_assert_eq!(&bytes, &handled[side].to_le_bytes());
                            handled[side] += 1;
                            open[side].push_back((id, bytes));
                        }
                        Seen::Response(id, _, _, bytes) => {
                            let n = u32::from_le_bytes(bytes.try_into().unwrap());
                            prop_assert_eq!(ids[side][n as usize], id);
                            answered[side].push(n);
                        }
                    }
                }
            }
        }
        for side in 0..2 {
            prop_assert_eq!(handled[1 - side], asked[side]);
            prop_assert!(answered[side].iter().copied().eq(0..asked[side]), "{:?}", answered[side]);
        }
        prop_assert_eq!(wire.mount.unanswered() + wire.server.unanswered(), 0);
    }
}

#[test]
fn a_new_server_gets_the_unanswered_requests_when_the_mount_is_ready() {
    let mut wire = Wire::new(3);
    wire.connect();
    wire.settle();
    let a = wire.mount.request(MSG_SEQ, payload(b"a")).unwrap();
    let b = wire.mount.request(MSG_INOS, payload(b"b")).unwrap();
    wire.server.request(MSG_LOCK, payload(b"revoke")).unwrap();
    wire.settle();
    let Some(Seen::Request(revoke, ..)) = wire.at_mount.last().cloned() else {
        panic!("no revoke");
    };
    wire.server = Connection::server(FSID, 5);
    wire.holds_back = true;
    wire.at_mount.clear();
    wire.at_server.clear();
    wire.connect();
    wire.settle();
    assert_eq!(wire.at_mount, [Seen::Established(5, false)]);
    // A late answer to the old server says nothing to the new one.
    wire.mount.respond(revoke, MSG_LOCK, STATUS_OK, payload(b"late")).unwrap();
    // What is asked meanwhile does not overtake what was asked before.
    wire.mount.request(MSG_SEQ, payload(b"c")).unwrap();
    let join = wire.mount.request_first(MSG_LOCK, payload(b"join")).unwrap();
    wire.settle();
    assert_eq!(wire.at_server.len(), 2);
    wire.mount.resend_requests().unwrap();
    wire.mount.request(MSG_SEQ, payload(b"d")).unwrap();
    wire.settle();
    let asked: StdVec<_> = wire.at_server[1..]
        .iter()
        .map(|e| match e {
            Seen::Request(_, _, p) => p.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, [b"join".to_vec(), b"a".to_vec(), b"b".to_vec(), b"c".to_vec(), b"d".to_vec()]);
    assert!(a < b && b < join);
}

#[test]
fn a_forgotten_request_keeps_its_place_and_its_answer_is_dropped() {
    let mut wire = Wire::new(3);
    wire.connect();
    wire.settle();
    wire.connect();
    let a = wire.mount.request(MSG_SEQ, payload(b"a")).unwrap();
    wire.mount.request(MSG_SEQ, payload(b"b")).unwrap();
    wire.mount.forget(a);
    wire.settle();
    wire.at_mount.clear();
    for event in std::mem::take(&mut wire.at_server) {
        if let Seen::Request(id, kind, p) = event {
            wire.server.respond(id, kind, STATUS_OK, payload(&p)).unwrap();
        }
    }
    wire.settle();
    assert!(matches!(&wire.at_mount[..], [Seen::Response(_, _, _, p)] if p == b"b"));
    assert_eq!(wire.mount.unanswered(), 0);
}

#[test]
fn a_greeting_of_an_older_socket_does_not_disturb_the_newer_one() {
    let mut mount = Connection::mount(FSID, RID, SECRET);
    let mut server = Connection::server(FSID, 3);
    let hello = |mount: &mut Connection| {
        mount.handle_connected([1; 16]);
        let mut bytes = Vec::new();
        assert!(mount.poll_transmit(&mut bytes).unwrap());
        let mut decoder = Decoder::new();
        decoder.push(&bytes).unwrap();
        Hello::parse(&decoder.next().unwrap().unwrap(), FSID).unwrap()
    };
    let first = hello(&mut mount);
    let second = hello(&mut mount);
    assert!(server.handle_hello(&second).is_ok());
    assert_eq!(server.handle_hello(&first), Err(GreetingError::OldSocket { found: 1, newest: 2 }.into()));
    assert!(server.is_open());
}

/// Invariant 68, for nodes.
#[test]
fn another_format_is_refused_with_both_hashes() {
    let mut mount = Connection::mount(FSID, RID, SECRET);
    mount.handle_connected([1; 16]);
    let greeting = Greeting { fsid: U64::new(FSID), format_hash: U64::new(0x1234), ..Default::default() };
    let frame = Frame {
        header: Header {
            kind: MSG_GREETING,
            response: true,
            status: STATUS_NOT_MEMBER,
            seq: 0,
            ack: 0,
            id: 0,
            term: 3,
        },
        payload: greeting.as_bytes(),
    };
    let error = mount.handle_frame(&frame).unwrap_err();
    assert_eq!(
        error.to_string(),
        std::format!("the other side speaks format 0000000000001234, this side speaks {FORMAT_HASH:016x}")
    );
}

#[test]
fn a_server_that_does_not_know_the_session_refuses_and_the_mount_may_begin_anew() {
    let mut wire = Wire::new(3);
    wire.connect();
    wire.settle();
    wire.server = Connection::server(FSID, 3);
    wire.connect();
    wire.step(usize::MAX).unwrap();
    let error = wire.step(usize::MAX).unwrap_err();
    assert_eq!(error, GreetingError::NoSession { term: 3 }.into());
    refuse(FSID, 3, STATUS_NOT_MEMBER, &mut wire.to_mount).unwrap();
    wire.mount_in.push(&wire.to_mount).unwrap();
    assert_eq!(
        wire.mount.handle_frame(&wire.mount_in.next().unwrap().unwrap()),
        Err(GreetingError::Refused { status: STATUS_NOT_MEMBER }.into())
    );
    wire.mount.end_session();
    wire.at_mount.clear();
    wire.connect();
    wire.settle();
    assert_eq!(wire.at_mount, [Seen::Established(3, false)]);
}

#[test]
fn a_server_that_has_heard_a_mount_begins_no_second_session_with_it() {
    let mut wire = Wire::new(3);
    wire.connect();
    wire.settle();
    // Nothing was said: the mount may not even know that there was a session.
    wire.mount = Connection::mount(FSID, RID, SECRET);
    wire.mount.attempt = 1;
    wire.connect();
    wire.settle();
    assert_eq!(wire.at_mount, [Seen::Established(3, false), Seen::Established(3, false)]);
    wire.mount.request(MSG_SEQ, payload(b"a")).unwrap();
    wire.settle();
    let Some(Seen::Request(id, ..)) = wire.at_server.last().cloned() else { panic!("no request") };
    wire.mount.end_session();
    wire.connect();
    wire.step(usize::MAX).unwrap();
    assert_eq!(wire.step(usize::MAX), Err(GreetingError::SecondSession { term: 3 }.into()));
    assert_eq!(wire.at_server.iter().filter(|seen| matches!(seen, Seen::Request(..))).count(), 1);
    // Nothing has changed for who goes on.
    wire.server.respond(id, MSG_SEQ, STATUS_OK, payload(b"b")).unwrap();
    assert_eq!(wire.server.unacknowledged(), 1);
}

#[test]
fn older_and_newer_terms_are_told_apart() {
    let mut wire = Wire::new(5);
    wire.connect();
    wire.settle();
    wire.server = Connection::server(FSID, 4);
    wire.connect();
    assert_eq!(wire.step(usize::MAX), Err(GreetingError::NewerTerm { theirs: 5, ours: 4 }.into()));
    refuse(FSID, 4, STATUS_NOT_MEMBER, &mut wire.to_mount).unwrap();
    wire.mount_in.push(&wire.to_mount).unwrap();
    assert_eq!(
        wire.mount.handle_frame(&wire.mount_in.next().unwrap().unwrap()),
        Err(GreetingError::OldTerm { theirs: 4, ours: 5 }.into())
    );
}

#[test]
fn hostile_headers_are_named_errors() {
    let mut wire = Wire::new(3);
    wire.connect();
    wire.settle();
    let id = wire.mount.request(MSG_SEQ, payload(b"a")).unwrap();
    let good = Header { kind: MSG_SEQ, response: true, status: 0, seq: 1, ack: 1, id, term: 3 };
    let mut check = |change: fn(&mut Header), expected: ConnectionError| {
        let mut header = good;
        change(&mut header);
        let frame = Frame { header, payload: &[] };
        assert_eq!(wire.mount.handle_frame(&frame), Err(expected));
    };
    check(|h| h.term = 4, ConnectionError::Term { found: 4, expected: 3 });
    check(|h| h.seq = 3, ConnectionError::Gap { found: 3, expected: 1 });
    check(|h| h.ack = 2, ConnectionError::Ack { found: 2, acked: 0, sent: 1 });
    check(|h| h.ack = 0, ConnectionError::EarlyResponse { id });
    check(|h| h.kind = MSG_LOCK, ConnectionError::ResponseKind { found: MSG_LOCK, expected: MSG_SEQ });
    check(|h| h.kind = MSG_GREETING, ConnectionError::OutOfPlace { kind: MSG_GREETING });
}

#[test]
fn a_message_without_memory_changes_nothing() {
    let mut wire = Wire::new(3);
    wire.connect();
    wire.settle();
    for n in 0.. {
        let bytes = payload(b"x");
        scoutfs_env::alloc_fault::fail_after(n);
        let result = wire.mount.request(MSG_SEQ, bytes);
        scoutfs_env::alloc_fault::clear();
        match result {
            Err(_) => {
                assert_eq!(wire.mount.unanswered(), 0);
                assert_eq!(wire.mount.unacknowledged(), 0);
            }
            Ok(id) => {
                assert_eq!(id, 1);
                break;
            }
        }
    }
}

/// Who does not know the secret gets nowhere, on either side, and changes nothing of a session.
#[test]
fn who_cannot_read_the_device_is_refused_by_both_sides() {
    let mut wire = Wire::new(3);
    wire.connect();
    wire.settle();
    assert!(wire.server.is_open());
    // A mount with another secret: the server's proof is wrong to it.
    let mut stranger = Wire::new(3);
    stranger.mount = Connection::mount(FSID, RID, Secret([6; 32]));
    stranger.connect();
    assert_eq!(stranger.step(usize::MAX), Err(GreetingError::Proof.into()));
    // One that does not care, and proves with what the server has sent: a proof is not good for the other side.
    let mut handshake = Handshake::new(FSID, 3, SECRET, [1; 16]);
    let mut mount = Connection::mount(FSID, RID, SECRET);
    mount.handle_connected([2; 16]);
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    mount.poll_transmit(&mut bytes).unwrap();
    let mut decoder = Decoder::new();
    decoder.push(&bytes).unwrap();
    assert_eq!(handshake.handle_frame(&decoder.next().unwrap().unwrap(), &mut out), Ok(None));
    let mut answers = Decoder::new();
    answers.push(&out).unwrap();
    let challenge = answers.next().unwrap().unwrap();
    let stolen = Proof { proof: Challenge::ref_from_bytes(challenge.payload).unwrap().proof };
    let header = Header { kind: MSG_PROOF, response: false, ..challenge.header };
    let frame = Frame { header, payload: stolen.as_bytes() };
    assert_eq!(handshake.handle_frame(&frame, &mut out), Err(GreetingError::Proof.into()));
    // One that leaves the proof out.
    let frame = Frame { header: Header { kind: MSG_SEQ, ..header }, payload: &[] };
    let error = handshake.handle_frame(&frame, &mut out);
    assert_eq!(error, Err(ConnectionError::OutOfPlace { kind: MSG_SEQ }));
    // A server that leaves the challenge out.
    let header = Header { kind: MSG_GREETING, response: true, ..header };
    let greeting = Greeting {
        fsid: U64::new(FSID),
        format_hash: U64::new(FORMAT_HASH),
        term: U64::new(3),
        ..Default::default()
    };
    let frame = Frame { header, payload: greeting.as_bytes() };
    assert_eq!(mount.handle_frame(&frame), Err(GreetingError::Proof.into()));
}

/// A proof is for one socket of one mount in one term: no other can be shown it.
#[test]
fn a_proof_is_good_once() {
    let said =
        Said { fsid: FSID, rid: RID, term: 3, attempt: 1, mount_nonce: [1; 16], server_nonce: [2; 16] };
    let proof = said.prove(&SECRET, Side::Mount);
    assert_eq!(said.check(&SECRET, Side::Mount, &proof), Ok(()));
    let others = [
        Said { fsid: 8, ..said },
        Said { rid: 8, ..said },
        Said { term: 4, ..said },
        Said { attempt: 2, ..said },
        Said { mount_nonce: [9; 16], ..said },
        Said { server_nonce: [9; 16], ..said },
    ];
    for other in others {
        assert_eq!(other.check(&SECRET, Side::Mount, &proof), Err(GreetingError::Proof));
    }
    assert_eq!(said.check(&SECRET, Side::Server, &proof), Err(GreetingError::Proof));
}
