// SPDX-License-Identifier: GPL-2.0-only
//! The rules one by one, on one mount whose device the test plays.

use std::vec::Vec;

use scoutfs_env::time::Mono;
use scoutfs_format::le::U64;
use scoutfs_format::voter::ProcessId;

use super::*;

fn ms(ms: u64) -> Mono {
    Mono::from_ns(ms * 1_000_000)
}

fn process(pid: u64) -> ProcessId {
    ProcessId { pid: U64::new(pid), ..Default::default() }
}

struct Bench {
    voter: Voter,
    /// What a reading shows.
    blocks: Vec<Option<VoterBlock>>,
    now_ms: u64,
    /// Changes of rank since the test last asked, with their times.
    seen: Vec<(u64, Output)>,
    /// What is being done.
    io: Option<Output>,
}

impl Bench {
    fn new(blocks: &[VoterBlock]) -> Self {
        let config = Config {
            nr_voters: blocks.len() as u32,
            rid: 77,
            address: "10.0.0.1:1000".parse().unwrap(),
            process: process(1),
            seed: 5,
            timing: Timing::DEFAULT,
        };
        let mut bench = Bench {
            voter: Voter::new(config).unwrap(),
            blocks: blocks.iter().copied().map(Some).collect(),
            now_ms: 1000,
            seen: Vec::new(),
            io: None,
        };
        bench.voter.handle_timeout(ms(1000));
        bench.poll();
        bench
    }

    fn poll(&mut self) {
        while let Some(output) = self.voter.poll_output() {
            match output {
                Output::ReadAll | Output::Write(_) => {
                    assert_eq!(self.io, None, "one at a time");
                    self.io = Some(output);
                }
                _ => self.seen.push((self.now_ms, output)),
            }
        }
    }

    /// Ends the IO after `after_ms`, or waits for the next one to begin.
    fn step(&mut self, after_ms: u64) {
        match self.io.take() {
            None => {
                let wake = self.voter.next_wakeup().unwrap().as_ns().div_ceil(1_000_000);
                self.now_ms = self.now_ms.max(wake);
                self.voter.handle_timeout(ms(self.now_ms));
            }
            Some(Output::ReadAll) => {
                self.now_ms += after_ms;
                self.voter.handle_blocks(ms(self.now_ms), &self.blocks);
            }
            Some(Output::Write(block)) => {
                self.now_ms += after_ms;
                self.blocks[block.voter as usize] = Some(block);
                self.voter.handle_written(ms(self.now_ms));
            }
            Some(other) => panic!("{other:?}"),
        }
        self.poll();
    }

    /// Goes on, with IO that takes 1 ms, until a write is under way, and returns what it writes.
    fn next_write(&mut self) -> VoterBlock {
        loop {
            self.step(1);
            if let Some(Output::Write(block)) = self.io {
                return block;
            }
        }
    }

    fn run_to(&mut self, end_ms: u64) {
        while self.now_ms < end_ms {
            self.step(1);
        }
    }

    fn seen(&mut self) -> Vec<Output> {
        self.seen.drain(..).map(|(_, output)| output).collect()
    }
}

fn owned(voter: u32) -> VoterBlock {
    VoterBlock {
        owned: true,
        nonce: 100 + u64::from(voter),
        rid: 200 + u64::from(voter),
        process: process(300 + u64::from(voter)),
        ..VoterBlock::free(voter, 7)
    }
}

/// Two others own slots, 1 leads in `term`; slot 0 is free.
fn three(term: u64) -> [VoterBlock; 3] {
    let mut one = owned(1);
    (one.term, one.vote_term, one.vote_for, one.leader_term) = (term, term, 1, term);
    let mut two = owned(2);
    (two.term, two.vote_term, two.vote_for) = (term, term, 1);
    [VoterBlock::free(0, 1), one, two]
}

/// The leader of a volume with three voters, in term 1.
fn leading() -> Bench {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1), owned(1), owned(2)]);
    while bench.voter.leader_term().is_none() {
        let write = bench.next_write();
        for b in bench.blocks[1..].iter_mut().flatten() {
            b.write_nr += 2;
            (b.term, b.vote_term) = (write.vote_term, write.vote_term);
        }
    }
    bench.next_write();
    bench.seen.clear();
    bench
}

