// SPDX-License-Identifier: GPL-2.0-only
//! Several nodes on one volume, each a daemon of its own: what one does the others see at once, as on one machine.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{
    Access, AtFlags, CWD, Mode, OFlags, RenameFlags, XattrFlags, accessat, fallocate, renameat_with, setxattr,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::pattern::{Random, content};
use crate::quick_start::parse;
use crate::run::{SOON, open_at, program, run, scoutfs, wait_until};
use crate::user::ask_as;
use crate::volume::{Mounted, Volume, by_kernel};

const SERVER: &str = "server_addr=127.0.0.1";

/// Nodes of a volume with one voter.
pub fn nodes(volume: &Volume, count: usize) -> Vec<Mounted<'_>> {
    (0..count).map(|n| volume.mount_node(&format!("node{n}"), if n == 0 { SERVER } else { "rw" })).collect()
}

/// All leave, the server last, and the volume is sound.
pub fn leave(volume: &Volume, nodes: Vec<Mounted<'_>>) {
    nodes.into_iter().rev().for_each(Mounted::leave);
    assert!(volume.is_clean());
    volume.check();
}

/// All that can be seen of a tree: by path the attributes, attribute lists and contents.
fn seen(root: &Path) -> BTreeMap<OsString, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let m = fs::symlink_metadata(&path).unwrap();
        let mut what = format!(
            "ino {} mode {:o} links {} {}:{} size {} blocks {} mtime {}.{} ctime {}.{} dev {}",
            m.ino(),
            m.mode(),
            m.nlink(),
            m.uid(),
            m.gid(),
            m.size(),
            m.blocks(),
            m.mtime(),
            m.mtime_nsec(),
            m.ctime(),
            m.ctime_nsec(),
            m.rdev()
        );
        if m.is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                todo.push(entry.unwrap().path());
            }
        } else if m.is_symlink() {
            what += &format!(" to {:?}", fs::read_link(&path).unwrap());
        } else if m.is_file() {
            what += &format!(" content {:?}", fs::read(&path).unwrap());
        }
        let mut names = [0; 4096];
        let len = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
        for name in names[..len].split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let mut value = [0; 4096];
            let len = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
            what += &format!(" {}={:?}", String::from_utf8_lossy(name), &value[..len]);
        }
        all.insert(path.strip_prefix(root).unwrap().into(), what);
    }
    all
}

