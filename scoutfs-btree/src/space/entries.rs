// SPDX-License-Identifier: GPL-2.0-only
//! Making the entries of lists and records.

use scoutfs_env::Vec;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::space::SpaceEntry;

use super::{Extent, SpaceError, SpaceKind};

/// Adds entries for an extent: one, unless it is longer than one can be.
pub(super) fn push(
    out: &mut Vec<SpaceEntry>,
    kind: SpaceKind,
    state: u8,
    number: u64,
    extent: Extent,
) -> Result<(), SpaceError> {
    let Extent { mut start, mut len } = extent;
    while len > 0 {
        let part = u32::try_from(len).unwrap_or(u32::MAX);
        out.push(entry(kind, state, number, start, part))?;
        start += u64::from(part);
        len -= u64::from(part);
    }
    Ok(())
}

/// One entry.
pub(super) fn entry(kind: SpaceKind, state: u8, number: u64, start: u64, len: u32) -> SpaceEntry {
    SpaceEntry {
        start: U64::new(start),
        number: U64::new(number),
        len: U32::new(len),
        kind: kind.to_raw(),
        state,
        pad: [0; 2],
    }
}
