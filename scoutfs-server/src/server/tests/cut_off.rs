// SPDX-License-Identifier: GPL-2.0-only
//! A server that hears nobody any more.

use std::time::Duration;
use std::vec::Vec;

use scoutfs_format::msg::MSG_RENEW;
use scoutfs_format::server_item::{MEMBER_FENCED, MEMBER_LIVE};
use scoutfs_net::quorum::{Beating, OtherVoter};

use super::mount::*;
use super::rig::*;
use crate::server::{LEASE, LEASE_MARGIN};

/// The leader's own mount is 1. Those of voters 2 and 3, and 4, which has no voter slot.
fn cluster() -> (Rig, [SimMount; 4]) {
    let mut rig = Rig::smallest();
    let mounts = [1, 2, 3, 4].map(|rid| SimMount::start(&mut rig, rid));
    (rig, mounts)
}

fn beat(rig: &mut Rig, rids: &[u64], connected: bool) {
    let others = rids.iter().map(|&rid| OtherVoter { rid, connected });
    rig.server.set_beating(&Beating::new(2, others));
}

/// Time passes, and some renew their leases as they should.
fn pass(rig: &mut Rig, time: Duration, heard: &[u64]) {
    let step = Duration::from_millis(500);
    for n in 0..time.as_millis() / step.as_millis() {
        rig.advance(step);
        if n % 3 == 2 {
            for &rid in heard {
                let id = rig.new_id();
                rig.request(rid, id, MSG_RENEW, &[]);
            }
        }
        rig.server.tick(rig.now);
        rig.server.commit().unwrap();
    }
}

fn states(rig: &Rig, mounts: &[SimMount]) -> Vec<u32> {
    mounts.iter().map(|mount| rig.server.members.get(mount.slot).unwrap().item.state.get()).collect()
}

#[test]
fn a_leader_that_hears_too_few_voters_fences_nobody_and_gives_all_a_lease_when_it_hears_them_again() {
    let (mut rig, mounts) = cluster();
    beat(&mut rig, &[2, 3], true);
    pass(&mut rig, LEASE, &[1, 2, 3, 4]);
    // They still say that they are connected, for they have not noticed yet.
    pass(&mut rig, LEASE * 10, &[1]);
    assert_eq!(states(&rig, &mounts), [MEMBER_LIVE; 4]);
    assert!(rig.server.next_wakeup(rig.now) > rig.now, "it has nothing to do");
    // One is enough to know that the network is there; the others have as long as it takes to connect.
    pass(&mut rig, LEASE, &[1, 2]);
    assert_eq!(states(&rig, &mounts), [MEMBER_LIVE; 4]);
    pass(&mut rig, LEASE_MARGIN * 3, &[1, 2]);
    assert_eq!(states(&rig, &mounts), [MEMBER_LIVE, MEMBER_LIVE, MEMBER_FENCED, MEMBER_FENCED]);
}

#[test]
fn who_is_silent_among_enough_others_is_fenced() {
    // Another voter is heard.
    let (mut rig, mounts) = cluster();
    beat(&mut rig, &[2, 3], true);
    pass(&mut rig, LEASE + LEASE_MARGIN * 2, &[1, 3]);
    assert_eq!(states(&rig, &mounts), [MEMBER_LIVE, MEMBER_FENCED, MEMBER_LIVE, MEMBER_FENCED]);
    // None is left that beats.
    let (mut rig, mounts) = cluster();
    beat(&mut rig, &[], true);
    pass(&mut rig, LEASE + LEASE_MARGIN * 2, &[1]);
    assert_eq!(states(&rig, &mounts)[1..], [MEMBER_FENCED; 3]);
}

/// Who has a voter slot and waits until it may join says whether it is connected.
#[test]
fn a_voter_that_is_no_member_yet_is_heard_when_it_is_connected() {
    for connected in [true, false] {
        let (mut rig, mounts) = cluster();
        beat(&mut rig, &[5], connected);
        pass(&mut rig, LEASE + LEASE_MARGIN * 2, &[1]);
        let expected = if connected { MEMBER_FENCED } else { MEMBER_LIVE };
        assert_eq!(states(&rig, &mounts)[1..], [expected; 3], "{connected}");
    }
}
