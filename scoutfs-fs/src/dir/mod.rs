// SPDX-License-Identifier: GPL-2.0-only
//! Directories: names, and the operations that change them.
//!
//! | module | what |
//! | --- | --- |
//! | `entry` | the three items of an entry; finding, adding and removing one |
//! | `lookup` | lookup, readlink |
//! | `create` | mknod, mkdir, symlink, tmpfile, link |
//! | `remove` | unlink, rmdir |
//! | `rename` | rename, with NOREPLACE and EXCHANGE |
//! | `readdir` | readdir, with and without attributes |
//! | `backref` | from an inode to its entries and paths |
//!
//! # What must hold
//!
//! - The three items of an entry agree. A position is given out once per directory and never again.
//! - A directory's `size` is the sum of its entries' name lengths; its `nlink` is 2 and one for each directory in it;
//!   its `parent` is where its entry is.
//! - Another inode's `nlink` is the number of its entries.
//!
//! # Locking
//!
//! Which inode a name stands for is only known after a look-up. So an operation looks first, locks all
//! inodes in order, looks again, and starts over if the name stands for another inode by now. Directories change their
//! parents only under the rename lock, so that who is above whom stands still while it is checked.

mod backref;
mod create;
mod entry;
mod lookup;
mod readdir;
mod remove;
mod rename;

pub use backref::{InoPath, Referring};
pub use create::NewInode;
pub use readdir::DirEntry;
pub use rename::RenameFlags;

#[cfg(test)]
mod tests;
