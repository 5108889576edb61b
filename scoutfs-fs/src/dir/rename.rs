// SPDX-License-Identifier: GPL-2.0-only
//! Renaming.

use scoutfs_env::sync::MutexGuard;
use scoutfs_env::time::Timespec;
use scoutfs_format::item::ROOT_INO;
use scoutfs_item::Spot;

use crate::counters::Counter;
use crate::dir::entry::{self, Entry, NAMES_NEED, check_entry_name};
use crate::dir::lookup::parent_of;
use crate::dir::remove::drop_link;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::{Change, Touch};
use crate::inode::kind::FileType;
use crate::inode::record::Inode;
use crate::inode::table::{Pin, write_all};
use crate::store::{LockMode, Locks};

/// More directories above each other than this are a circle.
const MAX_DEPTH: u32 = 1 << 20;

bitflags::bitflags! {
    /// Flags of a rename, with the values of `renameat2`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        /// Fail if the new name is taken.
        const NOREPLACE = 1;
        /// Let the two names change places.
        const EXCHANGE = 2;
    }
}

/// What is to be renamed.
#[derive(Clone, Copy)]
struct Names<'n> {
    old_dir: u64,
    old_name: &'n [u8],
    new_dir: u64,
    new_name: &'n [u8],
    exchange: bool,
    noreplace: bool,
}

/// What the names of a rename stand for.
#[derive(Clone, Copy)]
struct Found {
    source: Entry,
    target: Option<Entry>,
}

/// Where the entries' items are, or would be.
#[derive(Clone, Copy, Default)]
struct Spots {
    source: Spot,
    target: Spot,
}

impl Names<'_> {
    /// Whether a directory gets another parent.
    fn moves_directory(&self, source: Entry, target: Option<Entry>) -> bool {
        let target = target.filter(|_| self.exchange);
        self.old_dir != self.new_dir
            && (source.kind == FileType::Directory
                || target.is_some_and(|entry| entry.kind == FileType::Directory))
    }
}

/// One or two directories, whose inodes are each in memory once.
struct Dirs {
    old: Inode,
    new: Option<Inode>,
}

impl Dirs {
    fn new_mut(&mut self) -> &mut Inode {
        match &mut self.new {
            Some(new) => new,
            None => &mut self.old,
        }
    }

    fn prepare(&mut self, change: &mut Change<'_, '_>, now: Timespec) -> Result<()> {
        for dir in [Some(&mut self.old), self.new.as_mut()].into_iter().flatten() {
            change.inode(dir, Touch::Meta)?;
            dir.touch_mtime(now);
        }
        Ok(())
    }
}

impl Fs {
    /// Gives an inode another name, replacing what had it, or lets two names change places.
    pub fn rename(
        &self,
        old_dir: u64,
        old_name: &[u8],
        new_dir: u64,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        self.writable()?;
        check_entry_name(old_name)?;
        check_entry_name(new_name)?;
        self.count(Counter::Rename);
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let noreplace = flags.contains(RenameFlags::NOREPLACE);
        if exchange && noreplace || RenameFlags::from_bits(flags.bits()).is_none() {
            return Err(Error::Invalid("these flags of a rename do not go together"));
        }
        let names = Names { old_dir, old_name, new_dir, new_name, exchange, noreplace };
        let dir_pins = [&self.pin(old_dir)?, &self.pin(new_dir)?];
        let mut wanted = None;
        while let Some(found) = self.rename_once(&names, dir_pins, wanted)? {
            wanted = Some(found);
        }
        Ok(())
    }