#[test]
fn a_single_voter_on_a_clean_volume_leads_when_its_claim_has_settled() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    bench.run_to(1200);
    let claimed = 1002;
    let settled = claimed + Timing::DEFAULT.settle_ms;
    assert_eq!(
        bench.seen,
        [
            (settled + 1, Output::SlotOwned { voter: 0 }),
            // Win, reading, win in the other copy, reading.
            (settled + 5, Output::BecameLeader { term: 1 }),
        ]
    );
}

#[test]
fn a_claim_that_took_long_is_watched_for_the_dead_time() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    bench.next_write();
    bench.step(Timing::DEFAULT.prompt_ms);
    let claimed = bench.now_ms;
    bench.run_to(claimed + Timing::DEFAULT.dead_ms);
    assert_eq!(bench.seen(), []);
    bench.run_to(claimed + Timing::DEFAULT.dead_ms + 50);
    assert_eq!(bench.seen(), [Output::SlotOwned { voter: 0 }, Output::BecameLeader { term: 1 }]);
}

#[test]
fn a_claim_that_another_one_overwrites_before_it_settles_is_lost() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    let claim = bench.next_write();
    bench.step(1);
    // The other one read before our claim was durable, and its claim is as prompt as can be told.
    let theirs = VoterBlock { nonce: 9, rid: 8, process: process(2), ..claim };
    bench.run_to(bench.now_ms + Timing::DEFAULT.prompt_ms);
    bench.blocks[0] = Some(theirs);
    bench.run_to(bench.now_ms + 1000);
    assert_eq!(bench.seen(), [Output::Standby]);
}

#[test]
fn a_slot_whose_owner_may_live_is_not_free_however_silent_it_is() {
    let mut bench = Bench::new(&[owned(0)]);
    bench.run_to(100_000);
    assert_eq!(bench.seen(), [Output::Standby]);
    // Nor is one that cannot be read.
    bench.blocks[0] = None;
    bench.run_to(300_000);
    assert_eq!(bench.seen(), []);
    // Silence counts only while everything can be read.
    bench.blocks[0] = Some(owned(0));
    bench.run_to(300_000 + Timing::DEFAULT.presumed_ms.unwrap() - 1000);
    assert_eq!(bench.seen(), []);
    bench.run_to(300_000 + Timing::DEFAULT.presumed_ms.unwrap() + Timing::DEFAULT.dead_ms + 1000);
    assert_eq!(bench.seen(), [Output::SlotOwned { voter: 0 }, Output::BecameLeader { term: 1 }]);
}

#[test]
fn a_slot_whose_owner_is_confirmed_dead_is_taken_unless_it_beats() {
    let mut bench = Bench::new(&[owned(0)]);
    bench.step(1);
    let dead = owned(0).process;
    assert!(bench.voter.set_confirmed_dead(ms(bench.now_ms), &dead));
    assert!(!bench.voter.set_confirmed_dead(ms(bench.now_ms), &process(999)));
    bench.poll();
    // A copy of the machine is alive.
    for n in 0..20 {
        bench.blocks[0] = Some(VoterBlock { write_nr: 8 + n, ..owned(0) });
        bench.run_to(bench.now_ms + 200);
    }
    assert_eq!(bench.seen(), [Output::Standby]);
    let silent_from = bench.now_ms;
    bench.run_to(silent_from + Timing::DEFAULT.confirmed_ms + Timing::DEFAULT.settle_ms + 100);
    assert_eq!(bench.seen(), [Output::SlotOwned { voter: 0 }, Output::BecameLeader { term: 1 }]);
}

#[test]
fn a_confirmed_death_does_not_mean_the_next_owner() {
    let mut bench = Bench::new(&[owned(0)]);
    bench.step(1);
    let dead = owned(0).process;
    bench.voter.set_confirmed_dead(ms(bench.now_ms), &dead);
    bench.poll();
    bench.blocks[0] = Some(VoterBlock { nonce: 4, write_nr: 8, process: process(5), ..owned(0) });
    bench.run_to(10_000);
    assert_eq!(bench.seen(), [Output::Standby]);
}

#[test]
fn a_claim_keeps_the_term_and_the_vote_of_its_slot() {
    let left = VoterBlock { term: 9, vote_term: 8, ..VoterBlock::free(0, 1) };
    let mut bench = Bench::new(&[left]);
    let claim = bench.next_write();
    assert_eq!((claim.term, claim.vote_term, claim.write_nr, claim.copy()), (9, 8, 2, 0));
    bench.run_to(1200);
    assert_eq!(bench.seen.last().unwrap().1, Output::BecameLeader { term: 10 });
}

