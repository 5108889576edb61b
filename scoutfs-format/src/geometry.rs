// SPDX-License-Identifier: GPL-2.0-only
//! Where the regions of a volume are.
//!
//! ```text
//! 0         64 KiB left alone
//! 64 KiB    voter slots: per voter two quorum blocks, then two super block copies, 4 KiB each
//! ...       mount slots: a ring of 4 KiB frames each
//! ...       zones, to the end; what does not fill a zone is unused
//! ```

use crate::block::{BLOCK_SIZE, SECTOR_SIZE};
use crate::layout::{constants, layout};
use crate::le::{U32, U64};

constants! { GEOMETRY_CONSTANTS:
    /// Bytes at the start of the device that are left alone.
    pub const RESERVED_BYTES: u64 = 64 * 1024;
    /// Bytes of the smallest volume.
    pub const MIN_VOLUME_BYTES: u64 = 64 << 20;
    /// Bytes of the largest volume: byte offsets stay within a signed 64-bit number.
    pub const MAX_VOLUME_BYTES: u64 = 1 << 62;
    /// Highest `-Q`: a majority of this many needs [`MAX_VOTERS`] slots.
    pub const MAX_QUORUM: u32 = 8;
    /// Most voter slots.
    pub const MAX_VOTERS: u32 = 15;
    /// Sectors of a voter slot: two quorum blocks and two super blocks.
    pub const VOTER_SECTORS: u64 = 4;
    /// Frames in a mount slot's ring.
    pub const RING_FRAMES: u32 = 64;
    /// Fewest mount slots.
    pub const MIN_SLOTS: u32 = 8;
    /// Most mount slots.
    pub const MAX_SLOTS: u32 = 512;
    /// Smallest zone.
    pub const MIN_ZONE_BYTES: u64 = 1 << 20;
    /// Largest zone.
    pub const MAX_ZONE_BYTES: u64 = 1 << 30;
}

layout! {
    /// A volume's geometry, decided by mkfs.
    pub struct RawGeometry {
        /// Bytes of the device that the volume uses.
        pub volume_bytes: U64,
        /// Byte offset of the first mount slot.
        pub slots_offset: U64,
        /// Byte offset of the first zone.
        pub zones_offset: U64,
        /// Bytes of a zone: a power of two.
        pub zone_bytes: U64,
        /// Number of zones.
        pub nr_zones: U64,
        /// Votes that make a majority (`mkfs -Q`).
        pub quorum: U32,
        /// Number of mount slots.
        pub nr_slots: U32,
    }
}

/// A volume's geometry, known to be sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    volume_bytes: u64,
    slots_offset: u64,
    zones_offset: u64,
    zone_bytes: u64,
    nr_zones: u64,
    quorum: u32,
    nr_slots: u32,
}

/// Why a geometry is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// The device is too small.
    #[error("the device has {bytes} bytes, a volume needs at least {MIN_VOLUME_BYTES}")]
    TooSmall {
        /// Bytes of the device.
        bytes: u64,
    },
    /// The device is too large.
    #[error("the device has {bytes} bytes, a volume has at most {MAX_VOLUME_BYTES}")]
    TooLarge {
        /// Bytes of the device.
        bytes: u64,
    },
    /// The number of votes is out of range.
    #[error("a quorum of {quorum} is not in 1 to {MAX_QUORUM}")]
    Quorum {
        /// What was asked for.
        quorum: u32,
    },
    /// A stored geometry is not the one that its volume size and quorum give.
    #[error("the stored geometry does not follow from {volume_bytes} bytes and a quorum of {quorum}")]
    Inconsistent {
        /// Stored size.
        volume_bytes: u64,
        /// Stored quorum.
        quorum: u32,
    },
}

