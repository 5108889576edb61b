// SPDX-License-Identifier: GPL-2.0-only
//! Random operations: what is to be done, with directories, names and files picked by number, the same few again and again. The
//! state that they meet makes calls of them, so that any list of operations can be carried out, and a shorter one too.

use proptest::prelude::*;

use super::acl::{ACCESS, DEFAULT, some_list};
use super::call::{Allocate, Call, Data, Existing, NewTime, Place, Target, Value, Way};
use super::names::Reference;
use super::node::{Content, Name};

/// One operation.
#[derive(Clone, Debug)]
// The names say it; each stands for the system call of that name.
#[allow(missing_docs)]
pub enum Op {
    Create(u8, u8, u32),
    Mkdir(u8, u8, u32),
    Symlink(u8, u8, u16),
    Link(u8, u8, u8),
    Unlink(u8, u8),
    Rmdir(u8, u8),
    Rename(u8, u8, u8, u8, Target),
    Tmpfile(u8, u8),
    Open(u8),
    Close(u8),
    Write(u8, u64, usize, Way),
    Append(u8, usize),
    Truncate(u8, u64),
    Allocate(u8, Allocate, bool, u64, u64),
    Copy(u8, u64, u8, u64, usize),
    Read(u8, u64, usize, Way),
    Seek(u8, u64, bool),
    SetMode(u8, u32),
    SetOwner(u8, u32, u32),
    SetTimes(u8, NewTime, NewTime),
    SetXattr(u8, u8, usize, Existing),
    RemoveXattr(u8, u8),
    SetAcl(u8, bool, u8),
    Fsync(u8),
    Syncfs,
    Sync,
    Remount,
    Crash,
}

fn offset() -> impl Strategy<Value = u64> {
    let near = (0u64..40, -2i64..3).prop_map(|(block, by)| (block * 4096).saturating_add_signed(by));
    prop_oneof![near, 0u64..160_000, Just(0)]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..200, Just(4096), Just(8192), 1usize..150_000]
}

fn time() -> impl Strategy<Value = NewTime> {
    let at = (-2_000_000_000i64..10_000_000_000, 0u32..1_000_000_000).prop_map(NewTime::At);
    prop_oneof![2 => at, 1 => Just(NewTime::Now), 1 => Just(NewTime::Omit)]
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![3 => Just(Way::Buffered), 1 => Just(Way::Direct), 1 => Just(Way::Mapped)]
}

/// Any operation.
pub fn any_op() -> impl Strategy<Value = Op> {
    let n = || 0u8..6;
    let d = any::<u8>;
    let mode = prop_oneof![
        4 => Just(0o100644u32), 2 => Just(0o100600), 1 => Just(0o010644), 1 => Just(0o140700), 1 => Just(0o020640)
    ];
    let target = prop_oneof![Just(Target::Replace), Just(Target::NoReplace), Just(Target::Exchange)];
    let allocate = prop_oneof![Just(Allocate::Fill), Just(Allocate::Punch), Just(Allocate::Zero)];
    let existing = prop_oneof![Just(Existing::Any), Just(Existing::MustNot), Just(Existing::Must)];
    let value = prop_oneof![0usize..300, 3500usize..9000, Just(65_535), Just(65_536)];
    let names = prop_oneof![
        8 => (d(), n(), mode).prop_map(|(d, n, m)| Op::Create(d, n, m)),
        5 => (d(), n(), prop_oneof![Just(0o755u32), Just(0o2775)]).prop_map(|(d, n, m)| Op::Mkdir(d, n, m)),
        1 => (d(), n(), 1u16..4096).prop_map(|(d, n, len)| Op::Symlink(d, n, len)),
        3 => (d(), d(), n()).prop_map(|(f, d, n)| Op::Link(f, d, n)),
        4 => (d(), n()).prop_map(|(d, n)| Op::Unlink(d, n)),
        2 => (d(), n()).prop_map(|(d, n)| Op::Rmdir(d, n)),
        8 => (d(), n(), d(), n(), target).prop_map(|(d, n, e, m, t)| Op::Rename(d, n, e, m, t)),
        2 => (d(), n()).prop_map(|(d, n)| Op::Tmpfile(d, n)),
        3 => d().prop_map(Op::Open),
        2 => d().prop_map(Op::Close),
    ];
    let contents = prop_oneof![
        12 => (d(), offset(), length(), way()).prop_map(|(f, o, l, w)| Op::Write(f, o, l, w)),
        6 => (d(), length()).prop_map(|(f, l)| Op::Append(f, l)),
        8 => (d(), offset()).prop_map(|(f, o)| Op::Truncate(f, o)),
        6 => (d(), allocate, any::<bool>(), offset(), 1u64..100_000)
            .prop_map(|(f, a, k, o, l)| Op::Allocate(f, a, k, o, l)),
        3 => (d(), offset(), d(), offset(), length()).prop_map(|(f, o, t, p, l)| Op::Copy(f, o, t, p, l)),
        5 => (d(), offset(), length(), way()).prop_map(|(f, o, l, w)| Op::Read(f, o, l, w)),
        3 => (d(), offset(), any::<bool>()).prop_map(|(f, o, data)| Op::Seek(f, o, data)),
    ];
    let attributes = prop_oneof![
        1 => (d(), any::<u32>()).prop_map(|(f, m)| Op::SetMode(f, m)),
        1 => (d(), 0u32..u32::MAX, 0u32..u32::MAX).prop_map(|(f, u, g)| Op::SetOwner(f, u, g)),
        2 => (d(), time(), time()).prop_map(|(f, atime, mtime)| Op::SetTimes(f, atime, mtime)),
        5 => (d(), 0u8..7, value, existing).prop_map(|(f, n, l, e)| Op::SetXattr(f, n, l, e)),
        2 => (d(), 0u8..9).prop_map(|(f, n)| Op::RemoveXattr(f, n)),
        5 => (d(), any::<bool>(), 0u8..5).prop_map(|(f, access, which)| Op::SetAcl(f, access, which)),
    ];
    let durability = prop_oneof![
        3 => d().prop_map(Op::Fsync),
        1 => Just(Op::Syncfs),
        1 => Just(Op::Sync),
        1 => Just(Op::Remount),
        2 => Just(Op::Crash),
    ];
    prop_oneof![39 => names, 43 => contents, 15 => attributes, 4 => durability]
}

