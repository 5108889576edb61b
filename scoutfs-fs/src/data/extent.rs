// SPDX-License-Identifier: GPL-2.0-only
//! Extents of file data, and changing which blocks a range of a file maps to.
//!
//! Extents of an inode do not overlap; neighbours that continue each other on the device and are of the same
//! sort are one. The inode's `online_blocks` is the sum of the blocks that its extents have here, its `offline_blocks` that of
//! those in the archive.

use scoutfs_btree::space::budget::DELETE_BYTES;
use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::item::{EXTENT_OFFLINE, EXTENT_UNWRITTEN, ExtentItem, MAX_FILE_BYTES};
use scoutfs_format::key::KIND_EXTENT;
use scoutfs_format::le::{U32, U64};
use scoutfs_item::Spot;
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::{Change, INODE_CHANGE_ITEMS};
use crate::inode::record::{DATA_BLOCK_BYTES, Inode};
use crate::store::{DataRun, Hold, Locks, Need, Store};

/// The last logical block that a file can have.
pub(crate) const MAX_BLOCK: u64 = (MAX_FILE_BYTES - 1) / DATA_BLOCK_BYTES;

/// Extents that one transaction changes at most.
pub(crate) const STEP_EXTENTS: usize = 128;

/// Bytes that an extent item's value has, and some more.
const EXTENT_BYTES: usize = 32;

/// Logical blocks `first..first + len` of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub first: u64,
    pub len: u64,
    /// First device block; 0 for none.
    pub blkno: u64,
    /// `EXTENT_*`.
    pub flags: u8,
    /// Fences that were known when the file got its blocks; see [`KnownFences`](crate::store::KnownFences).
    pub fences: u32,
}

impl Extent {
    fn parse(ino: u64, key: Key, value: &[u8], device_blocks: u64) -> Result<Extent> {
        let corrupt = |what| Err(Error::Corrupt { ino, what });
        let Ok(item) = ExtentItem::read_from_bytes(value) else {
            return corrupt("an extent item has a wrong size");
        };
        let (last, len, blkno) = (key.second, item.len.get(), item.blkno.get());
        if len == 0 || last > MAX_BLOCK || len > last + 1 {
            return corrupt("an extent reaches past the ends of a file");
        }
        let offline = match item.flags {
            0 | EXTENT_UNWRITTEN => false,
            EXTENT_OFFLINE => true,
            _ => return corrupt("an extent has unknown flags"),
        };
        if offline != (blkno == 0) || blkno.checked_add(len).is_none_or(|end| end > device_blocks) {
            return corrupt("an extent's blocks are not on the device");
        }
        Ok(Extent { first: last + 1 - len, len, blkno, flags: item.flags, fences: item.fences.get() })
    }

    /// One past the last logical block.
    pub fn end(&self) -> u64 {
        self.first + self.len
    }

    pub fn is_written(&self) -> bool {
        self.flags == 0
    }

    /// The device block of a logical block of it.
    pub fn blkno_of(&self, block: u64) -> u64 {
        self.blkno + (block - self.first)
    }

    /// The part of it from `first` to before `end`, both inside.
    pub fn part(&self, first: u64, end: u64) -> Extent {
        let blkno = if self.blkno == 0 { 0 } else { self.blkno_of(first) };
        Extent { first, len: end - first, blkno, ..*self }
    }

    fn key(&self, ino: u64) -> Key {
        Key::extent(ino, self.end() - 1)
    }

    fn item(&self) -> ExtentItem {
        ExtentItem {
            blkno: U64::new(self.blkno),
            len: U64::new(self.len),
            flags: self.flags,
            pad: [0; 3],
            fences: U32::new(self.fences),
        }
    }

    fn online_blocks(&self) -> u64 {
        if self.blkno == 0 { 0 } else { self.len }
    }

    fn offline_blocks(&self) -> u64 {
        if self.blkno == 0 { self.len } else { 0 }
    }

    /// Whether `next` continues it in the file and on the device.
    pub fn joins(&self, next: &Extent) -> bool {
        self.end() == next.first
            && (self.flags, self.fences) == (next.flags, next.fences)
            && (self.blkno == 0) == (next.blkno == 0)
            && (self.blkno == 0 || self.blkno + self.len == next.blkno)
    }
}

