// SPDX-License-Identifier: GPL-2.0-only
//! A disk that records what it is asked, and the images that a power failure may leave of it.
//!
//! # Fault model
//!
//! The disk has a volatile cache. At a power failure:
//!
//! - A write that had returned before a flush began is whole and durable once that flush has returned.
//! - A durable write is whole and durable once it has returned. It makes no other write durable, earlier ones
//!   included.
//! - Of every other write, each sector of 512 bytes is kept or lost, independently of all others: writes are reordered
//!   without limit, and a write of 4 KiB or more may be torn. The request that was in flight counts
//!   among these. Two writes to the same sector that are both kept keep their order.
//! - A sector is never half written, and sectors that nobody wrote do not change.
//!
//! Not modelled here: sectors that become unreadable, writes that go astray, and a device that lies about its
//! flushes (a [`Fault`] does that on purpose).
//!
//! # Locking
//!
//! The record is behind one mutex, held while a request is carried out, so requests have one order.

use std::sync::{Arc, Mutex, PoisonError};

use scoutfs_env::IoBuf;
use scoutfs_env::device::{BlockDevice, IO_ALIGN, IoError, MemDevice};
use scoutfs_format::geometry::{Geometry, RESERVED_BYTES, VOTER_SECTORS};

use crate::rng::Rng;
use crate::site::Site;

/// What a disk writes as a whole or not at all, in bytes.
pub const ATOM: usize = 512;

/// A request that changed something.
#[derive(Clone, Debug)]
pub enum Request {
    /// A write.
    Write {
        /// Byte offset.
        offset: u64,
        /// What was written.
        bytes: Arc<[u8]>,
        /// Whether it was to be durable when it returned.
        durable: bool,
    },
    /// A flush.
    Flush,
    /// What a [`Fault`] leaves of a flush, and what ends a recording.
    Nothing,
}

/// A request and who made it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What was asked.
    pub request: Request,
    /// Where the program asks for it, of what makes something durable; see [`Disk::with_sites`].
    pub site: Option<Site>,
}

/// What a disk held when the recording began, and all that was asked since.
pub struct Recording {
    /// As it was, durably.
    pub start: MemDevice,
    /// In order.
    pub entries: Vec<Entry>,
}

/// Whether a recording tells where requests come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sites {
    No,
    Yes,
}

/// A disk. Copies of this value are the same disk.
#[derive(Clone)]
pub struct Disk {
    memory: Arc<MemDevice>,
    record: Arc<Mutex<Option<Recording>>>,
    sites: Sites,
}

impl Disk {
    /// A disk that holds what `memory` holds, durably.
    pub fn new(memory: MemDevice) -> Disk {
        Disk { memory: Arc::new(memory), record: Arc::default(), sites: Sites::No }
    }

    /// As [`Disk::new`], and a recording tells where each request that makes something durable comes from. That is slow.
    pub fn with_sites(memory: MemDevice) -> Disk {
        Disk { sites: Sites::Yes, ..Disk::new(memory) }
    }

    /// What it holds now, cache included.
    pub fn memory(&self) -> &MemDevice {
        &self.memory
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Option<Recording>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to record. Nothing may be in flight, and what was written counts as durable.
    pub fn start_recording(&self) {
        let mut record = self.record();
        *record = Some(Recording { start: self.memory.snapshot(), entries: Vec::new() });
    }

    /// How many requests were recorded.
    pub fn position(&self) -> usize {
        self.record().as_ref().map_or(0, |r| r.entries.len())
    }

    /// Ends the recording and returns it.
    ///
    /// # Panics
    ///
    /// When none was begun.
    pub fn stop_recording(&self) -> Recording {
        let mut recording = self.record().take().expect("a recording was begun");
        // Behind the last request there is a moment when it is not in flight any more.
        recording.entries.push(Entry { request: Request::Nothing, site: None });
        recording
    }

    fn write_as(&self, offset: u64, buf: &[u8], durable: bool) -> Result<(), IoError> {
        let mut record = self.record();
        self.memory.write(offset, buf)?;
        if let Some(record) = &mut *record {
            let site = (durable && self.sites == Sites::Yes).then(|| Site::of_write(offset));
            record
                .entries
                .push(Entry { request: Request::Write { offset, bytes: buf.into(), durable }, site });
        }
        Ok(())
    }
}

impl BlockDevice for Disk {
    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.memory.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.write_as(offset, buf, false)
    }

    fn flush(&self) -> Result<(), IoError> {
        if let Some(record) = &mut *self.record() {
            let site = (self.sites == Sites::Yes).then(Site::of_flush);
            record.entries.push(Entry { request: Request::Flush, site });
        }
        Ok(())
    }

    fn write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.write_as(offset, buf, true)
    }
}

