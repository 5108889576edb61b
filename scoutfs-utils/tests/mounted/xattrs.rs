// SPDX-License-Identifier: GPL-2.0-only
//! Attributes whose names have tags: who may change them, what shows them, what finds them. The ioctls are called by number,
//! with structures written down here from the interface's description, not with the project's own code.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, setxattr};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::pattern::Random;
use crate::run::{open_at, program, run, run_refused, scoutfs};
use crate::user::User;
use crate::volume::{Mounted, Volume};

/// `_IOWR(0xe8, 8, struct)` of 24 bytes.
const LISTXATTR_HIDDEN: u64 = 0xc018_e808;
/// `_IOW(0xe8, 9, struct)` of 56 bytes.
const SEARCH_XATTRS: u64 = 0x4038_e809;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ListxattrHidden {
    id_pos: u64,
    buf_ptr: u64,
    buf_bytes: u32,
    hash_pos: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SearchXattrs {
    next_ino: u64,
    last_ino: u64,
    name_ptr: u64,
    inodes_ptr: u64,
    output_flags: u64,
    nr_inodes: u64,
    name_bytes: u16,
    pad: [u8; 6],
}

fn ioctl<T>(file: &File, number: u64, argument: *mut T) -> Result<usize, Errno> {
    // SAFETY: hostile addresses are the point: the kernel and the daemon check them. Those that are meant to be written to
    // are valid for the lengths beside them.
    let n = unsafe { libc::ioctl(file.as_raw_fd(), number as _, argument) };
    if n < 0 { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()) } else { Ok(n as usize) }
}

fn list_hidden(file: &File, list: &mut ListxattrHidden) -> Result<usize, Errno> {
    ioctl(file, LISTXATTR_HIDDEN, list)
}

/// All hidden names, through a buffer of this length.
fn hidden(file: &File, room: usize) -> Vec<String> {
    let mut buffer = vec![0xeeu8; room + 8];
    let mut list =
        ListxattrHidden { buf_ptr: buffer.as_mut_ptr() as u64, buf_bytes: room as u32, ..Default::default() };
    let mut names = Vec::new();
    loop {
        let n = list_hidden(file, &mut list).unwrap();
        assert_eq!((list.buf_ptr, list.buf_bytes), (buffer.as_ptr() as u64, room as u32));
        assert!(buffer[room..] == [0xee; 8], "written past the end");
        if n == 0 {
            return names;
        }
        let text = std::str::from_utf8(&buffer[..n]).unwrap();
        names.extend(text.strip_suffix('\0').unwrap().split('\0').map(str::to_owned));
    }
}

/// Inodes that have an attribute, and whether that is all.
pub fn search(
    file: &File,
    name: &[u8],
    first: u64,
    last: u64,
    inodes: &mut [u64],
) -> Result<(usize, u64), Errno> {
    let mut search = SearchXattrs {
        next_ino: first,
        last_ino: last,
        name_ptr: name.as_ptr() as u64,
        inodes_ptr: inodes.as_mut_ptr() as u64,
        output_flags: 0xdead,
        nr_inodes: inodes.len() as u64,
        name_bytes: name.len() as u16,
        pad: [0; 6],
    };
    let n = ioctl(file, SEARCH_XATTRS, &mut search)?;
    Ok((n, search.output_flags))
}

fn set(file: &File, name: &str) -> Result<(), Errno> {
    fsetxattr(file, name, b"value", XattrFlags::empty())
}

/// The lines of a command's output as numbers.
fn numbers(text: &str) -> Vec<u64> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn names(mounted: &Mounted<'_>) -> File {
    File::open(mounted.path()).unwrap()
}