impl Fs {
    /// The extent that holds `block`, else the next one.
    pub(crate) fn extent_from(&self, locks: &Locks<'_>, ino: u64, block: u64) -> Result<Option<Extent>> {
        if block > MAX_BLOCK {
            return Ok(None);
        }
        let device_blocks = self.store().device().size_bytes() / DATA_BLOCK_BYTES;
        let last = Key::kind_last(ino, KIND_EXTENT);
        locks.next(Key::extent(ino, block), last, |k, v| Extent::parse(ino, k, v, device_blocks))?.transpose()
    }

    /// The extent that ends right before `block`.
    pub(crate) fn extent_up_to(&self, locks: &Locks<'_>, ino: u64, block: u64) -> Result<Option<Extent>> {
        let Some(before) = block.checked_sub(1) else {
            return Ok(None);
        };
        let device_blocks = self.store().device().size_bytes() / DATA_BLOCK_BYTES;
        let key = Key::extent(ino, before);
        locks.get(key, |v| Extent::parse(ino, key, v, device_blocks))?.transpose()
    }

    /// The last extent before `block`.
    pub(crate) fn extent_before(&self, locks: &Locks<'_>, ino: u64, block: u64) -> Result<Option<Extent>> {
        let Some(before) = block.checked_sub(1) else {
            return Ok(None);
        };
        let device_blocks = self.store().device().size_bytes() / DATA_BLOCK_BYTES;
        let first = Key::extent(ino, 0);
        locks
            .prev(Key::extent(ino, before), first, |k, v| Extent::parse(ino, k, v, device_blocks))?
            .transpose()
    }
}

/// A new mapping of a range of a file, made outside the transaction while the inode's lock keeps others away.
#[derive(Default)]
pub(crate) struct Remap {
    old: Vec<Extent>,
    new: Vec<Extent>,
    /// Extents whose blocks nothing maps to any more.
    freed: Vec<Extent>,
    /// Where to go on when there were more extents in the range than one transaction takes.
    pub next: Option<u64>,
}

impl Remap {
    fn keep(&mut self, extent: Extent) -> Result<()> {
        if let Some(last) = self.new.last_mut()
            && last.joins(&extent)
        {
            last.len += extent.len;
            return Ok(());
        }
        self.new.push(extent)?;
        Ok(())
    }

    /// The items that it writes and deletes at most.
    pub fn need_items(&self) -> u32 {
        // At most a few more than `STEP_EXTENTS`.
        (self.old.len() + self.new.len()) as u32
    }

    /// By how much a sum over the extents changes. Each file's blocks are fewer than 2^51.
    fn delta(&self, blocks: impl Fn(&Extent) -> u64) -> i64 {
        let sum = |extents: &[Extent]| extents.iter().map(&blocks).sum::<u64>();
        sum(&self.new).cast_signed() - sum(&self.old).cast_signed()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.old == self.new
    }

    fn find(extents: &[Extent], end: u64) -> Option<&Extent> {
        let at = extents.binary_search_by_key(&end, Extent::end).ok()?;
        extents.get(at)
    }

    /// Takes the steps that can fail, and counts the inode's blocks.
    pub fn prepare(&self, change: &mut Change<'_, '_>, inode: &mut Inode) -> Result<()> {
        // One more for the run that comes in.
        change.hold().reserve_space_changes(self.freed.len() + 1)?;
        // Each is near the one before, and the first one near the inode.
        let mut spot = inode.spot;
        for old in &self.old {
            match Self::find(&self.new, old.end()) {
                Some(new) if new == old => {}
                Some(_) => change.hold().dirty(old.key(inode.ino), &mut spot)?,
                None => change.delete_near(old.key(inode.ino), spot)?,
            }
        }
        for new in &self.new {
            if Self::find(&self.old, new.end()).is_none() {
                change.create_near(new.key(inode.ino), &mut spot, &[new.item().as_bytes()])?;
            }
        }
        inode.add_online(self.delta(Extent::online_blocks))?;
        inode.add_offline(self.delta(Extent::offline_blocks))
    }

