// SPDX-License-Identifier: GPL-2.0-only
//! Refusals: a message that names what and where, an exit status that is not 0, and nothing written.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use scoutfs_format::geometry::super_offset;
use scoutfs_format::voter::SuperBlock;

use crate::pattern::content;
use crate::run::{SOON, program, run, run_for, run_or_kill, run_refused, scoutfs};
use crate::volume::{Volume, is_mount_point, loop_devices_of};

/// Byte offset of the format hash in a super block.
const HASH_AT: u64 = 24;

fn mount_command(image: &Path, directory: &Path) -> std::process::Command {
    let mut command = scoutfs(["mount", "-o", "server_addr=127.0.0.1"]);
    command.arg(image).arg(directory);
    command
}

/// A mount is refused with a message that contains each of `words`, and nothing is left of it.
fn mount_is_refused(volume: &Volume, words: &[&str]) {
    let directory = volume.directory("mnt");
    let before = fs::read(volume.image()).unwrap();
    let message = run_refused(mount_command(&volume.image(), &directory));
    for word in words {
        assert!(message.contains(word), "'{word}' is not in: {message}");
    }
    assert!(message.contains(volume.image().to_str().unwrap()), "the device is not in: {message}");
    assert!(fs::read(volume.image()).unwrap() == before, "something was written");
    assert!(!is_mount_point(&directory));
    assert!(loop_devices_of(&volume.image()).is_empty());
}

/// Changes both copies of the super block.
fn damage_supers(volume: &Volume, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(volume.image()).unwrap();
    for copy in 0..2 {
        file.write_all_at(bytes, super_offset(0, copy) + at).unwrap();
    }
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    for (arguments, word) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["mkfs", "/dev/null"], "--quorum-count"),
        (&["mkfs", "-Q", "0", "/dev/null"], "0"),
        (&["mkfs", "-Q", "99", "/dev/null"], "99"),
        (&["mkfs", "-Q", "1"], "DEVICE"),
        (&["mount", "/dev/null"], "DIRECTORY"),
        (&["walk-inodes", "other_seq", "0", "-1", "/"], "other_seq"),
        (&["walk-inodes", "meta_seq", "x", "-1", "/"], "x"),
        (&["walk-inodes", "meta_seq", "0", "-2", "/"], "-2"),
        (&["stat", "--frob", "/"], "--frob"),
        (&["search-xattrs"], "NAME"),
        (&["list-hidden-xattrs"], "FILE"),
    ] {
        let message = run_refused(scoutfs(arguments));
        assert!(message.contains(word), "{arguments:?}: {message}");
    }
}

#[test]
fn missing_and_unfit_devices_are_refused_by_name() {
    let volume = Volume::blank(1);
    let directory = volume.directory("mnt");
    let missing = volume.beside("missing");
    for path in [missing.as_path(), Path::new("/dev/null"), directory.as_path()] {
        for command in [&["mkfs", "-Q", "1"][..], &["check"], &["print"]] {
            let message = run_refused(scoutfs(command).arg(path));
            assert!(message.contains(path.to_str().unwrap()), "{command:?}: {message}");
        }
        let message = run_refused(mount_command(path, &directory));
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
    assert!(!missing.exists());
    assert_eq!(run_for(scoutfs(["check"]).arg(&missing), SOON).status.code(), Some(2));
}

#[test]
fn a_device_that_is_too_small_is_refused_and_not_touched() {
    let volume = Volume::blank(0);
    let before = content(1, (64 << 20) - 4096);
    fs::write(volume.image(), &before).unwrap();
    let message = run_refused(scoutfs(["mkfs", "-Q", "1"]).arg(volume.image()));
    assert!(message.contains(volume.image().to_str().unwrap()), "{message}");
    assert!(
        message.contains("64 MiB") || message.contains("67108864"),
        "the smallest size is not in: {message}"
    );
    assert!(fs::read(volume.image()).unwrap() == before);
}

/// Invariant 67: nothing is left of a mount that was refused, no loop device either.
#[test]
fn what_is_no_volume_is_not_mounted() {
    for bytes in [vec![0; 64 << 20], content(7, 64 << 20)] {
        let volume = Volume::blank(0);
        fs::write(volume.image(), bytes).unwrap();
        mount_is_refused(&volume, &["scoutfs"]);
        let message = run_refused(scoutfs(["check"]).arg(volume.image()));
        assert!(message.contains("scoutfs"), "{message}");
    }
}

/// Invariant 68, where users meet it.
#[test]
fn a_volume_of_another_format_is_refused_with_both_hashes() {
    let volume = Volume::new(64);
    let other = 0x0123_4567_89ab_cdef_u64;
    damage_supers(&volume, HASH_AT, &other.to_le_bytes());
    let ours = format!("{:016x}", scoutfs_format::FORMAT_HASH);
    mount_is_refused(&volume, &["0123456789abcdef", &ours]);
    // All who look at a volume say the same.
    for command in ["check", "print"] {
        let ended = run_for(scoutfs([command]).arg(volume.image()), SOON);
        assert!(!ended.status.success());
        let message = ended.stderr + &ended.stdout;
        assert!(message.contains("0123456789abcdef") && message.contains(&ours), "{command}: {message}");
    }
}

#[test]
fn one_damaged_super_block_is_survived_and_two_are_refused() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "content").unwrap();
    mounted.unmount();
    // The older copy, as a torn write leaves it.
    let bytes = fs::read(volume.image()).unwrap();
    let key = |copy: u32| {
        use zerocopy::FromBytes;
        let sb = SuperBlock::read_from_prefix(&bytes[super_offset(0, copy) as usize..]).unwrap().0;
        (sb.term.get(), sb.seq.get())
    };
    let older = if key(0) <= key(1) { 0 } else { 1 };
    let file = OpenOptions::new().write(true).open(volume.image()).unwrap();
    file.write_all_at(&[0xa5; 512], super_offset(0, older) + 512).unwrap();
    let mounted = volume.mount();
    assert_eq!(fs::read(mounted.join("file")).unwrap(), b"content");
    mounted.unmount();

    damage_supers(&volume, 200, &[0xa5; 64]);
    mount_is_refused(&volume, &["super"]);
    let ended = run_for(scoutfs(["check"]).arg(volume.image()), SOON);
    assert_ne!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn a_mounted_volume_is_neither_overwritten_nor_checked() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "content").unwrap();
    mounted.sync();
    for arguments in [&["mkfs", "-Q", "1"][..], &["mkfs", "--force", "-Q", "1"]] {
        let message = run_refused(scoutfs(arguments).arg(volume.image()));
        assert!(
            message.contains(volume.image().to_str().unwrap()) && message.contains("in use"),
            "{message}"
        );
    }
    let ended = run_for(scoutfs(["check"]).arg(volume.image()), SOON);
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains("in use"), "{}", ended.stderr);
    fs::write(mounted.join("file2"), "more").unwrap();
    mounted.unmount();
    let mounted = volume.mount();
    assert_eq!(fs::read(mounted.join("file")).unwrap(), b"content");
    assert_eq!(fs::read(mounted.join("file2")).unwrap(), b"more");
    mounted.unmount();
}

