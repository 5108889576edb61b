// SPDX-License-Identifier: GPL-2.0-only
//! Several nodes on one device, over TCP on this machine: one runs the server, the others join it.

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Own, Volume, file};
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::dir::RenameFlags;
use scoutfs_fs::fs::KernelCaches;
use scoutfs_fs::{Error, Fs, Mount};

/// An address at which nobody listens.
fn address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.42.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Nodes that may all run the server of a volume that needs two of three.
fn three(volume: &Volume) -> Vec<Mount> {
    thread::scope(|scope| {
        let open = || volume.node(address(), true);
        let opening: Vec<_> = (0..3).map(|_| scope.spawn(open)).collect();
        opening.into_iter().map(|node| node.join().unwrap()).collect()
    })
}

fn names(fs: &Fs, dir: u64) -> BTreeSet<Vec<u8>> {
    let mut names = BTreeSet::new();
    fs.readdir(dir, 0, &mut |entry| {
        if ![&b"."[..], b".."].contains(&entry.name) {
            names.insert(entry.name.to_vec());
        }
        true
    })
    .unwrap();
    names
}

fn content(fs: &Fs, ino: u64) -> Vec<u8> {
    let mut bytes = vec![0; fs.getattr(ino).unwrap().size as usize];
    let read = fs.read(ino, 0, &mut bytes).unwrap();
    assert_eq!(read, bytes.len());
    bytes
}

#[test]
fn what_one_node_does_all_others_see_at_once() {
    let volume = Volume::new(256 << 20);
    let server = address();
    let first = volume.node(server, true);
    let others = [volume.node(server, false), volume.node(server, false)];
    let nodes = [first.fs(), others[0].fs(), others[1].fs()];
    for round in 0..30u8 {
        let (writer, dir_maker) = (nodes[round as usize % 3], nodes[(round as usize + 1) % 3]);
        let name = format!("dir{round}");
        let dir = dir_maker.mkdir(ROOT_INO, name.as_bytes(), &common::dir()).unwrap().ino;
        let ino = writer.create(dir, b"file", &file()).unwrap().ino;
        writer.write(ino, 0, &[round; 10_000]).unwrap();
        for node in nodes {
            let found = node.lookup(node.lookup(ROOT_INO, name.as_bytes()).unwrap().ino, b"file").unwrap();
            assert_eq!((found.ino, found.size), (ino, 10_000));
            assert_eq!(content(node, ino), [round; 10_000]);
        }
        // Overwritten in place by another, renamed by the third.
        dir_maker.write(ino, 5000, &[!round; 10]).unwrap();
        let third = nodes[(round as usize + 2) % 3];
        third
            .rename(dir, b"file", ROOT_INO, format!("moved{round}").as_bytes(), RenameFlags::empty())
            .unwrap();
        for node in nodes {
            assert!(matches!(node.lookup(dir, b"file"), Err(Error::NotFound)));
            assert_eq!(content(node, ino)[5000..5010], [!round; 10]);
            node.forget(ino, 2);
        }
    }
    for node in others {
        node.unmount().unwrap();
    }
    assert_eq!(names(first.fs(), ROOT_INO).len(), 60);
    first.unmount().unwrap();
    volume.check();
}

