// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs print`: all metadata of a volume, a line for each thing, in an order that does not change.
//!
//! | module | what |
//! | --- | --- |
//! | this | the volume from its super blocks to the items of each tree |
//! | `item` | items as named values |
//! | `output` | lines of named values |
//!
//! What is damaged is a line of its own that says so, and the rest is printed. The volume's secret never is. Nothing is
//! locked: of a mounted volume it shows what was there when it looked.

mod item;
mod output;

use std::io::{self, BufWriter, Write};

use scoutfs_btree::ring::{RING_BYTES, Record, parse_ring};
use scoutfs_btree::space::read_list;
use scoutfs_btree::tree::{Place, Visitor, walk};
use scoutfs_btree::{BlockCache, Error, Item, Node};
use scoutfs_env::device::BlockDevice;
use scoutfs_env::{Arc, Box, IoBuf};
use scoutfs_format::geometry::{Geometry, MAX_VOTERS};
use scoutfs_format::ring::LogTree;
use scoutfs_format::space::{SpaceEntry, SpaceListRef};
use scoutfs_format::tree::TreeRoot;
use scoutfs_format::voter::{ADDRESS_V4, ADDRESS_V6, Address, QuorumBlock, SuperBlock, TakeOver};
use scoutfs_fs::check::{QuorumState, TreeId, read_quorum};
use scoutfs_server::roots::read_members;
use scoutfs_server::super_block::{SuperError, ValidSuper, read_copy, read_super_with_take_overs};

use self::output::{Field, Fields, Output};
use super::mkfs::uuid_text;
use crate::cli::Print;

/// Blocks that are kept in memory.
const CACHE_BLOCKS: usize = 64;

/// Prints the volume.
pub fn run(arguments: &Print) -> Result<(), String> {
    let path = arguments.device.display();
    let device = super::check::open(&arguments.device)?;
    let mut out = BufWriter::new(io::stdout().lock());
    match print(&device, &mut out, arguments.skip_items, arguments.json) {
        Err(PrintError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|e| format!("{path}: {e}")),
    }
}

