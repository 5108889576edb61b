// SPDX-License-Identifier: GPL-2.0-only
//! Several nodes on a volume that is full: what one frees, and what one does not use, all have.

mod common;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use common::{Volume, file};
use scoutfs_format::item::ROOT_INO;
use scoutfs_fs::{Error, Fs, Mount};

/// A file's bytes.
const FILE: usize = 256 << 10;

/// An address at which nobody listens.
fn address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.43.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn name(who: &str, n: usize) -> Vec<u8> {
    format!("{who}-{n:05}").into_bytes()
}

/// Writes files until there is no space. Gives how many bytes were written, and how many files there are.
fn fill(fs: &Fs, who: &str) -> (usize, usize) {
    let data = vec![7; FILE];
    let (mut bytes, mut files) = (0, 0);
    let full = loop {
        let ino = match fs.create(ROOT_INO, &name(who, files), &file()) {
            Ok(attr) => attr.ino,
            Err(e) => break e,
        };
        files += 1;
        let mut done = 0;
        let mut written = Ok(());
        while done < FILE && written.is_ok() {
            written = fs.write(ino, done as u64, &data[done..]).map(|n| done += n);
        }
        fs.forget(ino, 1);
        bytes += done;
        if let Err(e) = written {
            break e;
        }
    };
    assert!(matches!(full, Error::NoSpace), "{full}");
    (bytes, files)
}

fn empty(fs: &Fs, who: &str, files: usize) {
    for n in 0..files {
        fs.unlink(ROOT_INO, &name(who, n)).unwrap();
    }
    fs.sync().unwrap();
}

/// Blocks of 4 KiB that hold something, as a mount says.
fn used(fs: &Fs) -> u64 {
    let stat = fs.statfs().unwrap();
    (stat.total_meta - stat.free_meta) * 16 + stat.total_data - stat.free_data
}

/// Waits until nothing has changed for so long on any node.
fn settle(nodes: &[&Fs], quiet: Duration) {
    let all = || nodes.iter().map(|fs| used(fs)).collect::<Vec<_>>();
    let (mut last, mut since) = (all(), Instant::now());
    while since.elapsed() < quiet {
        thread::sleep(Duration::from_millis(200));
        let now = all();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

fn pair(volume: &Volume) -> (Mount, Mount) {
    let server = address();
    (volume.node(server, true), volume.node(server, false))
}

/// What one wrote and deleted the other can write, at once, whichever it is.
#[test]
fn what_one_node_deletes_another_can_write() {
    let volume = Volume::new(64 << 20);
    let (first, second) = pair(&volume);
    let nodes = [first.fs(), second.fs()];
    let mut most = 0;
    for round in 0..6 {
        let fs = nodes[round % 2];
        let (bytes, files) = fill(fs, "file");
        most = most.max(bytes);
        println!("round {round}: {bytes} bytes");
        assert!(bytes * 100 >= most * 93, "{bytes} bytes in round {round}, {most} before");
        assert!(bytes > 30 << 20, "{bytes} bytes of 64 MiB in round {round}");
        // Every second time without a pause in which a mount gives something back by itself.
        empty(fs, "file", files);
        if round % 4 >= 2 {
            thread::sleep(Duration::from_millis(1500));
        }
    }
    second.unmount().unwrap();
    first.unmount().unwrap();
    volume.check();
}

/// Both write until there is no space, and then delete, ten times, side by side. Every block comes back.
#[test]
fn two_nodes_that_fill_and_empty_a_volume_side_by_side_give_every_block_back() {
    let volume = Volume::new(64 << 20);
    let (first, second) = pair(&volume);
    let nodes = [first.fs(), second.fs()];
    let mut at_first = None;
    for round in 0..10 {
        let made: Vec<(usize, usize)> = thread::scope(|scope| {
            let filling = ["first", "second"].map(|who| {
                let fs = nodes[usize::from(who == "second")];
                scope.spawn(move || fill(fs, who))
            });
            filling.into_iter().map(|node| node.join().unwrap()).collect()
        });
        let bytes = made[0].0 + made[1].0;
        println!("round {round}: {made:?}, {} MiB", bytes >> 20);
        assert!(bytes > 28 << 20, "{bytes} bytes in round {round}: {made:?}");
        // One alone might have got all: both are to get some.
        assert!(made.iter().all(|of| of.0 > FILE), "{made:?} in round {round}");
        thread::scope(|scope| {
            scope.spawn(|| empty(nodes[0], "first", made[0].1));
            scope.spawn(|| empty(nodes[1], "second", made[1].1));
        });
        if round == 0 || round == 9 {
            settle(&nodes, Duration::from_secs(40));
            let used = volume.crash().check().used_blocks;
            assert_eq!(used, *at_first.get_or_insert(used), "blocks in use after round {round}");
        }
    }
    second.unmount().unwrap();
    first.unmount().unwrap();
    volume.check();
}

/// One has nothing but its reserve, for the other has taken all else; that is enough to delete, as long as there is something.
#[test]
fn who_has_joined_can_delete_whatever_others_have_filled() {
    let volume = Volume::new(64 << 20);
    let (first, second) = pair(&volume);
    let (_, large) = fill(first.fs(), "large");
    let mut small = 0;
    let full = loop {
        match first.fs().create(ROOT_INO, &name("small", small), &file()) {
            Ok(attr) => first.fs().forget(attr.ino, 1),
            Err(e) => break e,
        }
        small += 1;
    };
    assert!(matches!(full, Error::NoSpace) && small > 1000, "{full} with {small} files");
    // No unlink fails; the volume is full for both until much is deleted.
    for n in 0..small / 2 {
        second.fs().unlink(ROOT_INO, &name("small", n)).unwrap();
        if n % 100 == 0 {
            second.fs().sync().unwrap();
        }
    }
    empty(second.fs(), "large", large);
    for n in small / 2..small {
        first.fs().unlink(ROOT_INO, &name("small", n)).unwrap();
    }
    let (bytes, files) = fill(second.fs(), "again");
    assert!(bytes > 30 << 20, "{bytes} bytes");
    empty(first.fs(), "again", files);
    second.unmount().unwrap();
    first.unmount().unwrap();
    volume.check();
}

/// Each node says what all have, whoever has it.
#[test]
fn each_node_tells_the_free_space_of_all() {
    let volume = Volume::new(256 << 20);
    let (first, second) = pair(&volume);
    let nodes = [first.fs(), second.fs()];
    let (_, files) = fill(nodes[0], "file");
    // Besides zones that are kept for metadata.
    let kept = nodes[0].statfs().unwrap().unassigned;
    let free = |fs: &Fs| {
        let stat = fs.statfs().unwrap();
        stat.free_data + stat.unassigned - kept
    };
    assert!(
        kept < 4000 && free(nodes[0]) == 0 && free(nodes[1]) == 0,
        "{} {}",
        free(nodes[0]),
        free(nodes[1])
    );
    empty(nodes[0], "file", files);
    // Told with the next renewal of the lease at the latest.
    let start = Instant::now();
    while free(nodes[0]) != free(nodes[1]) || free(nodes[0]) < 30_000 {
        assert!(start.elapsed() < Duration::from_secs(60), "{} {}", free(nodes[0]), free(nodes[1]));
        thread::sleep(Duration::from_millis(100));
    }
    settle(&nodes, Duration::from_secs(3));
    assert_eq!(used(nodes[0]), used(nodes[1]));
    second.unmount().unwrap();
    first.unmount().unwrap();
    volume.check();
}