/// A part of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// Quorum blocks.
    Quorum,
    /// Super blocks.
    Super,
    /// Rings of mount slots.
    Ring,
    /// Metadata and data blocks.
    Zones,
}

/// Where a byte offset of a volume lies.
pub fn region_of(geometry: &Geometry, offset: u64) -> Region {
    if offset >= geometry.zones_offset() {
        return Region::Zones;
    }
    if offset >= geometry.slot_offset(0) {
        return Region::Ring;
    }
    let sector = offset.saturating_sub(RESERVED_BYTES) / IO_ALIGN as u64;
    if sector % VOTER_SECTORS < 2 { Region::Quorum } else { Region::Super }
}

/// A promise of the disk that the program is made not to have asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No flush anywhere.
    NoFlush,
    /// No write is durable by itself.
    NoDurable,
    /// What some places in the program ask for: their flushes are not made, their writes not durable.
    Without(Vec<Site>),
}

impl Recording {
    /// The same requests as a program would have made them that lacks what `fault` says.
    pub fn with_fault(&self, fault: &Fault) -> Recording {
        let mut entries = self.entries.clone();
        for Entry { request, site } in &mut entries {
            let lacks = match fault {
                Fault::NoFlush => matches!(request, Request::Flush),
                Fault::NoDurable => matches!(request, Request::Write { .. }),
                Fault::Without(without) => site.as_ref().is_some_and(|site| without.contains(site)),
            };
            match request {
                _ if !lacks => {}
                // Something stays in its place, so that positions stay true.
                Request::Flush => *request = Request::Nothing,
                Request::Write { durable, .. } => *durable = false,
                Request::Nothing => {}
            }
        }
        Recording { start: self.start.snapshot(), entries }
    }

    /// The points at which power may fail, from the first request to behind the last.
    pub fn crashes(&self) -> Crashes<'_> {
        Crashes { recording: self, durable: self.start.snapshot(), pending: Vec::new(), next: 0 }
    }
}

/// What survives of the writes that were not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Some writes, each as a whole.
    Some,
    /// Some sectors.
    Torn,
}

/// A moment at which power fails.
pub struct CrashPoint {
    /// How many requests had been made; the last of them may be in flight.
    pub position: usize,
    durable: MemDevice,
    /// Writes that may be lost, in order.
    pending: Vec<(u64, Arc<[u8]>)>,
}

impl CrashPoint {
    /// Whether more than one image is possible.
    pub fn has_choice(&self) -> bool {
        !self.pending.is_empty()
    }

    /// An image that the power failure may leave.
    pub fn image(&self, survival: Survival, rng: &mut Rng) -> MemDevice {
        let image = self.durable.snapshot();
        // Mostly kept in one image, mostly lost in another.
        let odds = 1 + rng.below(7);
        for (offset, bytes) in &self.pending {
            let mut keep = || rng.below(8) < odds;
            match survival {
                Survival::None => {}
                Survival::All => put(&image, *offset, bytes, &mut || true),
                Survival::Some if keep() => put(&image, *offset, bytes, &mut || true),
                Survival::Some => {}
                Survival::Torn => put(&image, *offset, bytes, &mut keep),
            }
        }
        image
    }
}

/// Writes those atoms of `bytes` for which `keep` says so.
fn put(image: &MemDevice, offset: u64, bytes: &[u8], keep: &mut dyn FnMut() -> bool) {
    let mut buf = IoBuf::zeroed(bytes.len()).expect("memory for an image");
    image.read(offset, &mut buf).expect("a read where a write was");
    for (to, from) in buf.chunks_mut(ATOM).zip(bytes.chunks(ATOM)) {
        if keep() {
            to.copy_from_slice(from);
        }
    }
    image.write(offset, &buf).expect("a write where a write was");
}

/// See [`Recording::crashes`].
pub struct Crashes<'a> {
    recording: &'a Recording,
    durable: MemDevice,
    pending: Vec<(u64, Arc<[u8]>)>,
    next: usize,
}

impl Iterator for Crashes<'_> {
    type Item = CrashPoint;

    fn next(&mut self) -> Option<CrashPoint> {
        let position = self.next;
        let in_flight = match position.checked_sub(1) {
            None => None,
            Some(last) => Some(&self.recording.entries.get(last)?.request),
        };
        self.next += 1;
        let mut pending = self.pending.clone();
        if let Some(Request::Write { offset, bytes, .. }) = in_flight {
            pending.push((*offset, bytes.clone()));
        }
        let point = CrashPoint { position, durable: self.durable.snapshot(), pending };
        match in_flight {
            Some(Request::Write { offset, bytes, durable: true }) => {
                put(&self.durable, *offset, bytes, &mut || true);
                // What lies below a durable write can no longer come out on top.
                self.pending
                    .iter_mut()
                    .for_each(|(at, below)| *below = uncovered(*at, below, *offset, bytes));
                self.pending.retain(|(_, below)| !below.is_empty());
            }
            Some(Request::Write { offset, bytes, durable: false }) => {
                self.pending.push((*offset, bytes.clone()));
            }
            Some(Request::Flush) => {
                for (offset, bytes) in self.pending.drain(..) {
                    put(&self.durable, offset, &bytes, &mut || true);
                }
            }
            Some(Request::Nothing) | None => {}
        }
        Some(point)
    }
}

