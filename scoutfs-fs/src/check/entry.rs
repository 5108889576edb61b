// SPDX-License-Identifier: GPL-2.0-only
//! Directory entries: by name, by position, and from the inode that they name.
//!
//! The entry by name leads: it looks up the other two, and each of them looks up the entry by name. So the three go
//! together or something is told, and a missing one is told where it is missed.

use scoutfs_btree::Item;
use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::item::{
    BackrefItem, DirentHeader, FIRST_DIR_POS, FT_DIR, MAX_NAME_LEN, ReaddirHeader, name_hash,
};
use zerocopy::FromBytes;

use super::CheckError;
use super::inode::InodeState;
use super::issue::IssueKind;
use super::items::Pass;
use crate::inode::kind::FileType;

/// Names with one hash that are remembered, to find the same one again. More than two is a deliberate collision.
const MAX_NAMES: usize = 16;

/// Names (of entries or attributes) that have one hash, and the position or id of each.
#[derive(Default)]
pub(super) struct Names {
    hash: u64,
    names: Vec<(u64, Vec<u8>)>,
}

impl Names {
    /// Adds a name; returns the position or id of the same name if it was there.
    pub fn add(&mut self, hash: u64, name: &[u8], id: u64) -> Result<Option<u64>, CheckError> {
        if self.hash != hash {
            self.hash = hash;
            self.names.clear();
        }
        let same = self.names.iter().find(|(_, other)| **other == *name).map(|(id, _)| *id);
        if same.is_none() && self.names.len() < MAX_NAMES {
            self.names.push((id, Vec::from_slice(name)?))?;
        }
        Ok(same)
    }
}

/// Whether an entry can have a name.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_LEN
        && !name.iter().any(|&byte| byte == 0 || byte == b'/')
        && name != b"."
        && name != b".."
}

impl Pass<'_> {
    /// An entry by name.
    pub fn dirent_item(&mut self, state: &mut InodeState, item: &Item<'_>) -> Result<(), CheckError> {
        let (key, dir) = (item.key, state.ino);
        state.entries += 1;
        let Ok((head, name)) = DirentHeader::read_from_prefix(item.value) else {
            let (expected, found) = (size_of::<DirentHeader>() + 1, item.value.len());
            self.issue(IssueKind::ValueLength { expected, found }, key);
            return Ok(());
        };
        let (hash, pos, ino, file_type) = (key.second, key.third, head.ino.get(), head.file_type);
        state.name_bytes += name.len() as u64;
        state.subdirectories += u64::from(file_type == FT_DIR);
        if !is_name(name) {
            self.issue(IssueKind::Name { len: name.len() }, key);
        }
        let computed = name_hash(name);
        if hash != computed {
            self.issue(IssueKind::NameHash { stored: hash, computed }, key);
        } else if let Some(other) = state.names.add(hash, name, pos)? {
            self.issue(IssueKind::DuplicateName { other }, key);
        }
        if let Some(inode) = &state.item
            && state.is_dir()
        {
            let next = inode.next_dir_pos.get();
            if pos < FIRST_DIR_POS || pos >= next {
                self.issue(IssueKind::Position { pos, next }, key);
            }
        }
        if FileType::of_stored(file_type).is_none() {
            self.issue(IssueKind::FileType { file_type }, key);
        }
        let same = self.forest.get(Key::readdir(dir, pos), |other| {
            ReaddirHeader::read_from_prefix(other.value).is_ok_and(|(other, other_name)| {
                other.ino == head.ino
                    && other.file_type == file_type
                    && other.name_hash.get() == hash
                    && other_name == name
            })
        })?;
        match same {
            None => self.issue(IssueKind::NoReaddir, key),
            Some(false) => self.issue(IssueKind::ReaddirDiffers, key),
            Some(true) => {}
        }
        if !self.forest.has(Key::backref(ino, dir, pos))? {
            self.issue(IssueKind::NoBackref { ino }, key);
        }
        if let Some(mode) = self.forest.inode(ino)?.map(|inode| inode.mode.get())
            && FileType::of_mode(mode).map(FileType::stored) != Some(file_type)
        {
            self.issue(IssueKind::EntryType { ino, file_type, mode }, key);
        }
        Ok(())
    }

    /// An entry by position.
    pub fn readdir_item(&mut self, item: &Item<'_>) -> Result<(), CheckError> {
        let (key, dir) = (item.key, item.key.first);
        let Ok((head, _)) = ReaddirHeader::read_from_prefix(item.value) else {
            let (expected, found) = (size_of::<ReaddirHeader>() + 1, item.value.len());
            self.issue(IssueKind::ValueLength { expected, found }, key);
            return Ok(());
        };
        if !self.forest.has(Key::dirent(dir, head.name_hash.get(), key.second))? {
            self.issue(IssueKind::NoDirent, key);
        }
        Ok(())
    }

    /// A back reference.
    pub fn backref_item(&mut self, state: &mut InodeState, item: &Item<'_>) -> Result<(), CheckError> {
        let (key, ino) = (item.key, state.ino);
        let (dir, pos) = (key.second, key.third);
        state.backrefs += 1;
        state.parent = dir;
        let Some(head) = self.fixed::<BackrefItem>(item) else {
            return Ok(());
        };
        let named = self.forest.get(Key::dirent(dir, head.name_hash.get(), pos), |other| {
            DirentHeader::read_from_prefix(other.value).is_ok_and(|(other, _)| other.ino.get() == ino)
        })?;
        if named != Some(true) {
            self.issue(IssueKind::BackrefNoDirent { dir }, key);
        }
        Ok(())
    }
}
