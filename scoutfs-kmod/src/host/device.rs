// SPDX-License-Identifier: GPL-2.0-only
//! The shared block device.
//!
//! Requests are bios, which go past every cache of this kernel. A large request is cut into bios of up to [`MAX_PAGES`] pages,
//! and one is in flight at a time. A durable write is one with FUA, which the block layer makes of a write and a flush where
//! the device has none.

use core::ffi::c_void;
use core::ptr::addr_of_mut;

use kernel::bindings;
use scoutfs_env::device::{check_io, BlockDevice, IoError, IoOp, IO_ALIGN};

use crate::ffi;
use crate::kobj::nofs::NoFs;

/// A bio names so many pages at most.
const MAX_PAGES: usize = 256;

const PAGE: usize = bindings::PAGE_SIZE;
const SECTOR_SHIFT: u32 = 9;

const ENOMEM: i32 = 12;
const EIO: i32 = 5;

const READ: u32 = bindings::req_op_REQ_OP_READ;
const WRITE: u32 = bindings::req_op_REQ_OP_WRITE | 1 << bindings::req_flag_bits___REQ_SYNC;
const FUA: u32 = 1 << bindings::req_flag_bits___REQ_FUA;

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

    /// Moves `len` bytes, a multiple of the page size, between the device and memory that is aligned to pages.
    ///
    /// # Safety
    ///
    /// The memory is valid, and for a read exclusively borrowed.
    unsafe fn transfer(&self, opf: u32, offset: u64, memory: *mut u8, len: usize) -> Result<(), i32> {
        let _nofs = NoFs::enter();
        let mut done = 0;
        while done < len {
            let part = (len - done).min(MAX_PAGES * PAGE);
            // SAFETY: a part of what the contract says.
            unsafe { self.request(opf, offset + done as u64, memory.add(done), part)? };
            done += part;
        }
        Ok(())
    }

    /// One bio.
    ///
    /// # Safety
    ///
    /// As [`Device::transfer`], of at most [`MAX_PAGES`] pages.
    unsafe fn request(&self, opf: u32, offset: u64, memory: *mut u8, len: usize) -> Result<(), i32> {
        // SAFETY: the device is open. With this pool and these flags it waits for memory instead of failing.
        let bio = unsafe {
            bindings::bio_alloc_bioset(
                self.bdev,
                (len / PAGE) as u16,
                opf,
                ffi::SCOUTFS_GFP_NOIO,
                addr_of_mut!(bindings::fs_bio_set),
            )
        };
        if bio.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: the bio is ours until it is put. It has room for a vector for each page, and each page stays until the
        // request is done, which is waited for.
        let errno = unsafe {
            (*bio).bi_iter.bi_sector = offset >> SECTOR_SHIFT;
            let in_vmalloc = bindings::is_vmalloc_addr(memory.cast::<c_void>());
            let mut added = 0;
            while added < len {
                let address = memory.add(added).cast::<c_void>();
                let page = if in_vmalloc {
                    bindings::vmalloc_to_page(address)
                } else {
                    ffi::scoutfs_virt_to_page(address)
                };
                if bindings::bio_add_page(bio, page, PAGE as u32, 0) != PAGE as i32 {
                    break;
                }
                added += PAGE;
            }
            let errno = if added == len { -bindings::submit_bio_wait(bio) } else { EIO };
            bindings::bio_put(bio);
            errno
        };
        if errno == 0 {
            Ok(())
        } else {
            Err(errno)
        }
    }

    fn write_with(&self, flags: u32, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        check_io(self, IoOp::Write, offset, buf)?;
        // SAFETY: the slice is live, and a write only reads it.
        unsafe { self.transfer(WRITE | flags, offset, buf.as_ptr().cast_mut(), buf.len()) }
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
        // SAFETY: the slice is live and exclusively borrowed.
        unsafe { self.transfer(READ, offset, buf.as_mut_ptr(), len) }.map_err(|errno| IoError {
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
        if buf.len() > MAX_PAGES * PAGE {
            self.write(offset, buf)?;
            return self.flush();
        }
        self.write_with(FUA, offset, buf)
    }
}