/// Invariant 58.
#[test]
fn terms_of_super_blocks_are_not_won_again() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    bench.voter.raise_term(41);
    bench.run_to(1200);
    assert_eq!(bench.seen.last().unwrap().1, Output::BecameLeader { term: 42 });
}

#[test]
fn a_win_that_took_long_waits_for_older_leases() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    while bench.next_write().leader_term == 0 {}
    bench.step(Timing::DEFAULT.prompt_ms + 1);
    let won = bench.now_ms;
    let wait = Timing::DEFAULT.lease_ms + Timing::DEFAULT.margin_ms;
    bench.run_to(won + wait);
    assert_eq!(bench.voter.leader_term(), None);
    bench.run_to(won + wait + 100);
    assert_eq!(bench.voter.leader_term(), Some(1));
}

#[test]
fn a_leader_shows_itself_in_both_copies_before_it_serves() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    let first = loop {
        let write = bench.next_write();
        if write.leader_term != 0 {
            break write;
        }
    };
    let second = bench.next_write();
    assert_eq!(bench.voter.leader_term(), None);
    assert_eq!((second.leader_term, first.copy() ^ second.copy()), (1, 1));
    bench.next_write();
    assert_eq!(bench.voter.leader_term(), Some(1));
}

/// 1 led in term 4 and is silent; 2 votes for us. Runs until the win is being written: gives its term.
fn won_over_an_older_leader() -> (Bench, u64) {
    let mut bench = Bench::new(&three(4));
    loop {
        let write = bench.next_write();
        if write.leader_term != 0 {
            return (bench, write.leader_term);
        }
        let two = bench.blocks[2].as_mut().unwrap();
        two.write_nr += 2;
        if write.vote_term > 4 {
            (two.term, two.vote_term, two.vote_for) = (write.vote_term, write.vote_term, 0);
        }
    }
}

#[test]
fn a_winner_waits_until_the_newest_beat_of_an_older_leader_is_a_lease_and_its_margin_old() {
    let wait = Timing::DEFAULT.lease_ms + Timing::DEFAULT.margin_ms;
    // The first reading ended here.
    let first = 1001;
    let (mut bench, term) = won_over_an_older_leader();
    assert!(bench.now_ms < first + wait);
    bench.run_to(first + wait);
    assert_eq!(bench.voter.leader_term(), None);
    bench.run_to(first + wait + 100);
    assert_eq!(bench.voter.leader_term(), Some(term));
    // It beats once more; but no lease counts from a later moment than the win.
    let (mut bench, term) = won_over_an_older_leader();
    let won = bench.now_ms;
    bench.run_to(won + 100);
    bench.blocks[1].as_mut().unwrap().write_nr += 2;
    bench.run_to(won + wait);
    assert_eq!(bench.voter.leader_term(), None);
    bench.run_to(won + wait + 100);
    assert_eq!(bench.voter.leader_term(), Some(term));
}

#[test]
fn a_winner_that_cannot_read_an_older_leaders_slot_waits_from_its_win_on() {
    let wait = Timing::DEFAULT.lease_ms + Timing::DEFAULT.margin_ms;
    let (mut bench, term) = won_over_an_older_leader();
    let won = bench.now_ms;
    bench.blocks[1] = None;
    bench.run_to(won + wait);
    assert_eq!(bench.voter.leader_term(), None);
    bench.run_to(won + wait + 100);
    assert_eq!(bench.voter.leader_term(), Some(term));
}

#[test]
fn a_leader_whose_death_is_confirmed_is_not_waited_for() {
    let mut bench = Bench::new(&three(4));
    let dead = bench.blocks[1].unwrap().process;
    bench.step(1);
    assert!(bench.voter.set_confirmed_dead(ms(bench.now_ms), &dead));
    let short = bench.now_ms + Timing::DEFAULT.confirmed_ms;
    let mut stood = None;
    while bench.voter.leader_term().is_none() {
        let write = bench.next_write();
        let two = bench.blocks[2].as_mut().unwrap();
        two.write_nr += 2;
        if write.vote_term > 4 {
            stood.get_or_insert(bench.now_ms);
            (two.term, two.vote_term, two.vote_for) = (write.vote_term, write.vote_term, 0);
        }
    }
    assert!((short..short + 1000).contains(&stood.unwrap()), "{stood:?}");
    assert!(bench.now_ms < 1000 + Timing::DEFAULT.lease_ms, "{}", bench.now_ms);
}

