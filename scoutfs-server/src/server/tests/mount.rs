// SPDX-License-Identifier: GPL-2.0-only
//! A mount as far as the server sees one.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use scoutfs_btree::ring::{RING_BYTES, RecordBuilder, RecordItem, RingOwner, RingWriter};
use scoutfs_btree::space::{Extent, MountSpace, SpaceExtent, SpaceKind, write_list};
use scoutfs_btree::tree::{FreeCursor, SliceSource};
use scoutfs_btree::{BlockSpace, Error, Limit, OwnedItem, Rule, Tail, apply, free_tree};
use scoutfs_env::IoBuf;
use scoutfs_env::device::BlockDevice;
use scoutfs_format::geometry::Geometry;
use scoutfs_format::item::ExtentItem;
use scoutfs_format::le::{I64, U32, U64};
use scoutfs_format::msg::*;
use scoutfs_format::ring::{LOG_FINALIZED, LogTree, RECORD_CHECKPOINT, RECORD_CLEAN, RecordHeader};
use scoutfs_format::server_item::HandOverExtent;
use scoutfs_format::space::SpaceListRef;
use scoutfs_format::voter::ProcessId;
use scoutfs_format::{BlockRef, Key};
use zerocopy::{FromBytes, IntoBytes};

use super::rig::*;

/// A mount as far as the server sees one: messages, and a real ring.
pub struct SimMount {
    pub rid: u64,
    pub slot: u32,
    pub epoch: u64,
    pub space: MountSpace,
    pub ring: RingWriter,
    pub seq: u64,
    counter: u32,
    pub logs: Vec<LogTree>,
    next_log: u64,
    tail: Vec<OwnedItem>,
    dirty: BTreeMap<Key, (u64, Option<Vec<u8>>)>,
    list: SpaceListRef,
    /// Number of the last hand-over that it took.
    taken: u64,
    /// The same, in its newest record.
    durably_taken: u64,
    pub inode_delta: i64,
    pub reserve: u64,
    geometry: Geometry,
    /// Data of "files": key -> extent.
    pub data: BTreeMap<Key, Extent>,
}

struct CheckpointBlocks<'a> {
    space: &'a mut MountSpace,
    token: scoutfs_btree::space::CommitToken,
    seq: u64,
    counter: &'a mut u32,
}

impl BlockSpace for CheckpointBlocks<'_> {
    fn alloc_block(&mut self) -> Result<u64, Error> {
        self.space.checkpoint_alloc(self.token).map_err(|_| Error::NoSpace)
    }

    fn free_block(&mut self, block: &BlockRef) -> Result<(), Error> {
        self.space.checkpoint_free(self.token, block.blkno.get()).unwrap();
        Ok(())
    }

    fn block_seq(&mut self) -> (u64, u32) {
        *self.counter += 1;
        (self.seq, *self.counter)
    }
}

pub fn process(n: u64) -> ProcessId {
    ProcessId { machine_id: [9; 16], boot_id: [1; 16], pid: U64::new(n), start: U64::new(1) }
}

impl SimMount {
    pub fn join(rig: &mut Rig, rid: u64) -> Result<SimMount, u16> {
        SimMount::join_as(rig, rid, process(rid))
    }

    pub fn join_as(rig: &mut Rig, rid: u64, process: ProcessId) -> Result<SimMount, u16> {
        let request = JoinRequest { rid: U64::new(rid), process, read_only: U32::ZERO, pad: U32::ZERO };
        let reply: JoinReply = rig.call(rid, MSG_JOIN, &request)?;
        let (slot, epoch) = (reply.slot.get(), reply.epoch.get());
        let mut ring = IoBuf::zeroed(RING_BYTES).unwrap();
        rig.dev.read(rig.geometry.slot_offset(slot), &mut ring).unwrap();
        let owner = RingOwner { fsid: FSID, slot: slot as u16, epoch };
        let ring = RingWriter::open(&ring, owner).unwrap();
        let (taken, given) = (reply.down_given.get(), reply.up_taken.get());
        let mut mount = SimMount {
            rid,
            slot,
            epoch,
            space: MountSpace::new(rig.geometry, taken, given),
            ring,
            seq: 0,
            counter: 0,
            logs: vec![],
            next_log: reply.merged_through.get() + 1,
            tail: vec![],
            dirty: BTreeMap::new(),
            list: SpaceListRef::default(),
            taken,
            durably_taken: taken,
            inode_delta: 0,
            reserve: reply.reserve_blocks.get(),
            geometry: rig.geometry,
            data: BTreeMap::new(),
        };
        mount.next_seq(rig);
        Ok(mount)
    }

