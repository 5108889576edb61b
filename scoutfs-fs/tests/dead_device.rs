// SPDX-License-Identifier: GPL-2.0-only
//! A device that dies while a mount waits for an election: the mount ends with an error, after it has waited for no longer than for an
//! owner that is silent.

mod common;

use std::net::SocketAddr;
use std::thread;

use common::Volume;
use scoutfs_fs::{Error, Mount, Result};

fn errno(mounted: Result<Mount>) -> i32 {
    match mounted {
        Ok(_) => panic!("a mount of a device that fails"),
        Err(e) => e.errno(),
    }
}

/// Runs a mount of a volume of its own for each moment at which the device may die. Gives how many ended in the election.
fn die_at_each(quorum: u32, mount: impl Fn(&Volume) -> Result<Mount> + Sync) -> usize {
    thread::scope(|scope| {
        let mount = &mount;
        let tries: Vec<_> = (0..30)
            .map(|requests| {
                scope.spawn(move || {
                    let volume = Volume::with_quorum(64 << 20, quorum);
                    volume.die_after(requests);
                    let e = mount(&volume).err().unwrap_or_else(|| panic!("{requests} requests are enough"));
                    assert_eq!(e.errno(), 5, "after {requests} requests: {e}");
                    let in_election = matches!(e, Error::Election(_));
                    assert_eq!(in_election, e.to_string().contains("voter slots"), "{e}");
                    usize::from(in_election)
                })
            })
            .collect();
        tries.into_iter().map(|each| each.join().unwrap()).sum()
    })
}

#[test]
fn a_mount_that_is_alone_ends() {
    assert!(die_at_each(1, Volume::try_mount) > 3);
}

#[test]
fn a_mount_that_waits_for_other_voters_ends() {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let free_port = || std::net::TcpListener::bind(address).unwrap().local_addr().unwrap();
    assert!(die_at_each(2, |volume| volume.try_node(free_port(), true)) > 10);
}

#[test]
fn a_mount_that_waits_for_somebody_to_lead_ends() {
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    assert!(die_at_each(2, |volume| volume.try_node(nobody, false)) > 10);
}

/// Reading goes well, so the others are seen, but no slot can be claimed.
#[test]
fn a_mount_that_cannot_write_ends() {
    let volume = Volume::new(64 << 20);
    volume.refuse_writes();
    assert_eq!(errno(volume.try_mount()), 5);
    assert_eq!(errno(volume.try_node("127.0.0.1:7009".parse().unwrap(), true)), 5);
}
