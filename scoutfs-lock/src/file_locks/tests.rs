// SPDX-License-Identifier: GPL-2.0-only
//! The table against a naive one of bytes, and what is said. `cluster`: mounts, programs and servers.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use proptest::prelude::*;
use scoutfs_format::msg::{FileLock as RawLock, FileLockReply as RawReply, FileLockRequest as RawRequest};
use zerocopy::{FromBytes, IntoBytes};

use super::server::Owner;
use super::*;
use crate::{LockError, Mode};

/// Bytes of the small files of these tests; the last one stands for the end of the file.
const BYTES: u64 = 12;

fn range(start: u64, end: u64) -> ByteRange {
    let end = if end >= BYTES - 1 { ByteRange::MAX_END } else { end };
    ByteRange::new(start, end).unwrap()
}

/// The small bytes of a range.
fn bytes(range: &ByteRange) -> std::ops::RangeInclusive<usize> {
    range.start() as usize..=range.end().min(BYTES - 1) as usize
}

fn any_range() -> impl Strategy<Value = ByteRange> {
    (0..BYTES, 0..BYTES).prop_map(|(a, b)| range(a.min(b), a.max(b)))
}

fn any_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Null), Just(Mode::Read), Just(Mode::Write)]
}

fn modes_of(ranges: &Ranges) -> [Mode; BYTES as usize] {
    let mut modes = [Mode::Null; BYTES as usize];
    for piece in ranges.pieces() {
        modes[bytes(&piece.range)].fill(piece.mode);
    }
    modes
}

fn file(ino: u64, class: LockClass) -> FileId {
    FileId { ino, class }
}

fn lock(file: FileId, owner: u64, range: ByteRange, mode: Mode) -> FileLock {
    FileLock { file, owner, range, mode, pid: owner as u32 + 100 }
}

proptest! {
    #[test]
    fn ranges_are_bytes(steps in proptest::collection::vec((any_range(), any_mode(), any::<bool>()), 0..60)) {
        let mut ranges = Ranges::new();
        let mut model = [Mode::Null; BYTES as usize];
        for (n, (range, mode, raise)) in steps.into_iter().enumerate() {
            let expected: Vec<_> = model[bytes(&range)].iter().map(|held| *held > mode).collect();
            let mut above = [false; BYTES as usize];
            for piece in ranges.above(&range, mode) {
                above[bytes(&piece.range)].fill(true);
            }
            prop_assert_eq!(&above[bytes(&range)], &expected[..]);
            prop_assert_eq!(above.iter().filter(|a| **a).count(), expected.iter().filter(|a| **a).count());
            let below = bytes(&range).find(|byte| model[*byte] < mode);
            prop_assert_eq!(ranges.first_below(&range, mode).map(|part| part.start() as usize), below);
            let len = ranges.len();
            let adds = if raise { ranges.raise_adds(&range) } else { ranges.lower_adds(&range, mode) };
            if raise {
                ranges.raise(&range, mode, n as u32).unwrap();
            } else {
                ranges.lower(&range, mode, n as u32).unwrap();
            }
            prop_assert!(ranges.len() <= len + adds, "{} became {}, not {adds} more", len, ranges.len());
            for held in &mut model[bytes(&range)] {
                *held = if raise { mode.max(*held) } else { mode.min(*held) };
            }
            prop_assert_eq!(modes_of(&ranges), model);
            for pair in ranges.pieces().windows(2) {
                let touch = pair[0].range.end() + 1 == pair[1].range.start();
                prop_assert!(pair[0].range.end() < pair[1].range.start());
                prop_assert!(!(touch && pair[0].mode == pair[1].mode), "{:?} is not merged", pair);
            }
        }
    }

    #[test]
    fn messages_round_trip_and_rubbish_is_refused(
        mut request in any::<[u8; size_of::<RawRequest>()]>(),
        mut reply in any::<[u8; size_of::<RawReply>()]>(),
        tame in any::<bool>(),
    ) {
        if tame {
            let op = [Test, Set, Wait, Lower, Cancel][request[0] as usize % 5];
            let of = lock(file(request[1].into(), LockClass::Fcntl), 7, range(2, BYTES), Mode::Write);
            let good = FileLockRequest { id: 1, op, lock: of };
            prop_assert_eq!(FileLockRequest::from_raw(&good.to_raw()), Ok(good));
            request.copy_from_slice(good.to_raw().as_bytes());
            let found = (reply[0] < 128).then_some(Found { range: of.range, mode: Mode::Read, pid: 3 });
            let good = FileLockReply { id: 5, result: FileLockResult::Deadlock, found };
            prop_assert_eq!(FileLockReply::from_raw(&good.to_raw()), Ok(good));
            reply.copy_from_slice(good.to_raw().as_bytes());
        }
        if let Ok(parsed) = FileLockRequest::from_raw(RawRequest::ref_from_bytes(&request).unwrap()) {
            let raw = parsed.to_raw();
            prop_assert_eq!(raw.as_bytes(), request);
        }
        if let Ok(parsed) = FileLockReply::from_raw(RawReply::ref_from_bytes(&reply).unwrap()) {
            let raw = parsed.to_raw();
            prop_assert_eq!(raw.as_bytes(), reply);
        }
    }
}

