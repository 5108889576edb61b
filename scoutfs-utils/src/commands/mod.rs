// SPDX-License-Identifier: GPL-2.0-only
//! The commands, one a file. Each has `run(arguments)`, prints its result and gives errors as text.

pub mod check;
pub mod df;
pub mod list_hidden_xattrs;
pub mod man_pages;
pub mod mkfs;
pub mod mount;
pub mod print;
pub mod search_xattrs;
pub mod stat;
pub mod statfs;
pub mod walk_inodes;

use std::fmt::Display;

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
