// SPDX-License-Identifier: GPL-2.0-only
//! Ioctls with good and with hostile arguments, in a caller's memory that is a few pages.

use std::cell::RefCell;
use std::format;
use std::vec::Vec;

use proptest::prelude::*;
use scoutfs_format::ioctl::*;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::msg::ConfirmDeath;
use zerocopy::{FromBytes, IntoBytes};

use super::{Caller, Capability, Credentials, Done, Request, UserMemory};
use crate::error::Error;
use crate::fs::Fs;
use crate::fs::testing::{TestFs, long_name};

/// Where the caller's memory begins.
const BASE: u64 = 0x10_0000;

/// A caller with some bytes of memory at [`BASE`], which hold a pattern, and nothing elsewhere.
struct Memory(RefCell<Vec<u8>>);

const PATTERN: u8 = 0xa5;

impl Memory {
    fn new(len: usize) -> Self {
        Memory(RefCell::new(std::vec![PATTERN; len]))
    }

    fn range(&self, address: u64, len: usize) -> Result<core::ops::Range<usize>, Error> {
        let start = address.checked_sub(BASE).ok_or(Error::Fault)? as usize;
        let end = start.checked_add(len).filter(|end| *end <= self.0.borrow().len());
        Ok(start..end.ok_or(Error::Fault)?)
    }
}

impl UserMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let range = self.range(address, bytes.len())?;
        bytes.copy_from_slice(&self.0.borrow()[range]);
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let range = self.range(address, bytes.len())?;
        self.0.borrow_mut()[range].copy_from_slice(bytes);
        Ok(())
    }
}

struct Call<'m> {
    memory: &'m Memory,
    capabilities: &'m [Capability],
    can_read: bool,
}

const ALL: &[Capability] = &[Capability::DacReadSearch, Capability::SysAdmin];

fn by_root(memory: &Memory) -> Call<'_> {
    Call { memory, capabilities: ALL, can_read: true }
}

impl Credentials for Call<'_> {
    fn capable(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    fn caller(&self) -> crate::acl::Caller<'_> {
        crate::acl::Caller {
            uid: 0,
            groups: &[],
            reads_all: self.capabilities.contains(&Capability::DacReadSearch),
        }
    }
}

impl Call<'_> {
    fn raw(&self, fs: &Fs, ino: u64, cmd: u32, input: &[u8], out: &mut [u8]) -> Result<Done, Error> {
        let caller = Caller { memory: self.memory, credentials: self, can_read: self.can_read };
        fs.ioctl(&Request { ino, cmd, arg: BASE, input }, out, &caller)
    }

    fn run(
        &self,
        fs: &Fs,
        ino: u64,
        cmd: u32,
        argument: &(impl IntoBytes + zerocopy::Immutable),
    ) -> Result<i32, Error> {
        self.raw(fs, ino, cmd, argument.as_bytes(), &mut [0; 256]).map(|done| done.result)
    }
}

#[test]
fn every_ioctl_refuses_arguments_of_a_wrong_size_and_unknown_numbers() {
    let fs = TestFs::new();
    let memory = Memory::new(4096);
    let call = by_root(&memory);
    for (cmd, _) in NUMBERS {
        let got = call.raw(&fs, ROOT_INO, cmd, &[0; 7], &mut [0; 7]);
        assert!(matches!(got, Err(Error::Invalid(_))), "{cmd:x}: {got:?}");
        // The number holds the size of the argument: another size is another number.
        let other = call.raw(&fs, ROOT_INO, cmd + (1 << 16), &[0; 7], &mut [0; 7]);
        assert!(matches!(other, Err(Error::UnknownIoctl)), "{cmd:x}: {other:?}");
    }
    for cmd in [0, u32::MAX, 0xc020_660b] {
        let got = call.raw(&fs, ROOT_INO, cmd, &[0; 64], &mut [0; 64]);
        assert!(matches!(got, Err(Error::UnknownIoctl)), "{cmd:x}");
    }
    assert!(memory.0.borrow().iter().all(|b| *b == PATTERN));
}

