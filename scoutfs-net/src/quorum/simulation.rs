// SPDX-License-Identifier: GPL-2.0-only
//! Mounts that share one device, with everything that can happen to them.
//!
//! The device shows a write at some moment between its submission and its end, tears it now and then, and lets
//! single writes take very long, longer than the dead time. Readings of the sectors are spread over the time of the
//! reading. Mounts die with writes on their way, which may still land; they freeze; their clocks differ in
//! offset and rate; IO fails; single voters are unreadable. Deaths are confirmed once nothing of the dead is
//! on its way. What must hold: at no moment two mounts have a lease, every leader that writes a super block has a higher
//! term than all before, and when faults end there is one leader.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;
use scoutfs_env::time::Mono;
use scoutfs_format::le::U64;
use scoutfs_format::voter::ProcessId;

use super::*;

const MS: u64 = 1_000_000;
const TIMING: Timing = Timing { presumed_ms: Some(20_000), ..Timing::DEFAULT };

/// What is hard about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// A little of everything.
    Mixed,
    /// Others give up a leader long before its lease has ended, so that only the waiting after a win is between
    /// the two. Single writes take no longer than that patience.
    Hasty,
    /// Many claim the same slots again and again, and many writes are slow.
    Storm,
    /// Of some mounts many writes take long, nearly the dead time, and are to be seen long before they end: beats are on their way
    /// while another stands, wins and looks.
    Heavy,
}

const HASTY_MS: u64 = 500;

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn process(rid: u64) -> ProcessId {
    ProcessId { boot_id: [1; 16], pid: U64::new(rid), start: U64::new(rid), ..Default::default() }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Wake,
    ReadSector(u32, u32),
    ReadDone(bool),
    Torn(VoterBlock),
    Land(VoterBlock),
    WriteDone(bool),
    /// The leader's first super block is durable.
    Super(u64),
}

struct Node {
    rid: u64,
    voter: Voter,
    alive: bool,
    /// Parts per thousand by which its clock is fast, and its offset.
    drift: i64,
    offset: u64,
    frozen_until: u64,
    /// No network to anybody.
    isolated: bool,
    sectors: Vec<Option<VoterBlock>>,
    unreadable: Vec<bool>,
    wake_at: u64,
    quiet_at: u64,
    confirmed: bool,
    last_seen: Option<Output>,
}

impl Node {
    fn clock(&self, now: u64) -> Mono {
        let scaled = (i128::from(now) * i128::from(1000 + self.drift) / 1000) as u64;
        Mono::from_ns(scaled + self.offset)
    }

    /// Global time at which its clock shows `at`, or a little later.
    fn global(&self, at: Mono) -> u64 {
        let local = at.as_ns().saturating_sub(self.offset);
        (i128::from(local) * 1000 / i128::from(1000 + self.drift)) as u64 + 1000
    }

    fn leads(&self, now: u64) -> bool {
        self.alive && self.voter.lease_until().is_some_and(|until| self.clock(now) < until)
    }
}

struct World {
    chance: Chance,
    now: u64,
    count: u64,
    nr_voters: u32,
    /// By time and order of making: who, what.
    events: BTreeMap<(u64, u64), (usize, What)>,
    /// Both copies of each voter; `None` is torn.
    sectors: Vec<Option<VoterBlock>>,
    nodes: Vec<Node>,
    last_rid: u64,
    weather: Weather,
    faults: bool,
    /// Of the newest super block.
    super_term: u64,
    /// How often leadership began and ended.
    changes: u64,
}

impl World {
    fn new(seed: u64, weather: Weather, nr_voters: u32, nodes: usize) -> Self {
        let mut world = World {
            chance: Chance(seed | 1),
            now: 1000 * MS,
            count: 0,
            nr_voters,
            events: BTreeMap::new(),
            sectors: (0..nr_voters)
                .flat_map(|v| [VoterBlock::free(v, 0), VoterBlock::free(v, 1)])
                .map(Some)
                .collect(),
            nodes: Vec::new(),
            last_rid: 0,
            weather,
            faults: true,
            super_term: 0,
            changes: 0,
        };
        for _ in 0..nodes {
            world.start();
        }
        world
    }

