// SPDX-License-Identifier: GPL-2.0-only
//! A small sound volume as plain data, to be damaged and then put on a device with all checksums right.
//!
//! Zone 0 has the server's trees, zone 1 the metadata of the mount in slot 0, zone 2 its data; the others are empty.

use std::collections::BTreeMap;
use std::vec::Vec;

use scoutfs_btree::ring::{RecordBuilder, RecordItem, RingOwner, RingWriter};
use scoutfs_btree::space::write_list;
use scoutfs_btree::tree::SliceSource;
use scoutfs_btree::{BlockCache, BlockSpace, Error, Limit, OwnedItem, Rule, apply};
use scoutfs_env::device::{BlockDevice, MemDevice};
use scoutfs_env::{Arc, Box, IoBuf, try_box};
use scoutfs_format::geometry::{Geometry, MIN_VOLUME_BYTES, RING_FRAMES};
use scoutfs_format::item::*;
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ};
use scoutfs_format::ring::{LogTree, RECORD_CHECKPOINT, RecordHeader};
use scoutfs_format::server_item::{FreeItem, MEMBER_LIVE, MemberItem};
use scoutfs_format::space::{ENTRY_FREE, SPACE_DATA, SPACE_META, SPACE_ZONES, SpaceEntry, SpaceListRef};
use scoutfs_format::tree::TreeRoot;
use scoutfs_format::voter::{MAGIC_SUPER, SuperBlock, SuperId};
use scoutfs_format::{BlockRef, FORMAT_HASH, Key, SECTOR_SIZE};
use scoutfs_server::super_block::write_super;
use zerocopy::{FromBytes, IntoBytes};

pub const FSID: u64 = 0x5c00;
/// Version of the items of the fs tree.
pub const FS_VERSION: u64 = 5;
/// Version of the items of the log tree.
pub const LOG_VERSION: u64 = 20;
/// Version of the items of the newest record.
pub const TAIL_VERSION: u64 = 30;
pub const SEQ_BOUND: u64 = 100;

/// The inodes of the sound volume.
pub const FILE: u64 = 1024;
pub const DIR: u64 = 1025;
pub const LINK: u64 = 1026;
pub const ORPHAN: u64 = 1027;
/// Data blocks that the sound volume uses.
pub const DATA_BLOCKS: u64 = 7;

/// Items of one source: version, and the value unless it is a deletion.
pub type Items = BTreeMap<Key, (u64, Option<Vec<u8>>)>;

pub struct Volume {
    pub geometry: Geometry,
    pub fs: Items,
    pub log: Items,
    pub tail: Items,
    /// Items of the server's tree, the free zones included, the member not.
    pub server: BTreeMap<Key, Vec<u8>>,
    pub member: MemberItem,
    pub header: RecordHeader,
    /// Entries of the mount's list of space besides its free metadata.
    pub list: Vec<SpaceEntry>,
    /// Space entries of the newest record.
    pub space: Vec<SpaceEntry>,
    pub log_tree: LogTree,
    pub sb: SuperBlock,
}

/// What a volume became on a device.
pub struct Built {
    pub device: Arc<Box<dyn BlockDevice>>,
    pub sb: SuperBlock,
    pub log_root: TreeRoot,
}

pub fn entry(kind: u8, state: u8, start: u64, len: u64, number: u64) -> SpaceEntry {
    SpaceEntry {
        start: start.into(),
        number: number.into(),
        len: u32::try_from(len).unwrap().into(),
        kind,
        state,
        pad: [0; 2],
    }
}

fn with_name(head: &[u8], name: &str) -> Vec<u8> {
    [head, name.as_bytes()].concat()
}

pub fn dirent(ino: u64, file_type: u8, name: &str) -> Vec<u8> {
    with_name(DirentHeader { ino: ino.into(), file_type, pad: [0; 7] }.as_bytes(), name)
}

pub fn readdir(ino: u64, file_type: u8, name: &str) -> Vec<u8> {
    let name_hash = name_hash(name.as_bytes()).into();
    with_name(ReaddirHeader { ino: ino.into(), name_hash, file_type, pad: [0; 7] }.as_bytes(), name)
}

pub fn extent(blkno: u64, len: u64, flags: u8) -> Vec<u8> {
    ExtentItem { blkno: blkno.into(), len: len.into(), flags, ..ExtentItem::default() }.as_bytes().to_vec()
}