#[test]
fn who_may_not_gets_nothing() {
    let fs = TestFs::new();
    let memory = Memory::new(4096);
    let admin = &[Capability::SysAdmin][..];
    let search = &[Capability::DacReadSearch][..];
    for (cmd, len, need) in [
        (IOC_INO_PATH, size_of::<InoPath>(), search),
        (IOC_GET_REFERRING_ENTRIES, size_of::<GetReferringEntries>(), search),
        (IOC_GET_ALLOCATED_INOS, size_of::<GetAllocatedInos>(), admin),
        (IOC_SET_ATTR_X, size_of::<AttrX>(), admin),
    ] {
        let wrong = if need == admin { search } else { admin };
        for capabilities in [&[][..], wrong] {
            let call = Call { memory: &memory, capabilities, can_read: true };
            // Rights come first, before what else is wrong.
            for input in [&std::vec![0; len][..], &[]] {
                let got = call.raw(&fs, ROOT_INO, cmd, input, &mut []);
                assert!(matches!(got, Err(Error::NotPermitted)), "{cmd:x}: {got:?}");
            }
        }
    }
    let write_only = Call { can_read: false, ..by_root(&memory) };
    let got = write_only.run(&fs, ROOT_INO, IOC_GET_ALLOCATED_INOS, &GetAllocatedInos::default());
    assert!(matches!(got, Err(Error::NotOpened)));
    assert!(memory.0.borrow().iter().all(|b| *b == PATTERN));
}

/// Invariant 55.
#[test]
fn a_path_comes_with_its_entry_and_zero_padding_and_needs_all_its_room() {
    let fs = TestFs::new();
    let dir = fs.subdir(ROOT_INO, "dir");
    let ino = fs.touch(dir, "file");
    let memory = Memory::new(100);
    let get = |bytes: u16, address| InoPath {
        ino: ino.into(),
        result_ptr: address,
        result_bytes: bytes.into(),
        ..InoPath::default()
    };
    let want = b"dir/file\0";
    let len = size_of::<InoPathResult>() + want.len();
    let call = by_root(&memory);
    assert_eq!(call.run(&fs, 1, IOC_INO_PATH, &get(len as u16, BASE.into())).unwrap(), 0);
    let result = memory.0.borrow().clone();
    let (header, rest) = InoPathResult::read_from_prefix(&result).unwrap();
    assert_eq!((header.dir_ino.get(), header.dir_pos.get()), (dir, 2));
    assert_eq!((usize::from(header.path_bytes), header.pad), (want.len(), [0; 6]));
    assert_eq!((&rest[..want.len()], rest[want.len()]), (&want[..], PATTERN));
    for bytes in [0, 1, 24, 25, len as u16 - 1] {
        let got = call.run(&fs, 1, IOC_INO_PATH, &get(bytes, BASE.into()));
        assert!(matches!(got, Err(Error::NameTooLong)), "{bytes}");
    }
    for address in [0, BASE - 1, BASE + 100 - len as u64 + 1, u64::MAX] {
        let got = call.run(&fs, 1, IOC_INO_PATH, &get(u16::MAX, address.into()));
        assert!(matches!(got, Err(Error::Fault)), "{address:x}");
    }
    for (ino, dir_ino, dir_pos) in [(ino, dir, 3), (ino, u64::MAX, u64::MAX), (0, 0, 0), (ROOT_INO, 0, 0)] {
        let get = InoPath {
            ino: ino.into(),
            dir_ino: dir_ino.into(),
            dir_pos: dir_pos.into(),
            ..get(99, BASE.into())
        };
        assert!(matches!(call.run(&fs, 1, IOC_INO_PATH, &get), Err(Error::NotFound)));
    }
}

