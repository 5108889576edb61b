// SPDX-License-Identifier: GPL-2.0-only
//! What a file lets others do in the name of its owner or with capabilities: taken away when its contents change.
//!
//! Some kernels leave that to the filesystem, which knows the file as it is on all nodes: a kernel would have to ask for the attribute
//! before each write.

use crate::error::Result;
use crate::fs::Fs;
use crate::inode::change::{Change, Touch};
use crate::inode::kind::{S_ISGID, S_ISUID, S_IXGRP};
use crate::inode::record::Inode;
use crate::store::Locks;
use crate::xattr::{Replace, Xattr};

/// The attribute that gives capabilities to who runs the file.
const CAPABILITY: &[u8] = b"security.capability";

/// What a write takes away.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drops {
    /// Nothing: the front end's kernel has seen to it.
    #[default]
    Nothing,
    /// Capabilities.
    Capability,
    /// Capabilities, and set-user-ID and set-group-ID: who writes may not keep them (on Linux: has no CAP_FSETID).
    SetIdsToo,
}

/// A file's mode without set-user-ID, and without set-group-ID where that is not a mark for locks (the group may run the file).
pub fn without_set_ids(mode: u32) -> u32 {
    let group = if mode & S_IXGRP != 0 { S_ISGID } else { 0 };
    mode & !(S_ISUID | group)
}

impl Fs {
    /// Takes away what a write by somebody takes away. The caller holds the locks of the inode, a regular file, for changing it.
    pub(crate) fn drop_privileges(&self, locks: &Locks<'_>, inode: &mut Inode, drops: Drops) -> Result<()> {
        let old = inode.item.mode.get();
        let mode = if drops == Drops::SetIdsToo { without_set_ids(old) } else { old };
        let capability = match drops {
            Drops::Nothing => None,
            _ => Xattr::find(locks, inode.ino, CAPABILITY)?,
        };
        if mode == old && capability.is_none() {
            return Ok(());
        }
        let replace = Replace::remove(capability);
        let hold = locks.hold(replace.need())?;
        let mut change = Change::new(&hold);
        let mut new = inode.clone();
        new.item.mode.set(mode);
        new.touch_ctime(self.store().now());
        change.inode(&mut new, Touch::Meta)?;
        replace.write(&mut change)?;
        change.finish(&[&new]);
        *inode = new;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::NewInode;
    use crate::fs::testing::TestFs;
    use crate::xattr::SetXattrMode;
    use scoutfs_format::item::ROOT_INO;

    #[test]
    fn a_write_takes_away_what_the_writer_may_not_keep() {
        let fs = TestFs::new();
        // The last one's group cannot run it: there set-group-ID is no privilege.
        for (made, drops, left, capability) in [
            (0o6755, Drops::Nothing, 0o6755, true),
            (0o6755, Drops::Capability, 0o6755, false),
            (0o6755, Drops::SetIdsToo, 0o755, false),
            (0o6745, Drops::SetIdsToo, 0o2745, false),
            (0o640, Drops::SetIdsToo, 0o640, false),
        ] {
            let new = NewInode { mode: 0o100_000 | made, umask: 0, uid: 7, gid: 8, rdev: 0 };
            let ino = fs.create(ROOT_INO, b"program", &new).unwrap().ino;
            fs.setxattr(ino, CAPABILITY, b"all", SetXattrMode::Any).unwrap();
            for how in ["early", "when done"] {
                let mut answer = |_| ();
                let answer: Option<&mut dyn FnMut(usize)> = (how == "early").then_some(&mut answer);
                assert_eq!(fs.write_for_kernel(ino, Some(0), b"other code", drops, answer).unwrap(), 10);
                assert_eq!(fs.getattr(ino).unwrap().mode & 0o7777, left, "{made:o} {drops:?} {how}");
                assert_eq!(fs.getxattr(ino, CAPABILITY, &mut []).is_ok(), capability, "{made:o} {drops:?}");
            }
            fs.unlink(ROOT_INO, b"program").unwrap();
            fs.forget(ino, 1);
        }
    }
}
