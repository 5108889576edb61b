// SPDX-License-Identifier: GPL-2.0-only
//! The shared block device.
//!
//! Requests are bios, which go past every cache of this kernel. A large request is cut into bios of up to [`MAX_BYTES`], which are
//! in flight together. A durable write is one with FUA, which the block layer makes of a write and a flush where
//! the device has none.

use core::ffi::c_void;
use core::ptr::{addr_of_mut, null_mut};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kernel::bindings;
use scoutfs_env::device::{check_io, BlockDevice, IoError, IoOp, ReadAhead, IO_ALIGN};
use scoutfs_env::{try_box, Box, Vec};

use super::stack;
use crate::ffi;
use crate::kobj::nofs::NoFs;

/// A bio moves so much at most.
const MAX_BYTES: usize = 1 << 20;

const PAGE: usize = bindings::PAGE_SIZE;
const SECTOR_SHIFT: u32 = 9;

const ENOMEM: i32 = 12;
const EIO: i32 = 5;

const READ: u32 = bindings::req_op_REQ_OP_READ;
const WRITE: u32 = bindings::req_op_REQ_OP_WRITE | 1 << bindings::req_flag_bits___REQ_SYNC;
const FUA: u32 = 1 << bindings::req_flag_bits___REQ_FUA;
const PREFLUSH: u32 = 1 << bindings::req_flag_bits___REQ_PREFLUSH;
const AHEAD: u32 = 1 << bindings::req_flag_bits___REQ_RAHEAD;

/// A block device that somebody keeps open: a mount's super block.
pub(crate) struct Device {
    bdev: *mut bindings::block_device,
    size_bytes: u64,
    read_only: bool,
}

// SAFETY: a block device may be used by any thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// # Safety
    ///
    /// The block device stays open for as long as this lives.
    pub(crate) unsafe fn new(bdev: *mut bindings::block_device) -> Self {
        // SAFETY: by the contract.
        let (bytes, read_only) =
            unsafe { (ffi::scoutfs_bdev_bytes(bdev), ffi::scoutfs_bdev_read_only(bdev)) };
        let bytes = u64::try_from(bytes).unwrap_or(0);
        Device { bdev, size_bytes: bytes - bytes % IO_ALIGN as u64, read_only }
    }

    /// Moves bytes between the device and memory, and waits for it.
    ///
    /// # Safety
    ///
    /// The memory is valid, and for a read exclusively borrowed.
    unsafe fn transfer(&self, opf: u32, places: &[Place]) -> Result<(), i32> {
        let _nofs = NoFs::enter();
        stack::look("block device");
        let mut last: *mut bindings::bio = null_mut();
        let mut cut = Cut { places, skip: 0, is_short: false };
        // SAFETY: by the contract. Each bio ends after the one before it, so that the end of the last one is that of all.
        let errno = unsafe {
            while let Some(bio) = cut.next(self, opf) {
                if !last.is_null() {
                    bindings::bio_chain(last, bio);
                    bindings::submit_bio(last);
                }
                last = bio;
            }
            if last.is_null() {
                return Ok(());
            }
            let errno = -bindings::submit_bio_wait(last);
            bindings::bio_put(last);
            errno
        };
        match errno {
            0 if cut.is_short => Err(EIO),
            0 => Ok(()),
            _ => Err(errno),
        }
    }

    /// A new bio with room for so many vectors.
    fn bio(&self, opf: u32, offset: u64, vectors: usize) -> *mut bindings::bio {
        // SAFETY: the device is open. With this pool and these flags it waits for memory and does not fail: what was taken before is in
        // flight and comes back.
        unsafe {
            let pool = addr_of_mut!(bindings::fs_bio_set);
            let bio = bindings::bio_alloc_bioset(self.bdev, vectors as u16, opf, ffi::SCOUTFS_GFP_NOIO, pool);
            (*bio).bi_iter.bi_sector = offset >> SECTOR_SHIFT;
            bio
        }
    }

    fn write_with(&self, flags: u32, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        check_io(self, IoOp::Write, offset, buf)?;
        // SAFETY: the slice is live, and a write only reads it.
        unsafe { self.transfer(WRITE | flags, &[Place::of(offset, buf)]) }
            .map_err(|errno| IoError { op: IoOp::Write, offset, len: buf.len(), errno })
    }
}