/// Invariant 55.
#[test]
fn entries_fill_the_room_that_there_is_with_zero_padding() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "a");
    let mut names = std::vec![b"a".to_vec()];
    for len in [2, 3, 15, 16, 17, 255] {
        let name = long_name("", len).into_bytes();
        fs.link(ino, ROOT_INO, &name).unwrap();
        names.push(name);
    }
    fs.forget(ino, 6);
    let sizes: Vec<u64> = names.iter().map(|n| (29 + n.len() as u64 + 1).next_multiple_of(16)).collect();
    let total: u64 = sizes.iter().sum();
    for room in [total + 7, total, total - 1, sizes[0] + sizes[1], sizes[0]] {
        let memory = Memory::new(total as usize + 16);
        let get = GetReferringEntries {
            ino: ino.into(),
            entries_ptr: BASE.into(),
            entries_bytes: room.into(),
            ..GetReferringEntries::default()
        };
        let count = by_root(&memory).run(&fs, 1, IOC_GET_REFERRING_ENTRIES, &get).unwrap() as usize;
        let fit = sizes
            .iter()
            .scan(0, |sum, len| {
                *sum += len;
                Some(*sum)
            })
            .filter(|sum| *sum <= room)
            .count();
        assert_eq!(count, fit);
        let bytes = memory.0.borrow().clone();
        let mut at = 0;
        for (n, name) in names.iter().take(count).enumerate() {
            let (entry, _) = Dirent::read_from_prefix(&bytes[at..]).unwrap();
            assert_eq!((entry.dir_ino.get(), entry.dir_pos.get(), entry.ino.get()), (1, 2 + n as u64, ino));
            assert_eq!(u64::from(entry.entry_bytes.get()), sizes[n]);
            assert_eq!((entry.flags, entry.d_type), (u8::from(n + 1 == names.len()), 8));
            let end = at + usize::from(entry.entry_bytes);
            assert_eq!(usize::from(entry.name_len), name.len());
            assert_eq!(bytes[at + 29..at + 29 + name.len()], name[..]);
            assert!(bytes[at + 29 + name.len()..end].iter().all(|b| *b == 0));
            at = end;
        }
        assert!(bytes[at..].iter().all(|b| *b == PATTERN));
    }
    let memory = Memory::new(64);
    let call = by_root(&memory);
    let get = |address: u64, bytes: u64| GetReferringEntries {
        ino: ino.into(),
        entries_ptr: address.into(),
        entries_bytes: bytes.into(),
        ..GetReferringEntries::default()
    };
    for (address, bytes) in [(BASE, 0), (BASE, 1), (BASE, sizes[0] - 1), (BASE + 8, 1 << 20), (1, u64::MAX)] {
        let got = call.run(&fs, 1, IOC_GET_REFERRING_ENTRIES, &get(address, bytes));
        assert!(matches!(got, Err(Error::Invalid(_))), "{address:x} {bytes}: {got:?}");
    }
    for address in [0, BASE + 32, u64::MAX - 15] {
        let got = call.run(&fs, 1, IOC_GET_REFERRING_ENTRIES, &get(address, u64::MAX));
        assert!(matches!(got, Err(Error::Fault)), "{address:x}: {got:?}");
    }
    let nobody = GetReferringEntries { ino: 5555.into(), ..get(0, 0) };
    assert_eq!(call.run(&fs, 1, IOC_GET_REFERRING_ENTRIES, &nobody).unwrap(), 0);
}

#[test]
fn what_was_written_before_a_fault_counts() {
    let fs = TestFs::new();
    for n in 0..4000 {
        fs.touch(ROOT_INO, &format!("{n}"));
    }
    fs.sync().unwrap();
    let walk = |nr: u32| WalkInodes {
        last: WalkInodesEntry { major: u64::MAX.into(), ino: u64::MAX.into(), ..Default::default() },
        entries_ptr: BASE.into(),
        nr_entries: nr.into(),
        ..WalkInodes::default()
    };
    let entry = size_of::<WalkInodesEntry>();
    let memory = Memory::new(4001 * entry);
    assert_eq!(by_root(&memory).run(&fs, 1, IOC_WALK_INODES, &walk(u32::MAX)).unwrap(), 4001);
    let all = memory.0.borrow().clone();
    assert_eq!(by_root(&memory).run(&fs, 1, IOC_WALK_INODES, &walk(7)).unwrap(), 7);
    // Room for all but one: the pieces before the last one arrive.
    let memory = Memory::new(4000 * entry);
    let count = by_root(&memory).run(&fs, 1, IOC_WALK_INODES, &walk(u32::MAX)).unwrap() as usize;
    assert!(count > 1000 && count < 4000, "{count}");
    assert_eq!(memory.0.borrow()[..count * entry], all[..count * entry]);
    let small = Memory::new(entry);
    let got = by_root(&small).run(&fs, 1, IOC_WALK_INODES, &walk(2));
    assert!(matches!(got, Err(Error::Fault)));
    let bad = WalkInodes { index: 2, ..walk(0) };
    assert!(matches!(by_root(&small).run(&fs, 1, IOC_WALK_INODES, &bad), Err(Error::Invalid(_))));
    let nothing = WalkInodes { first: walk(1).last, last: WalkInodesEntry::default(), ..walk(9) };
    assert_eq!(by_root(&small).run(&fs, 1, IOC_WALK_INODES, &nothing).unwrap(), 0);
}

