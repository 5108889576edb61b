// SPDX-License-Identifier: GPL-2.0-only
//! File handles: names that stay true when the file moves, and over a remount, and die with the file.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use crate::run::{program, run, wait_until};
use crate::volume::Volume;

/// A FUSE kernel tells the daemon of a close after close(2) has returned, and keeps the inode until it has an answer.
const SOON: Duration = Duration::from_secs(20);

/// `struct file_handle` with room for any handle.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

fn handle_of(path: &Path) -> Handle {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut handle = Handle { bytes: 128, kind: 0, handle: [0; 128] };
    let mut mount_id = 0i32;
    // SAFETY: name, handle and mount id outlive the call; the handle has the room that it says.
    let n = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            name.as_ptr(),
            std::ptr::from_mut(&mut handle),
            &mut mount_id,
            0,
        )
    };
    assert_eq!(n, 0, "{}: {}", path.display(), std::io::Error::last_os_error());
    handle
}

fn open_handle(mount: &File, handle: &Handle, flags: i32) -> Result<File, i32> {
    let mut handle = *handle;
    // SAFETY: the handle outlives the call; the descriptor that it gives is nobody else's.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            std::ptr::from_mut(&mut handle),
            flags | libc::O_CLOEXEC,
        );
        if fd < 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap());
        }
        Ok(File::from_raw_fd(fd as i32))
    }
}

fn content(mount: &File, handle: &Handle) -> Result<String, i32> {
    let mut text = String::new();
    open_handle(mount, handle, libc::O_RDONLY)?.read_to_string(&mut text).unwrap();
    Ok(text)
}

#[test]
fn handles_stay_true_over_renames_and_remounts() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::create_dir_all(mounted.join("a/b/c")).unwrap();
    fs::write(mounted.join("a/b/c/file"), "content").unwrap();
    symlink("target", mounted.join("a/symlink")).unwrap();
    run(program("mkfifo", [mounted.join("a/fifo")]));
    let names = ["a/b/c/file", "a/b", "a/b/c", "a/symlink", "a/fifo", ""];
    let handles: Vec<(Handle, u64)> = names
        .iter()
        .map(|name| (handle_of(&mounted.join(name)), fs::symlink_metadata(mounted.join(name)).unwrap().ino()))
        .collect();
    let check = |mount: &File| {
        for ((handle, ino), name) in handles.iter().zip(names) {
            let file = open_handle(mount, handle, libc::O_PATH).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(file.metadata().unwrap().ino(), *ino, "{name}");
        }
        assert_eq!(content(mount, &handles[0].0), Ok("content".into()));
    };
    check(&File::open(mounted.path()).unwrap());
    fs::rename(mounted.join("a/b/c/file"), mounted.join("moved")).unwrap();
    fs::rename(mounted.join("a/b"), mounted.join("b")).unwrap();
    check(&File::open(mounted.path()).unwrap());
    mounted.unmount();

    // Nothing is cached: each is looked up by its number alone, directories with their parents.
    let mounted = volume.mount();
    let root = File::open(mounted.path()).unwrap();
    check(&root);
    let dir = open_handle(&root, &handles[2].0, libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
    let path = fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).unwrap();
    assert_eq!(path, mounted.path().canonicalize().unwrap().join("b/c"));
    // The same handle is given again.
    assert_eq!(handle_of(&mounted.join("moved")), handles[0].0);
    drop((root, dir));
    mounted.unmount();
}

#[test]
fn invariant_43_a_handle_does_not_revive_a_removed_file() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    fs::write(mounted.join("file"), "content").unwrap();
    fs::write(mounted.join("held"), "content").unwrap();
    fs::create_dir(mounted.join("dir")).unwrap();
    let [file, held, dir] = ["file", "held", "dir"].map(|name| handle_of(&mounted.join(name)));
    let root = File::open(mounted.path()).unwrap();
    let opened = File::open(mounted.join("held")).unwrap();
    fs::remove_file(mounted.join("file")).unwrap();
    fs::remove_file(mounted.join("held")).unwrap();
    fs::remove_dir(mounted.join("dir")).unwrap();
    for (handle, flags) in [(file, libc::O_RDONLY), (dir, libc::O_RDONLY), (file, libc::O_PATH)] {
        wait_until("it is stale", SOON, || {
            open_handle(&root, &handle, flags).map(|_| ()) == Err(libc::ESTALE)
        });
    }
    // As long as somebody has it open it lives, and then no longer.
    assert_eq!(opened.metadata().unwrap().nlink(), 0);
    drop(opened);
    wait_until("it is stale after the last close", SOON, || content(&root, &held) == Err(libc::ESTALE));
    // Numbers that were never given out.
    let mut nobody = file;
    for at in 0..8 {
        nobody.handle[at] ^= 0x5a;
        assert_eq!(open_handle(&root, &nobody, libc::O_RDONLY).map(|_| ()), Err(libc::ESTALE), "{nobody:?}");
    }
    // New files get other handles.
    fs::write(mounted.join("file"), "other").unwrap();
    assert_ne!(handle_of(&mounted.join("file")), file);
    assert_eq!(open_handle(&root, &file, libc::O_RDONLY).map(|_| ()), Err(libc::ESTALE));
    drop(root);
    mounted.unmount();

    let mounted = volume.mount();
    let root = File::open(mounted.path()).unwrap();
    for handle in [file, held, dir] {
        assert_eq!(open_handle(&root, &handle, libc::O_RDONLY).map(|_| ()), Err(libc::ESTALE));
    }
    drop(root);
    mounted.unmount();
}

#[test]
fn a_handle_of_a_file_that_is_unlinked_at_a_crash_is_stale() {
    let volume = Volume::new(64);
    let mut mounted = volume.mount_child();
    fs::write(mounted.join("file"), "content").unwrap();
    let handle = handle_of(&mounted.join("file"));
    let opened = File::open(mounted.join("file")).unwrap();
    fs::remove_file(mounted.join("file")).unwrap();
    mounted.sync();
    mounted.kill_daemon();
    drop(opened);
    mounted.bury();
    let mounted = volume.mount();
    let root = File::open(mounted.path()).unwrap();
    assert_eq!(content(&root, &handle), Err(libc::ESTALE));
    drop(root);
    mounted.unmount();
}
