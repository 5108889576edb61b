// SPDX-License-Identifier: GPL-2.0-only
//! Extended attributes: all parts are there, each as long as it must be, and the search index has those that it must have.
//!
//! An attribute looks up its entry in the index, and an entry its attribute, so that each has exactly the other.

use scoutfs_btree::Item;
use scoutfs_format::Key;
use scoutfs_format::item::{MAX_XATTR_VALUE_LEN, XATTR_PART_LEN, XattrHeader, name_hash};
use zerocopy::FromBytes;

use super::CheckError;
use super::acl::List;
use super::entry::Names;
use super::inode::InodeState;
use super::issue::IssueKind;
use super::items::Pass;
use crate::xattr::{Class, Tags};

/// An attribute whose parts are being read.
#[derive(Clone, Copy)]
struct Attribute {
    hash: u64,
    id: u64,
    /// Parts that it has.
    parts: u8,
    /// Part that comes next.
    next: u8,
    /// Bytes of the parts that are to come.
    left: usize,
}

/// The attributes of an inode.
#[derive(Default)]
pub(super) struct Xattrs {
    current: Option<Attribute>,
    /// The list that the current one holds.
    list: Option<List>,
    names: Names,
}

impl Pass<'_> {
    /// A part of an attribute.
    pub fn xattr_item(&mut self, state: &mut InodeState, item: &Item<'_>) -> Result<(), CheckError> {
        let key = item.key;
        let (hash, id, part) = (key.second, key.third, key.fourth);
        let goes_on = state.xattrs.current.filter(|now| (now.hash, now.id) == (hash, id));
        let Some(mut now) = goes_on else {
            self.end_xattr(state)?;
            return self.first_part(state, item);
        };
        let expected = now.left.min(XATTR_PART_LEN);
        if part != now.next || now.left == 0 {
            let (expected, parts) = (now.next, now.parts);
            self.issue(IssueKind::XattrPart { expected, parts, found: part }, key);
        } else if item.value.len() != expected {
            self.issue(IssueKind::ValueLength { expected, found: item.value.len() }, key);
        }
        if let Some(list) = &mut state.xattrs.list {
            list.add(item.value)?;
        }
        now.next = part.saturating_add(1);
        now.left = now.left.saturating_sub(XATTR_PART_LEN);
        state.xattrs.current = Some(now);
        Ok(())
    }

    fn first_part(&mut self, state: &mut InodeState, item: &Item<'_>) -> Result<(), CheckError> {
        let key = item.key;
        let (hash, id, part) = (key.second, key.third, key.fourth);
        if part != 0 {
            // Without the first part nothing is known of the others.
            state.xattrs.current = None;
            if !state.is_orphan() {
                self.issue(IssueKind::XattrPart { expected: 0, parts: 0, found: part }, key);
            }
            return Ok(());
        }
        if let Some(inode) = &state.item {
            let next = inode.next_xattr_id.get();
            if id >= next {
                self.issue(IssueKind::XattrId { id, next }, key);
            }
        }
        let Ok((head, body)) = XattrHeader::read_from_prefix(item.value) else {
            let (expected, found) = (size_of::<XattrHeader>() + 1, item.value.len());
            self.issue(IssueKind::ValueLength { expected, found }, key);
            return Ok(());
        };
        let (name_len, val_len, found) = (head.name_len, head.val_len.get(), item.value.len());
        let total = size_of::<XattrHeader>() + usize::from(name_len) + val_len as usize;
        let name = body.get(..name_len.into()).unwrap_or_default();
        let too_long = val_len as usize > MAX_XATTR_VALUE_LEN;
        if name.is_empty() || name.contains(&0) || too_long || found != total.min(XATTR_PART_LEN) {
            self.issue(IssueKind::XattrHeader { name_len, val_len, found }, key);
            return Ok(());
        }
        let computed = name_hash(name);
        if hash != computed {
            self.issue(IssueKind::NameHash { stored: hash, computed }, key);
        } else if let Some(other) = state.xattrs.names.add(hash, name, id)? {
            self.issue(IssueKind::DuplicateXattr { other }, key);
        }
        match Class::of(name) {
            Ok(Class::Plain) => {}
            Ok(Class::Acl(kind)) => {
                let value = body.get(name.len()..).unwrap_or_default();
                state.xattrs.list = Some(List::new(kind, key, val_len as usize, value)?);
            }
            Ok(Class::Tagged(tags)) => {
                let (ino, wanted) = (state.ino, tags.contains(Tags::SRCH));
                if wanted && hash == computed && !self.forest.has(Key::srch(hash, ino, id))? {
                    self.issue(IssueKind::NoSearchEntry { id }, key);
                }
            }
            Err(_) => self.issue(IssueKind::XattrName { name_len }, key),
        }
        // At most 17: the longest value has 64 KiB.
        let parts = total.div_ceil(XATTR_PART_LEN) as u8;
        let left = total.saturating_sub(XATTR_PART_LEN);
        state.xattrs.current = Some(Attribute { hash, id, parts, next: 1, left });
        Ok(())
    }

    /// The parts of the attribute that was read last have ended.
    pub fn end_xattr(&mut self, state: &mut InodeState) -> Result<(), CheckError> {
        let list = state.xattrs.list.take();
        let Some(now) = state.xattrs.current.take() else {
            return Ok(());
        };
        if now.left == 0 {
            if let Some(list) = list {
                self.check_list(state, &list)?;
            }
        } else if !state.is_orphan() {
            let kind = IssueKind::XattrIncomplete { parts: now.parts, found: now.next };
            self.issue(kind, Key::xattr(state.ino, now.hash, now.id, 0));
        }
        Ok(())
    }

    /// An entry of the search index.
    pub fn srch_item(&mut self, item: &Item<'_>) -> Result<(), CheckError> {
        let key = item.key;
        let (hash, ino, id) = (key.first, key.second, key.third);
        if key != Key::srch(hash, ino, id) {
            self.issue(IssueKind::UnknownKey, key);
            return Ok(());
        }
        self.check_empty(item);
        let indexed = self.forest.get(Key::xattr(ino, hash, id, 0), |part| {
            let (head, body) = XattrHeader::read_from_prefix(part.value).ok()?;
            let name = body.get(..head.name_len.into())?;
            (name_hash(name) == hash).then(|| Class::has(name, Tags::SRCH))
        })?;
        if indexed.flatten() != Some(true) {
            self.issue(IssueKind::SearchNoXattr { ino, id }, key);
        }
        Ok(())
    }
}
