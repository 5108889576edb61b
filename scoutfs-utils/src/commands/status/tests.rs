// SPDX-License-Identifier: GPL-2.0-only

use super::*;
use scoutfs_format::server_item::MemberItem;
use scoutfs_format::voter::VOTER_FREE;

/// A voter of a made-up cluster.
fn block(rid: u64, term: u64, vote: (u32, u64), leader_term: u64, port: u16) -> QuorumBlock {
    let mut ip = [0; 16];
    ip[..4].copy_from_slice(&[192, 168, 7, 1]);
    QuorumBlock {
        state: VOTER_OWNED.into(),
        rid: rid.into(),
        term: term.into(),
        vote_for: vote.0.into(),
        vote_term: vote.1.into(),
        leader_term: leader_term.into(),
        connected_term: term.into(),
        address: Address { family: ADDRESS_V4.into(), port: port.into(), ip, ..Default::default() },
        ..Default::default()
    }
}

fn member(slot: u32, rid: u64, epoch: u64, state: u32) -> Member {
    let item = MemberItem { rid: rid.into(), epoch: epoch.into(), state: state.into(), ..Default::default() };
    Member { slot, item }
}

fn cluster() -> Found {
    assert_ne!(VOTER_FREE, VOTER_OWNED);
    Found {
        fsid: 0xabc,
        needed: 3,
        voters: vec![
            Voter::Owned { block: block(0x11, 9, (2, 9), 0, 4000), beats: true },
            Voter::Free,
            Voter::Owned { block: block(0x22, 9, (2, 9), 9, 4001), beats: true },
            // Led once, and does not beat any more.
            Voter::Owned { block: block(0x33, 10, (0, 0), 10, 4002), beats: false },
            Voter::Unreadable,
        ],
        members: vec![
            member(0, 0x11, 4, MEMBER_LIVE),
            member(1, 0x33, 1, MEMBER_FENCED),
            member(12, 0x44, 100, MEMBER_GONE),
        ],
    }
}

#[test]
fn the_table_is_the_reviewed_one() {
    let mut out = Vec::new();
    cluster().table(&mut out).unwrap();
    let expected = "\
volume 0000000000000abc
leader voter 2, mount 0000000000000022, address 192.168.7.1:4001, term 9
voters 2 of 5 beat, 3 needed
  slot  state       mount             address           term  vote    beats
  0     owned       0000000000000011  192.168.7.1:4000  9     2 in 9  yes
  1     free        -                 -                 -     -       -
  2     owned       0000000000000022  192.168.7.1:4001  9     2 in 9  yes
  3     owned       0000000000000033  192.168.7.1:4002  10    -       no
  4     unreadable  -                 -                 -     -       -
mounts 3
  slot  mount             address           epoch  state
  0     0000000000000011  192.168.7.1:4000  4      live
  1     0000000000000033  192.168.7.1:4002  1      fenced
  12    0000000000000044  -                 100    gone
";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn json_has_the_same() {
    let json = cluster().json();
    assert_eq!(json["leader"]["rid"], "0000000000000022");
    assert_eq!((json["term"].as_u64(), json["leader"]["term"].as_u64()), (Some(10), Some(9)));
    assert_eq!(json["voters"][0]["vote_for"], 2);
    assert!(json["voters"][3]["vote_for"].is_null());
    assert_eq!(json["voters"][3]["beats"], false);
    assert_eq!(json["mounts"][1]["state"], "fenced");
    assert!(json["mounts"][2]["address"].is_null());
}

#[test]
fn without_a_voter_that_beats_nobody_leads() {
    let mut found = cluster();
    for voter in &mut found.voters {
        if let Voter::Owned { beats, .. } = voter {
            *beats = false;
        }
    }
    assert!(found.leader().is_none() && found.json()["leader"].is_null());
}

#[test]
fn the_source_of_a_mount_is_found_by_its_number() {
    let line =
        "36 25 7:3 / /mnt/a\\040b rw,relatime shared:1 - fuseblk.scoutfs /dev/my\\040loop3 rw,user_id=0";
    assert_eq!(source_of(line, "7:3"), Some("/dev/my loop3".into()));
    assert_eq!(source_of(line, "7:4"), None);
    assert_eq!(source_of(&line.replace("fuseblk.scoutfs", "ext4"), "7:3"), None);
    assert_eq!(source_of("", "7:3"), None);
}
