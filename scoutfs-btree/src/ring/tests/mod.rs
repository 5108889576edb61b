// SPDX-License-Identifier: GPL-2.0-only
//! What a ring promises, one promise after the other; `crash` has a mount that lives through many
//! crashes, `follow` somebody who reads on.

mod crash;
mod follow;

use proptest::prelude::*;
use scoutfs_env::crc32c::crc32c;
use scoutfs_format::geometry::RING_FRAMES;
use scoutfs_format::key::{KIND_INODE, ZONE_FS};
use scoutfs_format::le::{U32, U64};
use scoutfs_format::ring::{
    FRAME_PAYLOAD, FrameHeader, LOG_FINALIZED, LOG_SEALED, LogTree, MAX_LOGS, MAX_RECORD_FRAMES,
    RECORD_CHECKPOINT, RECORD_CLEAN, RecordHeader,
};
use scoutfs_format::space::{ENTRY_FREE, SPACE_DATA, SpaceEntry};
use scoutfs_format::tree::MAX_VALUE_LEN;
use scoutfs_format::{Key, SECTOR_SIZE};
use std::vec;
use std::vec::Vec;
use zerocopy::IntoBytes;

use super::*;

const FSID: u64 = 0x1234_5678_9abc_def0;
const SLOT: u16 = 7;

fn owner(epoch: u64) -> RingOwner {
    RingOwner { fsid: FSID, slot: SLOT, epoch }
}

fn header(flags: u32, trans_seq: u64) -> RecordHeader {
    RecordHeader { flags: U32::new(flags), trans_seq: U64::new(trans_seq), ..RecordHeader::default() }
}

fn key(n: u64) -> Key {
    Key::new(ZONE_FS, n, KIND_INODE, 0, 0, 0)
}

fn item(n: u64, value: &[u8]) -> RecordItem<'_> {
    RecordItem { key: key(n), version: n + 1, deletion: false, value }
}

fn free_entry(start: u64) -> SpaceEntry {
    SpaceEntry {
        start: U64::new(start),
        len: U32::new(3),
        kind: SPACE_DATA,
        state: ENTRY_FREE,
        ..SpaceEntry::default()
    }
}

/// A record of items whose values have these lengths.
fn record(flags: u32, trans_seq: u64, lens: &[usize]) -> RecordBuilder {
    let mut builder = RecordBuilder::new(header(flags, trans_seq));
    for (n, &len) in lens.iter().enumerate() {
        builder.add_item(&item(n as u64, &vec![trans_seq as u8 ^ n as u8; len])).unwrap();
    }
    builder
}

/// Items that take exactly so many frames.
fn lens_for(frames: u32) -> Vec<usize> {
    let mut bytes = frames as usize * FRAME_PAYLOAD - size_of::<RecordHeader>();
    let mut lens = Vec::new();
    while bytes > 48 {
        let len = (bytes - 48).min(1000);
        lens.push(len);
        bytes -= len + 48;
    }
    lens
}

fn write(ring: &mut [u8], place: &Placement, bytes: &[u8]) {
    let at = place.offset_bytes() as usize;
    ring[at..at + bytes.len()].copy_from_slice(bytes);
}

fn commit(ring: &mut [u8], writer: &mut RingWriter, builder: &RecordBuilder) -> Result<Placement, RingError> {
    let flags = if builder.is_checkpoint() { RECORD_CHECKPOINT } else { 0 };
    let place = writer.place(builder.frames(), flags)?;
    write(ring, &place, &builder.encode(&place).unwrap());
    writer.written(&place).unwrap();
    Ok(place)
}

fn parse(ring: &[u8]) -> Result<Option<RingState>, RingError> {
    parse_ring(ring, FSID, SLOT, None)
}

fn newest_nr(ring: &[u8]) -> u64 {
    parse(ring).unwrap().unwrap().commit_nr()
}