/// One thing that a program does, in the root of a mount.
type Deed = (&'static str, fn(&Path));

const DEEDS: &[Deed] = &[
    ("create", |m| drop(File::create(m.join("file")).unwrap())),
    ("write", |m| fs::write(m.join("file"), content(1, 10_000)).unwrap()),
    ("overwrite in place", |m| {
        OpenOptions::new().write(true).open(m.join("file")).unwrap().write_all_at(b"changed", 5000).unwrap();
    }),
    ("append", |m| {
        OpenOptions::new().append(true).open(m.join("file")).unwrap().write_all(b"the end").unwrap();
    }),
    ("write far behind the end", |m| {
        OpenOptions::new().write(true).open(m.join("file")).unwrap().write_all_at(b"far", 1 << 20).unwrap();
    }),
    ("punch a hole", |m| {
        let file = OpenOptions::new().write(true).open(m.join("file")).unwrap();
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        fallocate(&file, flags, 4096, 4096).unwrap();
    }),
    ("allocate", |m| {
        let file = OpenOptions::new().write(true).open(m.join("file")).unwrap();
        fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 2 << 20).unwrap();
    }),
    ("truncate", |m| {
        OpenOptions::new().write(true).open(m.join("file")).unwrap().set_len(5003).unwrap();
    }),
    ("write through a mapping", |m| {
        let file = OpenOptions::new().read(true).write(true).open(m.join("file")).unwrap();
        // SAFETY: a new mapping of 4096 bytes, unmapped here; the file has as many.
        unsafe {
            let flags = ProtFlags::READ | ProtFlags::WRITE;
            let map = mmap(std::ptr::null_mut(), 4096, flags, MapFlags::SHARED, &file, 0).unwrap();
            map.cast::<u8>().add(100).copy_from_nonoverlapping(b"mapped".as_ptr(), 6);
            munmap(map, 4096).unwrap();
        }
    }),
    ("chmod", |m| fs::set_permissions(m.join("file"), Permissions::from_mode(0o640)).unwrap()),
    ("chown", |m| chown(m.join("file"), Some(12), Some(34)).unwrap()),
    ("utimes", |m| {
        let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::new(1_000_000_000, 17));
        OpenOptions::new().write(true).open(m.join("file")).unwrap().set_times(times).unwrap();
    }),
    ("set an attribute", |m| setxattr(m.join("file"), "user.a", b"one", XattrFlags::empty()).unwrap()),
    ("replace an attribute", |m| setxattr(m.join("file"), "user.a", b"two", XattrFlags::REPLACE).unwrap()),
    ("set an access list", |m| {
        run(program("setfacl", ["-m", "u:77:rw"]).arg(m.join("file")));
    }),
    ("make a directory", |m| fs::create_dir(m.join("dir")).unwrap()),
    ("give the directory a default list", |m| {
        run(program("setfacl", ["-d", "-m", "g:88:rx"]).arg(m.join("dir")));
    }),
    ("create in the directory", |m| fs::write(m.join("dir/inner"), b"inner").unwrap()),
    ("link", |m| fs::hard_link(m.join("file"), m.join("dir/link")).unwrap()),
    ("symlink", |m| symlink("../file", m.join("dir/soft")).unwrap()),
    ("make a pipe", |m| {
        rustix::fs::mknodat(CWD, m.join("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    }),
    ("make a device", |m| {
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(CWD, m.join("null"), rustix::fs::FileType::CharacterDevice, Mode::RUSR, device)
            .unwrap();
    }),
    ("rename", |m| fs::rename(m.join("file"), m.join("dir/moved")).unwrap()),
    ("rename over another", |m| fs::rename(m.join("dir/inner"), m.join("dir/moved")).unwrap()),
    ("rename the directory", |m| fs::rename(m.join("dir"), m.join("other")).unwrap()),
    ("exchange", |m| {
        let (a, b) = (m.join("other/moved"), m.join("pipe"));
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
    }),
    ("make a directory of the old name", |m| fs::create_dir(m.join("dir")).unwrap()),
    ("move the link there", |m| fs::rename(m.join("other/link"), m.join("dir/link")).unwrap()),
    ("remove an attribute", |m| rustix::fs::removexattr(m.join("dir/link"), "user.a").unwrap()),
    ("unlink", |m| fs::remove_file(m.join("dir/link")).unwrap()),
    ("remove the directory", |m| fs::remove_dir(m.join("dir")).unwrap()),
    ("remove the rest", |m| fs::remove_dir_all(m.join("other")).unwrap()),
];

/// Each operation, by each of three nodes in turn, with all of the tree looked at on each node before and after.
#[test]
fn each_operation_on_one_node_is_seen_on_all_others() {
    let volume = Volume::new(256);
    let nodes = nodes(&volume, 3);
    for first in 0..nodes.len() {
        for (n, (what, deed)) in DEEDS.iter().enumerate() {
            let before: Vec<_> = nodes.iter().map(|node| seen(node.path())).collect();
            deed(nodes[(first + n) % nodes.len()].path());
            for (node, before) in nodes.iter().zip(before) {
                let after = seen(node.path());
                assert_ne!(after, before, "{what}: not seen at {}", node.path().display());
                assert_eq!(
                    after,
                    seen(nodes[0].path()),
                    "{what}: seen otherwise at {}",
                    node.path().display()
                );
            }
        }
        fs::remove_file(nodes[first].join("pipe")).unwrap();
        fs::remove_file(nodes[first].join("null")).unwrap();
    }
    leave(&volume, nodes);
}

/// Takes turns: who has the number of its turn goes.
struct Turns {
    next: Mutex<usize>,
    changed: Condvar,
}

impl Turns {
    fn wait(&self, turn: usize) {
        let next = self.next.lock().unwrap();
        drop(self.changed.wait_while(next, |next| *next != turn).unwrap());
    }

    fn done(&self) {
        *self.next.lock().unwrap() += 1;
        self.changed.notify_all();
    }
}

/// Many at once find that the attributes that their kernel keeps are old, one of them reads them again, and none goes on with the old ones.
#[test]
fn a_mode_set_on_one_node_counts_for_all_who_ask_on_another() {
    const ASKING: usize = 4;
    let volume = Volume::new(128);
    let nodes = nodes(&volume, 2);
    let dir = |node: usize| nodes[node].join("dir");
    fs::create_dir(dir(0)).unwrap();
    fs::write(dir(0).join("file"), "x").unwrap();
    let (begin, end) = (Barrier::new(ASKING + 1), Barrier::new(ASKING + 1));
    let wrong = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..ASKING {
            scope.spawn(|| {
                ask_as(4711);
                // By an open directory, whose name nobody has to look up.
                let open = File::open(dir(1)).unwrap();
                for round in 0..100 {
                    begin.wait();
                    let may = accessat(&open, "file", Access::EXISTS, AtFlags::empty()).is_ok();
                    wrong.fetch_add(usize::from(may != (round % 2 == 1)), SeqCst);
                    end.wait();
                }
            });
        }
        for round in 0..100 {
            let mode = if round % 2 == 1 { 0o755 } else { 0o700 };
            fs::set_permissions(dir(0), Permissions::from_mode(mode)).unwrap();
            begin.wait();
            end.wait();
        }
    });
    assert_eq!(wrong.load(SeqCst), 0, "answers by an old mode");
    leave(&volume, nodes);
}

/// A byte goes back and forth, through reads and writes, and nobody ever sees an old one.
#[test]
fn a_byte_that_goes_back_and_forth_is_never_an_old_one() {
    back_and_forth(false);
}

/// The same through mappings, too.
#[test]
fn a_mapped_byte_that_goes_back_and_forth_is_never_an_old_one() {
    back_and_forth(true);
}

fn back_and_forth(through_mappings: bool) {
    let volume = Volume::new(128);
    let nodes = nodes(&volume, 3);
    fs::write(nodes[0].join("ball"), [0; 8192]).unwrap();
    let turns = Turns { next: Mutex::new(0), changed: Condvar::new() };
    let count = nodes.len();
    thread::scope(|scope| {
        for (player, node) in nodes.iter().enumerate() {
            let turns = &turns;
            scope.spawn(move || {
                let file = OpenOptions::new().read(true).write(true).open(node.join("ball")).unwrap();
                let reader = File::open(node.join("ball")).unwrap();
                let flags = ProtFlags::READ | ProtFlags::WRITE;
                // SAFETY: a new mapping of 4096 bytes of a file of 8192, unmapped below.
                let map = unsafe {
                    mmap(std::ptr::null_mut(), 4096, flags, MapFlags::SHARED, &file, 4096).unwrap()
                };
                let mapped = map.cast::<u8>();
                for turn in (player..150).step_by(count) {
                    turns.wait(turn);
                    let mut byte = [0; 1];
                    reader.read_exact_at(&mut byte, 7).unwrap();
                    assert_eq!(usize::from(byte[0]), turn, "read");
                    if through_mappings {
                        // SAFETY: in the mapping.
                        assert_eq!(usize::from(unsafe { mapped.add(9).read_volatile() }), turn, "mapped");
                    }
                    let next = turn as u8 + 1;
                    file.write_all_at(&[next], 7).unwrap();
                    if through_mappings {
                        // SAFETY: in the mapping.
                        unsafe { mapped.add(9).write_volatile(next) };
                    }
                    turns.done();
                }
                // SAFETY: mapped above.
                unsafe { munmap(map, 4096).unwrap() };
            });
        }
    });
    leave(&volume, nodes);
}

/// Reads, writes, truncations, holes and mapped writes of one file, each on another node, against the same bytes in memory.
#[test]
fn one_file_changed_through_three_nodes_has_the_right_bytes_always() {
    const MAX: u64 = 300_000;
    let volume = Volume::new(256);
    let nodes = nodes(&volume, 3);
    let path = |node: &Mounted<'_>| node.join("file");
    File::create(path(&nodes[0])).unwrap();
    let files: Vec<File> = nodes
        .iter()
        .map(|node| OpenOptions::new().read(true).write(true).open(path(node)).unwrap())
        .collect();
    let mut model: Vec<u8> = Vec::new();
    let mut random = Random::new(7);
    for step in 0..800 {
        let node = random.below(3) as usize;
        let file = &files[node];
        let offset = random.below(MAX);
        let longest = if random.below(3) == 0 { 60_000 } else { 5000 };
        let len = 1 + random.below(longest);
        let what = random.below(10);
        match what {
            0..4 => {
                let bytes = content(step, len as usize);
                file.write_all_at(&bytes, offset).unwrap();
                let end = (offset + len) as usize;
                model.resize(model.len().max(end), 0);
                model[offset as usize..end].copy_from_slice(&bytes);
            }
            4 => {
                file.set_len(offset).unwrap();
                model.resize(offset as usize, 0);
            }
            5 => {
                let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
                fallocate(file, flags, offset, len).unwrap();
                let end = ((offset + len) as usize).min(model.len());
                model[(offset as usize).min(end)..end].fill(0);
            }
            6 => {
                let bytes = content(step, len as usize);
                let mut appender = OpenOptions::new().append(true).open(path(&nodes[node])).unwrap();
                appender.write_all(&bytes).unwrap();
                model.extend_from_slice(&bytes);
                if model.len() as u64 > 2 * MAX {
                    file.set_len(0).unwrap();
                    model.clear();
                }
            }
            7 if !model.is_empty() => {
                let flags = ProtFlags::READ | ProtFlags::WRITE;
                // The kernel learns by a stat, not by a fault, that another node made the file longer.
                let len = file.metadata().unwrap().len() as usize;
                assert_eq!(len, model.len(), "step {step}: size at node {node}");
                // SAFETY: a new mapping of the file's whole length, used within it and unmapped here. No other node shortens the
                // file meanwhile.
                unsafe {
                    let map = mmap(std::ptr::null_mut(), len, flags, MapFlags::SHARED, file, 0).unwrap();
                    let bytes = std::slice::from_raw_parts_mut(map.cast::<u8>(), len);
                    assert!(bytes == &model[..], "step {step}: mapped at node {node}");
                    let at = (offset as usize).min(len - 1);
                    bytes[at] = step as u8;
                    munmap(map, len).unwrap();
                    model[at] = step as u8;
                }
            }
            _ => {}
        }
        let reader = random.below(3) as usize;
        let mut bytes = vec![0; model.len() + 1];
        let size = files[reader].metadata().unwrap().len();
        assert_eq!(size, model.len() as u64, "step {step} ({what}): size at node {reader}");
        let read = read_all(&files[reader], &mut bytes);
        if bytes[..read] != model[..] {
            let at = bytes[..read].iter().zip(&model).position(|(a, b)| a != b);
            panic!(
                "step {step} ({what} at {node}): node {reader} reads {read} of {}, first wrong {at:?}",
                model.len()
            );
        }
    }
    drop(files);
    leave(&volume, nodes);
}

fn read_all(file: &File, bytes: &mut [u8]) -> usize {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], read as u64).unwrap() {
            0 => break,
            more => read += more,
        }
    }
    read
}

