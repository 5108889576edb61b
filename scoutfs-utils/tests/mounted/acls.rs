// SPDX-License-Identifier: GPL-2.0-only
//! POSIX access control lists under setfacl, getfacl, cp and the kernel's own checks.
//!
//! What is right is what tmpfs does, whose lists are the kernel's own: the same commands, calls and users on both give the
//! same results. A machine without lists on tmpfs fails these tests.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags, chmodat, fchown, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid};

use crate::pattern::Random;
use crate::run::{SOON, open_at, program, run, run_for, run_refused, spawn};
use crate::user::User;
use crate::volume::{Volume, is_mount_point};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// A tmpfs that goes away.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn new(volume: &Volume) -> Self {
        let tmpfs = Tmpfs(volume.directory("tmpfs"));
        run(program("mount", ["-t", "tmpfs", "-o", "mode=755", "none"]).arg(&tmpfs.0));
        tmpfs
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if is_mount_point(&self.0) {
            let _ = spawn(program("umount", ["-l"]).arg(&self.0)).wait();
        }
    }
}

/// Runs a shell command in a directory: how it ended, and what it printed.
fn shell(directory: &Path, command: &str) -> (Option<i32>, String, String) {
    let mut shell = program("sh", ["-c", command]);
    let ended = run_for(shell.current_dir(directory).env("LC_ALL", "C"), SOON);
    (ended.status.code(), ended.stdout, ended.stderr)
}

/// All lists and modes below a directory.
fn lists(directory: &Path) -> String {
    let (code, text, errors) =
        shell(directory, "find . ! -type l | sort | getfacl -Pn - && find . -printf '%p %m %y\\n' | sort");
    assert_eq!((code, &errors[..]), (Some(0), ""));
    text
}

/// Bytes of a list of entries (tag, permissions, id).
fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        bytes.extend([&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    bytes
}

#[test]
fn setfacl_and_getfacl_show_what_is_written_into_textbooks() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let sh = |command: &str| {
        let (code, stdout, stderr) = shell(mounted.path(), command);
        assert_eq!((code, &stderr[..]), (Some(0), ""), "{command}");
        stdout
    };
    sh("touch file; chmod 640 file; setfacl -m u:4711:rw,g:4712:r file");
    let listed = sh("getfacl -n file");
    let expected = "# file: file\n# owner: 0\n# group: 0\nuser::rw-\nuser:4711:rw-\ngroup::r--\ngroup:4712:r--\nmask::rw-\nother::---\n\n";
    assert_eq!(listed, expected);
    assert_eq!(sh("stat -c %a file"), "660\n");
    sh("chmod g-w file");
    assert!(sh("getfacl -n file").contains("user:4711:rw-\t#effective:r--\n"));
    // ls shows that there is more.
    assert!(sh("ls -l file").starts_with("-rw-r-----+"));
    sh("setfacl -b file");
    assert!(sh("ls -l file").starts_with("-rw-r----- "));
    assert_eq!(sh("getfattr -m - file"), "");
    mounted.unmount();
}

/// Invariant 53: lists are inherited right whatever makes the file.
#[test]
fn commands_leave_the_same_lists_as_on_tmpfs() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let tmpfs = Tmpfs::new(&volume);
    let mut random = Random::new(7);
    let names = ["a", "b", "a/c", "a/d", "a/d/e", "b/f"];
    let specs = ["u:1:rwx", "u:2:r", "g:3:rw", "g:4:-", "m::rx", "m::-", "u::rw", "g::rx", "o::r", "o::-"];
    let modes = ["0", "777", "640", "2755", "4711", "1777", "070"];
    for round in 0..150 {
        let mut pick = |from: &[&'static str]| from[random.below(from.len() as u64) as usize];
        let (name, other, spec, mode) = (pick(&names), pick(&names), pick(&specs), pick(&modes));
        let command = match pick(&["mk", "mk", "set", "set", "default", "default", "change", "copy"]) {
            "mk" => {
                let umask = pick(&["0", "022", "077", "777"]);
                let make =
                    pick(&["mkdir", "touch", "mkfifo", "mkdir -m 751", "ln -s nowhere", "mknod -m 606"]);
                let end = if make.starts_with("mknod") { " c 1 3" } else { "" };
                format!("umask {umask}; {make} {name}{end}")
            }
            "set" => format!("setfacl -{} {spec} {name}", pick(&["m", "m", "m", "n -m", "P -m"])),
            "default" => format!("setfacl -d -m {spec} {name}"),
            "change" => match pick(&["chmod", "chmod", "x", "b", "k"]) {
                "chmod" => format!("chmod {mode} {name}"),
                "x" => format!("setfacl -x {} {name}", pick(&["u:1", "g:3", "m", "u:2"])),
                flag => format!("setfacl -{flag} {name}"),
            },
            _ => format!("{} {name} {other}", pick(&["cp -a", "cp -r", "mv", "mv", "ln"])),
        };
        let (ours, reference) = (shell(mounted.path(), &command), shell(&tmpfs.0, &command));
        assert_eq!(ours, reference, "round {round}: {command}");
        assert_eq!(lists(mounted.path()), lists(&tmpfs.0), "round {round}: {command}");
    }
    // There is something to be compared.
    let reference = lists(&tmpfs.0);
    assert!(reference.contains("default:mask") && reference.contains("\nuser:1:"), "{reference}");
    mounted.unmount();
    let mounted = volume.mount();
    assert_eq!(lists(mounted.path()), reference);
    mounted.unmount();
}

