// SPDX-License-Identifier: GPL-2.0-only
//! A stream within the process: two rings of bytes.
//!
//! Memory is taken when it is made, none later. Locking: each direction has one mutex, held while bytes are copied.

use crate::sync::{Condvar, Mutex};
use crate::{AllocError, Arc, Vec};

use super::{NetError, NetOp, Stream};

/// Bytes that can be on their way in each direction.
const CAPACITY: usize = 64 << 10;

struct Ring {
    bytes: Vec<u8>,
    first: usize,
    len: usize,
    ended: bool,
}

impl Ring {
    /// Takes what there is room for.
    fn put(&mut self, bytes: &[u8]) -> Result<usize, NetError> {
        if self.ended {
            return Err(NetError { op: NetOp::Send, errno: 0 });
        }
        let ring_len = self.bytes.len();
        let count = bytes.len().min(ring_len - self.len);
        let at = (self.first + self.len) % ring_len;
        let straight = count.min(ring_len - at);
        self.bytes[at..at + straight].copy_from_slice(&bytes[..straight]);
        self.bytes[..count - straight].copy_from_slice(&bytes[straight..count]);
        self.len += count;
        Ok(count)
    }
}

struct Direction {
    ring: Mutex<Ring>,
    changed: Condvar,
}

impl Direction {
    fn new() -> Result<Self, AllocError> {
        let mut bytes = Vec::new();
        bytes.resize(CAPACITY, 0)?;
        let ring = Mutex::new(Ring { bytes, first: 0, len: 0, ended: false });
        Ok(Direction { ring, changed: Condvar::new() })
    }

    fn end(&self) {
        self.ring.lock().ended = true;
        self.changed.notify_all();
    }
}

/// One end of a [`pipe`]. When it is dropped, the stream ends.
pub struct Pipe {
    from: Arc<Direction>,
    to: Arc<Direction>,
}

/// A connected pair of streams.
pub fn pipe() -> Result<(Pipe, Pipe), AllocError> {
    let (a, b) = (Arc::new(Direction::new()?)?, Arc::new(Direction::new()?)?);
    Ok((Pipe { from: a.clone(), to: b.clone() }, Pipe { from: b, to: a }))
}

impl Stream for Pipe {
    fn receive(&self, buf: &mut [u8]) -> Result<usize, NetError> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut ring = self.from.ring.lock();
        while ring.len == 0 && !ring.ended {
            ring = self.from.changed.wait(ring);
        }
        // What was sent before the end still arrives.
        let count = ring.len.min(buf.len());
        let (first, ring_len) = (ring.first, ring.bytes.len());
        let straight = count.min(ring_len - first);
        buf[..straight].copy_from_slice(&ring.bytes[first..first + straight]);
        buf[straight..count].copy_from_slice(&ring.bytes[..count - straight]);
        ring.first = (first + count) % ring_len;
        ring.len -= count;
        drop(ring);
        self.from.changed.notify_all();
        Ok(count)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut ring = self.to.ring.lock();
            while ring.len == ring.bytes.len() && !ring.ended {
                ring = self.to.changed.wait(ring);
            }
            let count = ring.put(rest)?;
            drop(ring);
            self.to.changed.notify_all();
            rest = &rest[count..];
        }
        Ok(())
    }

    fn try_send(&self, bytes: &[u8]) -> Result<usize, NetError> {
        let count = self.to.ring.lock().put(bytes)?;
        self.to.changed.notify_all();
        Ok(count)
    }

    fn shutdown(&self) {
        self.from.end();
        self.to.end();
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn who_does_not_wait_sends_what_there_is_room_for() {
        let (a, b) = pipe().unwrap();
        let sent: std::vec::Vec<u8> = (0..CAPACITY + 100).map(|i| (i % 251) as u8).collect();
        assert_eq!(a.try_send(&sent), Ok(CAPACITY));
        assert_eq!(a.try_send(b"more"), Ok(0));
        let mut buf = [0; 300];
        assert_eq!(b.receive(&mut buf), Ok(300));
        assert_eq!(buf[..], sent[..300]);
        assert_eq!(a.try_send(&sent[CAPACITY..]), Ok(100));
        a.shutdown();
        assert_eq!(a.try_send(b"more"), Err(NetError { op: NetOp::Send, errno: 0 }));
        let mut all = std::vec::Vec::from(&buf[..]);
        while let Ok(n @ 1..) = b.receive(&mut buf) {
            all.extend_from_slice(&buf[..n]);
        }
        assert_eq!(all, sent);
    }

    #[test]
    fn bytes_arrive_whole_and_in_order_whatever_the_pieces() {
        let (a, b) = pipe().unwrap();
        let sent: std::vec::Vec<u8> = (0..1_000_003u32).map(|i| (i % 251) as u8).collect();
        let received = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut all, mut buf) = (std::vec::Vec::new(), [0; 7919]);
                loop {
                    match b.receive(&mut buf).unwrap() {
                        0 => return all,
                        n => all.extend_from_slice(&buf[..n]),
                    }
                }
            });
            for piece in sent.chunks(100_003) {
                a.send(piece).unwrap();
            }
            a.shutdown();
            reader.join().unwrap()
        });
        assert_eq!(received, sent);
        assert_eq!(b.send(b"more"), Err(NetError { op: NetOp::Send, errno: 0 }));
    }

    #[test]
    fn the_end_wakes_who_waits() {
        for drop_it in [false, true] {
            let (a, b) = pipe().unwrap();
            thread::scope(|scope| {
                let receiver = scope.spawn(|| b.receive(&mut [0; 10]));
                let sender = scope.spawn(|| b.send(&[0; 2 * CAPACITY]));
                thread::sleep(core::time::Duration::from_millis(20));
                if drop_it {
                    drop(a);
                } else {
                    b.shutdown();
                }
                assert_eq!(receiver.join().unwrap(), Ok(0));
                assert!(sender.join().unwrap().is_err());
            });
        }
    }
}
