// SPDX-License-Identifier: GPL-2.0-only
//! What who asks the server may rely on.

use core::time::Duration;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::vec::Vec;

use scoutfs_env::net::{Pipe, Stream, pipe};
use scoutfs_env::thread::run_for;
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::msg::{
    MSG_RENEW, STATUS_AGAIN, STATUS_NO_MEMORY, STATUS_NO_SPACE, STATUS_NOT_MEMBER, STATUS_OK,
};
use scoutfs_net::connection::{Connection, Event, Handshake, RequestId, Secret};
use scoutfs_net::frame::Decoder;

use super::{Arrived, Client};
use crate::counters::Counters;
use crate::error::Error;

const FSID: u64 = 7;
const TERM: u64 = 3;
const SECRET: Secret = Secret([1; 32]);

fn client() -> Client {
    Client::new(FSID, 9, SECRET, Arc::new(Counters::new()).unwrap())
}

/// Ends the client, also when the test fails.
struct Close<'a>(&'a Client);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Connects the client and receives until the stream ends, as the session's thread does.
fn receive(client: &Client, stream: Pipe) {
    let stream: Box<dyn Stream> = try_box(stream).unwrap();
    let stream = Arc::new(stream).unwrap();
    if !client.connected(&stream) {
        return;
    }
    client.transmit();
    let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
    while let Ok(count) = stream.receive(&mut buffer)
        && count > 0
    {
        decoder.push(&buffer[..count]).unwrap();
        while let Some(frame) = decoder.next().unwrap() {
            if let Arrived::Established { resumed: false, .. } = client.arrived(&frame).unwrap() {
                client.resend().unwrap();
            }
        }
        client.transmit();
    }
    client.disconnected(false);
}

/// The other end.
struct Server {
    connection: Connection,
    stream: Pipe,
    decoder: Decoder,
}

impl Server {
    /// Greets a client. `connection` is that of an earlier stream.
    fn greet(stream: Pipe, connection: Connection) -> Server {
        let mut server = Server { connection, stream, decoder: Decoder::new() };
        let mut handshake = Handshake::new(FSID, TERM, SECRET, [2; 16]);
        loop {
            let mut out = scoutfs_env::Vec::new();
            server.read();
            if let Some(frame) = server.decoder.next().unwrap() {
                let hello = handshake.handle_frame(&frame, &mut out).unwrap();
                server.stream.send(&out).unwrap();
                if let Some(hello) = hello {
                    server.connection.handle_hello(&hello).unwrap();
                    server.transmit();
                    return server;
                }
            }
        }
    }

    fn new(stream: Pipe) -> Server {
        Server::greet(stream, Connection::server(FSID, TERM))
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        let count = self.stream.receive(&mut buffer).unwrap();
        assert!(count > 0, "the client has ended the stream");
        self.decoder.push(&buffer[..count]).unwrap();
    }

    fn transmit(&mut self) {
        let mut out = scoutfs_env::Vec::new();
        while self.connection.poll_transmit(&mut out).unwrap() {}
        self.stream.send(&out).unwrap();
    }

    /// `count` requests that have arrived.
    fn requests(&mut self, count: usize) -> Vec<RequestId> {
        let mut ids = Vec::new();
        loop {
            while let Some(frame) = self.decoder.next().unwrap() {
                if let Some(Event::Request { id, .. }) = self.connection.handle_frame(&frame).unwrap() {
                    ids.push(id);
                }
            }
            if ids.len() >= count {
                return ids;
            }
            self.read();
        }
    }

    fn answer(&mut self, id: RequestId, status: u16) {
        self.connection.respond(id, MSG_RENEW, status, scoutfs_env::Vec::new()).unwrap();
        self.transmit();
    }
}

/// Invariant 20: each status arrives whole, and what is not known is an error, too.
#[test]
fn an_error_on_the_wire_is_the_error_that_is_told() {
    let client = client();
    let (here, there) = pipe().unwrap();
    thread::scope(|scope| {
        let _closing = Close(&client);
        scope.spawn(|| receive(&client, here));
        let mut server = Server::new(there);
        for status in (0..300).chain([0xff00, 0xfffb, u16::MAX]) {
            let asking = scope.spawn(|| client.try_request(MSG_RENEW, &[]));
            let ids = server.requests(1);
            server.answer(ids[0], status);
            match (status, asking.join().unwrap()) {
                (STATUS_OK, Ok(Some(payload))) => assert!(payload.is_empty()),
                (STATUS_AGAIN, Ok(None)) => {}
                (STATUS_NO_SPACE, Err(e @ Error::NoSpace)) => assert_eq!(e.errno(), 28),
                (STATUS_NO_MEMORY, Err(e @ Error::NoMemory)) => assert_eq!(e.errno(), 12),
                (STATUS_NOT_MEMBER, Err(e @ Error::Shutdown(_))) => assert_eq!(e.errno(), 5),
                (_, Err(ref e @ Error::Server(told))) => assert_eq!((told, e.errno()), (status, 5)),
                (_, other) => panic!("{status}: {other:?}"),
            }
        }
    });
}

