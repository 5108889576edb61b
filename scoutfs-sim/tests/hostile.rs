// SPDX-License-Identifier: GPL-2.0-only
//! What others send and programs pass: messages to the server, names and extended attributes. An error, never a panic; a
//! bad message stops no server, and the volume stays sound. (Damaged volumes are in `damaged.rs`.)
//!
//! `SCOUTFS_FUZZ_SEEDS=n` runs n cases; `SCOUTFS_FUZZ_SEED=n` repeats one.

use std::cell::RefCell;
use std::collections::BTreeSet;

use scoutfs_btree::BlockCache;
use scoutfs_env::alloc_fault;
use scoutfs_env::time::Mono;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::le::{U16, U32, U64};
use scoutfs_format::msg::*;
use scoutfs_format::voter::ProcessId;
use scoutfs_fs::dir::{NewInode, RenameFlags};
use scoutfs_fs::xattr::SetXattrMode;
use scoutfs_server::super_block::read_super;
use scoutfs_server::{DeathOracle, Leader, Server};
use scoutfs_sim::disk::Disk;
use scoutfs_sim::reference::{Content, Name};
use scoutfs_sim::rng::Rng;
use scoutfs_sim::tree::read_tree;
use scoutfs_sim::volume::{Pace, device, issues, mount, new_volume};
use zerocopy::IntoBytes;

const FILE: NewInode = NewInode { mode: 0o100_644, uid: 0, gid: 0, rdev: 0, umask: 0 };

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs `case` with a number of seeds.
fn with_seeds(default: u64, case: impl Fn(u64)) {
    if let Some(seed) = setting("SCOUTFS_FUZZ_SEED") {
        return case(seed);
    }
    for seed in 0..setting("SCOUTFS_FUZZ_SEEDS").unwrap_or(default) {
        println!("SCOUTFS_FUZZ_SEED={seed}");
        case(seed);
    }
}

struct NoneDead;

impl DeathOracle for NoneDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        false
    }
}

/// Numbers as they may be in a message: some that are about right, and some that are not.
fn number(rng: &mut Rng, disk: &Disk) -> u64 {
    use scoutfs_env::device::BlockDevice;
    let blocks = disk.size_bytes() / 4096;
    match rng.below(8) {
        0 => 0,
        1 => 1,
        2 => rng.below(20) as u64,
        3 => rng.below(blocks as usize) as u64,
        4 => u64::MAX,
        5 => u64::MAX - rng.below(10) as u64,
        6 => 1 << rng.below(64),
        _ => rng.next_u64(),
    }
}

fn payload(rng: &mut Rng, disk: &Disk) -> Vec<u8> {
    let mut bytes = Vec::new();
    let words = rng.below(9);
    for _ in 0..words {
        let word = match rng.below(3) {
            // Two small fields in one.
            0 => (number(rng, disk) << 32) | (number(rng, disk) & 0xffff_ffff),
            _ => number(rng, disk),
        };
        bytes.extend(word.to_le_bytes());
    }
    if rng.one_in(10) {
        bytes.truncate(rng.below(bytes.len() + 1));
    }
    bytes
}

/// A message about a lock that may well exist.
fn lock_payload(rng: &mut Rng) -> Vec<u8> {
    let small = |rng: &mut Rng| U64::new(rng.below(6) as u64);
    let id = LockId {
        start: U64::new((rng.below(4) as u64) << *rng.pick(&[0, 9, 10, 11])),
        kind: rng.below(4) as u8,
        order: *rng.pick(&[0, 9, 10, 11]),
        pad: [0; 6],
    };
    let message = LockMessage {
        id,
        version: small(rng),
        commit_nr: small(rng),
        generation: small(rng),
        old_mode: rng.below(4) as u8,
        mode: rng.below(4) as u8,
        flags: rng.below(3) as u8,
        pad: [0; 5],
    };
    let mut payload = message.as_bytes().to_vec();
    payload.resize(payload.len() + *rng.pick(&[0, 0, 127, 128]), 0xa5);
    payload
}

fn send(server: &mut Server, from: u64, kind: u8, response: bool, payload: &[u8], n: u64) {
    let header = MessageHeader {
        kind,
        flags: if response { MSG_RESPONSE } else { 0 },
        status: U16::ZERO,
        id: U64::new(n),
        seq: U64::new(n),
        term: U64::new(server.term()),
        ..Default::default()
    };
    server.handle(Mono::from_ns(n), from, &header, payload);
}

