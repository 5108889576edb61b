// SPDX-License-Identifier: GPL-2.0-only
//! Damage to a volume that no checksum shows: bytes are changed and the checksums made right again.
//!
//! What is damaged is what a check of the sound volume reads: metadata blocks, frames of rings, super blocks and quorum
//! blocks. Half of the time the structure around is left intact (a value in a leaf is changed), so that the damage
//! gets past the first checks. Both copies of a super or quorum block mostly get the same.
//!
//! Three things are left alone, because a mount then waits for ever, and rightly so: the super block's quorum (more votes
//! may be asked for than there are nodes), its fsid, and the last valid quorum block of a voter (nobody takes a slot that
//! cannot be read: its owner may be alive).

use std::collections::BTreeSet;
use std::mem::{offset_of, size_of};
use std::sync::{Arc as StdArc, Mutex, PoisonError};

use scoutfs_env::crc32c::{crc32c, crc32c_append};
use scoutfs_env::device::{BlockDevice, IO_ALIGN, IoError, MemDevice};
use scoutfs_env::{Arc, Box, IoBuf, try_box};
use scoutfs_format::BLOCK_SIZE;
use scoutfs_format::block::{BlockHeader, MAGIC_NODE, MAGIC_SPACE_LIST};
use scoutfs_format::geometry::RawGeometry;
use scoutfs_format::ring::{FrameHeader, MAGIC_FRAME};
use scoutfs_format::tree::{ItemHeader, NodeHeader};
use scoutfs_format::voter::{SuperBlock, SuperId};
use scoutfs_fs::check::check;
use scoutfs_net::quorum::VoterBlock;
use scoutfs_server::super_block::read_super;
use zerocopy::{FromBytes, IntoBytes};

use crate::disk::{Region, region_of};
use crate::rng::Rng;
use crate::volume::geometry;

/// A device that remembers what was read.
struct Watched {
    memory: MemDevice,
    reads: StdArc<Mutex<BTreeSet<(u64, usize)>>>,
}

impl BlockDevice for Watched {
    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }

    fn read_only(&self) -> bool {
        true
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).insert((offset, buf.len()));
        self.memory.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.memory.write(offset, buf)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.memory.flush()
    }
}

/// What one checksum protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node of a tree.
    Node,
    /// A block of a list of space.
    SpaceList,
    /// A frame of a ring.
    Frame,
    /// A super block.
    Super,
    /// A quorum block.
    Quorum,
}

/// A piece of the volume with a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub offset: u64,
}

impl Kind {
    fn len(self) -> usize {
        if matches!(self, Kind::Node | Kind::SpaceList) { BLOCK_SIZE } else { IO_ALIGN }
    }

    fn header_len(self) -> usize {
        match self {
            Kind::Node | Kind::SpaceList => size_of::<BlockHeader>(),
            Kind::Frame => size_of::<FrameHeader>(),
            Kind::Super => 64,
            Kind::Quorum => 16,
        }
    }
}

fn read(memory: &MemDevice, offset: u64, len: usize) -> IoBuf {
    let mut buf = IoBuf::zeroed(len).expect("memory");
    memory.read(offset, &mut buf).expect("within the volume");
    buf
}

/// All units of a sound volume that matter.
pub fn units(memory: &MemDevice) -> Vec<Unit> {
    let reads = StdArc::default();
    let watched = Watched { memory: memory.snapshot(), reads: StdArc::clone(&reads) };
    let device: Box<dyn BlockDevice> = try_box(watched).expect("memory");
    let device = Arc::new(device).expect("memory");
    let mut issues = Vec::new();
    check(&device, &mut |issue| issues.push(issue.to_string()), &mut |_, _| ()).expect("a volume");
    assert_eq!(issues, Vec::<String>::new(), "the volume is not sound to begin with");
    let mut units = Vec::new();
    let geometry = geometry();
    let reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
    for (offset, len) in reads.iter().copied() {
        let step = if len == BLOCK_SIZE && offset >= geometry.zones_offset() { BLOCK_SIZE } else { IO_ALIGN };
        for at in (offset..offset + len as u64).step_by(step) {
            let bytes = read(memory, at, step);
            let magic = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            let kind = match region_of(&geometry, at) {
                Region::Zones if magic == MAGIC_NODE => Kind::Node,
                Region::Zones if magic == MAGIC_SPACE_LIST => Kind::SpaceList,
                Region::Ring if magic == MAGIC_FRAME => Kind::Frame,
                Region::Super if bytes[0] != 0 => Kind::Super,
                Region::Quorum if bytes[0] != 0 => Kind::Quorum,
                _ => continue,
            };
            let unit = Unit { kind, offset: at };
            if !units.contains(&unit) {
                units.push(unit);
            }
        }
    }
    units
}

