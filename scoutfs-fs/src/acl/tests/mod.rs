// SPDX-License-Identifier: GPL-2.0-only
//! What access control lists promise.
//!
//! | module | what |
//! | --- | --- |
//! | this | lists in a short notation, and a model of what they mean |
//! | `lists` | bytes, modes, inheritance and permissions of lists by themselves |
//! | `inodes` | lists of inodes |

mod inodes;
mod lists;

use std::string::String;
use std::vec::Vec;

use super::{Acl, Entry, Tag};

/// A list in the notation of setfacl, numbers for users and groups, octal permissions: `u::7,u:5:6,g::4,m::7,o::0`.
pub(crate) fn acl(text: &str) -> Acl {
    let mut entries = scoutfs_env::Vec::new();
    for entry in text.split(',') {
        let fields: Vec<&str> = entry.split(':').collect();
        let [kind, id, perm] = fields[..] else { panic!("{entry}") };
        let id = || id.parse().unwrap();
        let tag = match (kind, fields[1]) {
            ("u", "") => Tag::UserObj,
            ("u", _) => Tag::User(id()),
            ("g", "") => Tag::GroupObj,
            ("g", _) => Tag::Group(id()),
            ("m", "") => Tag::Mask,
            ("o", "") => Tag::Other,
            _ => panic!("{entry}"),
        };
        entries.push(Entry { tag, perm: perm.parse().unwrap() }).unwrap();
    }
    Acl::new(entries).unwrap()
}

/// Its bytes.
pub(crate) fn list(text: &str) -> Vec<u8> {
    acl(text).encode().unwrap().to_vec()
}

/// A list in the same notation.
pub(crate) fn text(acl: &Acl) -> String {
    let entry = |e: &Entry| match e.tag {
        Tag::UserObj => std::format!("u::{}", e.perm),
        Tag::User(id) => std::format!("u:{id}:{}", e.perm),
        Tag::GroupObj => std::format!("g::{}", e.perm),
        Tag::Group(id) => std::format!("g:{id}:{}", e.perm),
        Tag::Mask => std::format!("m::{}", e.perm),
        Tag::Other => std::format!("o::{}", e.perm),
    };
    acl.entries().iter().map(entry).collect::<Vec<_>>().join(",")
}