/// What several nodes append at the same time is all there, each piece whole and each node's in its order.
#[test]
fn appends_of_all_nodes_are_whole_and_in_order() {
    const EACH: usize = 150;
    let volume = Volume::new(128);
    let nodes = nodes(&volume, 3);
    let start = Barrier::new(nodes.len());
    thread::scope(|scope| {
        for (n, node) in nodes.iter().enumerate() {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let mut file = OpenOptions::new().append(true).create(true).open(node.join("log")).unwrap();
                for line in 0..EACH {
                    let text = format!("{n} {line} {}\n", "x".repeat(line * 7 % 300));
                    file.write_all(text.as_bytes()).unwrap();
                }
            });
        }
    });
    for node in &nodes {
        let mut text = String::new();
        File::open(node.join("log")).unwrap().read_to_string(&mut text).unwrap();
        let mut next = vec![0; nodes.len()];
        for line in text.lines() {
            let mut words = line.split(' ');
            let mut number = || words.next().unwrap().parse::<usize>().unwrap();
            let (n, line) = (number(), number());
            assert_eq!(line, next[n], "node {n}");
            assert_eq!(words.next().unwrap().len(), line * 7 % 300);
            next[n] += 1;
        }
        assert_eq!(next, vec![EACH; nodes.len()]);
    }
    leave(&volume, nodes);
}