    /// A mount with metadata space.
    pub fn start(rig: &mut Rig, rid: u64) -> SimMount {
        let mut mount = match SimMount::join(rig, rid) {
            Err(STATUS_AGAIN) => {
                rig.settle();
                SimMount::join(rig, rid).unwrap()
            }
            joined => joined.unwrap(),
        };
        while mount.space.free_blocks(SpaceKind::Meta) < mount.reserve {
            assert!(mount.get_space(rig, SpaceKind::Meta, mount.reserve) > 0);
            mount.commit(rig, false);
        }
        mount
    }

    pub fn next_seq(&mut self, rig: &mut Rig) {
        let request = SeqRequest { closed_below: U64::new(self.seq + 1) };
        let reply: SeqReply = rig.call(self.rid, MSG_SEQ, &request).unwrap();
        assert!(reply.seq.get() > self.seq);
        self.seq = reply.seq.get();
        self.counter = 0;
    }

    /// Asks for space and takes what comes; returns the blocks.
    pub fn get_space(&mut self, rig: &mut Rig, kind: SpaceKind, blocks: u64) -> u64 {
        let id = rig.new_id();
        let (status, bytes) = self.ask_space(rig, id, kind, blocks);
        assert_eq!(status, STATUS_OK);
        self.take(&bytes)
    }

    pub fn ask_space(&self, rig: &mut Rig, id: u64, kind: SpaceKind, blocks: u64) -> (u16, Vec<u8>) {
        let request =
            SpaceRequest { blocks: U64::new(blocks), kind: U32::new(kind.to_raw().into()), pad: U32::ZERO };
        rig.request(self.rid, id, MSG_SPACE, request.as_bytes())
    }

    /// Takes a hand-over, from the next commit on. One that it has is ignored.
    pub fn take(&mut self, bytes: &[u8]) -> u64 {
        let (head, body) = HandOverHeader::read_from_prefix(bytes).unwrap();
        if head.number.get() <= self.taken {
            return 0;
        }
        self.taken = head.number.get();
        let mut extents = vec![];
        for raw in <[HandOverExtent]>::ref_from_bytes(body).unwrap() {
            let kind = SpaceKind::from_raw(raw.kind).unwrap();
            extents.push(SpaceExtent::new(kind, raw.start.get(), raw.len.get().into()));
        }
        assert_eq!(extents.len(), head.nr_extents.get() as usize);
        self.space.take(head.number.get(), &extents).unwrap();
        extents.iter().map(|e| e.extent.len).sum()
    }

    pub fn put(&mut self, key: Key, value: &[u8]) {
        self.dirty.insert(key, (self.seq, Some(value.to_vec())));
    }

    pub fn delete(&mut self, key: Key) {
        self.dirty.insert(key, (self.seq, None));
    }

    /// Makes a "file": allocates data and an extent item. Returns the blocks.
    pub fn write_file(&mut self, ino: u64, blocks: u64) -> u64 {
        let Ok(extent) = self.space.alloc_data(blocks, None) else {
            return 0;
        };
        self.space.use_held(SpaceExtent { kind: SpaceKind::Data, extent }).unwrap();
        let key = Key::extent(ino, extent.len - 1);
        let item =
            ExtentItem { blkno: U64::new(extent.start), len: U64::new(extent.len), ..ExtentItem::default() };
        self.put(key, item.as_bytes());
        self.data.insert(key, extent);
        self.inode_delta += 1;
        extent.len
    }

    pub fn delete_file(&mut self, key: Key) {
        let extent = self.data.remove(&key).unwrap();
        self.space.free_data(extent.start, extent.len).unwrap();
        self.delete(key);
        self.inode_delta -= 1;
    }

