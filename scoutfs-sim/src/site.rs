// SPDX-License-Identifier: GPL-2.0-only
//! Places in the program that make something durable.
//!
//! Found in the stack of whoever makes the request, so that nothing of it is in the program: a new place is seen by itself. Needs the
//! line tables that tests are built with.

use std::backtrace::Backtrace;
use std::fmt;
use std::sync::Arc;

use scoutfs_format::SECTOR_SIZE;
use scoutfs_format::geometry::{RESERVED_BYTES, VOTER_SECTORS};

/// A place in the program, and how it was come to: one that several call is several places. Two flushes in one function are one
/// place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(Arc<str>);

/// Files that hand requests on, or stand between the places and the disk.
const FORWARDING: [&str; 5] = [
    "scoutfs-sim/src/disk.rs",
    "scoutfs-sim/src/site.rs",
    "scoutfs-sim/src/failing.rs",
    "node/counted.rs",
    "scoutfs-env/src/",
];

/// How many functions of the program a place is known by.
const DEPTH: usize = 2;

/// Sectors of the first voter, whose order matters.
const VOTER_PARTS: [&str; VOTER_SECTORS as usize] =
    ["quorum block 0", "quorum block 1", "super block 0", "super block 1"];

impl Site {
    /// A flush, by who calls.
    pub(crate) fn of_flush() -> Site {
        Site::of_caller("flush")
    }

    /// A durable write at a byte offset, by who calls.
    pub(crate) fn of_write(offset: u64) -> Site {
        let sector = offset.checked_sub(RESERVED_BYTES).map(|at| at / SECTOR_SIZE as u64);
        let part = sector.and_then(|sector| VOTER_PARTS.get(usize::try_from(sector).ok()?));
        Site::of_caller(part.unwrap_or(&"write"))
    }

    fn of_caller(what: &str) -> Site {
        let trace = Backtrace::force_capture().to_string();
        let mut lines = trace.lines().peekable();
        let mut calls: Vec<String> = Vec::new();
        while calls.len() < DEPTH
            && let Some(line) = lines.next()
        {
            // The line of a function, and perhaps that of its place.
            let Some((_, function)) = line.split_once(": ") else { continue };
            let place = lines.peek().and_then(|line| line.trim().strip_prefix("at ")).unwrap_or_default();
            let is_ours = place.contains("scoutfs-") && !FORWARDING.iter().any(|file| place.contains(file));
            if is_ours && let Some(name) = name_of(function).filter(|name| calls.last() != Some(name)) {
                calls.push(name);
            }
        }
        Site(format!("{what}: {}", calls.join(" < ")).into())
    }

    /// What is made durable, and the functions on the way to it, the innermost first.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a function, without its path and what the compiler adds; `None` for a closure.
fn name_of(function: &str) -> Option<String> {
    let last = function.split("::").filter(|part| !is_hash(part)).last()?;
    (!last.starts_with('{')).then(|| last.trim_end_matches('>').into())
}

fn is_hash(part: &str) -> bool {
    part.len() == 17 && part.starts_with('h') && part[1..].bytes().all(|b| b.is_ascii_hexdigit())
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
