// SPDX-License-Identifier: GPL-2.0-only
//! pjdfstest: POSIX calls one by one, as root and as others.
//!
//! What it does not pass is listed in `pjdfstest.exceptions` with the reason. The run fails when a test that is not listed
//! does not pass, when one that is listed does, and when one that is listed does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::stage::{Stage, run, run_any, tail};
use crate::setup;

const VERSION: &str = "0.2.2";
/// Tests of that version.
const TESTS: usize = 398;

const EXCEPTIONS: &str = include_str!("pjdfstest.exceptions");

/// What Linux and this filesystem have of what the suite asks for.
const CONFIG: &str = r#"[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]

[settings]
naptime = 0.01
"#;

/// Runs a program where the volume is also on `/mnt`, for this program alone: sockets have paths of at most 107 bytes,
/// and some of the suite's are long.
const ON_SHORT_PATH: &str = r#"mount --bind "$1" /mnt && shift && exec "$@""#;

/// How one of its tests ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// The verdicts in what it printed.
fn verdicts(output: &str) -> BTreeMap<&str, Verdict> {
    let verdict = |line| {
        let (name, word) = str::split_once(line, ' ')?;
        let verdict = match word.trim() {
            "ok" => Verdict::Passed,
            "FAILED" => Verdict::Failed,
            "skipped" => Verdict::Skipped,
            _ => return None,
        };
        name.contains("::").then_some((name, verdict))
    };
    output.lines().filter_map(verdict).collect()
}

/// The names of a list of exceptions, each with a reason behind it.
fn exceptions(list: &str) -> Result<BTreeMap<&str, Verdict>, String> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.splitn(3, ' ').filter(|word| !word.is_empty());
            match (words.next(), words.next(), words.next()) {
                (Some("fails"), Some(name), Some(_)) => Ok((name, Verdict::Failed)),
                (Some("skips"), Some(name), Some(_)) => Ok((name, Verdict::Skipped)),
                _ => Err(format!("not an exception with a name and a reason: {line}")),
            }
        })
        .collect()
}

/// What is not as the list says, a line for each.
fn surprises(found: &BTreeMap<&str, Verdict>, excepted: &BTreeMap<&str, Verdict>) -> Vec<String> {
    let names: BTreeSet<&str> = found.keys().chain(excepted.keys()).copied().collect();
    let surprise = |name| {
        let expected = excepted.get(name).copied().unwrap_or(Verdict::Passed);
        match found.get(name) {
            Some(verdict) if *verdict == expected => None,
            Some(verdict) => Some(format!("{name}: {verdict:?}, expected {expected:?}")),
            None => Some(format!("{name}: there is no such test")),
        }
    };
    names.into_iter().filter_map(surprise).collect()
}

/// The program; built on the first run and kept.
pub fn program() -> Result<PathBuf, String> {
    let root = setup::root().join("target/tools");
    let path = root.join("bin/pjdfstest");
    let is_there = || {
        let version = Command::new(&path).arg("--version").output();
        version.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).trim().ends_with(VERSION))
    };
    if !is_there() {
        let mut cargo = Command::new(setup::cargo());
        cargo.args(["install", "pjdfstest", "--locked", "--force", "--version", VERSION, "--root"]);
        cargo.arg(&root).arg("--target-dir").arg(root.join("target"));
        run(&cargo, Duration::from_secs(1200))?;
    }
    Ok(path)
}

/// Another filesystem for the tests that cross from one to another.
struct Second<'p>(&'p Path);

impl<'p> Second<'p> {
    fn new(path: &'p Path) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))?;
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(path), Duration::from_secs(60))?;
        Ok(Second(path))
    }
}

impl Drop for Second<'_> {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(self.0), Duration::from_secs(60));
    }
}

/// All of its tests.
pub fn run_on(stage: &mut Stage) -> Result<String, String> {
    let excepted = exceptions(EXCEPTIONS)?;
    let second_path = stage.outside().join("second");
    let second = Second::new(&second_path)?;
    let pass = |may_remount: bool, pattern: &[&str]| {
        let config = stage.outside().join(format!("remount-{may_remount}.toml"));
        fs::write(&config, format!("{CONFIG}allow_remount = {may_remount}\n"))
            .map_err(|e| format!("{}: {e}", config.display()))?;
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", ON_SHORT_PATH, "sh"]).arg(stage.mount_point()).arg(program()?);
        command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
        command.arg("-c").arg(&config).arg("-s").arg(second.0).args(["-p", "/mnt"]).args(pattern);
        let (_, output) = run_any(&command, Duration::from_secs(300))?;
        Ok::<_, String>((command, output))
    };
    let (command, most) = pass(false, &[])?;
    // Those that remount are refused that when others before them have left a file open for writing.
    let (_, remounting) = pass(true, &["erofs"])?;
    let mut found = verdicts(&most);
    found.extend(verdicts(&remounting));
    if found.len() != TESTS {
        return Err(format!("{} of {TESTS} tests ran: {}", found.len(), tail(&command, &most)));
    }
    let surprises = surprises(&found, &excepted);
    if !surprises.is_empty() {
        println!("{most}{remounting}");
        return Err(format!("{} not as expected\n{}", surprises.len(), surprises.join("\n")));
    }
    let count = |verdict| found.values().filter(|v| **v == verdict).count();
    let (passed, failed, skipped) = (count(Verdict::Passed), count(Verdict::Failed), count(Verdict::Skipped));
    Ok(format!("{passed} pass, {failed} fail and {skipped} skip as listed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "open::a    ok\nopen::b     FAILED\n\tsaid: why ok\nopen::c  skipped\n\tno reason\n";

    #[test]
    fn the_committed_list_is_understood() {
        assert!(!exceptions(EXCEPTIONS).unwrap().is_empty());
        assert!(exceptions("fails open::a").is_err(), "a reason is needed");
    }

    #[test]
    fn what_is_listed_is_expected_and_nothing_else() {
        let found = verdicts(OUTPUT);
        assert_eq!(found.len(), 3);
        let of = |list| surprises(&found, &exceptions(list).unwrap());
        assert_eq!(of("fails open::b why\nskips open::c why"), [""; 0]);
        assert_eq!(of("fails open::b why").len(), 1, "a skip that is not listed");
        assert_eq!(of("skips open::c why").len(), 1, "a failure that is not listed");
        assert_eq!(of("fails open::a why\nfails open::b why\nskips open::c why").len(), 1, "it passes");
        assert_eq!(of("fails open::d why\nfails open::b why\nskips open::c why").len(), 1, "it is gone");
    }
}