#[test]
fn a_volume_whose_voter_slot_is_damaged_is_refused_with_the_reason() {
    let volume = Volume::new(64);
    let image = OpenOptions::new().write(true).open(volume.image()).unwrap();
    // Both quorum blocks of the first voter slot, which lies behind the first 64 KiB.
    image.write_all_at(&[0x5a; 2 * 4096], 64 << 10).unwrap();
    mount_is_refused(&volume, &["only 0 of 1 voter slots can be read"]);
}

/// A mount that waits for others says for whom, changes nothing, and can be given up.
#[test]
fn a_mount_waits_until_enough_voters_are_there_and_says_so() {
    let volume = Volume::with_quorum(64, 2);
    let before = fs::read(volume.image()).unwrap();
    let directory = volume.directory("mnt");
    for (options, present) in [("rw", 0), ("server_addr=127.0.0.1", 1)] {
        let mut command = scoutfs(["mount", "-f", "-o", options]);
        let (ended, by_itself) =
            run_or_kill(command.arg(volume.image()).arg(&directory), Duration::from_secs(6));
        assert!(!by_itself, "{ended:?}");
        let message = format!("no node leads yet, {present} of the 2 voters that are needed are there");
        assert!(ended.stderr.contains(&message), "{}", ended.stderr);
        assert!(!is_mount_point(&directory));
        if present == 0 {
            assert!(fs::read(volume.image()).unwrap() == before);
        }
    }
    volume.check();
}

/// Invariant 61, where users meet it.
#[test]
fn wrong_mount_options_and_places_are_refused_by_name() {
    let volume = Volume::new(64);
    let before = fs::read(volume.image()).unwrap();
    let directory = volume.directory("mnt");
    for option in ["frobnicate", "server_addr=nowhere", "server_addr", "commit_interval_ms=1"] {
        let message = run_refused(scoutfs(["mount", "-o", option]).arg(volume.image()).arg(&directory));
        assert!(message.contains(option), "{message}");
    }
    // An address that is not this host's: 192.0.2.0/24 is for documentation.
    let message =
        run_refused(scoutfs(["mount", "-o", "server_addr=192.0.2.1"]).arg(volume.image()).arg(&directory));
    assert!(message.contains("192.0.2.1"), "{message}");
    for place in [volume.beside("missing"), volume.image()] {
        let message = run_refused(mount_command(&volume.image(), &place));
        assert!(message.contains(place.to_str().unwrap()), "{message}");
    }
    assert!(fs::read(volume.image()).unwrap() == before);
    run(program("rmdir", [&directory]));
}

#[test]
fn commands_for_a_mount_say_when_there_is_none() {
    let volume = Volume::blank(1);
    let elsewhere = volume.directory("elsewhere");
    let missing = volume.beside("missing");
    for path in [&elsewhere, &missing] {
        let path_text = path.to_str().unwrap();
        for arguments in [
            &["walk-inodes", "meta_seq", "0", "-1", path_text][..],
            &["stat", path_text],
            &["statfs", "-p", path_text],
            &["list-hidden-xattrs", path_text],
            &["search-xattrs", "scoutfs.srch.a", "-p", path_text],
            &["df", "-p", path_text],
        ] {
            let message = run_refused(scoutfs(arguments));
            assert!(message.contains(path_text), "{arguments:?}: {message}");
        }
    }
}
