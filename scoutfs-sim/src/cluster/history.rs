// SPDX-License-Identifier: GPL-2.0-only
//! What programs did and saw, and whether it could be so.
//!
//! Each name of a directory and the content of each file is a *register*: writes give it a value, reads tell it. A read of a value is
//! wrong when that value was certainly replaced before the read began: there is another write that began after the value's
//! write had ended, and that had ended, or was seen, before the read began. Nothing is concluded from operations that
//! overlap. That is linearizability as far as values of their own can show it, checked at each read.
//!
//! A mount that dies may lose what it wrote and nobody is owed: a write is *owed* when a later fsync or sync of the
//! same mount returned, or when another mount saw it. Of a mount that dies, only such writes replace others for certain.

use std::collections::BTreeMap;
use std::fmt;

use scoutfs_env::sim::{self, Node};

/// What can have a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    /// The inode behind a name of the common directory; 0 when there is none.
    Name(usize),
    /// What the file behind a name is filled with.
    Content(usize),
    /// What an attribute of that file is filled with; 0 when there is none.
    Xattr(usize),
    /// How large a file is that is only truncated.
    Size,
    /// What is at a place of a file that is only appended to; 0 behind its end.
    Log(usize),
}

/// What a read saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// This value.
    Value(u64),
    /// Any but 0.
    Something,
}

/// A write whose result is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteId(Register, usize);

struct Write {
    by: Node,
    /// `None`: any but 0.
    value: Option<u64>,
    /// The inode that it went to; 0 when that is not known.
    ino: u64,
    began: u64,
    /// When it had certainly happened, if ever.
    ended: Option<u64>,
    owed: bool,
    /// It failed before it did anything.
    void: bool,
    /// The disk failed on the way: a part of it may have happened.
    failed: bool,
}

#[derive(Clone, Copy, Default)]
struct Life {
    /// From when on nothing of this mount happens any more.
    died: Option<u64>,
    /// It may be taken for dead.
    suspect: bool,
}

/// See the module.
#[derive(Default)]
pub struct History {
    writes: BTreeMap<Register, Vec<Write>>,
    /// What is being appended, and nobody has seen yet: its value, who appends it, from when on.
    appends: BTreeMap<u64, (Node, u64)>,
    lives: BTreeMap<Node, Life>,
    /// Places of the file that is appended to that anything is known of.
    pub log_len: usize,
    /// The read that is checked saw a part of a value.
    torn: bool,
    /// How many reads were checked.
    pub reads: u64,
    /// How many writes ended well.
    pub written: u64,
    /// How many of them were owed by a sync.
    pub synced: u64,
}

/// A read that cannot be.
#[derive(Debug)]
pub struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Write {
    fn is(&self, seen: Seen) -> bool {
        match (self.value, seen) {
            (Some(value), Seen::Value(seen)) => value == seen,
            (Some(value), Seen::Something) => value != 0,
            (None, Seen::Value(seen)) => seen != 0,
            (None, Seen::Something) => true,
        }
    }

    fn shown(&self) -> String {
        let ms = |ns: u64| ns / 1_000_000;
        let ended = self.ended.map_or("never".to_string(), |ended| format!("{} ms", ms(ended)));
        let owed = if self.owed { ", owed" } else { "" };
        format!("{:?} by {:?}, {} ms to {ended}{owed}", self.value, self.by, ms(self.began))
    }
}

impl History {
    /// A register has this value from the beginning, for all to see.
    pub fn begin(&mut self, register: Register, value: u64) {
        let write = Write {
            by: Node::OUTSIDE,
            value: Some(value),
            ino: 0,
            began: 0,
            ended: Some(0),
            owed: true,
            void: false,
            failed: false,
        };
        self.writes.insert(register, vec![write]);
    }

    /// A mount begins to write. `None`: the value is not known before it is done.
    pub fn writes(&mut self, by: Node, register: Register, value: Option<u64>) -> WriteId {
        let writes = self.writes.entry(register).or_default();
        let began = sim::now_ns();
        writes.push(Write { by, value, ino: 0, began, ended: None, owed: false, void: false, failed: false });
        WriteId(register, writes.len() - 1)
    }

    /// The inode that a write goes to is known.
    pub fn goes_to(&mut self, id: WriteId, ino: u64) {
        self.write(id).ino = ino;
    }

    /// A mount begins to append a value, which nobody else does; where it goes will be seen.
    pub fn appends(&mut self, by: Node, value: u64) {
        self.appends.insert(value, (by, sim::now_ns()));
    }

