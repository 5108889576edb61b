// SPDX-License-Identifier: GPL-2.0-only
//! The commands that ask a mount: what they print, as text and as JSON, and how they fail.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use serde_json::Value;

use crate::run::{Ended, SOON, program, run, run_for, run_refused, scoutfs, spawn};
use crate::volume::Volume;

fn ino(path: impl AsRef<Path>) -> String {
    fs::symlink_metadata(path).unwrap().ino().to_string()
}

/// What a command prints, with one argument more: a place in the mount.
fn print(arguments: &[&str], path: &Path) -> String {
    run(scoutfs(arguments).arg(path))
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// Invariant 63: names come out as they are, whatever they are made of.
#[test]
fn paths_and_entries_of_an_inode_are_listed() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::create_dir(mounted.join("dir")).unwrap();
    fs::write(mounted.join("dir/file"), "content").unwrap();
    let odd = mounted.join(OsStr::from_bytes(b"odd \xff\nname"));
    fs::hard_link(mounted.join("dir/file"), &odd).unwrap();
    let (file, dir) = (ino(&odd), ino(mounted.join("dir")));
    let mut command = scoutfs(["ino-path", &file, "-p"]);
    let child = spawn(command.arg(mounted.path()).stdout(Stdio::piped()));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"odd \xff\nname\ndir/file\n");
    assert_eq!(print(&["ino-path", &dir, "-p"], mounted.path()), "dir\n");
    assert_eq!(print(&["ino-path", "999999", "-p"], mounted.path()), "");
    let lines = json_lines(&print(&["ino-path", &file, "--json", "-p"], mounted.path()));
    assert_eq!(lines[1]["path"], "dir/file");
    assert_eq!(lines[0]["path_hex"], "6f646420ff0a6e616d65");
    assert!(lines[1].get("path_hex").is_none());

    let text = print(&["get-referring-entries", &dir, "-p"], mounted.path());
    assert_eq!(text, "dir 1 pos 2 type 4 name dir\n");
    let lines = json_lines(&print(&["get-referring-entries", &file, "--json", "-p"], mounted.path()));
    assert_eq!((lines.len(), &lines[1]["name"]), (2, &"file".into()));
    assert_eq!((lines[1]["dir"].to_string(), &lines[1]["type"]), (dir.clone(), &8.into()));
    // By hexadecimal number, and from the environment and the working directory, too.
    let hex = format!("{:#x}", dir.parse::<u64>().unwrap());
    assert_eq!(run(scoutfs(["ino-path", &hex]).env("SCOUTFS_MOUNT_PATH", mounted.path())), "dir\n");
    assert_eq!(run(scoutfs(["ino-path", &dir]).current_dir(mounted.join("dir"))), "dir\n");

    let numbers = |arguments: &[&str]| -> BTreeSet<String> {
        print(arguments, mounted.path()).lines().map(str::to_owned).collect()
    };
    assert_eq!(numbers(&["get-allocated-inos", "-i", &file, "-p"]), BTreeSet::from([file.clone()]));
    assert_eq!(numbers(&["get-allocated-inos", "-s", "-i", &dir, "-p"]), BTreeSet::from([dir.clone()]));
    assert_eq!(numbers(&["get-allocated-inos", "-s", "-i", "2", "-p"]), BTreeSet::new());
    let json = print(&["get-allocated-inos", "--json", "-i", "1", "-p"], mounted.path());
    assert_eq!(json, "[1]\n");
    mounted.unmount();
}

#[test]
fn many_links_are_listed_in_several_calls() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "").unwrap();
    let name = |n: u32| format!("{n:0>200}");
    let mut want = BTreeSet::from(["file".to_owned()]);
    // More than fit into one answer.
    for n in 0..1500 {
        fs::hard_link(mounted.join("file"), mounted.join(name(n))).unwrap();
        want.insert(name(n));
    }
    let file = ino(mounted.join("file"));
    let text = print(&["get-referring-entries", &file, "-p"], mounted.path());
    let names: Vec<String> = text.lines().map(|l| l.rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names.len(), want.len());
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), want);
    let paths = print(&["ino-path", &file, "-p"], mounted.path());
    assert_eq!(paths.lines().map(str::to_owned).collect::<BTreeSet<_>>(), want);
    mounted.unmount();
}