/// Why not all was printed.
#[derive(Debug, thiserror::Error)]
enum PrintError {
    #[error(transparent)]
    Super(#[from] SuperError),
    #[error(transparent)]
    Tree(#[from] Error),
    #[error("out of memory")]
    NoMemory(#[from] scoutfs_env::AllocError),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Prints the volume on a device.
fn print(
    device: &Arc<Box<dyn BlockDevice>>,
    out: &mut dyn Write,
    skip_items: bool,
    json: bool,
) -> Result<(), PrintError> {
    let mut out = Output::new(out, json);
    print_supers(device, &mut out);
    let (found, take_overs) = match read_super_with_take_overs(&***device) {
        Ok(found) => found,
        Err(e) => {
            out.finish()?;
            return Err(e.into());
        }
    };
    let fsid = found.sb.id.fsid.get();
    let cache = BlockCache::new(device.clone(), fsid, found.geometry, CACHE_BLOCKS)?;
    let mut printer = Printer { device, cache: &cache, geometry: found.geometry, out, skip_items };
    printer.volume(&found.sb, &take_overs)?;
    Ok(printer.out.finish()?)
}

/// A line of something that is damaged.
fn damaged(out: &mut Output<'_>, fields: Fields, error: &dyn std::fmt::Display) {
    out.line("damaged", fields.with("error", Field::Text(error.to_string())));
}

fn print_supers(device: &Arc<Box<dyn BlockDevice>>, out: &mut Output<'_>) {
    for voter in 0..MAX_VOTERS {
        for copy in 0..2 {
            let place = Fields::default().with("voter", voter).with("copy", copy);
            match read_copy(&***device, voter, copy) {
                Ok(found) => out.line("super", place.and(super_fields(&found))),
                Err(SuperError::NotScoutfs) => {}
                Err(e) => damaged(out, place, &e),
            }
        }
    }
}

fn super_fields(found: &ValidSuper) -> Fields {
    let (sb, g) = (&found.sb, &found.geometry);
    Fields::default()
        .with("fsid", Field::Id(sb.id.fsid.get()))
        .with("uuid", Field::Word(uuid_text(&sb.id.uuid)))
        .with("format_version", sb.id.format_version.get())
        .with("format_hash", Field::Id(sb.id.format_hash.get()))
        .with("term", sb.term.get())
        .with("seq", sb.seq.get())
        .with("flags", sb.flags.get())
        .with("volume_bytes", g.volume_bytes())
        .with("quorum", g.quorum())
        .with("slots", g.nr_slots())
        .with("zones", g.nr_zones())
        .with("zone_bytes", g.zone_bytes())
        .with("first_meta_block", g.first_meta_block())
        .with("first_data_block", g.first_data_block())
        .with("meta_zones", sb.meta_zones.get())
        .with("seq_bound", sb.seq_bound.get())
        .with("ino_bound", sb.ino_bound.get())
        .with("inodes", sb.inodes.get())
        .with("tombstones", sb.tombstones.get())
        .with("block_seq", sb.block_seq.get())
        .with("fs_root", root(&sb.fs_root))
        .with("server_root", root(&sb.server_root))
        .with("work", list(&sb.work))
        .with("work_term", sb.work_leader.term.get())
        .with("work_rid", Field::Id(sb.work_leader.rid.get()))
        .with("work_voter", sb.work_leader.voter.get())
}

fn take_over_fields(take_over: &TakeOver) -> Fields {
    Fields::default()
        .with("start", take_over.start.get())
        .with("len", take_over.len.get())
        .with("term", take_over.term.get())
        .with("rid", Field::Id(take_over.rid.get()))
        .with("voter", take_over.voter.get())
}

fn root(root: &TreeRoot) -> Field {
    let b = &root.block;
    Field::Word(format!("{}@{}.{}/{}", b.blkno, b.trans_seq, b.counter, root.height))
}

fn list(list: &SpaceListRef) -> Field {
    let b = &list.first;
    Field::Word(format!("{}@{}.{}*{}", b.blkno, b.trans_seq, b.counter, list.nr_blocks))
}

fn address(address: &Address) -> Field {
    let port = address.port.get();
    let text = match address.family.get() {
        ADDRESS_V4 => {
            let [a, b, c, d, ..] = address.ip;
            std::net::SocketAddr::from(([a, b, c, d], port)).to_string()
        }
        ADDRESS_V6 => std::net::SocketAddr::from((address.ip, port)).to_string(),
        _ => "none".into(),
    };
    Field::Word(text)
}

fn quorum_fields(block: &QuorumBlock) -> Fields {
    Fields::default()
        .with("state", block.state.get())
        .with("write_nr", block.write_nr.get())
        .with("nonce", Field::Id(block.nonce.get()))
        .with("rid", Field::Id(block.rid.get()))
        .with("term", block.term.get())
        .with("vote_term", block.vote_term.get())
        .with("vote_for", block.vote_for.get())
        .with("leader_term", block.leader_term.get())
        .with("connected_term", block.connected_term.get())
        .with("address", address(&block.address))
        .and(item::process_fields(&block.process))
}

fn log_fields(log: &LogTree) -> Fields {
    Fields::default()
        .with("nr", log.nr.get())
        .with("flags", log.flags.get())
        .with("min_version", log.min_version.get())
        .with("max_version", log.max_version.get())
        .with("root", root(&log.root))
}

fn space_fields(entry: &SpaceEntry) -> Fields {
    Fields::default()
        .with("kind", u32::from(entry.kind))
        .with("state", u32::from(entry.state))
        .with("start", entry.start.get())
        .with("len", entry.len.get())
        .with("number", entry.number.get())
}

fn tree_field(tree: TreeId) -> Field {
    Field::Word(match tree {
        TreeId::Fs => "fs".into(),
        TreeId::Server => "server".into(),
        TreeId::Log { slot, nr } => format!("log.{slot}.{nr}"),
    })
}

struct Printer<'a> {
    device: &'a Arc<Box<dyn BlockDevice>>,
    cache: &'a BlockCache,
    geometry: Geometry,
    out: Output<'a>,
    skip_items: bool,
}

impl Printer<'_> {
    fn volume(&mut self, sb: &SuperBlock, take_overs: &[TakeOver]) -> Result<(), PrintError> {
        for voter in 0..self.geometry.nr_voters() {
            for copy in 0..2 {
                self.quorum_block(voter, copy)?;
            }
        }
        match read_members(self.cache, &sb.server_root) {
            Ok(members) => {
                for member in &members {
                    self.out.line("member", item::member_fields(member.slot.into(), &member.item));
                }
            }
            Err(e) => damaged(&mut self.out, Fields::default().with("members", Field::Word("?".into())), &e),
        }
        self.list("work", &sb.work, Fields::default())?;
        for take_over in take_overs {
            self.out.line("take_over", take_over_fields(take_over));
        }
        self.tree(TreeId::Server, &sb.server_root)?;
        for slot in 0..self.geometry.nr_slots() {
            self.slot(slot)?;
        }
        self.tree(TreeId::Fs, &sb.fs_root)
    }

    fn quorum_block(&mut self, voter: u32, copy: u32) -> Result<(), PrintError> {
        let place = Fields::default().with("voter", voter).with("block", copy);
        match read_quorum(&***self.device, self.geometry.quorum_block_offset(voter, copy))? {
            QuorumState::Empty => {}
            QuorumState::Valid(block) => self.out.line("quorum", place.and(quorum_fields(&block))),
            QuorumState::Damaged { stored, computed } => {
                let error = format!("its checksum is {stored:#010x}, its bytes give {computed:#010x}");
                damaged(&mut self.out, place, &error);
            }
            QuorumState::Unreadable(e) => damaged(&mut self.out, place, &e),
        }
        Ok(())
    }

    /// The newest record of a slot's newest epoch, with what it builds on and refers to.
    fn slot(&mut self, slot: u32) -> Result<(), PrintError> {
        let place = || Fields::default().with("slot", slot);
        let mut ring = IoBuf::zeroed(RING_BYTES)?;
        if let Err(e) = self.device.read(self.geometry.slot_offset(slot), &mut ring) {
            damaged(&mut self.out, place(), &e);
            return Ok(());
        }
        let slot_nr = u16::try_from(slot).unwrap_or(u16::MAX);
        let state = match parse_ring(&ring, self.cache.fsid(), slot_nr, None) {
            Ok(Some(state)) => state,
            Ok(None) => return Ok(()),
            Err(e) => {
                damaged(&mut self.out, place(), &e);
                return Ok(());
            }
        };
        for record in state.records() {
            self.record(slot, state.epoch(), record);
        }
        self.list("mount_space", &state.newest().header().space, place())?;
        for log in state.logs() {
            self.tree(TreeId::Log { slot, nr: log.nr.get() }, &log.root)?;
        }
        Ok(())
    }

    fn record(&mut self, slot: u32, epoch: u64, record: &Record) {
        let head = record.header();
        let place = || Fields::default().with("slot", slot).with("record", record.commit_nr());
        let fields = place()
            .with("epoch", epoch)
            .with("frame", record.first_frame())
            .with("frames", record.nr_frames())
            .with("rid", Field::Id(head.rid.get()))
            .with("flags", head.flags.get())
            .with("checkpoint", head.checkpoint_nr.get())
            .with("trans_seq", head.trans_seq.get())
            .with("block_counter", head.block_counter.get())
            .with("taken", head.taken.get())
            .with("given", head.given.get())
            .with("inode_delta", Field::Signed(head.inode_delta.get()))
            .with("log_bytes", head.log_bytes.get())
            .with("logs", head.nr_logs.get())
            .with("space_entries", head.nr_space.get())
            .with("items", head.nr_items.get())
            .with("space", list(&head.space))
            .and(item::process_fields(&head.process));
        self.out.line("record", fields);
        for log in record.logs() {
            self.out.line("log", place().and(log_fields(&log)));
        }
        for entry in record.space() {
            self.out.line("record_space", place().and(space_fields(&entry)));
        }
        if self.skip_items {
            return;
        }
        for item in record.items() {
            let item =
                Item { key: item.key, version: item.version, deletion: item.deletion, value: item.value };
            self.out.line("record_item", place().and(item::describe(&item)));
        }
    }

    fn list(&mut self, kind: &'static str, list: &SpaceListRef, place: Fields) -> Result<(), PrintError> {
        let mut entries = Vec::new();
        let read = read_list(self.cache, list, |entry| {
            entries.push(*entry);
            Ok(())
        });
        for entry in &entries {
            self.out.line(kind, space_fields(entry));
        }
        match read {
            Ok(_) => Ok(()),
            Err(Error::NoMemory) => Err(Error::NoMemory.into()),
            Err(e) => {
                damaged(&mut self.out, place.with("list", Field::Word(kind.into())), &e);
                Ok(())
            }
        }
    }

    fn tree(&mut self, id: TreeId, root: &TreeRoot) -> Result<(), PrintError> {
        struct Nodes<'p, 'a> {
            printer: &'p mut Printer<'a>,
            id: TreeId,
        }
        impl Nodes<'_, '_> {
            fn place(&self, place: &Place) -> Fields {
                let b = &place.block;
                Fields::default()
                    .with("tree", tree_field(self.id))
                    .with("block", Field::Word(format!("{}@{}.{}", b.blkno, b.trans_seq, b.counter)))
                    .with("level", u32::from(place.level))
            }
        }
        impl Visitor for Nodes<'_, '_> {
            fn node(&mut self, place: &Place, node: &Node) -> Result<(), Error> {
                let fields = self
                    .place(place)
                    .with("items", node.len())
                    .with("used_bytes", node.used_bytes())
                    .with("first", Field::Word(place.first.to_string()))
                    .with("last", Field::Word(place.last.to_string()));
                self.printer.out.line("node", fields);
                if node.level() == 0 && !self.printer.skip_items {
                    for index in 0..node.len() {
                        let tree = Fields::default().with("tree", tree_field(self.id));
                        self.printer.out.line("item", tree.and(item::describe(&node.item(index))));
                    }
                }
                // Nobody reads what follows.
                if self.printer.out.failed() { Err(Error::NoSpace) } else { Ok(()) }
            }

            fn broken(&mut self, place: &Place, error: Error) -> Result<(), Error> {
                let fields = self.place(place);
                damaged(&mut self.printer.out, fields, &error);
                Ok(())
            }
        }
        let cache = self.cache;
        match walk(cache, root, &mut Nodes { printer: self, id }) {
            Err(Error::NoMemory) => Err(Error::NoMemory.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
