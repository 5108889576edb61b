// SPDX-License-Identifier: GPL-2.0-only
//! What an administrator types first, word for word, and what must be seen.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::run::{program, run, scoutfs};
use crate::volume::{Volume, is_mount_point};

/// `(seq, ino)` of each entry of what `walk-inodes` printed.
pub fn parse(text: &str) -> Vec<(u64, u64)> {
    let mut entries = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<u64> = line.split_whitespace().map(|f| f.parse().expect(line)).collect();
        let [count, seq, minor, ino] = fields[..] else { panic!("not an entry: {line}") };
        assert_eq!((count, minor), (entries.len() as u64, 0), "{text}");
        entries.push((seq, ino));
    }
    assert!(entries.is_sorted(), "{text}");
    entries
}

fn walk(index: &str, path: &Path) -> Vec<(u64, u64)> {
    parse(&run(scoutfs(["walk-inodes", index, "0", "-1"]).arg(path)))
}

fn inodes(entries: &[(u64, u64)]) -> Vec<u64> {
    entries.iter().map(|(_, ino)| *ino).collect()
}

fn touch(path: &Path) -> u64 {
    run(program("touch", [path]));
    run(&mut Command::new("sync"));
    fs::metadata(path).unwrap().ino()
}

#[test]
fn each_change_is_listed_once_and_in_order_after_its_sync() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let root = fs::metadata(mounted.path()).unwrap().ino();
    assert_eq!(inodes(&walk("meta_seq", mounted.path())), [root]);

    let one = touch(&mounted.join("one"));
    let mut first = walk("meta_seq", mounted.path());
    let seq_of_one = first.iter().find(|(_, ino)| *ino == one).expect("one").0;
    first.sort_by_key(|(_, ino)| *ino);
    assert_eq!(inodes(&first), [root, one]);

    let two = touch(&mounted.join("two"));
    let second = walk("meta_seq", mounted.path());
    assert_eq!(second.len(), 3, "{second:?}");
    assert_eq!(second[0], (seq_of_one, one), "what did not change stays where it was");

    assert_eq!(touch(&mounted.join("one")), one);
    let third = walk("meta_seq", mounted.path());
    assert_eq!(third.len(), 3, "{third:?}");
    let last = *third.last().unwrap();
    assert_eq!(last.1, one, "the inode touched again is the last");
    assert!(last.0 > second.last().unwrap().0);

    fs::remove_file(mounted.join("two")).unwrap();
    run(&mut Command::new("sync"));
    let fourth = walk("meta_seq", mounted.path());
    assert!(!inodes(&fourth).contains(&two), "{fourth:?}");
    assert_eq!(fourth.len(), 2, "{fourth:?}");

    // What was not changed since is not seen by who asks from there on.
    let since = format!("{}", last.0 + 1);
    let newer = parse(&run(scoutfs(["walk-inodes", "meta_seq", &since, "-1"]).arg(mounted.path())));
    assert_eq!(inodes(&newer), [root], "only the directory changed since");
    mounted.unmount();
}

#[test]
fn the_data_index_lists_regular_files_whose_data_changed() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::create_dir(mounted.join("dir")).unwrap();
    symlink("nowhere", mounted.join("link")).unwrap();
    let a = touch(&mounted.join("a"));
    let b = touch(&mounted.join("b"));
    fs::write(mounted.join("b"), "data").unwrap();
    run(&mut Command::new("sync"));
    fs::write(mounted.join("a"), "data").unwrap();
    run(&mut Command::new("sync"));
    let entries = walk("data_seq", mounted.path());
    assert_eq!(inodes(&entries), [b, a]);
    // A change of the inode alone does not move it.
    run(program("chmod", ["600"]).arg(mounted.join("b")));
    run(&mut Command::new("sync"));
    assert_eq!(walk("data_seq", mounted.path()), entries);
    assert_eq!(walk("meta_seq", mounted.path()).last().unwrap().1, b);
    mounted.unmount();
}

#[test]
fn walk_inodes_takes_its_path_in_three_ways_and_prints_json() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    // More than one header's worth.
    for i in 0..60 {
        File::create(mounted.join(format!("file{i}"))).unwrap();
    }
    mounted.sync();
    let expected = walk("meta_seq", mounted.path());
    assert_eq!(expected.len(), 61);
    let arguments = ["walk-inodes", "meta_seq", "0", "-1"];
    assert_eq!(parse(&run(scoutfs(arguments).arg("-p").arg(mounted.path()))), expected);
    assert_eq!(parse(&run(scoutfs(arguments).env("SCOUTFS_MOUNT_PATH", mounted.path()))), expected);
    assert_eq!(parse(&run(scoutfs(arguments).current_dir(mounted.path()))), expected);
    let json: Vec<(u64, u64)> = run(scoutfs(arguments).arg("--json").arg(mounted.path()))
        .lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).expect(line);
            (value["seq"].as_u64().expect("seq"), value["ino"].as_u64().expect("ino"))
        })
        .collect();
    assert_eq!(json, expected);
    mounted.unmount();
}

