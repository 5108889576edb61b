// SPDX-License-Identifier: GPL-2.0-only
//! Lists by themselves, against models that are as plain as can be.

use std::vec::Vec;
use std::{format, vec};

use proptest::prelude::*;
use scoutfs_format::acl::{ACL_NO_ID, MAX_ACL_ENTRIES};

use super::super::{Acl, AclError, Caller, Entry, Tag};
use super::{acl, list, text};
use crate::error::Error;

fn any_id() -> impl Strategy<Value = u32> {
    0u32..6
}

/// Entries of a sound list: those that must be there, some by number, and a mask, sometimes without need.
fn any_acl() -> impl Strategy<Value = Acl> {
    let perm = || 0u8..8;
    let named = || prop::collection::vec((any_id(), perm()), 0..4);
    (perm(), named(), perm(), named(), perm(), perm(), any::<bool>()).prop_map(
        |(user, users, group, groups, mask, other, masked)| {
            let mut entries = vec![Entry { tag: Tag::UserObj, perm: user }];
            let masked = masked || !users.is_empty() || !groups.is_empty();
            entries.extend(users.into_iter().map(|(id, perm)| Entry { tag: Tag::User(id), perm }));
            entries.push(Entry { tag: Tag::GroupObj, perm: group });
            entries.extend(groups.into_iter().map(|(id, perm)| Entry { tag: Tag::Group(id), perm }));
            if masked {
                entries.push(Entry { tag: Tag::Mask, perm: mask });
            }
            entries.push(Entry { tag: Tag::Other, perm: other });
            Acl::new(scoutfs_env::Vec::from_slice(&entries).unwrap()).unwrap()
        },
    )
}

/// The model: what each one who asks may do, from the entries as a table.
fn may(acl: &Acl, uid: u32, groups: &[u32], owner: u32, group: u32) -> Vec<u8> {
    let find = |tag: Tag| acl.entries().iter().find(|e| e.tag == tag).map(|e| e.perm);
    let mask = find(Tag::Mask).unwrap_or(7);
    if uid == owner {
        return vec![find(Tag::UserObj).unwrap()];
    }
    if let Some(perm) = find(Tag::User(uid)) {
        return vec![perm & mask];
    }
    let of_groups: Vec<u8> = acl
        .entries()
        .iter()
        .filter(|e| match e.tag {
            Tag::GroupObj => groups.contains(&group),
            Tag::Group(gid) => groups.contains(&gid),
            _ => false,
        })
        .map(|e| e.perm & mask)
        .collect();
    if of_groups.is_empty() { vec![find(Tag::Other).unwrap()] } else { of_groups }
}

/// The model: whether raw entries (tag, perm, id) are a list. Each tag is a letter, and a list a word of a language.
fn is_list(raw: &[(u16, u16, u32)]) -> bool {
    let letters: std::string::String = raw
        .iter()
        .map(|(tag, perm, id)| match (tag, *id) {
            _ if *perm > 7 => '!',
            (1, _) => 'U',
            (2, id) if id != ACL_NO_ID => 'u',
            (4, _) => 'G',
            (8, id) if id != ACL_NO_ID => 'g',
            (16, _) => 'm',
            (32, _) => 'o',
            _ => '!',
        })
        .collect();
    let rest = letters.strip_prefix('U').map(|l| l.trim_start_matches('u'));
    let rest = rest.and_then(|l| l.strip_prefix('G')).map(|l| l.trim_start_matches('g'));
    let named = letters.contains(['u', 'g']);
    rest == Some("mo") || (rest == Some("o") && !named)
}

