// SPDX-License-Identifier: GPL-2.0-only
//! A device that counts what is asked of it, and knows for how long its oldest request is under way.
//!
//! Locking: none. Requests are counted by the span of time in which they began.

// Those of the host, not those of `env::sync`: nothing waits for them.
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use scoutfs_env::device::{BlockDevice, IoError, ReadAhead};
use scoutfs_env::{Arc, Box, try_box};

use crate::counters::{Counter, Counters};

/// Spans that are told apart.
const SPANS: usize = 16;

/// Requests that have not ended, by when they began.
#[derive(Default)]
pub(super) struct InFlight {
    begun: [AtomicU32; SPANS],
    /// The one that it is now.
    span: AtomicUsize,
}

impl InFlight {
    /// Does a request.
    fn during<T>(&self, request: impl FnOnce() -> T) -> T {
        let span = self.begin();
        let done = request();
        self.end(span);
        done
    }

    /// A request begins. Gives the span in which it does.
    fn begin(&self) -> usize {
        let span = self.span.load(Ordering::Relaxed) % SPANS;
        self.begun[span].fetch_add(1, Ordering::Relaxed);
        span
    }

    /// A request has ended that began in this span.
    fn end(&self, span: usize) {
        self.begun[span % SPANS].fetch_sub(1, Ordering::Relaxed);
    }

    /// A span of time is over. Gives how many have passed since the oldest request began that has not ended: 0 in the span in which it
    /// did, and when there is none.
    pub fn tick(&self) -> usize {
        let next = (self.span.load(Ordering::Relaxed) + 1) % SPANS;
        // Where requests of long ago have not ended none is counted anew: they would make each other younger.
        if self.begun[next].load(Ordering::Relaxed) == 0 {
            self.span.store(next, Ordering::Relaxed);
        }
        let now = self.span.load(Ordering::Relaxed);
        let is_open = |age: &usize| self.begun[(now + SPANS - age) % SPANS].load(Ordering::Relaxed) > 0;
        (0..SPANS).rev().find(is_open).unwrap_or(0)
    }
}

/// See the module.
pub(crate) struct CountedDevice {
    device: Arc<Box<dyn BlockDevice>>,
    counters: Arc<Counters>,
    requests: Arc<InFlight>,
}

impl CountedDevice {
    pub(super) fn new(
        device: Arc<Box<dyn BlockDevice>>,
        counters: Arc<Counters>,
        requests: Arc<InFlight>,
    ) -> Self {
        CountedDevice { device, counters, requests }
    }

    fn written(&self, buf: &[u8]) {
        self.counters.inc(Counter::DeviceWrite);
        self.counters.add(Counter::DeviceWriteBytes, buf.len() as u64);
    }
}

impl BlockDevice for CountedDevice {
    fn size_bytes(&self) -> u64 {
        self.device.size_bytes()
    }

    fn read_only(&self) -> bool {
        self.device.read_only()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.counters.inc(Counter::DeviceRead);
        self.counters.add(Counter::DeviceReadBytes, buf.len() as u64);
        self.requests.during(|| self.device.read(offset, buf))
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.written(buf);
        self.requests.during(|| self.device.write(offset, buf))
    }

    fn flush(&self) -> Result<(), IoError> {
        self.counters.inc(Counter::DeviceFlush);
        self.requests.during(|| self.device.flush())
    }

    fn write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.written(buf);
        self.counters.inc(Counter::DeviceDurableWrite);
        self.requests.during(|| self.device.write_durable(offset, buf))
    }

    fn flush_and_write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.counters.inc(Counter::DeviceFlush);
        self.written(buf);
        self.counters.inc(Counter::DeviceDurableWrite);
        self.requests.during(|| self.device.flush_and_write_durable(offset, buf))
    }

    fn write_pieces(&self, pieces: &[(u64, &[u8])]) -> Result<(), IoError> {
        let mut end = None;
        for (offset, buf) in pieces {
            // What follows each other is one request.
            if end.replace(offset + buf.len() as u64) != Some(*offset) {
                self.counters.inc(Counter::DeviceWrite);
            }
            self.counters.add(Counter::DeviceWriteBytes, buf.len() as u64);
        }
        self.requests.during(|| self.device.write_pieces(pieces))
    }

    fn read_ahead(&self, ReadAhead { pieces, done }: ReadAhead) {
        let mut end = None;
        for (offset, memory) in &pieces {
            // What follows each other is one request.
            if end.replace(offset + memory.len() as u64) != Some(*offset) {
                self.counters.inc(Counter::DeviceRead);
            }
        }
        let bytes = pieces.iter().map(|(_, memory)| memory.len() as u64).sum();
        self.counters.add(Counter::DeviceReadBytes, bytes);
        let requests = self.requests.clone();
        let span = requests.begin();
        let counted = Counted { requests, span };
        let ended = move |read| {
            drop(counted);
            done(read);
        };
        // Without memory nothing is read.
        if let Ok(done) = try_box(ended) {
            self.device.read_ahead(ReadAhead { pieces, done });
        }
    }
}

/// A request that nobody waits for.
struct Counted {
    requests: Arc<InFlight>,
    span: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.requests.end(self.span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_the_oldest_request_is_known_and_never_goes_back_while_it_lasts() {
        let requests = InFlight::default();
        assert_eq!(requests.tick(), 0);
        requests.during(|| {
            for age in 1..SPANS {
                requests.during(|| ());
                assert_eq!(requests.tick(), age);
            }
            for _ in 0..3 * SPANS {
                requests.during(|| assert_eq!(requests.tick(), SPANS - 1));
            }
        });
        assert_eq!(requests.tick(), 0);
        requests.during(|| assert_eq!(requests.tick(), 1));
    }
}
