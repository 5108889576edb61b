// SPDX-License-Identifier: GPL-2.0-only
//! Loads for a mount that is about to die. Each works in a directory of its own, makes every step durable before it takes the
//! next, and knows what must be there afterwards.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::pattern::{Random, content};

/// A load.
pub trait Load: Send {
    /// Makes what the steps need; it becomes durable by an unmount.
    fn begin(&mut self, _: &Path) {}

    /// One operation, and what makes it durable.
    fn step(&mut self, dir: &Path) -> io::Result<()>;

    /// All that was acknowledged is there; of the step that was not, nothing or all. What is there is where the next steps begin.
    fn verify(&mut self, dir: &Path);

    /// How many steps were acknowledged.
    fn acknowledged(&self) -> u64;
}

/// One of each.
pub fn all(seed: u64) -> Vec<Box<dyn Load>> {
    let random = |n| Random::new(seed << 8 | n);
    vec![
        Box::new(Names { random: random(0), now: Files::new(), next: None, steps: 0 }),
        Box::new(Log { seed, records: 0 }),
        Box::new(Blocks { random: random(2), versions: vec![], writing: None, steps: 0 }),
        Box::new(Attributes { random: random(3), values: BTreeMap::new(), setting: None, steps: 0 }),
        Box::new(Big { random: random(4), files: Files::new(), writing: None, removing: None, steps: 0 }),
    ]
}

/// Names of a directory, and the seed and length of the content behind each.
type Files = BTreeMap<String, (u64, usize)>;

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Files are made, replaced by rename, moved and removed.
struct Names {
    random: Random,
    now: Files,
    /// What is there if the step that was under way counts.
    next: Option<Files>,
    steps: u64,
}

impl Load for Names {
    fn step(&mut self, dir: &Path) -> io::Result<()> {
        let name = |n: u64| format!("f{n}");
        let (a, b) = (name(self.random.below(12)), name(self.random.below(12)));
        let mut next = self.now.clone();
        match self.random.below(6) {
            0 | 1 if next.contains_key(&a) => {
                next.remove(&a);
                self.next = Some(next);
                fs::remove_file(dir.join(&a))?;
            }
            2 if next.contains_key(&a) && a != b => {
                let moved = next.remove(&a).unwrap();
                next.insert(b.clone(), moved);
                self.next = Some(next);
                fs::rename(dir.join(&a), dir.join(&b))?;
            }
            _ => {
                // In place of what is there, by rename, as programs do that must not lose anything.
                let (seed, len) = (self.random.next(), self.random.below(40_000) as usize);
                let new = File::create(dir.join("new"))?;
                (&new).write_all(&content(seed, len))?;
                new.sync_all()?;
                next.insert(a.clone(), (seed, len));
                self.next = Some(next);
                fs::rename(dir.join("new"), dir.join(&a))?;
            }
        }
        sync_dir(dir)?;
        self.now = self.next.take().unwrap();
        self.steps += 1;
        Ok(())
    }

    fn verify(&mut self, dir: &Path) {
        let found = names(dir);
        let found: Vec<&String> = found.iter().filter(|name| *name != "new").collect();
        let is = |files: &Files| {
            let same = |(name, (seed, len)): (&String, &(u64, usize))| {
                fs::read(dir.join(name)).unwrap() == content(*seed, *len)
            };
            found.iter().copied().eq(files.keys()) && files.iter().all(same)
        };
        let next = self.next.take();
        if let Some(next) = next.clone().filter(is) {
            self.now = next;
        }
        assert!(is(&self.now), "found {found:?}, acknowledged {:?}, perhaps {next:?}", self.now);
    }

    fn acknowledged(&self) -> u64 {
        self.steps
    }
}

/// Bytes of a record of a [`Log`].
const RECORD: usize = 512;

/// A file is appended to.
struct Log {
    seed: u64,
    records: u64,
}

