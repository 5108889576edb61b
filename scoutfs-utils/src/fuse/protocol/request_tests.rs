// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the decoder.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;

/// A request with the header's length right.
fn request(opcode: u32, args: &[&[u8]]) -> Vec<u8> {
    let len = size_of::<abi::InHeader>() + args.iter().map(|a| a.len()).sum::<usize>();
    let header = abi::InHeader { len: len as u32, opcode, unique: 2, nodeid: 9, ..Default::default() };
    let mut bytes = header.as_bytes().to_vec();
    args.iter().for_each(|a| bytes.extend_from_slice(a));
    bytes
}

fn decode(opcode: Opcode, args: &[&[u8]]) -> Result<String, ProtocolError> {
    decode_operation(&request(opcode as u32, args), true).map(|op| format!("{op:?}"))
}

#[test]
fn names_are_terminated_not_empty_and_without_slash() {
    let bad = |args: &[&[u8]]| decode(Opcode::Unlink, args).unwrap_err();
    assert!(decode(Opcode::Unlink, &[b"a\0"]).is_ok());
    assert!(matches!(bad(&[b"a"]), ProtocolError::Unterminated { len: 1, .. }));
    assert!(matches!(bad(&[]), ProtocolError::Unterminated { len: 0, .. }));
    for name in [&b"\0"[..], b"a/b\0", b"/\0", b".\0", b"..\0"] {
        assert!(matches!(bad(&[name]), ProtocolError::BadName { .. }), "{name:?}");
    }
    assert!(decode(Opcode::Unlink, &[b"...\0"]).is_ok());
}

#[test]
fn lookup_takes_dots_and_xattrs_take_slashes() {
    assert!(decode(Opcode::Lookup, &[b"..\0"]).is_ok());
    assert!(decode(Opcode::Lookup, &[b"a/b\0"]).is_err());
    assert!(decode(Opcode::Removexattr, &[b"user.a/b\0"]).is_ok());
    assert!(decode(Opcode::Symlink, &[b"name\0", b"../target\0"]).is_ok());
    // The kernel's placeholder.
    assert!(decode(Opcode::Tmpfile, &[abi::CreateIn::default().as_bytes(), b"/\0"]).is_ok());
}

#[test]
fn a_write_has_all_its_data() {
    let head = abi::WriteIn { fh: 3, offset: 4096, size: 5, write_flags: 5, ..Default::default() };
    let bytes = request(Opcode::Write as u32, &[head.as_bytes(), b"hello"]);
    let Ok(Operation::Write { write, data }) = decode_operation(&bytes, true) else { panic!() };
    assert_eq!((write.fh, write.offset, data), (3, 4096, &b"hello"[..]));
    assert!(write.from_cache && write.kill_suidgid && write.lock_owner.is_none());
    let error = decode(Opcode::Write, &[head.as_bytes(), b"hell"]).unwrap_err();
    assert_eq!(error, ProtocolError::Truncated { opcode: 16, expected: 5, found: 4 });
}

#[test]
fn a_setxattr_has_the_negotiated_head() {
    let head = abi::SetxattrIn { size: 2, flags: 1 };
    let ext = abi::SetxattrInExt { setxattr_flags: 1, padding: 0 };
    let with = request(21, &[head.as_bytes(), ext.as_bytes(), b"user.x\0", b"ab"]);
    let without = request(21, &[head.as_bytes(), b"user.x\0", b"ab"]);
    for (bytes, negotiated) in [(with, true), (without, false)] {
        let Ok(Operation::Setxattr(set)) = decode_operation(&bytes, negotiated) else { panic!() };
        assert_eq!((set.name, set.value, set.flags), (&b"user.x"[..], &b"ab"[..], 1));
        assert_eq!(set.acl_kill_sgid, negotiated);
    }
}

