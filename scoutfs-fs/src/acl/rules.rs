// SPDX-License-Identifier: GPL-2.0-only
//! What a list means: how it goes together with a mode, how it is handed down, whom it permits what.

use super::access::Caller;
use super::list::{Acl, Tag};

/// The permissions of a mode that lists go together with.
pub(super) const MODE_PERMS: u32 = 0o777;

impl Acl {
    /// Whether a mode says all that it says.
    pub fn is_minimal(&self) -> bool {
        self.entries().iter().all(|e| matches!(e.tag, Tag::UserObj | Tag::GroupObj | Tag::Other))
    }

    fn has_mask(&self) -> bool {
        self.entries().iter().any(|e| e.tag == Tag::Mask)
    }

    /// Which bits of a mode an entry goes together with; the group's are those of the mask if there is one.
    fn shift(tag: Tag, has_mask: bool) -> Option<u32> {
        match tag {
            Tag::UserObj => Some(6),
            Tag::Mask => Some(3),
            Tag::GroupObj if !has_mask => Some(3),
            Tag::Other => Some(0),
            _ => None,
        }
    }

    /// The permissions of the mode that goes together with it.
    pub fn mode(&self) -> u32 {
        let has_mask = self.has_mask();
        let bits = |(tag, perm): (Tag, u8)| Self::shift(tag, has_mask).map_or(0, |at| u32::from(perm) << at);
        self.entries().iter().map(|e| bits((e.tag, e.perm))).fold(0, |mode, bits| mode | bits)
    }

    /// Follows a change of the mode.
    pub fn set_mode(&mut self, mode: u32) {
        let has_mask = self.has_mask();
        for entry in self.entries_mut() {
            if let Some(at) = Self::shift(entry.tag, has_mask) {
                entry.perm = (mode >> at & 7) as u8;
            }
        }
    }

    /// Makes a directory's default list the access list of what is made in it with `mode`, which takes away what it does not
    /// permit. Returns the mode that goes together with the list.
    pub fn inherit(&mut self, mode: u32) -> u32 {
        let has_mask = self.has_mask();
        for entry in self.entries_mut() {
            if let Some(at) = Self::shift(entry.tag, has_mask) {
                entry.perm &= (mode >> at & 7) as u8;
            }
        }
        mode & !MODE_PERMS | self.mode()
    }

    /// Whether it permits all of `want` (4 to read, 2 to write, 1 to execute) to a caller, on an inode of this owner and group.
    /// Privileges are not looked at.
    pub fn permits(&self, caller: &Caller<'_>, owner: u32, group: u32, want: u8) -> bool {
        let perms_of = |tag: Tag| self.entries().iter().find(|e| e.tag == tag).map(|e| e.perm);
        let grants = |perm: u8| perm & want == want;
        if caller.uid == owner {
            return perms_of(Tag::UserObj).is_some_and(grants);
        }
        let mask = perms_of(Tag::Mask).unwrap_or(7);
        if let Some(perm) = perms_of(Tag::User(caller.uid)) {
            return grants(perm & mask);
        }
        let mut of_a_group = false;
        for entry in self.entries() {
            let matches = match entry.tag {
                Tag::GroupObj => caller.in_group(group),
                Tag::Group(gid) => caller.in_group(gid),
                _ => false,
            };
            of_a_group |= matches;
            if matches && grants(entry.perm & mask) {
                return true;
            }
        }
        !of_a_group && perms_of(Tag::Other).is_some_and(grants)
    }
}
