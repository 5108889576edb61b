// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs status`: who votes, who leads, who has the volume mounted.
//!
//! All of it is read from the device, so it works on any node, and without any. Nothing is written. Who beats is seen by a second
//! look: a voter counts its writes.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use scoutfs_btree::BlockCache;
use scoutfs_env::device::BlockDevice;
use scoutfs_env::{Arc, Box};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::server_item::{MEMBER_FENCED, MEMBER_FREE, MEMBER_GONE, MEMBER_LIVE};
use scoutfs_format::voter::{ADDRESS_V4, ADDRESS_V6, Address, QuorumBlock, VOTER_OWNED};
use scoutfs_fs::check::{QuorumState, read_quorum};
use scoutfs_server::Suspect;
use scoutfs_server::roots::{Member, read_members};
use scoutfs_server::super_block::{ValidSuper, read_super};
use serde_json::json;

use crate::cli::Status;

/// Blocks that are kept in memory.
const CACHE_BLOCKS: usize = 64;
/// Voters beat five times a second; one whose device is slow still beats within this time.
const LOOK: Duration = Duration::from_millis(1500);
/// Between looks.
const PAUSE: Duration = Duration::from_millis(100);
/// The server may replace what is read meanwhile; so often it is read again.
const ATTEMPTS: u32 = 20;

/// A voter slot.
enum Voter {
    Free,
    Owned { block: QuorumBlock, beats: bool },
    Unreadable,
}

/// The volume, as it was found.
struct Found {
    fsid: u64,
    /// How many voters make it work.
    needed: u32,
    voters: Vec<Voter>,
    members: Vec<Member>,
}

/// Prints it.
pub fn run(arguments: &Status) -> Result<(), String> {
    let path = device_of(&arguments.path)?;
    let device = super::check::open(&path)?;
    let found = look(&device).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = if arguments.json { writeln!(out, "{}", found.json()) } else { found.table(&mut out) };
    printed.and_then(|()| out.flush()).map_err(super::broken)
}

/// The device or image file of a volume: as given, or that of the mount that has the path.
fn device_of(path: &Path) -> Result<PathBuf, String> {
    let metadata = path.metadata().map_err(super::failed(path))?;
    if metadata.file_type().is_block_device() {
        return Ok(path.to_owned());
    }
    let dev = metadata.dev();
    let id = format!("{}:{}", libc::major(dev), libc::minor(dev));
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("/proc/self/mountinfo: {e}"))?;
    match mounts.lines().find_map(|line| source_of(line, &id)) {
        Some(source) => Ok(backing_file(&source).unwrap_or(source)),
        None if metadata.is_dir() => Err(format!("{} is not in a mounted scoutfs volume", path.display())),
        None => Ok(path.to_owned()),
    }
}

/// What is mounted by a line of mountinfo, if it is scoutfs and has this device number.
fn source_of(line: &str, id: &str) -> Option<PathBuf> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let (kind, source) = (filesystem.next()?, filesystem.next()?);
    let ours = matches!(kind, "fuseblk.scoutfs" | "scoutfs") && mount.split(' ').nth(2)? == id;
    ours.then(|| unescaped(source))
}

/// A path as the kernel shows it: spaces and the like in octal.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = octal.filter(|_| first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The file of a loop device, through which the volume itself is read and written.
fn backing_file(device: &Path) -> Option<PathBuf> {
    let name = Path::new(device.file_name()?);
    let file = fs::read_to_string(Path::new("/sys/block").join(name).join("loop/backing_file")).ok()?;
    let file = PathBuf::from(file.trim_end_matches('\n'));
    file.exists().then_some(file)
}

fn look(device: &Arc<Box<dyn BlockDevice>>) -> Result<Found, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let first = read_super(&***device).map_err(|e| text(&e))?;
    let fsid = first.sb.id.fsid.get();
    let geometry = first.geometry;
    let before = read_voters(device, &geometry, fsid)?;
    let members = members(device, first)?;
    let began = Instant::now();
    let voters = loop {
        let now = read_voters(device, &geometry, fsid)?;
        let beats = |old: &Option<QuorumBlock>, new: &Option<QuorumBlock>| match (old, new) {
            (Some(old), Some(new)) => old.write_nr != new.write_nr,
            _ => false,
        };
        let silent = before
            .iter()
            .zip(&now)
            .any(|(old, new)| new.is_some_and(|new| new.state.get() == VOTER_OWNED) && !beats(old, new));
        if silent && began.elapsed() < LOOK {
            sleep(PAUSE);
            continue;
        }
        let voter = |(old, new): (&Option<QuorumBlock>, &Option<QuorumBlock>)| match new {
            None => Voter::Unreadable,
            Some(block) if block.state.get() == VOTER_OWNED => {
                Voter::Owned { block: *block, beats: beats(old, new) }
            }
            Some(_) => Voter::Free,
        };
        break before.iter().zip(&now).map(voter).collect();
    };
    Ok(Found { fsid, needed: geometry.nr_voters() / 2 + 1, voters, members })
}