/// Damages one unit. The checksum is right afterwards.
pub fn damage(memory: &MemDevice, units: &[Unit], rng: &mut Rng) {
    // Kinds are equally likely, however many of each there are.
    let wanted = *rng.pick(&[
        Kind::Node,
        Kind::Node,
        Kind::Node,
        Kind::SpaceList,
        Kind::Frame,
        Kind::Frame,
        Kind::Super,
        Kind::Quorum,
    ]);
    let candidates: Vec<_> = units.iter().filter(|unit| unit.kind == wanted).copied().collect();
    if candidates.is_empty() {
        return;
    }
    let unit = *rng.pick(&candidates);
    let mut bytes = read(memory, unit.offset, unit.kind.len());
    let other_copy = unit.offset ^ IO_ALIGN as u64;
    let before = (bytes.to_vec(), read(memory, other_copy, IO_ALIGN));
    let quorum = quorum_bytes();
    let kept = [FSID, quorum].map(|range| (range.clone(), bytes[range].to_vec()));
    if rng.one_in(12) {
        // The body of another of its kind.
        let other = rng.pick(&candidates).offset;
        let from = unit.kind.header_len();
        bytes[from..].copy_from_slice(&read(memory, other, unit.kind.len())[from..]);
    } else {
        for _ in 0..=rng.below(3) {
            let range = target(&unit, &bytes, rng);
            change(&mut bytes, range, rng);
        }
    }
    if unit.kind == Kind::Super {
        for (range, old) in kept {
            bytes[range].copy_from_slice(&old);
        }
    }
    sign(unit.kind, &mut bytes);
    memory.write(unit.offset, &bytes).expect("within the volume");
    if matches!(unit.kind, Kind::Super | Kind::Quorum) && !rng.one_in(4) {
        memory.write(other_copy, &bytes).expect("within the volume");
    }
    if unit.kind == Kind::Quorum && !voter_is_readable(memory, unit.offset) {
        bytes.copy_from_slice(&before.0);
        memory.write(unit.offset, &bytes).expect("within the volume");
        memory.write(other_copy, &before.1).expect("within the volume");
    }
}

/// Whether one of the quorum blocks at and next to `offset` is valid.
fn voter_is_readable(memory: &MemDevice, offset: u64) -> bool {
    let geometry = geometry();
    let voters = 0..geometry.nr_voters();
    let voter =
        voters.clone().find(|voter| (0..2).any(|copy| geometry.quorum_block_offset(*voter, copy) == offset));
    let voter = voter.expect("a quorum block");
    let copies = [0, 1].map(|copy| read(memory, geometry.quorum_block_offset(voter, copy), IO_ALIGN));
    let fsid = read_super(memory).map_or(0, |found| found.sb.id.fsid.get());
    VoterBlock::newest([Some(&*copies[0]), Some(&*copies[1])], fsid, voter, voters.end).is_ok()
}

/// Where the super block says which volume it is.
const FSID: std::ops::Range<usize> = offset_of!(SuperId, fsid)..offset_of!(SuperId, fsid) + 8;

/// Where the super block says how many votes make a majority.
fn quorum_bytes() -> std::ops::Range<usize> {
    let at = offset_of!(SuperBlock, geometry) + offset_of!(RawGeometry, quorum);
    at..at + 4
}

