// SPDX-License-Identifier: GPL-2.0-only
//! What programs give a mounted volume: names, attributes, ioctls.

use std::cell::RefCell;
use std::sync::LazyLock;

use scoutfs_format::ioctl::*;
use scoutfs_format::item::{MAX_NAME_LEN, ROOT_INO};
use scoutfs_fs::dir::NewInode;
use scoutfs_fs::ioctl::{Caller, Capability, Credentials, Request, UserMemory};
use scoutfs_fs::xattr::{SetXattr, SetXattrMode};
use scoutfs_fs::{Error, Fs, Mount, Result};
use zerocopy::IntoBytes;

use super::refused;
use crate::volume::{Pace, mount, new_volume};

/// By a caller who may change attributes with tags.
const ANY: SetXattr = SetXattr { mode: SetXattrMode::Any, privileged: true, kill_sgid: false };
const FILE: NewInode = NewInode { mode: 0o100_644, umask: 0, uid: 0, gid: 0, rdev: 0 };

/// A mounted volume, a file with attributes, hidden ones too, and one to change attributes of.
struct Bed {
    mount: Mount,
    file: u64,
    plain: u64,
}

static BED: LazyLock<Bed> = LazyLock::new(|| {
    let mount = mount(&new_volume(), Pace::Fast).expect("mount");
    let fs = mount.fs();
    let file = fs.create(ROOT_INO, b"file", &FILE).expect("create").ino;
    fs.write(file, 0, &[7; 20_000]).expect("write");
    for name in ["user.a", "scoutfs.hide.b", "scoutfs.hide.srch.c"] {
        fs.setxattr(file, name.as_bytes(), b"value", ANY).expect("setxattr");
    }
    fs.link(file, ROOT_INO, b"link").expect("link");
    // The other one may be put under retention.
    let plain = fs.create(ROOT_INO, b"plain", &FILE).expect("create").ino;
    fs.sync().expect("sync");
    Bed { mount, file, plain }
});

fn fs() -> &'static Fs {
    BED.mount.fs()
}

pub fn names() -> Vec<Vec<u8>> {
    let long = [b'n'; MAX_NAME_LEN];
    let names: [&[u8]; 9] = [
        b"a",
        b"..",
        b".",
        b"",
        b"a/b",
        b"nul\0",
        &long,
        &[b'n'; MAX_NAME_LEN + 1],
        "\u{fc}\u{20ac}".as_bytes(),
    ];
    names.map(<[u8]>::to_vec).to_vec()
}

/// A name that is accepted is found, listed, and gone after it was removed.
pub fn name(bytes: &[u8]) -> String {
    let fs = fs();
    let ino = match fs.create(ROOT_INO, bytes, &FILE) {
        Ok(attr) => attr.ino,
        Err(e) => return refused(&e),
    };
    fs.forget(ino, 1);
    assert!((1..=MAX_NAME_LEN).contains(&bytes.len()) && !bytes.contains(&b'/') && !bytes.contains(&0));
    let found = fs.lookup(ROOT_INO, bytes).expect("it was created");
    fs.forget(found.ino, 1);
    assert_eq!(found.ino, ino);
    fs.unlink(ROOT_INO, bytes).expect("it was created");
    assert!(fs.lookup(ROOT_INO, bytes).is_err());
    "ok".into()
}

/// Length of the name, name, value.
pub fn xattrs() -> Vec<Vec<u8>> {
    let seeds: [(&[u8], &[u8]); 9] = [
        (b"user.a", b"value"),
        (b"user.", b""),
        (b"trusted.x", b"1"),
        (b"security.capability", b"1"),
        (b"scoutfs.hide.x", b"1"),
        (b"scoutfs.srch.hide.x", b"1"),
        (b"scoutfs.none.x", b"1"),
        (
            b"system.posix_acl_access",
            b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x04\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff",
        ),
        (b"user.long", &[9; 9000]),
    ];
    seeds.map(|(name, value)| [&[name.len() as u8], name, value].concat()).to_vec()
}

/// A value that is accepted is read as it was written, and gone after it was removed.
pub fn xattr(bytes: &[u8]) -> String {
    let Some((len, rest)) = bytes.split_first() else { return "empty".into() };
    let (name, value) = rest.split_at(rest.len().min((*len).into()));
    let (fs, file) = (fs(), BED.plain);
    match fs.setxattr(file, name, value, ANY) {
        Ok(()) => {}
        Err(e) => return refused(&e),
    }
    assert!(!name.contains(&0) && !name.is_empty());
    // An access list may only change the mode, and is read in the canonical form.
    if !name.starts_with(b"system.") {
        let mut found = vec![0; value.len() + 1];
        let len = fs.getxattr(file, name, &mut found).expect("it was set");
        assert_eq!(&found[..len], value);
        fs.removexattr(file, name, true).expect("it was set");
        assert!(fs.getxattr(file, name, &mut []).is_err());
    }
    format!("ok {}", name.split(|b| *b == b'.').next().is_some_and(|prefix| prefix == b"scoutfs"))
}