impl Load for Log {
    fn begin(&mut self, dir: &Path) {
        File::create(dir.join("log")).unwrap();
    }

    fn step(&mut self, dir: &Path) -> io::Result<()> {
        let log = OpenOptions::new().append(true).open(dir.join("log"))?;
        (&log).write_all(&content(self.seed << 32 | self.records, RECORD))?;
        log.sync_data()?;
        self.records += 1;
        Ok(())
    }

    fn verify(&mut self, dir: &Path) {
        let log = fs::read(dir.join("log")).unwrap();
        let there = (log.len() / RECORD) as u64;
        assert!(there == self.records || there == self.records + 1, "{there}, not {} records", self.records);
        assert_eq!(log.len() % RECORD, 0, "a torn record");
        for (record, bytes) in (0..there).zip(log.chunks(RECORD)) {
            assert!(bytes == content(self.seed << 32 | record, RECORD), "record {record}");
        }
        self.records = there;
    }

    fn acknowledged(&self) -> u64 {
        self.records
    }
}

const BLOCK: usize = 4096;
const BLOCKS: usize = 64;

/// Blocks of a file are written again and again, in place.
struct Blocks {
    random: Random,
    /// The seed of what is in each.
    versions: Vec<u64>,
    /// The first block, how many, and the seed.
    writing: Option<(usize, usize, u64)>,
    steps: u64,
}

fn block(seed: u64, which: usize) -> Vec<u8> {
    content(seed ^ (which as u64) << 48, BLOCK)
}

impl Load for Blocks {
    fn begin(&mut self, dir: &Path) {
        self.versions = vec![0; BLOCKS];
        let blocks: Vec<u8> = (0..BLOCKS).flat_map(|which| block(0, which)).collect();
        fs::write(dir.join("blocks"), blocks).unwrap();
    }

    fn step(&mut self, dir: &Path) -> io::Result<()> {
        let first = self.random.below(BLOCKS as u64) as usize;
        let count = 1 + self.random.below((BLOCKS - first).min(8) as u64) as usize;
        let seed = self.random.next();
        self.writing = Some((first, count, seed));
        let bytes: Vec<u8> = (first..first + count).flat_map(|which| block(seed, which)).collect();
        let file = OpenOptions::new().write(true).open(dir.join("blocks"))?;
        file.write_all_at(&bytes, (first * BLOCK) as u64)?;
        file.sync_data()?;
        self.writing = None;
        self.versions[first..first + count].fill(seed);
        self.steps += 1;
        Ok(())
    }

    fn verify(&mut self, dir: &Path) {
        let bytes = fs::read(dir.join("blocks")).unwrap();
        assert_eq!(bytes.len(), BLOCKS * BLOCK);
        let writing = self.writing.take();
        for (which, (bytes, version)) in bytes.chunks(BLOCK).zip(&mut self.versions).enumerate() {
            match writing {
                // Each block by itself.
                Some((first, count, seed))
                    if (first..first + count).contains(&which) && bytes == block(seed, which) =>
                {
                    *version = seed;
                }
                _ => assert!(bytes == block(*version, which), "block {which}"),
            }
        }
    }

    fn acknowledged(&self) -> u64 {
        self.steps
    }
}

/// Extended attributes of a few files get values of one part and of many.
struct Attributes {
    random: Random,
    /// Seed and length of each value, by file and attribute.
    values: BTreeMap<(u64, u64), (u64, usize)>,
    setting: Option<((u64, u64), (u64, usize))>,
    steps: u64,
}

const FILES_WITH_ATTRIBUTES: u64 = 3;

impl Load for Attributes {
    fn begin(&mut self, dir: &Path) {
        for file in 0..FILES_WITH_ATTRIBUTES {
            File::create(dir.join(file.to_string())).unwrap();
        }
    }