#[test]
fn a_lock_of_no_bytes_or_of_part_of_a_file_by_flock_is_refused() {
    let good = lock(file(1, LockClass::Flock), 1, ByteRange::ALL, Mode::Read).to_raw();
    assert!(FileLock::from_raw(&good).is_ok());
    let with = |change: fn(&mut RawLock)| {
        let mut raw = good;
        change(&mut raw);
        FileLock::from_raw(&raw)
    };
    assert!(matches!(with(|raw| raw.start = 1.into()), Err(LockError::Range { start: 1, .. })));
    assert!(matches!(with(|raw| raw.end = (1 << 63).into()), Err(LockError::Range { .. })));
    assert_eq!(with(|raw| raw.class = 3), Err(LockError::Kind { found: 3 }));
    assert_eq!(with(|raw| raw.mode = 3), Err(LockError::Mode { found: 3 }));
    assert_eq!(with(|raw| raw.pad[1] = 1), Err(LockError::Stray));
}

/// A server with clients that speak for themselves.
struct Talk {
    server: FileLockServer<u64>,
    last: u64,
}

impl Talk {
    fn new() -> Self {
        let mut server = FileLockServer::new();
        server.finish_recovery();
        Talk { server, last: 0 }
    }

    /// Gives the id.
    fn ask(&mut self, client: u64, op: FileLockOp, lock: FileLock) -> u64 {
        self.last += 1;
        self.server.handle_request(client, self.last, &FileLockRequest { id: self.last, op, lock }).unwrap();
        self.last
    }

    fn answers(&mut self) -> Vec<(u64, FileLockReply)> {
        std::iter::from_fn(|| self.server.poll_output().unwrap()).map(|o| (o.client, o.reply)).collect()
    }

    /// Asks and gives the one answer.
    fn result(&mut self, client: u64, op: FileLockOp, lock: FileLock) -> FileLockResult {
        let id = self.ask(client, op, lock);
        let answers = self.answers();
        assert!(matches!(&answers[..], [(to, reply)] if (*to, reply.id) == (client, id)), "{answers:?}");
        answers[0].1.result
    }
}

use FileLockOp::{Cancel, Lower, Set, Test, Wait};
use FileLockResult::{Blocked, Cancelled, Deadlock, Done, Full};

#[test]
fn a_test_tells_the_first_lock_in_the_way_and_its_process_only_to_its_own_mount() {
    let mut talk = Talk::new();
    let f = file(1, LockClass::Fcntl);
    assert_eq!(talk.result(1, Set, lock(f, 1, range(4, 6), Mode::Write)), Done);
    assert_eq!(talk.result(2, Set, lock(f, 1, range(0, 2), Mode::Read)), Done);
    let found = |talk: &mut Talk, client, mode| {
        talk.ask(client, Test, lock(f, 9, ByteRange::ALL, mode));
        talk.answers()[0].1.found
    };
    let (read, write) = (range(0, 2), range(4, 6));
    assert_eq!(found(&mut talk, 1, Mode::Write), Some(Found { range: read, mode: Mode::Read, pid: 0 }));
    assert_eq!(found(&mut talk, 2, Mode::Write), Some(Found { range: read, mode: Mode::Read, pid: 101 }));
    assert_eq!(found(&mut talk, 1, Mode::Read), Some(Found { range: write, mode: Mode::Write, pid: 101 }));
    // Not one's own.
    talk.ask(1, Test, lock(f, 1, range(3, 8), Mode::Write));
    assert_eq!(talk.answers()[0].1.found, None);
}

#[test]
fn fcntl_and_flock_do_not_see_each_other_and_equal_owners_of_two_mounts_do() {
    let mut talk = Talk::new();
    assert_eq!(talk.result(1, Set, lock(file(1, LockClass::Fcntl), 1, ByteRange::ALL, Mode::Write)), Done);
    assert_eq!(talk.result(2, Set, lock(file(1, LockClass::Flock), 1, ByteRange::ALL, Mode::Write)), Done);
    assert_eq!(talk.result(2, Set, lock(file(1, LockClass::Fcntl), 1, range(3, 3), Mode::Read)), Blocked);
    assert_eq!(talk.result(1, Set, lock(file(1, LockClass::Flock), 1, ByteRange::ALL, Mode::Read)), Blocked);
}