#[test]
fn a_lease_counts_from_the_reading_before_a_beat_and_goes_on_after_a_pause_in_which_nobody_led() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    bench.run_to(2000);
    while bench.io.is_some() {
        bench.step(1);
    }
    bench.step(0);
    assert_eq!(bench.io, Some(Output::ReadAll));
    let (since, before) = (bench.now_ms, bench.voter.lease_until().unwrap());
    bench.step(300);
    // By the beat before.
    let end = bench.voter.lease_until().unwrap();
    assert!(before < end && end < ms(since + Timing::DEFAULT.lease_ms));
    bench.step(400);
    assert_eq!(bench.voter.lease_until(), Some(end), "a beat alone extends nothing");
    assert_eq!(bench.io, Some(Output::ReadAll));
    bench.step(1);
    assert_eq!(bench.voter.lease_until(), Some(ms(since + Timing::DEFAULT.lease_ms)));
    assert_eq!(bench.voter.confirmed_at(), Some(ms(since)));
    // The device hangs, for so long that others would take the mount for dead.
    bench.seen.clear();
    bench.step(Timing::DEFAULT.dead_ms * 2);
    let end = bench.voter.lease_until().unwrap();
    assert!(end < ms(bench.now_ms));
    // The reading after the beat that hung: the beat counts from before.
    bench.step(1);
    assert!(
        bench.voter.lease_until().unwrap() < ms(bench.now_ms),
        "a beat counts from the reading before it"
    );
    let since = bench.now_ms - 1;
    bench.step(1);
    while bench.io != Some(Output::ReadAll) {
        bench.step(1);
    }
    bench.step(1);
    assert_eq!(bench.voter.lease_until(), Some(ms(since + Timing::DEFAULT.lease_ms)));
    assert_eq!((bench.voter.leader_term(), bench.seen()), (Some(1), [].into()));
}

/// What failed may have been seen by others, who count from then.
#[test]
fn a_beat_that_was_tried_again_counts_from_the_first_attempt() {
    let mut bench = leading();
    let since = bench.voter.lease_until().unwrap();
    bench.next_write();
    let Some(Output::Write(_)) = bench.io.take() else { panic!("no write") };
    bench.now_ms += 700;
    bench.voter.handle_io_error(ms(bench.now_ms));
    bench.poll();
    // Read and write again, and the reading after.
    bench.next_write();
    bench.step(1);
    let first = since.as_ns() / 1_000_000 - Timing::DEFAULT.lease_ms;
    while bench.io != Some(Output::ReadAll) {
        bench.step(1);
    }
    bench.step(1);
    let counted = bench.voter.lease_until().unwrap().as_ns() / 1_000_000 - Timing::DEFAULT.lease_ms;
    assert!(counted < first + 700, "{counted} {first}");
}

#[test]
fn a_lease_does_not_go_on_after_a_pause_in_which_another_won() {
    for leader_term in [0, 2] {
        let mut bench = leading();
        let term = bench.voter.leader_term().unwrap();
        bench.next_write();
        let end = bench.voter.lease_until().unwrap();
        // Somebody was voted for; he may have left again.
        let one = bench.blocks[1].as_mut().unwrap();
        (one.write_nr, one.term, one.leader_term) = (one.write_nr + 2, term + 1, leader_term);
        bench.step(Timing::DEFAULT.dead_ms * 2);
        bench.seen.clear();
        bench.step(1);
        assert_eq!(bench.seen(), [Output::LostLeadership { term }]);
        assert!(bench.voter.lease_until().is_none_or(|until| until == end));
    }
}

#[test]
fn a_lease_is_not_extended_without_a_majority_that_can_be_read() {
    let mut bench = leading();
    bench.blocks[1] = None;
    bench.run_to(bench.now_ms + 5000);
    assert!(bench.voter.lease_until().unwrap() > ms(bench.now_ms));
    let two = bench.blocks[2].take();
    bench.run_to(bench.now_ms + Timing::DEFAULT.lease_ms + Timing::DEFAULT.beat_ms);
    assert!(bench.voter.lease_until().unwrap() < ms(bench.now_ms));
    bench.blocks[2] = two;
    bench.run_to(bench.now_ms + Timing::DEFAULT.beat_ms * 2);
    assert!(bench.voter.lease_until().unwrap() > ms(bench.now_ms));
}