    /// Takes the steps that cannot fail; the change must be finished, too.
    pub fn finish(&self, store: &Store, hold: &Hold<'_>, ino: u64) {
        for new in &self.new {
            if Self::find(&self.old, new.end()).is_some_and(|old| old != new) {
                hold.update_dirty(new.key(ino), Spot::default(), &[new.item().as_bytes()]);
            }
        }
        for Extent { blkno, len, fences, .. } in &self.freed {
            if let Err(error) = hold.free_data(*blkno, *len, *fences) {
                // The extents are gone already: what is left of this transaction must not become durable.
                scoutfs_env::error!("inode {ino}: {len} data blocks at {blkno} were not freed: {error}");
                store.fail("data blocks could not be freed");
            }
        }
    }
}

impl Fs {
    /// A new mapping of the blocks of `run`, from a logical block on.
    pub(crate) fn extent_of(&self, run: &DataRun, first: u64, flags: u8) -> Extent {
        Extent { first, len: run.len, blkno: run.start, flags, fences: self.store().fences.newest() }
    }

    /// Maps the hole `new.first..new.end()` to blocks.
    pub(crate) fn remap_hole(&self, locks: &Locks<'_>, ino: u64, new: Extent) -> Result<Remap> {
        self.remap(locks, ino, new.first, new.end() - 1, Some(new), |_| None)
    }

    /// Maps each extent's part in the logical blocks `first..=last` to what `map` says of it; `None`, or other blocks, free its own. Goes
    /// on over at most [`STEP_EXTENTS`] extents. `fill` is put into the range if nothing was there.
    pub(crate) fn remap(
        &self,
        locks: &Locks<'_>,
        ino: u64,
        first: u64,
        last: u64,
        fill: Option<Extent>,
        map: impl Fn(Extent) -> Option<Extent>,
    ) -> Result<Remap> {
        let mut remap = Remap { old: Vec::new(), new: Vec::new(), freed: Vec::new(), next: None };
        let end = last + 1;
        let before = self.extent_up_to(locks, ino, first)?;
        if let Some(left) = before {
            remap.old.push(left)?;
            remap.keep(left)?;
        }
        let mut from = first;
        // Where the next extent may begin.
        let mut floor = before.map_or(0, |left| left.end());
        if let Some(new) = fill {
            remap.keep(new)?;
            from = new.end();
            floor = from;
        }
        // One more than the range, for a neighbour to join.
        while let Some(extent) = self.extent_from(locks, ino, from)? {
            if extent.first > end {
                break;
            }
            if extent.first < floor {
                return Err(Error::Corrupt { ino, what: "extents overlap" });
            }
            if remap.old.len() > STEP_EXTENTS {
                remap.next = (extent.first < end).then_some(extent.first);
                break;
            }
            remap.old.push(extent)?;
            let (mapped_first, mapped_end) = (extent.first.max(first), extent.end().min(end));
            if mapped_first >= mapped_end {
                remap.keep(extent)?;
                break;
            }
            if extent.first < mapped_first {
                remap.keep(extent.part(extent.first, mapped_first))?;
            }
            let part = extent.part(mapped_first, mapped_end);
            let new = map(part);
            if part.blkno != 0 && new.is_none_or(|new| new.blkno != part.blkno) {
                remap.freed.push(part)?;
            }
            if let Some(new) = new {
                remap.keep(new)?;
            }
            if mapped_end < extent.end() {
                remap.keep(extent.part(mapped_end, extent.end()))?;
            }
            from = extent.end();
            floor = from;
        }
        Ok(remap)
    }
}

/// What a change of an inode and of the mapping `remap` needs inside the transaction.
pub(crate) fn remap_need(remap: &Remap, privileged: bool) -> Need {
    // Of a remap that frees, `new` has what is left at both ends of the range.
    const STEP: Need = extents_need(STEP_EXTENTS as u32 + 8, true);
    const { assert!(STEP.total_bytes() <= DELETE_BYTES) };
    extents_need(remap.need_items(), privileged)
}

/// The same, of so many extents.
pub(crate) const fn extents_need(items: u32, privileged: bool) -> Need {
    Need { items: items + INODE_CHANGE_ITEMS, bytes: items as usize * EXTENT_BYTES + 256, privileged }
}