/// Whoever comes first makes it, and the others open what he has made, or have no right to.
#[test]
fn a_file_that_all_nodes_make_at_once_is_one() {
    let volume = Volume::new(128);
    let nodes = nodes(&volume, 3);
    for round in 0..60 {
        let start = Barrier::new(nodes.len());
        let inos: Vec<u64> = thread::scope(|scope| {
            let making: Vec<_> = nodes
                .iter()
                .map(|node| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        let mut how = OpenOptions::new();
                        let file = how.append(true).create(true).open(node.join(format!("file{round}")));
                        file.unwrap().metadata().unwrap().ino()
                    })
                })
                .collect();
            making.into_iter().map(|node| node.join().unwrap()).collect()
        });
        assert!(inos.iter().all(|ino| *ino == inos[0]), "{inos:?}");
    }
    leave(&volume, nodes);
}

/// Creates, renames and removals in one directory by all nodes at once; the index of changes knows them all.
#[test]
fn all_nodes_work_in_one_directory_at_once() {
    work_in_one_directory(3, 120);
}

#[test]
fn eight_nodes_work_in_one_directory_at_once() {
    work_in_one_directory(8, 30);
}

/// So many nodes, and so many files of each, a multiple of 3.
fn work_in_one_directory(count: usize, each: usize) {
    let volume = Volume::new(256);
    let nodes = nodes(&volume, count);
    fs::create_dir(nodes[0].join("dir")).unwrap();
    // One name that everybody wants: exactly one gets it each time.
    let won = Mutex::new(vec![0; each]);
    let start = Barrier::new(nodes.len());
    thread::scope(|scope| {
        for (n, node) in nodes.iter().enumerate() {
            let (start, won) = (&start, &won);
            scope.spawn(move || {
                let dir = node.join("dir");
                start.wait();
                for i in 0..each {
                    let own = dir.join(format!("{n}-{i}"));
                    fs::write(&own, format!("{n}-{i}")).unwrap();
                    if OpenOptions::new()
                        .write(true)
                        .create_new(true)
                        .open(dir.join(format!("all-{i}")))
                        .is_ok()
                    {
                        won.lock().unwrap()[i] += 1;
                    }
                    match i % 3 {
                        0 => fs::remove_file(&own).unwrap(),
                        1 => fs::rename(&own, dir.join(format!("moved-{n}-{i}"))).unwrap(),
                        _ => {}
                    }
                }
            });
        }
    });
    assert_eq!(*won.lock().unwrap(), vec![1; each]);
    let names = |node: &Mounted<'_>| -> BTreeSet<OsString> {
        fs::read_dir(node.join("dir")).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let all = names(&nodes[0]);
    assert_eq!(all.len(), each + nodes.len() * each * 2 / 3);
    nodes[2].sync();
    for node in &nodes {
        assert_eq!(names(node), all);
        for name in &all {
            let text = fs::read_to_string(node.join("dir").join(name)).unwrap();
            let name = name.to_str().unwrap();
            assert!(name.starts_with("all-") || name.ends_with(&text), "{name} has {text}");
        }
        let walk = run(scoutfs(["walk-inodes", "meta_seq", "0", "-1"]).arg(node.path()));
        let inos: BTreeSet<&str> = walk
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3))
            .filter(|w| w.parse::<u64>().is_ok())
            .collect();
        assert_eq!(inos.len(), all.len() + 2, "the files, their directory and the root");
    }
    leave(&volume, nodes);
}

