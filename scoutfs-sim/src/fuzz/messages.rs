// SPDX-License-Identifier: GPL-2.0-only
//! What comes from the network, from programs, and from the kernel.

use scoutfs_env::crc32c::crc32c;
use scoutfs_format::msg::{LockMessage, MessageHeader};
use scoutfs_fs::acl::Acl;
use scoutfs_lock::{LockName, Message, Mode, Opens};
use scoutfs_net::Decoder;
use scoutfs_net::frame::{HEADER_LEN, Header, encode};
use scoutfs_utils::fuse::describe_request;
use zerocopy::FromBytes;

use super::refused;

pub fn frames() -> Vec<Vec<u8>> {
    let header = |kind, id| Header { kind, response: id % 2 == 1, status: 0, seq: id, ack: 1, id, term: 3 };
    let mut stream = scoutfs_env::Vec::new();
    let mut seeds = Vec::new();
    for kind in 1..20 {
        let payload = vec![kind; usize::from(kind) * 13];
        encode(&header(kind, kind.into()), &payload, &mut stream).expect("memory");
        let mut one = scoutfs_env::Vec::new();
        encode(&header(kind, 7), &payload, &mut one).expect("memory");
        seeds.push(one.to_vec());
    }
    seeds.push(stream.to_vec());
    seeds
}

/// Signs the frames that follow each other.
pub fn sign_frames(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..)
        && let Ok((header, _)) = MessageHeader::read_from_prefix(rest)
    {
        let Some(frame) = rest.get_mut(..HEADER_LEN.saturating_add(header.payload_len.get() as usize)) else {
            return;
        };
        let crc = crc32c(&frame[4..]);
        frame[..4].copy_from_slice(&crc.to_le_bytes());
        at += frame.len();
    }
}

/// Frames that come in pieces are those that come at once, and are what they were encoded from.
pub fn frame(bytes: &[u8]) -> String {
    let mut whole = Decoder::new();
    whole.push(bytes).expect("memory");
    let mut at = 0;
    let mut kinds = Vec::new();
    let end = loop {
        match whole.next() {
            Ok(Some(frame)) => {
                let mut again = scoutfs_env::Vec::new();
                encode(&frame.header, frame.payload, &mut again).expect("memory");
                assert_eq!(again[..], bytes[at..at + again.len()]);
                at += again.len();
                kinds.push((frame.header, frame.payload.len()));
            }
            Ok(None) => break None,
            Err(e) => break Some(e),
        }
    };
    let mut pieces = Decoder::new();
    let mut in_pieces = Vec::new();
    let step = 1 + bytes.len() / 50;
    'pieces: for piece in bytes.chunks(step) {
        pieces.push(piece).expect("memory");
        loop {
            match pieces.next() {
                Ok(Some(frame)) => in_pieces.push((frame.header, frame.payload.len())),
                Ok(None) => break,
                Err(e) => {
                    assert_eq!(Some(e), end);
                    break 'pieces;
                }
            }
        }
    }
    assert_eq!(in_pieces, kinds);
    match end {
        Some(e) => refused(&e),
        None => format!("ok {}", kinds.len().min(3)),
    }
}

pub fn lock_messages() -> Vec<Vec<u8>> {
    let message =
        |name, old_mode, mode| Message { name, version: 9, commit_nr: 8, generation: 7, old_mode, mode };
    [(1, Mode::Read, Mode::Write), (5000, Mode::Null, Mode::Read), (u64::MAX, Mode::Write, Mode::Null)]
        .map(|(ino, old, new)| {
            let mut opens = Opens::default();
            if new == Mode::Null {
                opens.insert(ino);
            }
            message(LockName::group_of(ino), old, new).to_payload(&opens).unwrap().to_vec()
        })
        .to_vec()
}

pub fn lock_message(bytes: &[u8]) -> String {
    match Message::parse(bytes) {
        Ok((message, opens, rest)) => {
            let payload = message.to_payload(&opens).unwrap();
            // An empty set is sent as none.
            if !opens.is_empty() || bytes.len() - rest.len() == size_of::<LockMessage>() {
                assert_eq!([&*payload, rest].concat(), bytes);
            }
            format!("ok {:?} {:?}", message.old_mode, message.mode)
        }
        Err(e) => refused(&e),
    }
}

pub fn acls() -> Vec<Vec<u8>> {
    let list = |entries: &[(u16, u16, u32)]| {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&perm.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    };
    let none = u32::MAX;
    vec![
        list(&[]),
        list(&[(1, 6, none), (4, 4, none), (0x20, 4, none)]),
        list(&[
            (1, 6, none),
            (2, 7, 5),
            (2, 0, 9),
            (4, 4, none),
            (8, 1, 3),
            (0x10, 7, none),
            (0x20, 4, none),
        ]),
    ]
}

/// A stored list is its own encoding; one of a program is, when it is stored, what it was.
pub fn acl(bytes: &[u8]) -> String {
    let stored = Acl::parse_stored(bytes).expect("memory");
    if let Ok(acl) = &stored {
        assert_eq!(acl.encode().expect("memory")[..], *bytes);
        assert!(acl.mode() <= 0o777);
    }
    match Acl::parse(bytes) {
        Ok(Some(acl)) => {
            let encoded = acl.encode().expect("memory");
            let again = Acl::parse_stored(&encoded).expect("memory").expect("it was sound");
            assert_eq!(again.entries(), acl.entries());
            format!("ok {} {} {}", stored.is_ok(), acl.is_minimal(), acl.entries().len().min(9))
        }
        Ok(None) => "none".into(),
        Err(e) => {
            assert!(stored.is_err(), "a stored list that no program can set");
            refused(&e) + &refused(&stored.err())
        }
    }
}

const FUSE_HEADER: usize = 40;

/// One request of each operation, with enough zeros and a name behind.
pub fn fuse_requests() -> Vec<Vec<u8>> {
    let operations = (1..=53).chain([4096, 4097]);
    let mut seeds = Vec::new();
    for opcode in operations {
        for arguments in [0usize, 8, 16, 24, 40, 56, 64, 88, 104] {
            let mut bytes = vec![0; FUSE_HEADER + arguments];
            bytes[4..8].copy_from_slice(&u32::to_le_bytes(opcode));
            bytes.extend_from_slice(b"name\0other\0value");
            sign_fuse(&mut bytes);
            seeds.push(bytes);
        }
    }
    seeds
}

/// The length, which the kernel gets right.
pub fn sign_fuse(bytes: &mut [u8]) {
    let len = bytes.len() as u32;
    if let Some(field) = bytes.first_chunk_mut() {
        *field = len.to_ne_bytes();
    }
}

pub fn fuse_request(bytes: &[u8]) -> String {
    let answers = [true, false].map(|extended| match describe_request(bytes, extended) {
        // The operation.
        Ok(text) => format!("ok {}", text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()),
        Err(e) => refused(&e),
    });
    answers.concat()
}