fn raw_bytes(version: u32, raw: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = version.to_le_bytes().to_vec();
    for (tag, perm, id) in raw {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn any_raw() -> impl Strategy<Value = Vec<(u16, u16, u32)>> {
    let tag = prop_oneof![
        20 => prop::sample::select(vec![1u16, 2, 4, 8, 16, 32]),
        1 => any::<u16>()
    ];
    let perm = prop_oneof![20 => 0u16..8, 1 => any::<u16>()];
    let id = prop_oneof![10 => any_id(), 1 => Just(ACL_NO_ID), 1 => any::<u32>()];
    let any_order = prop::collection::vec((tag, perm, id), 0..8);
    // Sound ones, and those with one entry too many, too few or in another place.
    let near = (any_acl(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..4).prop_map(
        |(acl, at, to, how)| {
            let bytes = acl.encode().unwrap();
            let mut raw: Vec<(u16, u16, u32)> = bytes[4..]
                .chunks(8)
                .map(|e| {
                    let half = |at: usize| u16::from_le_bytes(e[at..at + 2].try_into().unwrap());
                    (half(0), half(2), u32::from_le_bytes(e[4..].try_into().unwrap()))
                })
                .collect();
            let (at, to) = (at.index(raw.len()), to.index(raw.len()));
            match how {
                1 => raw.swap(at, to),
                2 => drop(raw.remove(at)),
                3 => raw.insert(to, raw[at]),
                _ => {}
            }
            raw
        },
    );
    prop_oneof![any_order, near]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_list_is_its_bytes(acl in any_acl()) {
        let bytes = acl.encode().unwrap();
        let (parsed, stored) = (Acl::parse(&bytes).unwrap(), Acl::parse_stored(&bytes).unwrap());
        prop_assert_eq!(parsed.as_ref(), Some(&acl));
        prop_assert_eq!(stored.as_ref(), Ok(&acl));
    }

    #[test]
    fn what_is_a_list_is_what_the_language_says(raw in any_raw()) {
        let bytes = raw_bytes(2, &raw);
        match Acl::parse(&bytes) {
            Ok(None) => prop_assert!(raw.is_empty()),
            Ok(Some(acl)) => {
                prop_assert!(is_list(&raw));
                // It is kept in one form whatever ids it came with, and all else of it is kept.
                let canonical = acl.encode().unwrap();
                let cleared: Vec<_> = raw
                    .iter()
                    .map(|(tag, perm, id)| (*tag, *perm, if matches!(tag, 2 | 8) { *id } else { ACL_NO_ID }))
                    .collect();
                prop_assert_eq!(&canonical[..], &raw_bytes(2, &cleared)[..]);
                let stored = Acl::parse_stored(&bytes).unwrap();
                prop_assert_eq!(stored.is_ok(), cleared == raw);
            }
            Err(e) => {
                prop_assert!(!is_list(&raw) && !raw.is_empty());
                prop_assert_eq!(e.errno(), 22);
                prop_assert!(Acl::parse_stored(&bytes).unwrap().is_err());
            }
        }
    }

    #[test]
    fn hostile_bytes_are_an_error_or_a_list(bytes in prop::collection::vec(any::<u8>(), 0..60), version in prop::bool::ANY) {
        let mut bytes = bytes;
        if version && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&2u32.to_le_bytes());
        }
        let stored = Acl::parse_stored(&bytes).unwrap();
        match Acl::parse(&bytes) {
            Ok(Some(acl)) => prop_assert_eq!(Acl::parse(&acl.encode().unwrap()).unwrap(), Some(acl)),
            Ok(None) => prop_assert!(bytes.is_empty() || bytes == 2u32.to_le_bytes()),
            Err(e) => {
                prop_assert!(matches!(e.errno(), 22 | 95), "{}", e);
                prop_assert!(stored.is_err());
            }
        }
    }

    #[test]
    fn a_list_permits_what_the_table_says(
        acl in any_acl(),
        (uid, owner, group) in (any_id(), any_id(), any_id()),
        groups in prop::collection::vec(any_id(), 0..3),
    ) {
        let caller = Caller { uid, groups: &groups, reads_all: false };
        let may = may(&acl, uid, &groups, owner, group);
        for want in 0..8 {
            // Of several groups one must permit all of it.
            let permitted = may.iter().any(|perm| perm & want == want);
            prop_assert_eq!(acl.permits(&caller, owner, group, want), permitted, "{} {:?} {}", text(&acl), caller, want);
        }
    }

    #[test]
    fn a_list_and_its_mode_follow_each_other(acl in any_acl(), mode in 0u32..0o10000) {
        let mut followed = acl.try_clone().unwrap();
        followed.set_mode(mode);
        prop_assert_eq!(followed.mode(), mode & 0o777);
        // Entries by number, and the group's where there is a mask, stay as they are.
        let has_mask = acl.entries().iter().any(|e| e.tag == Tag::Mask);
        for (before, after) in acl.entries().iter().zip(followed.entries()) {
            prop_assert_eq!(before.tag, after.tag);
            let stays = matches!(before.tag, Tag::User(_) | Tag::Group(_)) || (before.tag == Tag::GroupObj && has_mask);
            if stays {
                prop_assert_eq!(before.perm, after.perm);
            }
        }
        // The list permits nobody more than the mode does.
        for (uid, groups, shift) in [(1000, vec![], 6), (1001, vec![1002], 3), (1001, vec![], 0)] {
            let caller = Caller { uid, groups: &groups, reads_all: false };
            for want in 0..8u8 {
                if followed.permits(&caller, 1000, 1002, want) {
                    prop_assert_eq!(mode >> shift & u32::from(want), want.into());
                }
            }
        }
    }

    #[test]
    fn a_list_that_is_handed_down_permits_no_more_than_the_maker_and_the_default_list(
        default in any_acl(),
        mode in 0u32..0o10000,
    ) {
        let mut made = default.try_clone().unwrap();
        let result = made.inherit(mode);
        prop_assert_eq!(result & 0o777, default.mode() & mode);
        prop_assert_eq!(result & !0o777, mode & !0o777);
        prop_assert_eq!(made.mode(), result & 0o777);
        let mut again = default.try_clone().unwrap();
        again.set_mode(result);
        prop_assert_eq!(made, again);
    }
}

#[test]
fn what_is_wrong_with_a_list_is_told() {
    let stored = |bytes: &[u8]| Acl::parse_stored(bytes).unwrap().unwrap_err();
    let sound = list("u::7,u:5:6,g::4,m::7,o::0");
    assert_eq!(stored(&[2, 0, 0]), AclError::Length { len: 3 });
    assert_eq!(stored(&sound[..sound.len() - 1]), AclError::Length { len: sound.len() - 1 });
    assert_eq!(stored(&[]), AclError::Missing);
    assert_eq!(stored(&[1, 0, 0, 0]), AclError::Version { version: 1 });
    assert_eq!(
        stored(&raw_bytes(2, &[(1, 7, ACL_NO_ID), (64, 0, 3)])),
        AclError::EntryTag { index: 1, tag: 64, id: 3 }
    );
    assert_eq!(stored(&raw_bytes(2, &[(1, 8, ACL_NO_ID)])), AclError::EntryPerm { index: 0, perm: 8 });
    assert_eq!(stored(&raw_bytes(2, &[(4, 0, ACL_NO_ID), (1, 0, ACL_NO_ID)])), AclError::Order { index: 1 });
    assert_eq!(
        stored(&raw_bytes(2, &[(1, 0, 0), (4, 0, ACL_NO_ID), (32, 0, ACL_NO_ID)])),
        AclError::NotCanonical
    );
    // Another version is what Linux calls not supported; too long a list, too big.
    assert!(matches!(Acl::parse(&[1, 0, 0, 0]), Err(Error::NotSupported)));
    let long = |users: usize| {
        let mut raw = vec![(1, 7, ACL_NO_ID)];
        raw.extend((0..users as u32).map(|id| (2, 7, id)));
        raw.extend([(4, 7, ACL_NO_ID), (16, 7, ACL_NO_ID), (32, 7, ACL_NO_ID)]);
        raw_bytes(2, &raw)
    };
    assert!(Acl::parse(&long(MAX_ACL_ENTRIES - 4)).unwrap().is_some());
    assert!(matches!(Acl::parse(&long(MAX_ACL_ENTRIES - 3)), Err(Error::TooBig)));
    assert_eq!(stored(&long(MAX_ACL_ENTRIES - 3)), AclError::TooMany { entries: MAX_ACL_ENTRIES + 1 });
    assert_eq!(format!("{}", AclError::Order { index: 1 }), "entry 1 is out of order, or there twice");
}

#[test]
fn the_bytes_are_those_of_linux() {
    let bytes = list("u::6,u:1000:5,g::4,g:258:3,m::7,o::0");
    #[rustfmt::skip]
    let expected = [
        2, 0, 0, 0,
        1, 0, 6, 0, 255, 255, 255, 255,
        2, 0, 5, 0, 232, 3, 0, 0,
        4, 0, 4, 0, 255, 255, 255, 255,
        8, 0, 3, 0, 2, 1, 0, 0,
        16, 0, 7, 0, 255, 255, 255, 255,
        32, 0, 0, 0, 255, 255, 255, 255,
    ];
    assert_eq!(bytes, expected);
    assert_eq!(text(&acl("u::6,u:1000:5,g::4,g:258:3,m::7,o::0")), "u::6,u:1000:5,g::4,g:258:3,m::7,o::0");
}
