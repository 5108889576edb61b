// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs walk-inodes`: what changed, in the order of the changes.

use std::io::{self, BufWriter, Write};

use scoutfs_format::ioctl::{WALK_DATA_SEQ, WALK_META_SEQ, WalkInodesEntry};

use crate::cli::{Index, WalkInodes};
use crate::ioctl;

/// Entries asked for at once.
const BATCH: usize = 4096;

/// A position in an index: `SEQ[.MINOR[.INO]]`, where -1 is the highest number.
pub fn parse_position(text: &str) -> Result<WalkInodesEntry, String> {
    let mut parts = text.split('.');
    let mut number = |what: &str, high: u64| -> Result<u64, String> {
        match parts.next() {
            None => Ok(0),
            Some("-1") => Ok(high),
            Some(part) => part
                .parse::<u64>()
                .ok()
                .filter(|n| *n <= high)
                .ok_or_else(|| format!("'{part}' in '{text}' is not a {what} from 0 to {high} or -1")),
        }
    };
    let major = number("seq", u64::MAX)?;
    let minor = number("minor number", u32::MAX.into())?;
    let ino = number("inode number", u64::MAX)?;
    if parts.next().is_some() {
        return Err(format!("'{text}' has more than three parts: expected SEQ, SEQ.MINOR or SEQ.MINOR.INO"));
    }
    Ok(WalkInodesEntry { major: major.into(), ino: ino.into(), minor: (minor as u32).into(), pad: [0; 4] })
}

/// The highest position that `text` may mean: parts that are left out are the highest.
fn parse_last(text: &str) -> Result<WalkInodesEntry, String> {
    let missing = 2usize.saturating_sub(text.matches('.').count());
    parse_position(&format!("{text}{}", ".-1".repeat(missing)))
}

/// Lists the entries.
pub fn run(arguments: &WalkInodes) -> Result<(), String> {
    let mut first = parse_position(&arguments.first)?;
    let last = parse_last(&arguments.last)?;
    let index = match arguments.index {
        Index::MetaSeq => WALK_META_SEQ,
        Index::DataSeq => WALK_DATA_SEQ,
    };
    let path = arguments.positional.as_ref().unwrap_or(&arguments.path.path);
    let file = ioctl::open(path)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut entries = vec![WalkInodesEntry::default(); BATCH];
    let mut count = 0u64;
    let broken = |e: io::Error| format!("standard output: {e}");
    loop {
        let n = ioctl::walk_inodes(&file, index, first, last, &mut entries)
            .map_err(|e| format!("walking the inodes of {}: {e}", path.display()))?;
        let got = entries.get(..n).ok_or("the volume answered with more entries than were asked for")?;
        for entry in got {
            let (seq, minor, ino) = (entry.major, entry.minor, entry.ino);
            if arguments.json {
                writeln!(out, "{{\"seq\":{seq},\"minor\":{minor},\"ino\":{ino}}}").map_err(broken)?;
            } else {
                if count.is_multiple_of(25) {
                    writeln!(out, "{:<20} {:<20} {:<10} {:<20}", "#", "major", "minor", "ino")
                        .map_err(broken)?;
                }
                writeln!(out, "{count:<20} {seq:<20} {minor:<10} {ino:<20}").map_err(broken)?;
            }
            count += 1;
        }
        let Some(end) = got.last() else { break };
        // The position after the last entry.
        first = *end;
        match end.ino.get().checked_add(1) {
            Some(ino) => first.ino = ino.into(),
            None => match end.major.get().checked_add(1) {
                Some(major) => {
                    first.major = major.into();
                    first.ino = 0.into();
                }
                None => break,
            },
        }
    }
    out.flush().map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(entry: WalkInodesEntry) -> (u64, u32, u64) {
        (entry.major.get(), entry.minor.get(), entry.ino.get())
    }

    #[test]
    fn positions_are_parsed_as_the_c_tool_does() {
        assert_eq!(numbers(parse_position("0").unwrap()), (0, 0, 0));
        assert_eq!(numbers(parse_position("-1").unwrap()), (u64::MAX, 0, 0));
        assert_eq!(numbers(parse_position("5.0.7").unwrap()), (5, 0, 7));
        assert_eq!(numbers(parse_last("-1").unwrap()), (u64::MAX, u32::MAX, u64::MAX));
        assert_eq!(numbers(parse_last("9").unwrap()), (9, u32::MAX, u64::MAX));
        assert_eq!(numbers(parse_last("9.0.3").unwrap()), (9, 0, 3));
    }

    #[test]
    fn wrong_positions_are_refused_with_what_is_wrong() {
        for text in ["", "x", "1.x", "1.2.x", "1.2.3.4", "-2", "1.4294967296"] {
            let error = parse_position(text).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
