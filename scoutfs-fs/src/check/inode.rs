// SPDX-License-Identifier: GPL-2.0-only
//! One inode and all of its items, which follow each other: the inode itself, then kind by kind.
//!
//! An inode without links is being deleted, in several transactions: it may lack any of its other items.

use scoutfs_btree::Item;
use scoutfs_btree::space::SpaceKind;
use scoutfs_format::Key;
use scoutfs_format::item::{
    EXTENT_OFFLINE, EXTENT_UNWRITTEN, ExtentItem, FIRST_DIR_POS, INODE_RETENTION, INODE_TRUNCATE, InodeItem,
    MAX_FILE_BYTES, MAX_LINKS, ROOT_INO,
};
use scoutfs_format::key::{
    KIND_BACKREF, KIND_DATA_SEQ, KIND_DIRENT, KIND_EXTENT, KIND_INODE, KIND_META_SEQ, KIND_READDIR,
    KIND_SYMLINK, KIND_XATTR,
};
use zerocopy::FromBytes;

use super::CheckError;
use super::entry::Names;
use super::issue::{IssueKind, Place};
use super::items::Pass;
use super::owners::{Owner, Run};
use super::xattr::Xattrs;
use crate::inode::kind::FileType;

/// The last logical block of the largest file.
const MAX_BLOCK: u64 = (MAX_FILE_BYTES - 1) / scoutfs_format::SECTOR_SIZE as u64;

/// What was seen of an inode so far.
pub(super) struct InodeState {
    pub ino: u64,
    /// `None` when it is missing or of a wrong length, which was told.
    pub item: Option<InodeItem>,
    /// `None` when the mode is wrong, which was told.
    pub file_type: Option<FileType>,
    pub xattrs: Xattrs,
    /// Entries by name, by the sum of the bytes of their names, and those that are directories.
    pub entries: u64,
    pub name_bytes: u64,
    pub subdirectories: u64,
    pub names: Names,
    /// Back references, and the directory of the last one.
    pub backrefs: u64,
    pub parent: u64,
    symlink: bool,
    /// Where the first extent begins, and its key.
    first_extent: Option<(u64, Key)>,
    /// Where the last extent ends.
    extents_end: u64,
    online: u64,
    offline: u64,
}

impl InodeState {
    /// Nothing was seen yet.
    fn new(ino: u64) -> InodeState {
        InodeState {
            ino,
            item: None,
            file_type: None,
            xattrs: Xattrs::default(),
            entries: 0,
            name_bytes: 0,
            subdirectories: 0,
            names: Names::default(),
            backrefs: 0,
            parent: 0,
            symlink: false,
            first_extent: None,
            extents_end: 0,
            online: 0,
            offline: 0,
        }
    }

    pub fn is_dir(&self) -> bool {
        self.file_type == Some(FileType::Directory)
    }

    /// Whether it is known to have no links.
    pub fn is_orphan(&self) -> bool {
        self.item.is_some_and(|item| item.nlink.get() == 0)
    }
}