/// The parts of an attribute.
pub fn xattr(name: &str, value: &[u8]) -> Vec<Vec<u8>> {
    let head = XattrHeader { val_len: (value.len() as u32).into(), name_len: name.len() as u8, pad: [0; 3] };
    let all = [head.as_bytes(), name.as_bytes(), value].concat();
    all.chunks(XATTR_PART_LEN).map(<[u8]>::to_vec).collect()
}

impl Volume {
    pub fn new() -> Volume {
        let geometry = Geometry::new(MIN_VOLUME_BYTES, 1).unwrap();
        let mut volume = Volume {
            geometry,
            fs: Items::new(),
            log: Items::new(),
            tail: Items::new(),
            server: BTreeMap::new(),
            member: MemberItem {
                rid: 77.into(),
                epoch: 3.into(),
                state: MEMBER_LIVE.into(),
                down_given: 2.into(),
                down_forgotten: 2.into(),
                ..MemberItem::default()
            },
            header: RecordHeader {
                rid: 77.into(),
                taken: 2.into(),
                inode_delta: 1.into(),
                ..RecordHeader::default()
            },
            list: Vec::new(),
            space: Vec::new(),
            log_tree: LogTree {
                nr: 1.into(),
                min_version: LOG_VERSION.into(),
                max_version: LOG_VERSION.into(),
                ..LogTree::default()
            },
            sb: SuperBlock {
                id: SuperId {
                    magic: MAGIC_SUPER.into(),
                    fsid: FSID.into(),
                    format_version: u64::from(scoutfs_format::FORMAT_VERSION).into(),
                    format_hash: FORMAT_HASH.into(),
                    ..SuperId::default()
                },
                geometry: geometry.to_raw(),
                term: 1.into(),
                seq_bound: SEQ_BOUND.into(),
                ino_bound: 2048.into(),
                inodes: 4.into(),
                meta_zones: 2.into(),
                ..SuperBlock::default()
            },
        };
        volume.fill();
        volume
    }

    /// First data block of the mount.
    pub fn data(&self) -> u64 {
        self.geometry.first_data_block() + 2 * self.geometry.zone_data_blocks()
    }

    /// First metadata block of a zone.
    pub fn meta(&self, zone: u64) -> u64 {
        self.geometry.first_meta_block() + zone * self.geometry.zone_meta_blocks()
    }

    fn fill(&mut self) {
        let data = self.data();
        self.inode(ROOT_INO, 0o040_755, |i| {
            (i.nlink, i.size, i.next_dir_pos, i.parent) = (3.into(), 2.into(), 4.into(), ROOT_INO.into());
        });
        self.inode(FILE, 0o100_644, |i| {
            (i.nlink, i.size, i.online_blocks, i.offline_blocks) =
                (2.into(), 40_960.into(), DATA_BLOCKS.into(), 5.into());
            (i.next_xattr_id, i.data_seq) = (2.into(), FS_VERSION.into());
        });
        self.inode(DIR, 0o040_700, |i| {
            (i.nlink, i.size, i.next_dir_pos, i.parent) = (2.into(), 5.into(), 9.into(), ROOT_INO.into());
        });
        self.inode(LINK, 0o120_777, |i| (i.nlink, i.size) = (1.into(), 6.into()));
        self.entry(ROOT_INO, 2, FILE, FT_REG, "a");
        self.entry(ROOT_INO, 3, DIR, FT_DIR, "d");
        self.entry(DIR, 5, FILE, FT_REG, "b");
        self.entry(DIR, 8, LINK, FT_LNK, "link");
        self.put(Key::index(KIND_DATA_SEQ, FS_VERSION, FILE), Vec::new());
        self.put(Key::symlink(LINK), b"target".to_vec());
        self.put(Key::extent(FILE, 3), extent(data, 4, 0));
        self.put(Key::extent(FILE, 9), extent(0, 5, EXTENT_OFFLINE));
        self.put(Key::extent(FILE, 20), extent(data + 4, 3, EXTENT_UNWRITTEN));
        for (part, value) in xattr("user.long", &[7; 5000]).into_iter().enumerate() {
            self.put(Key::xattr(FILE, name_hash(b"user.long"), 1, part as u8), value);
        }
        // A change of the mount, half of it in its log tree: the directory became newer.
        let mut dir = self.inode_item(DIR);
        dir.meta_seq = LOG_VERSION.into();
        self.log.insert(Key::inode(DIR), (LOG_VERSION, Some(dir.as_bytes().to_vec())));
        self.log.insert(Key::index(KIND_META_SEQ, LOG_VERSION, DIR), (LOG_VERSION, Some(Vec::new())));
        self.log.insert(Key::index(KIND_META_SEQ, FS_VERSION, DIR), (LOG_VERSION, None));
        // In its newest record: a file was made and unlinked, and something is gone.
        let orphan =
            InodeItem { meta_seq: TAIL_VERSION.into(), mode: 0o100_600.into(), ..InodeItem::default() };
        self.tail.insert(Key::inode(ORPHAN), (TAIL_VERSION, Some(orphan.as_bytes().to_vec())));
        self.tail.insert(Key::orphan(ORPHAN), (TAIL_VERSION, Some(Vec::new())));
        self.tail.insert(Key::index(KIND_META_SEQ, TAIL_VERSION, ORPHAN), (TAIL_VERSION, Some(Vec::new())));
        self.put(Key::orphan(FILE), Vec::new());
        self.tail.insert(Key::orphan(FILE), (TAIL_VERSION, None));

        let zones = self.geometry.nr_zones();
        self.server
            .insert(Key::free(SPACE_ZONES, 3), FreeItem { len: (zones - 3).into() }.as_bytes().to_vec());
        let rest = self.geometry.zone_data_blocks() - DATA_BLOCKS;
        self.list.push(entry(SPACE_DATA, ENTRY_FREE, data + DATA_BLOCKS, rest, 0));
    }

