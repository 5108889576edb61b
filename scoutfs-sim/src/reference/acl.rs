// SPDX-License-Identifier: GPL-2.0-only
//! The reference's access control lists: plain bytes, entry by entry (tag, permissions, id), and what the manual page acl(5)
//! says of them.

use std::collections::BTreeMap;

/// Who may do what.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The access list of what is made in a directory.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const NO_ID: u32 = u32::MAX;

type Entry = (u16, u16, u32);

/// Lists that a test sets, by number.
pub fn some_list(which: u8) -> Vec<u8> {
    let lists: [&[Entry]; 5] = [
        &[(1, 7, NO_ID), (4, 5, NO_ID), (32, 1, NO_ID)],
        &[(1, 6, NO_ID), (2, 7, 5), (4, 4, NO_ID), (16, 6, NO_ID), (32, 4, NO_ID)],
        &[(1, 7, NO_ID), (4, 7, NO_ID), (16, 5, NO_ID), (32, 0, NO_ID)],
        &[(1, 5, NO_ID), (2, 1, 1), (2, 2, 2), (4, 0, NO_ID), (8, 7, 9), (16, 7, NO_ID), (32, 7, NO_ID)],
        // No list: a mask is missing.
        &[(1, 7, NO_ID), (2, 7, 5), (4, 7, NO_ID), (32, 0, NO_ID)],
    ];
    encode(lists[usize::from(which) % lists.len()])
}

/// Whether these entries are a list: who is named needs a mask.
pub fn is_list(bytes: &[u8]) -> bool {
    let entries = decode(bytes);
    let has = |tag| entries.iter().any(|e| e.0 == tag);
    has(16) || !(has(2) || has(8))
}

fn decode(bytes: &[u8]) -> Vec<Entry> {
    let number = |b: &[u8]| b.iter().rev().fold(0u32, |n, b| n << 8 | u32::from(*b));
    bytes[4..].chunks(8).map(|e| (number(&e[..2]) as u16, number(&e[2..4]) as u16, number(&e[4..]))).collect()
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        bytes.extend([&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    bytes
}

/// Where in a mode the permissions of each entry are, if they are.
fn shifts(entries: &[Entry]) -> Vec<Option<u32>> {
    let masked = entries.iter().any(|e| e.0 == 16);
    let shift = |tag| match tag {
        1 => Some(6),
        4 if !masked => Some(3),
        16 => Some(3),
        32 => Some(0),
        _ => None,
    };
    entries.iter().map(|e| shift(e.0)).collect()
}

fn with_mode(list: &[u8], mode: u32) -> Vec<u8> {
    let mut entries = decode(list);
    for (at, entry) in shifts(&entries).into_iter().zip(&mut entries) {
        if let Some(at) = at {
            entry.1 = (mode >> at & 7) as u16;
        }
    }
    encode(&entries)
}

fn mode_of(list: &[u8]) -> u32 {
    let entries = decode(list);
    shifts(&entries).into_iter().zip(&entries).map(|(at, e)| at.map_or(0, |at| u32::from(e.1) << at)).sum()
}

/// Attributes by name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keeps an access list where a mode does not say it all.
fn keep_access(xattrs: &mut Xattrs, list: Vec<u8>) {
    if decode(&list).len() > 3 {
        xattrs.insert(ACCESS.to_vec(), list);
    } else {
        xattrs.remove(ACCESS);
    }
}

/// Sets a list; an access list changes the mode.
pub fn set(xattrs: &mut Xattrs, mode: &mut u32, name: &[u8], list: Vec<u8>) {
    if name == ACCESS {
        *mode = *mode & !0o777 | mode_of(&list);
        keep_access(xattrs, list);
    } else {
        xattrs.insert(name.to_vec(), list);
    }
}

/// Follows a change of the mode.
pub fn follow(xattrs: &mut Xattrs, mode: u32) {
    if let Some(list) = xattrs.get_mut(ACCESS) {
        *list = with_mode(list, mode);
    }
}

/// What is made with `mode` in a directory that has these attributes: its mode and attributes.
pub fn inherit(parent: &Xattrs, mode: u32, umask: u32, is_dir: bool) -> (u32, Xattrs) {
    let mut xattrs = Xattrs::new();
    let Some(default) = parent.get(DEFAULT) else {
        return (mode & !umask, xattrs);
    };
    if is_dir {
        xattrs.insert(DEFAULT.to_vec(), default.clone());
    }
    let mode = mode & (!0o777 | mode_of(default));
    keep_access(&mut xattrs, with_mode(default, mode));
    (mode, xattrs)
}
