// SPDX-License-Identifier: GPL-2.0-only
//! Mounts with programs, and servers, with everything that can happen between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// What a program wants, and how far that is done.
#[derive(Clone, Copy, Debug)]
struct Wish {
    op: FileLockOp,
    lock: FileLock,
    progress: Progress,
}

/// A mount, its requests on their way, and the answers.
struct Mount {
    id: u64,
    locks: FileLockClient,
    to_server: VecDeque<Said>,
    from_server: VecDeque<(u64, FileLockReply)>,
    /// Requests without an answer, by the order of sending, cancels too: what a connection sends again.
    unanswered: BTreeMap<u64, FileLockRequest>,
    last_sent: u64,
    /// What the server has to answer in this session.
    asked: BTreeSet<u64>,
    /// What programs wait for, by the request that is on its way.
    wishes: BTreeMap<u64, Wish>,
    /// What programs have by what they were told, if each has one wish at a time.
    programs: BTreeMap<(FileId, u64), [Mode; BYTES as usize]>,
    results: Vec<FileLockResult>,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Request(u64, FileLockRequest),
    Report(FileLock),
    Recovered,
}

impl Mount {
    fn new(id: u64) -> Self {
        Mount {
            id,
            locks: FileLockClient::new(),
            to_server: VecDeque::new(),
            from_server: VecDeque::new(),
            unanswered: BTreeMap::new(),
            last_sent: 0,
            asked: BTreeSet::new(),
            wishes: BTreeMap::new(),
            programs: BTreeMap::new(),
            results: Vec::new(),
        }
    }

    fn ask(&mut self, request: FileLockRequest) {
        self.last_sent += 1;
        self.unanswered.insert(self.last_sent, request);
        self.to_server.push_back(Said::Request(self.last_sent, request));
    }

    /// A program wants something.
    fn wish(&mut self, op: FileLockOp, lock: FileLock) {
        self.go_on(Wish { op, lock, progress: Progress::Begun });
    }

    fn go_on(&mut self, mut wish: Wish) {
        let Some(step) = self.locks.next_step(wish.op, &wish.lock, wish.progress) else {
            return self.told(wish.lock, Done);
        };
        let Some(request) = self.locks.request(&step, wish.lock.owner).unwrap() else {
            return self.told(wish.lock, Full);
        };
        self.locks.sent(&request).unwrap();
        wish.progress = step.then;
        self.wishes.insert(request.id, wish);
        self.ask(request);
    }

    /// A program is told what became of its wish: as on one machine, fcntl then has done all of it or nothing, and flock has lost
    /// what it had of another kind.
    fn told(&mut self, lock: FileLock, result: FileLockResult) {
        self.results.push(result);
        let has = self.programs.entry((lock.file, lock.owner)).or_insert([Mode::Null; BYTES as usize]);
        if result == Done {
            // Of bytes behind the small ones nobody asks.
            if let Some(has) = has.get_mut(bytes(&lock.range)) {
                has.fill(lock.mode);
            }
        } else if lock.file.class == LockClass::Flock && has[0] != lock.mode {
            has.fill(Mode::Null);
        }
    }

    fn is_wishing(&self, file: FileId, owner: u64) -> Option<&Wish> {
        self.wishes.values().find(|wish| (wish.lock.file, wish.lock.owner) == (file, owner))
    }

    fn believes(&self, file: FileId, owner: u64) -> [Mode; BYTES as usize] {
        let mut modes = [Mode::Null; BYTES as usize];
        for lock in self.locks.reports(None).filter(|lock| (lock.file, lock.owner) == (file, owner)) {
            modes[bytes(&lock.range)].fill(lock.mode);
        }
        modes
    }
}

struct Cluster {
    mounts: Vec<Mount>,
    server: FileLockServer<u64>,
    recovering: BTreeSet<u64>,
    /// No program has two wishes at a time, so it is known what each has.
    orderly: bool,
}

impl Cluster {
    fn new(count: u64, orderly: bool) -> Self {
        let mut server = FileLockServer::new();
        server.finish_recovery();
        let mounts = (1..=count).map(Mount::new).collect();
        Cluster { mounts, server, recovering: BTreeSet::new(), orderly }
    }

    /// The mount has another server.
    fn begin_session(mount: &mut Mount) {
        mount.to_server.clear();
        mount.from_server.clear();
        mount.asked.clear();
        mount.to_server.extend(mount.locks.reports(None).map(Said::Report));
        mount.to_server.push_back(Said::Recovered);
        mount.to_server.extend(mount.unanswered.iter().map(|(n, request)| Said::Request(*n, *request)));
    }

    fn replace_server(&mut self) {
        self.server = FileLockServer::new();
        self.recovering = self.mounts.iter().map(|mount| mount.id).collect();
        self.mounts.iter_mut().for_each(Self::begin_session);
        self.recover();
    }

