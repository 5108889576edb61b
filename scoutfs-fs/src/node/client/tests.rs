// SPDX-License-Identifier: GPL-2.0-only
//! What who asks the server may rely on.

use core::time::Duration;
use std::sync::Barrier;
use std::thread;
use std::vec::Vec;

use scoutfs_env::Arc;
use scoutfs_format::msg::{MSG_RENEW, STATUS_AGAIN, STATUS_NO_MEMORY, STATUS_NO_SPACE, STATUS_OK};
use scoutfs_net::frame::{self, Decoder};

use super::Client;
use crate::counters::Counters;
use crate::error::Error;
use crate::node::transport::{End, Received, pair};

const SOON: Duration = Duration::from_secs(60);

fn connection() -> (Client, End) {
    let (mount, server) = pair().unwrap();
    (Client::new(mount, Arc::new(Counters::new()).unwrap()), server)
}

struct Close<'a>(&'a Client);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Ids of `count` requests that have arrived.
fn requests(server: &End, count: usize) -> Vec<u64> {
    let mut ids = Vec::new();
    let mut decoder = Decoder::new();
    while ids.len() < count {
        let messages = match server.receive(SOON) {
            Received::Messages(messages) => messages,
            // A wake-up of a message that was taken before.
            Received::Timeout => continue,
            Received::Closed => panic!("no request came"),
        };
        for message in &messages {
            decoder.push(message).unwrap();
            while let Some(frame) = decoder.next().unwrap() {
                ids.push(frame.header.id);
            }
        }
    }
    ids
}

fn answer(server: &End, seq: u64, id: u64, status: u16) {
    let header = frame::Header { kind: MSG_RENEW, response: true, status, seq, ack: 0, id, term: 1 };
    let mut message = scoutfs_env::Vec::new();
    frame::encode(&header, &[], &mut message).unwrap();
    server.send(message).unwrap();
}

/// Invariant 20: each status arrives whole, and what is not known is an error, too.
#[test]
fn an_error_on_the_wire_is_the_error_that_is_told() {
    let (client, server) = connection();
    thread::scope(|scope| {
        // Ends the receiver, also when the test fails.
        let _closing = Close(&client);
        scope.spawn(|| while let Ok(Some(_)) = client.receive(SOON) {});
        for (seq, status) in (0..300).chain([0xff00, 0xfffb, u16::MAX]).enumerate() {
            let asking = scope.spawn(|| client.try_request(MSG_RENEW, &[]));
            let ids = requests(&server, 1);
            answer(&server, seq as u64 + 1, ids[0], status);
            match (status, asking.join().unwrap()) {
                (STATUS_OK, Ok(Some(payload))) => assert!(payload.is_empty()),
                (STATUS_AGAIN, Ok(None)) => {}
                (STATUS_NO_SPACE, Err(e @ Error::NoSpace)) => assert_eq!(e.errno(), 28),
                (STATUS_NO_MEMORY, Err(e @ Error::NoMemory)) => assert_eq!(e.errno(), 12),
                (_, Err(ref e @ Error::Server(told))) => assert_eq!((told, e.errno()), (status, 5)),
                (_, other) => panic!("{status}: {other:?}"),
            }
        }
    });
}

/// Invariant 19: those who wait when the server goes get an error, and those who come later do.
#[test]
fn nobody_waits_for_a_server_that_is_gone() {
    const WAITING: usize = 5;
    for gone_by in [|_: &Client, server: &End| server.close(), |client: &Client, _: &End| client.close()] {
        let (client, server) = connection();
        let all_asked = Barrier::new(2);
        thread::scope(|scope| {
            let waiting: Vec<_> =
                (0..WAITING).map(|_| scope.spawn(|| client.request(MSG_RENEW, &[]))).collect();
            scope.spawn(|| {
                all_asked.wait();
                while let Ok(Some(_)) = client.receive(SOON) {}
            });
            requests(&server, WAITING);
            all_asked.wait();
            gone_by(&client, &server);
            for asked in waiting {
                assert!(matches!(asked.join().unwrap(), Err(Error::Shutdown(_))));
            }
        });
        assert!(matches!(client.request(MSG_RENEW, &[]), Err(Error::Shutdown(_))));
        assert!(client.state.lock().requests.is_empty(), "a request that ended is kept");
    }
}
