// SPDX-License-Identifier: GPL-2.0-only
//! What is told of the volume.

use scoutfs_env::Vec;
use scoutfs_format::ioctl::{
    ALLOC_AVAILABLE, ALLOC_META, AllocDetail, AllocDetailEntry, CounterEntry, GetAllocatedInos, GetCounters,
    StatfsMore, WALK_DATA_SEQ, WALK_META_SEQ, WalkInodes, WalkInodesEntry,
};
use scoutfs_format::item::INO_GROUP;
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ};
use scoutfs_format::le::U64;
use zerocopy::IntoBytes;

use super::results::Results;
use super::{Caller, Done};
use crate::error::{Error, Result};
use crate::fs::Fs;

/// Bytes of an inode number in a caller's array, and its alignment there.
const INO_BYTES: u64 = 8;

/// Stands for all other mounts in [`AllocDetailEntry::id`].
const OTHERS: u64 = u64::MAX;
/// Stands there for what nobody may use, since who was fenced may still write it. Such an entry is not available.
const QUARANTINE: u64 = u64::MAX - 1;

impl Fs {
    pub(super) fn ioctl_walk_inodes(&self, walk: &WalkInodes, caller: &Caller<'_>) -> Result<Done> {
        let kind = match walk.index {
            WALK_META_SEQ => KIND_META_SEQ,
            WALK_DATA_SEQ => KIND_DATA_SEQ,
            _ => return Err(Error::Invalid("no such index")),
        };
        let position = |e: &WalkInodesEntry| (e.major.get(), e.ino.get());
        let (first, last) = (position(&walk.first), position(&walk.last));
        let wanted = walk.nr_entries.get().min(i32::MAX as u32) as usize;
        if wanted == 0 || first > last {
            return Ok(Done::NOTHING);
        }
        let mut results = Results::new(caller, walk.entries_ptr.get());
        // The walk holds no lock.
        let walked = self.walk_index(kind, first, last, wanted, &mut |seq, ino| {
            let entry = WalkInodesEntry { major: U64::new(seq), ino: U64::new(ino), ..Default::default() };
            if results.push(&[entry.as_bytes()])? { results.write() } else { Ok(()) }
        });
        results.finish(walked.map(|_| ()))
    }

    pub(super) fn statfs_more(&self) -> Result<StatfsMore> {
        let stat = self.statfs()?;
        let store = self.store();
        Ok(StatfsMore {
            fsid: U64::new(store.fsid()),
            rid: U64::new(store.rid()),
            committed_seq: U64::new(store.committed_seq()),
            total_meta_blocks: U64::new(stat.total_meta),
            total_data_blocks: U64::new(stat.total_data.saturating_add(stat.unassigned)),
            reserved_meta_blocks: U64::new(stat.reserved_meta),
        })
    }

    pub(super) fn ioctl_alloc_detail(&self, detail: &AllocDetail, caller: &Caller<'_>) -> Result<Done> {
        let stat = self.statfs()?;
        let rid = self.store().rid();
        let entry = |id: u64, blocks: u64, flags: u8| AllocDetailEntry {
            id: U64::new(id),
            blocks: U64::new(blocks),
            store: u8::from(id != 0),
            flags,
            pad: [0; 6],
        };
        let (others_meta, others_data) = (stat.others_free_meta, stat.others_free_data);
        let own = |free: u64, server: u64, others: u64| free.saturating_sub(server).saturating_sub(others);
        const META: u8 = ALLOC_AVAILABLE | ALLOC_META;
        let all = [
            entry(0, stat.server_free_meta, META),
            entry(0, stat.server_free_data.saturating_add(stat.unassigned), ALLOC_AVAILABLE),
            entry(rid, own(stat.free_meta, stat.server_free_meta, others_meta), META),
            entry(rid, own(stat.free_data, stat.server_free_data, others_data), ALLOC_AVAILABLE),
            entry(OTHERS, others_meta, META),
            entry(OTHERS, others_data, ALLOC_AVAILABLE),
            entry(QUARANTINE, stat.quarantined_meta, ALLOC_META),
            entry(QUARANTINE, stat.quarantined_data, 0),
        ];
        // Who is alone is told of no others, and of no quarantine where there is none.
        let mut entries: Vec<AllocDetailEntry> = Vec::with_capacity(all.len())?;
        for (at, entry) in all.into_iter().enumerate() {
            if at < 4 || entry.blocks.get() > 0 {
                entries.push(entry)?;
            }
        }
        if detail.entries_nr.get() < entries.len() as u64 {
            return Err(Error::Overflow);
        }
        caller.memory.write(detail.entries_ptr.get(), entries.as_bytes())?;
        Ok(Done::count(entries.len()))
    }

    pub(super) fn ioctl_allocated_inos(&self, get: &GetAllocatedInos, caller: &Caller<'_>) -> Result<Done> {
        let room = get.inos_bytes.get() / INO_BYTES;
        if !get.inos_ptr.get().is_multiple_of(INO_BYTES) || room == 0 {
            return Err(Error::Invalid("no aligned room for an inode number"));
        }
        let inos = self.allocated_inos(get.start_ino.get(), room.min(INO_GROUP) as usize)?;
        let mut results = Results::new(caller, get.inos_ptr.get());
        for ino in &inos {
            // All of a group are one piece.
            results.push(&[U64::new(*ino).as_bytes()])?;
        }
        results.finish(Ok(()))
    }

    pub(super) fn ioctl_counters(&self, get: &GetCounters, caller: &Caller<'_>) -> Result<Done> {
        let mut entries: Vec<CounterEntry> = Vec::new();
        self.for_each_counter(&mut |name, value| {
            let mut entry = CounterEntry { value: U64::new(value), ..Default::default() };
            // One byte stays zero.
            let last = entry.name.len() - 1;
            for (to, from) in entry.name.iter_mut().take(last).zip(name.bytes()) {
                *to = from;
            }
            entries.push(entry)?;
            Ok(())
        })?;
        if get.entries_nr.get() < entries.len() as u64 {
            return Err(Error::Overflow);
        }
        caller.memory.write(get.entries_ptr.get(), entries.as_bytes())?;
        Ok(Done::count(entries.len()))
    }
}