    /// Adds an item to the fs tree.
    pub fn put(&mut self, key: Key, value: Vec<u8>) {
        self.fs.insert(key, (FS_VERSION, Some(value)));
    }

    /// Removes an item of the fs tree.
    pub fn remove(&mut self, key: Key) {
        assert!(self.fs.remove(&key).is_some(), "no {key}");
    }

    /// Adds an inode that the index has.
    pub fn inode(&mut self, ino: u64, mode: u32, set: impl FnOnce(&mut InodeItem)) {
        let mut item = InodeItem { meta_seq: FS_VERSION.into(), mode: mode.into(), ..InodeItem::default() };
        set(&mut item);
        self.put(Key::inode(ino), item.as_bytes().to_vec());
        self.put(Key::index(KIND_META_SEQ, FS_VERSION, ino), Vec::new());
    }

    fn inode_item(&self, ino: u64) -> InodeItem {
        let value = self.fs[&Key::inode(ino)].1.as_ref().unwrap();
        InodeItem::read_from_bytes(value).unwrap()
    }

    /// Changes an inode item of the fs tree.
    pub fn edit_inode(&mut self, ino: u64, edit: impl FnOnce(&mut InodeItem)) {
        let mut item = self.inode_item(ino);
        edit(&mut item);
        self.put(Key::inode(ino), item.as_bytes().to_vec());
    }

    /// Changes the inode item of the directory, whose newest version is in the log tree.
    pub fn edit_dir(&mut self, edit: impl FnOnce(&mut InodeItem)) {
        let mut item = self.inode_item(DIR);
        item.meta_seq = LOG_VERSION.into();
        edit(&mut item);
        self.log.insert(Key::inode(DIR), (LOG_VERSION, Some(item.as_bytes().to_vec())));
    }

    /// Adds the three items of a directory entry, nothing else.
    pub fn entry(&mut self, dir: u64, pos: u64, ino: u64, file_type: u8, name: &str) {
        let hash = name_hash(name.as_bytes());
        self.put(Key::dirent(dir, hash, pos), dirent(ino, file_type, name));
        self.put(Key::readdir(dir, pos), readdir(ino, file_type, name));
        self.put(Key::backref(ino, dir, pos), BackrefItem { name_hash: hash.into() }.as_bytes().to_vec());
    }