    /// Whether only a checkpoint is sure to find room in the ring.
    pub fn ring_is_full(&mut self) -> bool {
        match self.ring.place(4, 0) {
            Ok(place) => self.ring.unplace(&place).is_err(),
            Err(_) => true,
        }
    }

    /// Commits: with a checkpoint if asked for or if it must.
    pub fn commit(&mut self, rig: &mut Rig, checkpoint: bool) {
        self.write_record(rig, checkpoint, false, 0);
        self.next_seq(rig);
    }

    /// Finalizes the open log tree, commits and tells the server.
    pub fn finalize(&mut self, rig: &mut Rig) {
        self.write_record(rig, true, true, 0);
        self.next_seq(rig);
        self.tell(rig, MSG_FINALIZED);
    }

    fn tell(&mut self, rig: &mut Rig, kind: u8) {
        let id = rig.new_id();
        let commit = self.commit_number();
        let (status, _) = rig.request(self.rid, id, kind, commit.as_bytes());
        assert_eq!(status, STATUS_OK);
    }

    pub fn commit_number(&self) -> CommitNumber {
        CommitNumber {
            slot: U32::new(self.slot),
            pad: U32::ZERO,
            epoch: U64::new(self.epoch),
            commit_nr: U64::new(self.ring.commit_nr()),
        }
    }

    pub fn leave(mut self, rig: &mut Rig) {
        self.write_record(rig, true, true, RECORD_CLEAN);
        self.tell(rig, MSG_LEAVE);
    }

    /// A record that was submitted before the mount was fenced, and arrives now.
    pub fn write_late_record(&mut self, rig: &mut Rig) {
        self.put(Key::inode(666), b"late");
        assert_eq!(self.write_file(666, 5), 5);
        self.write_record(rig, true, false, 0);
    }

    /// Tells the server what was taken, and gives it what was given, until it knows.
    pub fn exchange(&mut self, rig: &mut Rig) {
        let taken = HandOverTaken {
            number: U64::new(self.durably_taken),
            commit_nr: U64::new(self.ring.commit_nr()),
        };
        let id = rig.new_id();
        assert_eq!(rig.request(self.rid, id, MSG_SPACE_TAKEN, taken.as_bytes()).0, STATUS_OK);
        let given: Vec<(u64, Vec<SpaceExtent>)> = self.space.given().map(|(n, e)| (n, e.to_vec())).collect();
        for (number, extents) in given {
            let id = rig.new_id();
            let (status, answer) = rig.request(self.rid, id, MSG_SPACE_GIVE, &give_payload(number, &extents));
            assert_eq!(status, STATUS_OK);
            let taken = HandOverTaken::read_from_bytes(&answer).unwrap();
            self.space.forget_given(taken.number.get()).unwrap();
        }
    }

    /// What the server has merged of this mount is freed by the next checkpoint.
    pub fn merged_through(&self, rig: &mut Rig) -> u64 {
        let rid = self.rid;
        let mut through = 0;
        rig.inbox.retain(|(to, kind, payload)| {
            if *to == rid && *kind == MSG_MERGED {
                through = through.max(MergedLogs::read_from_bytes(payload).unwrap().through.get());
            }
            !(*to == rid && *kind == MSG_MERGED)
        });
        through
    }

