// SPDX-License-Identifier: GPL-2.0-only
//! The same calls on a filesystem under test and on the reference: all answers and all that can be seen is equal.

use std::collections::BTreeMap;

use super::call::{Answer, Call, Outcome};
use super::history::{Found, History};
use super::names::{Reference, Rules};
use super::node::{Content, Seen, Stat, Times};
use super::op::{Op, SEARCHED};

/// A filesystem under test. Whatever is wrong but an errno that a call answers is a panic.
pub trait Subject {
    /// What is not the same for all.
    fn rules(&self) -> Rules;
    /// Carries out a call. The reference is as before it.
    fn call(&mut self, call: &Call, now: &Reference) -> Outcome<Answer>;
    /// What `stat` shows of an inode of the reference.
    fn stat(&mut self, ino: u64, now: &Reference) -> Stat;
    /// All that can be seen of an inode of the reference.
    fn look(&mut self, ino: u64, now: &Reference) -> Seen;
    /// All inodes that have names, from the root.
    fn tree(&mut self) -> Found;
    /// The inodes that a search for an attribute finds, after what was done is committed.
    fn search(&mut self, name: &[u8]) -> Vec<u64>;
}

/// A run of calls.
pub struct Run<S> {
    subject: S,
    reference: Reference,
    history: History,
    /// All calls, for who looks for the reason of a failure.
    log: Vec<String>,
    seed: u64,
}

impl<S: Subject> Run<S> {
    /// Begins with an empty filesystem.
    pub fn new(mut subject: S) -> Self {
        let mut found = subject.tree();
        let root = found.remove(&scoutfs_format::item::ROOT_INO).expect("a root");
        assert!(found.is_empty(), "a new volume is empty");
        assert_eq!(
            (root.stat.mode, root.stat.nlink, root.stat.size, &root.content),
            (0o040755, 2, 0, &Content::Dir(vec![]))
        );
        let reference = Reference::new(subject.rules(), root);
        let history = History::new(&reference.nodes);
        Run { subject, reference, history, log: vec![], seed: 0 }
    }

    /// Carries out all operations, then looks at everything, again after a remount, and gives the filesystem back.
    ///
    /// # Panics
    ///
    /// When something is not as the reference has it, with all calls up to there.
    pub fn run(mut self, ops: &[Op]) -> S {
        for op in ops {
            self.seed += 1;
            if let Some(call) = op.call(&self.reference, self.seed) {
                self.step(&call);
            }
        }
        for ino in self.reference.nodes.keys().copied().collect::<Vec<_>>() {
            let seen = self.subject.look(ino, &self.reference);
            self.assert_equal(&seen, &self.reference.node(ino).seen, format_args!("inode {ino}"));
        }
        self.compare_search();
        while !self.reference.open.is_empty() {
            self.step(&Call::Close(0));
        }
        self.compare_tree();
        self.step(&Call::Remount);
        self.subject
    }

    /// Carries out one call.
    ///
    /// # Panics
    ///
    /// As [`Run::run`].
    pub fn step(&mut self, call: &Call) {
        self.log.push(format!("{call:?}"));
        let real = self.subject.call(call, &self.reference);
        let made = match real {
            Ok(Answer::Made(ino)) => Some(ino),
            _ => None,
        };
        let want = self.reference.apply(call, made);
        self.assert_equal(&real, &want, "the answer");
        match call {
            Call::Remount => {
                self.compare_tree();
                self.compare_search();
                self.history = History::new(&self.reference.nodes);
            }
            Call::Crash => {
                let found = self.subject.tree();
                match self.history.explain(&found) {
                    Ok(nodes) => self.reference.nodes = nodes,
                    Err(e) => panic!("after a crash: {e}\n{}", self.calls()),
                }
                self.compare_search();
                self.history = History::new(&self.reference.nodes);
            }
            _ => {
                self.compare_stats();
                let touched = self.reference.touched.keys().copied();
                self.history.note(call, touched, &self.reference.nodes);
            }
        }
    }

    /// `stat` of every inode: what the call did not mean to change is as before.
    fn compare_stats(&mut self) {
        for ino in self.reference.nodes.keys().copied().collect::<Vec<_>>() {
            let real = self.subject.stat(ino, &self.reference);
            let want = self.reference.node(ino).seen.stat;
            let touched = self.reference.touched.get(&ino).copied();
            let (old, new) = (want.times, real.times);
            self.assert_equal(&Stat { times: old, ..real }, &want, format_args!("stat of inode {ino}"));
            let right = match touched {
                None => new == old,
                // It has just been made.
                Some(_) if old == Times::default() => new.btime <= new.ctime && new.mtime <= new.ctime,
                Some(contents) => {
                    new.btime == old.btime
                        && new.ctime > old.ctime
                        && new.mtime == if contents { new.ctime } else { old.mtime }
                }
            };
            assert!(right, "times of inode {ino} are {new:?} after {old:?}\n{}", self.calls());
            if new != old {
                self.reference.set_all_times(ino, new);
            }
        }
    }

    fn compare_tree(&mut self) {
        let found = self.subject.tree();
        let want: BTreeMap<u64, &Seen> =
            self.reference.nodes.iter().map(|(ino, n)| (*ino, &n.seen)).collect();
        let numbers = |inos: &[&u64]| inos.iter().map(|ino| **ino).collect::<Vec<u64>>();
        let (are, should) =
            (numbers(&found.keys().collect::<Vec<_>>()), numbers(&want.keys().collect::<Vec<_>>()));
        self.assert_equal(&are, &should, "the inodes that have names");
        for (ino, seen) in &found {
            self.assert_equal(seen, want[ino], format_args!("inode {ino}"));
        }
    }

    /// A search finds those that have the attribute, and no others.
    fn compare_search(&mut self) {
        for name in SEARCHED {
            let (found, want) = (self.subject.search(name), self.reference.having_xattr(name));
            self.assert_equal(&found, &want, format_args!("those with {}", name.escape_ascii()));
        }
    }

    fn assert_equal<T: PartialEq + std::fmt::Debug>(&self, real: &T, want: &T, what: impl std::fmt::Display) {
        assert!(real == want, "{what}: {real:?}, not {want:?}\n{}", self.calls());
    }

    fn calls(&self) -> String {
        format!("calls:\n  {}", self.log.join("\n  "))
    }
}
