// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs get-allocated-inos`: inode numbers in use, one a line.

use std::io::{self, BufWriter, Write};

use scoutfs_format::item::INO_GROUP;

use crate::cli::GetAllocatedInos;
use crate::ioctl;

/// Prints them.
pub fn run(arguments: &GetAllocatedInos) -> Result<(), String> {
    let path = &arguments.path.path;
    let file = ioctl::open(path)?;
    let max = if arguments.single { 1 } else { INO_GROUP as usize };
    let mut inos = ioctl::allocated_inos(&file, arguments.ino, max).map_err(super::failed(path))?;
    if arguments.single {
        inos.retain(|ino| *ino == arguments.ino);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    if arguments.json {
        writeln!(out, "{}", serde_json::Value::from(inos)).map_err(super::broken)?;
    } else {
        for ino in inos {
            writeln!(out, "{ino}").map_err(super::broken)?;
        }
    }
    out.flush().map_err(super::broken)
}
