// SPDX-License-Identifier: GPL-2.0-only
//! Several mounts and a server, with everything that can happen between them: messages about different locks
//! overtake each other, come twice and late; mounts die; the server is replaced.
//!
//! Every lock guards a register. Mounts cache it as the lock allows and write it back when told to. What must
//! hold: nobody reads anything but what was last written, versions of writes go up, and everybody who waits gets
//! the lock once faults end.

use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

use proptest::prelude::*;
use scoutfs_env::time::Mono;

use crate::*;

/// splitmix64: the whole run follows from the seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// From one side to the other, about one lock.
#[derive(Clone, Copy, Debug)]
enum Wire {
    Request(u64, Message),
    Answer(Message),
    Grant(Message),
    Refused(LockName),
    Revoke(u64, Message),
}

#[derive(Clone, Copy, Debug)]
struct Cached {
    value: u64,
    dirty: bool,
}

struct Mount {
    id: u64,
    locks: LockClient<u64>,
    cache: BTreeMap<LockName, Cached>,
    waiting: Vec<(LockName, Ticket)>,
    using: Vec<(LockName, Mode)>,
    invalidating: Vec<(LockName, Mode)>,
    commit_nr: u64,
}

struct Cluster {
    chance: Chance,
    mounts: Vec<Mount>,
    server: LockServer<u64>,
    /// (mount, to the server, lock): in order for each.
    wires: BTreeMap<(u64, bool, LockName), VecDeque<Wire>>,
    /// What was committed, what was last written, and the version and mount of that write.
    committed: BTreeMap<LockName, u64>,
    written: BTreeMap<LockName, u64>,
    versions: BTreeMap<LockName, (u64, u64)>,
    last_version: u64,
    last_id: u64,
    term: u64,
    faults: bool,
}

impl Cluster {
    fn new(seed: u64, mounts: usize) -> Self {
        let mut cluster = Cluster {
            chance: Chance(seed),
            mounts: Vec::new(),
            server: LockServer::new(1 << 32),
            wires: BTreeMap::new(),
            committed: BTreeMap::new(),
            written: BTreeMap::new(),
            versions: BTreeMap::new(),
            last_version: 0,
            last_id: 0,
            term: 1,
            faults: true,
        };
        cluster.server.finish_recovery();
        for _ in 0..mounts {
            let mount = cluster.new_mount();
            cluster.mounts.push(mount);
        }
        cluster
    }

    fn new_mount(&mut self) -> Mount {
        self.last_id += 1;
        Mount {
            id: self.last_id,
            locks: LockClient::new(3),
            cache: BTreeMap::new(),
            waiting: Vec::new(),
            using: Vec::new(),
            invalidating: Vec::new(),
            commit_nr: 0,
        }
    }

    fn lock(&mut self) -> LockName {
        match self.chance.below(5) {
            0 => LockName::RENAME,
            n => LockName::group_of(n as u64 * 1024),
        }
    }

    fn send(&mut self, mount: u64, to_server: bool, name: LockName, wire: Wire) {
        self.wires.entry((mount, to_server, name)).or_default().push_back(wire);
    }

    /// Uses a lock that was acquired: reads the register and perhaps writes it.
    fn use_lock(&mut self, at: usize, name: LockName, mode: Mode, granted: Granted) {
        let mount = &mut self.mounts[at];
        let value = self.committed.get(&name).copied().unwrap_or(0);
        let cached = mount.cache.entry(name).or_insert(Cached { value, dirty: false });
        let newest = self.written.get(&name).copied().unwrap_or(0);
        assert_eq!(cached.value, newest, "mount {} reads {name}", mount.id);
        if mode == Mode::Write {
            let (before, by) = self.versions.get(&name).copied().unwrap_or((0, 0));
            assert!(granted.version > before || (granted.version == before && by == mount.id), "{name}");
            self.versions.insert(name, (granted.version, mount.id));
            let value = self.chance.next();
            *cached = Cached { value, dirty: true };
            self.written.insert(name, value);
        }
        mount.using.push((name, mode));
    }

