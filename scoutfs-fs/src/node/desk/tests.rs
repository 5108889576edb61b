// SPDX-License-Identifier: GPL-2.0-only
//! Who handles what came. No thread of a server runs here: what nobody has handled stays in the inbox.

use core::time::Duration;
use std::thread;
use std::time::Instant;

use scoutfs_btree::BlockCache;
use scoutfs_env::device::{BlockDevice, MemDevice};
use scoutfs_env::net::{Stream, pipe};
use scoutfs_env::{Arc, Box, time, try_box};
use scoutfs_format::le::U64;
use scoutfs_format::msg::{MSG_INOS, MSG_SEQ, SeqRequest};
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
use super::Desk;
use crate::counters::Counters;
use crate::error::Error;

const RID: u64 = 9;
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Waits until something lies in the inbox, and takes it.
fn left(desk: &Desk) -> scoutfs_env::Vec<Input> {
    let end = Instant::now() + PATIENCE;
    loop {
        let inputs = desk.inbox.take();
        if !inputs.is_empty() {
            return inputs;
        }
        assert!(Instant::now() < end, "nothing was left");
        desk.inbox.wait(PATIENCE);
    }
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

#[test]
fn what_takes_no_waiting_is_handled_by_who_received_it_and_all_else_is_left() {
    let (desk, leadership, identity) = desk();
    let client = Client::new(identity.fsid, RID, identity.secret, Arc::new(Counters::new()).unwrap());
    let (here, there) = pipe().unwrap();
    Socket::start(try_box(there).unwrap(), &desk, identity).unwrap();
    let here: Box<dyn Stream> = try_box(here).unwrap();
    let here = Arc::new(here).unwrap();
    assert!(client.connected(&here));
    thread::scope(|scope| {
        scope.spawn(|| receive(&client, &here));
        client.transmit();
        let opened = left(&desk);
        assert!(matches!(opened[..], [Input::Opened { .. }]));
        desk.lock().as_mut().unwrap().handle(&opened[0]);
        desk.lock().as_mut().unwrap().send();

        // It is no member, and is told so, though nobody but who receives is there to tell.
        let request = SeqRequest { closed_below: U64::ZERO };
        let answer = client.request(MSG_SEQ, request.as_bytes());
        assert!(matches!(answer, Err(Error::Shutdown(FENCED))));
        assert!(desk.inbox.take().is_empty());

        let is =
            |kind: u8, input: &Input| matches!(input, Input::Message { header, .. } if header.kind == kind);
        // Numbers of inodes may take a commit. What comes behind waits for it.
        client.enqueue(MSG_INOS, &[]).unwrap();
        client.post(MSG_SEQ, request.as_bytes()).unwrap();
        let end = Instant::now() + PATIENCE;
        while desk.inbox.len() < 2 {
            assert!(Instant::now() < end, "the second is not there");
            desk.inbox.wait(PATIENCE);
        }
        let both = left(&desk);
        assert!(is(MSG_INOS, &both[0]) && is(MSG_SEQ, &both[1]));

        // Somebody else is at it.
        let busy = desk.lock();
        client.post(MSG_SEQ, request.as_bytes()).unwrap();
        assert!(is(MSG_SEQ, &left(&desk)[0]));
        drop(busy);

        // Without a lease.
        leadership.lose();
        client.post(MSG_SEQ, request.as_bytes()).unwrap();
        assert!(is(MSG_SEQ, &left(&desk)[0]));

        drop(desk.close());
        here.shutdown();
    });
}
