// SPDX-License-Identifier: GPL-2.0-only
//! A device that tries again.
//!
//! A path to a shared device may fail for a moment and be replaced by another. A write that failed may have been done,
//! in part or wholly, so the same bytes go to the same place at once, before anything else is known to anybody. What fails
//! each time is the caller's to deal with.

use super::{BlockDevice, IoError, ReadAhead};
use crate::{Arc, Box};

/// How often a request is made before its error counts.
pub const ATTEMPTS: u32 = 3;

/// See the module.
pub struct RetryDevice(Arc<Box<dyn BlockDevice>>);

impl RetryDevice {
    /// Requests go to `device`.
    pub fn new(device: Arc<Box<dyn BlockDevice>>) -> Self {
        RetryDevice(device)
    }
}

fn persist(mut request: impl FnMut() -> Result<(), IoError>) -> Result<(), IoError> {
    for _ in 1..ATTEMPTS {
        match request() {
            Ok(()) => return Ok(()),
            Err(e) => crate::log::warn!("{e}; trying again"),
        }
    }
    request()
}

impl BlockDevice for RetryDevice {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_only(&self) -> bool {
        self.0.read_only()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        persist(|| self.0.read(offset, buf))
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        persist(|| self.0.write(offset, buf))
    }

    fn flush(&self) -> Result<(), IoError> {
        persist(|| self.0.flush())
    }

    fn write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        persist(|| self.0.write_durable(offset, buf))
    }

    fn flush_and_write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        persist(|| self.0.flush_and_write_durable(offset, buf))
    }

    fn write_pieces(&self, pieces: &[(u64, &[u8])]) -> Result<(), IoError> {
        persist(|| self.0.write_pieces(pieces))
    }

    fn read_ahead(&self, request: ReadAhead) {
        self.0.read_ahead(request);
    }
}
