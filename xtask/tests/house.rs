// SPDX-License-Identifier: GPL-2.0-only
//! The house stands as drawn: who may import whom, who may hold `unsafe`, and that the core needs no std.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each crate may import of ours. An arrow only ever goes down.
const ARROWS: &[(&str, &[&str])] = &[
    ("scoutfs-format", &[]),
    ("scoutfs-env", &["scoutfs-format"]),
    ("scoutfs-btree", &["scoutfs-format", "scoutfs-env"]),
    ("scoutfs-lock", &["scoutfs-format", "scoutfs-env"]),
    ("scoutfs-net", &["scoutfs-format", "scoutfs-env"]),
    ("scoutfs-item", &["scoutfs-format", "scoutfs-env", "scoutfs-btree"]),
    ("scoutfs-server", &["scoutfs-format", "scoutfs-env", "scoutfs-btree", "scoutfs-lock", "scoutfs-net"]),
    (
        "scoutfs-fs",
        &[
            "scoutfs-format",
            "scoutfs-env",
            "scoutfs-btree",
            "scoutfs-item",
            "scoutfs-lock",
            "scoutfs-net",
            "scoutfs-server",
        ],
    ),
];

/// What the core may use of others' crates.
const CORE_DEPENDENCIES: &[&str] = &["zerocopy", "bitflags", "thiserror"];

/// What `scoutfs-env` may use besides, in its userspace back ends only.
const ENV_DEPENDENCIES: &[&str] = &["thiserror", "crc32c", "hmac", "libc", "sha2", "socket2"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|n| n != "target") {
                    dirs.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

/// The code of a source file: without comments, strings and what is only compiled for tests.
fn shipped_code(path: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut out = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let code = line.split("//").next().unwrap_or("");
        let trimmed = code.trim();
        if trimmed.starts_with("#![cfg(test)]") {
            return Vec::new();
        }
        if trimmed.starts_with("#[cfg(") && trimmed.contains("test") {
            // Skip the item that follows: to its end on the same line, or to the closing brace in its column.
            let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
            let mut first = true;
            for (_, inner) in lines.by_ref() {
                if first && inner.trim_start().starts_with("#[") {
                    continue;
                }
                let ends_at_once = first && inner.trim_end().ends_with([';', '}']);
                let closes = inner == format!("{indent}}}") || inner == format!("{indent});");
                if ends_at_once || closes {
                    break;
                }
                first = false;
            }
            continue;
        }
        let mut plain = String::new();
        for (i, part) in code.split('"').enumerate() {
            if i % 2 == 0 {
                plain.push_str(part);
            }
        }
        out.push((number + 1, plain));
    }
    out
}

fn words(line: &str) -> Vec<&str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect()
}

/// Files and folders of modules that are only compiled for tests.
fn test_modules(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path).unwrap();
        let dir = match path.file_stem().and_then(|s| s.to_str()) {
            Some("lib" | "mod" | "main") => path.parent().unwrap().to_path_buf(),
            Some(stem) => path.parent().unwrap().join(stem),
            None => continue,
        };
        let mut for_tests = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[cfg(") && line.contains("test") {
                for_tests = true;
            } else if let Some(name) = line.split("mod ").nth(1).and_then(|rest| rest.strip_suffix(';')) {
                if for_tests {
                    out.push(dir.join(format!("{name}.rs")));
                    out.push(dir.join(name));
                }
                for_tests = false;
            } else if !line.starts_with("#[") && !line.starts_with("//") {
                for_tests = false;
            }
        }
    }
    out
}

#[test]
fn crates_import_only_along_the_arrows() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut seen = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some((_, allowed)) = ARROWS.iter().find(|(n, _)| *n == name) else { continue };
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let other = dependency["name"].as_str().unwrap();
            // Explores the schedules of tests; a feature that nothing but tests turns on.
            if other == "shuttle" && dependency["optional"].as_bool() == Some(true) {
                continue;
            }
            let outside = if name == "scoutfs-env" { ENV_DEPENDENCIES } else { CORE_DEPENDENCIES };
            assert!(
                allowed.contains(&other) || outside.contains(&other),
                "{name} may not import {other}: see the arrows in ARCHITECTURE.md"
            );
        }
        seen.insert(name, ());
    }
    assert_eq!(seen.len(), ARROWS.len(), "a core crate is missing from the workspace");
}