/// Whether an inode is on the volume, with or without names.
fn is_there(node: &Mounted<'_>, ino: u64) -> bool {
    let group = run(scoutfs(["get-allocated-inos", "-s", "-i", &ino.to_string(), "-p"]).arg(node.path()));
    group.split_whitespace().any(|word| word == ino.to_string())
}

/// A file without a name lives while any node has it open, and is gone with the last one, whichever that is.
#[test]
fn an_unlinked_file_lives_until_the_last_node_closes_it() {
    let volume = Volume::new(128);
    let nodes = nodes(&volume, 3);
    let bytes = content(3, 3 << 20);
    for closes_last in 0..3 {
        fs::write(nodes[1].join("file"), &bytes).unwrap();
        nodes[1].sync();
        let ino = fs::metadata(nodes[1].join("file")).unwrap().ino();
        let open =
            |node: &Mounted<'_>| OpenOptions::new().read(true).write(true).open(node.join("file")).unwrap();
        let mut files: Vec<Option<File>> = nodes.iter().map(|node| Some(open(node))).collect();
        fs::remove_file(nodes[0].join("file")).unwrap();
        for file in files.iter().flatten() {
            let mut back = vec![0; bytes.len()];
            file.read_exact_at(&mut back, 0).unwrap();
            assert!(back == bytes);
            assert_eq!((file.metadata().unwrap().nlink(), file.metadata().unwrap().ino()), (0, ino));
        }
        for n in (0..3).filter(|n| *n != closes_last) {
            files[n] = None;
        }
        let last = files[closes_last].take().unwrap();
        // The others' closes have been looked at by the time that others have seen to something else.
        thread::sleep(Duration::from_millis(300));
        last.write_all_at(b"still here", 1000).unwrap();
        let mut back = [0; 10];
        last.read_exact_at(&mut back, 1000).unwrap();
        assert_eq!(&back, b"still here");
        assert!(is_there(&nodes[0], ino));
        drop(last);
        wait_until("it is deleted", SOON, || !is_there(&nodes[0], ino));
    }
    leave(&volume, nodes);
}

