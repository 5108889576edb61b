// SPDX-License-Identifier: GPL-2.0-only
//! Where a file's data are, for FIEMAP.

use scoutfs_env::Vec;
use scoutfs_format::ioctl::{
    FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_UNKNOWN, FIEMAP_EXTENT_UNWRITTEN, FiemapExtent,
};
use scoutfs_format::item::MAX_FILE_BYTES;
use scoutfs_format::le::{U32, U64};

use crate::data::extent::Extent;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::kind::FileType;
use crate::inode::record::DATA_BLOCK_BYTES;
use crate::store::LockMode;

/// As the kernel's structure has it; all sums are below 2^63.
fn mapped(extent: &Extent, last: bool) -> FiemapExtent {
    let kind = match extent {
        Extent { blkno: 0, .. } => FIEMAP_EXTENT_UNKNOWN,
        extent if extent.is_written() => 0,
        _ => FIEMAP_EXTENT_UNWRITTEN,
    };
    FiemapExtent {
        logical: U64::new(extent.first * DATA_BLOCK_BYTES),
        physical: U64::new(extent.blkno * DATA_BLOCK_BYTES),
        length: U64::new(extent.len * DATA_BLOCK_BYTES),
        flags: U32::new(kind | if last { FIEMAP_EXTENT_LAST } else { 0 }),
        ..FiemapExtent::default()
    }
}

impl Fs {
    /// The extents of a regular file that hold bytes of `start..end`, whole, up to `max`. Those that continue each other in
    /// the file and on the device are one.
    ///
    /// # Errors
    ///
    /// [`Error::FileTooBig`] when `start` is past the largest file's end; [`Error::NotSupported`] for other types of files.
    pub fn fiemap(&self, ino: u64, start: u64, end: u64, max: usize) -> Result<Vec<FiemapExtent>> {
        if start > MAX_FILE_BYTES {
            return Err(Error::FileTooBig);
        }
        self.write_delayed_of(ino)?;
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Read)])?;
        let _state = pin.data.read();
        if self.load(&locks, ino)?.kind() != FileType::Regular {
            return Err(Error::NotSupported);
        }
        let mut found = Vec::new();
        let end_block = end.div_ceil(DATA_BLOCK_BYTES);
        let mut next = self.extent_from(&locks, ino, start / DATA_BLOCK_BYTES)?;
        while found.len() < max
            && let Some(mut extent) = next
            && extent.first < end_block
        {
            loop {
                next = self.extent_from(&locks, ino, extent.end())?;
                match next {
                    Some(more) if extent.joins(&more) => extent.len += more.len,
                    _ => break,
                }
            }
            found.push(mapped(&extent, next.is_none()))?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