/// A pending write without what a later durable write covers. The program writes the same pieces again,
/// never parts of them, so all or nothing is covered.
fn uncovered(at: u64, below: &Arc<[u8]>, offset: u64, above: &[u8]) -> Arc<[u8]> {
    let (end, above_end) = (at + below.len() as u64, offset + above.len() as u64);
    if end <= offset || above_end <= at {
        return below.clone();
    }
    assert!(offset <= at && end <= above_end, "a durable write over a part of a pending one");
    Arc::from([])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(byte: u8) -> IoBuf {
        let mut buf = IoBuf::zeroed(IO_ALIGN).unwrap();
        buf.fill(byte);
        buf
    }

    fn first_bytes(image: &MemDevice) -> Vec<u8> {
        let mut buf = IoBuf::zeroed(3 * IO_ALIGN).unwrap();
        image.read(0, &mut buf).unwrap();
        buf.chunks(IO_ALIGN).map(|block| block[0]).collect()
    }

    fn record() -> Recording {
        let disk = Disk::with_sites(MemDevice::new(1 << 20));
        disk.start_recording();
        disk.write(0, &filled(1)).unwrap();
        disk.flush().unwrap();
        disk.write(0, &filled(2)).unwrap();
        disk.write_durable(4096, &filled(3)).unwrap();
        disk.write(8192, &filled(4)).unwrap();
        disk.stop_recording()
    }

    #[test]
    fn only_what_was_flushed_or_written_durably_is_sure_to_survive() {
        let recording = record();
        let images: Vec<_> = recording
            .crashes()
            .map(|point| {
                let image = |s| first_bytes(&point.image(s, &mut Rng::new(1)));
                (image(Survival::None), image(Survival::All))
            })
            .collect();
        let expected = [
            ([0, 0, 0], [0, 0, 0]),
            ([0, 0, 0], [1, 0, 0]),
            // The flush has not returned.
            ([0, 0, 0], [1, 0, 0]),
            ([1, 0, 0], [2, 0, 0]),
            // The durable write has not returned.
            ([1, 0, 0], [2, 3, 0]),
            // It says nothing of the write before it.
            ([1, 3, 0], [2, 3, 4]),
            ([1, 3, 0], [2, 3, 4]),
        ];
        let expected: Vec<_> = expected.iter().map(|(none, all)| (none.to_vec(), all.to_vec())).collect();
        assert_eq!(images, expected);
    }

    #[test]
    fn a_torn_write_keeps_sectors_whole() {
        let recording = record();
        let point = recording.crashes().nth(1).unwrap();
        let mut seen = [false; 3];
        for seed in 0..50 {
            let image = point.image(Survival::Torn, &mut Rng::new(seed));
            let mut buf = filled(9);
            image.read(0, &mut buf).unwrap();
            let kept = buf.chunks(ATOM).filter(|atom| atom.iter().all(|b| *b == 1)).count();
            let lost = buf.chunks(ATOM).filter(|atom| atom.iter().all(|b| *b == 0)).count();
            assert_eq!(kept + lost, IO_ALIGN / ATOM);
            seen[if kept == 0 {
                0
            } else if lost == 0 {
                1
            } else {
                2
            }] = true;
        }
        assert!(seen[2], "no write was torn");
    }

    #[test]
    fn a_fault_takes_away_what_it_says() {
        let recording = record();
        let last = |fault| {
            let recording = recording.with_fault(&fault);
            let point = recording.crashes().last().unwrap();
            first_bytes(&point.image(Survival::None, &mut Rng::new(1)))
        };
        assert_eq!(last(Fault::NoFlush), [0, 3, 0]);
        assert_eq!(last(Fault::NoDurable), [1, 0, 0]);
        let sites: Vec<_> = recording.entries.iter().filter_map(|entry| entry.site.clone()).collect();
        assert_eq!(sites.len(), 2);
        assert_eq!(last(Fault::Without(vec![sites[0].clone()])), [0, 3, 0]);
        assert_eq!(last(Fault::Without(vec![sites[1].clone()])), [1, 0, 0]);
    }
}