/// What a node that dies had open is deleted by the others.
#[test]
fn what_a_dead_node_had_open_is_deleted() {
    let volume = Volume::new(128);
    let nodes = nodes(&volume, 2);
    let mut third = volume.mount_node("third", "rw");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).open(third.join("file")).unwrap();
    file.write_all(&content(5, 1 << 20)).unwrap();
    third.sync();
    let ino = file.metadata().unwrap().ino();
    fs::remove_file(nodes[0].join("file")).unwrap();
    nodes[0].sync();
    assert!(is_there(&nodes[1], ino));
    third.kill_daemon();
    drop(file);
    third.bury_node();
    wait_until("the orphan is deleted", Duration::from_secs(150), || !is_there(&nodes[1], ino));
    leave(&volume, nodes);
}

/// The only server leaves, and clients are still there: they leave with what they had synced, and the next server takes back what
/// they held.
#[test]
fn a_client_that_outlives_the_server_can_leave() {
    let volume = Volume::new(64);
    let mut nodes = nodes(&volume, 2);
    let client = nodes.pop().unwrap();
    fs::write(client.join("file"), b"content").unwrap();
    client.sync();
    nodes.pop().unwrap().leave();
    client.leave();
    let nodes = vec![volume.mount_node("next", SERVER)];
    assert_eq!(fs::read(nodes[0].join("file")).unwrap(), b"content");
    leave(&volume, nodes);
}