    /// Nothing was appended.
    pub fn append_refused(&mut self, value: u64) {
        self.appends.remove(&value);
    }

    /// A value was appended here, as its writer says.
    pub fn appended(&mut self, value: u64, at: usize, ino: u64) -> Result<(), Wrong> {
        self.place(at, value);
        let writes = self.writes.entry(Register::Log(at)).or_default();
        let Some(own) = writes.iter().rposition(|write| write.value == Some(value)) else {
            return Err(Wrong(format!("{value:x} was appended at {at}, and was seen elsewhere")));
        };
        let id = WriteId(Register::Log(at), own);
        self.goes_to(id, ino);
        self.written(id, None);
        Ok(())
    }

    /// A value that is being appended is seen, or said to be, at a place.
    fn place(&mut self, at: usize, value: u64) {
        if !self.writes.contains_key(&Register::Log(at)) {
            self.begin(Register::Log(at), 0);
            self.log_len = self.log_len.max(at + 1);
        }
        if let Some((by, began)) = self.appends.remove(&value) {
            let id = self.writes(by, Register::Log(at), Some(value));
            self.write(id).began = began;
        }
    }

    /// A mount has seen what is at a place of the file that is appended to; 0 behind its end.
    pub fn read_log(&mut self, by: Node, at: usize, value: u64, began: u64) -> Result<(), Wrong> {
        self.place(at, value);
        self.read(by, Register::Log(at), Seen::Value(value), began)
    }

    fn write(&mut self, id: WriteId) -> &mut Write {
        &mut self.writes.get_mut(&id.0).expect("a register")[id.1]
    }

    /// It is done.
    pub fn written(&mut self, id: WriteId, value: Option<u64>) {
        self.written += 1;
        let write = self.write(id);
        write.value = value.or(write.value);
        write.ended.get_or_insert(sim::now_ns());
    }

    /// It did nothing.
    pub fn refused(&mut self, id: WriteId) {
        self.write(id).void = true;
    }

    /// The disk failed on the way.
    pub fn failed(&mut self, id: WriteId) {
        self.write(id).failed = true;
    }

    /// A mount had all made durable that it had done to an inode, or to all, before `began`.
    pub fn synced(&mut self, by: Node, ino: Option<u64>, began: u64) {
        for writes in self.writes.values_mut() {
            let of_inode = |write: &Write| ino.is_none_or(|ino| write.ino == ino);
            let own = writes.iter_mut().filter(|write| write.by == by && !write.owed && of_inode(write));
            for write in own.filter(|write| write.ended.is_some_and(|ended| ended <= began)) {
                write.owed = true;
                self.synced += 1;
            }
        }
    }

    /// A mount may be taken for dead from now on.
    pub fn suspect(&mut self, node: Node) {
        self.lives.entry(node).or_default().suspect = true;
    }

    /// Whether it may.
    pub fn is_suspect(&self, node: Node) -> bool {
        self.lives.get(&node).is_some_and(|life| life.suspect)
    }

    /// A mount is dead.
    pub fn died(&mut self, node: Node) {
        self.lives.entry(node).or_default().died.get_or_insert(sim::now_ns());
    }

    /// A mount that read from `began` on has seen this.
    pub fn read(&mut self, by: Node, register: Register, seen: Seen, began: u64) -> Result<(), Wrong> {
        self.read_but(by, register, seen, began, None)
    }

    /// A mount has seen several values at once, a part each: what a power failure may leave where nothing was synced, a failed write,
    /// and one that a mount had begun that is taken for dead.
    pub fn read_torn(&mut self, by: Node, register: Register, seen: &[u64], began: u64) -> Result<(), Wrong> {
        let is_owed = |value: &u64| {
            let writes = self.writes.get(&register).into_iter().flatten();
            let lost = |write: &Write| {
                let Life { died, suspect } = self.lives.get(&write.by).copied().unwrap_or_default();
                died.is_some() || suspect && write.ended.is_none()
            };
            writes
                .filter(|write| write.value == Some(*value))
                .any(|write| write.owed || (!lost(write) && !write.failed))
        };
        if seen.iter().filter(|value| is_owed(value)).count() > 1 {
            return Err(Wrong(format!("{by:?} read {register:?} torn: {seen:x?}")));
        }
        for value in seen {
            self.torn = true;
            let read = self.read(by, register, Seen::Value(*value), began);
            self.torn = false;
            read?;
        }
        Ok(())
    }