#[test]
fn no_message_stops_the_server() {
    // Kinds of requests of which one was granted: what is only ever refused at the door proves nothing.
    let granted = RefCell::new(BTreeSet::new());
    with_seeds(60, |seed| {
        let mut rng = Rng::new(seed);
        let disk = new_volume();
        // Something to merge and to hand over.
        let first = mount(&disk, Pace::Fast).unwrap();
        first.fs().create(ROOT_INO, b"file", &FILE).unwrap();
        first.unmount().unwrap();
        let Rig { mut server, cache } = Rig::new(&disk);
        for n in 3..300 {
            let from = *rng.pick(&[1, 1, 1, 2, 2, 3, 0]);
            let kind = if rng.one_in(20) { rng.next_u64() as u8 } else { rng.below(19) as u8 };
            let payload = match kind {
                MSG_LOCK if !rng.one_in(4) => lock_payload(&mut rng),
                _ => payload(&mut rng, &disk),
            };
            send(&mut server, from, kind, rng.one_in(4), &payload, n);
            if rng.one_in(3) {
                server.tick(Mono::from_ns(n));
                server.commit().unwrap();
            }
            if let Some(job) = server.poll_job() {
                server.job_done(Mono::from_ns(n), job.run(&cache));
            }
            while let Some(message) = server.poll_message() {
                if message.response && message.status == STATUS_OK {
                    granted.borrow_mut().insert(message.kind);
                }
            }
            assert!(
                server.failed().is_none(),
                "seed {seed}: kind {kind} {payload:x?}: {:?}",
                server.failed()
            );
        }
        server.commit().unwrap();
        drop(server);
        let (_, found) = issues(&disk).unwrap();
        assert_eq!(found, Vec::<String>::new(), "seed {seed}");
    });
    if setting("SCOUTFS_FUZZ_SEED").is_none() {
        let expected =
            BTreeSet::from([MSG_SEQ, MSG_INOS, MSG_SPACE, MSG_LOCK, MSG_STATFS, MSG_RENEW, MSG_HORIZON]);
        let granted = granted.into_inner();
        assert!(granted.is_superset(&expected), "granted: {granted:?}");
    }
}

/// A server on a volume, with two mounts, whose rids are 1 and 2.
struct Rig {
    server: Server,
    cache: scoutfs_env::Arc<BlockCache>,
}

impl Rig {
    fn new(disk: &Disk) -> Rig {
        let dev = device(disk);
        let sb = read_super(&**dev).unwrap();
        let (fsid, geometry, term) = (sb.sb.id.fsid.get(), sb.geometry, sb.sb.term.get() + 1);
        let cache = BlockCache::new(dev.clone(), fsid, geometry, 64).unwrap();
        let cache = scoutfs_env::Arc::new(cache).unwrap();
        let now = Mono::from_ns(0);
        let mut server =
            Server::open(dev, cache.clone(), (&sb, &[]), Leader { voter: 0, term, rid: 3 }, &NoneDead, now)
                .unwrap();
        for rid in [1, 2] {
            let join = JoinRequest {
                rid: U64::new(rid),
                process: ProcessId { pid: U64::new(rid), ..ProcessId::default() },
                read_only: U32::ZERO,
                pad: U32::ZERO,
            };
            send(&mut server, rid, MSG_JOIN, false, join.as_bytes(), rid);
        }
        server.commit().unwrap();
        while server.poll_message().is_some() {}
        Rig { server: *server, cache }
    }
}

