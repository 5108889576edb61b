// SPDX-License-Identifier: GPL-2.0-only
//! Real programs on a mounted volume.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::run::{program, run_well_for};
use crate::volume::Volume;

/// For programs that do much.
const LONG: Duration = Duration::from_secs(240);

/// Counts the files below a directory, up to `enough`.
fn has_files(dir: &Path, enough: usize) -> bool {
    let mut left = vec![dir.to_owned()];
    let mut files = 0;
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path()),
                Ok(kind) if kind.is_file() => files += 1,
                _ => {}
            }
        }
    }
    files >= enough
}

/// A tree of thousands of files that each machine that builds this has.
fn source_tree() -> PathBuf {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let registries = cargo_home.into_iter().chain(home).map(|dir| dir.join("registry/src"));
    let candidates: Vec<PathBuf> = registries.chain(["/usr/include".into(), "/usr/share".into()]).collect();
    let found = candidates.iter().find(|dir| has_files(dir, 5000));
    found.unwrap_or_else(|| panic!("none of {candidates:?} has 5000 files")).clone()
}

#[test]
fn a_source_tree_goes_in_by_tar_and_is_the_same_before_and_after_a_remount() {
    let source = source_tree();
    let volume = Volume::new(1024);
    // Sources may change while this runs; the archive does not.
    let archive = volume.beside("archive.tar");
    let original = volume.directory("original");
    run_well_for(program("tar", ["-cf"]).arg(&archive).arg("-C").arg(&source).arg("."), LONG);
    run_well_for(program("tar", ["-xpf"]).arg(&archive).arg("-C").arg(&original), LONG);

    let mounted = volume.mount();
    let copy = mounted.join("copy");
    fs::create_dir(&copy).unwrap();
    run_well_for(program("tar", ["-xpf"]).arg(&archive).arg("-C").arg(&copy), LONG);
    let is_same = |copy: &Path| {
        run_well_for(program("diff", ["-r", "--no-dereference"]).arg(&original).arg(copy), LONG);
        // Modes, owners and times as well.
        run_well_for(program("tar", ["-df"]).arg(&archive).arg("-C").arg(copy), LONG);
    };
    is_same(&copy);
    mounted.unmount();

    let mounted = volume.mount();
    is_same(&mounted.join("copy"));
    run_well_for(program("rm", ["-r"]).arg(mounted.join("copy")), LONG);
    assert_eq!(fs::read_dir(mounted.path()).unwrap().count(), 0);
    mounted.unmount();
}

#[test]
fn git_clones_commits_collects_garbage_and_finds_nothing_wrong() {
    let volume = Volume::new(256);
    let mounted = volume.mount();
    let clone = mounted.join("clone");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "safe.directory=*", "-c", "user.name=test", "-c", "user.email=test@localhost"]);
        command.args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        command
    };
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    run_well_for(git(&["clone", "--quiet", "--no-hardlinks"]).arg(project).arg(&clone), LONG);
    let in_clone = |arguments: &[&str]| run_well_for(git(arguments).current_dir(&clone), LONG);
    assert_eq!(in_clone(&["status", "--porcelain"]), "");
    for i in 0..20 {
        fs::write(clone.join(format!("new{i}")), format!("{i}\n").repeat(1000)).unwrap();
    }
    in_clone(&["add", "."]);
    in_clone(&["commit", "--quiet", "-m", "Add files"]);
    in_clone(&["gc", "--quiet", "--prune=now"]);
    in_clone(&["fsck", "--full", "--strict"]);
    let head = in_clone(&["rev-parse", "HEAD^{tree}"]);
    mounted.unmount();

    let mounted = volume.mount();
    assert_eq!(run_well_for(git(&["rev-parse", "HEAD^{tree}"]).current_dir(&clone), LONG), head);
    assert_eq!(run_well_for(git(&["status", "--porcelain"]).current_dir(&clone), LONG), "");
    run_well_for(git(&["fsck", "--full", "--strict"]).current_dir(&clone), LONG);
    mounted.unmount();
}

#[test]
fn a_directory_of_fifty_thousand_names_is_listed_whole_and_empties() {
    const COUNT: usize = 50_000;
    let volume = Volume::new(256);
    let mounted = volume.mount();
    let dir = mounted.join("dir");
    fs::create_dir(&dir).unwrap();
    let name = |i: usize| format!("an entry with a name of usual length {i}");
    for i in 0..COUNT {
        File::create(dir.join(name(i))).unwrap();
    }
    let expected: BTreeSet<String> = (0..COUNT).map(name).collect();
    let list = |dir: &Path| -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    };
    let listed = list(&dir);
    assert_eq!(listed.len(), COUNT, "each name once");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
    mounted.unmount();

    let mounted = volume.mount();
    for i in (0..COUNT).step_by(7) {
        assert!(fs::metadata(dir.join(name(i))).unwrap().is_file());
    }
    let listed = list(&dir);
    assert_eq!(listed.len(), COUNT);
    for name in &listed {
        fs::remove_file(dir.join(name)).unwrap();
    }
    assert_eq!(list(&dir).len(), 0);
    fs::remove_dir(&dir).unwrap();
    mounted.unmount();
}