#[test]
fn tagged_names_are_kept_hidden_and_found_by_the_commands() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let mut inos = Vec::new();
    for i in 0..20 {
        let file = mounted.join(format!("file{i}"));
        fs::write(&file, "content").unwrap();
        for name in ["user.color", "scoutfs.hide.color", "scoutfs.srch.color", "scoutfs.hide.srch.color"] {
            run(program("setfattr", ["-n", name, "-v", "green"]).arg(&file));
        }
        if i % 2 == 0 {
            run(program("setfattr", ["-x", "scoutfs.hide.srch.color"]).arg(&file));
        } else {
            inos.push(fs::metadata(&file).unwrap().ino());
        }
    }
    let look = |mounted: &Mounted<'_>| {
        let file = mounted.join("file1");
        let listed = run(program("getfattr", ["-m", "-", "--absolute-names"]).arg(&file));
        assert!(listed.contains("scoutfs.srch.color") && !listed.contains("hide"), "{listed}");
        let value =
            run(program("getfattr", ["--only-values", "-n", "scoutfs.hide.color", "--absolute-names"])
                .arg(&file));
        assert_eq!(value, "green");
        let hidden = run(scoutfs(["list-hidden-xattrs"]).arg(&file));
        let hidden: BTreeSet<&str> = hidden.lines().collect();
        assert_eq!(hidden, ["scoutfs.hide.color", "scoutfs.hide.srch.color"].into());
        let json = run(scoutfs(["list-hidden-xattrs", "--json"]).arg(mounted.join("file0")));
        assert_eq!(json, "{\"name\":\"scoutfs.hide.color\"}\n");
        let found = run(scoutfs(["search-xattrs", "scoutfs.hide.srch.color", "-p"]).arg(mounted.path()));
        assert_eq!(numbers(&found), inos);
        let mut command = scoutfs(["search-xattrs", "--json", "scoutfs.hide.srch.color"]);
        let json = run(command.env("SCOUTFS_MOUNT_PATH", mounted.path()));
        assert_eq!(json.lines().next(), Some(&*format!("{{\"ino\":{}}}", inos[0])));
        assert_eq!(run(scoutfs(["search-xattrs", "scoutfs.srch.none"]).current_dir(mounted.path())), "");
    };
    look(&mounted);
    mounted.unmount();
    let mounted = volume.mount();
    look(&mounted);
    fs::remove_file(mounted.join("file3")).unwrap();
    let found = run(scoutfs(["search-xattrs", "scoutfs.hide.srch.color", "-p"]).arg(mounted.path()));
    assert_eq!(numbers(&found), [&inos[..1], &inos[2..]].concat());
    let message = run_refused(scoutfs(["search-xattrs", "user.color", "-p"]).arg(mounted.path()));
    assert!(message.contains("user.color") && message.contains("Invalid argument"), "{message}");
    // A copy with attributes takes what listxattr shows.
    run(program("cp", ["--preserve=xattr"]).arg(mounted.join("file5")).arg(mounted.join("copy")));
    let copied = run(scoutfs(["search-xattrs", "scoutfs.srch.color", "-p"]).arg(mounted.path()));
    assert!(numbers(&copied).contains(&fs::metadata(mounted.join("copy")).unwrap().ino()));
    mounted.unmount();
}

/// Invariant 8: a value that is replaced keeps its index entry; and what is not synced is found, too.
#[test]
fn a_search_sees_everything_before_it_and_a_replaced_value_stays_found() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let root = names(&mounted);
    let name = "scoutfs.srch.one";
    let file = File::create(mounted.join("file")).unwrap();
    let ino = file.metadata().unwrap().ino();
    let found = || {
        let mut inodes = [0; 8];
        let (n, flags) = search(&root, name.as_bytes(), 0, u64::MAX, &mut inodes).unwrap();
        assert_eq!(flags, 1);
        inodes[..n].to_vec()
    };
    assert_eq!(found(), Vec::<u64>::new());
    set(&file, name).unwrap();
    assert_eq!(found(), [ino]);
    for len in [60_000, 0, 5000] {
        fsetxattr(&file, name, &vec![7; len], XattrFlags::REPLACE).unwrap();
        assert_eq!(found(), [ino]);
    }
    fremovexattr(&file, name).unwrap();
    assert_eq!(found(), Vec::<u64>::new());
    set(&file, name).unwrap();
    fs::remove_file(mounted.join("file")).unwrap();
    drop(file);
    crate::run::wait_until("the deleted file is not found", crate::run::SOON, || found().is_empty());
    drop(root);
    mounted.unmount();
}