    fn recover(&mut self) {
        if self.recovering.is_empty() {
            self.server.finish_recovery();
        }
    }

    fn deliver_to_server(&mut self, n: usize) -> Result<(), TestCaseError> {
        let Some(said) = self.mounts[n].to_server.pop_front() else { return Ok(()) };
        let id = self.mounts[n].id;
        match said {
            Said::Request(sent, request) => {
                self.mounts[n].asked.insert(sent);
                self.server.handle_request(id, sent, &request).unwrap();
            }
            Said::Report(lock) => prop_assert_eq!(self.server.handle_report(id, &lock), Ok(())),
            Said::Recovered => {
                self.recovering.remove(&id);
                self.recover();
            }
        }
        self.pump();
        Ok(())
    }

    fn pump(&mut self) {
        while let Some(output) = self.server.poll_output().unwrap() {
            let mount = self.mounts.iter_mut().find(|mount| mount.id == output.client).unwrap();
            assert!(mount.asked.remove(&output.token), "answered twice");
            mount.from_server.push_back((output.token, output.reply));
        }
    }

    fn deliver_to_mount(&mut self, n: usize) {
        let mount = &mut self.mounts[n];
        let Some((sent, reply)) = mount.from_server.pop_front() else { return };
        let request = mount.unanswered.remove(&sent).unwrap();
        assert_eq!(reply.id, if request.op == Cancel { 0 } else { request.id });
        assert!(request.op != Lower || reply.result == Done, "{request:?} is refused");
        let answered = mount.locks.handle_reply(&reply).unwrap();
        if let Some(answered) = answered
            && let Some(wish) = mount.wishes.remove(&answered.id)
        {
            match answered.result {
                Done => mount.go_on(wish),
                refused => mount.told(wish.lock, refused),
            }
        }
    }

    /// A mount is gone, and its programs.
    fn lose(&mut self, n: usize) {
        let gone = self.mounts.remove(n);
        self.server.handle_client_gone(gone.id);
        self.recovering.remove(&gone.id);
        self.recover();
        self.pump();
    }

    fn check(&self) -> Result<(), TestCaseError> {
        // Nobody believes to hold what another believes to hold.
        let all = self.mounts.iter().flat_map(|m| m.locks.reports(None).map(move |lock| (m.id, lock)));
        let all: Vec<_> = all.collect();
        for (n, (client, lock)) in all.iter().enumerate() {
            for (other, with) in &all[n + 1..] {
                let same = (client, lock.owner) == (other, with.owner);
                let meet = lock.file == with.file && lock.range.common(&with.range).is_some();
                let both_read = lock.mode == Mode::Read && with.mode == Mode::Read;
                prop_assert!(same || !meet || both_read, "{client}: {lock:?}, {other}: {with:?}");
            }
        }
        self.mounts.iter().try_for_each(|mount| self.check_mount(mount))
    }