#[test]
fn a_batch_of_forgets_lies_within_the_request() {
    let pairs: [u64; 4] = [5, 1, 6, 2];
    let head = |count| abi::BatchForgetIn { count, padding: 0 };
    // At an odd address, too.
    let mut shifted = vec![0];
    shifted.extend(request(42, &[head(2).as_bytes(), pairs.as_bytes()]));
    let Ok(Operation::Forget(forgets)) = decode_operation(&shifted[1..], true) else { panic!() };
    assert_eq!(forgets.collect::<Vec<_>>(), [(5, 1), (6, 2)]);
    assert!(decode(Opcode::BatchForget, &[head(3).as_bytes(), pairs.as_bytes()]).is_err());
    assert!(decode(Opcode::BatchForget, &[head(u32::MAX).as_bytes()]).is_err());
    let one = request(2, &[abi::ForgetIn { nlookup: 7 }.as_bytes()]);
    let Ok(Operation::Forget(forgets)) = decode_operation(&one, true) else { panic!() };
    assert_eq!(forgets.collect::<Vec<_>>(), [(9, 7)]);
}

#[test]
fn setattr_takes_what_is_marked_valid() {
    let valid = SetattrValid::SIZE | SetattrValid::ATIME | SetattrValid::ATIME_NOW | SetattrValid::MTIME;
    let mut raw = abi::SetattrIn { valid: valid.bits(), size: 7, mode: 5, ..Default::default() };
    (raw.mtime, raw.mtimensec) = ((-3_i64).cast_unsigned(), 999_999_999);
    let bytes = request(4, &[raw.as_bytes()]);
    let Ok(Operation::Setattr(set)) = decode_operation(&bytes, true) else { panic!() };
    let mtime = Some(SetTime::At(Timestamp { secs: -3, nanos: 999_999_999 }));
    assert_eq!(set, SetAttr { size: Some(7), atime: Some(SetTime::Now), mtime, ..Default::default() });
    raw.mtimensec += 1;
    let error = decode(Opcode::Setattr, &[raw.as_bytes()]).unwrap_err();
    assert!(matches!(error, ProtocolError::BadValue { value: 1_000_000_000, .. }));
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let mut bytes = request(3, &[&[0; 16]]);
    assert!(decode_operation(&bytes, true).is_ok());
    bytes.push(0);
    assert!(matches!(decode_operation(&bytes, true), Err(ProtocolError::Length { found: 57, .. })));
    assert!(matches!(decode_operation(&bytes[..39], true), Err(ProtocolError::NoHeader { found: 39, .. })));
    // Extensions longer than the request.
    let header = abi::InHeader { len: 56, opcode: 3, total_extlen: 3, ..Default::default() };
    let bytes = [header.as_bytes(), &[0; 16]].concat();
    assert!(matches!(decode_operation(&bytes, true), Err(ProtocolError::Truncated { .. })));
}

#[test]
fn unknown_opcodes_are_answered_and_not_errors() {
    for opcode in [0, 7, 19, 54, 4096, u32::MAX] {
        let bytes = request(opcode, &[b"anything"]);
        assert!(matches!(decode_operation(&bytes, true), Ok(Operation::Unsupported)));
        assert!(decode_header(&bytes).unwrap().0.has_reply());
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_to_a_request_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ext: bool,
    ) {
        let _ = decode_operation(&bytes, ext).map(|op| format!("{op:?}"));
    }

    #[test]
    fn any_arguments_of_any_opcode_decode_to_a_request_or_an_error(
        opcode in proptest::sample::select(Opcode::ALL),
        // Mostly small numbers, so that counts and sizes often fit.
        args in proptest::collection::vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 0..200),
        ext: bool,
    ) {
        let bytes = request(opcode as u32, &[&args]);
        if let Ok(operation) = decode_operation(&bytes, ext) {
            if let Operation::Forget(forgets) = &operation {
                prop_assert!(forgets.clone().count() <= bytes.len() / 8);
            }
            let _ = format!("{operation:?}");
        }
    }
}
