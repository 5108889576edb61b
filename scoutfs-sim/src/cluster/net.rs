// SPDX-License-Identifier: GPL-2.0-only
//! The network between the hosts: streams as TCP gives them.
//!
//! # Fault model
//!
//! - Bytes arrive whole and in order, after a delay, or the stream breaks.
//! - A direction between two hosts can be cut: bytes wait, and when either direction stays cut for [`SILENCE`], or a host is
//!   gone without a word, both sides' streams break.
//! - A stream can break at any time; what was sent before may have arrived or not.
//! - The kernel of a mount that stands still acknowledges for it; who sends to it waits when its buffer is full.
//!
//! # Locking
//!
//! One mutex over everything, never held while a task waits.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use scoutfs_env::net::{Listener, NetError, NetOp, Network, Stream};
use scoutfs_env::sim::{self, Key, Node};
use scoutfs_env::{Box as EnvBox, try_box};

use super::lock;

/// A stream ends when the other side is silent for so long.
pub const SILENCE: Duration = Duration::from_secs(8);
/// Bytes that are on their way in one direction.
const WINDOW: usize = 128 << 10;
/// Who waits looks at least this often.
const LOOK: Duration = Duration::from_secs(1);

const ECONNRESET: i32 = 104;
const ETIMEDOUT: i32 = 110;
const ECONNREFUSED: i32 = 111;
const EADDRINUSE: i32 = 98;

/// The address of a host's server.
pub fn address(host: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + host as u8)), 7000)
}

/// One direction of a stream, or one end.
#[derive(Default)]
struct Half {
    /// The host that is at this end.
    host: usize,
    node: Option<Node>,
    /// On the way to this end: when it arrives, and what.
    coming: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    /// Nothing comes to this end any more, after that.
    ended: bool,
    /// This end was shut down.
    closed: bool,
}

struct Conn {
    ends: [Half; 2],
    broken: bool,
    /// Since when a direction is cut, or a host gone.
    silent_since: Option<u64>,
}

struct Listening {
    host: usize,
    node: Node,
    address: SocketAddr,
    waiting: VecDeque<usize>,
    closed: bool,
}

#[derive(Default)]
struct State {
    conns: Vec<Conn>,
    listening: Vec<Listening>,
    /// Directions from one host to another that are cut.
    cut: BTreeSet<(usize, usize)>,
    /// Nodes that are gone without a word.
    gone: BTreeSet<Node>,
}

/// See the module. Clones are the same network.
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<State>>);

/// A mount's network.
pub struct Port {
    net: Net,
    host: usize,
    node: Node,
}

struct Socket {
    net: Net,
    conn: usize,
    end: usize,
}

struct Door {
    net: Net,
    listening: usize,
}

fn conn_key(conn: usize, end: usize) -> Key {
    Key::number(2 * conn + end)
}

fn door_key(listening: usize) -> Key {
    Key::number((1 << 40) + listening)
}

fn failed<T>(op: NetOp, errno: i32) -> Result<T, NetError> {
    Err(NetError { op, errno })
}

fn delay() -> u64 {
    let us = 50 + sim::below(200);
    let us = if sim::below(200) == 0 { us + sim::below(50_000) } else { us };
    us * 1000
}

impl State {
    fn is_silent(&self, conn: usize) -> bool {
        let [a, b] = &self.conns[conn].ends;
        let is_gone = |end: &Half| end.node.is_some_and(|node| self.gone.contains(&node));
        self.cut.contains(&(a.host, b.host))
            || self.cut.contains(&(b.host, a.host))
            || is_gone(a)
            || is_gone(b)
    }

    /// The cuts have changed.
    fn changed(&mut self) {
        let now = sim::now_ns();
        for conn in 0..self.conns.len() {
            let silent = self.is_silent(conn);
            let since = &mut self.conns[conn].silent_since;
            *since = silent.then(|| since.unwrap_or(now));
        }
    }