#[test]
fn what_takes_gives_nothing_back_and_what_gives_back_takes_nothing() {
    let mut talk = Talk::new();
    let f = |owner, start, end, mode| lock(file(1, LockClass::Fcntl), owner, range(start, end), mode);
    assert_eq!(talk.result(1, Set, f(1, 2, 4, Mode::Write)), Done);
    assert_eq!(talk.result(1, Set, f(1, 0, 6, Mode::Read)), Done);
    assert_eq!(talk.result(2, Set, f(1, 2, 2, Mode::Read)), Blocked);
    assert_eq!(talk.result(2, Set, f(1, 0, 1, Mode::Read)), Done);
    assert_eq!(talk.result(1, Lower, f(1, 0, 9, Mode::Read)), Done);
    assert_eq!(talk.result(2, Set, f(1, 2, 6, Mode::Read)), Done);
    assert_eq!(talk.result(2, Set, f(1, 7, 9, Mode::Write)), Done);
    // By flock, too: the mount gives back first.
    let f = |owner, mode| lock(file(1, LockClass::Flock), owner, ByteRange::ALL, mode);
    assert_eq!(talk.result(1, Set, f(1, Mode::Read)), Done);
    assert_eq!(talk.result(2, Set, f(2, Mode::Read)), Done);
    assert_eq!(talk.result(1, Set, f(1, Mode::Write)), Blocked);
    assert_eq!(talk.result(2, Set, f(2, Mode::Write)), Blocked, "the first has its lock still");
    // Who waits goes on when something is lowered that was in his way.
    let waits = talk.ask(1, Wait, f(1, Mode::Write));
    talk.ask(2, Lower, f(2, Mode::Null));
    let ids: BTreeSet<_> = talk.answers().into_iter().map(|(client, reply)| (client, reply.id)).collect();
    assert!(ids.contains(&(1, waits)));
}

#[test]
fn a_cancelled_wait_is_answered_once_and_a_granted_one_is_not_cancelled() {
    let mut talk = Talk::new();
    let f = |owner, mode| lock(file(1, LockClass::Fcntl), owner, range(0, 3), mode);
    assert_eq!(talk.result(1, Set, f(1, Mode::Write)), Done);
    let id = talk.ask(2, Wait, f(1, Mode::Write));
    let cancel = FileLockRequest { id, op: Cancel, lock: f(1, Mode::Write) };
    talk.server.handle_request(2, 77, &cancel).unwrap();
    let answer = |id, result| (2, FileLockReply { id, result, found: None });
    assert_eq!(talk.answers(), [answer(id, Cancelled), answer(0, Done)]);
    talk.server.handle_request(2, 78, &cancel).unwrap();
    assert_eq!(talk.answers(), [answer(0, Done)]);
    assert_eq!(talk.result(1, Lower, f(1, Mode::Null)), Done);
    assert!(talk.server.is_empty(), "nothing is left: {:?}", talk.server);
}

#[test]
fn a_wait_that_comes_again_is_one_and_is_answered_as_it_came_last() {
    let mut talk = Talk::new();
    let f = |mode| lock(file(1, LockClass::Flock), 1, ByteRange::ALL, mode);
    assert_eq!(talk.result(1, Set, f(Mode::Write)), Done);
    let request = FileLockRequest { id: 9, op: Wait, lock: f(Mode::Read) };
    talk.server.handle_request(2, 50, &request).unwrap();
    talk.server.handle_request(2, 60, &request).unwrap();
    talk.server.handle_request(1, 70, &FileLockRequest { id: 10, op: Lower, lock: f(Mode::Null) }).unwrap();
    let mut tokens = Vec::new();
    while let Some(output) = talk.server.poll_output().unwrap() {
        tokens.push((output.client, output.token));
    }
    tokens.sort_unstable();
    assert_eq!(tokens, [(1, 70), (2, 60)]);
}