impl Pass<'_> {
    fn inode_issue(&mut self, kind: IssueKind, ino: u64) {
        self.events.issue(kind, Place::Inode { ino });
    }

    /// Begins an inode at the first of its items.
    pub fn begin_inode(&mut self, first: &Item<'_>) -> Result<InodeState, CheckError> {
        let ino = first.key.first;
        let mut state = InodeState::new(ino);
        if first.key != Key::inode(ino) {
            self.inode_issue(IssueKind::NoInode, ino);
            return Ok(state);
        }
        state.item = self.fixed::<InodeItem>(first);
        self.counts.inodes += 1;
        if let Some(item) = &state.item {
            state.file_type = FileType::of_mode(item.mode.get());
            self.check_inode(ino, item, first.version, state.file_type)?;
        }
        Ok(state)
    }

    /// Goes on with an inode that was cut before this piece.
    pub fn go_on(&mut self, ino: u64) -> Result<InodeState, CheckError> {
        let item = self.forest.inode(ino)?;
        let file_type = item.and_then(|item| FileType::of_mode(item.mode.get()));
        Ok(InodeState { item, file_type, ..InodeState::new(ino) })
    }

    /// An inode that goes on without having begun has no inode item.
    pub fn no_inode_item(&mut self, state: Option<&InodeState>) {
        if let Some(state) = state {
            self.inode_issue(IssueKind::NoInode, state.ino);
        }
    }

    /// Adds what was seen of an inode behind a cut to what was seen before.
    pub fn join(&mut self, state: &mut InodeState, next: &InodeState) {
        state.entries += next.entries;
        state.name_bytes += next.name_bytes;
        state.subdirectories += next.subdirectories;
        if next.backrefs > 0 {
            state.backrefs += next.backrefs;
            state.parent = next.parent;
        }
        state.symlink |= next.symlink;
        if let Some((first, key)) = next.first_extent {
            let previous_end = state.extents_end;
            if first < previous_end {
                self.issue(IssueKind::ExtentOverlap { first, previous_end }, key);
            }
            state.extents_end = next.extents_end;
        }
        state.online = state.online.saturating_add(next.online);
        state.offline = state.offline.saturating_add(next.offline);
    }

    /// A value of a fixed length.
    pub fn fixed<T: FromBytes>(&mut self, item: &Item<'_>) -> Option<T> {
        let value = T::read_from_bytes(item.value).ok();
        if value.is_none() {
            let (expected, found) = (size_of::<T>(), item.value.len());
            self.issue(IssueKind::ValueLength { expected, found }, item.key);
        }
        value
    }

    /// Checks what an inode item says by itself, and that the index and the orphans agree.
    fn check_inode(
        &mut self,
        ino: u64,
        item: &InodeItem,
        version: u64,
        file_type: Option<FileType>,
    ) -> Result<(), CheckError> {
        let bound = self.volume.sb.ino_bound.get();
        if ino == 0 || ino >= bound {
            self.inode_issue(IssueKind::InoNotGivenOut { bound }, ino);
        }
        let mode = item.mode.get();
        if file_type.is_none() {
            self.inode_issue(IssueKind::Mode { mode }, ino);
        }
        let flags = item.flags.get();
        let retained = flags & INODE_RETENTION != 0;
        if flags & !(INODE_TRUNCATE | INODE_RETENTION) != 0
            || retained && file_type != Some(FileType::Regular)
        {
            self.inode_issue(IssueKind::InodeFlags { flags }, ino);
        }
        let size = item.size.get();
        if size > MAX_FILE_BYTES {
            self.inode_issue(IssueKind::Size { size }, ino);
        }
        for time in [&item.atime, &item.mtime, &item.ctime, &item.crtime] {
            let nsec = time.nsec.get();
            if nsec >= 1_000_000_000 {
                self.inode_issue(IssueKind::Nanoseconds { nsec }, ino);
            }
        }
        let (meta_seq, data_seq) = (item.meta_seq.get(), item.data_seq.get());
        if meta_seq > version || data_seq > version {
            self.inode_issue(IssueKind::SeqAboveVersion { meta_seq, data_seq, version }, ino);
        }
        let has_data = data_seq != 0 || item.online_blocks.get() != 0 || item.offline_blocks.get() != 0;
        if has_data && file_type != Some(FileType::Regular) {
            self.inode_issue(IssueKind::DataNotRegular { data_seq }, ino);
        }
        if ino == ROOT_INO && file_type != Some(FileType::Directory) {
            self.inode_issue(IssueKind::NoRoot, ino);
        }
        for (index, seq) in [(KIND_META_SEQ, meta_seq), (KIND_DATA_SEQ, data_seq)] {
            let wanted = index == KIND_META_SEQ || seq != 0;
            if wanted && !self.forest.has(Key::index(index, seq, ino))? {
                self.inode_issue(IssueKind::NoIndexEntry { index, seq }, ino);
            }
        }
        if item.nlink.get() == 0 && !self.forest.has(Key::orphan(ino))? {
            self.inode_issue(IssueKind::NoOrphanItem, ino);
        }
        Ok(())
    }

    /// Checks an item of an inode.
    pub fn inode_item(&mut self, state: &mut InodeState, item: &Item<'_>) -> Result<(), CheckError> {
        let (key, ino) = (item.key, state.ino);
        let exact = match key.kind {
            KIND_INODE => Key::inode(ino),
            KIND_XATTR => Key::xattr(ino, key.second, key.third, key.fourth),
            KIND_DIRENT => Key::dirent(ino, key.second, key.third),
            KIND_READDIR => Key::readdir(ino, key.second),
            KIND_BACKREF => Key::backref(ino, key.second, key.third),
            KIND_SYMLINK => Key::symlink(ino),
            KIND_EXTENT => Key::extent(ino, key.second),
            _ => Key::MIN,
        };
        if key != exact {
            self.issue(IssueKind::UnknownKey, key);
            return Ok(());
        }
        match key.kind {
            KIND_XATTR => self.xattr_item(state, item)?,
            KIND_DIRENT => self.dirent_item(state, item)?,
            KIND_READDIR => self.readdir_item(item)?,
            KIND_BACKREF => self.backref_item(state, item)?,
            KIND_SYMLINK => self.symlink_item(state, item),
            KIND_EXTENT => self.extent_item(state, item)?,
            _ => {}
        }
        Ok(())
    }

    fn symlink_item(&mut self, state: &mut InodeState, item: &Item<'_>) {
        state.symlink = true;
        let Some(inode) = &state.item else { return };
        let (size, found) = (inode.size.get(), item.value.len());
        if state.file_type != Some(FileType::Symlink) {
            self.issue(IssueKind::NotSymlink, item.key);
        } else if size != found as u64 || found == 0 {
            self.issue(IssueKind::SymlinkLength { size, found }, item.key);
        }
    }

    fn extent_item(&mut self, state: &mut InodeState, item: &Item<'_>) -> Result<(), CheckError> {
        let key = item.key;
        let Some(extent) = self.fixed::<ExtentItem>(item) else {
            return Ok(());
        };
        let (last, len, blkno, flags) = (key.second, extent.len.get(), extent.blkno.get(), extent.flags);
        if len == 0 || last > MAX_BLOCK || len > last + 1 {
            self.issue(IssueKind::ExtentLength { last, len }, key);
            return Ok(());
        }
        let (first, end) = (last + 1 - len, last + 1);
        if first < state.extents_end {
            let previous_end = state.extents_end;
            self.issue(IssueKind::ExtentOverlap { first, previous_end }, key);
        }
        if state.first_extent.is_none() {
            state.first_extent = Some((first, key));
        }
        state.extents_end = end;
        match (flags, blkno) {
            (EXTENT_OFFLINE, 0) => state.offline = state.offline.saturating_add(len),
            (0 | EXTENT_UNWRITTEN, 1..) => {
                // Not a sum of blocks of the device: extents may overlap.
                state.online = state.online.saturating_add(len);
                self.counts.data_blocks = self.counts.data_blocks.saturating_add(len);
                match Run::new(&self.volume.geometry, SpaceKind::Data, blkno, len, Owner::Files) {
                    Some(run) => self.events.claim(run),
                    None => self.issue(IssueKind::OutsideZones { owner: Owner::Files }, key),
                }
            }
            _ => self.issue(IssueKind::ExtentFlags { flags, blkno }, key),
        }
        Ok(())
    }

    /// Checks what only all of an inode's items together tell.
    pub fn end_inode(&mut self, mut state: InodeState) -> Result<(), CheckError> {
        self.end_xattr(&mut state)?;
        let ino = state.ino;
        let Some(item) = state.item else {
            return Ok(());
        };
        let (online, offline) = (item.online_blocks.get(), item.offline_blocks.get());
        let (found_online, found_offline) = (state.online, state.offline);
        if (online, offline) != (found_online, found_offline) {
            let kind = IssueKind::BlockCounts { online, offline, found_online, found_offline };
            self.inode_issue(kind, ino);
        }
        if state.file_type == Some(FileType::Symlink) && !state.symlink && !state.is_orphan() {
            self.inode_issue(IssueKind::NoSymlink, ino);
        }
        let nlink = item.nlink.get();
        let found = if state.is_dir() && nlink != 0 { 2 + state.subdirectories } else { state.backrefs };
        if u64::from(nlink) != found || nlink > MAX_LINKS {
            self.inode_issue(IssueKind::LinkCount { nlink, found }, ino);
        }
        if state.is_dir() {
            self.end_directory(&state, &item)?;
        } else if state.entries > 0 {
            self.inode_issue(IssueKind::NotDirectory, ino);
        }
        Ok(())
    }

    fn end_directory(&mut self, state: &InodeState, item: &InodeItem) -> Result<(), CheckError> {
        let ino = state.ino;
        self.counts.directories += 1;
        let (size, found) = (item.size.get(), state.name_bytes);
        if size != found {
            self.inode_issue(IssueKind::DirSize { size, found }, ino);
        }
        if state.is_orphan() {
            let entries = state.entries;
            if entries > 0 {
                self.inode_issue(IssueKind::OrphanNotEmpty { entries }, ino);
            }
            return Ok(());
        }
        let next = item.next_dir_pos.get();
        if next < FIRST_DIR_POS {
            self.inode_issue(IssueKind::Position { pos: FIRST_DIR_POS, next }, ino);
        }
        let (parent, found) = (item.parent.get(), state.backrefs);
        if ino == ROOT_INO {
            if found != 0 {
                self.inode_issue(IssueKind::DirEntries { found }, ino);
            }
            if parent != ROOT_INO {
                self.inode_issue(IssueKind::Parent { parent, found: ROOT_INO }, ino);
            }
            return Ok(());
        }
        if found != 1 {
            self.inode_issue(IssueKind::DirEntries { found }, ino);
        } else if parent != state.parent {
            self.inode_issue(IssueKind::Parent { parent, found: state.parent }, ino);
        }
        self.check_parent(ino, parent)
    }
}
