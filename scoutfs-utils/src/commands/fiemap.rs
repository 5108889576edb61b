// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs get-fiemap`: where the data of a file are, one extent a line.

use std::io::{self, BufWriter, Write};

use scoutfs_format::ioctl::{
    FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_UNKNOWN, FIEMAP_EXTENT_UNWRITTEN, FiemapExtent,
};

use crate::cli::GetFiemap;
use crate::ioctl;

/// Bytes of a block.
const BLOCK: u64 = scoutfs_format::SECTOR_SIZE as u64;

/// The flags as letters: `O`ffline, `U`nwritten, `L`ast.
fn letters(flags: u32) -> String {
    let letters = [(FIEMAP_EXTENT_UNKNOWN, 'O'), (FIEMAP_EXTENT_UNWRITTEN, 'U'), (FIEMAP_EXTENT_LAST, 'L')];
    letters.iter().map(|(flag, letter)| if flags & flag != 0 { *letter } else { '.' }).collect()
}

fn print(
    out: &mut impl Write,
    arguments: &GetFiemap,
    nr: u64,
    extent: &FiemapExtent,
    unit: u64,
) -> io::Result<()> {
    let (logical, physical) = (extent.logical.get() / unit, extent.physical.get() / unit);
    let length = extent.length.get() / unit;
    let flags = letters(extent.flags.get());
    if arguments.json {
        let has = |flag| extent.flags.get() & flag != 0;
        let object = serde_json::json!({
            "logical": logical, "physical": physical, "length": length,
            "offline": has(FIEMAP_EXTENT_UNKNOWN), "unwritten": has(FIEMAP_EXTENT_UNWRITTEN),
            "last": has(FIEMAP_EXTENT_LAST),
        });
        return writeln!(out, "{object}");
    }
    let offset = match (arguments.logical, arguments.physical) {
        (true, _) => logical.to_string(),
        (_, true) => physical.to_string(),
        _ => format!("{logical} {physical}"),
    };
    writeln!(out, "{nr}: offset: {offset} length: {length} flags: {flags}")
}

/// Prints them, and how many there are.
pub fn run(arguments: &GetFiemap) -> Result<(), String> {
    let file = ioctl::open(&arguments.file)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let unit = if arguments.byte { 1 } else { BLOCK };
    let (mut count, mut start) = (0, Some(0));
    while let Some(from) = start {
        let extents = ioctl::fiemap(&file, from).map_err(super::failed(&arguments.file))?;
        for extent in &extents {
            print(&mut out, arguments, count, extent, unit).map_err(super::broken)?;
            count += 1;
        }
        // An answer that does not get on ends it, too.
        start = extents.last().and_then(|last| {
            let is_last = last.flags.get() & FIEMAP_EXTENT_LAST != 0;
            last.logical.get().checked_add(last.length.get()).filter(|end| !is_last && *end > from)
        });
    }
    if !arguments.json {
        writeln!(out, "extents: {count}").map_err(super::broken)?;
    }
    out.flush().map_err(super::broken)
}
