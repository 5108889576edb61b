// SPDX-License-Identifier: GPL-2.0-only
//! What a machine needs to build a kernel with Rust: packages, bindgen, and the kernel's source.
//!
//! The compiler and its library's source must be of one version, which the distribution's packages are; the toolchain that builds the rest
//! of the project has no library source. The kernel's source is a package of a newer suite, which is fetched from the mirror that
//! the machine's package sources name, with lists and settings of our own, so that nothing changes on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Arch, cache};
use crate::setup;

/// What must be there, and the Debian packages that hold it.
const PACKAGES: &[(&str, &str)] = &[
    ("/usr/bin/rustc", "rustc-web"),
    ("/usr/lib/rustlib/src/rust/library/alloc/src/lib.rs", "rust-web-src"),
    ("/usr/bin/clang-19", "clang-19"),
    ("/usr/bin/ld.lld-19", "lld-19"),
    ("/usr/bin/llvm-ar-19", "llvm-19"),
    ("/usr/lib/llvm-19/lib/libclang.so", "libclang-19-dev"),
    ("/usr/bin/flex", "flex"),
    ("/usr/bin/bison", "bison"),
    ("/usr/include/libelf.h", "libelf-dev"),
    ("/usr/include/openssl/ssl.h", "libssl-dev"),
    ("/usr/bin/bc", "bc"),
    ("/usr/bin/cpio", "cpio"),
    ("/sbin/insmod", "kmod"),
    ("/usr/bin/rsync", "rsync"),
    ("/usr/bin/xz", "xz-utils"),
    ("/usr/bin/make", "make"),
    ("/usr/bin/taskset", "util-linux"),
    ("/bin/busybox", "busybox-static"),
];

/// Besides, where a kernel runs in QEMU.
const QEMU: (&str, &str) = ("/usr/bin/qemu-system-x86_64", "qemu-system-x86");

const BINDGEN_VERSION: &str = "0.72.1";

/// The suite that has the newest kernels.
const SUITE: &str = "trixie-backports";

/// A kernel of this series, the newest there is.
const SERIES: &str = "linux-source-7.";

/// A machine that can build kernels.
pub struct Machine {
    /// The kernel's source.
    pub source: PathBuf,
    /// Its package's version.
    pub version: String,
    /// The folder of bindgen.
    pub bindgen: PathBuf,
}

/// Makes the machine ready for kernels of this sort; quick when it is.
pub fn set_up(arch: Arch) -> Result<Machine, String> {
    install_packages(arch)?;
    let cache = cache()?;
    let bindgen = bindgen(&cache)?;
    let (version, source) = source(&cache)?;
    Ok(Machine { source, version, bindgen })
}