    fn step(&mut self, dir: &Path) -> io::Result<()> {
        let which = (self.random.below(FILES_WITH_ATTRIBUTES), self.random.below(4));
        let most = [100, 4000, 65_000][self.random.below(3) as usize];
        let value = (self.random.next(), 1 + self.random.below(most) as usize);
        self.setting = Some((which, value));
        let file = File::open(dir.join(which.0.to_string()))?;
        let (name, bytes) = (format!("user.{}", which.1), content(value.0, value.1));
        rustix::fs::fsetxattr(&file, name, &bytes, XattrFlags::empty())?;
        file.sync_all()?;
        self.setting = None;
        self.values.insert(which, value);
        self.steps += 1;
        Ok(())
    }

    fn verify(&mut self, dir: &Path) {
        let setting = self.setting.take();
        let mut buffer = vec![0; 65_536];
        for which in (0..FILES_WITH_ATTRIBUTES).flat_map(|file| (0..4).map(move |n| (file, n))) {
            let (path, name) = (dir.join(which.0.to_string()), format!("user.{}", which.1));
            let found = match getxattr(&path, &name, &mut buffer[..]) {
                Ok(len) => Some(&buffer[..len]),
                Err(e) => {
                    assert_eq!(e, rustix::io::Errno::NODATA);
                    None
                }
            };
            let is = |value: &(u64, usize)| found == Some(&content(value.0, value.1)[..]);
            match setting {
                Some((set, value)) if set == which && is(&value) => drop(self.values.insert(which, value)),
                _ => match self.values.get(&which) {
                    Some(value) => assert!(is(value), "attribute {which:?}"),
                    None => assert!(found.is_none(), "attribute {which:?} was never set"),
                },
            }
        }
        // They can be set as before.
        setxattr(dir.join("0"), "user.probe", b"value", XattrFlags::empty()).unwrap();
    }

    fn acknowledged(&self) -> u64 {
        self.steps
    }
}

/// Files of some MiB are written in pieces and removed again.
struct Big {
    random: Random,
    files: Files,
    writing: Option<(String, u64)>,
    removing: Option<String>,
    steps: u64,
}

impl Load for Big {
    fn step(&mut self, dir: &Path) -> io::Result<()> {
        if self.files.len() > 3 {
            let name = self.files.keys().next().cloned().unwrap();
            self.removing = Some(name.clone());
            fs::remove_file(dir.join(&name))?;
            sync_dir(dir)?;
            self.files.remove(&name);
            self.removing = None;
        }
        let (seed, len) = (self.random.next(), 1 + self.random.below(8 << 20) as usize);
        let name = format!("{seed:016x}");
        self.writing = Some((name.clone(), seed));
        let bytes = content(seed, len);
        let mut file = File::create(dir.join(&name))?;
        for piece in bytes.chunks(300_000) {
            file.write_all(piece)?;
        }
        file.sync_all()?;
        self.files.insert(name, (seed, len));
        self.writing = None;
        self.steps += 1;
        Ok(())
    }

    fn verify(&mut self, dir: &Path) {
        let found = names(dir);
        for (name, (seed, len)) in &self.files {
            if self.removing.as_ref() == Some(name) && !found.contains(name) {
                continue;
            }
            let bytes = fs::read(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(bytes == content(*seed, *len), "{name}");
        }
        // What is there of a file that was being written is right: its size is never ahead of its data.
        if let Some((name, seed)) = self.writing.take()
            && found.contains(&name)
        {
            let bytes = fs::read(dir.join(&name)).unwrap();
            assert!(bytes == content(seed, bytes.len()), "{name}, of which {} bytes are there", bytes.len());
            self.files.insert(name, (seed, bytes.len()));
        }
        if let Some(name) = self.removing.take()
            && !found.contains(&name)
        {
            self.files.remove(&name);
        }
        assert!(found.iter().eq(self.files.keys()), "found {found:?}, not {:?}", self.files.keys());
    }

    fn acknowledged(&self) -> u64 {
        self.steps
    }
}