impl BlockDevice for Device {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        check_io(self, IoOp::Read, offset, buf)?;
        let len = buf.len();
        let place = Place { offset, memory: buf.as_mut_ptr(), len };
        // SAFETY: the slice is live and exclusively borrowed.
        unsafe { self.transfer(READ, &[place]) }.map_err(|errno| IoError {
            op: IoOp::Read,
            offset,
            len,
            errno,
        })
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.write_with(0, offset, buf)
    }

    fn flush(&self) -> Result<(), IoError> {
        let _nofs = NoFs::enter();
        // SAFETY: the device is open.
        match -unsafe { bindings::blkdev_issue_flush(self.bdev) } {
            0 => Ok(()),
            errno => Err(IoError { op: IoOp::Flush, offset: 0, len: 0, errno }),
        }
    }

    fn write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        if buf.len() > MAX_BYTES {
            self.write(offset, buf)?;
            return self.flush();
        }
        self.write_with(FUA, offset, buf)
    }

    fn flush_and_write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        if buf.len() > MAX_BYTES {
            self.flush()?;
            return self.write_durable(offset, buf);
        }
        self.write_with(PREFLUSH | FUA, offset, buf)
    }

    fn write_pieces(&self, pieces: &[(u64, &[u8])]) -> Result<(), IoError> {
        let mut places = Vec::new();
        for (offset, buf) in pieces {
            check_io(self, IoOp::Write, *offset, buf)?;
            let no_memory = |_| IoError { op: IoOp::Write, offset: *offset, len: buf.len(), errno: ENOMEM };
            places.push(Place::of(*offset, buf)).map_err(no_memory)?;
        }
        // SAFETY: the slices are live, and a write only reads them.
        let done = unsafe { self.transfer(WRITE, &places) };
        let len = places.iter().map(|place| place.len).sum();
        let offset = places.first().map_or(0, |place| place.offset);
        done.map_err(|errno| IoError { op: IoOp::Write, offset, len, errno })
    }

    fn read_ahead(&self, ReadAhead { mut pieces, done }: ReadAhead) {
        let mut places = Vec::new();
        for (offset, memory) in &mut pieces {
            let place = Place { offset: *offset, memory: memory.as_mut_ptr(), len: memory.len() };
            if check_io(self, IoOp::Read, *offset, memory).is_err() || places.push(place).is_err() {
                return;
            }
        }
        let Ok(flight) = try_box(Flight { open: AtomicUsize::new(1), failed: AtomicBool::new(false), done })
        else {
            return;
        };
        let _nofs = NoFs::enter();
        let flight = Box::into_raw(flight);
        stack::look("block device");
        let mut cut = Cut { places: &places, skip: 0, is_short: false };
        // SAFETY: the flight lives until its last bio has ended, and so long nobody else uses the memory.
        unsafe {
            while let Some(bio) = cut.next(self, READ | AHEAD) {
                (*flight).open.fetch_add(1, Ordering::Relaxed);
                (*bio).bi_private = flight.cast();
                (*bio).bi_end_io = Some(ended);
                bindings::submit_bio(bio);
            }
            (*flight).failed.fetch_or(cut.is_short, Ordering::Relaxed);
            land(flight);
        }
    }
}

/// Memory that is aligned to pages and of whole pages, and where it goes to or comes from.
struct Place {
    offset: u64,
    memory: *mut u8,
    len: usize,
}

impl Place {
    /// To be read only.
    fn of(offset: u64, buf: &[u8]) -> Self {
        Place { offset, memory: buf.as_ptr().cast_mut(), len: buf.len() }
    }
}

/// Places, to be cut into bios.
struct Cut<'a> {
    places: &'a [Place],
    /// So much of the first is done.
    skip: usize,
    /// A bio has not taken all that it has room for.
    is_short: bool,
}