/// The name with a number.
fn name(n: u8) -> Name {
    Name(match n {
        5 => long_name("long", 255),
        _ => vec![b'a' + n],
    })
}

fn long_name(prefix: &str, len: usize) -> Vec<u8> {
    format!("{prefix:x<len$}").into_bytes()
}

/// Attributes with tags; those with one for the search index first.
pub const TAGGED: [&[u8]; 3] = [b"scoutfs.srch.m", b"scoutfs.hide.srch.m", b"scoutfs.hide.m"];

/// Attributes that are in the search index.
pub const SEARCHED: [&[u8]; 2] = [TAGGED[0], TAGGED[1]];

/// Attributes that are in no list of names.
pub const HIDDEN: [&[u8]; 2] = [TAGGED[1], TAGGED[2]];

fn xattr_name(n: u8) -> Name {
    Name(match n {
        3 => long_name("trusted.", 255),
        4..7 => TAGGED[usize::from(n) - 4].to_vec(),
        7 => ACCESS.to_vec(),
        8 => DEFAULT.to_vec(),
        _ => format!("user.{n}").into_bytes(),
    })
}

impl Op {
    /// The call that this is now, if there is something to call. `seed` makes contents.
    pub fn call(&self, now: &Reference, seed: u64) -> Option<Call> {
        let place = |d: u8, n: u8| -> Place { (now.pick_dir(d), name(n)) };
        Some(match *self {
            Op::Create(d, n, mode) => {
                // A device without a driver: nobody can open it by mistake.
                let rdev = if mode & 0o170000 == 0o020000 { 0xabc << 32 | 0xf_edcb } else { 0 };
                Call::Create(place(d, n), mode, rdev)
            }
            Op::Mkdir(d, n, mode) => Call::Mkdir(place(d, n), mode),
            Op::Symlink(d, n, len) => Call::Symlink(place(d, n), Data { seed, len: len.into() }),
            Op::Link(f, d, n) => Call::Link(now.pick(f), place(d, n)),
            Op::Unlink(d, n) => Call::Unlink(place(d, n)),
            Op::Rmdir(d, n) => Call::Rmdir(place(d, n)),
            Op::Rename(d, n, e, m, how) => Call::Rename(place(d, n), place(e, m), how),
            Op::Tmpfile(d, n) => Call::Tmpfile(place(d, n), Data { seed, len: 5000 }),
            Op::Open(f) => Call::Open(now.pick(f)),
            Op::Close(f) => Call::Close(usize::from(f).checked_rem(now.open.len())?),
            Op::Write(f, offset, len, way) => {
                let ino = now.pick_file(f)?;
                let size = now.node(ino).file().map_or(0, |file| file.len() as u64);
                // Memory behind the end of a file is nobody's.
                let room = size.saturating_sub(offset) as usize;
                let len = if way == Way::Mapped && room > 0 { len.min(room) } else { len };
                let way = if way == Way::Mapped && room == 0 { Way::Buffered } else { way };
                Call::Write(ino, offset, Data { seed, len }, way)
            }
            Op::Append(f, len) => Call::Append(now.pick_file(f)?, Data { seed, len }),
            Op::Truncate(f, size) => Call::Truncate(now.pick_file(f)?, size),
            Op::Allocate(f, how, keep, offset, len) => {
                Call::Allocate(now.pick_file(f)?, how, keep, offset, len)
            }
            Op::Copy(f, offset, t, to_offset, len) => {
                let (from, to) = (now.pick_file(f)?, now.pick_file(t)?);
                let regular = |ino| now.node(ino).file().is_some();
                // Copies onto themselves are refused by the kernel.
                (from != to && regular(from) && regular(to)).then_some(())?;
                Call::Copy(from, offset, to, to_offset, len)
            }
            Op::Read(f, offset, len, way) => {
                let ino = now.pick_file(f)?;
                let size = now.node(ino).file().map_or(0, |file| file.len() as u64);
                let way = if way == Way::Mapped && offset >= size { Way::Buffered } else { way };
                Call::Read(ino, offset, len, way)
            }
            Op::Seek(f, offset, data) => {
                let ino = now.pick_file(f)?;
                // Of other inodes it is the kernel that answers.
                now.node(ino).file()?;
                Call::Seek(ino, offset, data)
            }
            Op::SetMode(f, mode) => Call::SetMode(now.pick(f), mode),
            Op::SetOwner(f, uid, gid) => Call::SetOwner(now.pick(f), uid, gid),
            Op::SetTimes(f, atime, mtime) => Call::SetTimes(now.pick(f), atime, mtime),
            Op::SetXattr(f, n, len, existing) => {
                let ino = if n % 3 == 0 { now.pick(f) } else { now.pick_file(f)? };
                Call::SetXattr(ino, xattr_name(n), Value::Data(Data { seed, len }), existing)
            }
            Op::RemoveXattr(f, n) => Call::RemoveXattr(now.pick(f), xattr_name(n)),
            Op::SetAcl(f, access, which) => {
                let name = if access { ACCESS } else { DEFAULT };
                let list = Value::List(some_list(which));
                Call::SetXattr(now.pick(f), Name(name.to_vec()), list, Existing::Any)
            }
            Op::Fsync(f) => {
                let ino = now.pick(f);
                let opens = now.is_dir(ino) || now.node(ino).file().is_some();
                (opens || !now.rules.kernel).then_some(Call::Fsync(ino))?
            }
            Op::Syncfs => Call::Syncfs,
            Op::Sync => Call::Sync,
            Op::Remount => Call::Remount,
            Op::Crash => Call::Crash,
        })
    }
}