#[test]
fn tagged_names_need_cap_sys_admin_in_the_first_user_namespace() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = File::create(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(4711), Some(4711)).unwrap();
    let all = rustix::thread::capabilities(None).unwrap().effective;
    let users = [
        (User::new(0, 0, &[]).with(all), true),
        (User::new(0, 0, &[]).with(all - CapabilitySet::SYS_ADMIN), false),
        (User::new(4711, 4711, &[]), false),
        (User::new(4711, 4711, &[]).with(CapabilitySet::SYS_ADMIN), true),
    ];
    for (user, may) in &users {
        for name in ["scoutfs.hide.a", "scoutfs.srch.a", "scoutfs.srch.hide.a"] {
            let expected = if *may { Ok(()) } else { Err(Errno::PERM) };
            assert_eq!(user.run(|| set(&file, name)), expected, "{user:?} {name}");
            set(&file, name).unwrap();
            assert_eq!(user.run(|| fremovexattr(&file, name)), expected, "{user:?} {name}");
        }
        // Attributes without tags of the own file are the owner's.
        user.run(|| set(&file, "user.a")).unwrap();
        let mut inodes = [0; 4];
        let searched = user.run(|| search(&file, b"scoutfs.srch.a", 0, u64::MAX, &mut inodes));
        assert_eq!(searched.map(|_| ()), if *may { Ok(()) } else { Err(Errno::PERM) });
    }
    // Who has all capabilities in a user namespace of his own has none here.
    let path = mounted.join("of_root");
    File::create(&path).unwrap();
    run(program("setfattr", ["-n", "scoutfs.hide.b"]).arg(&path));
    for arguments in
        [&["-Ur", "setfattr", "-n", "scoutfs.hide.a"][..], &["-Ur", "setfattr", "-x", "scoutfs.hide.b"]]
    {
        let message = run_refused(program("unshare", arguments).arg(&path).env("LC_ALL", "C"));
        assert!(message.contains("Operation not permitted"), "{message}");
    }
    // In a pid namespace below that of the daemon the caller is known, by another number.
    run(program("unshare", ["--pid", "--fork", "setfattr", "-n", "scoutfs.hide.a"]).arg(&path));
    drop(file);
    mounted.unmount();
}

#[test]
fn wrong_tags_are_refused() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let file = File::create(mounted.join("file")).unwrap();
    for (name, errno) in [
        ("scoutfs.a", Errno::INVAL),
        ("scoutfs.hide.", Errno::INVAL),
        ("scoutfs.hide.srch.", Errno::INVAL),
        ("scoutfs.hide.hide.a", Errno::INVAL),
        ("scoutfs.totl.a.1.2.3", Errno::OPNOTSUPP),
        ("scoutfs.hide.indx.a.1.2", Errno::OPNOTSUPP),
        ("other.a", Errno::OPNOTSUPP),
    ] {
        assert_eq!(set(&file, name), Err(errno), "{name}");
        assert!(fremovexattr(&file, name).is_err(), "{name}");
    }
    assert_eq!(hidden(&file, 1000), Vec::<String>::new());
    let longest = format!("scoutfs.hide.srch.{}", "x".repeat(255 - 18));
    set(&file, &longest).unwrap();
    assert_eq!(hidden(&file, 256), [&*longest]);
    let mut inodes = [0; 2];
    assert_eq!(search(&file, longest.as_bytes(), 0, u64::MAX, &mut inodes), Ok((1, 1)));
    drop(file);
    mounted.unmount();
}

#[test]
fn names_and_values_of_trusted_attributes_are_for_the_privileged() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let file = File::create(mounted.join("file")).unwrap();
    std::os::unix::fs::chown(mounted.join("file"), Some(4711), Some(4711)).unwrap();
    for name in ["trusted.a", "user.b", "security.c"] {
        set(&file, name).unwrap();
    }
    let list = |user: &User| {
        user.run(|| {
            // SAFETY: without memory only the length is asked for.
            let wanted = unsafe { libc::flistxattr(file.as_raw_fd(), std::ptr::null_mut(), 0) } as usize;
            let mut list = [0u8; 100];
            let len = flistxattr(&file, &mut list[..]).unwrap();
            assert_eq!(wanted, len);
            let names = list[..len].split(|b| *b == 0).filter(|n| !n.is_empty());
            names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect::<BTreeSet<_>>()
        })
    };
    let owner = User::new(4711, 4711, &[]);
    assert_eq!(list(&owner), ["user.b".to_owned(), "security.c".to_owned()].into());
    assert_eq!(list(&owner.clone().with(CapabilitySet::SYS_ADMIN)).len(), 3);
    // What the kernel checks before it asks.
    let as_owner = owner.run(|| {
        let mut value = [0; 10];
        [
            fgetxattr(&file, "trusted.a", &mut value[..]).map(drop),
            set(&file, "trusted.a"),
            set(&file, "security.c"),
            set(&file, "user.b"),
            fgetxattr(&file, "security.c", &mut value[..]).map(drop),
        ]
    });
    assert_eq!(as_owner, [Err(Errno::NODATA), Err(Errno::PERM), Err(Errno::PERM), Ok(()), Ok(())]);
    let other = User::new(9, 9, &[]).run(|| [set(&file, "user.b"), set(&file, "scoutfs.hide.a")]);
    assert_eq!(other, [Err(Errno::ACCESS); 2]);
    drop(file);
    mounted.unmount();
}

