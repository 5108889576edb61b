// SPDX-License-Identifier: GPL-2.0-only
//! The ioctls of a mounted volume over FUSE: translate, call, translate. What they do is in `scoutfs_fs::ioctl`.

use scoutfs_fs::Fs;
use scoutfs_fs::ioctl::{Caller, Request};

use super::caller::{Credentials, ProcessMemory};
use super::convert::errno;
use crate::fuse::{Errno, Ioctl, IoctlReply, Notifier};

/// Carries out an ioctl on `ino` for the thread `pid`.
pub fn run(
    fs: &Fs,
    notifier: Option<&Notifier>,
    ino: u64,
    pid: u32,
    ioctl: &Ioctl<'_>,
    out: &mut [u8],
) -> Result<IoctlReply, Errno> {
    let memory = ProcessMemory::of(pid);
    let credentials = Credentials::of(pid);
    let caller = Caller {
        memory: &memory,
        capable: &|capability| credentials.have(capability),
        // FUSE does not say how the file was opened.
        can_read: true,
    };
    let request = Request { ino, cmd: ioctl.cmd, arg: ioctl.arg, input: ioctl.data };
    let done = fs.ioctl(&request, out, &caller).map_err(errno)?;
    if done.changed
        && let Some(notifier) = notifier
        && let Err(e) = notifier.inval_attr(ino)
    {
        // The change was made; the caller may see the old attributes until their time is over.
        scoutfs_env::warn!("the kernel keeps old attributes of inode {ino}: {e}");
    }
    Ok(IoctlReply::Done { result: done.result, out_len: done.out_len })
}
