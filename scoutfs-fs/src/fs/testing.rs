// SPDX-License-Identifier: GPL-2.0-only
//! What tests of the operations stand on: a volume in memory, mounted in this process, and a look at all of it.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use scoutfs_env::device::{BlockDevice, MemDevice};
use scoutfs_env::net::{Network, TcpNetwork};
use scoutfs_env::{Arc, Box};
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ};
use scoutfs_format::voter::ProcessId;
use scoutfs_net::quorum::Timing;
use scoutfs_server::DeathOracle;

use crate::dir::NewInode;
use crate::error::Result;
use crate::fs::Fs;
use crate::inode::Attr;
use crate::inode::kind::FileType;
use crate::node::{Mount, MountOptions};
use crate::store::LockMode;
use crate::xattr::HiddenPosition;

/// Times of an election that nobody else takes part in, on a device that is memory.
const FAST: Timing = Timing {
    beat_ms: 10,
    lease_ms: 10_000,
    patience_ms: 10_000,
    isolation_ms: 2000,
    margin_ms: 100,
    dead_ms: 10_200,
    confirmed_ms: 20,
    presumed_ms: None,
    prompt_ms: 5,
    settle_ms: 6,
};

/// Every process but this mount's is dead: a test drops a mount before it mounts again.
struct OthersDead(ProcessId);

impl DeathOracle for OthersDead {
    fn is_dead(&self, process: &ProcessId) -> bool {
        *process != self.0
    }
}

/// Nothing is known to be dead.
struct NobodyDead;

impl DeathOracle for NobodyDead {
    fn is_dead(&self, _: &ProcessId) -> bool {
        false
    }
}

/// A volume in memory, and the mount of it.
pub(crate) struct TestFs {
    device: Arc<Box<dyn BlockDevice>>,
    mount: Option<Mount>,
    mounts: u64,
    /// Whether mounts have access control lists on.
    pub acls: bool,
}

impl TestFs {
    /// The smallest volume, new.
    pub fn new() -> TestFs {
        TestFs::with_bytes(64 << 20)
    }

    pub fn with_bytes(bytes: u64) -> TestFs {
        let device: Box<dyn BlockDevice> = Box::new(MemDevice::new(bytes));
        let device = Arc::new(device).unwrap();
        let options = crate::mkfs::Options { quorum: 1, force: true };
        crate::mkfs::mkfs(&device, &options).unwrap();
        let mut fs = TestFs { device, mount: None, mounts: 0, acls: true };
        fs.open();
        fs
    }

    fn open(&mut self) {
        self.mounts += 1;
        let process = ProcessId { pid: self.mounts.into(), ..ProcessId::default() };
        let mut options = MountOptions::new(process);
        options.server_addr = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 14000)));
        options.timing = FAST;
        options.acl = self.acls;
        // What is not synced is not durable, however slow the machine is.
        options.commit_interval = Duration::from_secs(3600);
        options.block_cache_bytes = 8 << 20;
        options.item_cache_bytes = 4 << 20;
        self.mount = Some(Mount::open(self.device.clone(), &options, &OthersDead(process)).unwrap());
    }

    /// Unmounts, checks the volume, and mounts again.
    pub fn remount(&mut self) {
        self.remount_then(&mut || ());
    }

    /// As [`TestFs::remount`], and calls `then` as soon as it is unmounted.
    pub fn remount_then(&mut self, then: &mut dyn FnMut()) {
        let unmounted = self.mount.take().unwrap().unmount();
        then();
        unmounted.unwrap();
        self.check();
        self.open();
    }

    /// Checks the volume and mounts again without having unmounted: what was not synced is gone.
    pub fn crash(&mut self) {
        drop(self.mount.take());
        self.check();
        self.open();
    }

    /// Finds nothing wrong with the volume.
    fn check(&self) {
        let mut issues = vec![];
        let report = &mut |issue: crate::check::Issue| issues.push(format!("{issue}"));
        crate::check::check(&self.device, report, &mut |_, _| ()).unwrap();
        assert_eq!(issues, Vec::<String>::new());
    }
}