#[test]
fn the_listing_ioctl_goes_on_from_its_position_in_any_buffer() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = File::create(&path).unwrap();
    let all: BTreeSet<String> =
        (0..300).map(|i: usize| format!("scoutfs.hide.{i:x<width$}", width = i % 100)).collect();
    for name in &all {
        set(&file, name).unwrap();
        set(&file, &name.replace("scoutfs.hide.", "user.")).unwrap();
    }
    // On descriptors of all kinds, the ioctl is about the inode.
    let descriptors = [File::open(&path).unwrap(), OpenOptions::new().write(true).open(&path).unwrap(), file];
    for file in &descriptors {
        for room in [256, 300, 4096, 70_000] {
            let listed = hidden(file, room);
            assert_eq!(listed.len(), all.len(), "{room}");
            assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), all);
        }
    }
    let [file, other, writer] = descriptors;
    drop((other, writer));
    // Names that come and go between two calls do not disturb the others.
    let mut buffer = [0u8; 600];
    let mut list =
        ListxattrHidden { buf_ptr: buffer.as_mut_ptr() as u64, buf_bytes: 600, ..Default::default() };
    let n = list_hidden(&file, &mut list).unwrap();
    let first: BTreeSet<String> =
        buffer[..n - 1].split(|b| *b == 0).map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
    for name in &first {
        fremovexattr(&file, name).unwrap();
        set(&file, &format!("{name}.more")).unwrap();
    }
    let mut rest = Vec::new();
    while let n @ 1.. = list_hidden(&file, &mut list).unwrap() {
        rest.extend(buffer[..n - 1].split(|b| *b == 0).map(|name| String::from_utf8(name.to_vec()).unwrap()));
    }
    let stayed: BTreeSet<String> = rest.iter().filter(|name| !name.ends_with(".more")).cloned().collect();
    assert_eq!(stayed, &all - &first);
    assert_eq!(rest.iter().collect::<BTreeSet<_>>().len(), rest.len(), "told twice");
    drop(file);
    mounted.unmount();
}