    /// Renames, or returns what the names stand for, when that is not `wanted` and its locks were not to be had without waiting.
    fn rename_once(
        &self,
        names: &Names<'_>,
        dir_pins: [&Pin<'_>; 2],
        wanted: Option<Found>,
    ) -> Result<Option<Found>> {
        let (wanted_source, wanted_target) = match wanted {
            Some(found) => (Some(found.source), found.target),
            None => (None, None),
        };
        // Pins go after the locks.
        let pin = |entry: Option<Entry>| entry.map_or(Ok(None), |entry| self.pin_live(entry.ino));
        let early = [pin(wanted_source)?, pin(wanted_target)?];
        let late_source;
        let late_target;
        let _rename = match wanted_source {
            Some(source) => self.lock_ancestry(names, source, wanted_target)?,
            None => None,
        };
        let mut locks = self.store().lock(&[
            (names.old_dir, LockMode::Write),
            (names.new_dir, LockMode::Write),
            (wanted_source.map_or(names.old_dir, |entry| entry.ino), LockMode::Write),
            (wanted_target.map_or(names.new_dir, |entry| entry.ino), LockMode::Write),
        ])?;
        let mut guards =
            write_all([Some(dir_pins[0]), Some(dir_pins[1]), early[0].as_deref(), early[1].as_deref()]);
        let mut dirs = Dirs { old: self.load_dir(&locks, names.old_dir)?, new: None };
        if names.new_dir != names.old_dir {
            dirs.new = Some(self.load_live_dir(&locks, names.new_dir)?);
        }
        let mut spots = Spots::default();
        let source = entry::find(&locks, names.old_dir, names.old_name, &mut spots.source)?;
        let source = source.ok_or(Error::NotFound)?;
        let target = entry::find(&locks, names.new_dir, names.new_name, &mut spots.target)?;
        match target {
            Some(_) if names.noreplace => return Err(Error::Exists),
            None if names.exchange => return Err(Error::NotFound),
            _ => {}
        }

        // Its locks may be held already.
        let found = Found { source, target };
        let is_wanted = |entry: Entry, wanted: Option<Entry>, pin: &Option<Pin<'_>>| {
            pin.is_some() && wanted.is_some_and(|wanted| wanted.ino == entry.ino)
        };
        if !is_wanted(source, wanted_source, &early[0]) {
            // A directory's ancestry is locked before all else.
            if names.moves_directory(source, target) {
                return Ok(Some(found));
            }
            let Some(pin) = self.pin_live(source.ino)? else {
                return Ok(Some(found));
            };
            late_source = pin;
            if !locks.add(source.ino, LockMode::Write)? || !guards.add(&late_source) {
                return Ok(Some(found));
            }
        }
        let mut target_pin = early[1].as_ref();
        if let Some(target) = target
            && !is_wanted(target, wanted_target, &early[1])
        {
            if names.moves_directory(source, Some(target)) {
                return Ok(Some(found));
            }
            let Some(pin) = self.pin_live(target.ino)? else {
                return Ok(Some(found));
            };
            late_target = pin;
            if !locks.add(target.ino, LockMode::Write)? || !guards.add(&late_target) {
                return Ok(Some(found));
            }
            target_pin = Some(&late_target);
        }

        // Who replaces a file has the old one or the new one after a crash, also without a sync.
        if target.is_some()
            && let Some(inode) = self.table.get(source.ino)
            && let Some(state) = guards.state(source.ino)
        {
            self.write_gathered(&locks, state, &inode)?;
        }

        match target {
            // Two links of one inode, or one name: nothing happens.
            Some(target) if target.ino == source.ino => {}
            Some(target) if names.exchange => self.swap(&locks, names, dirs, source, target, spots)?,
            target => {
                let unlinked = self.replace(&locks, names, dirs, source, target, spots)?;
                if let Some(pin) = target_pin
                    && unlinked
                {
                    pin.set_unlinked(true);
                }
            }
        }
        Ok(None)
    }

    /// If a directory gets another parent: locks all such renames out and checks that it does not go below itself.
    fn lock_ancestry(
        &self,
        names: &Names<'_>,
        source: Entry,
        target: Option<Entry>,
    ) -> Result<Option<(MutexGuard<'_, ()>, Locks<'_>)>> {
        if !names.moves_directory(source, target) {
            return Ok(None);
        }
        let moved = |entry: Entry| (entry.kind == FileType::Directory).then_some(entry.ino);
        let target = target.filter(|_| names.exchange).and_then(moved);
        let source = moved(source);
        let locks = self.store().lock_rename(&[])?;
        let guard = self.rename.lock();
        if let Some(ino) = source
            && self.is_above(ino, names.new_dir)?
        {
            return Err(Error::Invalid("a directory cannot go into itself"));
        }
        if let Some(ino) = target
            && self.is_above(ino, names.old_dir)?
        {
            return Err(Error::Invalid("a directory cannot go into itself"));
        }
        Ok(Some((guard, locks)))
    }

    /// Whether directory `upper` is `lower` or above it. Under the rename lock only.
    fn is_above(&self, upper: u64, lower: u64) -> Result<bool> {
        let mut at = lower;
        for _ in 0..MAX_DEPTH {
            if at == upper {
                return Ok(true);
            }
            if at == ROOT_INO {
                return Ok(false);
            }
            let locks = self.store().lock(&[(at, LockMode::Read)])?;
            match Inode::load(&locks, at)? {
                Some(dir) => at = parent_of(&dir),
                // Only above a directory that was removed, into which nothing can go.
                None => return Ok(false),
            }
        }
        Err(Error::Corrupt { ino: lower, what: "the directories above it form a circle" })
    }