    fn poll(&mut self, at: usize) {
        while let Some(output) = self.mounts[at].locks.poll_output() {
            let id = self.mounts[at].id;
            match output {
                Output::Request(message) => {
                    let token = self.chance.next();
                    self.send(id, true, message.name, Wire::Request(token, message));
                }
                Output::Answer { message, .. } => {
                    self.send(id, true, message.name, Wire::Answer(message));
                }
                Output::Invalidate { name, held, keep } => {
                    assert!(held > keep);
                    let used = &self.mounts[at].using;
                    assert!(!used.iter().any(|(n, m)| *n == name && *m > keep));
                    self.mounts[at].invalidating.push((name, keep));
                }
                Output::Acquired { ticket, name, mode, granted } => {
                    let waiting = &mut self.mounts[at].waiting;
                    let i = waiting.iter().position(|w| *w == (name, ticket)).unwrap();
                    waiting.remove(i);
                    self.use_lock(at, name, mode, granted);
                }
            }
        }
        while let Some(output) = self.server.poll_output(Mono::ZERO) {
            match output {
                ServerOutput::Grant { client, grant, .. } => {
                    self.last_version += 1;
                    let message = grant.into_message(self.last_version);
                    self.send(client, false, message.name, Wire::Grant(message));
                }
                ServerOutput::Revoke { client, message } => {
                    let token = self.chance.next();
                    self.send(client, false, message.name, Wire::Revoke(token, message));
                }
            }
        }
        self.check_modes();
    }

    fn check_modes(&self) {
        for name in self.wires.keys().map(|(_, _, name)| *name) {
            let mut modes: Vec<Mode> = self.mounts.iter().map(|m| m.locks.mode(name)).collect();
            modes.sort();
            if modes.last() == Some(&Mode::Write) {
                assert!(modes[..modes.len() - 1].iter().all(|m| *m == Mode::Null), "{name}");
            }
        }
    }

    fn deliver(&mut self) {
        let full: Vec<_> =
            self.wires.iter().filter(|(_, queue)| !queue.is_empty()).map(|(key, _)| *key).collect();
        if full.is_empty() {
            return;
        }
        let key = full[self.chance.below(full.len())];
        let (id, to_server, _) = key;
        let queue = self.wires.get_mut(&key).unwrap();
        // A message that stays at the front comes again.
        let wire = *queue.front().unwrap();
        if !self.faults || !self.chance.one_in(4) {
            queue.pop_front();
        }
        let Some(at) = self.mounts.iter().position(|m| m.id == id) else {
            return;
        };
        match wire {
            Wire::Request(token, message) => {
                assert!(to_server);
                if self.faults && self.chance.one_in(20) && !queue_has(queue, &wire) {
                    self.send(id, false, message.name, Wire::Refused(message.name));
                } else {
                    self.server.handle_request(id, token, &message, &Opens::default()).unwrap();
                }
            }
            Wire::Answer(message) => self.server.handle_answer(id, &message, &Opens::default()).unwrap(),
            Wire::Grant(message) => self.mounts[at].locks.handle_grant(&message),
            Wire::Refused(name) => self.mounts[at].locks.handle_refused(name),
            Wire::Revoke(token, message) => {
                if let Revoked::Answer(answer) = self.mounts[at].locks.handle_revoke(token, &message) {
                    self.send(id, true, answer.name, Wire::Answer(answer));
                }
            }
        }
        self.poll(at);
    }

    fn finish_invalidation(&mut self, at: usize) {
        let mount = &mut self.mounts[at];
        if mount.invalidating.is_empty() {
            return;
        }
        let i = self.chance.below(mount.invalidating.len());
        let (name, keep) = mount.invalidating.remove(i);
        if let Some(cached) = mount.cache.get_mut(&name) {
            if std::mem::replace(&mut cached.dirty, false) {
                self.committed.insert(name, cached.value);
                mount.commit_nr += 1;
            }
            if keep == Mode::Null {
                mount.cache.remove(&name);
            }
        }
        mount.locks.invalidated(name, mount.commit_nr).unwrap();
        self.poll(at);
    }