#[test]
fn a_leader_that_sees_a_higher_term_stops_and_shows_its_lease_to_the_end() {
    let mut bench = leading();
    let term = bench.voter.leader_term().unwrap();
    bench.step(1);
    let until = bench.voter.lease_until().unwrap().as_ns() / 1_000_000;
    let one = bench.blocks[1].as_mut().unwrap();
    (one.write_nr, one.term) = (one.write_nr + 2, term + 1);
    let write = bench.next_write();
    assert_eq!(bench.seen(), [Output::LostLeadership { term }]);
    assert_eq!((write.leader_term, write.term), (term, term + 1));
    while bench.now_ms < until {
        let write = bench.next_write();
        assert_eq!(write.leader_term == 0, bench.now_ms >= until);
    }
}

/// Invariant 58.
#[test]
fn a_new_owner_votes_only_above_the_terms_that_it_found() {
    let mut bench = Bench::new(&three(4));
    // 1 and 2 left the term without a leader; 2 stands in a term that was there before we settled.
    bench.blocks[1].as_mut().unwrap().leader_term = 0;
    let stand = |bench: &mut Bench, term: u64| {
        let two = bench.blocks[2].as_mut().unwrap();
        (two.write_nr, two.term, two.vote_term, two.vote_for) = (two.write_nr + 2, term, term, 2);
    };
    stand(&mut bench, 5);
    while !bench.seen.iter().any(|(_, o)| matches!(o, Output::SlotOwned { .. })) {
        bench.step(1);
    }
    let write = bench.next_write();
    assert_ne!((write.vote_term, write.vote_for), (5, 2));
    let term = write.term + 3;
    stand(&mut bench, term);
    bench.next_write();
    let write = bench.next_write();
    assert_eq!((write.vote_term, write.vote_for), (term, 2));
    // And only once.
    let one = bench.blocks[1].as_mut().unwrap();
    (one.write_nr, one.term, one.vote_term, one.vote_for) = (one.write_nr + 2, term, term, 1);
    bench.next_write();
    assert_eq!(bench.next_write().vote_for, 2);
}

#[test]
fn a_new_owner_lets_another_win_whom_it_may_not_vote_for() {
    let mut bench = Bench::new(&three(4));
    bench.blocks[1].as_mut().unwrap().leader_term = 0;
    let two = bench.blocks[2].as_mut().unwrap();
    (two.term, two.vote_term, two.vote_for) = (5, 5, 2);
    let beat = |bench: &mut Bench| {
        for b in bench.blocks[1..].iter_mut().flatten() {
            b.write_nr += 2;
        }
        bench.next_write()
    };
    while !bench.seen.iter().any(|(_, o)| matches!(o, Output::SlotOwned { .. })) {
        beat(&mut bench);
    }
    let settled = bench.now_ms;
    while beat(&mut bench).vote_term == 0 {}
    assert!(bench.now_ms >= settled + 4 * Timing::DEFAULT.beat_ms, "{}", bench.now_ms - settled);
    let block = bench.blocks[0].unwrap();
    assert_eq!((block.vote_term, block.vote_for), (0, 0));
}

#[test]
fn nobody_votes_against_a_leader_that_beats() {
    let mut bench = Bench::new(&three(4));
    for _ in 0..50 {
        for b in bench.blocks[1..].iter_mut().flatten() {
            b.write_nr += 2;
        }
        let two = bench.blocks[2].as_mut().unwrap();
        (two.term, two.vote_term, two.vote_for) = (7, 7, 2);
        let write = bench.next_write();
        assert_eq!(write.vote_term, 0);
    }
}

#[test]
fn a_failed_write_is_repeated_byte_for_byte_at_the_same_place() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    bench.run_to(2000);
    let write = match bench.io {
        Some(Output::Write(block)) => block,
        _ => bench.next_write(),
    };
    for landed in [false, true] {
        if landed {
            bench.blocks[0] = Some(write);
        }
        bench.io = None;
        bench.now_ms += 1;
        bench.voter.handle_io_error(ms(bench.now_ms));
        assert_eq!(bench.next_write(), write);
    }
    bench.step(1);
    assert_eq!(bench.next_write().write_nr, write.write_nr + 1);
}

#[test]
fn another_nonce_in_the_slot_ends_the_owner_before_it_writes() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    bench.run_to(2000);
    while bench.io != Some(Output::ReadAll) {
        bench.step(1);
    }
    bench.seen.clear();
    let block = bench.blocks[0].as_mut().unwrap();
    (block.nonce, block.rid, block.write_nr) = (3, 4, block.write_nr + 1);
    bench.step(1);
    assert_eq!(bench.seen(), [Output::LostLeadership { term: 1 }, Output::SlotLost { voter: 0 }]);
    assert_eq!(bench.io, None);
}