    /// Renames the source to the target's name. Returns whether the target lost its last link.
    fn replace(
        &self,
        locks: &Locks<'_>,
        names: &Names<'_>,
        mut dirs: Dirs,
        source: Entry,
        target: Option<Entry>,
        spots: Spots,
    ) -> Result<bool> {
        let mut moved = self.entry_inode(locks, names.old_dir, source.ino)?;
        moved.check_changeable()?;
        let mut gone = None;
        if let Some(target) = target {
            if target.ino == names.old_dir {
                // It holds the source, so it is not empty.
                return Err(if moved.is_dir() { Error::NotEmpty } else { Error::IsDirectory });
            }
            let inode = self.entry_inode(locks, names.new_dir, target.ino)?;
            inode.check_changeable()?;
            match (moved.is_dir(), inode.is_dir()) {
                (true, false) => return Err(Error::NotDirectory),
                (false, true) => return Err(Error::IsDirectory),
                (true, true) if !entry::is_empty(locks, inode.ino)? => return Err(Error::NotEmpty),
                _ => {}
            }
            gone = Some((target, inode));
        }
        let hold = locks.hold(NAMES_NEED)?;
        let now = self.store().now();
        let mut change = Change::new(&hold);
        dirs.prepare(&mut change, now)?;
        change.inode(&mut moved, Touch::Meta)?;
        entry::remove(&mut change, &mut dirs.old, &source, &moved, names.old_name.len(), spots.source)?;
        let mut unlinked = false;
        if let Some((target, inode)) = &mut gone {
            change.inode(inode, Touch::Meta)?;
            entry::remove(&mut change, dirs.new_mut(), target, inode, names.new_name.len(), spots.target)?;
            unlinked = drop_link(&mut change, dirs.new_mut(), inode)?;
            inode.touch_ctime(now);
        }
        entry::add(&mut change, dirs.new_mut(), names.new_name, &moved, spots.target)?;
        self.reparent(&mut moved, &mut dirs.old, dirs.new.as_mut())?;
        moved.touch_ctime(now);
        let gone = gone.as_ref().map_or(&moved, |(_, inode)| inode);
        change.finish(&[&dirs.old, dirs.new.as_ref().unwrap_or(&dirs.old), &moved, gone]);
        Ok(unlinked)
    }

    /// Lets the two names change places.
    fn swap(
        &self,
        locks: &Locks<'_>,
        names: &Names<'_>,
        mut dirs: Dirs,
        source: Entry,
        target: Entry,
        spots: Spots,
    ) -> Result<()> {
        let mut first = self.entry_inode(locks, names.old_dir, source.ino)?;
        let mut second = self.entry_inode(locks, names.new_dir, target.ino)?;
        first.check_changeable()?;
        second.check_changeable()?;
        let hold = locks.hold(NAMES_NEED)?;
        let now = self.store().now();
        let mut change = Change::new(&hold);
        dirs.prepare(&mut change, now)?;
        change.inode(&mut first, Touch::Meta)?;
        change.inode(&mut second, Touch::Meta)?;
        entry::remove(&mut change, &mut dirs.old, &source, &first, names.old_name.len(), spots.source)?;
        entry::remove(&mut change, dirs.new_mut(), &target, &second, names.new_name.len(), spots.target)?;
        entry::add(&mut change, &mut dirs.old, names.old_name, &second, spots.source)?;
        entry::add(&mut change, dirs.new_mut(), names.new_name, &first, spots.target)?;
        if let Some(new) = &mut dirs.new {
            if first.is_dir() && second.is_dir() {
                // Each parent has as many subdirectories as before, which may be as many as fit.
                first.item.parent.set(new.ino);
                second.item.parent.set(dirs.old.ino);
            } else {
                self.reparent(&mut first, &mut dirs.old, Some(new))?;
                self.reparent(&mut second, new, Some(&mut dirs.old))?;
            }
        }
        first.touch_ctime(now);
        second.touch_ctime(now);
        change.finish(&[&dirs.old, dirs.new.as_ref().unwrap_or(&dirs.old), &first, &second]);
        Ok(())
    }

    /// Notes a moved directory's new parent, if it has another, and counts both parents' subdirectories.
    fn reparent(&self, moved: &mut Inode, old: &mut Inode, new: Option<&mut Inode>) -> Result<()> {
        if let Some(new) = new
            && moved.is_dir()
        {
            old.add_links(-1)?;
            self.add_subdir(new)?;
            moved.item.parent.set(new.ino);
        }
        Ok(())
    }
}