#[test]
fn hostile_listing_arguments_are_errors() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = File::create(&path).unwrap();
    set(&file, "scoutfs.hide.name").unwrap();
    let mut buffer = [0u8; 100];
    let good = ListxattrHidden { buf_ptr: buffer.as_mut_ptr() as u64, buf_bytes: 100, ..Default::default() };
    let call = |list: ListxattrHidden| {
        let mut after = list;
        (list_hidden(&file, &mut after), after)
    };
    assert_eq!(call(good).0, Ok(18));
    // No address of the structure, of the names, and one that is not to be written to.
    assert_eq!(ioctl(&file, LISTXATTR_HIDDEN, std::ptr::null_mut::<ListxattrHidden>()), Err(Errno::FAULT));
    assert_eq!(
        ioctl(&file, LISTXATTR_HIDDEN, std::ptr::without_provenance_mut::<ListxattrHidden>(8)),
        Err(Errno::FAULT)
    );
    for address in [0, 8, u64::MAX, u64::MAX - 10, 1 << 63, b"text".as_ptr() as u64] {
        let bad = ListxattrHidden { buf_ptr: address, ..good };
        assert_eq!(call(bad), (Err(Errno::FAULT), bad), "{address:#x}");
    }
    // No room: nothing, and the position stays.
    for bytes in [0, 1, 17] {
        let short = ListxattrHidden { buf_bytes: bytes, ..good };
        assert_eq!(call(short), (Ok(0), short));
    }
    // A length that is more than there is memory for: only what is written counts.
    assert_eq!(call(ListxattrHidden { buf_bytes: u32::MAX, ..good }).0, Ok(18));
    // Any position is one.
    for (hash_pos, id_pos) in [(u32::MAX, u64::MAX), (u32::MAX, 0), (0, u64::MAX), (1 << 31, 1 << 63)] {
        let (result, _) = call(ListxattrHidden { hash_pos, id_pos, ..good });
        assert!(matches!(result, Ok(0 | 18)), "{result:?}");
    }
    let mut random = Random::new(3);
    for _ in 0..200 {
        let (hash_pos, id_pos) = (random.next() as u32, random.next());
        call(ListxattrHidden { hash_pos, id_pos, ..good }).0.unwrap();
    }
    // Other directions and sizes of the same number are other ioctls.
    for number in [0x4018_e808, 0x8018_e808, 0xc010_e808, 0xe808, 0xc020_e808] {
        let mut list = [0u8; 64];
        assert_eq!(ioctl(&file, number, list.as_mut_ptr()), Err(Errno::NOTTY), "{number:#x}");
    }
    // O_PATH descriptors take no ioctls.
    let by_path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
    assert_eq!(list_hidden(&by_path, &mut good.clone()), Err(Errno::BADF));
    // Who may not read the file may not read its names, whatever its descriptor was opened for.
    for (mode, list, may) in
        [("600", "u:9:rw", true), ("600", "u:9:w", false), ("602", "", false), ("606", "", true)]
    {
        run(program("setfacl", ["-b"]).arg(&path));
        run(program("chmod", [mode]).arg(&path));
        if !list.is_empty() {
            run(program("setfacl", ["-m", list]).arg(&path));
        }
        let root = names(&mounted);
        let listed = User::new(9, 9, &[]).run(|| {
            let opened = open_at(&root, "file", rustix::fs::OFlags::WRONLY, rustix::fs::Mode::empty());
            list_hidden(&File::from(opened.unwrap()), &mut good.clone())
        });
        assert_eq!(listed, if may { Ok(18) } else { Err(Errno::ACCESS) }, "{mode} {list}");
    }
    // On directories and the root as well.
    let root = names(&mounted);
    set(&root, "scoutfs.hide.root").unwrap();
    assert_eq!(hidden(&root, 300), ["scoutfs.hide.root"]);
    assert_eq!(buffer[..18], *b"scoutfs.hide.name\0");
    drop((root, by_path, file));
    mounted.unmount();
}

#[test]
fn the_search_ioctl_goes_on_and_says_when_it_is_at_the_end() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let name = b"scoutfs.srch.many";
    let mut inos: Vec<u64> = (0..500)
        .map(|i| {
            let path = mounted.join(format!("{i}"));
            File::create(&path).unwrap();
            setxattr(&path, "scoutfs.srch.many", b"", XattrFlags::empty()).unwrap();
            fs::metadata(&path).unwrap().ino()
        })
        .collect();
    inos.sort_unstable();
    let root = names(&mounted);
    for room in [1, 7, 499, 500, 501, 20_000] {
        let (mut found, mut next) = (Vec::new(), 0);
        loop {
            let mut inodes = vec![u64::MAX; room + 1];
            let (n, flags) = search(&root, name, next, u64::MAX, &mut inodes[..room]).unwrap();
            assert_eq!(inodes[n], u64::MAX, "more was written than told");
            found.extend_from_slice(&inodes[..n]);
            if flags == 1 {
                break;
            }
            assert_eq!((flags, n), (0, room));
            next = found.last().unwrap() + 1;
        }
        assert_eq!(found, inos, "{room}");
    }
    // Ranges are inclusive.
    let mut inodes = [0; 10];
    assert_eq!(search(&root, name, inos[3], inos[5], &mut inodes), Ok((3, 1)));
    assert_eq!(inodes[..3], inos[3..6]);
    assert_eq!(search(&root, name, inos[3], inos[3], &mut inodes[..1]), Ok((1, 1)));
    assert_eq!(search(&root, name, inos[499] + 1, u64::MAX, &mut inodes), Ok((0, 1)));
    drop(root);
    mounted.unmount();
}