#[test]
fn a_late_claim_over_the_newest_copy_is_repaired_without_losing_the_other_copy() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    bench.run_to(2000);
    bench.next_write();
    bench.step(1);
    let newest = bench.blocks[0].unwrap();
    // The newest copy is gone; the one before it is what a reading shows.
    let before = VoterBlock { write_nr: newest.write_nr - 1, ..newest };
    bench.blocks[0] = Some(before);
    let write = bench.next_write();
    assert_eq!((write.write_nr, write.copy()), (newest.write_nr + 2, newest.copy()));
    assert!(bench.voter.leader_term().is_some());
}

#[test]
fn the_last_one_leaves_its_slot_free_with_its_vote() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    bench.run_to(2000);
    bench.seen.clear();
    bench.voter.leave(ms(bench.now_ms));
    bench.poll();
    let write = loop {
        if let Some(Output::Write(block)) = bench.io
            && !block.owned
        {
            break block;
        }
        bench.step(1);
    };
    assert_eq!((write.owned, write.term, write.vote_term, write.leader_term), (false, 1, 1, 0));
    bench.step(1);
    assert_eq!(bench.seen(), [Output::LostLeadership { term: 1 }, Output::Left]);
    assert_eq!(bench.voter.next_wakeup(), None);
}

#[test]
fn a_leader_that_leaves_others_behind_votes_for_one_of_them_first() {
    let mut bench = leading();
    let term = bench.voter.leader_term().unwrap();
    bench.voter.leave(ms(bench.now_ms));
    bench.poll();
    let mut voted = false;
    for _ in 0..40 {
        let write = bench.next_write();
        for b in bench.blocks[1..].iter_mut().flatten() {
            b.write_nr += 2;
        }
        let one = bench.blocks[1].as_mut().unwrap();
        (one.term, one.vote_term, one.vote_for) = (term + 1, term + 1, 1);
        if !write.owned {
            break;
        }
        assert!(write.leader_term == 0 || write.vote_term <= term);
        if (write.vote_term, write.vote_for) == (term + 1, 1) {
            voted = true;
            bench.blocks[1].as_mut().unwrap().leader_term = term + 1;
        }
    }
    assert!(voted);
    bench.step(1);
    assert_eq!(bench.seen(), [Output::LostLeadership { term }, Output::Left]);
}

#[test]
fn a_leader_that_nobody_reaches_resigns_and_stands_back() {
    let mut bench = leading();
    let term = bench.voter.leader_term().unwrap();
    let from = bench.now_ms;
    let beat = |bench: &mut Bench, connected_term: u64| {
        bench.next_write();
        for b in bench.blocks[1..].iter_mut().flatten() {
            b.write_nr += 2;
            b.connected_term = connected_term;
        }
    };
    while bench.now_ms < from + 10_000 {
        beat(&mut bench, term);
    }
    assert_eq!(bench.voter.leader_term(), Some(term));
    let cut = bench.now_ms;
    while bench.voter.leader_term().is_some() {
        beat(&mut bench, 0);
    }
    let took = bench.now_ms - cut;
    let Timing { isolation_ms, .. } = Timing::DEFAULT;
    assert!((isolation_ms..isolation_ms + 1000).contains(&took), "{took}");
    while bench.now_ms < cut + took + 2 * Timing::DEFAULT.dead_ms - 500 {
        beat(&mut bench, 0);
        assert_eq!(bench.blocks[0].unwrap().vote_term, term);
    }
}

#[test]
fn nothing_is_asked_of_a_host_that_is_not_due() {
    let mut bench = Bench::new(&[VoterBlock::free(0, 1)]);
    bench.voter.handle_written(ms(1001));
    bench.poll();
    assert_eq!(bench.io, Some(Output::ReadAll));
    bench.step(1);
    bench.voter.handle_blocks(ms(1002), &[None]);
    bench.poll();
    assert!(matches!(bench.io, Some(Output::Write(_))));
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let config = |nr_voters, timing| Config {
        nr_voters,
        rid: 1,
        address: "10.0.0.1:1".parse().unwrap(),
        process: process(1),
        seed: 0,
        timing,
    };
    for found in [0, 2, 17] {
        let refused = Voter::new(config(found, Timing::DEFAULT));
        assert_eq!(refused.err(), Some(ConfigError::Voters { found }));
    }
    let timing = Timing { beat_ms: 0, ..Timing::DEFAULT };
    assert_eq!(Voter::new(config(1, timing)).err(), Some(ConfigError::Timing(TimingError::NoBeat)));
}
