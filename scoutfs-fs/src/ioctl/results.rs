// SPDX-License-Identifier: GPL-2.0-only
//! Arrays of results: gathered, and written to the caller a piece at a time.

use scoutfs_env::Vec;

use super::{Caller, Done};
use crate::error::{Error, Result};

/// Bytes that are gathered before they are written.
const PIECE: usize = 64 << 10;

/// Results on their way to the caller.
pub(super) struct Results<'a> {
    caller: &'a Caller<'a>,
    /// Where the next piece goes.
    address: u64,
    piece: Vec<u8>,
    /// Results in the piece, and in those before it.
    gathered: usize,
    written: usize,
}

impl<'a> Results<'a> {
    pub fn new(caller: &'a Caller<'a>, address: u64) -> Self {
        Results { caller, address, piece: Vec::new(), gathered: 0, written: 0 }
    }

    /// Results so far.
    pub fn count(&self) -> usize {
        self.written + self.gathered
    }

    /// Adds the bytes of one result. True says that the piece is full and to be written.
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<bool> {
        for part in parts {
            self.piece.extend_from_slice(part)?;
        }
        self.gathered += 1;
        Ok(self.piece.len() >= PIECE)
    }

    /// Writes the piece. The caller holds no lock.
    pub fn write(&mut self) -> Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.caller.memory.write(self.address, &self.piece)?;
        self.address = self.address.checked_add(self.piece.len() as u64).ok_or(Error::Fault)?;
        self.written += self.gathered;
        self.gathered = 0;
        self.piece.clear();
        Ok(())
    }

    /// Ends with how `done` ended: what was written before an error counts.
    pub fn finish(mut self, done: Result<()>) -> Result<Done> {
        match done.and_then(|()| self.write()) {
            Err(error) if self.written == 0 => Err(error),
            _ => Ok(Done::count(self.written)),
        }
    }
}