    fn start(&mut self) -> usize {
        self.last_rid += 1;
        let rid = self.last_rid;
        let config = Config {
            nr_voters: self.nr_voters,
            rid,
            address: "10.0.0.1:1000".parse().unwrap(),
            process: process(rid),
            seed: self.chance.next(),
            timing: TIMING,
        };
        let mut voter = Voter::new(config).unwrap();
        if self.weather == Weather::Hasty {
            voter.config.timing.dead_ms = HASTY_MS;
            voter.config.timing.patience_ms = HASTY_MS;
        }
        let drift = self.chance.below(41) as i64 - 20;
        let offset = self.chance.below(1 << 50);
        self.nodes.push(Node {
            rid,
            voter,
            alive: true,
            drift,
            offset,
            frozen_until: 0,
            isolated: false,
            sectors: std::vec![None; self.nr_voters as usize * 2],
            unreadable: std::vec![false; self.nr_voters as usize],
            wake_at: 0,
            quiet_at: 0,
            confirmed: false,
            last_seen: None,
        });
        let at = self.nodes.len() - 1;
        self.push(self.now, at, What::Wake);
        at
    }

    fn push(&mut self, at: u64, node: usize, what: What) {
        self.count += 1;
        self.events.insert((at, self.count), (node, what));
    }

    /// How long an IO takes.
    fn io_time(&mut self, at: usize, write: bool) -> u64 {
        if !self.faults {
            return (1 + self.chance.below(5)) * MS;
        }
        match (self.weather, self.chance.below(1000)) {
            (Weather::Hasty, 0..50) => return (20 + self.chance.below(HASTY_MS - 20)) * MS,
            (Weather::Hasty, _) => return (1 + self.chance.below(15)) * MS,
            (Weather::Heavy, 0..250) if write && at.is_multiple_of(2) => {
                return (300 + self.chance.below(2500)) * MS;
            }
            (Weather::Heavy, _) => return (1 + self.chance.below(15)) * MS,
            (Weather::Storm, 0..300) if write => return (20 + self.chance.below(200)) * MS,
            (Weather::Storm, 300..350) if write => return (100 + self.chance.below(2800)) * MS,
            (Weather::Storm, _) => return (1 + self.chance.below(15)) * MS,
            (Weather::Mixed, _) => {}
        }
        match self.chance.below(1000) {
            0..2 if write => (3000 + self.chance.below(9000)) * MS,
            0..10 => (100 + self.chance.below(2000)) * MS,
            10..60 => (20 + self.chance.below(180)) * MS,
            _ => (1 + self.chance.below(15)) * MS,
        }
    }

    fn poll(&mut self, at: usize) {
        while let Some(output) = self.nodes[at].voter.poll_output() {
            let node = &mut self.nodes[at];
            if !matches!(output, Output::ReadAll | Output::Write(_)) {
                node.last_seen = Some(output);
            }
            match output {
                Output::ReadAll => {
                    let time = self.io_time(at, false);
                    for voter in 0..self.nr_voters {
                        let bad = self.faults && self.chance.one_in(200);
                        self.nodes[at].unreadable[voter as usize] = bad;
                        for copy in 0..2 {
                            let when = self.now + self.chance.below(time);
                            self.push(when, at, What::ReadSector(voter, copy));
                        }
                    }
                    let ok = !(self.faults && self.chance.one_in(200));
                    self.push(self.now + time, at, What::ReadDone(ok));
                }
                Output::Write(block) => {
                    let time = self.io_time(at, true);
                    let lands = self.now + self.chance.below(time);
                    let ok = !(self.faults && self.chance.one_in(200));
                    if self.chance.one_in(4) {
                        let torn = self.now + self.chance.below(lands - self.now + 1);
                        self.push(torn, at, What::Torn(block));
                    }
                    if ok || self.chance.one_in(2) {
                        self.push(lands, at, What::Land(block));
                    }
                    self.push(self.now + time, at, What::WriteDone(ok));
                    self.nodes[at].quiet_at = self.now + time;
                }
                Output::BecameLeader { term } => {
                    self.changes += 1;
                    if term <= self.super_term {
                        let now = self.nodes[at].clock(self.now);
                        self.nodes[at].voter.resign(now);
                    } else {
                        let when = self.now + (1 + self.chance.below(20)) * MS;
                        self.push(when, at, What::Super(term));
                    }
                }
                Output::LostLeadership { .. } => self.changes += 1,
                Output::Left => {
                    self.nodes[at].alive = false;
                    self.nodes[at].confirmed = true;
                }
                Output::SlotOwned { .. } => self.nodes[at].voter.raise_term(self.super_term),
                Output::SlotLost { .. } | Output::Standby => {}
            }
        }
        let leading = self.nodes.iter().filter(|n| n.leads(self.now)).count();
        assert!(leading <= 1, "{leading} leaders at {} ms", self.now / MS);
        let node = &mut self.nodes[at];
        if let Some(wake) = node.voter.next_wakeup() {
            let wake = node.global(wake).max(self.now + 1);
            if node.wake_at <= self.now || wake < node.wake_at {
                node.wake_at = wake;
                self.push(wake, at, What::Wake);
            }
        }
    }

