// SPDX-License-Identifier: GPL-2.0-only
//! The format as a reviewable file, and the hash that follows from it.

use scoutfs_format::{CONSTANTS, FORMAT_HASH, LAYOUTS, MEANING, layout};
use std::fmt::Write;

fn describe() -> String {
    let mut out = String::new();
    writeln!(out, "format hash {FORMAT_HASH:016x}, meaning {MEANING}").unwrap();
    for l in LAYOUTS {
        writeln!(out, "\nstruct {} ({} bytes)", l.name, l.size).unwrap();
        for f in l.fields {
            writeln!(out, "  {:5} {:5}  {}: {}", f.offset, f.size, f.name, f.ty).unwrap();
        }
    }
    for list in CONSTANTS {
        writeln!(out).unwrap();
        for c in *list {
            writeln!(out, "const {} = {:#x}", c.name, c.value).unwrap();
        }
    }
    out
}

#[test]
fn the_layout_is_the_reviewed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/layout.txt");
    let now = describe();
    if std::env::var_os("SCOUTFS_BLESS").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        now, golden,
        "the format changed: if that is meant, run this test with SCOUTFS_BLESS=1 and review the diff of layout.txt"
    );
}

/// Invariant 55: all padding is a field, that whoever writes the structure must fill.
#[test]
fn no_structure_has_gaps_or_overlaps() {
    for l in LAYOUTS {
        let mut end = 0;
        for f in l.fields {
            assert_eq!(f.offset, end, "{}.{}", l.name, f.name);
            end += f.size;
        }
        assert_eq!(end, l.size, "{}", l.name);
        assert_eq!(l.size % 8, 0, "{} is not a multiple of 8 bytes", l.name);
    }
}

#[test]
fn every_described_structure_is_in_the_hash() {
    let mut names: Vec<_> = LAYOUTS.iter().map(|l| l.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), LAYOUTS.len(), "a structure is listed twice");
    let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    for entry in std::fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let Some((_, described)) = text.split_once("\nlayout! {") else {
            continue;
        };
        for line in described.lines() {
            if let Some(name) = line.strip_prefix("    pub struct ").and_then(|l| l.strip_suffix(" {")) {
                assert!(names.contains(&name), "{name} of {} is not in LAYOUTS", path.display());
            }
        }
    }
}

#[test]
fn the_hash_depends_on_names_offsets_sizes_and_values() {
    use layout::{Field, Fnv, Layout};
    const F: Field = Field { name: "a", ty: "U64", offset: 0, size: 8 };
    let hash = |f: &[Field]| {
        let fields: &'static [Field] = Box::leak(f.to_vec().into_boxed_slice());
        Fnv::new().layout(&Layout { name: "S", size: 16, fields }).0
    };
    let base = hash(&[F]);
    assert_ne!(base, hash(&[Field { name: "b", ..F }]));
    assert_ne!(base, hash(&[Field { ty: "I64", ..F }]));
    assert_ne!(base, hash(&[Field { offset: 8, ..F }]));
    assert_ne!(base, hash(&[Field { size: 4, ..F }]));
    assert_ne!(base, hash(&[]));
}

#[test]
fn the_super_block_begins_with_its_64_fixed_bytes() {
    use scoutfs_format::voter::{SuperBlock, SuperId};
    assert_eq!(size_of::<SuperId>(), 64);
    assert_eq!(std::mem::offset_of!(SuperBlock, id), 0);
    assert_eq!(std::mem::offset_of!(SuperId, magic), 0);
    assert_eq!(std::mem::offset_of!(SuperId, fsid), 8);
    assert_eq!(std::mem::offset_of!(SuperId, format_version), 16);
    assert_eq!(std::mem::offset_of!(SuperId, format_hash), 24);
    assert!(size_of::<SuperBlock>() <= 4096);
}
