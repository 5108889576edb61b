// SPDX-License-Identifier: GPL-2.0-only
//! Making inodes and links.

use scoutfs_format::Key;
use scoutfs_format::item::{FIRST_DIR_POS, InodeItem, MAX_LINKS, MAX_SYMLINK_LEN};
use scoutfs_format::le::{U32, U64};
use scoutfs_item::Spot;

use crate::acl::Inherited;
use crate::counters::Counter;
use crate::dir::entry::{self, NAMES_NEED, check_entry_name};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::inode::change::{Change, Touch};
use crate::inode::kind::{FileType, S_ISGID};
use crate::inode::passing::Attempts;
use crate::inode::record::{Attr, FIRST_XATTR_ID, Inode, to_time};
use crate::inode::table::write_all;
use crate::store::{LockMode, Need};

/// What an inode is to be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewInode {
    /// Type and permissions, before the umask. The caller has taken set-group-ID away where Linux does.
    pub mode: u32,
    /// What is taken from the permissions, unless the directory has a default access control list.
    pub umask: u32,
    /// Device number of a device file: major in the high half, minor in the low half.
    pub rdev: u64,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory hands down its own.
    pub gid: u32,
}

/// A new inode's name or target.
#[derive(Clone, Copy)]
enum Place<'n> {
    Name(&'n [u8]),
    Link {
        name: &'n [u8],
        target: &'n [u8],
    },
    /// No name: it is an orphan until it is given one.
    None {
        linkable: bool,
    },
}

impl Fs {
    /// Makes a file of any type but directory and symbolic link. Returns its attributes, with a reference.
    pub fn create(&self, dir: u64, name: &[u8], new: &NewInode) -> Result<Attr> {
        match FileType::of_mode(new.mode) {
            Some(FileType::Directory | FileType::Symlink) | None => {
                Err(Error::Invalid("not a type of file to create"))
            }
            Some(kind) => self.make(dir, kind, new, Place::Name(name)),
        }
    }

    /// Makes a directory. Returns its attributes, with a reference.
    pub fn mkdir(&self, dir: u64, name: &[u8], new: &NewInode) -> Result<Attr> {
        self.make(dir, FileType::Directory, new, Place::Name(name))
    }

    /// Makes a symbolic link to `target`. Returns its attributes, with a reference.
    pub fn symlink(&self, dir: u64, name: &[u8], target: &[u8], new: &NewInode) -> Result<Attr> {
        if target.is_empty() || target.contains(&0) {
            return Err(Error::Invalid("not a target of a symbolic link"));
        }
        if target.len() > MAX_SYMLINK_LEN {
            return Err(Error::NameTooLong);
        }
        self.make(dir, FileType::Symlink, new, Place::Link { name, target })
    }

    /// Makes a regular file without a name, which [`Fs::link`] may give one if it is `linkable`. Returns its
    /// attributes, with a reference.
    pub fn tmpfile(&self, dir: u64, new: &NewInode, linkable: bool) -> Result<Attr> {
        self.make(dir, FileType::Regular, new, Place::None { linkable })
    }

    fn make(&self, dir: u64, kind: FileType, new: &NewInode, place: Place<'_>) -> Result<Attr> {
        self.writable()?;
        let name = match place {
            Place::Name(name) | Place::Link { name, .. } => Some(name),
            Place::None { .. } => None,
        };
        if let Some(name) = name {
            check_entry_name(name)?;
        }
        self.count(Counter::Create);
        let mut attempts = Attempts::of(self);
        loop {
            let done = self.try_make(dir, kind, new, place);
            if !attempts.once_more(&done) {
                return done;
            }
        }
    }