/// A file that is open on one node gives what another appends also to who takes pages of it, as NFS servers do.
#[test]
fn what_is_appended_elsewhere_is_there_for_sendfile() {
    let volume = Volume::new(64);
    let nodes = nodes(&volume, 2);
    fs::write(nodes[0].join("file"), b"first").unwrap();
    let file = File::open(nodes[1].join("file")).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut given = |offset: u64| {
        if !by_kernel() {
            // FUSE takes pages as far as the file reached when its attributes were read last.
            file.metadata().unwrap();
        }
        let count = rustix::fs::sendfile(&writer, &file, Some(&mut offset.clone()), 100).unwrap();
        let mut bytes = vec![0; count];
        reader.read_exact(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(given(0), b"first");
    OpenOptions::new().append(true).open(nodes[0].join("file")).unwrap().write_all(b", second").unwrap();
    assert_eq!(given(5), b", second");
    File::create(nodes[0].join("file")).unwrap();
    assert_eq!(given(0), b"");
    drop(file);
    leave(&volume, nodes);
}

/// A directory that is open on one node and removed on another is empty, not an error.
#[test]
fn a_directory_removed_elsewhere_is_still_open_here() {
    let volume = Volume::new(64);
    let nodes = nodes(&volume, 2);
    fs::create_dir(nodes[0].join("dir")).unwrap();
    let dir = open_at(CWD, nodes[1].join("dir"), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    fs::remove_dir(nodes[0].join("dir")).unwrap();
    assert_eq!(rustix::fs::fstat(&dir).unwrap().st_nlink, 0);
    assert!(open_at(&dir, "new", OFlags::WRONLY | OFlags::CREATE, Mode::RUSR).is_err());
    assert!(fs::metadata(nodes[1].join("dir")).is_err());
    drop(dir);
    leave(&volume, nodes);
}

/// An archiver on one node asks again and again for what is newer than what it has seen, while all nodes change files.
#[test]
fn a_cursor_misses_no_change_while_all_nodes_write() {
    const EACH: u64 = 150;
    let volume = Volume::new(256);
    let nodes = nodes(&volume, 3);
    let walk = |first: &str| -> Vec<(u64, u64)> {
        parse(&run(scoutfs(["walk-inodes", "meta_seq", first, "-1"]).arg(nodes[1].path())))
    };
    let writing = AtomicUsize::new(nodes.len());
    let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
    let mut cursor = 0;
    let mut look = || {
        let from = cursor + 1;
        for (seq, ino) in walk(&from.to_string()) {
            assert!(seq >= from);
            newest.insert(ino, seq);
            cursor = seq;
        }
    };
    thread::scope(|scope| {
        for (n, node) in nodes.iter().enumerate() {
            let writing = &writing;
            scope.spawn(move || {
                let dir = node.join(format!("dir{n}"));
                fs::create_dir(&dir).unwrap();
                let mut random = Random::new(n as u64 + 1);
                for i in 0..EACH {
                    let path = dir.join((i % 40).to_string());
                    fs::write(&path, i.to_string()).unwrap();
                    match random.below(8) {
                        0 => File::open(&path).unwrap().sync_all().unwrap(),
                        1 => fs::rename(&path, dir.join("renamed")).unwrap(),
                        2 => fs::remove_file(&path).unwrap(),
                        _ => {}
                    }
                }
                writing.fetch_sub(1, SeqCst);
            });
        }
        while writing.load(SeqCst) > 0 {
            look();
        }
    });
    nodes.iter().for_each(Mounted::sync);
    look();
    let all = walk("0");
    assert!(all.len() > 100);
    for (seq, ino) in all {
        assert_eq!(newest.get(&ino), Some(&seq), "the newest change of inode {ino} that was seen");
    }
    leave(&volume, nodes);
}