#[test]
fn who_would_wait_for_himself_is_told() {
    let mut talk = Talk::new();
    let f = |ino, mode| lock(file(ino, LockClass::Fcntl), 1, range(0, 3), mode);
    // Three mounts in a circle over three files.
    for client in 1..=3 {
        assert_eq!(talk.result(client, Set, f(client, Mode::Write)), Done);
    }
    talk.ask(1, Wait, f(2, Mode::Write));
    talk.ask(2, Wait, f(3, Mode::Read));
    assert_eq!(talk.answers(), []);
    assert_eq!(talk.result(3, Wait, f(1, Mode::Write)), Deadlock);
    // He has what he had; without it the others go on.
    assert_eq!(talk.result(1, Set, f(3, Mode::Read)), Blocked);
    talk.ask(3, Lower, f(3, Mode::Null));
    assert_eq!(talk.answers().len(), 2);
    talk.ask(3, Wait, f(1, Mode::Write));
    assert_eq!(talk.answers(), [], "no circle any more");
    // Two readers that both want to write.
    let g = |mode| lock(file(9, LockClass::Fcntl), 1, range(0, 3), mode);
    assert_eq!(talk.result(4, Set, g(Mode::Read)), Done);
    assert_eq!(talk.result(5, Set, g(Mode::Read)), Done);
    talk.ask(4, Wait, g(Mode::Write));
    assert_eq!(talk.result(5, Wait, g(Mode::Write)), Deadlock);
}

#[test]
fn a_mount_waits_for_so_many_locks() {
    let mut talk = Talk::new();
    let f = |owner, mode| lock(file(1, LockClass::Fcntl), owner, ByteRange::ALL, mode);
    assert_eq!(talk.result(1, Set, f(1, Mode::Write)), Done);
    for n in 0..MAX_WAITING as u64 {
        talk.ask(1, Wait, f(n + 2, Mode::Read));
    }
    assert_eq!(talk.answers(), []);
    assert_eq!(talk.result(1, Wait, f(2, Mode::Read)), Full);
    talk.ask(1, Lower, f(1, Mode::Null));
    assert_eq!(talk.answers().len(), MAX_WAITING + 1, "all readers go on at once");
}

#[test]
fn the_locks_of_a_mount_that_is_gone_are_free_and_nobody_answers_it() {
    let mut talk = Talk::new();
    let f = |ino, mode| lock(file(ino, LockClass::Flock), 1, ByteRange::ALL, mode);
    for ino in 1..=3 {
        assert_eq!(talk.result(1, Set, f(ino, Mode::Write)), Done);
    }
    let waits: Vec<_> = (1..=3).map(|ino| talk.ask(2, Wait, f(ino, Mode::Write))).collect();
    let _gone = talk.ask(3, Wait, f(2, Mode::Write));
    talk.server.handle_client_gone(3);
    talk.server.handle_client_gone(1);
    let ids: Vec<_> = talk.answers().iter().map(|(client, reply)| (*client, reply.id)).collect();
    assert_eq!(ids, waits.iter().map(|id| (2, *id)).collect::<Vec<_>>());
    talk.server.handle_client_gone(2);
    assert_eq!(talk.answers(), []);
    assert!(talk.server.is_empty());
}

#[test]
fn a_new_server_grants_nothing_before_all_have_reported() {
    let mut server = FileLockServer::<u64>::new();
    let f = |mode| lock(file(1, LockClass::Fcntl), 1, range(0, 3), mode);
    server.handle_request(1, 1, &FileLockRequest { id: 1, op: Set, lock: f(Mode::Write) }).unwrap();
    assert_eq!(server.poll_output(), Ok(None));
    server.handle_report(2, &f(Mode::Read)).unwrap();
    server.handle_report(2, &f(Mode::Read)).unwrap();
    server.handle_report(3, &f(Mode::Read)).unwrap();
    let conflict = LockError::FileConflict { ino: 1, client: 4, other: 2 };
    assert_eq!(server.handle_report(4, &f(Mode::Write)), Err(conflict));
    server.finish_recovery();
    let reply = FileLockReply { id: 1, result: Blocked, found: None };
    assert_eq!(server.poll_output(), Ok(Some(FileLockOutput { client: 1, token: 1, reply })));
}

/// The same in the plainest way: a mode for each byte and owner, and a list of those who wait.
#[derive(Default)]
struct Naive {
    held: BTreeMap<(FileId, (u64, u64)), [Mode; BYTES as usize]>,
    /// (client, id, lock)
    queue: Vec<(u64, u64, FileLock)>,
}

impl Naive {
    fn in_the_way(&self, client: u64, lock: &FileLock) -> BTreeSet<(u64, u64)> {
        let me = (client, lock.owner);
        let excludes =
            |held: &Mode| *held == Mode::Write || (*held == Mode::Read && lock.mode == Mode::Write);
        self.held
            .iter()
            .filter(|((file, owner), _)| *file == lock.file && *owner != me)
            .filter(|(_, held)| held[bytes(&lock.range)].iter().any(excludes))
            .map(|((_, owner), _)| *owner)
            .collect()
    }