impl Cut<'_> {
    /// The next bio: of what follows each other on the device, not too much.
    ///
    /// # Safety
    ///
    /// The memory is valid until the bio has ended.
    unsafe fn next(&mut self, device: &Device, opf: u32) -> Option<*mut bindings::bio> {
        while let Some(first) = self.places.first().filter(|first| first.len <= self.skip) {
            self.skip -= first.len;
            self.places = &self.places[1..];
        }
        let (start, mut count) = (self.places.first()?.offset + self.skip as u64, 0);
        let end = self.parts(start, |_, _, vectors| count += vectors);
        let bio = device.bio(opf, start, count);
        // SAFETY: by the contract, and there is room for as many.
        self.parts(start, |memory, len, _| unsafe { add(bio, memory, len) });
        // SAFETY: as above.
        self.is_short |= unsafe { (*bio).bi_iter.bi_size } as usize != end - self.skip;
        self.skip = end;
        Some(bio)
    }

    /// The memory of the next bio, which begins at `start` on the device. Gives how much of what is left is done with it.
    fn parts(&self, start: u64, mut part: impl FnMut(*mut u8, usize, usize)) -> usize {
        let (mut bytes, mut vectors, mut skip) = (0, 0, self.skip);
        for place in self.places {
            let mut len = (place.len - skip).min(MAX_BYTES - bytes);
            // SAFETY: within the place.
            let memory = unsafe { place.memory.add(skip) };
            if is_scattered(memory) {
                len = len.min((MAX_VECTORS - vectors) * PAGE);
            }
            if len == 0 || place.offset + skip as u64 != start + bytes as u64 || vectors == MAX_VECTORS {
                break;
            }
            let needed = if is_scattered(memory) { len / PAGE } else { 1 };
            part(memory, len, needed);
            (bytes, vectors) = (bytes + len, vectors + needed);
            if skip + len < place.len {
                break;
            }
            skip = 0;
        }
        self.skip + bytes
    }
}

/// A bio has so many vectors at most.
const MAX_VECTORS: usize = 256;

/// Whether its pages do not follow each other in the machine.
fn is_scattered(memory: *const u8) -> bool {
    // SAFETY: looks at the address.
    unsafe { bindings::is_vmalloc_addr(memory.cast::<c_void>()) }
}

/// Adds memory to a bio that has room for it. Pages that follow each other in the machine become one vector.
///
/// # Safety
///
/// The memory is aligned to pages and valid until the bio has ended.
unsafe fn add(bio: *mut bindings::bio, memory: *mut u8, len: usize) {
    // SAFETY: by the contract.
    unsafe {
        if !is_scattered(memory) {
            // What it does not take is missed afterwards.
            let _ = bindings::bio_add_page(bio, ffi::scoutfs_virt_to_page(memory.cast()), len as u32, 0);
            return;
        }
        for at in (0..len).step_by(PAGE) {
            let page = bindings::vmalloc_to_page(memory.add(at).cast());
            let _ = bindings::bio_add_page(bio, page, PAGE as u32, 0);
        }
    }
}

/// Reading for which nobody waits: its bios, and who is told when the last has ended.
struct Flight {
    /// Bios in flight, and one more while there may come others.
    open: AtomicUsize,
    failed: AtomicBool,
    done: Box<dyn FnOnce(bool) + Send>,
}

/// The end of a bio.
unsafe extern "C" fn ended(bio: *mut bindings::bio) {
    // SAFETY: a bio of a flight, which is ours to put.
    unsafe {
        let flight = (*bio).bi_private.cast::<Flight>();
        if (*bio).bi_status != 0 {
            (*flight).failed.store(true, Ordering::Relaxed);
        }
        bindings::bio_put(bio);
        land(flight);
    }
}

/// Counts a bio less; the last one is the flight's end.
///
/// # Safety
///
/// It was counted.
unsafe fn land(flight: *mut Flight) {
    // SAFETY: by the contract. Who counts last is alone with it.
    unsafe {
        if (*flight).open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let flight = Box::from_raw(flight);
            let read = !flight.failed.load(Ordering::Relaxed);
            (flight.done)(read);
        }
    }
}
