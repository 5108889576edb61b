// SPDX-License-Identifier: GPL-2.0-only
//! Whole trees of files: copied there and back, and made by a compiler.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::stage::{Stage, run};
use crate::setup;

const LIMIT: Duration = Duration::from_secs(300);

/// One of each kind of what rsync keeps.
fn make_curiosities(dir: &Path) -> Result<(), String> {
    let make = || -> std::io::Result<()> {
        fs::create_dir_all(dir.join("inner/deep"))?;
        fs::write(dir.join("plain"), "content")?;
        for i in 0..20 {
            fs::hard_link(dir.join("plain"), dir.join(format!("inner/link{i}")))?;
        }
        symlink("../nowhere", dir.join("dangling"))?;
        symlink("inner", dir.join("to_dir"))?;
        let sparse = File::create(dir.join("sparse"))?;
        sparse.write_all_at(b"far", 60 << 20)?;
        sparse.set_len(100 << 20)?;
        fs::write(dir.join("n".repeat(255)), "long name")?;
        fs::write(dir.join("with\nline and \u{1f600}"), "odd name")?;
        for (name, mode) in [("set_id", 0o6755), ("nothing", 0o000), ("sticky", 0o1666)] {
            fs::write(dir.join(name), name)?;
            chown(dir.join(name), Some(4711), Some(4712))?;
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode))?;
        }
        let times = FileTimes::new()
            .set_modified(SystemTime::UNIX_EPOCH - Duration::from_nanos(1_500_000_000))
            .set_accessed(SystemTime::UNIX_EPOCH + Duration::from_secs(5_000_000_000));
        File::options().write(true).open(dir.join("plain"))?.set_times(times)
    };
    make().map_err(|e| format!("making {}: {e}", dir.display()))?;
    for (name, arguments) in [("fifo", &["p"][..]), ("null", &["c", "1", "3"]), ("disk", &["b", "259", "7"])]
    {
        run(Command::new("mknod").arg(dir.join(name)).args(arguments), LIMIT)?;
    }
    for (name, value) in [("user.small", "value".into()), ("trusted.large", "x".repeat(3000))] {
        for path in ["plain", "inner"] {
            run(Command::new("setfattr").args(["-n", name, "-v", &value]).arg(dir.join(path)), LIMIT)?;
        }
    }
    Ok(())
}

/// `rsync` from one folder's content to another's.
fn copy(from: &Path, to: &Path, more: &[&str]) -> Result<String, String> {
    let mut command = Command::new("rsync");
    command.args(["-aHAX", "--sparse", "--numeric-ids"]).args(more);
    command.arg(format!("{}/", from.display())).arg(format!("{}/", to.display()));
    run(&command, LIMIT)
}

/// By content and everything else that rsync knows.
fn same(a: &Path, b: &Path) -> Result<(), String> {
    let differences = copy(a, b, &["--dry-run", "--itemize-changes", "--checksum", "--delete"])?;
    if differences.is_empty() { Ok(()) } else { Err(format!("the copies differ:\n{differences}")) }
}

/// rsync with hard links, ACLs and extended attributes, onto the volume and back.
pub fn rsync(stage: &mut Stage) -> Result<String, String> {
    let (source, back) = (stage.outside().join("source"), stage.outside().join("back"));
    let there = stage.mount_point().join("there");
    make_curiosities(&source.join("curiosities"))?;
    copy(Path::new("/usr/include/linux"), &source.join("include"), &[])?;
    copy(&source, &there, &[])?;
    same(&source, &there)?;
    stage.remount()?;
    same(&source, &there)?;
    copy(&there, &back, &[])?;
    same(&source, &back)?;
    // An update finds what changed, and only that.
    let changed = there.join("curiosities/plain");
    fs::write(&changed, "changed").map_err(|e| format!("{}: {e}", changed.display()))?;
    let update = copy(&there, &back, &["--itemize-changes"])?;
    if !update.lines().any(|line| line.starts_with(">f") && line.ends_with(" curiosities/plain")) {
        return Err(format!("the changed file is not in the update:\n{update}"));
    }
    same(&there, &back)?;
    fs::remove_dir_all(&there).map_err(|e| format!("{}: {e}", there.display()))?;
    Ok("there, over a remount, and back: the same".into())
}

/// This project compiled on the volume, sources and target.
pub fn compile(stage: &mut Stage) -> Result<String, String> {
    let (sources, target) = (stage.mount_point().join("sources"), stage.mount_point().join("target"));
    let archive = stage.outside().join("sources.tar");
    let io = |e: std::io::Error| e.to_string();
    fs::create_dir(&sources).map_err(io)?;
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "archive", "--format=tar", "-o"]).arg(&archive).arg("HEAD");
    run(git.current_dir(setup::root()), LIMIT)?;
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&sources), LIMIT)?;
    let mut cargo = Command::new(setup::cargo());
    cargo.args(["build", "--locked", "--quiet", "--package", "scoutfs-utils"]).current_dir(&sources);
    cargo.env("CARGO_TARGET_DIR", &target);
    run(&cargo, Duration::from_secs(1800))?;
    let program = target.join("debug/scoutfs");
    let version = run(Command::new(&program).arg("--version"), LIMIT)?;
    let before = fs::read(&program).map_err(io)?;
    stage.remount()?;
    if fs::read(&program).map_err(io)? != before {
        return Err("the program changed over a remount".into());
    }
    if run(Command::new(&program).arg("--version"), LIMIT)? != version {
        return Err("the program runs differently after a remount".into());
    }
    Ok(format!("compiled, and ran {} before and after a remount", version.trim()))
}
