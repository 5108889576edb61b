// SPDX-License-Identifier: GPL-2.0-only
//! Removing names.

use scoutfs_btree::space::budget::DELETE_BYTES;
use scoutfs_format::Key;
use scoutfs_item::Spot;

use crate::counters::Counter;
use crate::dir::entry::{self, Entry, NAMES_NEED, check_entry_name};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::Change;
use crate::inode::change::Touch;
use crate::inode::record::Inode;
use crate::inode::table::write_all;
use crate::store::{LockMode, Locks, Need};

impl Fs {
    /// Removes a name that does not stand for a directory.
    pub fn unlink(&self, dir: u64, name: &[u8]) -> Result<()> {
        self.remove(dir, name, false)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, dir: u64, name: &[u8]) -> Result<()> {
        match name {
            b"." => Err(Error::Invalid("a directory is not removed from within")),
            b".." => Err(Error::NotEmpty),
            _ => self.remove(dir, name, true),
        }
    }

    fn remove(&self, dir: u64, name: &[u8], directory: bool) -> Result<()> {
        self.writable()?;
        check_entry_name(name)?;
        self.count(Counter::Unlink);
        let dir_pin = self.pin(dir)?;
        // What the name stood for, when its locks were not to be had without waiting.
        let mut wanted = None;
        loop {
            // Pins go after the locks.
            let early = match wanted {
                Some(ino) => self.pin_live(ino)?,
                None => None,
            };
            let late;
            let also = wanted.unwrap_or(dir);
            let mut locks = self.store().lock(&[(dir, LockMode::Write), (also, LockMode::Write)])?;
            let mut guards = write_all([Some(&dir_pin), early.as_deref(), None, None]);
            let parent = self.load_dir(&locks, dir)?;
            let mut spot = Spot::default();
            let entry = entry::find(&locks, dir, name, &mut spot)?.ok_or(Error::NotFound)?;
            let pin = match &early {
                Some(pin) if pin.ino == entry.ino => pin,
                _ => {
                    wanted = Some(entry.ino);
                    let Some(pin) = self.pin_live(entry.ino)? else {
                        // Somebody takes it for an orphan, and looks.
                        continue;
                    };
                    late = pin;
                    if !locks.add(entry.ino, LockMode::Write)? || !guards.add(&late) {
                        continue;
                    }
                    &late
                }
            };
            let inode = self.entry_inode(&locks, dir, entry.ino)?;
            match (inode.is_dir(), directory) {
                (true, false) => return Err(Error::IsDirectory),
                (false, true) => return Err(Error::NotDirectory),
                _ => {}
            }
            inode.check_changeable()?;
            let unlinked = self.remove_entry(&locks, parent, inode, &entry, name.len(), spot)?;
            if unlinked {
                pin.set_unlinked(true);
            }
            return Ok(());
        }
    }

    /// Returns whether that was the last link.
    #[inline(never)]
    fn remove_entry(
        &self,
        locks: &Locks<'_>,
        mut parent: Inode,
        mut inode: Inode,
        entry: &Entry,
        name_len: usize,
        spot: Spot,
    ) -> Result<bool> {
        if inode.is_dir() && !entry::is_empty(locks, inode.ino)? {
            return Err(Error::NotEmpty);
        }
        const NEED: Need = Need { privileged: true, ..NAMES_NEED };
        const { assert!(NEED.total_bytes() <= DELETE_BYTES) };
        let hold = locks.hold(NEED)?;
        let now = self.store().now();
        let mut change = Change::new(&hold);
        change.inode(&mut parent, Touch::Meta)?;
        change.inode(&mut inode, Touch::Meta)?;
        entry::remove(&mut change, &mut parent, entry, &inode, name_len, spot)?;
        let unlinked = drop_link(&mut change, &mut parent, &mut inode)?;
        parent.touch_mtime(now);
        inode.touch_ctime(now);
        change.finish(&[&parent, &inode]);
        Ok(unlinked)
    }
}

/// Counts the links of an inode, which is changed with its directory, after one of its entries is removed. Returns
/// whether that was the last one, and makes it an orphan then.
pub(crate) fn drop_link(change: &mut Change<'_, '_>, parent: &mut Inode, inode: &mut Inode) -> Result<bool> {
    if inode.is_dir() {
        parent.add_links(-1)?;
        inode.item.nlink.set(0);
    } else {
        inode.add_links(-1)?;
    }
    let unlinked = inode.nlink() == 0;
    if unlinked {
        change.create_known(Key::orphan(inode.ino))?;
    }
    Ok(unlinked)
}