/// Which bytes of a unit to damage.
fn target(unit: &Unit, bytes: &[u8], rng: &mut Rng) -> std::ops::Range<usize> {
    let header = unit.kind.header_len();
    if rng.one_in(20) {
        return 4..header;
    }
    match unit.kind {
        Kind::Node if !rng.one_in(3) => item(bytes, rng).unwrap_or(header..header + 64),
        Kind::Super => header..size_of::<SuperBlock>(),
        Kind::Quorum => header..256,
        _ => {
            // The head, or something that is not zero.
            let used =
                bytes.iter().rposition(|b| *b != 0).map_or(bytes.len(), |last| last + 1).max(header + 8);
            let end = if rng.one_in(2) { used } else { used.min(header + 256) };
            header..end
        }
    }
}

/// An item of a node: its header, or more often its value.
fn item(bytes: &[u8], rng: &mut Rng) -> Option<std::ops::Range<usize>> {
    let (head, _) = NodeHeader::ref_from_prefix(bytes).ok()?;
    let count = head.nr_items.get() as usize;
    let at = size_of::<NodeHeader>() + rng.below(count.max(1)) * size_of::<ItemHeader>();
    let (item, _) = ItemHeader::ref_from_prefix(bytes.get(at..)?).ok()?;
    let value =
        usize::from(item.val_off.get())..usize::from(item.val_off.get()) + usize::from(item.val_len.get());
    if value.is_empty() || value.end > bytes.len() || rng.one_in(4) {
        Some(at..at + size_of::<ItemHeader>())
    } else {
        Some(value)
    }
}

/// Changes something in a range, which is not empty.
fn change(bytes: &mut [u8], range: std::ops::Range<usize>, rng: &mut Rng) {
    let range = range.start..range.end.min(bytes.len());
    let Some(room) = bytes.get_mut(range).filter(|room| !room.is_empty()) else {
        return;
    };
    let width = (*rng.pick(&[1, 2, 4, 8])).min(room.len());
    // Fields are mostly aligned to their size.
    let at = rng.below(room.len() - width + 1);
    let at = if rng.one_in(4) { at } else { at - at % width };
    let mut old = [0; 8];
    old[..width].copy_from_slice(&room[at..at + width]);
    let old = u64::from_le_bytes(old);
    let new = match rng.below(9) {
        0 => old ^ (1 << rng.below(width * 8)),
        1 => rng.next_u64(),
        2 => 0,
        3 => u64::MAX,
        4 => u64::MAX >> 1,
        5 => old.wrapping_add(1),
        6 => old.wrapping_sub(1),
        7 => old.wrapping_mul(2),
        _ => {
            let from = rng.below(room.len() - width + 1);
            room.copy_within(from..from + width, at);
            return;
        }
    };
    room[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
}

/// Makes the checksum right.
fn sign(kind: Kind, bytes: &mut [u8]) {
    let at = if kind == Kind::Super { offset_of!(SuperBlock, crc) } else { 0 };
    let crc = match kind {
        Kind::Super => crc32c_append(crc32c_append(crc32c(&bytes[..at]), &[0; 4]), &bytes[at + 4..]),
        _ => crc32c(&bytes[4..]),
    };
    bytes[at..at + 4].copy_from_slice(crc.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{issues, new_volume};

    #[test]
    fn signing_what_is_not_changed_changes_nothing() {
        let disk = new_volume();
        let units = units(disk.memory());
        for kind in [Kind::Node, Kind::SpaceList, Kind::Super] {
            assert!(units.iter().any(|unit| unit.kind == kind), "{kind:?}");
        }
        for unit in units {
            let mut bytes = read(disk.memory(), unit.offset, unit.kind.len());
            let before = bytes.to_vec();
            sign(unit.kind, &mut bytes);
            assert_eq!(before, bytes[..], "{unit:?}");
        }
    }

    #[test]
    fn most_damage_is_found_by_check() {
        let disk = new_volume();
        let units = units(disk.memory());
        let mut found = 0;
        for seed in 0..100 {
            let damaged = crate::disk::Disk::new(disk.memory().snapshot());
            damage(damaged.memory(), &units, &mut Rng::new(seed));
            found += usize::from(!issues(&damaged).is_ok_and(|(_, issues)| issues.is_empty()));
        }
        assert!(found > 40, "{found} of 100");
    }
}