impl Reference {
    fn pick_dir(&self, pick: u8) -> u64 {
        let named = self.nodes.iter().filter(|(_, node)| node.is_dir() && node.seen.stat.nlink > 0);
        let dirs: Vec<u64> = named.map(|(ino, _)| *ino).collect();
        dirs[usize::from(pick) % dirs.len()]
    }

    /// Any inode that can be reached: by name, or because it is open.
    fn pick(&self, pick: u8) -> u64 {
        *self.nodes.keys().nth(usize::from(pick) % self.nodes.len()).expect("the root at least")
    }

    /// Most often a regular file, if there is one; never what a program would wait for.
    fn pick_file(&self, pick: u8) -> Option<u64> {
        let is_file = |(_, n): &(&u64, &std::sync::Arc<super::node::Node>)| n.file().is_some();
        let files: Vec<u64> = self.nodes.iter().filter(is_file).map(|(ino, _)| *ino).take(4).collect();
        match usize::from(pick) {
            pick if files.is_empty() || pick.is_multiple_of(16) => {
                let ino = self.pick(pick as u8);
                let special = matches!(self.node(ino).seen.content, Content::Special | Content::Link(_));
                (!(self.rules.kernel && special)).then_some(ino)
            }
            pick => Some(files[pick % files.len()]),
        }
    }
}