    /// As [`History::read`], of what was there before a write of the reader.
    pub fn read_but(
        &mut self,
        by: Node,
        register: Register,
        seen: Seen,
        began: u64,
        own: Option<WriteId>,
    ) -> Result<(), Wrong> {
        self.reads += 1;
        let lives = &self.lives;
        let life = |write: &Write| lives.get(&write.by).copied().unwrap_or_default();
        let writes = self.writes.entry(register).or_default();
        let own = own.map(|own| own.1);
        let ended = |write: &Write| write.ended.or(life(write).died).unwrap_or(u64::MAX);
        let certain = |write: &Write| {
            let Life { died, suspect } = life(write);
            !write.void && (write.owed || (died.is_none() && !suspect))
        };
        let replaced_by = |candidate: &Write| {
            let end = ended(candidate);
            writes.iter().enumerate().position(|(at, other)| {
                Some(at) != own
                    && certain(other)
                    && other.ended.is_some_and(|ended| ended < began)
                    && end < other.began
            })
        };
        let candidates: Vec<usize> = (0..writes.len())
            .filter(|at| Some(*at) != own && !writes[*at].void && writes[*at].is(seen))
            .collect();
        let possible: Vec<usize> =
            candidates.iter().copied().filter(|at| replaced_by(&writes[*at]).is_none()).collect();
        if possible.is_empty() {
            let mut why = format!("{by:?} read {seen:?} of {register:?} from {} ms on: ", began / 1_000_000);
            match candidates.last() {
                None => why += "nobody wrote that",
                Some(at) => {
                    let write = &writes[*at];
                    why += &format!("that is {}", write.shown());
                    if let Some(by) = replaced_by(write) {
                        why += &format!(", replaced by {}", writes[by].shown());
                    }
                }
            }
            return Err(Wrong(why));
        }
        if self.torn {
            return Ok(());
        }
        // Who sees a value knows that it was written.
        if let [only] = possible[..]
            && matches!(seen, Seen::Value(_))
        {
            let write = &mut writes[only];
            if let Seen::Value(value) = seen {
                write.value = Some(value);
            }
            write.ended.get_or_insert(sim::now_ns());
            write.owed |= write.by != by;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scoutfs_env::sim::{Config, Outcome};

    use super::*;

    const AT: Register = Register::Content(0);

    /// Each check must be able to fail.
    #[test]
    fn a_read_of_what_was_replaced_is_wrong_and_an_overlapping_one_is_not() {
        let config = Config {
            seed: 1,
            preempt: 1,
            longest: Duration::from_secs(100),
            steps: 10_000,
            trace: false,
            backtraces: false,
        };
        let report = sim::run(config, || {
            let (a, b) = (sim::add_node(0), sim::add_node(0));
            let step = || {
                sim::sleep(Duration::from_millis(1));
                sim::now_ns()
            };
            let mut history = History::default();
            history.begin(AT, 0);
            let now = step();
            assert!(history.read(b, AT, Seen::Value(0), now).is_ok());
            assert!(history.read(b, AT, Seen::Value(9), now).is_err(), "nobody wrote that");
            let write = history.writes(a, AT, Some(1));
            let during = step();
            assert!(history.read(b, AT, Seen::Value(0), during).is_ok());
            step();
            history.written(write, None);
            let after = step();
            assert!(history.read(b, AT, Seen::Value(0), during).is_ok(), "they overlap");
            assert!(history.read(b, AT, Seen::Value(0), after).is_err(), "replaced");
            // What a dead mount wrote and nobody is owed may be gone, or not.
            assert!(history.read(b, AT, Seen::Value(1), after).is_ok());
            let synced = history.writes(a, AT, Some(2));
            history.goes_to(synced, 7);
            history.written(synced, None);
            history.synced(a, Some(7), step());
            let lost = history.writes(a, AT, Some(3));
            history.goes_to(lost, 8);
            history.written(lost, None);
            history.synced(a, Some(7), step());
            let after = step();
            assert!(history.read(b, AT, Seen::Value(2), after).is_err(), "replaced by one that lives");
            history.died(a);
            assert!(history.read(b, AT, Seen::Value(2), after).is_ok(), "it died");
            assert!(history.read(b, AT, Seen::Value(1), after).is_err(), "2 was synced");
            // Once seen by another it stays.
            let after = step();
            assert!(history.read(b, AT, Seen::Value(3), after).is_ok());
            let after = step();
            assert!(history.read(b, AT, Seen::Value(2), after).is_err());
        });
        assert_eq!(report.outcome, Outcome::Finished);
    }
}