#[test]
fn stat_statfs_and_df_agree_with_the_system() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let file = mounted.join("file");
    fs::write(&file, [7; 10_000]).unwrap();
    mounted.sync();
    let (seq, ino) = *walk("data_seq", mounted.path()).last().unwrap();
    assert_eq!(ino, fs::metadata(&file).unwrap().ino());
    let stat: Value = serde_json::from_str(&run(scoutfs(["stat", "--json"]).arg(&file))).unwrap();
    assert_eq!(stat["data_seq"], seq);
    assert_eq!(stat["online_blocks"], 3);
    assert_eq!(stat["offline_blocks"], 0);
    let data_version = run(scoutfs(["stat", "-s", "data_version"]).arg(&file));
    assert!(data_version.trim().parse::<u64>().unwrap() > 0);

    let text = run(scoutfs(["statfs", "-p"]).arg(mounted.path()));
    for name in ["fsid", "rid", "committed_seq", "total_meta_blocks", "total_data_blocks"] {
        assert!(text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} in {text}");
    }
    let rows: Value =
        serde_json::from_str(&run(scoutfs(["df", "--json", "-p"]).arg(mounted.path()))).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let field = |name: &str| row[name].as_u64().expect(name);
        assert_eq!(field("used") + field("free"), field("total"), "{row}");
    }
    let bytes: u64 =
        rows.iter().map(|r| r["total"].as_u64().unwrap() * r["block_bytes"].as_u64().unwrap()).sum();
    let stat = rustix::fs::statvfs(mounted.path()).unwrap();
    assert_eq!(bytes, stat.f_blocks * stat.f_frsize);
    assert!(bytes > 48 << 20 && bytes <= 64 << 20);
    assert!(run(scoutfs(["df", "-H", "-p"]).arg(mounted.path())).contains("MiB"));
    mounted.unmount();
}

#[test]
fn the_mount_helper_is_the_same_command_under_another_name() {
    let volume = Volume::new(64);
    // Made by the command, so that it is cleaned up like any other mount.
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "content").unwrap();
    mounted.unmount();
    let helper = volume.beside("mount.scoutfs");
    symlink(env!("CARGO_BIN_EXE_scoutfs"), &helper).unwrap();
    let mounted = volume.mount_with(|image, directory| {
        // The order in which mount(8) calls a helper.
        let mut command = Command::new(&helper);
        command.arg(image).arg(directory).args(["-o", "rw,noatime,server_addr=127.0.0.1"]);
        command
    });
    assert_eq!(fs::read(mounted.join("file")).unwrap(), b"content");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let directory = mounted.path().to_str().unwrap();
    let line = mounts.lines().find(|line| line.contains(directory)).unwrap();
    assert!(line.contains("scoutfs") && line.contains("noatime"), "{line}");
    mounted.unmount();
}

#[test]
fn a_volume_can_be_mounted_elsewhere_right_after_its_umount() {
    let volume = Volume::new(64);
    for round in 0..5 {
        let mounted = volume.mount_on(&format!("mnt{round}"));
        for earlier in 0..round {
            assert_eq!(fs::read(mounted.join(format!("file{earlier}"))).unwrap(), [earlier; 5000]);
        }
        fs::write(mounted.join(format!("file{round}")), [round; 5000]).unwrap();
        let entries = walk("meta_seq", mounted.path());
        assert_eq!(entries.len(), usize::from(round) + 2);
        if round % 2 == 0 {
            mounted.unmount();
        } else {
            // Nothing but umount between the two mounts.
            run(program("umount", [mounted.path()]));
            assert!(!is_mount_point(mounted.path()));
        }
    }
    volume.check();
}

#[test]
fn a_read_only_mount_shows_everything_and_changes_nothing() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "content").unwrap();
    mounted.unmount();
    let mounted = volume.mount_options("ro,server_addr=127.0.0.1");
    assert_eq!(fs::read(mounted.join("file")).unwrap(), b"content");
    let error = fs::write(mounted.join("file"), "other").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert!(File::create(mounted.join("new")).is_err());
    assert!(fs::remove_file(mounted.join("file")).is_err());
    mounted.unmount();
}