#[test]
fn inode_numbers_in_use_are_told_up_to_the_end_of_their_group() {
    let fs = TestFs::new();
    let inos: Vec<u64> = (0..1500).map(|n| fs.touch(ROOT_INO, &format!("{n}"))).collect();
    let group = |ino: u64| ino / 1024;
    let (gone, first) = (inos[3], inos[0]);
    fs.unlink(ROOT_INO, b"3").unwrap();
    let in_use: Vec<u64> = inos.iter().copied().filter(|i| *i != gone && group(*i) == group(first)).collect();
    let memory = Memory::new(8 * 1024);
    let call = by_root(&memory);
    let get = |start: u64, address: u64, bytes: u64| GetAllocatedInos {
        start_ino: start.into(),
        inos_ptr: address.into(),
        inos_bytes: bytes.into(),
    };
    for (start, bytes) in [(first, u64::MAX), (first, 8 * 1024), (gone, 800), (first, 15), (first + 5, 8)] {
        let count = call.run(&fs, 1, IOC_GET_ALLOCATED_INOS, &get(start, BASE, bytes)).unwrap() as usize;
        let found: Vec<u64> = memory.0.borrow()[..8 * count]
            .chunks(8)
            .map(|b| u64::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let room = usize::try_from(bytes / 8).unwrap_or(usize::MAX);
        let want: Vec<u64> = in_use.iter().copied().filter(|i| *i >= start).take(room).collect();
        assert_eq!(found, want, "{start} {bytes}");
    }
    for (address, bytes) in [(BASE, 0), (BASE, 7), (BASE + 1, 64), (u64::MAX, 64)] {
        let got = call.run(&fs, 1, IOC_GET_ALLOCATED_INOS, &get(first, address, bytes));
        assert!(matches!(got, Err(Error::Invalid(_))), "{address:x} {bytes}");
    }
    let got = call.run(&fs, 1, IOC_GET_ALLOCATED_INOS, &get(first, 0, 64));
    assert!(matches!(got, Err(Error::Fault)));
    for start in [u64::MAX, u64::MAX - 2000] {
        assert_eq!(call.run(&fs, 1, IOC_GET_ALLOCATED_INOS, &get(start, BASE, 64)).unwrap(), 0);
    }
}

#[test]
fn extents_go_behind_their_header() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    for n in 0..3000 {
        fs.write(ino, n * 8192, b"x").unwrap();
    }
    let (head, extent) = (size_of::<Fiemap>(), size_of::<FiemapExtent>());
    let ask =
        |count: u32| Fiemap { length: u64::MAX.into(), extent_count: count.into(), ..Fiemap::default() };
    let memory = Memory::new(head + 3000 * extent);
    let call = by_root(&memory);
    let run = |ino, ask: &Fiemap| {
        let mut out = [PATTERN; 32];
        let done = call.raw(&fs, ino, IOC_FIEMAP, ask.as_bytes(), &mut out)?;
        assert_eq!((done.result, done.out_len), (0, head));
        Ok::<_, Error>(Fiemap::read_from_bytes(&out).unwrap())
    };
    assert_eq!(run(ino, &ask(0)).unwrap().mapped_extents.get(), 3000);
    assert!(memory.0.borrow().iter().all(|b| *b == PATTERN));
    assert_eq!(run(ino, &ask(2999)).unwrap().mapped_extents.get(), 2999);
    assert!(memory.0.borrow()[head + 2999 * extent..].iter().all(|b| *b == PATTERN));
    let filled = run(ino, &ask(5000)).unwrap();
    assert_eq!(filled, Fiemap { mapped_extents: 3000.into(), ..ask(5000) });
    for (n, bytes) in memory.0.borrow()[head..].chunks(extent).enumerate() {
        let found = FiemapExtent::read_from_bytes(bytes).unwrap();
        assert_eq!((found.logical.get(), found.length.get()), (n as u64 * 8192, 4096));
        assert_eq!(found.flags.get(), u32::from(n == 2999));
        assert_eq!((found.reserved64, found.reserved), Default::default());
    }
    let errno = |ino, ask: Fiemap| run(ino, &ask).map_err(|e| e.errno()).unwrap_err();
    assert_eq!(errno(ino, Fiemap { flags: 2.into(), ..ask(1) }), 53);
    assert_eq!(errno(ino, Fiemap { flags: u32::MAX.into(), ..ask(1) }), 53);
    assert_eq!(errno(ino, Fiemap { length: 0.into(), ..ask(1) }), 22);
    assert_eq!(errno(ino, ask(u32::MAX)), 22);
    assert_eq!(errno(ino, Fiemap { start: u64::MAX.into(), ..ask(1) }), 27);
    assert_eq!(errno(ROOT_INO, ask(1)), 95);
    let small = Memory::new(head + extent);
    let got = by_root(&small).run(&fs, ino, IOC_FIEMAP, &ask(2));
    assert!(matches!(got, Err(Error::Fault)));
    assert!(matches!(by_root(&small).run(&fs, ino, IOC_FIEMAP, &ask(1)), Ok(0)));
}

