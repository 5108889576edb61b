// SPDX-License-Identifier: GPL-2.0-only
//! The ioctls of a mounted volume over FUSE: translate, call, translate. What they do is in `scoutfs_fs::ioctl`.

use scoutfs_fs::Fs;
use scoutfs_fs::ioctl::{Caller, Request};

use super::caller::LazyCredentials;
use super::convert::errno;
use super::user_memory::ProcessMemory;
use crate::fuse::{Context, Errno, Ioctl, IoctlReply, Notifier};

/// Carries out an ioctl on `ino`.
pub fn run(
    fs: &Fs,
    notifier: Option<&Notifier>,
    ino: u64,
    ctx: &Context<'_>,
    ioctl: &Ioctl<'_>,
    out: &mut [u8],
) -> Result<IoctlReply, Errno> {
    let memory = ProcessMemory::of(ctx.pid);
    let credentials = LazyCredentials::of(ctx);
    let caller = Caller {
        memory: &memory,
        credentials: &credentials,
        // FUSE does not say how the file was opened.
        can_read: true,
    };
    let request = Request { ino, cmd: ioctl.cmd, arg: ioctl.arg, input: ioctl.data };
    let done = fs.ioctl(&request, out, &caller).map_err(|e| errno(fs, e))?;
    if done.changed
        && let Some(notifier) = notifier
        && let Err(e) = notifier.inval_attr(ino)
    {
        // The change was made; the caller may see the old attributes until their time is over.
        scoutfs_env::warn!("the kernel keeps old attributes of inode {ino}: {e}");
    }
    Ok(IoctlReply::Done { result: done.result, out_len: done.out_len })
}