/// Without memory for them, requests that change nothing that must be kept are refused, and the server goes on.
#[test]
fn a_request_without_memory_is_refused() {
    let disk = new_volume();
    let mut server = Rig::new(&disk).server;
    let mut id = 10;
    for kind in [MSG_SEQ, MSG_INOS, MSG_STATFS, MSG_RENEW] {
        let payload: &[u8] = if kind == MSG_SEQ { &[0; 8] } else { &[] };
        let mut refused = 0;
        // Twice: what is kept for later is allocated the first time only.
        for n in (0..8).chain(0..8) {
            id += 1;
            alloc_fault::fail_after(n);
            send(&mut server, 1, kind, false, payload, id);
            let tripped = alloc_fault::tripped();
            alloc_fault::clear();
            assert!(server.failed().is_none(), "kind {kind}, allocation {n}: {:?}", server.failed());
            let answer = server.poll_message().expect("an answer");
            assert_eq!((answer.id, answer.response), (id, true));
            match answer.status {
                STATUS_OK => {}
                STATUS_NO_MEMORY if tripped => refused += 1,
                other => panic!("kind {kind}, allocation {n}: status {other}"),
            }
        }
        assert!(refused > 0, "kind {kind}: nothing was refused");
    }
}

/// Bytes that are or are not a name.
fn name(rng: &mut Rng) -> Vec<u8> {
    let len = *rng.pick(&[0, 1, 2, 3, 10, 100, 254, 255, 256, 300, 5000]);
    match rng.below(6) {
        0 => b".".to_vec(),
        1 => b"..".to_vec(),
        2 => vec![b'/'; len],
        3 => vec![0; len],
        4 => (0..len).map(|_| rng.next_u64() as u8).collect(),
        _ => vec![b'a' + rng.below(3) as u8; len],
    }
}

fn xattr_name(rng: &mut Rng) -> Vec<u8> {
    const PREFIXES: [&str; 9] = [
        "user.",
        "trusted.",
        "security.",
        "system.",
        "system.posix_acl_access",
        "scoutfs.",
        "scoutfs.hide.",
        "scoutfs.srch.",
        "",
    ];
    let prefix = *rng.pick(&PREFIXES);
    [prefix.as_bytes(), &name(rng)].concat()
}

#[test]
fn no_name_and_no_attribute_does_harm() {
    with_seeds(8, |seed| {
        let mut rng = Rng::new(seed);
        let disk = new_volume();
        let mounted = mount(&disk, Pace::Fast).unwrap();
        let fs = mounted.fs();
        let file = fs.create(ROOT_INO, b"file", &FILE).unwrap().ino;
        for _ in 0..600 {
            let (one, two) = (name(&mut rng), name(&mut rng));
            let forget = |a: scoutfs_fs::inode::Attr| fs.forget(a.ino, 1);
            // Whatever comes of it: it must come back, and not for a broken invariant.
            let done = match rng.below(11) {
                0 => fs.create(ROOT_INO, &one, &FILE).map(forget),
                1 => fs.mkdir(ROOT_INO, &one, &NewInode { mode: 0o040_755, ..FILE }).map(forget),
                2 => fs.symlink(ROOT_INO, &one, &two, &NewInode { mode: 0o120_777, ..FILE }).map(forget),
                3 => fs.link(file, ROOT_INO, &one).map(forget),
                4 => fs.unlink(ROOT_INO, &one),
                5 => fs.rmdir(ROOT_INO, &one),
                6 => fs.lookup(ROOT_INO, &one).map(forget),
                7 => fs.rename(ROOT_INO, &one, ROOT_INO, &two, RenameFlags::empty()),
                8 => {
                    let len = *rng.pick(&[0, 1, 100, 65_535, 65_536, 70_000]);
                    fs.setxattr(file, &xattr_name(&mut rng), &vec![7; len], SetXattrMode::Any)
                }
                9 => fs.removexattr(file, &xattr_name(&mut rng), true),
                _ => fs.getxattr(file, &xattr_name(&mut rng), &mut [0; 100]).map(|_| ()),
            };
            if let Err(e) = done {
                assert_ne!(e.errno(), 5, "seed {seed}: {e}");
            }
        }
        let found = read_tree(fs, &mut |ino, e| panic!("seed {seed}: inode {ino}: {e}"));
        let Content::Dir(names) = &found[&ROOT_INO].content else { panic!("no root") };
        for Name(name) in names.iter().map(|(name, _)| name) {
            assert!(
                (1..=255).contains(&name.len()) && !name.contains(&b'/') && !name.contains(&0),
                "{name:?}"
            );
            assert!(name != b"." && name != b"..");
        }
        fs.forget(file, 1);
        mounted.unmount().unwrap();
        let (_, found) = issues(&disk).unwrap();
        assert_eq!(found, Vec::<String>::new(), "seed {seed}");
    });
}