#[test]
fn attributes_are_printed_and_set() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    File::create(&path).unwrap();
    let set = |arguments: &[&str]| print(&[&["set-attr-x"], arguments].concat(), &path);
    let restore =
        ["-v", "7", "-s", "0x2710", "--offline", "-c", "-5.000000003", "-r", "12.7", "-p", "9", "-t", "1"];
    assert_eq!(set(&restore), "");
    let all = print(&["get-attr-x"], &path);
    let names: Vec<&str> = all.lines().map(|line| line.split(": ").next().unwrap()).collect();
    let want = [
        "meta_seq",
        "data_seq",
        "data_version",
        "online_blocks",
        "offline_blocks",
        "ctime",
        "crtime",
        "size",
        "retention",
        "project_id",
    ];
    assert_eq!(names, want);
    let end = "data_version: 7\nonline_blocks: 0\noffline_blocks: 3\nctime: -5.000000003\ncrtime: 12.000000007\n\
               size: 10000\nretention: 1\nproject_id: 9\n";
    assert!(all.ends_with(end), "{all}");
    for (flag, value) in [("-v", "7"), ("-f", "3"), ("-n", "0"), ("-s", "10000"), ("-t", "1"), ("-p", "9")] {
        assert_eq!(print(&["get-attr-x", flag], &path), format!("{value}\n"), "{flag}");
    }
    assert_eq!(print(&["get-attr-x", "-p", "-t"], &path), "retention: 1\nproject_id: 9\n");
    let json: Value = serde_json::from_str(&print(&["get-attr-x", "--json"], &path)).unwrap();
    assert_eq!(
        (&json["size"], &json["ctime"], &json["retention"]),
        (&10_000.into(), &"-5.000000003".into(), &1.into())
    );
    assert_eq!(fs::metadata(&path).unwrap().len(), 10_000);
    // Errors say what failed, of which file, and why; the exit status is that of failure.
    let Ended { status, stderr, .. } = run_for(scoutfs(["set-attr-x", "-p", "1"]).arg(&path), SOON);
    assert_eq!(status.code(), Some(1));
    let want =
        format!("scoutfs: set-attr-x failed: {}: Operation not permitted (os error 1)\n", path.display());
    assert_eq!(stderr, want);
    set(&["-t", "0", "-p", "1"]);
    assert_eq!(print(&["get-attr-x", "-p", "-t"], &path), "retention: 0\nproject_id: 1\n");
    assert_eq!(set(&[]), "");
    for arguments in [&["-t", "2"][..], &["-c", "5"], &["-p", "-1"], &["--offline"], &["-s", "x"]] {
        let ended = run_for(scoutfs(["set-attr-x"]).args(arguments).arg(&path), SOON);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {}", ended.stderr);
    }
    mounted.unmount();
}

#[test]
fn extents_are_listed() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = File::create(&path).unwrap();
    assert_eq!(print(&["get-fiemap"], &path), "extents: 0\n");
    file.write_at(&[1; 8192], 4096).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 40_960, 4096).unwrap();
    assert_eq!(
        print(&["get-fiemap", "-L"], &path),
        "0: offset: 1 length: 2 flags: ...\n1: offset: 10 length: 1 flags: .UL\nextents: 2\n"
    );
    assert_eq!(
        print(&["get-fiemap", "-L", "-b"], &path),
        "0: offset: 4096 length: 8192 flags: ...\n1: offset: 40960 length: 4096 flags: .UL\nextents: 2\n"
    );
    let physical: u64 = print(&["get-fiemap", "-P"], &path).split(' ').nth(2).unwrap().parse().unwrap();
    mounted.sync();
    let mut block = [0; 4096];
    File::open(volume.image()).unwrap().read_exact_at(&mut block, physical * 4096).unwrap();
    assert_eq!(block, [1; 4096]);
    assert!(
        print(&["get-fiemap"], &path).starts_with(&format!("0: offset: 1 {physical} length: 2 flags: ...\n"))
    );
    let lines = json_lines(&print(&["get-fiemap", "--json"], &path));
    assert_eq!(
        (lines.len(), &lines[0]["physical"], &lines[1]["unwritten"]),
        (2, &physical.into(), &true.into())
    );
    let offline = mounted.join("offline");
    File::create(&offline).unwrap();
    print(&["set-attr-x", "-v", "1", "-s", "5000", "--offline"], &offline);
    assert_eq!(print(&["get-fiemap"], &offline), "0: offset: 0 0 length: 2 flags: O.L\nextents: 1\n");
    // Many, so that it takes several calls, in the order of the file.
    let many = File::create(mounted.join("many")).unwrap();
    for n in 0..1200 {
        many.write_at(b"x", n * 8192).unwrap();
    }
    let text = print(&["get-fiemap", "-L"], &mounted.join("many"));
    assert!(text.ends_with("1199: offset: 2398 length: 1 flags: ..L\nextents: 1200\n"), "{text}");
    assert_eq!(text.matches('L').count(), 1);
    // On another filesystem the kernel answers.
    let beside = volume.beside("beside");
    fs::write(&beside, [1; 4096]).unwrap();
    File::open(&beside).unwrap().sync_all().unwrap();
    let ended = run_for(scoutfs(["get-fiemap"]).arg(&beside), SOON);
    assert!(ended.status.success() || ended.stderr.contains("os error"), "{ended:?}");
    drop((file, many));
    mounted.unmount();
}