/// The newer copy of each voter's block; none where no copy is valid.
fn read_voters(
    device: &Arc<Box<dyn BlockDevice>>,
    geometry: &Geometry,
    fsid: u64,
) -> Result<Vec<Option<QuorumBlock>>, String> {
    let mut voters = Vec::new();
    for voter in 0..geometry.nr_voters() {
        let mut newest: Option<QuorumBlock> = None;
        for copy in 0..2 {
            let offset = geometry.quorum_block_offset(voter, copy);
            let read = read_quorum(&***device, offset).map_err(|_| "out of memory".to_owned())?;
            if let QuorumState::Valid(block) = read
                && (block.fsid.get(), block.voter.get()) == (fsid, voter)
                && newest.is_none_or(|other| block.write_nr.get() > other.write_nr.get())
            {
                newest = Some(block);
            }
        }
        voters.push(newest);
    }
    Ok(voters)
}

/// The owners of mount slots, by the newest super block.
fn members(device: &Arc<Box<dyn BlockDevice>>, first: ValidSuper) -> Result<Vec<Member>, String> {
    let mut found = first;
    let mut attempt = 1;
    loop {
        let cache = BlockCache::new(device.clone(), found.sb.id.fsid.get(), found.geometry, CACHE_BLOCKS)
            .map_err(|e| e.to_string())?;
        match read_members(&cache, &found.sb.server_root) {
            Ok(members) => {
                let members = members.into_iter();
                return Ok(members.filter(|m| m.item.state.get() != MEMBER_FREE).collect());
            }
            // What was there may have been replaced meanwhile.
            Err(e) if attempt == ATTEMPTS => return Err(e.to_string()),
            Err(_) => attempt += 1,
        }
        sleep(PAUSE);
        found = read_super(&***device).map_err(|e| e.to_string())?;
    }
}

/// Where the server of a mount listens that owns a voter slot, by the device.
pub(crate) fn voter_address(path: &Path, rid: u64) -> Option<SocketAddr> {
    let device = super::check::open(path).ok()?;
    let found = read_super(&**device).ok()?;
    let voters = read_voters(&device, &found.geometry, found.sb.id.fsid.get()).ok()?;
    let own = |block: &QuorumBlock| block.state.get() == VOTER_OWNED && block.rid.get() == rid;
    voters.into_iter().flatten().find(own).and_then(|block| address(&block.address))
}

fn address(address: &Address) -> Option<SocketAddr> {
    let port = address.port.get();
    match address.family.get() {
        ADDRESS_V4 => {
            let [a, b, c, d, ..] = address.ip;
            Some(SocketAddr::from(([a, b, c, d], port)))
        }
        ADDRESS_V6 => Some(SocketAddr::from((address.ip, port))),
        _ => None,
    }
}

/// The mounts of a volume that are fenced and whose death is not confirmed, as they are on the device.
pub(crate) fn fenced_mounts(path: &Path) -> Result<Vec<Suspect>, String> {
    let device = super::check::open(path)?;
    let found = read_super(&**device).map_err(|e| e.to_string())?;
    let fenced = |member: &Member| member.item.state.get() == MEMBER_FENCED;
    let suspect = |member: Member| Suspect { rid: member.item.rid.get(), process: member.item.process };
    Ok(members(&device, found)?.into_iter().filter(fenced).map(suspect).collect())
}

/// Something that may be missing.
fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// A number where 0 is none.
fn nonzero(value: u64) -> Option<u64> {
    Some(value).filter(|value| *value != 0)
}

fn state_of(member: &Member) -> &'static str {
    match member.item.state.get() {
        MEMBER_LIVE => "live",
        MEMBER_GONE => "gone",
        MEMBER_FENCED => "fenced",
        _ => "unknown",
    }
}

impl Found {
    fn owned(&self) -> impl Iterator<Item = (u32, &QuorumBlock, bool)> {
        (0..).zip(&self.voters).filter_map(|(slot, voter)| match voter {
            Voter::Owned { block, beats } => Some((slot, block, *beats)),
            _ => None,
        })
    }

    /// The voter that has won the highest term and beats.
    fn leader(&self) -> Option<(u32, &QuorumBlock)> {
        let won = self.owned().filter(|(_, block, beats)| *beats && block.leader_term.get() > 0);
        won.max_by_key(|(_, block, _)| block.leader_term.get()).map(|(slot, block, _)| (slot, block))
    }