#[test]
fn the_core_is_no_std_and_allocates_only_through_env() {
    for (name, _) in ARROWS {
        let src = root().join(name).join("src");
        let lib = std::fs::read_to_string(src.join("lib.rs")).unwrap();
        assert!(lib.contains("#![no_std]") || lib.contains("no_std)]"), "{name} is not no_std");
        if *name == "scoutfs-env" {
            continue;
        }
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{name} does not forbid unsafe code");
        let files = sources(&src);
        let for_tests = test_modules(&files);
        assert!(!for_tests.is_empty() || *name == "scoutfs-format", "{name} seems to have no test modules");
        for path in files {
            if for_tests.iter().any(|test| path.starts_with(test)) {
                continue;
            }
            for (number, line) in shipped_code(&path) {
                let place = format!("{}:{number}: {line}", path.display());
                assert!(!line.contains("extern crate alloc"), "only scoutfs-env may allocate: {place}");
                assert!(!line.contains("extern crate std"), "the core has no std: {place}");
                assert!(!line.contains("std::"), "the core has no std: {place}");
                assert!(
                    !line.contains("alloc::boxed") && !line.contains("alloc::vec"),
                    "only scoutfs-env may allocate: {place}"
                );
                assert!(!line.contains("Box::new("), "an infallible allocation: {place}");
                let words = words(&line);
                assert!(!words.contains(&"f32") && !words.contains(&"f64"), "floating point: {place}");
            }
        }
    }
}

#[test]
fn unsafe_stays_where_it_may_be() {
    for path in sources(&root()) {
        let relative = path.strip_prefix(root()).unwrap().to_path_buf();
        let top = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        if ["scoutfs-env", "scoutfs-kmod", "scoutfs-utils"].contains(&top.as_str())
            || top.starts_with('.')
            || top.starts_with("target")
        {
            continue;
        }
        for (number, line) in shipped_code(&path) {
            assert!(
                !words(&line).contains(&"unsafe"),
                "unsafe outside of env, kmod and utils: {}:{number}: {line}",
                relative.display()
            );
        }
    }
}

#[test]
fn every_source_names_its_license() {
    for path in sources(&root()) {
        let text = std::fs::read_to_string(&path).unwrap();
        let relative = path.strip_prefix(root()).unwrap();
        if relative.starts_with("target") {
            continue;
        }
        assert!(
            text.starts_with("// SPDX-License-Identifier: GPL-2.0-only"),
            "{} does not begin with its license",
            relative.display()
        );
    }
}

/// Symbols that the core may leave undefined: the host's hooks, and what every freestanding program needs.
fn may_be_undefined(symbol: &str) -> bool {
    symbol.starts_with("scoutfs_host_")
        || [
            "memcpy",
            "memmove",
            "memset",
            "memcmp",
            "bcmp",
            "strlen",
            "rust_eh_personality",
            "_Unwind_Resume",
        ]
        .contains(&symbol)
}