#[test]
fn counters_are_printed_by_name_in_a_table_and_as_json() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "content").unwrap();
    let text = print(&["counters"], mounted.path());
    let names: Vec<&str> = text.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(names.is_sorted() && names.len() > 60);
    let value = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap().split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((value("op_create"), value("data_write_bytes")), (1, 7));
    let table = print(&["counters", "-t"], mounted.path());
    assert!(table.lines().count() < names.len() && table.lines().all(|line| line.len() <= 80), "{table}");
    let json: Value = serde_json::from_str(&print(&["counters", "--json", "-p"], mounted.path())).unwrap();
    assert_eq!(json.as_object().unwrap().len(), names.len());
    assert_eq!(json["op_create"], 1);
    mounted.unmount();
}

#[test]
fn commands_say_when_the_place_is_no_mount() {
    let volume = Volume::blank(1);
    let elsewhere = volume.directory("elsewhere");
    let place = elsewhere.to_str().unwrap();
    for arguments in [
        &["ino-path", "1", "-p", place][..],
        &["get-referring-entries", "1", "-p", place],
        &["get-allocated-inos", "-i", "1", "-p", place],
        &["get-attr-x", place],
        &["set-attr-x", "-p", "1", place],
        &["counters", place],
    ] {
        let message = run_refused(scoutfs(arguments));
        assert!(message.starts_with(&format!("scoutfs: {} failed: {place}: ", arguments[0])), "{message}");
    }
}

#[test]
fn man_pages_and_completions_know_every_command() {
    let volume = Volume::blank(1);
    let (pages, completions) = (volume.beside("man"), volume.beside("completions"));
    run(scoutfs(["man-pages"]).arg(&pages));
    run(scoutfs(["completions"]).arg(&completions));
    let help = run(scoutfs(["--help"]));
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.contains(&"get-fiemap") && commands.contains(&"mkfs"), "{help}");
    let scripts = ["scoutfs.bash", "_scoutfs", "scoutfs.fish"]
        .map(|name| fs::read_to_string(completions.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")));
    for command in commands {
        assert!(pages.join(format!("scoutfs-{command}.8")).exists(), "{command}");
        for script in &scripts {
            assert!(script.contains(command), "{command}");
        }
        assert!(run(scoutfs([command, "--help"])).contains("Usage:"));
    }
    // The shell that is here takes it.
    let script = completions.join("scoutfs.bash");
    let complete = format!(
        ". {}; COMP_WORDS=(scoutfs get-f); COMP_CWORD=1; _scoutfs scoutfs get-f scoutfs; echo ${{COMPREPLY[@]}}",
        script.display()
    );
    assert_eq!(run(program("bash", ["-c", &complete])), "get-fiemap\n");
}

/// Invariant 63: a name that is no text is an argument as any other.
#[test]
fn commands_take_names_of_any_bytes() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let odd = mounted.join(OsStr::from_bytes(b" -\xff\xc0\n*$'\" "));
    fs::write(&odd, "content").unwrap();
    // What text would be made of that name, is another file.
    fs::write(mounted.join(String::from_utf8_lossy(odd.file_name().unwrap().as_bytes()).as_ref()), "")
        .unwrap();
    run(scoutfs(["set-attr-x", "-p", "5"]).arg(&odd));
    assert_eq!(print(&["get-attr-x", "-s", "-p"], &odd), "size: 7\nproject_id: 5\n");
    assert!(print(&["get-fiemap"], &odd).ends_with("extents: 1\n"));
    assert_eq!(print(&["stat", "-s", "online_blocks"], &odd), "1\n");
    // Relative to where the command runs, too.
    let mut command = scoutfs(["get-attr-x", "-s"]);
    let name = Path::new(".").join(odd.file_name().unwrap());
    assert_eq!(run(command.arg(name).current_dir(mounted.path())), "7\n");
    mounted.unmount();
}

/// Invariant 64: what was synced is printed while the volume is mounted and goes on changing, and trees can be left out.
#[test]
fn a_mounted_volume_is_printed_as_it_is_on_the_device() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            for n in 0.. {
                fs::write(mounted.join(format!("busy-{}", n % 50)), "content").unwrap();
                if stop.load(Relaxed) {
                    return;
                }
            }
        });
        let print = |arguments: &[&str]| {
            let ended = run_for(scoutfs(arguments).arg(volume.image()), SOON);
            if !ended.status.success() {
                stop.store(true, Relaxed);
            }
            assert!(ended.status.success(), "{}", ended.stderr);
            ended.stdout
        };
        for round in 0..5 {
            let name = format!("synced-{round}");
            fs::write(mounted.join(&name), "").unwrap();
            mounted.sync();
            let all = print(&["print"]);
            if !all.contains(&name) {
                stop.store(true, Relaxed);
            }
            assert!(all.contains(&name), "what was synced before is not printed");
            let short = print(&["print", "--skip-items"]);
            assert!(short.contains("super ") && !short.contains("item tree="));
        }
        stop.store(true, Relaxed);
    });
    mounted.unmount();
}
