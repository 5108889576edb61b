// SPDX-License-Identifier: GPL-2.0-only
//! A file that all only append to: nothing that was appended is lost or overwritten, and nothing else is in it.

use scoutfs_env::sim;
use scoutfs_fs::Error;
use scoutfs_fs::inode::Drops;

use super::super::work::End;
use super::{LOG, Program, filled, lock, new_value, words};

/// Words that are appended at once: never in two blocks.
const RECORD: usize = 8;
/// No more is appended to a file of so many records.
const ENOUGH: usize = 1000;

impl Program<'_> {
    pub(super) fn append(&self) -> Result<(), End> {
        let ino = self.find_in_root(LOG)?;
        if lock(&self.world.history).log_len >= ENOUGH {
            return self.read_log();
        }
        let value = new_value();
        lock(&self.world.history).appends(self.node, value);
        match self.fs.write_later(ino, None, &filled(value, RECORD), Drops::Nothing) {
            Ok((offset, len)) if len == 8 * RECORD && offset % (8 * RECORD as u64) == 0 => {
                let at = offset as usize / (8 * RECORD);
                sim::note(format_args!("appended {value:x} at {at}"));
                Ok(lock(&self.world.history).appended(value, at, ino)?)
            }
            Ok((offset, len)) => sim::fail(format_args!("appended {len} bytes at {offset}")),
            Err(Error::NoSpace) => {
                lock(&self.world.history).append_refused(value);
                Err(End::NoSpace)
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn read_log(&self) -> Result<(), End> {
        let began = sim::now_ns();
        let ino = self.find_in_root(LOG)?;
        let mut bytes = filled(0, (ENOUGH + 100) * RECORD);
        let len = self.fs.read(ino, 0, &mut bytes)?;
        let mut seen = Vec::new();
        for record in bytes[..len].chunks(8 * RECORD) {
            let value = words(record).next().unwrap_or(0);
            if value == 0 || record != value.to_le_bytes().repeat(RECORD) {
                let at = seen.len();
                sim::fail(format_args!("record {at} of the log is {:x?}", words(record).collect::<Vec<_>>()));
            }
            seen.push(value);
        }
        sim::note(format_args!("read the log: {} records", seen.len()));
        let mut history = lock(&self.world.history);
        seen.resize(history.log_len.max(seen.len()), 0);
        for (at, value) in seen.into_iter().enumerate() {
            history.read_log(self.node, at, value, began)?;
        }
        Ok(())
    }
}