    fn release(&mut self, at: usize) {
        let mount = &mut self.mounts[at];
        if !mount.using.is_empty() {
            let i = self.chance.below(mount.using.len());
            let (name, mode) = mount.using.swap_remove(i);
            mount.locks.release(name, mode).unwrap();
            self.poll(at);
        }
    }

    fn acquire(&mut self, at: usize) {
        let name = self.lock();
        let mode = if self.chance.one_in(2) { Mode::Read } else { Mode::Write };
        let mount = &mut self.mounts[at];
        if mount.using.iter().any(|(n, _)| *n == name) {
            return;
        }
        match mount.locks.acquire(name, mode).unwrap() {
            Acquire::Granted(granted) => self.use_lock(at, name, mode, granted),
            Acquire::Wait(ticket) => self.mounts[at].waiting.push((name, ticket)),
        }
        self.poll(at);
    }

    fn fail_over(&mut self) {
        self.wires.clear();
        self.term += 1;
        self.server = LockServer::new(self.term << 32);
        // Requests that come early wait.
        for at in 0..self.mounts.len() {
            self.mounts[at].locks.handle_new_server();
            let id = self.mounts[at].id;
            let mut after = None;
            while let Some(report) = self.mounts[at].locks.reports(after).next() {
                self.server.handle_report(id, &report).unwrap();
                if self.chance.one_in(3) {
                    self.server.handle_report(id, &report).unwrap();
                }
                after = Some(report.name);
            }
            self.poll(at);
        }
        self.server.finish_recovery();
        self.poll(0);
    }

    fn crash(&mut self, at: usize) {
        let new = self.new_mount();
        let dead = std::mem::replace(&mut self.mounts[at], new);
        for (name, cached) in dead.cache {
            if cached.dirty {
                let value = self.committed.get(&name).copied().unwrap_or(0);
                self.written.insert(name, value);
            }
        }
        self.server.handle_client_gone(dead.id);
        self.poll(at);
    }

    fn step(&mut self) {
        let at = self.chance.below(self.mounts.len());
        match self.chance.below(300) {
            0 => self.fail_over(),
            1 => self.crash(at),
            2..10 => {
                self.mounts[at].locks.shrink(2);
                self.poll(at);
            }
            10..20 => {
                let mount = &mut self.mounts[at];
                if let Some((name, ticket)) = mount.waiting.pop() {
                    assert_eq!(mount.locks.cancel(name, ticket), Cancel::Cancelled);
                    self.poll(at);
                }
            }
            20..80 => self.acquire(at),
            80..130 => self.release(at),
            130..160 => self.finish_invalidation(at),
            _ => self.deliver(),
        }
    }

    fn heal(&mut self) {
        self.faults = false;
        for _ in 0..20_000 {
            for at in 0..self.mounts.len() {
                self.release(at);
                self.finish_invalidation(at);
            }
            self.deliver();
            if self.wires.values().all(VecDeque::is_empty)
                && self.mounts.iter().all(|m| m.using.is_empty() && m.invalidating.is_empty())
            {
                break;
            }
        }
        for mount in &self.mounts {
            assert_eq!(mount.waiting, [], "mount {} still waits", mount.id);
        }
        assert_eq!(self.server.overdue(Mono::MAX, core::time::Duration::ZERO), None);
    }
}

fn queue_has(queue: &VecDeque<Wire>, wire: &Wire) -> bool {
    matches!((queue.front(), wire), (Some(Wire::Request(a, _)), Wire::Request(b, _)) if a == b)
}

fn run(seed: u64, mounts: usize, steps: usize) {
    let mut cluster = Cluster::new(seed, mounts);
    for _ in 0..steps {
        cluster.step();
    }
    cluster.heal();
    // All locks can be given back, and then nothing is left anywhere.
    for at in 0..mounts {
        cluster.mounts[at].locks.shrink(usize::MAX);
        cluster.poll(at);
    }
    cluster.heal();
    for mount in &cluster.mounts {
        assert!(mount.locks.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    /// Invariant 11: every request is served in the end, whatever is lost, sent twice or idle.
    #[test]
    fn caches_are_coherent_and_everybody_is_served(seed: u64, mounts in 1usize..5) {
        run(seed, mounts, 1500);
    }
}