    fn handle(&mut self, at: usize, what: What) {
        // What is on its way to the device does not care how its writer is.
        match what {
            What::Torn(block) => {
                self.sectors[(block.voter * 2 + block.copy()) as usize] = None;
                return;
            }
            What::Land(block) => {
                self.sectors[(block.voter * 2 + block.copy()) as usize] = Some(block);
                return;
            }
            _ => {}
        }
        if !self.nodes[at].alive {
            return;
        }
        if let What::Super(term) = what {
            let node = &self.nodes[at];
            if node.leads(self.now) && node.voter.leader_term() == Some(term) {
                assert!(term > self.super_term, "term {term} came after {}", self.super_term);
                self.super_term = term;
            }
            return;
        }
        if let What::ReadSector(voter, copy) = what {
            let i = (voter * 2 + copy) as usize;
            self.nodes[at].sectors[i] = self.sectors[i];
            return;
        }
        if self.nodes[at].frozen_until > self.now {
            let until = self.nodes[at].frozen_until;
            self.push(until, at, what);
            return;
        }
        let leader = self.nodes.iter().position(|n| n.leads(self.now));
        let term = leader.and_then(|l| self.nodes[l].voter.leader_term()).unwrap_or(0);
        let cut_off = self.nodes[at].isolated || leader.is_some_and(|l| self.nodes[l].isolated);
        let node = &mut self.nodes[at];
        let now = node.clock(self.now);
        node.voter.set_connected(if cut_off { 0 } else { term });
        match what {
            What::Wake => node.voter.handle_timeout(now),
            What::ReadDone(true) => {
                let blocks: Vec<Option<VoterBlock>> = (0..self.nr_voters as usize)
                    .map(|v| match (node.sectors[v * 2], node.sectors[v * 2 + 1]) {
                        _ if node.unreadable[v] => None,
                        (Some(a), Some(b)) => Some(if a.write_nr > b.write_nr { a } else { b }),
                        (a, b) => a.or(b),
                    })
                    .collect();
                node.voter.handle_blocks(now, &blocks);
            }
            What::WriteDone(true) => node.voter.handle_written(now),
            _ => node.voter.handle_io_error(now),
        }
        for dead in 0..self.nodes.len() {
            let n = &self.nodes[dead];
            if !n.alive && n.confirmed {
                let process = process(n.rid);
                self.nodes[at].voter.set_confirmed_dead(now, &process);
            }
        }
        self.poll(at);
    }

    fn run_until(&mut self, end: u64) {
        while let Some((&(when, _), _)) = self.events.first_key_value() {
            if when > end {
                break;
            }
            let ((when, _), (node, what)) = self.events.pop_first().unwrap();
            self.now = self.now.max(when);
            self.handle(node, what);
        }
        self.now = end;
    }