/// A kernel opens a file in two steps: it looks the name up, and opens the inode. What another node does to the name in between
/// harms as little as on one machine, where it can do nothing in between.
#[test]
fn who_has_just_looked_a_name_up_can_open_it_whatever_others_do_to_the_name() {
    let volume = Volume::new(64 << 20);
    let server = address();
    let (first, second) = (volume.node(server, true), volume.node(server, false));
    for round in 0..2 {
        let (a, b) = if round % 2 == 0 { (first.fs(), second.fs()) } else { (second.fs(), first.fs()) };
        let old = a.create(ROOT_INO, b"file", &file()).unwrap().ino;
        a.write(old, 0, b"old").unwrap();
        a.forget(old, 1);
        assert_eq!(b.lookup(ROOT_INO, b"file").unwrap().ino, old);
        let new = a.create(ROOT_INO, b"new", &file()).unwrap().ino;
        a.rename(ROOT_INO, b"new", ROOT_INO, b"file", RenameFlags::empty()).unwrap();
        a.sync().unwrap();
        b.open(old, false).unwrap();
        assert_eq!(b.lookup(ROOT_INO, b"file").unwrap().ino, new);
        // However long it is open.
        thread::sleep(Duration::from_millis(if round == 0 { 2500 } else { 0 }));
        assert_eq!(content(b, old), b"old");
        b.release(old, false);
        b.forget(old, 1);
        // It was open for the last time.
        wait_until_gone(a, old);
        // Another is looked up and not opened: it is gone a moment later.
        b.forget(new, 1);
        assert_eq!(b.lookup(ROOT_INO, b"file").unwrap().ino, new);
        a.forget(new, 1);
        a.unlink(ROOT_INO, b"file").unwrap();
        wait_until_gone(a, new);
        b.forget(new, 1);
    }
    // What was looked up just before is not left behind when the mount goes.
    let ino = first.fs().create(ROOT_INO, b"file", &file()).unwrap().ino;
    assert_eq!(second.fs().lookup(ROOT_INO, b"file").unwrap().ino, ino);
    first.fs().unlink(ROOT_INO, b"file").unwrap();
    first.fs().forget(ino, 1);
    second.unmount().unwrap();
    first.unmount().unwrap();
    assert_eq!(volume.check().inodes, 1);
}

