// SPDX-License-Identifier: GPL-2.0-only
//! Making a volume with an empty root directory.

use core::time::Duration;

use scoutfs_btree::OwnedItem;
use scoutfs_env::device::BlockDevice;
use scoutfs_env::time::{self, Timespec};
use scoutfs_env::{Arc, Box, IoBuf, Vec};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::item::{FIRST_DIR_POS, FIRST_FREE_INO, InodeItem, ROOT_INO, Time};
use scoutfs_format::key::KIND_META_SEQ;
use scoutfs_format::voter::SuperBlock;
use scoutfs_format::{Key, SECTOR_SIZE};
use scoutfs_server::mkfs::{NewVolume, create_volume};
use scoutfs_server::super_block::read_super;
use zerocopy::IntoBytes;

use crate::error::{Error, Result};

/// Version of the items that mkfs makes.
const FIRST_VERSION: u64 = 1;

/// How long mkfs watches an existing volume for a voter that beats.
const WATCH: Duration = Duration::from_millis(1000);

/// What a new volume is to be.
pub struct Options {
    /// Votes that make a majority, 1 to 8.
    pub quorum: u32,
    /// Overwrite a volume on which a voter beats.
    pub force: bool,
}

/// Why no volume was made.
#[derive(Debug, thiserror::Error)]
pub enum MkfsError {
    /// The device's size or the quorum do not allow it.
    #[error(transparent)]
    Geometry(#[from] scoutfs_format::geometry::GeometryError),
    /// The device holds a volume that is in use.
    #[error(
        "the device holds the volume {fsid:016x}, which is mounted: a voter of it is alive (overwrite it with --force)"
    )]
    InUse {
        /// The volume.
        fsid: u64,
    },
    /// Writing failed.
    #[error("{0}")]
    Failed(#[from] Error),
}

impl From<scoutfs_env::AllocError> for MkfsError {
    fn from(e: scoutfs_env::AllocError) -> Self {
        MkfsError::Failed(e.into())
    }
}

impl From<scoutfs_env::device::IoError> for MkfsError {
    fn from(e: scoutfs_env::device::IoError) -> Self {
        MkfsError::Failed(e.into())
    }
}

/// A time as it is stored.
pub(crate) fn stored_time(t: Timespec) -> Time {
    Time { sec: t.sec.into(), nsec: t.nsec.into(), pad: 0.into() }
}

/// The items of a new volume: the root directory and its entry in the change index.
fn first_items(now: Timespec) -> Result<Vec<OwnedItem>> {
    let time = stored_time(now);
    let root = InodeItem {
        meta_seq: FIRST_VERSION.into(),
        next_dir_pos: FIRST_DIR_POS.into(),
        next_xattr_id: 1.into(),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        nlink: 2.into(),
        mode: 0o040_755.into(),
        parent: ROOT_INO.into(),
        ..InodeItem::default()
    };
    let mut items = Vec::with_capacity(2)?;
    let mut add = |key, value: &[u8]| -> Result<()> {
        items.push(OwnedItem {
            key,
            version: FIRST_VERSION,
            deletion: false,
            value: Vec::from_slice(value)?,
        })?;
        Ok(())
    };
    add(Key::index(KIND_META_SEQ, FIRST_VERSION, ROOT_INO), &[])?;
    add(Key::inode(ROOT_INO), root.as_bytes())?;
    Ok(items)
}

/// Whether a voter of an existing volume writes to its quorum blocks while we look.
fn beating(device: &dyn BlockDevice, geometry: &Geometry) -> Result<bool> {
    let len = geometry.nr_voters() as usize * 2 * SECTOR_SIZE;
    let read = |buf: &mut IoBuf| -> Result<()> {
        for (i, sector) in buf.chunks_exact_mut(SECTOR_SIZE).enumerate() {
            device.read(geometry.quorum_block_offset(i as u32 / 2, i as u32 % 2), sector)?;
        }
        Ok(())
    };
    let mut before = IoBuf::zeroed(len)?;
    let mut after = IoBuf::zeroed(len)?;
    read(&mut before)?;
    time::sleep(WATCH);
    read(&mut after)?;
    Ok(before[..] != after[..])
}

/// Makes a volume; what was on the device is overwritten. Returns the super block.
pub fn mkfs(
    device: &Arc<Box<dyn BlockDevice>>,
    options: &Options,
) -> core::result::Result<SuperBlock, MkfsError> {
    let geometry = Geometry::new(device.size_bytes(), options.quorum)?;
    if !options.force
        && let Ok(old) = read_super(&***device)
        && beating(&***device, &old.geometry)?
    {
        return Err(MkfsError::InUse { fsid: old.sb.id.fsid.get() });
    }
    let mut uuid = [0; 16];
    let mut secret = [0; 32];
    scoutfs_env::random::fill(&mut uuid);
    scoutfs_env::random::fill(&mut secret);
    // Version 4, variant 1: a random UUID.
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let new = NewVolume {
        geometry,
        fsid: scoutfs_env::random::u64().max(1),
        uuid,
        secret,
        fs_items: first_items(time::real_now())?,
        ino_bound: FIRST_FREE_INO,
        inodes: 1,
    };
    create_volume(device, &new).map_err(|e| Error::from(e).into())
}