    /// Puts it on a device.
    pub fn build(&self) -> Built {
        let g = self.geometry;
        let device = try_box(MemDevice::new(g.volume_bytes())).unwrap();
        let device: Arc<Box<dyn BlockDevice>> = Arc::new(device as Box<dyn BlockDevice>).unwrap();
        let cache = BlockCache::new(device.clone(), FSID, g, 64).unwrap();
        let mut server_space = Blocks { next: self.meta(0), end: self.meta(1), counter: 0 };
        let mut mount_space = Blocks { next: self.meta(1), end: self.meta(2), counter: 1000 };

        let log_root = tree(&cache, &mut mount_space, &self.log, Rule::Log);
        let place = mount_space.place();
        let mut entries = self.list.clone();
        entries.push(mount_space.rest());
        let space = write_list(&cache, &[place], &entries).unwrap();
        self.write_ring(&**device, log_root, space);

        let mut sb = self.sb;
        sb.fs_root = tree(&cache, &mut server_space, &self.fs, Rule::Log);
        let mut server: Items =
            self.server.iter().map(|(key, value)| (*key, (0, Some(value.clone())))).collect();
        server.insert(Key::member(0), (0, Some(self.member.as_bytes().to_vec())));
        sb.server_root = tree(&cache, &mut server_space, &server, Rule::Plain);
        let place = server_space.place();
        sb.work = write_list(&cache, &[place], &[server_space.rest()]).unwrap();
        write_super(&**device, 0, &mut sb).unwrap();
        Built { device, sb, log_root }
    }

    fn write_ring(&self, device: &dyn BlockDevice, log_root: TreeRoot, space: SpaceListRef) {
        let ring = IoBuf::zeroed(RING_FRAMES as usize * SECTOR_SIZE).unwrap();
        let owner = RingOwner { fsid: FSID, slot: 0, epoch: self.member.epoch.get() };
        let mut writer = RingWriter::open(&ring, owner).unwrap();
        let log = LogTree { root: log_root, ..self.log_tree };
        for flags in [RECORD_CHECKPOINT, 0] {
            let header = RecordHeader { flags: flags.into(), space, ..self.header };
            let mut record = RecordBuilder::new(header);
            if flags == RECORD_CHECKPOINT {
                record.add_log(&log).unwrap();
            } else {
                for entry in &self.space {
                    record.add_space(entry).unwrap();
                }
                for (key, (version, value)) in &self.tail {
                    record
                        .add_item(&RecordItem {
                            key: *key,
                            version: *version,
                            deletion: value.is_none(),
                            value: value.as_deref().unwrap_or_default(),
                        })
                        .unwrap();
                }
            }
            let place = writer.place(record.frames(), flags).unwrap();
            let bytes = record.encode(&place).unwrap();
            device.write(self.geometry.slot_offset(0) + place.offset_bytes(), &bytes).unwrap();
            writer.written(&place).unwrap();
        }
    }
}

fn tree(cache: &BlockCache, space: &mut Blocks, items: &Items, rule: Rule) -> TreeRoot {
    let mut owned = scoutfs_env::Vec::new();
    for (key, (version, value)) in items {
        owned
            .push(OwnedItem {
                key: *key,
                version: *version,
                deletion: value.is_none(),
                value: scoutfs_env::Vec::from_slice(value.as_deref().unwrap_or_default()).unwrap(),
            })
            .unwrap();
    }
    let mut source = SliceSource::new(&owned);
    apply(cache, space, &TreeRoot::EMPTY, &mut source, &rule, Limit::NONE).unwrap().root
}

/// Metadata blocks of a zone, taken one after the other.
struct Blocks {
    next: u64,
    end: u64,
    counter: u32,
}

impl Blocks {
    fn place(&mut self) -> BlockRef {
        let blkno = self.alloc_block().unwrap();
        let (seq, counter) = self.block_seq();
        BlockRef::new(blkno, seq, counter)
    }

    fn rest(&self) -> SpaceEntry {
        entry(SPACE_META, ENTRY_FREE, self.next, self.end - self.next, 0)
    }
}

impl BlockSpace for Blocks {
    fn alloc_block(&mut self) -> Result<u64, Error> {
        assert!(self.next < self.end);
        self.next += 1;
        Ok(self.next - 1)
    }

    fn free_block(&mut self, _block: &BlockRef) -> Result<(), Error> {
        Err(Error::NoSpace)
    }

    fn block_seq(&mut self) -> (u64, u32) {
        self.counter += 1;
        (2, self.counter)
    }
}