#[test]
fn attributes_are_written_up_to_the_last_one_that_was_asked_for() {
    let fs = TestFs::new();
    let ino = fs.touch(ROOT_INO, "file");
    let memory = Memory::new(size_of::<AttrX>());
    let ask = |mask: u64| AttrX { x_mask: mask.into(), ..AttrX::default() };
    let set = AttrX { project_id: 7.into(), ..ask(ATTR_PROJECT_ID) };
    assert_eq!(by_root(&memory).run(&fs, ino, IOC_SET_ATTR_X, &set).unwrap(), 0);
    let anybody = Call { capabilities: &[], ..by_root(&memory) };
    assert_eq!(anybody.run(&fs, ino, IOC_GET_ATTR_X, &ask(0)).unwrap(), 0);
    assert!(memory.0.borrow().iter().all(|b| *b == PATTERN));
    assert_eq!(anybody.run(&fs, ino, IOC_GET_ATTR_X, &ask(ATTR_META_SEQ)).unwrap(), 0);
    assert!(memory.0.borrow()[24..].iter().all(|b| *b == PATTERN) && memory.0.borrow()[23] != PATTERN);
    assert_eq!(anybody.run(&fs, ino, IOC_GET_ATTR_X, &ask(ATTR_ALL)).unwrap(), 0);
    let got = AttrX::read_from_bytes(&memory.0.borrow()).unwrap();
    assert_eq!((got.project_id.get(), got.x_mask.get(), got.size.get()), (7, ATTR_ALL, 0));
    let small = Memory::new(size_of::<AttrX>() - 1);
    let call = by_root(&small);
    assert!(matches!(call.run(&fs, ino, IOC_GET_ATTR_X, &ask(ATTR_PROJECT_ID)), Err(Error::Fault)));
    assert_eq!(call.run(&fs, ino, IOC_GET_ATTR_X, &ask(ATTR_RETENTION)).unwrap(), 0);
}