/// Every test ends with a check, unless it has failed already.
impl Drop for TestFs {
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Some(mount) = self.mount.take()
        {
            mount.unmount().unwrap();
            self.check();
        }
    }
}

impl core::ops::Deref for TestFs {
    type Target = Fs;

    fn deref(&self) -> &Fs {
        self.mount.as_ref().unwrap().fs()
    }
}

/// A volume in memory, mounted twice, each as a node of its own.
pub(crate) struct Pair {
    /// The node that leads.
    pub a: std::sync::Arc<Mount>,
    /// The other.
    pub b: std::sync::Arc<Mount>,
    device: Arc<Box<dyn BlockDevice>>,
}

impl Pair {
    pub fn new() -> Pair {
        let device: Box<dyn BlockDevice> = Box::new(MemDevice::new(64 << 20));
        let device = Arc::new(device).unwrap();
        crate::mkfs::mkfs(&device, &crate::mkfs::Options { quorum: 1, force: true }).unwrap();
        // A port that nobody else has.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let (a, b) = (Self::mount(&device, 1, Some(address)), Self::mount(&device, 2, None));
        Pair { a, b, device }
    }

    /// One more, which is to be unmounted before the pair goes.
    pub fn third(&self) -> std::sync::Arc<Mount> {
        Self::mount(&self.device, 3, None)
    }

    fn mount(
        device: &Arc<Box<dyn BlockDevice>>,
        pid: u64,
        server_addr: Option<SocketAddr>,
    ) -> std::sync::Arc<Mount> {
        let process = ProcessId { pid: pid.into(), ..ProcessId::default() };
        let mut options = MountOptions::new(process);
        options.server_addr = server_addr;
        options.timing = FAST;
        options.block_cache_bytes = 8 << 20;
        options.item_cache_bytes = 4 << 20;
        let network: Box<dyn Network> = Box::new(TcpNetwork::default());
        let oracle: Box<dyn DeathOracle + Send + Sync> = Box::new(NobodyDead);
        let (network, oracle) = (Arc::new(network).unwrap(), Arc::new(oracle).unwrap());
        std::sync::Arc::new(Mount::open_in(device.clone(), network, &options, oracle).unwrap())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.b.unmount().unwrap();
            self.a.unmount().unwrap();
        }
    }
}

/// A regular file that anybody may read.
pub(crate) const FILE: NewInode = NewInode { mode: 0o100644, umask: 0, rdev: 0, uid: 1000, gid: 1000 };
/// A directory that anybody may read.
pub(crate) const DIR: NewInode = NewInode { mode: 0o040755, umask: 0, rdev: 0, uid: 1000, gid: 1000 };

/// Bytes that differ from block to block and from `seed` to `seed`.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(31) ^ (i >> 9).wrapping_mul(7) ^ seed) as u8 | 1).collect()
}

/// An inode and all below it, as programs see them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Names with inode numbers, in the order of their positions.
    Dir(Vec<(Vec<u8>, u64)>),
    File(Vec<u8>),
    Link(Vec<u8>),
    Special,
}

impl Fs {
    /// All of a file.
    pub(crate) fn read_all(&self, ino: u64) -> Vec<u8> {
        let size = self.getattr(ino).unwrap().size as usize;
        let mut data = vec![0xee; size + 10];
        assert_eq!(self.read(ino, 0, &mut data).unwrap(), size);
        data.truncate(size);
        data
    }

