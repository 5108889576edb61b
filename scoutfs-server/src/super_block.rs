// SPDX-License-Identifier: GPL-2.0-only
//! Reading and writing super blocks.
//!
//! Each voter slot has two copies. A leader writes both copies of its own slot, one after the other, each durable
//! before the next is begun, so a torn write leaves the other copy. Readers take the valid copy with the highest
//! (term, seq) of all slots. What leaders took over is in the same sector, of use to few who read it: see [`read_take_overs`].
//!
//! What must hold: a copy that anyone may have read as the newest is not overwritten before the new state is durable
//! in the other copy ([`write_super_after`]).

use scoutfs_env::crc32c::{crc32c, crc32c_append};
use scoutfs_env::device::{BlockDevice, IoError};
use scoutfs_env::{AllocError, IoBuf, Vec};
use scoutfs_format::block::SECTOR_SIZE;
use scoutfs_format::geometry::{
    Geometry, GeometryError, MAX_VOTERS, RESERVED_BYTES, VOTER_SECTORS, super_offset,
};
use scoutfs_format::le::{U32, U64};
use scoutfs_format::voter::{MAGIC_SUPER, MAX_TAKE_OVERS, SuperBlock, SuperId, TAKE_OVERS_OFFSET, TakeOver};
use scoutfs_format::{FORMAT_HASH, FORMAT_VERSION};
use zerocopy::{FromBytes, IntoBytes};

/// What only ever counts up stays below this, so that counting on from what is stored cannot overflow.
pub(crate) const NUMBER_END: u64 = 1 << 62;

/// A super block that was read and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidSuper {
    /// Its fields.
    pub sb: SuperBlock,
    /// Its geometry, checked, and known to fit the device.
    pub geometry: Geometry,
    /// The voter slot that it was found in.
    pub voter: u32,
    /// Which of the slot's two copies (0 or 1).
    pub copy: u32,
}

/// Why there is no super block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SuperError {
    /// The device failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// No memory.
    #[error(transparent)]
    NoMemory(#[from] AllocError),
    /// No copy has the magic of a super block.
    #[error("no scoutfs super block on the device")]
    NotScoutfs,
    /// The volume was made by a program with another format.
    #[error(
        "the volume {fsid:016x} has format version {found_version}, hash {found_hash:016x}; this program speaks \
         version {FORMAT_VERSION}, hash {FORMAT_HASH:016x}"
    )]
    OtherFormat {
        /// The volume.
        fsid: u64,
        /// Its format version.
        found_version: u64,
        /// Its format hash.
        found_hash: u64,
    },
    /// All copies are damaged; this is the first.
    #[error(
        "no valid super block: copy {copy} of voter {voter} has crc {stored_crc:08x}, its bytes give {found_crc:08x}"
    )]
    Crc {
        /// Voter slot.
        voter: u32,
        /// Which copy.
        copy: u32,
        /// The crc that it holds.
        stored_crc: u32,
        /// The crc that it should hold.
        found_crc: u32,
    },
    /// A copy with a good crc holds a geometry that cannot be.
    #[error("super block copy {copy} of voter {voter}: {error}")]
    Geometry {
        /// Voter slot.
        voter: u32,
        /// Which copy.
        copy: u32,
        /// What is wrong.
        error: GeometryError,
    },
    /// A copy with a good crc counts higher than any volume does.
    #[error("super block copy {copy} of voter {voter}: its {what} is {found}")]
    Number {
        /// Voter slot.
        voter: u32,
        /// Which copy.
        copy: u32,
        /// Which number.
        what: &'static str,
        /// As stored.
        found: u64,
    },
    /// A copy in a voter slot that its own geometry does not have.
    #[error("super block copy in voter slot {voter} of a volume with {nr_voters} voter slots")]
    Voter {
        /// Voter slot.
        voter: u32,
        /// How many the volume has.
        nr_voters: u32,
    },
    /// It is another one each time it is read.
    #[error("the newest super block changes as often as it is read")]
    Changing,
    /// The device is smaller than the volume.
    #[error("the volume has {volume_bytes} bytes, its device only {device_bytes}")]
    DeviceTooSmall {
        /// Bytes of the volume.
        volume_bytes: u64,
        /// Bytes of the device.
        device_bytes: u64,
    },
}