fn wait_until_gone(fs: &Fs, ino: u64) {
    let start = Instant::now();
    while fs.getattr(ino).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "inode {ino} stays");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn all_nodes_change_one_directory_at_the_same_time() {
    let volume = Volume::new(256 << 20);
    let server = address();
    let first = volume.node(server, true);
    let second = volume.node(server, false);
    let nodes = [first.fs(), second.fs()];
    thread::scope(|scope| {
        for (node, fs) in nodes.into_iter().enumerate() {
            scope.spawn(move || {
                for n in 0..300 {
                    let name = format!("{node}-{n}");
                    let ino = fs.create(ROOT_INO, name.as_bytes(), &file()).unwrap().ino;
                    fs.forget(ino, 1);
                    if n % 3 == 0 {
                        fs.unlink(ROOT_INO, name.as_bytes()).unwrap();
                    } else if n % 3 == 1 {
                        let to = format!("moved {node}-{n}");
                        fs.rename(ROOT_INO, name.as_bytes(), ROOT_INO, to.as_bytes(), RenameFlags::empty())
                            .unwrap();
                    }
                }
            });
        }
    });
    let seen = names(nodes[0], ROOT_INO);
    assert_eq!(seen.len(), 400);
    assert_eq!(seen, names(nodes[1], ROOT_INO));
    // The index of changes is complete on both after a sync on one.
    nodes[1].sync().unwrap();
    for fs in nodes {
        let mut inos = BTreeSet::new();
        fs.walk_index(
            scoutfs_format::key::KIND_META_SEQ,
            (0, 0),
            (u64::MAX, u64::MAX),
            usize::MAX,
            &mut |_, ino| {
                assert!(inos.insert(ino));
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(inos.len(), 401);
    }
    second.unmount().unwrap();
    first.unmount().unwrap();
    volume.check();
}

/// Its locks come free when its lease is over, and what it had synced is there.
#[test]
fn a_node_that_dies_is_fenced_and_what_it_synced_survives() {
    let volume = Volume::new(256 << 20);
    let server = address();
    let first = volume.node(server, true);
    let second = volume.node(server, false);
    let fs = second.fs();
    let dir = fs.mkdir(ROOT_INO, b"dir", &common::dir()).unwrap().ino;
    for n in 0..50 {
        let ino = fs.create(dir, format!("synced{n}").as_bytes(), &file()).unwrap().ino;
        fs.write(ino, 0, &[n; 5000]).unwrap();
    }
    fs.sync().unwrap();
    drop(second);
    let fs = first.fs();
    let dir = fs.lookup(ROOT_INO, b"dir").unwrap().ino;
    assert_eq!(names(fs, dir).len(), 50);
    for n in 0..50 {
        let ino = fs.lookup(dir, format!("synced{n}").as_bytes()).unwrap().ino;
        assert_eq!(content(fs, ino), [n; 5000]);
    }
    fs.create(dir, b"after", &file()).unwrap();
    first.unmount().unwrap();
    volume.check();
    let alone = volume.mount();
    assert_eq!(names(alone.fs(), dir).len(), 51);
    alone.unmount().unwrap();
    volume.check();
}

/// A node joins over a network that is not there yet, and leaves; one that may not run the server cannot be alone.
#[test]
fn a_node_waits_for_the_leader_and_joins_it() {
    let volume = Volume::new(256 << 20);
    let server = address();
    thread::scope(|scope| {
        let joining = scope.spawn(|| volume.node(server, false));
        thread::sleep(std::time::Duration::from_millis(300));
        let first = volume.node(server, true);
        let second = joining.join().unwrap();
        second.fs().create(ROOT_INO, b"file", &file()).unwrap();
        assert!(first.fs().lookup(ROOT_INO, b"file").is_ok());
        second.unmount().unwrap();
        first.unmount().unwrap();
    });
    volume.check();
}

/// The leader leaves while others work: another node is elected and all go on, with nothing lost and every lock kept.
#[test]
fn another_node_takes_over_when_the_leader_leaves() {
    let volume = Volume::with_quorum(256 << 20, 2);
    let mut nodes = three(&volume);
    for (n, node) in nodes.iter().enumerate() {
        let ino = node.fs().create(ROOT_INO, format!("before{n}").as_bytes(), &file()).unwrap().ino;
        node.fs().write(ino, 0, &[n as u8; 5000]).unwrap();
    }
    let mut expected = 3;
    while nodes.len() > 1 {
        // Whoever it is, in the end the leader has left, and the last voter.
        let leaving = nodes.remove(0);
        thread::scope(|scope| {
            for (n, node) in nodes.iter().enumerate() {
                let left = nodes.len();
                scope.spawn(move || {
                    for i in 0..200 {
                        let name = format!("left{left} node{n} {i}");
                        let ino = node.fs().create(ROOT_INO, name.as_bytes(), &file()).unwrap().ino;
                        node.fs().write(ino, 0, &[1; 100]).unwrap();
                        node.fs().forget(ino, 1);
                        if i % 20 == 0 {
                            node.fs().sync().unwrap();
                        }
                    }
                });
            }
            leaving.unmount().unwrap();
        });
        expected += nodes.len() * 200;
        for node in &nodes {
            assert_eq!(names(node.fs(), ROOT_INO).len(), expected);
        }
    }
    nodes.pop().unwrap().unmount().unwrap();
    volume.check();
}

/// One of three dies, the leader or another: the two others go on when its lease is over, with all that it had synced.
#[test]
fn two_of_three_go_on_when_one_dies_whichever_it_is() {
    thread::scope(|scope| {
        for dies in 0..3 {
            scope.spawn(move || {
                let volume = Volume::with_quorum(256 << 20, 2);
                let mut nodes = three(&volume);
                for (n, node) in nodes.iter().enumerate() {
                    let ino = node.fs().create(ROOT_INO, format!("{n}").as_bytes(), &file()).unwrap().ino;
                    node.fs().write(ino, 0, &[n as u8; 5000]).unwrap();
                    node.fs().sync().unwrap();
                }
                drop(nodes.remove(dies));
                for node in &nodes {
                    assert_eq!(names(node.fs(), ROOT_INO).len(), 3);
                    for n in 0..3 {
                        let ino = node.fs().lookup(ROOT_INO, format!("{n}").as_bytes()).unwrap().ino;
                        assert_eq!(content(node.fs(), ino), [n as u8; 5000]);
                    }
                }
                nodes[0].fs().create(ROOT_INO, b"after", &file()).unwrap();
                assert!(nodes[1].fs().lookup(ROOT_INO, b"after").is_ok());
                for node in nodes {
                    node.unmount().unwrap();
                }
                volume.check();
            });
        }
    });
}

/// The slots of the dead come free when their deaths are certain, while the server runs.
#[test]
fn more_nodes_may_die_than_there_are_slots() {
    let volume = Volume::new(128 << 20);
    let first = volume.node_that_knows(address());
    for n in 0..20 {
        let start = Instant::now();
        let client = loop {
            match volume.try_client() {
                Ok(client) => break client,
                Err(e) => assert!(start.elapsed() < Duration::from_secs(60), "client {n}: {e}"),
            }
            thread::sleep(Duration::from_millis(200));
        };
        drop(client);
    }
    first.unmount().unwrap();
    volume.check();
}

/// A kernel that takes its time to forget one inode: less than a lease.
struct SlowKernel {
    ino: u64,
    forgot: Arc<AtomicBool>,
}

impl KernelCaches for SlowKernel {
    fn forget_names(&self) {}

    fn forget_attributes(&self, ino: u64) -> bool {
        if ino == self.ino {
            thread::sleep(Duration::from_millis(4500));
            self.forgot.store(true, Ordering::SeqCst);
        }
        true
    }

    fn forget_pages(&self, _: u64, _: u64, _: u64) {}
}

/// The leader cannot write as the leader, or its mount cannot commit: it gives up leadership and its voter slot, and the others go
/// on, in one election.
#[test]
fn another_leads_when_the_server_or_the_mount_of_the_leader_has_failed() {
    thread::scope(|scope| {
        for of_server in [true, false] {
            scope.spawn(move || {
                let volume = Volume::with_quorum(256 << 20, 2);
                let ways: Vec<Arc<Own>> = (0..3).map(|_| Arc::default()).collect();
                let mut nodes: Vec<Mount> = thread::scope(|scope| {
                    let open = |own| volume.node_with(address(), own);
                    let opening: Vec<_> = ways.iter().map(|own| scope.spawn(move || open(own))).collect();
                    opening.into_iter().map(|node| node.join().unwrap()).collect()
                });
                let ino = nodes[0].fs().create(ROOT_INO, b"before", &file()).unwrap().ino;
                nodes[0].fs().write(ino, 0, &[1; 5000]).unwrap();
                nodes[0].fs().sync().unwrap();
                let leader = ways.iter().position(|own| own.leads.load(Ordering::Relaxed)).unwrap();
                let way = &ways[leader];
                // Nobody else is interested in it, so its lock does not go before the mount fails.
                let own = nodes[leader].fs().create(ROOT_INO, b"own", &file()).unwrap().ino;
                nodes[0].fs().sync().unwrap();
                let forgot = Arc::new(AtomicBool::new(false));
                let kernel = SlowKernel { ino: own, forgot: forgot.clone() };
                let kernel: scoutfs_env::Box<dyn KernelCaches> = scoutfs_env::try_box(kernel).unwrap();
                nodes[leader].fs().set_kernel_caches(scoutfs_env::Arc::new(kernel).unwrap());
                let broken = if of_server { &way.no_supers } else { &way.no_records };
                broken.store(true, Ordering::Relaxed);
                let began = Instant::now();
                let failed = nodes.remove(leader);
                while failed.fs().create(ROOT_INO, b"lost", &file()).is_ok() {
                    assert!(began.elapsed() < Duration::from_secs(60), "the leader's mount goes on");
                    let _ = failed.fs().sync();
                    // What the server must make durable.
                    let _ =
                        nodes[0].fs().create(ROOT_INO, format!("{:?}", began.elapsed()).as_bytes(), &file());
                    let _ = nodes[0].fs().sync();
                    thread::sleep(Duration::from_millis(50));
                    let _ = failed.fs().unlink(ROOT_INO, b"lost");
                }
                for node in &nodes {
                    let ino = node.fs().lookup(ROOT_INO, b"before").unwrap().ino;
                    assert_eq!(content(node.fs(), ino), [1; 5000]);
                }
                nodes[0].fs().create(ROOT_INO, b"after", &file()).unwrap();
                nodes[0].fs().sync().unwrap();
                // What its kernel kept under locks is gone before others have these.
                assert!(forgot.load(Ordering::SeqCst));
                assert!(nodes[1].fs().lookup(ROOT_INO, b"after").is_ok());
                // Nobody has unmounted the one that failed; its voter slot is for others.
                while volume.owned_voter_slots() != 2 {
                    assert!(
                        began.elapsed() < Duration::from_secs(60),
                        "the slot of the failed mount is kept"
                    );
                    thread::sleep(Duration::from_millis(50));
                }
                let third = volume.node(address(), true);
                assert!(third.fs().lookup(ROOT_INO, b"after").is_ok());
                assert!(failed.unmount().is_err());
                nodes.push(third);
                for node in nodes {
                    node.unmount().unwrap();
                }
                volume.check();
            });
        }
    });
}

fn counter(fs: &Fs, name: &str) -> u64 {
    let mut found = None;
    fs.for_each_counter(&mut |counter, value| {
        if counter == name {
            found = Some(value);
        }
        Ok(())
    })
    .unwrap();
    found.unwrap_or_else(|| panic!("no counter {name}"))
}

/// Who gets a lock reads the slot of the mount that had it, and no others: where that mount's log trees are the same, no more than what its
/// ring has got since. And the grant has the number of the transaction in it: nobody asks the server for another.
#[test]
fn a_lock_that_goes_from_node_to_node_makes_them_read_one_slot_each_time() {
    let volume = Volume::new(256 << 20);
    let server = address();
    let nodes: Vec<Mount> = (0..4).map(|n| volume.node(server, n == 0)).collect();
    for (n, node) in nodes.iter().enumerate() {
        node.fs().mkdir(ROOT_INO, format!("{n}").as_bytes(), &common::dir()).unwrap();
    }
    let all = |name: &str| nodes.iter().map(|node| counter(node.fs(), name)).sum::<u64>();
    let read = || all("device_read_bytes");
    let dir = nodes[0].fs().mkdir(ROOT_INO, b"dir", &common::dir()).unwrap().ino;
    let before = read();
    let (looks, asked) = (all("device_reads"), all("sent_seq"));
    let turns = 40;
    for turn in 0..turns {
        let node = &nodes[1 + turn as usize % 2];
        node.fs().create(dir, format!("file{turn}").as_bytes(), &file()).unwrap();
    }
    let each = (read() - before) / turns;
    println!("{each} bytes read for each hand-over");
    let ring = 64 * 4096;
    assert!(each < 2 * ring, "{each} bytes read for each hand-over");
    let (looks, asked) = (all("device_reads") - looks, all("sent_seq") - asked);
    println!("{looks} reads and {asked} seqs for {turns} hand-overs");
    assert!(looks < turns * 2, "{looks} reads for {turns} hand-overs");
    assert!(asked < turns / 2, "{asked} seqs for {turns} hand-overs");
    for node in nodes.into_iter().rev() {
        node.unmount().unwrap();
    }
    volume.check();
}

/// What is in a transaction needs no server to become durable: it has its number, and the next one gets its own when somebody enters it.
#[test]
fn a_client_whose_server_is_gone_syncs_and_unmounts_within_its_lease() {
    let volume = Volume::new(256 << 20);
    let server = volume.node(address(), true);
    let client = volume.try_client().unwrap();
    let ino = client.fs().create(ROOT_INO, b"file", &file()).unwrap().ino;
    client.fs().write(ino, 0, &[1; 5000]).unwrap();
    client.fs().sync().unwrap();
    client.fs().write(ino, 0, &[2; 5000]).unwrap();
    drop(server);
    client.fs().sync().unwrap();
    let crashed = volume.crash();
    client.unmount().unwrap();
    volume.check();
    crashed.check();
    for volume in [volume, crashed] {
        let mount = volume.mount();
        assert_eq!(content(mount.fs(), ino), [2; 5000]);
        mount.unmount().unwrap();
    }
}

/// The background's work, too, waits for a server no longer than whoever unmounts does, and that says nothing of what is in memory.
#[test]
fn background_work_that_waits_for_a_server_in_vain_does_not_fail_an_unmount() {
    let volume = Volume::new(256 << 20);
    let server = volume.node(address(), true);
    let client = volume.try_client().unwrap();
    let ino = client.fs().create(ROOT_INO, b"file", &file()).unwrap().ino;
    client.fs().sync().unwrap();
    client.fs().write(ino, 0, &[2; 5000]).unwrap();
    drop(server);
    client.begin_unmount();
    // The worker has a log tree to tell of, and gives up when this does; a part of the lease is left then.
    let all = (u64::MAX, u64::MAX);
    client
        .fs()
        .walk_index(scoutfs_format::key::KIND_META_SEQ, (0, 0), all, usize::MAX, &mut |_, _| Ok(()))
        .unwrap_err();
    thread::sleep(Duration::from_millis(300));
    client.unmount().unwrap();
    volume.check();
    let mount = volume.mount();
    assert_eq!(content(mount.fs(), ino), [2; 5000]);
    mount.unmount().unwrap();
}

/// A mount that can commit no more is no member for long: it does not ask to be taken as one again and again until it is unmounted.
#[test]
fn a_mount_that_has_failed_asks_no_server_to_take_it() {
    let volume = Volume::new(256 << 20);
    let first = volume.node(address(), true);
    let own = Arc::<Own>::default();
    let second = volume.node_with(address(), &own);
    second.fs().create(ROOT_INO, b"file", &file()).unwrap();
    own.no_records.store(true, Ordering::Relaxed);
    second.fs().sync().unwrap_err();
    let asked = || counter(second.fs(), "sent_join");
    let before = asked();
    // Longer than its lease, and than the server says nothing to it three times.
    thread::sleep(Duration::from_secs(22));
    assert_eq!(asked(), before);
    assert!(second.unmount().is_err());
    // Others go on.
    first.fs().create(ROOT_INO, b"other", &file()).unwrap();
    first.unmount().unwrap();
    volume.check();
}

/// Makes files, each with so many bytes, until there is no space. Gives how many there are.
fn fill(fs: &Fs, what: &str, bytes: usize) -> usize {
    let mut made = 0;
    let full = loop {
        let ino = match fs.create(ROOT_INO, format!("{what}{made}").as_bytes(), &file()) {
            Ok(attr) => attr.ino,
            Err(e) => break e,
        };
        made += 1;
        let written = fs.write(ino, 0, &vec![7; bytes]);
        fs.forget(ino, 1);
        if let Err(e) = written {
            break e;
        }
    };
    assert_eq!(full.errno(), 28, "{full}");
    made
}

/// There is nothing between: a mount that is there and cannot delete would be of no use to anybody. And when files are deleted there
/// must be room for it.
#[test]
fn who_joins_a_full_volume_can_delete_or_is_refused() {
    let volume = Volume::new(64 << 20);
    let server = address();
    let first = volume.node(server, true);
    let mut large = fill(first.fs(), "large", 1 << 20);
    let mut left = fill(first.fs(), "small", 0);
    let (mut refused, mut joined) = (0, 0);
    while joined < 3 {
        match volume.try_node(server, false) {
            Ok(second) => {
                joined += 1;
                left -= 1;
                second.fs().unlink(ROOT_INO, format!("small{left}").as_bytes()).unwrap();
                second.unmount().unwrap();
            }
            Err(e) => {
                assert_eq!(e.errno(), 28, "{e}");
                refused += 1;
                assert!(large > 0, "there is never room for a second mount");
                large -= 1;
                first.fs().unlink(ROOT_INO, format!("large{large}").as_bytes()).unwrap();
                for _ in 0..left.min(400) {
                    left -= 1;
                    first.fs().unlink(ROOT_INO, format!("small{left}").as_bytes()).unwrap();
                }
                first.fs().sync().unwrap();
                thread::sleep(Duration::from_millis(700));
            }
        }
    }
    println!("refused {refused} times, {large} large and {left} small files are left");
    first.unmount().unwrap();
    volume.check();
}