#[test]
fn temporary_files_and_hard_ways_to_make_files_inherit_too() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let tmpfs = Tmpfs::new(&volume);
    for root in [mounted.path(), &tmpfs.0] {
        run(program("setfacl", ["-d", "-m", "u:5:rwx,g::rx,o::-"]).arg(root));
        let dir = File::open(root).unwrap();
        let mode = Mode::from_raw_mode(0o666);
        let file = open_at(&dir, ".", OFlags::TMPFILE | OFlags::RDWR, mode).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        rustix::fs::linkat(rustix::fs::CWD, &*path, &dir, "named", AtFlags::SYMLINK_FOLLOW).unwrap();
        drop(open_at(&dir, "created", OFlags::CREATE | OFlags::EXCL | OFlags::RDWR, mode).unwrap());
        drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
    }
    assert_eq!(lists(mounted.path()), lists(&tmpfs.0));
    assert!(lists(mounted.path()).contains("# file: named\n# owner: 0\n# group: 0\nuser::rw-\nuser:5:rwx"));
    mounted.unmount();
}

#[test]
fn whom_a_list_permits_what_is_as_on_tmpfs() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let tmpfs = Tmpfs::new(&volume);
    let roots: Vec<File> = [mounted.path(), &tmpfs.0].iter().map(|root| File::open(root).unwrap()).collect();
    let users = [
        User::new(1, 10, &[]),
        User::new(2, 10, &[20]),
        User::new(3, 20, &[10]),
        User::new(4, 30, &[]),
        User::new(5, 30, &[20, 10]),
    ];
    let mut random = Random::new(11);
    for round in 0..60 {
        let mut perm = || random.below(8) as u16;
        let list = bytes(&[
            (1, perm(), !0),
            (2, perm(), 2),
            (2, perm(), 3),
            (4, perm(), !0),
            (8, perm(), 20),
            (16, perm(), !0),
            (32, perm(), !0),
        ]);
        for root in &roots {
            let name = format!("{round}");
            let file = open_at(root, &*name, OFlags::CREATE | OFlags::RDWR, Mode::empty()).unwrap();
            fchown(&file, Some(Uid::from_raw(1)), Some(Gid::from_raw(10))).unwrap();
            fsetxattr(&file, ACCESS, &list, XattrFlags::empty()).unwrap();
        }
        for user in &users {
            let asked = user.run(|| {
                let ask = |root: &File| -> Vec<Result<(), Errno>> {
                    let name = format!("{round}");
                    let opened = [OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR]
                        .map(|how| open_at(root, &*name, how, Mode::empty()).map(drop));
                    let may =
                        rustix::fs::accessat(root, &*name, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS);
                    opened.into_iter().chain([may]).collect()
                };
                [ask(&roots[0]), ask(&roots[1])]
            });
            assert_eq!(asked[0], asked[1], "round {round}, {user:?}, {list:?}");
        }
    }
    drop(roots);
    mounted.unmount();
}