    pub fn write_record(&mut self, rig: &mut Rig, checkpoint: bool, finalize: bool, flags: u32) {
        let checkpoint = checkpoint || self.ring.checkpoint_nr().is_none();
        let token = self.space.close_trans().unwrap();
        let mut items = vec![];
        for (key, (version, value)) in std::mem::take(&mut self.dirty) {
            items.push(OwnedItem {
                key,
                version,
                deletion: value.is_none(),
                value: scoutfs_env::Vec::from_slice(&value.unwrap_or_default()).unwrap(),
            });
        }
        let mut flags = flags;
        let merged = self.merged_through(rig);
        let mut header = RecordHeader {
            rid: U64::new(self.rid),
            trans_seq: U64::new(self.seq),
            taken: U64::new(token.taken()),
            given: U64::new(token.given()),
            inode_delta: I64::new(self.inode_delta),
            process: process(self.rid),
            ..Default::default()
        };
        let mut inline = vec![];
        let mut entries = scoutfs_env::Vec::new();
        if self.logs.is_empty() {
            let (nr, min) = (self.next_log, self.seq);
            self.logs.push(open_log(nr, min));
            self.next_log += 1;
        }
        if checkpoint {
            flags |= RECORD_CHECKPOINT;
            let mut all = Tail::new();
            for item in self.tail.drain(..).chain(items) {
                all.merge_in([item.borrow()]).unwrap();
            }
            let all: Vec<OwnedItem> = all.range(Key::MIN, Key::MAX).map(|i| i.to_owned().unwrap()).collect();
            let mut blocks =
                CheckpointBlocks { space: &mut self.space, token, seq: self.seq, counter: &mut self.counter };
            for log in self.logs.iter().filter(|log| log.nr.get() <= merged) {
                let mut cursor = FreeCursor::START;
                assert!(free_tree(&rig.cache, &mut blocks, &log.root, &mut cursor, u64::MAX).unwrap());
            }
            self.logs.retain(|log| log.nr.get() > merged);
            let log = self.logs.last_mut().expect("the open log is never merged");
            let mut source = SliceSource::new(&all);
            let applied =
                apply(&rig.cache, &mut blocks, &log.root, &mut source, &Rule::Log, Limit::NONE).unwrap();
            log.root = applied.root;
            log.max_version = U64::new(self.seq);
            if finalize && log.root.height > 0 {
                log.flags = U32::new(LOG_FINALIZED);
                let (nr, min) = (self.next_log, self.seq + 1);
                self.logs.push(open_log(nr, min));
                self.next_log += 1;
            }
            let old: Vec<BlockRef> =
                scoutfs_btree::space::read_list(&rig.cache, &self.list, |_| Ok(())).unwrap().to_vec();
            for block in old {
                blocks.free_block(&block).unwrap();
            }
            let list = self.space.checkpoint_list(token, 2).unwrap();
            let mut places = vec![];
            for &blkno in &list.blocks {
                self.counter += 1;
                places.push(BlockRef::new(blkno, self.seq, self.counter));
            }
            if places.is_empty() {
                self.list = SpaceListRef::default();
                entries = list.entries;
            } else {
                self.list = write_list(&rig.cache, &places, &list.entries).unwrap();
            }
        } else {
            entries = self.space.trans_entries(token).unwrap();
            inline = items;
        }
        header.flags = U32::new(flags);
        header.space = self.list;
        let mut record = RecordBuilder::new(header);
        for log in self.logs.iter().filter(|_| checkpoint) {
            record.add_log(log).unwrap();
        }
        for entry in &entries {
            record.add_space(entry).unwrap();
        }
        for item in &inline {
            let OwnedItem { key, version, deletion, ref value } = *item;
            record.add_item(&RecordItem { key, version, deletion, value }).unwrap();
        }
        self.tail.extend(inline);
        rig.dev.flush().unwrap();
        let place = self.ring.place(record.frames(), flags).expect("the test commits too much");
        let frames = record.encode(&place).unwrap();
        let offset = self.geometry.slot_offset(self.slot) + place.offset_bytes();
        rig.dev.write_durable(offset, &frames).unwrap();
        self.ring.written(&place).unwrap();
        self.space.commit_done(token).unwrap();
        self.durably_taken = token.taken();
    }
}

fn open_log(nr: u64, min_version: u64) -> LogTree {
    LogTree { nr: U64::new(nr), min_version: U64::new(min_version), ..Default::default() }
}

pub fn give_payload(number: u64, extents: &[SpaceExtent]) -> Vec<u8> {
    let head = HandOverHeader {
        number: U64::new(number),
        nr_extents: U32::new(extents.len() as u32),
        pad: U32::ZERO,
    };
    let mut payload = head.as_bytes().to_vec();
    for extent in extents {
        payload.extend(crate::server::hand_over::raw_extent(extent).as_bytes());
    }
    payload
}