impl Geometry {
    /// The geometry of a new volume on a device of `bytes` with a majority of `quorum` votes.
    pub const fn new(bytes: u64, quorum: u32) -> Result<Self, GeometryError> {
        if bytes < MIN_VOLUME_BYTES {
            return Err(GeometryError::TooSmall { bytes });
        }
        if bytes > MAX_VOLUME_BYTES {
            return Err(GeometryError::TooLarge { bytes });
        }
        if quorum == 0 || quorum > MAX_QUORUM {
            return Err(GeometryError::Quorum { quorum });
        }
        let volume_bytes = bytes - bytes % SECTOR_SIZE as u64;
        let nr_slots = clamp((bytes / (64 << 20)).next_power_of_two(), MIN_SLOTS as u64, MAX_SLOTS as u64);
        let zone_bytes = clamp((bytes >> 11).next_power_of_two(), MIN_ZONE_BYTES, MAX_ZONE_BYTES);
        let voters = (2 * quorum - 1) as u64;
        let slots_offset =
            align_up(RESERVED_BYTES + voters * VOTER_SECTORS * SECTOR_SIZE as u64, BLOCK_SIZE as u64);
        let slots_end = slots_offset + nr_slots * RING_FRAMES as u64 * SECTOR_SIZE as u64;
        let zones_offset = align_up(slots_end, BLOCK_SIZE as u64);
        Ok(Geometry {
            volume_bytes,
            slots_offset,
            zones_offset,
            zone_bytes,
            nr_zones: (volume_bytes - zones_offset) / zone_bytes,
            quorum,
            nr_slots: nr_slots as u32,
        })
    }

    /// Checks a stored geometry: it must be the one that [`Geometry::new`] makes.
    pub fn from_raw(raw: &RawGeometry) -> Result<Self, GeometryError> {
        let geometry = Self::new(raw.volume_bytes.get(), raw.quorum.get())?;
        if geometry.to_raw() == *raw {
            Ok(geometry)
        } else {
            Err(GeometryError::Inconsistent {
                volume_bytes: raw.volume_bytes.get(),
                quorum: raw.quorum.get(),
            })
        }
    }

    /// As stored.
    pub const fn to_raw(&self) -> RawGeometry {
        RawGeometry {
            volume_bytes: U64::new(self.volume_bytes),
            slots_offset: U64::new(self.slots_offset),
            zones_offset: U64::new(self.zones_offset),
            zone_bytes: U64::new(self.zone_bytes),
            nr_zones: U64::new(self.nr_zones),
            quorum: U32::new(self.quorum),
            nr_slots: U32::new(self.nr_slots),
        }
    }

    /// Bytes of the device that the volume uses.
    pub const fn volume_bytes(&self) -> u64 {
        self.volume_bytes
    }

    /// Votes that make a majority.
    pub const fn quorum(&self) -> u32 {
        self.quorum
    }

    /// Number of voter slots.
    pub const fn nr_voters(&self) -> u32 {
        2 * self.quorum - 1
    }

    /// Number of mount slots.
    pub const fn nr_slots(&self) -> u32 {
        self.nr_slots
    }

    /// Number of zones.
    pub const fn nr_zones(&self) -> u64 {
        self.nr_zones
    }

    /// Bytes of a zone.
    pub const fn zone_bytes(&self) -> u64 {
        self.zone_bytes
    }

    /// Metadata blocks (64 KiB) of a zone.
    pub const fn zone_meta_blocks(&self) -> u64 {
        self.zone_bytes / BLOCK_SIZE as u64
    }

    /// Data blocks (4 KiB) of a zone.
    pub const fn zone_data_blocks(&self) -> u64 {
        self.zone_bytes / SECTOR_SIZE as u64
    }

    /// Byte offset of quorum block `copy` (0 or 1) of a voter.
    pub const fn quorum_block_offset(&self, voter: u32, copy: u32) -> u64 {
        RESERVED_BYTES + (voter as u64 * VOTER_SECTORS + (copy & 1) as u64) * SECTOR_SIZE as u64
    }

    /// Byte offset of super block copy `copy` (0 or 1) of a voter.
    pub const fn super_offset(&self, voter: u32, copy: u32) -> u64 {
        super_offset(voter, copy)
    }