    /// The highest term that any voter has seen.
    fn term(&self) -> u64 {
        self.owned().map(|(_, block, _)| block.term.get()).max().unwrap_or(0)
    }

    /// Where a mount can run the server, if it is a voter.
    fn address_of(&self, rid: u64) -> Option<SocketAddr> {
        let own = self.owned().find(|(_, block, _)| block.rid.get() == rid);
        own.and_then(|(_, block, _)| address(&block.address))
    }

    fn beating(&self) -> usize {
        self.owned().filter(|(.., beats)| *beats).count()
    }

    fn table(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "volume {:016x}", self.fsid)?;
        match self.leader() {
            Some((slot, block)) => writeln!(
                out,
                "leader voter {slot}, mount {:016x}, address {}, term {}",
                block.rid.get(),
                or_dash(address(&block.address)),
                block.leader_term.get()
            )?,
            None => writeln!(out, "leader none, term {}", self.term())?,
        }
        writeln!(out, "voters {} of {} beat, {} needed", self.beating(), self.voters.len(), self.needed)?;
        let mut voters =
            vec![["slot", "state", "mount", "address", "term", "vote", "beats"].map(String::from)];
        for (slot, voter) in self.voters.iter().enumerate() {
            let (state, block, beats) = match voter {
                Voter::Free => ("free", None, "-"),
                Voter::Unreadable => ("unreadable", None, "-"),
                Voter::Owned { block, beats: true } => ("owned", Some(block), "yes"),
                Voter::Owned { block, beats: false } => ("owned", Some(block), "no"),
            };
            let vote = block.filter(|block| block.vote_term.get() != 0);
            voters.push([
                slot.to_string(),
                state.into(),
                or_dash(block.map(|block| format!("{:016x}", block.rid.get()))),
                or_dash(block.and_then(|block| address(&block.address))),
                or_dash(block.map(|block| block.term.get())),
                or_dash(vote.map(|block| format!("{} in {}", block.vote_for.get(), block.vote_term.get()))),
                beats.into(),
            ]);
        }
        write_columns(out, &voters)?;
        writeln!(out, "mounts {}", self.members.len())?;
        let mut mounts = vec![["slot", "mount", "address", "epoch", "state"].map(String::from)];
        for member in &self.members {
            mounts.push([
                member.slot.to_string(),
                format!("{:016x}", member.item.rid.get()),
                or_dash(self.address_of(member.item.rid.get())),
                member.item.epoch.get().to_string(),
                state_of(member).into(),
            ]);
        }
        if self.members.is_empty() { Ok(()) } else { write_columns(out, &mounts) }
    }

    fn json(&self) -> serde_json::Value {
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        let voter = |(slot, voter): (usize, &Voter)| match voter {
            Voter::Free => json!({ "slot": slot, "state": "free" }),
            Voter::Unreadable => json!({ "slot": slot, "state": "unreadable" }),
            Voter::Owned { block, beats } => json!({
                "slot": slot,
                "state": "owned",
                "rid": format!("{:016x}", block.rid.get()),
                "address": text(address(&block.address)),
                "term": block.term.get(),
                "vote_term": nonzero(block.vote_term.get()),
                "vote_for": nonzero(block.vote_term.get()).map(|_| block.vote_for.get()),
                "leader_term": nonzero(block.leader_term.get()),
                "connected_term": nonzero(block.connected_term.get()),
                "beats": beats,
            }),
        };
        let mount = |member: &Member| {
            json!({
                "slot": member.slot,
                "rid": format!("{:016x}", member.item.rid.get()),
                "address": text(self.address_of(member.item.rid.get())),
                "epoch": member.item.epoch.get(),
                "state": state_of(member),
            })
        };
        let leader = self.leader().map(|(slot, block)| {
            json!({
                "voter": slot,
                "rid": format!("{:016x}", block.rid.get()),
                "address": text(address(&block.address)),
                "term": block.leader_term.get(),
            })
        });
        json!({
            "fsid": format!("{:016x}", self.fsid),
            "term": self.term(),
            "leader": leader,
            "voters_needed": self.needed,
            "voters_beating": self.beating(),
            "voters": self.voters.iter().enumerate().map(voter).collect::<Vec<_>>(),
            "mounts": self.members.iter().map(mount).collect::<Vec<_>>(),
        })
    }
}

/// Rows of columns that are as wide as their longest value.
fn write_columns<const N: usize>(out: &mut dyn Write, rows: &[[String; N]]) -> io::Result<()> {
    let widths: Vec<usize> =
        (0..N).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "  {}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
