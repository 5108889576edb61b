// SPDX-License-Identifier: GPL-2.0-only
//! Permissions, owners, times and extended attributes in the reference.

use super::acl::{self, ACCESS, DEFAULT};
use super::call::{Existing, NewTime, Outcome, Value, errno::*};
use super::names::Reference;
use super::node::{Content, Name, Times};

/// Longest value of an attribute.
const MAX_VALUE: usize = 65_535;
const S_IFMT: u32 = 0o170000;

impl Reference {
    pub(super) fn set_mode(&mut self, ino: u64, mode: u32) -> Outcome<()> {
        if self.rules.kernel && matches!(self.node(ino).seen.content, Content::Link(_)) {
            return Err(EOPNOTSUPP);
        }
        let seen = &mut self.touch(ino, false).seen;
        seen.stat.mode = seen.stat.mode & S_IFMT | mode & 0o7777;
        acl::follow(&mut seen.xattrs, seen.stat.mode);
        Ok(())
    }

    pub(super) fn set_owner(&mut self, ino: u64, uid: u32, gid: u32) -> Outcome<()> {
        let kernel = self.rules.kernel;
        let seen = &mut self.touch(ino, false).seen;
        (seen.stat.uid, seen.stat.gid) = (uid, gid);
        if kernel && !matches!(seen.content, Content::Dir(_)) {
            // Set-group-ID means that only to those who may execute it.
            let sgid = if seen.stat.mode & 0o010 == 0 { 0 } else { 0o2000 };
            seen.stat.mode &= !(0o4000 | sgid);
        }
        Ok(())
    }

    pub(super) fn set_times(&mut self, ino: u64, atime: NewTime, mtime: NewTime) -> Outcome<()> {
        match mtime {
            // Nothing is asked for.
            NewTime::Omit if atime == NewTime::Omit => {}
            NewTime::Omit => drop(self.touch(ino, false)),
            // As after a change of the contents.
            NewTime::Now => drop(self.touch(ino, true)),
            NewTime::At(time) => self.touch(ino, false).seen.stat.times.mtime = time,
        }
        Ok(())
    }

    /// Notes the times that the filesystem under test gave.
    pub(super) fn set_all_times(&mut self, ino: u64, times: Times) {
        self.node_mut(ino).seen.stat.times = times;
    }

    pub(super) fn set_xattr(
        &mut self,
        ino: u64,
        name: &Name,
        value: &Value,
        existing: Existing,
    ) -> Outcome<()> {
        if name.0 == ACCESS || name.0 == DEFAULT {
            return self.set_list(ino, name, value.bytes());
        }
        self.may_change(ino, name)?;
        let value = value.bytes();
        match (existing, self.node(ino).seen.xattrs.contains_key(&name.0)) {
            _ if value.len() > MAX_VALUE => return Err(E2BIG),
            (Existing::MustNot, true) => return Err(EEXIST),
            (Existing::Must, false) => return Err(ENODATA),
            _ => {}
        }
        self.touch(ino, false).seen.xattrs.insert(name.0.clone(), value);
        Ok(())
    }

    fn set_list(&mut self, ino: u64, name: &Name, list: Vec<u8>) -> Outcome<()> {
        // The kernel looks at this last.
        let valid = if acl::is_list(&list) { Ok(()) } else { Err(EINVAL) };
        if !self.rules.kernel {
            valid?;
        }
        match &self.node(ino).seen.content {
            Content::Link(_) => return Err(EOPNOTSUPP),
            Content::Dir(_) => {}
            _ if name.0 == ACCESS => {}
            _ => return Err(EACCES),
        }
        valid?;
        let seen = &mut self.touch(ino, false).seen;
        acl::set(&mut seen.xattrs, &mut seen.stat.mode, &name.0, list);
        Ok(())
    }

    pub(super) fn remove_xattr(&mut self, ino: u64, name: &Name) -> Outcome<()> {
        let is_there = self.node(ino).seen.xattrs.contains_key(&name.0);
        if name.0 == ACCESS || name.0 == DEFAULT {
            let is_link = matches!(self.node(ino).seen.content, Content::Link(_));
            if self.rules.kernel && is_link {
                return Err(EOPNOTSUPP);
            }
            if !is_there {
                return Ok(());
            }
        } else {
            self.may_change(ino, name)?;
        }
        if !is_there {
            return Err(ENODATA);
        }
        self.touch(ino, false).seen.xattrs.remove(&name.0);
        Ok(())
    }

    /// The kernel keeps attributes of users to files and directories.
    fn may_change(&self, ino: u64, name: &Name) -> Outcome<()> {
        let kept = matches!(self.node(ino).seen.content, Content::Dir(_) | Content::File(_));
        match self.rules.kernel && !kept && name.0.starts_with(b"user.") {
            true => Err(EPERM),
            false => Ok(()),
        }
    }
}