    /// Whether a stream is broken by now.
    fn is_broken(&mut self, conn: usize) -> bool {
        let conn = &mut self.conns[conn];
        let silence = SILENCE.as_nanos() as u64;
        if conn.silent_since.is_some_and(|since| since + silence <= sim::now_ns()) {
            conn.broken = true;
        }
        conn.broken
    }

    fn wake(&self, conn: usize) {
        for end in 0..2 {
            sim::wake_all(conn_key(conn, end));
        }
    }
}

impl Net {
    /// The network of a mount.
    pub fn port(&self, host: usize, node: Node) -> Port {
        Port { net: self.clone(), host, node }
    }

    /// Cuts a direction, or joins it again.
    pub fn cut(&self, from: usize, to: usize, is_cut: bool) {
        let mut state = lock(&self.0);
        if is_cut {
            state.cut.insert((from, to));
        } else {
            state.cut.remove(&(from, to));
        }
        state.changed();
        for conn in 0..state.conns.len() {
            state.wake(conn);
        }
    }

    /// Whether a way from or to a host is cut.
    pub fn is_cut(&self, host: usize) -> bool {
        lock(&self.0).cut.iter().any(|(from, to)| *from == host || *to == host)
    }

    /// Joins all that is cut.
    pub fn heal(&self) {
        let mut state = lock(&self.0);
        state.cut.clear();
        state.changed();
        for conn in 0..state.conns.len() {
            state.wake(conn);
        }
    }

    /// A mount is gone: its machine lost power, or, when its kernel lives, the process was killed.
    pub fn gone(&self, node: Node, kernel_lives: bool) {
        let mut state = lock(&self.0);
        for listening in state.listening.iter_mut().filter(|listening| listening.node == node) {
            listening.closed = true;
        }
        if kernel_lives {
            for conn in 0..state.conns.len() {
                if state.conns[conn].ends.iter().any(|end| end.node == Some(node)) {
                    state.conns[conn].broken = true;
                    state.wake(conn);
                }
            }
        } else {
            state.gone.insert(node);
            state.changed();
        }
    }

    /// Breaks some streams.
    pub fn reset_some(&self) {
        let mut state = lock(&self.0);
        for conn in 0..state.conns.len() {
            if !state.conns[conn].broken && sim::below(2) == 0 {
                state.conns[conn].broken = true;
                state.wake(conn);
            }
        }
    }
}

impl Network for Port {
    fn listen(&self, address: SocketAddr) -> Result<EnvBox<dyn Listener>, NetError> {
        sim::point();
        let mut state = lock(&self.net.0);
        if state.listening.iter().any(|other| other.address == address && !other.closed) {
            return failed(NetOp::Listen, EADDRINUSE);
        }
        let (host, node) = (self.host, self.node);
        state.listening.push(Listening { host, node, address, waiting: VecDeque::new(), closed: false });
        let door = Door { net: self.net.clone(), listening: state.listening.len() - 1 };
        let door: EnvBox<dyn Listener> = try_box(door).expect("memory");
        Ok(door)
    }

    fn connect(&self, address: SocketAddr, timeout: Duration) -> Result<EnvBox<dyn Stream>, NetError> {
        sim::sleep(Duration::from_nanos(delay()));
        let by = sim::now_ns() + timeout.as_nanos() as u64;
        loop {
            let mut state = lock(&self.net.0);
            let known = state.listening.iter().rposition(|other| other.address == address);
            let Some(listening) = known else { return failed(NetOp::Connect, ECONNREFUSED) };
            let (host, node) = (state.listening[listening].host, state.listening[listening].node);
            let reached = !state.cut.contains(&(self.host, host))
                && !state.cut.contains(&(host, self.host))
                && !state.gone.contains(&node);
            if reached {
                if state.listening[listening].closed {
                    return failed(NetOp::Connect, ECONNREFUSED);
                }
                let here = Half { host: self.host, node: Some(self.node), ..Half::default() };
                let there = Half { host, node: Some(node), ..Half::default() };
                state.conns.push(Conn { ends: [here, there], broken: false, silent_since: None });
                let conn = state.conns.len() - 1;
                state.listening[listening].waiting.push_back(conn);
                drop(state);
                sim::wake_all(door_key(listening));
                return Ok(stream(&self.net, conn, 0));
            }
            drop(state);
            if sim::now_ns() >= by {
                return failed(NetOp::Connect, ETIMEDOUT);
            }
            sim::sleep(Duration::from_millis(200));
        }
    }
}