    fn change(&mut self, client: u64, lock: &FileLock, change: fn(Mode, Mode) -> Mode) {
        let held = self.held.entry((lock.file, (client, lock.owner))).or_insert([Mode::Null; BYTES as usize]);
        for held in &mut held[bytes(&lock.range)] {
            *held = change(*held, lock.mode);
        }
    }

    fn leads_to(&self, from: (u64, u64), to: (u64, u64), seen: &mut BTreeSet<(u64, u64)>) -> bool {
        if from == to {
            return true;
        }
        seen.insert(from)
            && self.queue.iter().any(|(client, _, lock)| {
                lock.file.class == LockClass::Fcntl
                    && (*client, lock.owner) == from
                    && self.in_the_way(*client, lock).into_iter().any(|next| self.leads_to(next, to, seen))
            })
    }

    fn wake(&mut self, answers: &mut Vec<(u64, u64, FileLockResult)>) {
        let mut n = 0;
        while let Some((client, id, lock)) = self.queue.get(n).copied() {
            if self.in_the_way(client, &lock).is_empty() {
                self.change(client, &lock, Mode::max);
                answers.push((client, id, Done));
                self.queue.remove(n);
                n = 0;
            } else {
                n += 1;
            }
        }
    }

    fn request(&mut self, client: u64, request: &FileLockRequest) -> Vec<(u64, u64, FileLockResult)> {
        let FileLockRequest { id, op, lock } = request;
        let mut answers = Vec::new();
        if *op == Cancel {
            let waits = self.queue.iter().position(|(c, i, _)| (c, i) == (&client, id));
            if let Some(place) = waits {
                self.queue.remove(place);
                answers.push((client, *id, Cancelled));
            }
            answers.push((client, 0, Done));
            return answers;
        }
        let result = match op {
            Test => Done,
            Lower => {
                self.change(client, lock, Mode::min);
                self.wake(&mut answers);
                Done
            }
            _ if self.in_the_way(client, lock).is_empty() => {
                self.change(client, lock, Mode::max);
                Done
            }
            Wait => {
                let me = (client, lock.owner);
                let mut seen = BTreeSet::new();
                let blockers = self.in_the_way(client, lock);
                if lock.file.class == LockClass::Fcntl
                    && blockers.into_iter().any(|other| self.leads_to(other, me, &mut seen))
                {
                    Deadlock
                } else {
                    self.queue.push((client, *id, *lock));
                    return answers;
                }
            }
            _ => Blocked,
        };
        answers.push((client, *id, result));
        answers
    }
}

fn any_lock() -> impl Strategy<Value = (u64, FileLock)> {
    (1u64..4, 0u64..2, 1u64..3, any::<bool>(), any_range(), any_mode()).prop_map(
        |(client, owner, ino, flock, range, mode)| {
            let (class, range) =
                if flock { (LockClass::Flock, ByteRange::ALL) } else { (LockClass::Fcntl, range) };
            (client, lock(file(ino, class), owner, range, mode))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_server_does_as_a_naive_one(
        steps in proptest::collection::vec((any_lock(), 0u8..8, any::<prop::sample::Index>()), 1..80),
    ) {
        let mut talk = Talk::new();
        let mut naive = Naive::default();
        for ((client, lock), what, index) in steps {
            let op = match what {
                0 => Test,
                _ if lock.mode == Mode::Null => Lower,
                1..=2 => Set,
                3 => Lower,
                4..=6 => Wait,
                _ => Cancel,
            };
            let mut request = FileLockRequest { id: talk.last + 1, op, lock };
            let mut from = client;
            if op == Cancel {
                let Some((client, id, lock)) = naive.queue.get(index.index(naive.queue.len().max(1))) else { continue };
                request = FileLockRequest { id: *id, op, lock: *lock };
                from = *client;
            } else {
                talk.last += 1;
            }
            let blockers = naive.in_the_way(from, &lock);
            talk.server.handle_request(from, talk.last, &request).unwrap();
            let answers = talk.answers();
            if op == Test {
                prop_assert_eq!(answers[0].1.found.is_some(), !blockers.is_empty() && lock.mode != Mode::Null);
            }
            let mut answers: Vec<_> = answers.iter().map(|(c, r)| (*c, r.id, r.result)).collect();
            let mut expected = naive.request(from, &request);
            // Of those that one release lets go on, the order among files and owners is of no interest.
            answers.sort_by_key(|(c, id, _)| (*c, *id));
            expected.sort_by_key(|(c, id, _)| (*c, *id));
            prop_assert_eq!(answers, expected);
        }
    }
}