/// Reads the newest super block.
///
/// Copies that are torn, damaged or unreadable are passed over as long as one is valid. Errors: see [`SuperError`]; when
/// no copy is valid, what is wrong with the first that looks like a super block.
pub fn read_super(dev: &dyn BlockDevice) -> Result<ValidSuper, SuperError> {
    let mut newest: Option<ValidSuper> = None;
    let mut error = SuperError::NotScoutfs;
    // Both copies of a voter slot lie behind each other.
    let mut pair = IoBuf::zeroed(2 * SECTOR_SIZE)?;
    for voter in 0..MAX_VOTERS {
        if newest.is_some_and(|newest| voter >= newest.geometry.nr_voters()) {
            break;
        }
        let readable = dev.read(super_offset(voter, 0), &mut pair).is_ok();
        for (copy, bytes) in (0..2).zip(pair.chunks_exact(SECTOR_SIZE)) {
            let found = match bytes.first_chunk::<SECTOR_SIZE>().filter(|_| readable) {
                Some(bytes) => parse_copy(bytes, voter, copy, dev.size_bytes()),
                // One of them may be.
                None => read_copy(dev, voter, copy),
            };
            match found {
                Ok(found) => {
                    let order = |v: &ValidSuper| (v.sb.term.get(), v.sb.seq.get());
                    if newest.as_ref().is_none_or(|n| order(&found) > order(n)) {
                        newest = Some(found);
                    }
                }
                Err(SuperError::NoMemory(e)) => return Err(e.into()),
                Err(e) => error = worse(error, e),
            }
        }
    }
    newest.ok_or(error)
}

const _: () = assert!(super_offset(0, 1) == super_offset(0, 0) + SECTOR_SIZE as u64);

/// Reads and checks one copy (0 or 1) of a voter slot.
pub fn read_copy(dev: &dyn BlockDevice, voter: u32, copy: u32) -> Result<ValidSuper, SuperError> {
    let mut buf = IoBuf::zeroed(SECTOR_SIZE)?;
    dev.read(super_offset(voter, copy), &mut buf)?;
    match buf.first_chunk::<SECTOR_SIZE>() {
        Some(bytes) => parse_copy(bytes, voter, copy, dev.size_bytes()),
        None => Err(SuperError::NotScoutfs),
    }
}

/// Reads the newest super block, and with it the blocks that leaders took over.
pub fn read_super_with_take_overs(dev: &dyn BlockDevice) -> Result<(ValidSuper, Vec<TakeOver>), SuperError> {
    let mut sb = read_super(dev)?;
    for _ in 0..READS {
        if let Some(take_overs) = read_take_overs(dev, &sb)? {
            return Ok((sb, take_overs));
        }
        sb = read_super(dev)?;
    }
    Err(SuperError::Changing)
}

/// No leader writes a super block between each two of so many readings.
const READS: u32 = 16;

/// The blocks that leaders took over, by a super block that was read before: the entries that have a meaning. `None` when it is not in its
/// place any more.
pub fn read_take_overs(dev: &dyn BlockDevice, sb: &ValidSuper) -> Result<Option<Vec<TakeOver>>, SuperError> {
    let mut buf = IoBuf::zeroed(SECTOR_SIZE)?;
    dev.read(super_offset(sb.voter, sb.copy), &mut buf)?;
    let Some(bytes) = buf.first_chunk::<SECTOR_SIZE>() else { return Ok(None) };
    // The crc that it had is part of what was read before, and is that of all of the sector.
    if SuperBlock::ref_from_prefix(bytes).map_or(true, |(found, _)| *found != sb.sb)
        || super_crc(bytes) != sb.sb.crc.get()
    {
        return Ok(None);
    }
    let mut found = Vec::new();
    let entries = bytes.get(TAKE_OVERS).and_then(|bytes| <[TakeOver]>::ref_from_bytes(bytes).ok());
    for entry in entries.unwrap_or_default().iter().filter(|entry| entry.len.get() > 0) {
        found.push(*entry)?;
    }
    Ok(Some(found))
}

/// The bytes of the entries.
const TAKE_OVERS: core::ops::Range<usize> =
    TAKE_OVERS_OFFSET..TAKE_OVERS_OFFSET + MAX_TAKE_OVERS * size_of::<TakeOver>();

/// The first error that says more than "not scoutfs" is the one to report.
fn worse(old: SuperError, new: SuperError) -> SuperError {
    if matches!(old, SuperError::NotScoutfs) { new } else { old }
}