/// Set-group-ID goes when who sets the mode or the list is not of the group; only owners set lists.
#[test]
fn set_group_id_and_ownership_count_as_on_tmpfs() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let tmpfs = Tmpfs::new(&volume);
    let (full, minimal) = (
        bytes(&[(1, 7, !0), (2, 7, 9), (4, 5, !0), (16, 7, !0), (32, 5, !0)]),
        bytes(&[(1, 7, !0), (4, 7, !0), (32, 7, !0)]),
    );
    type Change<'a> = (&'a str, Box<dyn Fn(&File) -> Result<(), Errno> + Sync + 'a>);
    let at_file = |root: &File| open_at(root, "file", OFlags::RDONLY, Mode::empty()).map(File::from);
    let changes: Vec<Change<'_>> = vec![
        ("full", Box::new(|r| fsetxattr(&at_file(r)?, ACCESS, &full, XattrFlags::empty()))),
        ("minimal", Box::new(|r| fsetxattr(&at_file(r)?, ACCESS, &minimal, XattrFlags::empty()))),
        ("chmod", Box::new(|r| chmodat(r, "file", Mode::from_raw_mode(0o2775), AtFlags::empty()))),
        ("default", Box::new(|r| fsetxattr(&at_file(r)?, DEFAULT, &full, XattrFlags::empty()))),
        ("no default", Box::new(|r| fremovexattr(&at_file(r)?, DEFAULT))),
        ("on dir", Box::new(|r| fsetxattr(r, DEFAULT, &full, XattrFlags::empty()))),
    ];
    let roots: Vec<File> = [mounted.path(), &tmpfs.0].iter().map(|root| File::open(root).unwrap()).collect();
    for user in [User::new(1, 10, &[]), User::new(1, 99, &[]), User::new(1, 99, &[10]), User::new(2, 10, &[])]
    {
        for (what, change) in &changes {
            let mut results = Vec::new();
            for root in &roots {
                let file = open_at(root, "file", OFlags::CREATE | OFlags::RDWR, Mode::empty()).unwrap();
                fsetxattr(&file, ACCESS, &full, XattrFlags::empty()).unwrap();
                fchown(&file, Some(Uid::from_raw(1)), Some(Gid::from_raw(10))).unwrap();
                chmodat(root, "file", Mode::from_raw_mode(0o2755), AtFlags::empty()).unwrap();
                let result = user.run(|| change(root));
                let file = File::from(file);
                let mut list = [0; 200];
                let len = fgetxattr(&file, ACCESS, &mut list[..]);
                results.push((result, file.metadata().unwrap().mode(), len, list));
                fs::remove_file(format!("/proc/self/fd/{}/file", std::os::fd::AsRawFd::as_raw_fd(root)))
                    .unwrap();
            }
            assert_eq!(results[0], results[1], "{what} by {user:?}");
        }
    }
    // Removing a list leaves the mode, as on ext4 and XFS, and other than on tmpfs.
    let path = mounted.join("file");
    let file = File::create(&path).unwrap();
    fsetxattr(&file, ACCESS, &full, XattrFlags::empty()).unwrap();
    fchown(&file, Some(Uid::from_raw(1)), Some(Gid::from_raw(10))).unwrap();
    chmodat(&roots[0], "file", Mode::from_raw_mode(0o2755), AtFlags::empty()).unwrap();
    User::new(1, 99, &[]).run(|| fremovexattr(&file, ACCESS)).unwrap();
    assert_eq!(file.metadata().unwrap().mode(), libc::S_IFREG | 0o2755);
    assert_eq!(User::new(2, 99, &[]).run(|| fremovexattr(&file, ACCESS)), Err(Errno::PERM));
    drop((changes, roots, file));
    mounted.unmount();
}

/// Invariant 53: that there is no list is not believed for longer than it is true.
#[test]
fn a_list_counts_from_the_moment_it_is_set() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let root = File::open(mounted.path()).unwrap();
    let path = mounted.join("file");
    fs::write(&path, "content").unwrap();
    run(program("chmod", ["640"]).arg(&path));
    let user = User::new(5, 5, &[]);
    let may_read = || {
        let opened = user.run(|| open_at(&root, "file", OFlags::RDONLY, Mode::empty()).map(drop));
        assert!(matches!(opened, Ok(()) | Err(Errno::ACCESS)));
        opened.is_ok()
    };
    assert!(!may_read());
    for (change, may) in [
        (["setfacl", "-m", "u:5:r"], true),
        (["setfacl", "-x", "u:5"], false),
        (["setfacl", "-m", "g:5:rw"], true),
        (["setfacl", "-m", "m::w"], false),
        (["chmod", "g+r", "-f"], true),
        (["setfacl", "-b", "-n"], false),
        (["chmod", "o+r", "-f"], true),
        (["setfacl", "-m", "u:5:-"], false),
    ] {
        run(program(change[0], &change[1..]).arg(&path));
        assert_eq!(may_read(), may, "{change:?}");
    }
    drop(root);
    mounted.unmount();
}