    /// Byte offset of a mount slot's ring.
    pub const fn slot_offset(&self, slot: u32) -> u64 {
        self.slots_offset + slot as u64 * RING_FRAMES as u64 * SECTOR_SIZE as u64
    }

    /// Byte offset of the first zone.
    pub const fn zones_offset(&self) -> u64 {
        self.zones_offset
    }

    /// Number of the first metadata block of the zones.
    pub const fn first_meta_block(&self) -> u64 {
        self.zones_offset / BLOCK_SIZE as u64
    }

    /// Number after the last metadata block of the zones.
    pub const fn end_meta_block(&self) -> u64 {
        self.first_meta_block() + self.nr_zones * self.zone_meta_blocks()
    }

    /// Number of the first data block of the zones.
    pub const fn first_data_block(&self) -> u64 {
        self.zones_offset / SECTOR_SIZE as u64
    }

    /// Number after the last data block of the zones.
    pub const fn end_data_block(&self) -> u64 {
        self.first_data_block() + self.nr_zones * self.zone_data_blocks()
    }

    /// Whether a metadata block number lies in the zones.
    pub const fn has_meta_block(&self, blkno: u64) -> bool {
        blkno >= self.first_meta_block() && blkno < self.end_meta_block()
    }

    /// Whether a run of data blocks lies in the zones and is not empty.
    pub const fn has_data_blocks(&self, start: u64, len: u64) -> bool {
        match start.checked_add(len) {
            Some(end) => len > 0 && start >= self.first_data_block() && end <= self.end_data_block(),
            None => false,
        }
    }
}

/// Byte offset of super block copy `copy` of a voter. It needs no geometry, since the super block holds it.
pub const fn super_offset(voter: u32, copy: u32) -> u64 {
    RESERVED_BYTES + (voter as u64 * VOTER_SECTORS + 2 + (copy & 1) as u64) * SECTOR_SIZE as u64
}

const fn clamp(n: u64, low: u64, high: u64) -> u64 {
    if n < low {
        low
    } else if n > high {
        high
    } else {
        n
    }
}

const fn align_up(n: u64, to: u64) -> u64 {
    n.div_ceil(to) * to
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn regions_do_not_overlap_and_fit(bytes in MIN_VOLUME_BYTES..MAX_VOLUME_BYTES, quorum in 1..=MAX_QUORUM) {
            let g = Geometry::new(bytes, quorum).unwrap();
            let last_super = g.super_offset(g.nr_voters() - 1, 1) + SECTOR_SIZE as u64;
            prop_assert!(last_super <= g.slot_offset(0));
            prop_assert!(g.slot_offset(g.nr_slots()) <= g.zones_offset());
            prop_assert!(g.nr_zones() >= 32);
            prop_assert!(g.zones_offset() + g.nr_zones() * g.zone_bytes() <= bytes);
            prop_assert_eq!(Geometry::from_raw(&g.to_raw()), Ok(g));
        }

        #[test]
        fn a_changed_geometry_is_refused(bytes in MIN_VOLUME_BYTES..1u64 << 50, by in 1u64..1000) {
            let mut raw = Geometry::new(bytes, 2).unwrap().to_raw();
            raw.zones_offset = U64::new(raw.zones_offset.get() + by * 4096);
            prop_assert!(Geometry::from_raw(&raw).is_err());
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused_with_their_size() {
        assert_eq!(Geometry::new(1 << 20, 1), Err(GeometryError::TooSmall { bytes: 1 << 20 }));
        assert_eq!(Geometry::new(u64::MAX, 1), Err(GeometryError::TooLarge { bytes: u64::MAX }));
        assert_eq!(Geometry::new(1 << 30, 0), Err(GeometryError::Quorum { quorum: 0 }));
    }

    #[test]
    fn the_smallest_volume_has_room_for_data() {
        let g = Geometry::new(MIN_VOLUME_BYTES, 1).unwrap();
        assert_eq!(g.nr_zones(), 61);
        assert_eq!(g.zone_bytes(), 1 << 20);
    }
}