/// Where the caller's memory begins, and its bytes.
const BASE: u64 = 0x10_0000;
const MEMORY: usize = 12_288;

/// A caller's memory, of which one access fails.
struct Memory {
    bytes: RefCell<Vec<u8>>,
    accesses: RefCell<u8>,
    fails_at: u8,
}

impl Memory {
    fn range(&self, address: u64, len: usize) -> Result<std::ops::Range<usize>> {
        let mut accesses = self.accesses.borrow_mut();
        *accesses = accesses.saturating_add(1);
        if *accesses == self.fails_at {
            return Err(Error::Fault);
        }
        let start = address.checked_sub(BASE).and_then(|at| usize::try_from(at).ok()).ok_or(Error::Fault)?;
        let end = start.checked_add(len).filter(|end| *end <= MEMORY).ok_or(Error::Fault)?;
        Ok(start..end)
    }
}

impl UserMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        let range = self.range(address, bytes.len())?;
        bytes.copy_from_slice(&self.bytes.borrow()[range]);
        // Another thread of the caller changes it meanwhile.
        for byte in self.bytes.borrow_mut().iter_mut().step_by(97) {
            *byte = byte.wrapping_mul(5).wrapping_add(1);
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let range = self.range(address, bytes.len())?;
        self.bytes.borrow_mut()[range].copy_from_slice(bytes);
        Ok(())
    }
}

/// May do what two bits say.
struct Rights(u8);

impl Credentials for Rights {
    fn capable(&self, capability: Capability) -> bool {
        let bit = match capability {
            Capability::DacReadSearch => 1,
            Capability::SysAdmin => 2,
        };
        self.0 & bit == 0
    }

    fn caller(&self) -> scoutfs_fs::acl::Caller<'_> {
        scoutfs_fs::acl::Caller { uid: self.0.into(), groups: &[], reads_all: self.0 & 1 == 0 }
    }
}

const NUMBERS: &[u32] = &[
    IOC_WALK_INODES,
    IOC_INO_PATH,
    IOC_STAT_MORE,
    IOC_LISTXATTR_HIDDEN,
    IOC_SEARCH_XATTRS,
    IOC_STATFS_MORE,
    IOC_ALLOC_DETAIL,
    IOC_GET_ALLOCATED_INOS,
    IOC_GET_REFERRING_ENTRIES,
    IOC_GET_ATTR_X,
    IOC_SET_ATTR_X,
    IOC_FIEMAP,
    IOC_GET_COUNTERS,
    IOC_CONFIRM_DEATH,
];

/// Bytes that the number says the argument has.
fn argument_len(cmd: u32) -> usize {
    (cmd >> 16 & 0x3fff) as usize
}

/// Four bytes that choose the number, the inode, the rights, and the access that fails; then the argument, then what is in
/// the caller's memory.
pub fn ioctls() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (index, cmd) in NUMBERS.iter().enumerate() {
        for words in [[0u64; 4], [BASE, 4096, 1, BASE], [BASE, BASE, 64, 64], [1, 0, u64::MAX, 4096]] {
            let mut argument = words.repeat(argument_len(*cmd) / 32 + 1).as_bytes().to_vec();
            argument.truncate(argument_len(*cmd));
            let head = [index as u8, 1, 0, 0];
            seeds.push([&head[..], &argument, b"scoutfs.hide.srch.c\0"].concat());
        }
    }
    seeds
}

pub fn ioctl(bytes: &[u8]) -> String {
    let Some((&[number, which, rights, fails_at], rest)) = bytes.split_first_chunk() else {
        return "short".into();
    };
    let ino = [ROOT_INO, BED.file, 999_999, u64::MAX][usize::from(which % 4)];
    let cmd = NUMBERS.get(usize::from(number)).copied().unwrap_or(u32::from(number) << 16 | 0xe801);
    let len = argument_len(cmd);
    let mut input = rest.get(..len).unwrap_or(rest).to_vec();
    input.resize(len, 0);
    let mut memory = rest.get(len..).unwrap_or_default().to_vec();
    memory.resize(MEMORY, 0);
    let memory = Memory { bytes: RefCell::new(memory), accesses: RefCell::new(0), fails_at };
    let rights = Rights(rights & 3);
    let caller = Caller { memory: &memory, credentials: &rights, can_read: which < 128 };
    // As the kernel does: read arguments by one bit of the number, write results by the other.
    let input = if cmd >> 30 & 1 == 1 { &input[..] } else { &[] };
    let mut out = vec![0; if cmd >> 31 == 1 { len } else { 0 }];
    let request = Request { ino, cmd, arg: BASE + 8192, input };
    match fs().ioctl(&request, &mut out, &caller) {
        Ok(done) => {
            assert!(done.out_len <= out.len() && done.result >= 0);
            assert!(out[done.out_len..].iter().all(|b| *b == 0), "more was written than is told");
            format!("ok {number} {}", done.result.min(2))
        }
        Err(e) => format!("{number} {}", refused(&e)),
    }
}
