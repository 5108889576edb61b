// SPDX-License-Identifier: GPL-2.0-only
//! Who handles what came. No thread of a server runs here: what nobody has handled stays in the inbox.

use core::time::Duration;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use scoutfs_btree::BlockCache;
use scoutfs_env::device::{BlockDevice, MemDevice};
use scoutfs_env::net::{Stream, pipe};
use scoutfs_env::{Arc, Box, time, try_box};
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{JoinRequest, MSG_INOS, MSG_JOIN, MSG_SEQ, SeqRequest};
use scoutfs_format::voter::ProcessId;
use scoutfs_net::connection::Secret;
use scoutfs_net::frame::Decoder;
use scoutfs_server::super_block::read_super_with_take_overs;
use scoutfs_server::{DeathOracle, Leader, Server};
use zerocopy::IntoBytes;

use super::super::client::{Arrived, Client, FENCED};
use super::super::inbox::Input;
use super::super::leadership::Leadership;
use super::super::peers::Peers;
use super::super::socket::{Identity, Socket};
use super::{Desk, Engine, MOST_AT_ONCE};
use crate::counters::Counters;
use crate::error::Error;

const RID: u64 = 9;
/// What waits this long waits for ever.
const PATIENCE: Duration = Duration::from_secs(20);

struct NobodyDies;

impl DeathOracle for NobodyDies {
    fn is_dead(&self, _: &ProcessId) -> bool {
        false
    }
}

/// An open desk, and who leads.
fn desk() -> (Arc<Desk>, Arc<Leadership>, Identity) {
    let device: Box<dyn BlockDevice> = try_box(MemDevice::new(64 << 20)).unwrap();
    let device = Arc::new(device).unwrap();
    crate::mkfs::mkfs(&device, &crate::mkfs::Options { quorum: 1, force: true }).unwrap();
    let (sb, take_overs) = read_super_with_take_overs(&**device).unwrap();
    let (fsid, term) = (sb.sb.id.fsid.get(), sb.sb.term.get() + 1);
    let secret = Secret(sb.sb.secret);
    let cache = Arc::new(BlockCache::new(device.clone(), fsid, sb.geometry, 64).unwrap()).unwrap();
    let leader = Leader { voter: 0, term, rid: RID };
    let now = time::mono_now();
    let mut server = Server::open(device, cache, (&sb, &take_overs), leader, &NobodyDies, now).unwrap();
    server.commit().unwrap();
    let lease_until = now.saturating_add(Duration::from_secs(100_000));
    let leadership = Arc::new(Leadership::new(lease_until)).unwrap();
    let desk = Arc::new(Desk::new()).unwrap();
    desk.open(server, Peers::new(fsid, term), leadership.clone());
    (desk, leadership, Identity { fsid, term, secret })
}

/// Receives for a client until the stream ends.
fn receive(client: &Client, stream: &Arc<Box<dyn Stream>>) {
    let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.receive(&mut buffer) {
        decoder.push(&buffer[..count]).unwrap();
        while let Some(frame) = decoder.next().unwrap() {
            if let Arrived::Established { resumed: false, .. } = client.arrived(&frame).unwrap() {
                client.resend().unwrap();
            }
        }
        client.transmit();
    }
    client.close();
}

/// A client that is connected to an open desk.
struct Bench<'a> {
    desk: &'a Desk,
    client: &'a Client,
    leadership: &'a Leadership,
    stream: Arc<Box<dyn Stream>>,
}

/// Also when a test fails: threads of the scope wait for the end of the stream.
impl Drop for Bench<'_> {
    fn drop(&mut self) {
        drop(self.desk.close());
        self.stream.shutdown();
    }
}

fn bench(test: impl FnOnce(&Bench<'_>)) {
    let (desk, leadership, identity) = desk();
    let client = Client::new(identity.fsid, RID, identity.secret, Arc::new(Counters::new()).unwrap());
    let (here, there) = pipe().unwrap();
    Socket::start(try_box(there).unwrap(), &desk, identity).unwrap();
    let here: Box<dyn Stream> = try_box(here).unwrap();
    let stream = Arc::new(here).unwrap();
    assert!(client.connected(&stream));
    thread::scope(|scope| {
        let (client, received) = (&client, stream.clone());
        let bench = Bench { desk: &desk, client, leadership: &leadership, stream };
        scope.spawn(move || receive(client, &received));
        client.transmit();
        let opened = bench.left(1);
        assert!(matches!(opened[..], [Input::Opened { .. }]));
        bench.engine(|engine| engine.handle(&opened[0]));
        bench.engine(Engine::send);
        test(&bench);
    });
}

impl Bench<'_> {
    fn engine(&self, act: impl FnOnce(&mut Engine)) {
        act(self.desk.lock().as_mut().unwrap());
    }

    /// Asks for a seq. Nobody waits for the answer.
    fn post_seq(&self) {
        self.client.post(MSG_SEQ, SEQ.as_bytes()).unwrap();
    }

    /// Asks for a seq, which who receives that is to answer. The mount is no member, and is told so.
    fn seq_is_answered(&self) {
        thread::scope(|scope| {
            let (told, answer) = channel();
            scope.spawn(move || drop(told.send(self.client.request(MSG_SEQ, SEQ.as_bytes()))));
            let answer = answer.recv_timeout(PATIENCE);
            if answer.is_err() {
                // The thread ends then.
                self.stream.shutdown();
            }
            assert!(matches!(answer, Ok(Err(Error::Shutdown(FENCED)))), "nobody has answered");
        });
    }

    /// Waits until so many inputs lie in the inbox, and the server's thread was woken.
    fn wait_for(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.desk.inbox.len() < count {
            assert!(Instant::now() < end, "{} were left of {count}", self.desk.inbox.len());
            thread::yield_now();
        }
        self.desk.inbox.wait(PATIENCE);
        assert!(Instant::now() < end, "the server's thread is not woken");
    }

    /// The same, and takes them.
    fn left(&self, count: usize) -> scoutfs_env::Vec<Input> {
        self.wait_for(count);
        self.desk.inbox.take()
    }
}

