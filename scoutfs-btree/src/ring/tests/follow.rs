// SPDX-License-Identifier: GPL-2.0-only
//! Who follows a ring finds what the whole ring says, in few frames.

use super::*;

/// What the ring shows to somebody who knows `known`, and how many frames were read.
fn followed(ring: &[u8], known: &RingState) -> (Option<RingState>, u32) {
    let mut follower = Follower::new(known, FSID, SLOT);
    let mut read = 0;
    while let Some((first, count)) = follower.wants() {
        let at = first as usize * SECTOR_SIZE;
        follower.give(&ring[at..at + count as usize * SECTOR_SIZE]).unwrap();
        read += count;
        assert!(read <= 3 * RING_FRAMES, "it comes to no end");
    }
    (follower.finish().unwrap(), read)
}

fn brief(state: &RingState) -> Vec<(u64, u32, u64, usize)> {
    let brief = |r: &Record| {
        (r.commit_nr(), r.first_frame(), r.header().trans_seq.get(), r.items().map(|i| i.value.len()).sum())
    };
    state.records().iter().map(|record| brief(record)).collect()
}

/// A record of so many frames, or a checkpoint where there is only room for that.
fn commit_some(ring: &mut [u8], writer: &mut RingWriter, frames: u32, seq: u64) -> Placement {
    commit(ring, writer, &record(0, seq, &lens_for(frames)))
        .unwrap_or_else(|_| commit(ring, writer, &record(RECORD_CHECKPOINT, seq, &[])).unwrap())
}

proptest! {
    /// However many records came meanwhile, wherever the ring's end lies, and whether a checkpoint was among them.
    #[test]
    fn the_state_that_is_followed_is_that_of_the_whole_ring(
        steps in prop::collection::vec((1..=MAX_RECORD_FRAMES, 0usize..6), 1..80),
    ) {
        let (mut ring, mut writer) = ring_with(&[]);
        let mut known = parse(&ring).unwrap().unwrap();
        for (seq, (frames, behind)) in (1..).zip(steps) {
            commit_some(&mut ring, &mut writer, frames.min(1 + frames / 3), seq);
            if writer.commit_nr() < known.commit_nr() + behind as u64 {
                continue;
            }
            let whole = parse(&ring).unwrap().unwrap();
            if let (Some(state), _) = followed(&ring, &known) {
                prop_assert_eq!(brief(&state), brief(&whole));
                prop_assert_eq!(state.epoch(), whole.epoch());
            } else {
                // Only what was written over cannot be followed.
                prop_assert!(writer.commit_nr() > known.commit_nr() + 1);
            }
            known = whole;
        }
    }

    /// Frames that are damaged or torn show an older state or none, never another.
    #[test]
    fn what_is_torn_is_not_followed(
        frames in prop::collection::vec(1u32..6, 1..6), torn in 0usize..RING_BYTES, bit in 0u8..8,
    ) {
        let (mut ring, mut writer) = ring_with(&[]);
        let known = parse(&ring).unwrap().unwrap();
        let mut states = vec![brief(&known)];
        for (seq, frames) in (1..).zip(frames) {
            commit_some(&mut ring, &mut writer, frames, seq);
            states.push(brief(&parse(&ring).unwrap().unwrap()));
        }
        ring[torn] ^= 1 << bit;
        if let (Some(state), _) = followed(&ring, &known) {
            prop_assert!(states[1..].contains(&brief(&state)));
        }
    }
}

#[test]
fn a_small_record_costs_a_few_frames_to_find() {
    let (mut ring, mut writer) = ring_with(&[]);
    let mut known = parse(&ring).unwrap().unwrap();
    assert!(followed(&ring, &known).0.is_none());
    let mut most = 0;
    for seq in 1..200 {
        commit_some(&mut ring, &mut writer, 1, seq);
        let (state, read) = followed(&ring, &known);
        most = most.max(read);
        known = state.unwrap();
        assert_eq!(brief(&known), brief(&parse(&ring).unwrap().unwrap()));
    }
    assert!(most <= 12, "{most} frames for one");
}

#[test]
fn nothing_follows_a_clean_record_and_nobody_is_led_into_another_epoch() {
    for flags in [RECORD_CHECKPOINT, RECORD_CHECKPOINT | RECORD_CLEAN] {
        let (mut ring, mut writer) = ring_with(&[]);
        let last = record(flags, 5, &[]);
        let place = writer.place(last.frames(), flags).unwrap();
        write(&mut ring, &place, &last.encode(&place).unwrap());
        let known = parse(&ring).unwrap().unwrap();
        assert_eq!(known.newest().is_clean(), flags & RECORD_CLEAN != 0);
        // The next owner's first record comes right behind, with the next number.
        let mut next = RingWriter::open(&ring, owner(2)).unwrap();
        let place = commit(&mut ring, &mut next, &record(RECORD_CHECKPOINT, 6, &[])).unwrap();
        assert_eq!(place.commit_nr(), known.commit_nr() + 1);
        assert!(followed(&ring, &known).0.is_none());
    }
}
