// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs get-referring-entries`: the directory entries that name an inode, one a line.

use std::io::{self, BufWriter, Write};

use scoutfs_format::ioctl::DIRENT_LAST;

use crate::cli::NamesOfInode;
use crate::ioctl;

/// Prints them.
pub fn run(arguments: &NamesOfInode) -> Result<(), String> {
    let path = &arguments.path.path;
    let file = ioctl::open(path)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut from = Some((0, 0));
    while let Some((dir, pos)) = from {
        let entries =
            ioctl::referring_entries(&file, arguments.ino, dir, pos).map_err(super::failed(path))?;
        for entry in &entries {
            let (dir, pos, kind) = (entry.head.dir_ino, entry.head.dir_pos, entry.head.d_type);
            if arguments.json {
                let mut object = serde_json::Map::new();
                object.insert("dir".into(), dir.get().into());
                object.insert("pos".into(), pos.get().into());
                object.insert("type".into(), kind.into());
                super::json_bytes(&mut object, "name", &entry.name);
                writeln!(out, "{}", serde_json::Value::Object(object)).map_err(super::broken)?;
            } else {
                write!(out, "dir {dir} pos {pos} type {kind} name ").map_err(super::broken)?;
                out.write_all(&entry.name).and_then(|()| out.write_all(b"\n")).map_err(super::broken)?;
            }
        }
        from = match entries.last() {
            Some(last) if last.head.flags & DIRENT_LAST == 0 => {
                super::after(last.head.dir_ino.get(), last.head.dir_pos.get())
            }
            _ => None,
        };
    }
    out.flush().map_err(super::broken)
}
