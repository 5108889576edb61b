// SPDX-License-Identifier: GPL-2.0-only
//! Telling the kernel to forget what it caches.
//!
//! These calls may wait, and for what is said at each: but for those that say that they do not wait, never call them on a thread
//! that serves a request.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::protocol::abi;
use super::protocol::flags::EXPIRE_ONLY;
use super::protocol::opcode::NotifyCode;
use super::session::Device;
use super::types::{Errno, Result};

/// Sends notifications to one mount. Cheap to clone.
///
/// What the kernel does not have cached is no error: then the answer is false. Notifications that it does not know are: EINVAL.
#[derive(Clone, Debug)]
pub struct Notifier {
    device: Arc<Device>,
}

impl Notifier {
    /// The most inodes that one [`prune`](Self::prune) message names.
    const PRUNE_MAX: usize = 512;

    pub(crate) fn new(device: Arc<Device>) -> Self {
        Self { device }
    }

    /// Drops an inode's attributes and its pages from `offset` on, `len` bytes or, with 0, all of them.
    ///
    /// Waits until dirty pages there are written and until READs there are answered.
    pub fn inval_inode(&self, ino: u64, offset: u64, len: u64) -> Result<bool> {
        let off = i64::try_from(offset).map_err(|_| Errno::INVAL)?;
        // A longer range than the kernel can state is the whole file.
        let len = i64::try_from(len).unwrap_or(0);
        self.send(NotifyCode::InvalInode, &[abi::NotifyInvalInodeOut { ino, off, len }.as_bytes()])
    }

    /// Drops an inode's attributes and ACLs only. Does not wait.
    pub fn inval_attr(&self, ino: u64) -> Result<bool> {
        let body = abi::NotifyInvalInodeOut { ino, off: -1, len: 0 };
        self.send(NotifyCode::InvalInode, &[body.as_bytes()])
    }

    /// Drops a name. Waits for the directory's lock, which a CREATE or LOOKUP there holds until it is answered.
    pub fn inval_entry(&self, parent: u64, name: &[u8]) -> Result<bool> {
        self.entry(parent, name, 0)
    }

    /// Makes the kernel look a name up again at its next use. Waits as [`inval_entry`](Self::inval_entry) does.
    pub fn expire_entry(&self, parent: u64, name: &[u8]) -> Result<bool> {
        self.entry(parent, name, EXPIRE_ONLY)
    }

    /// Makes the kernel look all names up again at their next use (Linux 6.16 and later). Does not wait.
    pub fn inc_epoch(&self) -> Result<()> {
        self.send(NotifyCode::IncEpoch, &[]).map(drop)
    }

    /// Drops inodes that nobody uses from the cache (Linux 6.18 and later); the kernel forgets them then.
    pub fn prune(&self, inos: &[u64]) -> Result<()> {
        for chunk in inos.chunks(Self::PRUNE_MAX) {
            // At most PRUNE_MAX.
            let head = abi::NotifyPruneOut { count: chunk.len() as u32, padding: 0, spare: 0 };
            self.send(NotifyCode::Prune, &[head.as_bytes(), chunk.as_bytes()])?;
        }
        Ok(())
    }

    fn entry(&self, parent: u64, name: &[u8], flags: u32) -> Result<bool> {
        let namelen = u32::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
        let head = abi::NotifyInvalEntryOut { parent, namelen, flags };
        self.send(NotifyCode::InvalEntry, &[head.as_bytes(), name, &[0]])
    }

    fn send(&self, code: NotifyCode, parts: &[&[u8]]) -> Result<bool> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>() + size_of::<abi::OutHeader>();
        let stated = u32::try_from(len).map_err(|_| Errno::TOOBIG)?;
        let header = abi::OutHeader { len: stated, error: code as i32, unique: 0 };
        let mut message = Vec::with_capacity(len);
        message.extend_from_slice(header.as_bytes());
        for part in parts {
            message.extend_from_slice(part);
        }
        match self.device.write(&message) {
            Err(Errno::NOENT) => Ok(false),
            result => result.map(|()| true),
        }
    }
}
