// SPDX-License-Identifier: GPL-2.0-only
//! What the habits need on a machine, and how they run programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The project's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the project").to_path_buf()
}

/// Runs a program in the project's root, shows the call, and fails when it does.
pub fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<(), String> {
    run_in(&root(), program, arguments)
}

/// As [`run`], in a folder.
fn run_in(folder: &Path, program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<(), String> {
    let program = program.as_ref();
    let shown = Path::new(program).file_name().unwrap_or(program).to_string_lossy();
    println!("$ {shown} {}", arguments.join(" "));
    let status = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("{shown}: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{shown} {} ended with {status}", arguments.join(" ")))
    }
}

/// The cargo that runs this.
pub fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Whether a program is on the PATH.
fn have(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Programs that the tests use, and the Debian packages that hold them.
const PROGRAMS: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("ld", "binutils"),
    ("git", "git"),
    ("tar", "tar"),
    ("mount", "mount"),
    ("losetup", "mount"),
    ("ip", "iproute2"),
    ("diff", "diffutils"),
    ("setfattr", "attr"),
    ("setfacl", "acl"),
    ("unshare", "util-linux"),
    ("filefrag", "e2fsprogs"),
    ("xfs_io", "xfsprogs"),
    ("sqlite3", "sqlite3"),
    ("dpkg-deb", "dpkg"),
];

/// A program, the Debian package that holds it, and where in there. Of a package that would bring a service along nothing else is
/// taken.
const TAKEN_OUT: &[(&str, &str, &str)] = &[("ping_pong", "ctdb", "usr/bin/ping_pong")];

/// Installs what is missing of what the tests use, by apt.
pub fn install() -> Result<(), String> {
    install_programs(PROGRAMS)?;
    TAKEN_OUT.iter().try_for_each(|(program, package, path)| take_out(program, package, path))
}

/// Puts one program of a package into `target/programs`, if it is not there.
fn take_out(program: &str, package: &str, path: &str) -> Result<(), String> {
    let programs = root().join("target/programs");
    if programs.join(program).is_file() {
        return Ok(());
    }
    need_root()?;
    let unpacked = programs.join(format!("{package}.unpacked"));
    let shown = |e: std::io::Error| format!("{}: {e}", unpacked.display());
    if unpacked.exists() {
        std::fs::remove_dir_all(&unpacked).map_err(shown)?;
    }
    std::fs::create_dir_all(&unpacked).map_err(shown)?;
    run("apt-get", &["update", "-qq"])?;
    // As root: the user that apt downloads with may have no way to this folder.
    let settings = ["-o", "APT::Sandbox::User=root"];
    run_in(&unpacked, "apt-get", &[&settings[..], &["download", "-qq", package]].concat())?;
    let archive = std::fs::read_dir(&unpacked)
        .map_err(shown)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.ends_with(".deb"))
        .ok_or(format!("apt-get downloaded no package {package}"))?;
    run_in(&unpacked, "dpkg-deb", &["-x", &archive, "."])?;
    std::fs::rename(unpacked.join(path), programs.join(program)).map_err(shown)?;
    std::fs::remove_dir_all(&unpacked).map_err(shown)
}

/// Installs what is missing of these programs, each with the Debian package that holds it.
pub fn install_programs(programs: &[(&str, &str)]) -> Result<(), String> {
    let mut packages: Vec<_> =
        programs.iter().filter(|(program, _)| !have(program)).map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    need_root()?;
    run("apt-get", &["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(packages);
    run("apt-get", &arguments)
}

/// Mounting needs root.
pub fn need_root() -> Result<(), String> {
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let root = status
        .lines()
        .find_map(|l| l.strip_prefix("Uid:"))
        .and_then(|l| l.split_whitespace().nth(1))
        .is_some_and(|uid| uid == "0");
    if root { Ok(()) } else { Err("this mounts filesystems: run it as root".into()) }
}