/// Invariant 19: those who wait when the client is closed get an error, and those who come later do.
#[test]
fn nobody_waits_for_a_server_that_is_gone() {
    let client = client();
    let (here, there) = pipe().unwrap();
    thread::scope(|scope| {
        let _closing = Close(&client);
        let waiting: Vec<_> = (0..5).map(|_| scope.spawn(|| client.request(MSG_RENEW, &[]))).collect();
        scope.spawn(|| receive(&client, here));
        Server::new(there).requests(waiting.len());
        client.close();
        for asked in waiting {
            assert!(matches!(asked.join().unwrap(), Err(Error::Shutdown(_))));
        }
    });
    assert!(matches!(client.request(MSG_RENEW, &[]), Err(Error::Shutdown(_))));
    assert!(client.state.lock().requests.is_empty(), "a request that ended is kept");
}

/// Who is killed does not wait for a server any more, but for what somebody must know, and until then he waits as ever. A late answer
/// disturbs nobody.
#[test]
fn who_was_killed_waits_for_no_server() {
    let client = client();
    let killed = std::sync::Arc::new(AtomicBool::new(false));
    let (here, there) = pipe().unwrap();
    thread::scope(|scope| {
        let _closing = Close(&client);
        scope.spawn(|| receive(&client, here));
        let mut server = Server::new(there);
        let asking = scope.spawn(|| run_for(&killed, || client.request(MSG_RENEW, &[])));
        let first = server.requests(1)[0];
        let surely = scope.spawn(|| run_for(&killed, || client.request_surely(MSG_RENEW, &[])));
        let second = server.requests(1)[0];
        client.wake();
        thread::sleep(Duration::from_millis(20));
        assert!(!asking.is_finished(), "it was not killed");
        killed.store(true, Ordering::Release);
        client.wake();
        assert!(matches!(asking.join().unwrap(), Err(Error::Interrupted)));
        assert!(!surely.is_finished());
        server.answer(first, STATUS_OK);
        server.answer(second, STATUS_OK);
        assert!(surely.join().unwrap().unwrap().is_empty());
        // What is answered at once is heard even so.
        let asking = scope.spawn(|| run_for(&killed, || client.request(MSG_RENEW, &[])));
        let third = server.requests(1)[0];
        server.answer(third, STATUS_OK);
        assert!(asking.join().unwrap().is_ok());
    });
    assert!(client.state.lock().requests.is_empty(), "a request that ended is kept");
}

/// A request that was asked before there was a server, or whose stream broke, is answered, and handled once by one server.
#[test]
fn a_request_outlives_streams() {
    let client = client();
    let asked = StdMutex::new(0);
    thread::scope(|scope| {
        let _closing = Close(&client);
        for _ in 0..3 {
            scope.spawn(|| {
                client.request(MSG_RENEW, &[]).unwrap();
                *asked.lock().unwrap() += 1;
            });
        }
        while client.state.lock().connection.unanswered() < 3 {
            thread::sleep(Duration::from_millis(1));
        }
        let (here, there) = pipe().unwrap();
        let receiving = scope.spawn(|| receive(&client, here));
        let mut server = Server::new(there);
        let ids = server.requests(3);
        server.answer(ids[0], STATUS_OK);
        // The second answer is lost with the stream.
        server.connection.respond(ids[1], MSG_RENEW, STATUS_OK, scoutfs_env::Vec::new()).unwrap();
        let Server { mut connection, stream, .. } = server;
        stream.shutdown();
        receiving.join().unwrap();
        connection.handle_disconnected();
        let (here, there) = pipe().unwrap();
        scope.spawn(|| receive(&client, here));
        let mut server = Server::greet(there, connection);
        server.answer(ids[2], STATUS_OK);
        while *asked.lock().unwrap() < 3 {
            thread::sleep(Duration::from_millis(1));
        }
    });
}