#[test]
fn the_core_links_into_a_freestanding_library() {
    let manifest = root().join("scoutfs-kmod/core-link/Cargo.toml");
    let target = root().join("target/core-link");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--manifest-path"])
        .arg(&manifest)
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .unwrap();
    assert!(status.success(), "the core does not build without std");
    let archive = target.join("release/libscoutfs_core_link.a");
    let object = target.join("core.o");
    // One relocatable object of everything that the entry point reaches.
    let status = Command::new("ld")
        .args(["-r", "--gc-sections", "-u", "scoutfs_core_link", "-e", "scoutfs_core_link", "-o"])
        .arg(&object)
        .arg(&archive)
        .status()
        .unwrap();
    assert!(status.success());
    let symbols = Command::new("readelf").args(["--syms", "--wide"]).arg(&object).output().unwrap();
    let symbols = String::from_utf8(symbols.stdout).unwrap();
    let named = symbols.lines().filter_map(|l| {
        let fields: Vec<_> = l.split_whitespace().collect();
        Some((*fields.get(6)? == "UND", (*fields.get(7)?).to_owned()))
    });
    let (undefined, defined): (Vec<_>, Vec<_>) = named.partition(|(undefined, _)| *undefined);
    assert!(
        defined.iter().any(|(_, s)| s == "scoutfs_core_link"),
        "the entry point is missing: this proves nothing"
    );
    assert!(
        undefined.iter().any(|(_, s)| s == "scoutfs_host_wait"),
        "the core uses no hook: this proves nothing"
    );
    for (_, symbol) in &undefined {
        assert!(may_be_undefined(symbol), "the core needs a symbol that a kernel does not have: {symbol}");
    }
    for (_, symbol) in &defined {
        // Mangled names hold the length of the crate's name before it.
        assert!(!symbol.contains("_3std"), "a symbol of std: {symbol}");
    }
    let dump = Command::new("objdump").args(["-dC", "--no-show-raw-insn"]).arg(&object).output().unwrap();
    let (mut function, mut frames) = ("", 0);
    for line in String::from_utf8_lossy(&dump.stdout).lines() {
        if let Some(name) = line.strip_suffix(">:") {
            function = name;
        } else if let Some(bytes) = frame(line) {
            assert!(bytes <= LARGEST_FRAME, "{bytes} bytes of stack in {function}");
            frames += 1;
        }
        let mnemonic = line.split('\t').nth(1).unwrap_or("").split_whitespace().next().unwrap_or("");
        let float = [
            "addss", "addsd", "subss", "subsd", "mulss", "mulsd", "divss", "divsd", "cvtsi2s", "cvttsd",
            "cvttss",
        ];
        assert!(!float.iter().any(|f| mnemonic.starts_with(f)), "floating point arithmetic: {line}");
    }
    assert!(frames > 100 || !cfg!(target_arch = "x86_64"), "only {frames} frames were found");
}

/// Bytes that a function of the core may take of a kernel's stack of 16 KiB. The kernel's own flags give other frames, and `cargo xtask
/// kernel build` allows less; this is looked at everywhere.
const LARGEST_FRAME: u64 = 2304;

/// What an instruction of x86-64 reserves on the stack.
fn frame(line: &str) -> Option<u64> {
    let (_, amount) = line.split_once("sub ")?;
    let hex = amount.trim().strip_suffix(",%rsp")?.strip_prefix("$0x")?;
    u64::from_str_radix(hex, 16).ok()
}

/// Invariant 55: a structure has a named field wherever its fields leave room (a test of the format), and whoever fills one
/// gives zeros there.
#[test]
fn padding_is_only_ever_filled_with_zeros() {
    const ZEROS: &[&str] = &["U16::ZERO", "U32::ZERO", "[0; ", "0.into()"];
    let mut filled = 0;
    for (name, _) in ARROWS {
        let files = sources(&root().join(name).join("src"));
        let tests = test_modules(&files);
        for path in files.iter().filter(|path| !tests.iter().any(|test| path.starts_with(test))) {
            for (number, code) in shipped_code(path) {
                let place = format!("{}:{number}: {}", path.display(), code.trim());
                assert!(!code.contains(".pad.set(") && !code.contains(".pad = "), "{place}");
                for (at, _) in code.match_indices("pad: ") {
                    // Its declaration, in the format.
                    if code[..at].trim_end().ends_with("pub") {
                        continue;
                    }
                    let value = &code[at + "pad: ".len()..];
                    assert!(ZEROS.iter().any(|zero| value.starts_with(zero)), "{place}");
                    filled += 1;
                }
            }
        }
    }
    assert!(filled > 20, "only {filled} structures with padding were found");
}