    fn check_mount(&self, mount: &Mount) -> Result<(), TestCaseError> {
        // The server knows of all that the mount believes to hold, once it was told.
        let told = !mount.to_server.iter().any(|said| matches!(said, Said::Report(_)));
        for lock in mount.locks.reports(None).filter(|_| told) {
            let (stranger, me) =
                (Owner { client: 99, owner: 0 }, Owner { client: mount.id, owner: lock.owner });
            for byte in bytes(&lock.range) {
                let byte = range(byte as u64, byte as u64);
                let known = self.server.file(&lock.file).is_some_and(|file| {
                    let mut held = file.in_the_way(stranger, byte, Mode::Write);
                    held.any(|(owner, piece)| owner == me && piece.mode >= lock.mode)
                });
                prop_assert!(known, "the server does not know that {} has {lock:?}", mount.id);
            }
        }
        // What a program was told that it has it has, whatever it waits for, and no more.
        for (&(file, owner), has) in mount.programs.iter().filter(|_| self.orderly) {
            let believes = mount.believes(file, owner);
            match mount.is_wishing(file, owner) {
                None => prop_assert_eq!(&believes, has, "{} of {:?} on mount {}", owner, file, mount.id),
                Some(_) if file.class == LockClass::Flock => {}
                Some(wish) => {
                    let mut least = *has;
                    for mode in &mut least[bytes(&wish.lock.range)] {
                        *mode = wish.lock.mode.min(*mode);
                    }
                    let enough = believes.iter().zip(&least).all(|(believed, least)| believed >= least);
                    prop_assert!(enough, "{has:?} and {wish:?} is {believes:?} on mount {}", mount.id);
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        while self.mounts.iter().any(|m| !m.to_server.is_empty() || !m.from_server.is_empty()) {
            for n in 0..self.mounts.len() {
                self.deliver_to_server(n)?;
                self.deliver_to_mount(n);
            }
        }
        self.check()
    }

    /// A program's wish, and what becomes of it when all that is said arrives; none when it waits.
    fn result(&mut self, n: usize, op: FileLockOp, lock: FileLock) -> Option<FileLockResult> {
        let before = self.mounts[n].results.len();
        self.mounts[n].wish(op, lock);
        self.settle().unwrap();
        self.mounts[n].results.get(before).copied()
    }
}

#[test]
fn a_conversion_of_fcntl_that_fails_leaves_what_there_was_over_servers() {
    let f = |owner, start, end, mode| lock(file(1, LockClass::Fcntl), owner, range(start, end), mode);
    for (old, new) in [(Mode::Write, Mode::Read), (Mode::Read, Mode::Write)] {
        // The server before handles it and its answer is lost, or does not hear of it.
        for handled in [false, true] {
            let mut cluster = Cluster::new(2, true);
            assert_eq!(cluster.result(0, Set, f(1, 0, 3, old)), Some(Done));
            assert_eq!(cluster.result(1, Set, f(1, 5, 5, Mode::Write)), Some(Done));
            cluster.mounts[0].wish(Set, f(1, 0, 9, new));
            if handled {
                cluster.deliver_to_server(0).unwrap();
            }
            cluster.replace_server();
            // The other asks the new server first.
            cluster.mounts[1].wish(Set, f(1, 0, 3, Mode::beside(old).max(Mode::Read)));
            while !cluster.mounts[1].to_server.is_empty() {
                cluster.deliver_to_server(1).unwrap();
            }
            cluster.settle().unwrap();
            assert_eq!(cluster.mounts[0].results.last(), Some(&Blocked));
            let held = [old, old, old, old, Mode::Null, Mode::Null];
            assert_eq!(cluster.mounts[0].believes(file(1, LockClass::Fcntl), 1)[..6], held);
            let other = cluster.mounts[1].results.last();
            assert_eq!(other, Some(if old == Mode::Write { &Blocked } else { &Done }));
            // It is done when nothing is in the way any more, and what was too much is given back.
            assert_eq!(cluster.result(1, Set, f(1, 0, 9, Mode::Null)), Some(Done));
            assert_eq!(cluster.result(0, Set, f(1, 0, 9, new)), Some(Done));
            let reads = cluster.result(1, Set, f(1, 0, 0, Mode::Read));
            assert_eq!(reads, Some(if new == Mode::Read { Done } else { Blocked }));
            assert_eq!(cluster.result(1, Set, f(1, 9, 9, Mode::Write)), Some(Blocked));
        }
    }
}

#[test]
fn a_conversion_goes_on_with_the_next_server_where_it_was() {
    let f = |owner, start, end, mode| lock(file(1, LockClass::Fcntl), owner, range(start, end), mode);
    let mut cluster = Cluster::new(2, true);
    assert_eq!(cluster.result(0, Set, f(1, 0, 3, Mode::Write)), Some(Done));
    cluster.mounts[0].wish(Wait, f(1, 0, 9, Mode::Read));
    cluster.deliver_to_server(0).unwrap();
    cluster.deliver_to_mount(0);
    // The whole range is held, and what is too much was given back, of which the mount does not hear.
    cluster.deliver_to_server(0).unwrap();
    assert_eq!(cluster.result(1, Set, f(1, 2, 4, Mode::Read)), Some(Done));
    cluster.replace_server();
    cluster.settle().unwrap();
    assert_eq!(cluster.mounts[0].results, [Done, Done]);
    assert_eq!(cluster.result(1, Set, f(1, 9, 9, Mode::Write)), Some(Blocked));
}

#[test]
fn flock_gives_the_old_lock_back_before_it_takes_the_new_one() {
    let mut cluster = Cluster::new(3, true);
    let f = |owner, mode| lock(file(1, LockClass::Flock), owner, ByteRange::ALL, mode);
    assert_eq!(cluster.result(0, Set, f(1, Mode::Read)), Some(Done));
    assert_eq!(cluster.result(1, Set, f(2, Mode::Read)), Some(Done));
    // What was held is lost though the upgrade fails.
    assert_eq!(cluster.result(0, Set, f(1, Mode::Write)), Some(Blocked));
    assert_eq!(cluster.result(1, Set, f(2, Mode::Write)), Some(Done));
    // Who waited for the old one gets it before a new one that waits.
    assert_eq!(cluster.result(2, Wait, f(3, Mode::Write)), None);
    assert_eq!(cluster.result(1, Wait, f(2, Mode::Read)), None);
    assert_eq!(cluster.mounts[2].results, [Done]);
    assert_eq!(cluster.result(2, Set, f(3, Mode::Null)), Some(Done));
    assert_eq!(cluster.mounts[1].results.last(), Some(&Done));
    // What it has it is given again, by the server.
    let sent = cluster.mounts[1].last_sent;
    assert_eq!(cluster.result(1, Set, f(2, Mode::Read)), Some(Done));
    assert_eq!(cluster.mounts[1].last_sent, sent + 1);
}

#[test]
fn a_mount_has_so_many_locks_and_can_still_give_them_back() {
    let mut cluster = Cluster::new(2, true);
    let f = |start, end, mode| {
        let range = ByteRange::new(start, end).unwrap();
        lock(file(1, LockClass::Fcntl), 1, range, mode)
    };
    let mut ask = |n: usize, lock| {
        cluster.mounts[n].wish(Set, lock);
        while cluster.mounts[n].results.is_empty() {
            cluster.deliver_to_server(n).unwrap();
            cluster.deliver_to_mount(n);
        }
        cluster.mounts[n].results.pop().unwrap()
    };
    let last = 1 << 40;
    assert_eq!(ask(0, f(last, last + 9, Mode::Write)), Done);
    let mut n = 0;
    while ask(0, f(n, n, Mode::Write)) == Done {
        n += 2;
    }
    assert!(n / 2 <= MAX_HELD as u64 && n / 2 > MAX_HELD as u64 - 6, "{n}");
    assert_eq!(ask(1, f(n, n, Mode::Write)), Done, "another mount has its own number");
    assert_eq!(ask(0, f(n, n, Mode::Write)), Full);
    // The rest of the room is for what is given back in parts.
    let mut given = 0;
    let part = |n: u64, mode| f(last + 1 + 2 * n, last + 1 + 2 * n, mode);
    while given < 4 && ask(0, part(given, Mode::Null)) == Done {
        given += 1;
    }
    assert!(given > 0 && given < 4, "{given}");
    assert_eq!(ask(1, part(given, Mode::Read)), Blocked, "what is refused changes nothing");
    assert_eq!(ask(0, f(0, 0, Mode::Read)), Done);
    assert_eq!(ask(0, f(0, last - 1, Mode::Null)), Done);
    assert_eq!(ask(0, part(given, Mode::Null)), Done);
    assert_eq!(ask(1, f(0, last + 1, Mode::Write)), Blocked);
    assert_eq!(ask(0, f(n + 4, n + 4, Mode::Write)), Done);
}

/// What programs want, what happens, and which of several it concerns.
type Steps = Vec<((u64, FileLock), u8, prop::sample::Index)>;

fn any_steps() -> impl Strategy<Value = Steps> {
    proptest::collection::vec((any_lock(), 0u8..40, any::<prop::sample::Index>()), 1..200)
}

fn survive(steps: Steps, orderly: bool) -> Result<(), TestCaseError> {
    let mut cluster = Cluster::new(3, orderly);
    for ((client, lock), what, index) in steps {
        let n = client as usize % cluster.mounts.len();
        let mount = &mut cluster.mounts[n];
        match what {
            0..=7 if orderly && mount.is_wishing(lock.file, lock.owner).is_some() => {}
            0..=7 => mount.wish(if what < 4 { Wait } else { Set }, lock),
            8..=9 => {
                let waits: Vec<_> =
                    mount.unanswered.values().filter(|r| r.op == Wait).map(|r| r.id).collect();
                if !waits.is_empty()
                    && let Some(cancel) = mount.locks.cancel(waits[index.index(waits.len())])
                {
                    mount.ask(cancel);
                }
            }
            10 => cluster.replace_server(),
            11 if cluster.mounts.len() > 1 => cluster.lose(n),
            12..=25 => cluster.deliver_to_server(n)?,
            _ => cluster.deliver_to_mount(n),
        }
        cluster.check()?;
    }
    cluster.settle()?;
    // Who still waits has somebody in his way.
    for mount in &cluster.mounts {
        for request in mount.unanswered.values() {
            let FileLockRequest { op, lock, .. } = request;
            let me = Owner { client: mount.id, owner: lock.owner };
            let file = cluster.server.file(&lock.file);
            let blocked = file.is_some_and(|file| !file.is_free(me, lock.range, lock.mode));
            prop_assert!(*op == Wait && blocked, "{request:?} waits for nobody");
        }
    }
    // All that a server knows of, the mounts know of: when they give it back, nothing is left.
    cluster.orderly = false;
    for _ in 0..400 {
        for mount in &mut cluster.mounts {
            let held: Vec<_> = mount.locks.reports(None).collect();
            for lock in held {
                mount.wish(Set, FileLock { mode: Mode::Null, ..lock });
            }
        }
        cluster.settle()?;
    }
    prop_assert!(cluster.server.is_empty(), "{:?}", cluster.server);
    prop_assert!(cluster.mounts.iter().all(|mount| mount.unanswered.is_empty()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn locks_survive_servers_and_nobody_holds_what_another_holds(steps in any_steps(), orderly in any::<bool>()) {
        survive(steps, orderly)?;
    }
}