#[test]
fn what_is_no_list_is_refused_and_changes_nothing() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let file = File::create(mounted.join("file")).unwrap();
    let sound = bytes(&[(1, 6, !0), (2, 7, 9), (4, 4, !0), (16, 5, !0), (32, 4, !0)]);
    fsetxattr(&file, ACCESS, &sound, XattrFlags::empty()).unwrap();
    for (list, errno) in [
        (&sound[..sound.len() - 8], Errno::INVAL),
        (&sound[..sound.len() - 1], Errno::INVAL),
        (&[1, 0, 0, 0], Errno::OPNOTSUPP),
        (&bytes(&[(1, 9, !0), (4, 0, !0), (32, 0, !0)]), Errno::INVAL),
        (&bytes(&[(1, 7, !0), (2, 7, 9), (4, 7, !0), (32, 7, !0)]), Errno::INVAL),
    ] {
        assert_eq!(fsetxattr(&file, ACCESS, list, XattrFlags::empty()), Err(errno), "{list:?}");
    }
    assert_eq!(fsetxattr(&file, DEFAULT, &sound, XattrFlags::empty()), Err(Errno::ACCESS));
    // More than a page is more than FUSE carries; what just fits is kept.
    let long = |users: u32| {
        let mut entries = vec![(1, 7, !0)];
        entries.extend((0..users).map(|id| (2, 7, id)));
        entries.extend([(4, 7, !0), (16, 7, !0), (32, 7, !0)]);
        bytes(&entries)
    };
    assert_eq!(fsetxattr(&file, ACCESS, &long(508), XattrFlags::empty()), Err(Errno::TOOBIG));
    let mut list = [0; 5000];
    assert_eq!(fgetxattr(&file, ACCESS, &mut list[..]), Ok(sound.len()));
    assert_eq!(list[..sound.len()], sound);
    fsetxattr(&file, ACCESS, &long(507), XattrFlags::empty()).unwrap();
    drop(file);
    mounted.unmount();
    let mounted = volume.mount();
    let file = File::open(mounted.join("file")).unwrap();
    assert_eq!(fgetxattr(&file, ACCESS, &mut list[..]), Ok(4092));
    assert_eq!(list[..4092], long(507));
    User::new(300, 300, &[])
        .run(|| open_at(File::open(mounted.path()).unwrap(), "file", OFlags::RDWR, Mode::empty()).map(drop))
        .unwrap();
    drop(file);
    mounted.unmount();
}

#[test]
fn noacl_switches_lists_off_for_one_mount() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let sh = |root: &Path, command: &str| shell(root, command);
    sh(mounted.path(), "mkdir dir; setfacl -m u:5:rwx dir; setfacl -d -m u:5:rwx dir");
    let before = lists(mounted.path());
    mounted.unmount();

    let mounted = volume.mount_options("server_addr=127.0.0.1,noacl");
    let message =
        run_refused(program("setfacl", ["-m", "u:6:rwx"]).arg(mounted.join("dir")).env("LC_ALL", "C"));
    assert!(message.contains("Operation not supported"), "{message}");
    let (_, listed, _) = sh(mounted.path(), "getfacl -n dir");
    assert!(!listed.contains("user:5") && listed.contains("group::rwx"), "{listed}");
    let (_, made, _) =
        sh(mounted.path(), "umask 027; touch dir/file; mkdir dir/sub; stat -c %a dir/file dir/sub");
    assert_eq!(made, "640\n750\n");
    let (_, names, _) = sh(mounted.path(), "getfattr -m - dir");
    assert_eq!(names, "");
    // The kernel asks the mode alone: the user of the list is one of the others.
    let root = File::open(mounted.path()).unwrap();
    let opened = User::new(5, 5, &[])
        .run(|| open_at(&root, "dir/new", OFlags::CREATE | OFlags::RDWR, Mode::empty()).map(drop));
    assert_eq!(opened, Err(Errno::ACCESS));
    drop(root);
    sh(mounted.path(), "rm -r dir/file dir/sub");
    mounted.unmount();

    let mounted = volume.mount();
    assert_eq!(lists(mounted.path()), before);
    mounted.unmount();
}