    /// An attribute's value.
    pub(crate) fn xattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        let mut value = vec![0; 65_536];
        let len = self.getxattr(ino, name, &mut value)?;
        value.truncate(len);
        Ok(value)
    }

    /// Names of hidden attributes.
    pub(crate) fn hidden_names(&self, ino: u64) -> Vec<Vec<u8>> {
        let (mut position, mut names) = (HiddenPosition::default(), vec![]);
        let mut buf = vec![0; 1000];
        loop {
            let len = self.list_hidden_xattrs(ino, &mut position, &mut buf).unwrap();
            if len == 0 {
                return names;
            }
            names.extend(buf[..len].split_inclusive(|b| *b == 0).map(|name| name[..name.len() - 1].to_vec()));
        }
    }

    /// The inodes that a search finds.
    pub(crate) fn search(&self, name: &[u8]) -> Vec<u64> {
        let mut found = vec![];
        let end = self
            .search_xattrs(name, 0, u64::MAX, u64::MAX, &mut |ino| {
                found.push(ino);
                Ok(())
            })
            .unwrap();
        assert!(end);
        found
    }

    /// Names of attributes, in the order of their hashes.
    pub(crate) fn xattr_names(&self, ino: u64) -> Vec<Vec<u8>> {
        let mut list = vec![0; self.listxattr(ino, &mut []).unwrap()];
        let len = self.listxattr(ino, &mut list).unwrap();
        assert_eq!(len, list.len());
        list.split_inclusive(|b| *b == 0).map(|name| name[..name.len() - 1].to_vec()).collect()
    }

    /// Names of a directory with inode numbers, without `.` and `..`.
    pub(crate) fn names(&self, dir: u64) -> Vec<(Vec<u8>, u64)> {
        let mut names = vec![];
        let mut last = None;
        self.readdir(dir, 0, &mut |entry| {
            assert!(last.is_none_or(|last| last < entry.pos) && entry.next_pos == entry.pos + 1);
            last = Some(entry.pos);
            names.push((entry.name.to_vec(), entry.ino));
            true
        })
        .unwrap();
        assert_eq!(names.remove(0), (b".".to_vec(), dir));
        assert_eq!(names.remove(0).0, b"..");
        names
    }

    /// One inode as programs see it.
    pub(crate) fn node(&self, ino: u64) -> Node {
        let attr = self.getattr(ino).unwrap();
        let content = match FileType::of_mode(attr.mode).unwrap() {
            FileType::Directory => Content::Dir(self.names(ino)),
            FileType::Regular => Content::File(self.read_all(ino)),
            FileType::Symlink => Content::Link(self.readlink(ino).unwrap().to_vec()),
            _ => Content::Special,
        };
        Node {
            mode: attr.mode,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            size: attr.size,
            xattrs: self
                .xattr_names(ino)
                .into_iter()
                .chain(self.hidden_names(ino))
                .map(|name| {
                    let value = self.xattr(ino, &name).unwrap();
                    (name, value)
                })
                .collect(),
            content,
        }
    }

    /// All inodes that have names.
    pub(crate) fn tree(&self) -> BTreeMap<u64, Node> {
        let mut tree = BTreeMap::new();
        let mut todo = vec![ROOT_INO];
        while let Some(ino) = todo.pop() {
            if tree.contains_key(&ino) {
                continue;
            }
            let node = self.node(ino);
            if let Content::Dir(names) = &node.content {
                todo.extend(names.iter().map(|(_, ino)| ino));
            }
            tree.insert(ino, node);
        }
        tree
    }

    /// Data blocks that are not free, when all is committed.
    pub(crate) fn used_data(&self) -> u64 {
        self.sync().unwrap();
        let statfs = self.statfs().unwrap();
        statfs.total_data - statfs.free_data
    }

    /// Blocks of an inode's extents.
    pub(crate) fn extent_blocks(&self, ino: u64) -> u64 {
        let locks = self.store().lock(&[(ino, LockMode::Read)]).unwrap();
        let (mut from, mut blocks) = (0, 0);
        while let Some(extent) = self.extent_from(&locks, ino, from).unwrap() {
            assert!(extent.first >= from);
            blocks += extent.len;
            from = extent.end();
        }
        blocks
    }

    /// Extents of an inode: first logical block, length, whether written.
    pub(crate) fn extents(&self, ino: u64) -> Vec<(u64, u64, bool)> {
        let locks = self.store().lock(&[(ino, LockMode::Read)]).unwrap();
        let (mut from, mut extents) = (0, vec![]);
        while let Some(extent) = self.extent_from(&locks, ino, from).unwrap() {
            extents.push((extent.first, extent.len, extent.is_written()));
            from = extent.end();
        }
        extents
    }

    fn index(&self, kind: u8) -> BTreeSet<(u64, u64)> {
        let mut found = BTreeSet::new();
        self.walk_index(kind, (0, 0), (u64::MAX, u64::MAX), usize::MAX, &mut |seq, ino| {
            assert!(found.insert((seq, ino)));
            Ok(())
        })
        .unwrap();
        found
    }

    /// Checks that links, sizes, blocks and the change index agree; only inodes with names may exist.
    pub(crate) fn verify(&self) -> BTreeMap<u64, Node> {
        let tree = self.tree();
        let mut links: BTreeMap<u64, u32> = BTreeMap::from([(ROOT_INO, 2)]);
        for (dir, node) in &tree {
            let Content::Dir(names) = &node.content else { continue };
            assert_eq!(node.size, names.iter().map(|(name, _)| name.len() as u64).sum::<u64>());
            for (name, ino) in names {
                let is_dir = matches!(tree[ino].content, Content::Dir(_));
                *links.entry(*ino).or_default() += if is_dir { 2 } else { 1 };
                if is_dir {
                    *links.entry(*dir).or_default() += 1;
                }
                let looked_up = self.lookup(*dir, name).unwrap();
                self.forget(*ino, 1);
                assert_eq!(looked_up.ino, *ino);
            }
        }
        let attrs: Vec<Attr> = tree.keys().map(|ino| self.getattr(*ino).unwrap()).collect();
        for attr in &attrs {
            assert_eq!(attr.nlink, links[&attr.ino], "links of {}", attr.ino);
            let blocks = self.extent_blocks(attr.ino);
            assert_eq!(attr.online_blocks, blocks, "online blocks of {}", attr.ino);
            assert_eq!(attr.blocks, blocks * 8);
        }
        self.sync().unwrap();
        let want = |seq: fn(&Attr) -> u64| {
            attrs.iter().map(|a| (seq(a), a.ino)).filter(|e| e.0 != 0).collect::<BTreeSet<_>>()
        };
        assert_eq!(self.index(KIND_META_SEQ), want(|a| a.meta_seq), "meta_seq index");
        assert_eq!(self.index(KIND_DATA_SEQ), want(|a| a.data_seq), "data_seq index");
        assert_eq!(self.store().next_orphan(0).unwrap(), None, "orphans");
        tree
    }

    /// An inode's number by its path from the root.
    pub(crate) fn ino(&self, path: &str) -> u64 {
        path.split('/').filter(|p| !p.is_empty()).fold(ROOT_INO, |dir, name| {
            let ino = self.lookup(dir, name.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}")).ino;
            self.forget(ino, 1);
            ino
        })
    }

    /// Makes a file and keeps no reference.
    pub(crate) fn touch(&self, dir: u64, name: &str) -> u64 {
        let ino = self.create(dir, name.as_bytes(), &FILE).unwrap().ino;
        self.forget(ino, 1);
        ino
    }

    /// Makes a directory and keeps no reference.
    pub(crate) fn subdir(&self, dir: u64, name: &str) -> u64 {
        let ino = self.mkdir(dir, name.as_bytes(), &DIR).unwrap().ino;
        self.forget(ino, 1);
        ino
    }
}

/// A name of `len` bytes.
pub(crate) fn long_name(prefix: &str, len: usize) -> String {
    format!("{prefix:x<len$}")
}
