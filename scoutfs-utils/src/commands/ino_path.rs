// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs ino-path`: the paths of an inode, from the root of the volume, one a line.

use std::io::{self, BufWriter, Write};

use crate::cli::NamesOfInode;
use crate::ioctl;

/// Prints them. An inode without a path (the root, one that does not exist, one without links) is none.
pub fn run(arguments: &NamesOfInode) -> Result<(), String> {
    let path = &arguments.path.path;
    let file = ioctl::open(path)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut from = Some((0, 0));
    while let Some((dir, pos)) = from {
        let found = ioctl::ino_path(&file, arguments.ino, dir, pos).map_err(super::failed(path))?;
        let Some(found) = found else { break };
        if arguments.json {
            let mut object = serde_json::Map::new();
            super::json_bytes(&mut object, "path", &found.path);
            object.insert("dir".into(), found.dir.into());
            object.insert("pos".into(), found.pos.into());
            writeln!(out, "{}", serde_json::Value::Object(object)).map_err(super::broken)?;
        } else {
            out.write_all(&found.path).and_then(|()| out.write_all(b"\n")).map_err(super::broken)?;
        }
        from = super::after(found.dir, found.pos);
    }
    out.flush().map_err(super::broken)
}