/// Makes the checksum of a frame right again.
fn resign(frame: &mut [u8]) {
    let crc = crc32c(&frame[4..]);
    frame[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A ring with a checkpoint (number 1) and the given records after it, and its writer.
fn ring_with(records: &[RecordBuilder]) -> (Vec<u8>, RingWriter) {
    let mut ring = vec![0; RING_BYTES];
    let mut writer = RingWriter::open(&ring, owner(1)).unwrap();
    commit(&mut ring, &mut writer, &record(RECORD_CHECKPOINT, 1, &[])).unwrap();
    for builder in records {
        commit(&mut ring, &mut writer, builder).unwrap();
    }
    (ring, writer)
}

#[test]
fn a_record_comes_back_as_it_was_made() {
    let mut builder = RecordBuilder::new(header(RECORD_CHECKPOINT, 77));
    let logs: Vec<_> = [LOG_FINALIZED, LOG_FINALIZED, LOG_SEALED, 0]
        .into_iter()
        .zip(1..)
        .map(|(flags, nr)| LogTree {
            nr: U64::new(nr),
            flags: U32::new(flags),
            min_version: U64::new(nr),
            ..LogTree::default()
        })
        .collect();
    // Values longer than a frame, none, and a deletion.
    let values: Vec<Vec<u8>> = [MAX_VALUE_LEN, 0, 1, 4056, 4000, 17].map(|len| vec![len as u8; len]).into();
    for (n, value) in values.iter().enumerate() {
        builder.add_item(&item(n as u64, value)).unwrap();
    }
    let deletion = RecordItem { key: key(99), version: 5, deletion: true, value: &[] };
    builder.add_item(&deletion).unwrap();
    for log in &logs {
        builder.add_log(log).unwrap();
    }
    builder.add_space(&free_entry(40)).unwrap();
    builder.add_space(&free_entry(50)).unwrap();
    let (ring, _) = ring_with(&[builder, record(0, 78, &[])]);

    let state = parse(&ring).unwrap().unwrap();
    assert_eq!((state.epoch(), state.commit_nr(), state.records().len()), (1, 3, 2));
    assert!(state.logs().eq(logs), "the log trees are those of the checkpoint");
    assert_eq!(state.newest().logs().count(), 0);
    let newest = &state.records()[0];
    assert_eq!(newest.header().trans_seq.get(), 77);
    assert_eq!(newest.header().checkpoint_nr.get(), 2);
    assert!(newest.space().eq([free_entry(40), free_entry(50)]));
    let mut expected: Vec<_> = values.iter().enumerate().map(|(n, value)| item(n as u64, value)).collect();
    expected.push(deletion);
    assert!(newest.items().eq(expected));
}

#[test]
fn the_longest_record_fits_and_nothing_longer() {
    let mut builder = RecordBuilder::new(header(0, 1));
    let lens = lens_for(MAX_RECORD_FRAMES);
    for (n, &len) in lens.iter().enumerate() {
        builder.add_item(&item(n as u64, &vec![9; len])).unwrap();
    }
    assert_eq!(builder.frames(), MAX_RECORD_FRAMES);
    assert_eq!(builder.room_for_space(MAX_RECORD_FRAMES), 48 / size_of::<SpaceEntry>() - 2);
    assert_eq!(builder.add_item(&item(10_000, &[1; 48])), Err(RingError::RecordFull));
    assert_eq!(builder.nr_items() as usize, lens.len());
    let (ring, _) = ring_with(&[builder]);
    assert_eq!(parse(&ring).unwrap().unwrap().newest().items().count(), lens.len());
}

#[test]
fn a_record_counts_as_a_whole_or_not_at_all() {
    let (before, mut writer) = ring_with(&[record(0, 2, &[10])]);
    let builder = record(0, 3, &lens_for(4));
    let place = writer.place(builder.frames(), 0).unwrap();
    let bytes = builder.encode(&place).unwrap();
    // Any subset of the frames but all of them: the state before stands.
    for written in 0..1u32 << builder.frames() {
        let mut ring = before.clone();
        for (n, frame) in bytes.chunks(SECTOR_SIZE).enumerate() {
            if written & 1 << n != 0 {
                let at = place.offset_bytes() as usize + n * SECTOR_SIZE;
                ring[at..at + SECTOR_SIZE].copy_from_slice(frame);
            }
        }
        let whole = written == (1 << builder.frames()) - 1;
        assert_eq!(newest_nr(&ring), if whole { 3 } else { 2 });
    }
    // And so for any damaged byte.
    for at in (0..bytes.len()).step_by(97) {
        let mut ring = before.clone();
        write(&mut ring, &place, &bytes);
        ring[place.offset_bytes() as usize + at] ^= 0x10;
        assert_eq!(newest_nr(&ring), 2, "byte {at}");
    }
}

/// A ring in which records of four frames have filled all places once, and its writer, that is at the first place.
fn ring_of_fours(epoch: u64) -> (Vec<u8>, RingWriter) {
    let mut ring = vec![0; RING_BYTES];
    let mut writer = RingWriter::open(&ring, owner(epoch)).unwrap();
    for seq in 0..16 {
        let flags = if seq % 8 == 0 { RECORD_CHECKPOINT } else { 0 };
        commit(&mut ring, &mut writer, &record(flags, seq, &lens_for(4))).unwrap();
    }
    (ring, writer)
}

#[test]
fn frames_of_an_older_lap_never_complete_a_torn_record() {
    let (before, mut writer) = ring_of_fours(1);
    let builder = record(0, 99, &lens_for(4));
    let place = writer.place(4, 0).unwrap();
    assert_eq!((place.offset_bytes(), place.commit_nr()), (0, 17));
    let bytes = builder.encode(&place).unwrap();
    for written in 0..16u32 {
        let mut ring = before.clone();
        for n in (0..4).filter(|n| written & 1 << n != 0) {
            let part = n * SECTOR_SIZE..(n + 1) * SECTOR_SIZE;
            ring[part.clone()].copy_from_slice(&bytes[part]);
        }
        assert_eq!(newest_nr(&ring), if written == 15 { 17 } else { 16 });
    }
}

#[test]
fn frames_that_a_former_owner_wrote_late_never_complete_a_record() {
    // Both have a record of this number, for the new owner never saw the other's.
    let (old, _) = ring_of_fours(1);
    let (new, _) = ring_of_fours(2);
    for late in 1..15u32 {
        let mut ring = new.clone();
        for n in (60..64).filter(|n| late & 1 << (n - 60) != 0) {
            let part = n * SECTOR_SIZE..(n + 1) * SECTOR_SIZE;
            ring[part.clone()].copy_from_slice(&old[part]);
        }
        assert_eq!(newest_nr(&ring), 15);
    }
}

#[test]
fn frames_in_another_order_are_no_record() {
    let (ring, _) = ring_of_fours(1);
    for (a, b) in [(60, 61), (61, 62), (61, 63), (62, 63)] {
        let mut ring = ring.clone();
        let (low, high) = ring.split_at_mut(b * SECTOR_SIZE);
        low[a * SECTOR_SIZE..][..SECTOR_SIZE].swap_with_slice(&mut high[..SECTOR_SIZE]);
        assert_eq!(newest_nr(&ring), 15);
    }
}

#[test]
fn content_that_looks_like_frames_is_content() {
    // A later checkpoint, whole and well signed, at each place in a value that could be taken for a frame's.
    let (other, mut other_writer) = ring_with(&[record(0, 2, &[10])]);
    drop(other);
    let forged = record(RECORD_CHECKPOINT, 66, &[1]);
    let place = other_writer.place(forged.frames(), RECORD_CHECKPOINT).unwrap();
    let forged = forged.encode(&place).unwrap();
    for shift in 0..SECTOR_SIZE {
        if shift % 64 != 0 && shift > 200 {
            continue;
        }
        let mut value = forged.to_vec();
        value.rotate_right(shift);
        let mut builder = RecordBuilder::new(header(0, 2));
        for n in 0..15 {
            builder.add_item(&item(n, &value[..4056 - 48])).unwrap();
        }
        let (ring, _) = ring_with(&[builder]);
        assert_eq!(newest_nr(&ring), 2);
    }
}

#[test]
fn a_missing_record_of_the_chain_is_an_error_that_may_pass() {
    let records: Vec<_> = (2..6).map(|seq| record(0, seq, &[100])).collect();
    let (ring, _) = ring_with(&records);
    for missing in 1..=4 {
        let mut ring = ring.clone();
        ring[(missing as usize - 1) * SECTOR_SIZE + 100] ^= 1;
        let error = parse(&ring).unwrap_err();
        assert_eq!(error, RingError::Missing { commit_nr: 5, missing });
        assert!(error.may_be_transient());
    }
}

#[test]
fn a_reader_of_a_ring_that_is_being_written_sees_an_old_state_or_an_error() {
    // The reader gets the first frames before, and the others after, the owner wrote a whole lap.
    let (before, mut writer) = ring_with(&[record(0, 2, &[100]), record(0, 3, &lens_for(3))]);
    let mut after = before.clone();
    for seq in 4..80 {
        let builder = record(0, seq, &[500]);
        if commit(&mut after, &mut writer, &builder).is_err() {
            commit(&mut after, &mut writer, &record(RECORD_CHECKPOINT, seq, &[])).unwrap();
        }
        for at in (0..=RING_BYTES).step_by(SECTOR_SIZE) {
            let mut mixed = before.clone();
            mixed[at..].copy_from_slice(&after[at..]);
            match parse(&mixed) {
                Ok(state) => assert!((3..=writer.commit_nr()).contains(&state.unwrap().commit_nr())),
                Err(error) => assert!(error.may_be_transient(), "{error}"),
            }
        }
    }
}

#[test]
fn only_the_wanted_epoch_is_looked_at() {
    let (mut ring, writer) = ring_with(&[record(0, 2, &[10])]);
    assert_eq!(writer.commit_nr(), 2);
    assert!(parse_ring(&ring, FSID, SLOT, Some(2)).unwrap().is_none());
    assert!(parse_ring(&ring, FSID + 1, SLOT, None).unwrap().is_none());
    assert!(parse_ring(&ring, FSID, SLOT + 1, None).unwrap().is_none());
    let mut writer = RingWriter::open(&ring, owner(2)).unwrap();
    assert_eq!(writer.place(1, 0), Err(RingError::NeedCheckpoint { frames: 1 }));
    commit(&mut ring, &mut writer, &record(RECORD_CHECKPOINT, 5, &[])).unwrap();
    // Numbers go on, and both epochs are there.
    assert_eq!(parse_ring(&ring, FSID, SLOT, Some(1)).unwrap().unwrap().commit_nr(), 2);
    assert_eq!(parse_ring(&ring, FSID, SLOT, Some(2)).unwrap().unwrap().commit_nr(), 3);
    assert_eq!(newest_nr(&ring), 3);
    let too_old = RingWriter::open(&ring, owner(2)).unwrap_err();
    assert_eq!(too_old, RingError::EpochNotNew { epoch: 2, found: 2 });
}

#[test]
fn a_number_of_a_torn_record_is_not_used_again() {
    let (mut ring, mut writer) = ring_with(&[]);
    let builder = record(0, 2, &lens_for(2));
    let place = writer.place(2, 0).unwrap();
    write(&mut ring, &place, &builder.encode(&place).unwrap()[..SECTOR_SIZE]);
    let mut writer = RingWriter::open(&ring, owner(2)).unwrap();
    assert_eq!(writer.place(1, RECORD_CHECKPOINT).unwrap().commit_nr(), 3);
}

#[test]
fn a_record_must_be_durable_before_the_next_is_placed() {
    let (_, mut writer) = ring_with(&[]);
    let place = writer.place(2, 0).unwrap();
    assert_eq!(writer.place(2, 0), Err(RingError::WritePending { commit_nr: 2 }));
    writer.written(&place).unwrap();
    assert_eq!(writer.written(&place), Err(RingError::NotPlaced { commit_nr: 2 }));
    let next = writer.place(1, 0).unwrap();
    assert_eq!(record(0, 1, &lens_for(2)).encode(&next), Err(RingError::NotPlaced { commit_nr: 3 }));
    assert_eq!(record(RECORD_CHECKPOINT, 1, &[]).encode(&next), Err(RingError::NotPlaced { commit_nr: 3 }));
}

#[test]
fn nothing_follows_the_record_with_which_a_mount_leaves() {
    let (mut ring, mut writer) = ring_with(&[]);
    let builder = record(RECORD_CLEAN, 2, &[5]);
    let place = writer.place(1, RECORD_CLEAN).unwrap();
    write(&mut ring, &place, &builder.encode(&place).unwrap());
    writer.written(&place).unwrap();
    assert!(parse(&ring).unwrap().unwrap().newest().is_clean());
    assert_eq!(writer.place(1, RECORD_CHECKPOINT), Err(RingError::Left { commit_nr: 2 }));
    // On the device it is an error as well.
    let mut forged = ring[2 * SECTOR_SIZE..3 * SECTOR_SIZE].to_vec();
    assert!(forged.iter().all(|&byte| byte == 0));
    forged.copy_from_slice(&ring[SECTOR_SIZE..2 * SECTOR_SIZE]);
    forged[16] += 1;
    resign(&mut forged);
    ring[2 * SECTOR_SIZE..3 * SECTOR_SIZE].copy_from_slice(&forged);
    assert_eq!(parse(&ring).unwrap_err(), RingError::AfterClean { commit_nr: 2 });
}

#[test]
fn one_number_cannot_be_there_twice() {
    let (mut ring, _) = ring_with(&[record(0, 2, &[5])]);
    let copy = ring[SECTOR_SIZE..2 * SECTOR_SIZE].to_vec();
    ring[9 * SECTOR_SIZE..10 * SECTOR_SIZE].copy_from_slice(&copy);
    assert_eq!(parse(&ring).unwrap_err(), RingError::Duplicate { commit_nr: 2, first: 1, second: 9 });
}

#[test]
fn a_record_that_reaches_back_over_a_checkpoint_is_refused() {
    let (mut ring, _) =
        ring_with(&[record(0, 2, &[5]), record(RECORD_CHECKPOINT, 3, &[]), record(0, 4, &[5])]);
    let at = size_of::<FrameHeader>() + core::mem::offset_of!(RecordHeader, checkpoint_nr);
    for (forged, error) in [
        (1, RingError::CheckpointNumber { commit_nr: 3, found: 3 }),
        (0, RingError::Missing { commit_nr: 4, missing: 0 }),
        (4, RingError::CheckpointNumber { commit_nr: 4, found: 4 }),
        (5, RingError::CheckpointNumber { commit_nr: 4, found: 5 }),
    ] {
        let frame = &mut ring[3 * SECTOR_SIZE..4 * SECTOR_SIZE];
        frame[at] = forged;
        resign(frame);
        assert_eq!(parse(&ring).unwrap_err(), error);
    }
}

#[test]
fn the_last_number_is_not_passed() {
    let (mut ring, _) = ring_with(&[]);
    ring[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    resign(&mut ring[..SECTOR_SIZE]);
    let mut writer = RingWriter::open(&ring, owner(2)).unwrap();
    let error = RingError::NumbersExhausted { commit_nr: u64::MAX };
    assert_eq!(writer.place(1, RECORD_CHECKPOINT), Err(error));
}

#[test]
fn impossible_content_is_refused_when_it_is_added() {
    let mut plain = RecordBuilder::new(header(0, 1));
    let refused = plain.add_log(&LogTree { nr: U64::new(4), ..LogTree::default() });
    assert_eq!(
        refused,
        Err(RingError::LogCount { commit_nr: 0, found: 1 }),
        "only a checkpoint names log trees"
    );
    let mut builder = RecordBuilder::new(header(RECORD_CHECKPOINT, 1));
    builder.add_item(&item(5, &[])).unwrap();
    let order = RingError::ItemOrder { commit_nr: 0, before: key(5), key: key(5) };
    assert_eq!(builder.add_item(&item(5, &[])), Err(order));
    let long = vec![0; MAX_VALUE_LEN + 1];
    assert!(matches!(builder.add_item(&item(6, &long)), Err(RingError::Item { .. })));
    let deletion = RecordItem { deletion: true, ..item(6, &[1]) };
    assert!(matches!(builder.add_item(&deletion), Err(RingError::Item { .. })));
    let entry = SpaceEntry { len: U32::ZERO, ..free_entry(1) };
    assert!(matches!(builder.add_space(&entry), Err(RingError::Space { .. })));
    let open = LogTree { nr: U64::new(4), ..LogTree::default() };
    builder.add_log(&open).unwrap();
    let after_open = LogTree { nr: U64::new(5), ..LogTree::default() };
    let mut sealed = RecordBuilder::new(header(RECORD_CHECKPOINT, 1));
    sealed.add_log(&LogTree { flags: U32::new(LOG_SEALED), ..open }).unwrap();
    let finalized = LogTree { flags: U32::new(LOG_FINALIZED), ..after_open };
    assert!(matches!(sealed.add_log(&finalized), Err(RingError::Log { .. })), "finalized trees come first");
    assert!(matches!(
        sealed.add_log(&LogTree { flags: U32::new(3), ..after_open }),
        Err(RingError::Log { .. })
    ));
    assert_eq!(builder.add_log(&after_open), Err(RingError::Log { commit_nr: 0, log_nr: 5 }));
    assert_eq!((builder.nr_items(), builder.frames()), (1, 1));
}

#[test]
fn a_checkpoint_of_all_log_trees_is_not_longer_than_what_is_kept_for_it() {
    let mut builder = RecordBuilder::new(header(RECORD_CHECKPOINT, 1));
    let log = |nr| LogTree { nr: U64::new(nr), flags: U32::new(LOG_FINALIZED), ..LogTree::default() };
    for nr in 0..u64::from(MAX_LOGS) {
        builder.add_log(&log(nr)).unwrap();
    }
    assert_eq!(builder.frames(), CHECKPOINT_FRAMES);
    assert_eq!(builder.add_log(&log(1000)), Err(RingError::RecordFull));
    for start in 0..builder.room_for_space(CHECKPOINT_FRAMES) {
        builder.add_space(&free_entry(start as u64 * 10)).unwrap();
    }
    assert_eq!(builder.frames(), CHECKPOINT_FRAMES);
    assert_eq!(builder.room_for_space(CHECKPOINT_FRAMES), 0);
}

#[test]
fn every_failed_allocation_is_an_error_and_no_more() {
    let (ring, mut writer) = ring_with(&[record(0, 2, &lens_for(3))]);
    let place = writer.place(3, 0).unwrap();
    let mut failures = 0;
    for nth in 0.. {
        scoutfs_env::alloc_fault::fail_after(nth);
        let result = (|| {
            let mut builder = RecordBuilder::new(header(0, 3));
            let value = [7; 1000];
            for n in 0..11 {
                builder.add_item(&item(n, &value))?;
            }
            builder.encode(&place)?;
            parse(&ring)?;
            RingWriter::open(&ring, owner(2)).map(drop)
        })();
        let tripped = scoutfs_env::alloc_fault::tripped();
        scoutfs_env::alloc_fault::clear();
        if !tripped {
            assert_eq!(result, Ok(()));
            break;
        }
        assert_eq!(result, Err(RingError::NoMemory));
        failures += 1;
    }
    assert!(failures > 8, "{failures}");
}

proptest! {
    #[test]
    fn nothing_that_is_needed_is_ever_written_over(
        sizes in prop::collection::vec(prop_oneof![3 => 1u32..3, 1 => 1u32..17], 1..400),
        checkpoint_frames in 1..=CHECKPOINT_FRAMES,
    ) {
        let mut writer = RingWriter::open(&vec![0; RING_BYTES], owner(1)).unwrap();
        let mut needed: Vec<u64> = vec![];
        for frames in sizes {
            let (place, is_checkpoint) = match writer.place(frames, 0) {
                Ok(place) => (place, false),
                Err(error) => {
                    prop_assert_eq!(error, RingError::NeedCheckpoint { frames });
                    (writer.place(checkpoint_frames, RECORD_CHECKPOINT).unwrap(), true)
                }
            };
            let first = place.offset_bytes() / SECTOR_SIZE as u64;
            let written = first..first + u64::from(place.frames());
            prop_assert!(written.end <= u64::from(RING_FRAMES));
            prop_assert!(!needed.iter().any(|frame| written.contains(frame)));
            if is_checkpoint {
                needed.clear();
            }
            needed.extend(written);
            writer.written(&place).unwrap();
        }
    }

    #[test]
    fn hostile_rings_are_errors_and_never_panic(
        lens in prop::collection::vec(0usize..3000, 0..12),
        changes in prop::collection::vec((0usize..6 * SECTOR_SIZE, any::<u8>()), 0..20),
        header_changes in prop::collection::vec((0usize..3, 0usize..280, any::<u8>()), 0..6),
        sign in any::<bool>(),
    ) {
        let (mut ring, _) = ring_with(&[record(0, 2, &lens), record(0, 3, &[1, 2])]);
        for (at, byte) in changes {
            ring[at] = byte;
        }
        // Mostly where the structures are, or nothing but values is hit.
        for (frame, at, byte) in header_changes {
            ring[frame * SECTOR_SIZE + at] = byte;
        }
        if sign {
            for frame in ring.chunks_mut(SECTOR_SIZE).take(8) {
                resign(frame);
            }
        }
        if let Ok(Some(state)) = parse(&ring) {
            for record in state.records() {
                prop_assert_eq!(record.items().count(), record.header().nr_items.get() as usize);
                prop_assert_eq!(record.space().count(), record.header().nr_space.get() as usize);
                prop_assert_eq!(record.logs().count(), record.header().nr_logs.get() as usize);
            }
        }
        if let Ok(mut writer) = RingWriter::open(&ring, owner(9)) {
            let _ = writer.place(CHECKPOINT_FRAMES, RECORD_CHECKPOINT);
        }
    }

    #[test]
    fn any_stream_is_an_error_or_a_record(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        counts in prop::array::uniform3(0u32..4),
        flags in 0u32..8,
    ) {
        for (n, count) in [flags, counts[0], counts[1], counts[2]].into_iter().enumerate() {
            if let Some(field) = bytes.get_mut(8 + n * 4..12 + n * 4) {
                field.copy_from_slice(count.as_bytes());
            }
        }
        let stream = scoutfs_env::Vec::from_slice(&bytes).unwrap();
        if let Ok(record) = Record::parse(5, 0, 1, stream) {
            prop_assert_eq!(record.items().count(), record.header().nr_items.get() as usize);
        }
    }
}