fn install_packages(arch: Arch) -> Result<(), String> {
    let wanted = PACKAGES.iter().chain(Some(&QEMU).filter(|_| arch == Arch::X86));
    let missing: Vec<_> =
        wanted.filter(|(path, _)| !Path::new(path).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    setup::need_root()?;
    setup::run("apt-get", &["update", "-qq"])?;
    // Others may be installing.
    let mut arguments =
        vec!["-o", "DPkg::Lock::Timeout=600", "install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(missing);
    setup::run("apt-get", &arguments)
}

/// The folder with the programs of NFS, as in a root. They are unpacked, not installed, which would have the machine serve files.
pub fn nfs() -> Result<PathBuf, String> {
    const PACKAGE: &str = "nfs-kernel-server";
    const PROGRAM: &str = "usr/sbin/rpc.nfsd";
    let root = PathBuf::from("/");
    let unpacked = cache()?.join("nfs");
    if let Some(found) = [&root, &unpacked].into_iter().find(|folder| folder.join(PROGRAM).exists()) {
        return Ok(found.clone());
    }
    let text = |e: std::io::Error| e.to_string();
    let download = cache()?.join("nfs-download");
    let _ = fs::remove_dir_all(&download);
    fs::create_dir_all(download.join("partial")).map_err(text)?;
    setup::need_root()?;
    setup::run("apt-get", &["update", "-qq"])?;
    // With all that they need and the machine does not have.
    let archives = format!("Dir::Cache::archives={}", download.display());
    let mut arguments = vec!["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o", &archives];
    arguments.extend(["install", "--download-only", "-y", "-qq", "--no-install-recommends", PACKAGE]);
    setup::run("apt-get", &arguments)?;
    let whole = download.join("unpacked");
    let packages = fs::read_dir(&download).map_err(text)?.filter_map(|entry| Some(entry.ok()?.path()));
    for package in packages.filter(|path| path.extension().is_some_and(|e| e == "deb")) {
        run_in(&download, Command::new("dpkg-deb").arg("-x").arg(&package).arg(&whole))?;
    }
    let _ = fs::remove_dir_all(&unpacked);
    fs::rename(&whole, &unpacked).map_err(text)?;
    fs::remove_dir_all(&download).map_err(text)?;
    Ok(unpacked)
}

/// Debian's own is too old.
fn bindgen(cache: &Path) -> Result<PathBuf, String> {
    let root = cache.join(format!("bindgen-{BINDGEN_VERSION}"));
    let bin = root.join("bin");
    if !bin.join("bindgen").is_file() {
        let root = root.to_string_lossy();
        let arguments = ["install", "bindgen-cli", "--version", BINDGEN_VERSION, "--locked", "--root", &root];
        setup::run(setup::cargo(), &arguments)?;
    }
    Ok(bin)
}

/// The kernel's source: the one that is there, or the newest of the series.
fn source(cache: &Path) -> Result<(String, PathBuf), String> {
    let text = |e: std::io::Error| e.to_string();
    // Written last: then the source is whole.
    let note = cache.join("source-version");
    if let Ok(version) = fs::read_to_string(&note) {
        let source = cache.join(format!("linux-{version}"));
        if source.is_dir() {
            return Ok((version, source));
        }
    }
    let settings = apt_settings(cache)?;
    apt(&settings, "apt-get", &["update", "-qq"])?;
    let names = apt(
        &settings,
        "apt-cache",
        &["search", "--names-only", &format!("^{}", SERIES.replace('.', "\\."))],
    )?;
    let minor = |name: &str| name.strip_prefix(SERIES).and_then(|rest| rest.parse::<u32>().ok());
    let package = names
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| minor(name).is_some())
        .max_by_key(|name| minor(name))
        .ok_or_else(|| format!("{SUITE} has no package {SERIES}*"))?;
    let shown = apt(&settings, "apt-cache", &["show", "--no-all-versions", package])?;
    let version = shown
        .lines()
        .find_map(|line| line.strip_prefix("Version: "))
        .ok_or_else(|| format!("{package} has no version"))?
        .to_string();
    println!("kernel: getting {package} {version}");
    let download = cache.join("download");
    let _ = fs::remove_dir_all(&download);
    fs::create_dir_all(&download).map_err(text)?;
    apt_in(&download, &settings, "apt-get", &["download", "-qq", package])?;
    let archive = fs::read_dir(&download)
        .map_err(text)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .ok_or("nothing was downloaded")?;
    println!("kernel: unpacking");
    run_in(&download, Command::new("dpkg-deb").arg("-x").arg(&archive).arg("unpacked"))?;
    let tar = download.join("unpacked/usr/src").join(format!("{package}.tar.xz"));
    let source = cache.join(format!("linux-{version}"));
    let _ = fs::remove_dir_all(&source);
    fs::create_dir_all(&source).map_err(text)?;
    run_in(&source, Command::new("tar").args(["--strip-components=1", "-xf"]).arg(&tar))?;
    fs::remove_dir_all(&download).map_err(text)?;
    fs::write(&note, &version).map_err(text)?;
    Ok((version, source))
}

/// Settings for apt that touch nothing of the machine's own, with our suite from the machine's mirror.
fn apt_settings(cache: &Path) -> Result<PathBuf, String> {
    let text = |e: std::io::Error| e.to_string();
    let dir = cache.join("apt");
    for sub in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(dir.join(sub)).map_err(text)?;
    }
    let (mirror, key) = mirror()?;
    let signed = key.map_or(String::new(), |key| format!("[signed-by={key}] "));
    fs::write(dir.join("sources.list"), format!("deb {signed}{mirror} {SUITE} main\n")).map_err(text)?;
    let settings = dir.join("apt.conf");
    let shown = dir.display();
    fs::write(
        &settings,
        format!(
            "Dir::Etc::SourceList \"{shown}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             Dir::State::Lists \"{shown}/lists\";\nDir::Cache \"{shown}/cache\";\nAPT::Sandbox::User \"root\";\n"
        ),
    )
    .map_err(text)?;
    Ok(settings)
}

/// The mirror of Debian that the machine's package sources name, and the key that signs it, if they say so.
fn mirror() -> Result<(String, Option<String>), String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.filter_map(|part| Some(part.ok()?.path())));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text))
        .ok_or_else(|| "no package source of this machine is a mirror of Debian".into())
}

/// As [`mirror`], of one file in either of the two formats. A mirror's path ends in `debian`.
fn mirror_in(text: &str) -> Option<(String, Option<String>)> {
    let is_mirror = |uri: &&str| uri.contains("://") && uri.trim_end_matches('/').ends_with("/debian");
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let mut values = stanza.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            values.next().map(str::trim)
        };
        if let Some(uri) = field("URIs").and_then(|uris| uris.split_whitespace().find(is_mirror)) {
            return Some((uri.into(), field("Signed-By").map(Into::into)));
        }
        for line in stanza.lines().filter(|line| line.starts_with("deb ")) {
            if let Some(uri) = line.split_whitespace().find(is_mirror) {
                let key = line.split_once("signed-by=").and_then(|(_, rest)| rest.split([']', ' ']).next());
                return Some((uri.into(), key.map(Into::into)));
            }
        }
    }
    None
}

fn apt(settings: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    apt_in(Path::new("/"), settings, program, arguments)
}

fn apt_in(dir: &Path, settings: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    run_in(dir, Command::new(program).args(arguments).env("APT_CONFIG", settings))
}

/// Runs a program in a folder and returns what it printed.
fn run_in(dir: &Path, command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{program} ended with {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_formats_of_package_sources() {
        let new = "Types: deb\nURIs: https://tools.example/apt\nSuites: x\n\n\
                   Types: deb\n# old\nURIs: http://mirror.example/debian/\nSuites: a b\nSigned-By: /k.gpg\n";
        assert_eq!(mirror_in(new), Some(("http://mirror.example/debian/".into(), Some("/k.gpg".into()))));
        let old = "# deb http://commented.example/debian a main\n\
                   deb http://mirror.example/debian-security a main\n\
                   deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian a main\n";
        assert_eq!(mirror_in(old), Some(("http://mirror.example/debian".into(), Some("/k.gpg".into()))));
        assert_eq!(
            mirror_in("deb http://mirror.example/debian a\n"),
            Some(("http://mirror.example/debian".into(), None))
        );
        assert_eq!(mirror_in("deb http://mirror.example/ubuntu a\n"), None);
    }
}