#[test]
fn hostile_search_arguments_are_errors() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = File::create(&path).unwrap();
    set(&file, "scoutfs.srch.a").unwrap();
    let ino = file.metadata().unwrap().ino();
    let name = [&b"scoutfs.srch.a"[..], &[b'x'; 300]].concat();
    let mut inodes = [0u64; 4];
    let good = SearchXattrs {
        last_ino: u64::MAX,
        name_ptr: name.as_ptr() as u64,
        inodes_ptr: inodes.as_mut_ptr() as u64,
        nr_inodes: 4,
        name_bytes: 14,
        ..Default::default()
    };
    let call = |search: SearchXattrs| {
        let mut after = search;
        (ioctl(&file, SEARCH_XATTRS, &mut after), after)
    };
    assert_eq!(call(good), (Ok(1), SearchXattrs { output_flags: 1, ..good }));
    assert_eq!(ioctl(&file, SEARCH_XATTRS, std::ptr::null_mut::<SearchXattrs>()), Err(Errno::FAULT));
    for address in [0, 8, u64::MAX, u64::MAX - 3, 1 << 63] {
        assert_eq!(call(SearchXattrs { name_ptr: address, ..good }).0, Err(Errno::FAULT), "{address:#x}");
        assert_eq!(call(SearchXattrs { inodes_ptr: address, ..good }).0, Err(Errno::FAULT), "{address:#x}");
    }
    // Names that are too long, have no tag, or are none.
    for name_bytes in [0, 1, 13, 256, u16::MAX] {
        assert_eq!(call(SearchXattrs { name_bytes, ..good }).0, Err(Errno::INVAL), "{name_bytes}");
    }
    assert_eq!(call(SearchXattrs { name_bytes: 255, ..good }).0, Ok(0));
    for other in ["user.a", "scoutfs.hide.a", "scoutfs.srch.srch.a", "scoutfs.totl.srch.a"] {
        let mut inodes = [0; 1];
        assert_eq!(search(&file, other.as_bytes(), 0, u64::MAX, &mut inodes), Err(Errno::INVAL), "{other}");
    }
    // Nothing is wanted: nothing is done, not even with bad addresses; flags stay as they are.
    for nothing in [
        SearchXattrs { nr_inodes: 0, ..good },
        SearchXattrs { next_ino: 2, last_ino: 1, ..good },
        SearchXattrs { nr_inodes: 0, name_ptr: 8, inodes_ptr: 8, output_flags: 77, ..good },
    ] {
        assert_eq!(call(nothing), (Ok(0), nothing));
    }
    // A length of the array that cannot be is only as long as what is found.
    inodes[0] = 0;
    assert_eq!(call(SearchXattrs { nr_inodes: u64::MAX, ..good }).0, Ok(1));
    assert_eq!(inodes[0], ino);
    // Unknown padding and flags say nothing.
    assert_eq!(call(SearchXattrs { pad: [0xff; 6], output_flags: u64::MAX, ..good }).1.output_flags, 1);
    for number in [0x8038_e809, 0xc038_e809, 0x4030_e809, 0xe809] {
        let mut bytes = [0u8; 64];
        assert_eq!(ioctl(&file, number, bytes.as_mut_ptr()), Err(Errno::NOTTY), "{number:#x}");
    }
    drop(file);
    mounted.unmount();
}

/// Kills the daemon while attributes come and go: the index and the attributes agree then, as `check` and searches show.
#[test]
fn a_killed_daemon_leaves_the_index_true() {
    let volume = Volume::new(64);
    let names: Vec<String> = (0..5).map(|i| format!("scoutfs.srch.{i}")).collect();
    let mut random = Random::new(5);
    for round in 0..4 {
        let mut mounted = volume.mount_child();
        for _ in 0..300 {
            let path = mounted.join(format!("{}", random.below(20)));
            let name = &names[random.below(5) as usize];
            let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
            match random.below(8) {
                0 => fs::remove_file(&path).unwrap(),
                1 => drop(fremovexattr(&file, name)),
                2 if random.below(8) == 0 => mounted.sync(),
                _ => {
                    let value = vec![7; random.below(9000) as usize];
                    fsetxattr(&file, name, &value, XattrFlags::empty()).unwrap();
                }
            }
        }
        if round % 2 == 0 {
            mounted.sync();
        }
        mounted.kill_daemon();
        mounted.bury();
        let mounted = volume.mount();
        for name in &names {
            let with = |path: &Path| rustix::fs::getxattr(path, name, &mut [0u8; 0][..]).is_ok();
            let expected: BTreeSet<u64> = fs::read_dir(mounted.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| with(path))
                .map(|path| fs::metadata(path).unwrap().ino())
                .collect();
            let found = run(scoutfs(["search-xattrs", name, "-p"]).arg(mounted.path()));
            assert_eq!(
                numbers(&found).into_iter().collect::<BTreeSet<_>>(),
                expected,
                "round {round}, {name}"
            );
        }
        mounted.unmount();
    }
}