const SEQ: SeqRequest = SeqRequest { closed_below: U64::ZERO };

fn kinds(inputs: &[Input]) -> std::vec::Vec<u8> {
    let kind = |input: &Input| match input {
        Input::Message { header, .. } => header.kind,
        _ => 0,
    };
    inputs.iter().map(kind).collect()
}

#[test]
fn what_takes_no_waiting_is_handled_by_who_received_it_and_wakes_nobody() {
    bench(|bench| {
        bench.seq_is_answered();
        // What the first one did is over when the second one has its answer.
        bench.seq_is_answered();
        assert!(bench.desk.inbox.take().is_empty());
        assert!(!bench.desk.inbox.is_woken());
    });
}

#[test]
fn what_may_take_a_commit_is_left_and_so_is_all_that_comes_behind_it() {
    bench(|bench| {
        bench.client.enqueue(MSG_INOS, &[]).unwrap();
        bench.client.transmit();
        bench.wait_for(1);
        bench.post_seq();
        let both = bench.left(2);
        assert_eq!(kinds(&both), [MSG_INOS, MSG_SEQ]);
        bench.engine(|engine| both.iter().for_each(|input| engine.handle(input)));
        bench.engine(Engine::send);
        // Nothing is left that it would come behind.
        bench.seq_is_answered();
    });
}

#[test]
fn who_finds_the_server_busy_leaves_the_message_and_goes_on_receiving() {
    bench(|bench| {
        let busy = bench.desk.lock();
        for count in 1..=3 {
            bench.post_seq();
            bench.wait_for(count);
        }
        drop(busy);
        // The next one handles all that was left, in order: its answer is the last.
        bench.seq_is_answered();
        assert!(bench.desk.inbox.take().is_empty());
    });
}

/// Others wait for who receives from one mount no longer than a few messages take.
#[test]
fn many_messages_are_left_to_the_thread_of_the_server() {
    bench(|bench| {
        let busy = bench.desk.lock();
        for _ in 0..MOST_AT_ONCE {
            bench.post_seq();
        }
        bench.wait_for(MOST_AT_ONCE);
        drop(busy);
        bench.post_seq();
        assert_eq!(kinds(&bench.left(MOST_AT_ONCE + 1)), [MSG_SEQ; MOST_AT_ONCE + 1]);
    });
}

#[test]
fn without_a_lease_nothing_is_handled() {
    bench(|bench| {
        bench.leadership.lose();
        bench.post_seq();
        assert_eq!(kinds(&bench.left(1)), [MSG_SEQ]);
    });
}

/// A message of its was lost: mounts are to ask the next server, and to be told nothing more by this one.
#[test]
fn a_server_that_could_not_send_handles_nothing_more() {
    bench(|bench| {
        bench.engine(|engine| engine.is_mute = true);
        bench.post_seq();
        assert_eq!(kinds(&bench.left(1)), [MSG_SEQ]);
    });
}

/// The lease may end, and something may come that must be durable first, while a message is handled.
#[test]
fn what_was_handled_is_answered_only_with_a_lease_and_when_nothing_must_be_durable_first() {
    bench(|bench| {
        let request = JoinRequest {
            rid: U64::new(RID),
            process: ProcessId::default(),
            read_only: U32::ZERO,
            pad: U32::ZERO,
        };
        bench.client.enqueue(MSG_JOIN, request.as_bytes()).unwrap();
        bench.client.transmit();
        let join = bench.left(1);
        bench.engine(|engine| {
            engine.handle(&join[0]);
            assert!(engine.server.dirty() && !engine.answer_at_once());
            engine.server.commit().unwrap();
            assert!(engine.answer_at_once());
            engine.is_mute = true;
            assert!(
                !engine.answer_at_once(),
                "the server's thread does not hear that a message could not be sent"
            );
            engine.is_mute = false;
        });
        bench.leadership.lose();
        bench.post_seq();
        let seq = bench.left(1);
        bench.engine(|engine| {
            engine.handle(&seq[0]);
            assert!(!engine.answer_at_once());
            assert!(engine.server.poll_message().is_some(), "the answer was sent without a lease");
        });
    });
}

#[test]
fn nothing_is_taken_at_a_desk_that_is_closed() {
    bench(|bench| {
        assert!(bench.desk.close().is_some());
        bench.post_seq();
        let end = Instant::now() + PATIENCE;
        while !bench.client.is_closed() {
            assert!(Instant::now() < end, "the stream does not end");
            thread::yield_now();
        }
        assert_eq!(bench.desk.inbox.len(), 0);
    });
}