    fn fault(&mut self) {
        let living: Vec<usize> = (0..self.nodes.len()).filter(|i| self.nodes[*i].alive).collect();
        let Some(&at) = living.get(self.chance.below(living.len().max(1) as u64) as usize) else {
            return;
        };
        let now = self.nodes[at].clock(self.now);
        let freeze_ms = match self.weather {
            Weather::Mixed => 12_000,
            Weather::Hasty => 4_000,
            Weather::Storm | Weather::Heavy => 500,
        };
        match self.chance.below(12) {
            0..3 if self.weather != Weather::Hasty || self.chance.one_in(10) => {
                let crashed = &mut self.nodes[at];
                crashed.alive = false;
                // What is on its way may be lost.
                if self.chance.one_in(2) {
                    self.events.retain(|_, (n, _)| *n != at);
                }
                self.start();
            }
            0..4 => self.nodes[at].frozen_until = self.now + self.chance.below(freeze_ms) * MS,
            4 => {
                self.nodes[at].voter.resign(now);
                self.poll(at);
            }
            5..7 => {
                self.nodes[at].voter.leave(now);
                self.poll(at);
                self.start();
            }
            7 => self.nodes[at].isolated ^= true,
            _ => {}
        }
        for node in &mut self.nodes {
            if !node.alive && node.quiet_at <= self.now && self.chance.one_in(3) {
                node.confirmed = true;
            }
        }
    }

    fn heal(&mut self) {
        self.faults = false;
        for node in &mut self.nodes {
            node.frozen_until = 0;
            node.isolated = false;
        }
        self.run_until(self.now + 15_000 * MS);
        for node in &mut self.nodes {
            node.confirmed |= !node.alive;
        }
        // Clients whose slot cannot be confirmed dead wait for the presumption.
        self.run_until(self.now + 60_000 * MS);
    }

    fn leader(&self) -> Option<&Node> {
        self.nodes.iter().find(|n| n.leads(self.now))
    }
}

fn torture(seed: u64, weather: Weather, quorum: u32) {
    let nr_voters = 2 * quorum - 1;
    let more = if weather == Weather::Storm { 3 } else { (seed % 2) as usize };
    let mut world = World::new(seed, weather, nr_voters, nr_voters as usize + more);
    let pause = if weather == Weather::Mixed { 4000 } else { 1500 };
    for _ in 0..40 {
        let step = 100 + world.chance.below(pause);
        world.run_until(world.now + step * MS);
        world.fault();
    }
    world.heal();
    let seen: Vec<_> = world.nodes.iter().filter(|n| n.alive).map(|n| (n.rid, n.last_seen)).collect();
    assert!(world.leader().is_some(), "nobody leads: {seen:?} {:?}", world.sectors);
    let changes = world.changes;
    world.run_until(world.now + 10_000 * MS);
    assert_eq!(world.changes, changes, "leaders come and go");
}

/// A claim that was on its way for long hid one copy of a leader's slot while its beat over the other was torn.
#[test]
fn a_late_claim_and_a_torn_beat_do_not_hide_a_leader() {
    torture(10_143_987_238_828_104_475, Weather::Heavy, 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn one_voter_never_leads_beside_another(seed: u64) {
        torture(seed, Weather::Mixed, 1);
    }

    #[test]
    fn two_of_three_never_elect_two(seed: u64) {
        torture(seed, Weather::Mixed, 2);
    }

    #[test]
    fn three_of_five_never_elect_two(seed: u64) {
        torture(seed, Weather::Mixed, 3);
    }

    #[test]
    fn a_new_leader_waits_for_the_lease_of_an_old_one_that_is_still_alive(seed: u64) {
        torture(seed, Weather::Hasty, 2);
        torture(seed, Weather::Hasty, 3);
    }

    #[test]
    fn a_beat_that_is_on_its_way_while_another_wins_extends_no_lease(seed: u64) {
        torture(seed, Weather::Heavy, 2);
        torture(seed, Weather::Heavy, 3);
    }

    #[test]
    fn of_many_that_claim_a_slot_one_gets_it(seed: u64) {
        torture(seed, Weather::Storm, 1);
        torture(seed, Weather::Storm, 2);
    }
}
