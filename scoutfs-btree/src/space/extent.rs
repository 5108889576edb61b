// SPDX-License-Identifier: GPL-2.0-only
//! Runs of blocks.

use core::fmt;

use scoutfs_format::block::SECTORS_PER_BLOCK;
use scoutfs_format::geometry::Geometry;
use scoutfs_format::space::{SPACE_DATA, SPACE_META};

use super::SpaceError;

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpaceKind {
    /// 64 KiB metadata blocks.
    Meta,
    /// 4 KiB data blocks.
    Data,
}

impl SpaceKind {
    /// All kinds, in the order of their use as an index.
    pub const ALL: [SpaceKind; 2] = [SpaceKind::Meta, SpaceKind::Data];

    /// As stored.
    pub const fn to_raw(self) -> u8 {
        match self {
            SpaceKind::Meta => SPACE_META,
            SpaceKind::Data => SPACE_DATA,
        }
    }

    /// From what is stored.
    pub const fn from_raw(raw: u8) -> Option<SpaceKind> {
        match raw {
            SPACE_META => Some(SpaceKind::Meta),
            SPACE_DATA => Some(SpaceKind::Data),
            _ => None,
        }
    }

    /// 4 KiB sectors of a block.
    pub(super) const fn sectors(self) -> u64 {
        match self {
            SpaceKind::Meta => SECTORS_PER_BLOCK,
            SpaceKind::Data => 1,
        }
    }

    /// Checks that blocks lie in the zones of a volume.
    pub(super) fn check_zones(self, geometry: &Geometry, extent: Extent) -> Result<(), SpaceError> {
        let Extent { start, len } = extent;
        let (first, end) = match self {
            SpaceKind::Meta => (geometry.first_meta_block(), geometry.end_meta_block()),
            SpaceKind::Data => (geometry.first_data_block(), geometry.end_data_block()),
        };
        let inside = start >= first && start.checked_add(len).is_some_and(|after| after <= end);
        if inside { Ok(()) } else { Err(SpaceError::OutsideZones { kind: self, start, len }) }
    }
}

impl fmt::Display for SpaceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpaceKind::Meta => "metadata",
            SpaceKind::Data => "data",
        })
    }
}

/// A run of blocks of some kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block.
    pub start: u64,
    /// Blocks.
    pub len: u64,
}

impl Extent {
    /// A run of blocks; whether it is possible is checked where it is used.
    pub const fn new(start: u64, len: u64) -> Self {
        Extent { start, len }
    }

    /// The blocks from `start` to `last`, both included, which are in order and not all blocks that there are.
    pub(super) const fn from_ends(start: u64, last: u64) -> Self {
        Extent { start, len: last - start + 1 }
    }

    /// The last block. [`SpaceError::Impossible`] when there is none, or none that has a number.
    pub(super) const fn last(self) -> Result<u64, SpaceError> {
        let Extent { start, len } = self;
        match (len.checked_sub(1), start.checked_add(len)) {
            // `start + len` fits as well, so that no sum of a start and a length needs a check after this one.
            (Some(rest), Some(_)) => Ok(start + rest),
            _ => Err(SpaceError::Impossible { start, len }),
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} + {}", self.start, self.len)
    }
}

/// A run of blocks and their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceExtent {
    /// The kind, which says what the unit is.
    pub kind: SpaceKind,
    /// The blocks.
    pub extent: Extent,
}

impl SpaceExtent {
    /// A run of blocks of a kind.
    pub const fn new(kind: SpaceKind, start: u64, len: u64) -> Self {
        SpaceExtent { kind, extent: Extent { start, len } }
    }
}