fn parse_copy(
    bytes: &[u8; SECTOR_SIZE],
    voter: u32,
    copy: u32,
    device_bytes: u64,
) -> Result<ValidSuper, SuperError> {
    // The first 64 bytes never change, so they are looked at before anything else.
    let (id, _) = SuperId::read_from_prefix(bytes).map_err(|_| SuperError::NotScoutfs)?;
    if id.magic.get() != MAGIC_SUPER {
        return Err(SuperError::NotScoutfs);
    }
    if id.format_hash.get() != FORMAT_HASH {
        return Err(SuperError::OtherFormat {
            fsid: id.fsid.get(),
            found_version: id.format_version.get(),
            found_hash: id.format_hash.get(),
        });
    }
    let (sb, _) = SuperBlock::read_from_prefix(bytes).map_err(|_| SuperError::NotScoutfs)?;
    let found_crc = super_crc(bytes);
    if sb.crc.get() != found_crc {
        return Err(SuperError::Crc { voter, copy, stored_crc: sb.crc.get(), found_crc });
    }
    let geometry =
        Geometry::from_raw(&sb.geometry).map_err(|error| SuperError::Geometry { voter, copy, error })?;
    // An election goes on from the term; it must have room above.
    for (what, number) in [("term", sb.term), ("seq", sb.seq)] {
        if number.get() >= NUMBER_END {
            return Err(SuperError::Number { voter, copy, what, found: number.get() });
        }
    }
    if voter >= geometry.nr_voters() {
        return Err(SuperError::Voter { voter, nr_voters: geometry.nr_voters() });
    }
    if geometry.volume_bytes() > device_bytes {
        return Err(SuperError::DeviceTooSmall { volume_bytes: geometry.volume_bytes(), device_bytes });
    }
    Ok(ValidSuper { sb, geometry, voter, copy })
}

/// crc32c of the sector with the crc field taken as zero.
fn super_crc(bytes: &[u8; SECTOR_SIZE]) -> u32 {
    const AT: usize = core::mem::offset_of!(SuperBlock, crc);
    let (head, rest) = bytes.split_at(AT);
    crc32c_append(crc32c_append(crc32c(head), &[0; 4]), rest.get(4..).unwrap_or(&[]))
}

/// The sector that holds `sb` and these entries, as many as there may be; sets its crc.
fn seal(sb: &mut SuperBlock, take_overs: &[TakeOver]) -> Result<IoBuf, AllocError> {
    let mut buf = IoBuf::zeroed(SECTOR_SIZE)?;
    sb.crc = U32::ZERO;
    let take_overs = take_overs.get(..MAX_TAKE_OVERS).unwrap_or(take_overs).as_bytes();
    if let Some(to) = buf.get_mut(TAKE_OVERS).and_then(|to| to.get_mut(..take_overs.len())) {
        to.copy_from_slice(take_overs);
    }
    if let Some(sector) = buf.first_chunk_mut::<SECTOR_SIZE>() {
        let put = |sector: &mut [u8; SECTOR_SIZE], sb: &SuperBlock| {
            if let Some(to) = sector.get_mut(..size_of::<SuperBlock>()) {
                to.copy_from_slice(sb.as_bytes());
            }
        };
        put(sector, sb);
        sb.crc = U32::new(super_crc(sector));
        put(sector, sb);
    }
    Ok(buf)
}

/// Writes `sb` to both copies of a voter slot, one after the other, each durable; raises its seq by one and sets its
/// crc. For a slot whose two copies are equal, as they are after the first write of a term. No leader took anything over that it does not
/// name otherwise.
///
/// After an error it is not known which state a reader finds; only a new read tells.
pub fn write_super(dev: &dyn BlockDevice, voter: u32, sb: &mut SuperBlock) -> Result<(), SuperError> {
    write_super_after(dev, voter, 1, sb, &[])
}

/// As [`write_super`], for a slot in which `newest_copy` may be newer than the other: that one is written last. With what leaders
/// took over, [`MAX_TAKE_OVERS`] entries at most.
#[inline(never)]
pub fn write_super_after(
    dev: &dyn BlockDevice,
    voter: u32,
    newest_copy: u32,
    sb: &mut SuperBlock,
    take_overs: &[TakeOver],
) -> Result<(), SuperError> {
    let seq = sb.seq.get().saturating_add(1);
    if seq >= NUMBER_END {
        // It would be read as damaged.
        return Err(SuperError::Number { voter, copy: newest_copy, what: "seq", found: seq });
    }
    sb.seq = U64::new(seq);
    let buf = seal(sb, take_overs)?;
    for copy in [1 ^ (newest_copy & 1), newest_copy & 1] {
        dev.write_durable(super_offset(voter, copy), &buf)?;
    }
    Ok(())
}

/// Makes sure that no super block or quorum block is found on the device, durably.
pub(crate) fn invalidate_supers(dev: &dyn BlockDevice) -> Result<(), SuperError> {
    let len = MAX_VOTERS as usize * VOTER_SECTORS as usize * SECTOR_SIZE;
    let zeros = IoBuf::zeroed(len)?;
    dev.write_durable(RESERVED_BYTES, &zeros)?;
    Ok(())
}

/// The unchanging head of a new super block.
pub(crate) fn super_id(fsid: u64, uuid: [u8; 16]) -> SuperId {
    SuperId {
        magic: U64::new(MAGIC_SUPER),
        fsid: U64::new(fsid),
        format_version: U64::new(FORMAT_VERSION.into()),
        format_hash: U64::new(FORMAT_HASH),
        uuid,
        reserved: [0; 16],
    }
}
