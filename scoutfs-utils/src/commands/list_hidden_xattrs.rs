// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs list-hidden-xattrs`: the attributes that listxattr(2) leaves out.

use std::io::{self, BufWriter, Write};

use crate::cli::ListHiddenXattrs;
use crate::ioctl::{self, HiddenNames};

/// Lists the names, as they are, one a line.
pub fn run(arguments: &ListHiddenXattrs) -> Result<(), String> {
    let path = &arguments.file;
    let file = ioctl::open(path)?;
    let mut names = HiddenNames::new(&file);
    let mut out = BufWriter::new(io::stdout().lock());
    let broken = |e: io::Error| format!("standard output: {e}");
    while let Some(some) = names.next_some().map_err(|e| format!("{}: {e}", path.display()))? {
        for name in some {
            if arguments.json {
                let line = serde_json::json!({ "name": name.escape_ascii().to_string() });
                writeln!(out, "{line}").map_err(broken)?;
            } else {
                out.write_all(&[name, b"\n"].concat()).map_err(broken)?;
            }
        }
    }
    out.flush().map_err(broken)
}