#[test]
fn space_and_counters_need_room_for_all_of_them() {
    let fs = TestFs::new();
    let memory = Memory::new(64 << 10);
    let call = by_root(&memory);
    let detail = |address: u64, nr: u64| AllocDetail { entries_ptr: address.into(), entries_nr: nr.into() };
    assert_eq!(call.run(&fs, 1, IOC_ALLOC_DETAIL, &detail(BASE, u64::MAX)).unwrap(), 4);
    let bytes = memory.0.borrow()[..4 * size_of::<AllocDetailEntry>()].to_vec();
    assert!(bytes.chunks(size_of::<AllocDetailEntry>()).all(|e| e[18..] == [0; 6]));
    let counters = |address: u64, nr: u64| GetCounters { entries_ptr: address.into(), entries_nr: nr.into() };
    let count = call.run(&fs, 1, IOC_GET_COUNTERS, &counters(BASE, u64::MAX)).unwrap() as u64;
    assert!(count > 60, "{count}");
    for nr in [0, 1, count - 1] {
        assert!(matches!(call.run(&fs, 1, IOC_GET_COUNTERS, &counters(BASE, nr)), Err(Error::Overflow)));
    }
    for nr in [0, 3] {
        assert!(matches!(call.run(&fs, 1, IOC_ALLOC_DETAIL, &detail(BASE, nr)), Err(Error::Overflow)));
    }
    assert!(matches!(call.run(&fs, 1, IOC_GET_COUNTERS, &counters(0, 1000)), Err(Error::Fault)));
    assert!(matches!(call.run(&fs, 1, IOC_ALLOC_DETAIL, &detail(0, 1000)), Err(Error::Fault)));
    let mut out = [0; 64];
    let stat = call.raw(&fs, 1, IOC_STATFS_MORE, &[], &mut out).unwrap();
    assert_eq!(stat.out_len, size_of::<StatfsMore>());
    assert_eq!(StatfsMore::read_from_prefix(&out).unwrap().0.fsid.get(), fs.store().fsid());
    assert_eq!(call.raw(&fs, 1, IOC_STAT_MORE, &[], &mut out).unwrap().out_len, size_of::<StatMore>());
    assert_eq!(StatMore::read_from_prefix(&out).unwrap().0.pad, [0; 4]);
}

/// All ioctls with the bytes of their arguments.
const NUMBERS: [(u32, usize); 12] = [
    (IOC_WALK_INODES, size_of::<WalkInodes>()),
    (IOC_INO_PATH, size_of::<InoPath>()),
    (IOC_STAT_MORE, size_of::<StatMore>()),
    (IOC_STATFS_MORE, size_of::<StatfsMore>()),
    (IOC_ALLOC_DETAIL, size_of::<AllocDetail>()),
    (IOC_GET_ALLOCATED_INOS, size_of::<GetAllocatedInos>()),
    (IOC_GET_REFERRING_ENTRIES, size_of::<GetReferringEntries>()),
    (IOC_GET_ATTR_X, size_of::<AttrX>()),
    (IOC_SET_ATTR_X, size_of::<AttrX>()),
    (IOC_FIEMAP, size_of::<Fiemap>()),
    (IOC_GET_COUNTERS, size_of::<GetCounters>()),
    (IOC_CONFIRM_DEATH, size_of::<ConfirmDeath>()),
];

/// Numbers that arguments are made of: those that mean something, and those that mean trouble.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0u64..12,
        3 => Just(BASE),
        2 => (0u64..300).prop_map(|n| BASE + n),
        2 => 1024u64..1030,
        1 => (0u32..64).prop_map(|n| 1 << n),
        1 => (0u64..9).prop_map(|n| u64::MAX - n),
        1 => any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    /// Nothing panics or hangs, every error is one that is documented, and the volume stays sound, which is checked when it goes.
    #[test]
    fn any_arguments_are_answered(
        calls in prop::collection::vec((0..NUMBERS.len(), 0usize..4, prop::collection::vec(number(), 13)), 1..200),
    ) {
        let fs = TestFs::new();
        let dir = fs.subdir(ROOT_INO, "dir");
        let file = fs.touch(dir, "file");
        fs.link(file, ROOT_INO, b"link").unwrap();
        fs.write(file, 5000, b"data").unwrap();
        let new = fs.touch(dir, "new");
        fs.sync().unwrap();
        for (which, target, words) in calls {
            let (cmd, len) = NUMBERS[which];
            let bytes: Vec<u8> = words.iter().flat_map(|n| n.to_le_bytes()).collect();
            let memory = Memory::new(400);
            let ino = [file, dir, new, 7][target];
            match by_root(&memory).raw(&fs, ino, cmd, &bytes[..len], &mut [0; 256]) {
                Ok(done) => prop_assert!(done.result >= 0 && done.out_len <= 256),
                Err(e) => {
                    // EPERM, ENOENT, EFAULT, EINVAL, EFBIG, ENAMETOOLONG, EBADR, EOVERFLOW, EOPNOTSUPP, ESTALE.
                    let known = [1, 2, 14, 22, 27, 36, 53, 75, 95, 116];
                    prop_assert!(known.contains(&e.errno()), "{cmd:x}: {e}");
                }
            }
        }
    }
}