    fn try_make(&self, dir: u64, kind: FileType, new: &NewInode, place: Place<'_>) -> Result<Attr> {
        let name = match place {
            Place::Name(name) | Place::Link { name, .. } => Some(name),
            Place::None { .. } => None,
        };
        let ino = self.store().new_ino(kind == FileType::Directory)?;
        let dir_pin = self.pin(dir)?;
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(dir, LockMode::Write), (ino, LockMode::Write)])?;
        let _state = dir_pin.data.write();
        let mut parent = self.load_live_dir(&locks, dir)?;
        let mut spot = Spot::default();
        if let Some(name) = name
            && entry::find(&locks, dir, name, &mut spot)?.is_some()
        {
            return Err(Error::Exists);
        }
        let inherited = self.inherit(&locks, &parent, kind, new)?;
        let mut inode = self.new_inode(ino, kind, new, inherited.mode, &parent)?;
        let target = match place {
            Place::Link { target, .. } => target,
            _ => &[],
        };
        inode.item.size.set(target.len() as u64);
        if name.is_none() {
            inode.item.nlink.set(0);
        }

        let hold = locks.hold(Need {
            items: NAMES_NEED.items + Inherited::MAX_ITEMS,
            bytes: NAMES_NEED.bytes + target.len() + inherited.bytes(),
            ..NAMES_NEED
        })?;
        let mut change = Change::new(&hold);
        inherited.create(&mut change, &mut inode)?;
        change.new_inode(&mut inode)?;
        if !target.is_empty() {
            change.create(Key::symlink(ino), &[target])?;
        }
        match name {
            Some(name) => {
                change.inode(&mut parent, Touch::Meta)?;
                entry::add(&mut change, &mut parent, name, &inode, spot)?;
                if kind == FileType::Directory {
                    self.add_subdir(&mut parent)?;
                }
                parent.touch_mtime(self.store().now());
                change.finish(&[&parent]);
            }
            None => {
                change.create_known(Key::orphan(ino))?;
                change.finish(&[]);
            }
        }
        hold.inode_delta(1);
        if let Place::None { linkable } = place {
            pin.set_unlinked(true);
            pin.set_linkable(linkable);
        }
        pin.add_lookup();
        Ok(inode.attr())
    }

    /// Counts a directory's new subdirectory.
    pub(crate) fn add_subdir(&self, dir: &mut Inode) -> Result<()> {
        if dir.nlink() >= MAX_LINKS {
            return Err(Error::TooManyLinks);
        }
        dir.add_links(1)
    }

    fn new_inode(
        &self,
        ino: u64,
        kind: FileType,
        new: &NewInode,
        mode: u32,
        parent: &Inode,
    ) -> Result<Inode> {
        let now = to_time(self.store().now());
        let is_dir = kind == FileType::Directory;
        let inherits = parent.item.mode.get() & S_ISGID != 0;
        let is_device = matches!(kind, FileType::CharDevice | FileType::BlockDevice);
        let mut mode = kind.mode() | mode;
        if inherits && is_dir {
            mode |= S_ISGID;
        }
        let item = InodeItem {
            next_dir_pos: U64::new(if is_dir { FIRST_DIR_POS } else { 0 }),
            next_xattr_id: U64::new(FIRST_XATTR_ID),
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            nlink: U32::new(if is_dir { 2 } else { 1 }),
            uid: U32::new(new.uid),
            gid: U32::new(if inherits { parent.item.gid.get() } else { new.gid }),
            mode: U32::new(mode),
            rdev: U64::new(if is_device { new.rdev } else { 0 }),
            project: parent.item.project,
            parent: U64::new(if is_dir { parent.ino } else { 0 }),
            ..InodeItem::default()
        };
        Inode::new(ino, item)
    }

    /// Gives an inode another name. Returns its attributes, with a reference.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] for a directory; [`Error::NotFound`] for an inode without links that is not a linkable
    /// temporary file.
    pub fn link(&self, ino: u64, dir: u64, name: &[u8]) -> Result<Attr> {
        self.writable()?;
        check_entry_name(name)?;
        self.count(Counter::Link);
        let dir_pin = self.pin(dir)?;
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(dir, LockMode::Write), (ino, LockMode::Write)])?;
        let _guards = write_all([Some(&dir_pin), Some(&pin), None, None]);
        let mut inode = self.load(&locks, ino)?;
        if inode.is_dir() {
            return Err(Error::NotPermitted);
        }
        inode.check_changeable()?;
        let mut parent = self.load_live_dir(&locks, dir)?;
        let mut spot = Spot::default();
        if entry::find(&locks, dir, name, &mut spot)?.is_some() {
            return Err(Error::Exists);
        }
        let was_orphan = inode.nlink() == 0;
        if was_orphan && !pin.linkable() {
            return Err(Error::NotFound);
        }
        if inode.nlink() >= MAX_LINKS {
            return Err(Error::TooManyLinks);
        }
        let hold = locks.hold(NAMES_NEED)?;
        let now = self.store().now();
        let mut change = Change::new(&hold);
        change.inode(&mut parent, Touch::Meta)?;
        change.inode(&mut inode, Touch::Meta)?;
        entry::add(&mut change, &mut parent, name, &inode, spot)?;
        if was_orphan {
            change.delete_known(Key::orphan(ino))?;
        }
        inode.add_links(1)?;
        parent.touch_mtime(now);
        inode.touch_ctime(now);
        change.finish(&[&parent, &inode]);
        pin.set_unlinked(false);
        pin.set_linkable(false);
        pin.add_lookup();
        Ok(pin.changed.show(pin.delayed.show(inode.attr())))
    }
}
