// SPDX-License-Identifier: GPL-2.0-only
//! The commands, one a file. Each has `run(arguments)`, prints its result and gives errors as text.

pub mod allocated_inos;
pub mod attr_x;
pub mod check;
pub mod completions;
pub mod confirm_death;
pub mod counters;
pub mod df;
pub mod fiemap;
pub mod ino_path;
pub mod list_hidden_xattrs;
pub mod man_pages;
pub mod mkfs;
pub mod mount;
pub mod print;
pub mod referring_entries;
pub mod search_xattrs;
pub mod stat;
pub mod statfs;
pub mod status;
pub mod walk_inodes;

use std::fmt::Display;
use std::io;
use std::path::Path;

/// An error about a file or mount, as text.
pub(crate) fn failed(path: &Path) -> impl Fn(io::Error) -> String + '_ {
    move |e| format!("{}: {e}", path.display())
}

/// An error of writing the result, as text.
pub(crate) fn broken(e: io::Error) -> String {
    format!("standard output: {e}")
}

/// The directory and position after an entry's, to go on from; `None` after the last one that there can be.
pub(crate) fn after(dir: u64, pos: u64) -> Option<(u64, u64)> {
    match pos.checked_add(1) {
        Some(pos) => Some((dir, pos)),
        None => dir.checked_add(1).map(|dir| (dir, 0)),
    }
}

/// Puts bytes that are most often text into a JSON object: as `key`, and as `key_hex` when they are not UTF-8.
pub(crate) fn json_bytes(object: &mut serde_json::Map<String, serde_json::Value>, key: &str, bytes: &[u8]) {
    object.insert(key.into(), String::from_utf8_lossy(bytes).into());
    if std::str::from_utf8(bytes).is_err() {
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        object.insert(format!("{key}_hex"), hex.into());
    }
}

/// Prints named values: all as `name value` lines or one JSON object, or one value alone.
pub(crate) fn print_fields(
    fields: &[(&str, &dyn Display)],
    single: Option<&str>,
    json: bool,
) -> Result<(), String> {
    if let Some(name) = single {
        let known = || fields.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
        let (_, value) = fields
            .iter()
            .find(|(n, _)| *n == name)
            .ok_or_else(|| format!("there is no field '{name}'; the fields are {}", known()))?;
        println!("{value}");
    } else if json {
        let object: serde_json::Map<String, serde_json::Value> = fields
            .iter()
            .map(|(n, v)| {
                let text = v.to_string();
                let value = text.parse::<u64>().map_or_else(|_| text.into(), serde_json::Value::from);
                ((*n).to_owned(), value)
            })
            .collect();
        println!("{}", serde_json::Value::Object(object));
    } else {
        for (name, value) in fields {
            println!("{name} {value}");
        }
    }
    Ok(())
}
