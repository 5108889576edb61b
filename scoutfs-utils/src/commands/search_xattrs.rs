// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs search-xattrs`: which inodes have an attribute.

use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

use crate::cli::SearchXattrs;
use crate::ioctl;

/// Inode numbers asked for at once. Each time the volume makes sure that it sees all that was synced, so few large pieces.
const BATCH: usize = 128 << 10;

/// Lists the inode numbers, ascending.
pub fn run(arguments: &SearchXattrs) -> Result<(), String> {
    let path = &arguments.path.path;
    let file = ioctl::open(path)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let broken = |e: io::Error| format!("standard output: {e}");
    let mut inodes = vec![0; BATCH];
    let mut next = Some(0);
    while let Some(first) = next {
        let (n, end) = ioctl::search_xattrs(&file, arguments.name.as_bytes(), first, u64::MAX, &mut inodes)
            .map_err(|e| {
            let name = arguments.name.display();
            format!("searching {} for the attribute '{name}': {e}", path.display())
        })?;
        let found = inodes.get(..n).ok_or("the volume answered with more inodes than were asked for")?;
        for ino in found {
            if arguments.json {
                writeln!(out, "{}", serde_json::json!({ "ino": ino })).map_err(broken)?;
            } else {
                writeln!(out, "{ino}").map_err(broken)?;
            }
        }
        next = match found.last() {
            Some(last) if !end => last.checked_add(1),
            _ => None,
        };
    }
    out.flush().map_err(broken)
}