fn stream(net: &Net, conn: usize, end: usize) -> EnvBox<dyn Stream> {
    try_box(Socket { net: net.clone(), conn, end }).expect("memory")
}

impl Listener for Door {
    fn accept(&self) -> Result<EnvBox<dyn Stream>, NetError> {
        loop {
            let mut state = lock(&self.net.0);
            let listening = &mut state.listening[self.listening];
            if listening.closed {
                return failed(NetOp::Accept, 0);
            }
            if let Some(conn) = listening.waiting.pop_front() {
                return Ok(stream(&self.net, conn, 1));
            }
            drop(state);
            sim::block(door_key(self.listening), None, "a connection");
        }
    }

    fn address(&self) -> SocketAddr {
        lock(&self.net.0).listening[self.listening].address
    }

    fn shutdown(&self) {
        let mut state = lock(&self.net.0);
        let listening = &mut state.listening[self.listening];
        listening.closed = true;
        // Those that nobody took.
        for conn in std::mem::take(&mut listening.waiting) {
            state.conns[conn].broken = true;
            state.wake(conn);
        }
        drop(state);
        sim::wake_all(door_key(self.listening));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Stream for Socket {
    fn receive(&self, buf: &mut [u8]) -> Result<usize, NetError> {
        sim::point();
        loop {
            let mut state = lock(&self.net.0);
            let Socket { conn, end, .. } = *self;
            if state.conns[conn].ends[end].closed {
                return Ok(0);
            }
            if state.is_broken(conn) {
                return failed(NetOp::Receive, ECONNRESET);
            }
            let now = sim::now_ns();
            let silent = state.conns[conn].silent_since.is_some();
            let half = &mut state.conns[conn].ends[end];
            let mut wait = LOOK;
            match half.coming.front_mut() {
                None if half.ended && !silent => return Ok(0),
                Some((due, bytes)) if *due <= now && !silent => {
                    let count = bytes.len().min(buf.len());
                    buf[..count].copy_from_slice(&bytes[..count]);
                    if count == bytes.len() {
                        half.coming.pop_front();
                    } else {
                        bytes.drain(..count);
                    }
                    half.bytes -= count;
                    drop(state);
                    sim::wake_all(conn_key(conn, 1 - end));
                    return Ok(count);
                }
                Some((due, _)) if !silent => wait = wait.min(Duration::from_nanos(*due - now + 1)),
                _ => {}
            }
            drop(state);
            sim::block(conn_key(conn, end), Some(wait), "bytes");
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetError> {
        sim::point();
        let Socket { conn, end, .. } = *self;
        loop {
            let mut state = lock(&self.net.0);
            if state.is_broken(conn) || state.conns[conn].ends[end].closed {
                return failed(NetOp::Send, ECONNRESET);
            }
            let due = sim::now_ns() + delay();
            let half = &mut state.conns[conn].ends[1 - end];
            if half.closed {
                return failed(NetOp::Send, ECONNRESET);
            }
            if half.bytes < WINDOW {
                // In order.
                let due = half.coming.back().map_or(due, |(last, _)| due.max(*last));
                half.coming.push_back((due, bytes.to_vec()));
                half.bytes += bytes.len();
                drop(state);
                sim::wake_all(conn_key(conn, 1 - end));
                return Ok(());
            }
            drop(state);
            sim::block(conn_key(conn, end), Some(LOOK), "room for bytes");
        }
    }

    fn shutdown(&self) {
        let mut state = lock(&self.net.0);
        let ends = &mut state.conns[self.conn].ends;
        ends[self.end].closed = true;
        ends[1 - self.end].ended = true;
        state.wake(self.conn);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shutdown();
    }
}
