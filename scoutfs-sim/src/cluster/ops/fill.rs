// SPDX-License-Identifier: GPL-2.0-only
//! Files that take space until there is none, and go again. On small volumes only.

use scoutfs_env::sim;
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::Error;

use super::super::work::{End, file};
use super::{Program, filled, lock, new_value};

/// Files that fill.
const FILES: u64 = 6;
/// Words that are written at once.
const PIECE: usize = 128 << 10;
/// How often.
const PIECES: u64 = 12;

impl Program<'_> {
    /// Removes a file that fills, or makes one.
    pub(super) fn fill(&self) -> Result<(), End> {
        let name = format!("fill{}", sim::below(FILES)).into_bytes();
        match self.fs.unlink(ROOT_INO, &name) {
            Ok(()) => return Ok(()),
            Err(Error::NotFound) => {}
            Err(Error::NoSpace) => {
                return Err(End::Unexpected("a file cannot be removed for want of space".into()));
            }
            Err(e) => return Err(e.into()),
        }
        if lock(&self.world.flow).calm {
            return Ok(());
        }
        let ino = match self.fs.create(ROOT_INO, &name, &file()) {
            Err(Error::Exists) => return Ok(()),
            made => made?.ino,
        };
        let bytes = filled(new_value(), PIECE);
        let done = (0..PIECES).try_for_each(|n| self.fs.write(ino, n * 8 * PIECE as u64, &bytes).map(drop));
        self.fs.forget(ino, 1);
        sim::note(format_args!(
            "filled {}: {}",
            name.escape_ascii(),
            if done.is_ok() { "all" } else { "failed" }
        ));
        match done {
            // Another has removed it.
            Err(Error::NotFound | Error::StaleHandle) => Ok(()),
            done => Ok(done?),
        }
    }
}
