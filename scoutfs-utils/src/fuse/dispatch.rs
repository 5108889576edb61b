// SPDX-License-Identifier: GPL-2.0-only
//! One decoded request -> one call of the filesystem -> one encoded answer.

use super::buffer::ReadBuf;
use super::filesystem::{Context, Filesystem};
use super::protocol::abi;
use super::protocol::flags::{IOCTL_MAX_IOV, IOCTL_RETRY};
use super::protocol::reply::{self, DirPlusSink, DirSink, ReplyBuf};
use super::protocol::request::Operation;
use super::types::*;

/// The longest symlink target: the kernel keeps it in a page, with a NUL.
const SYMLINK_MAX: usize = 4095;

/// Calls the filesystem. Returns the answer's length in `out`; of operations without an answer, 0.
pub(crate) fn dispatch(
    fs: &dyn Filesystem,
    ctx: &Context<'_>,
    ino: u64,
    operation: Operation<'_>,
    out: &mut ReplyBuf,
    early: &mut dyn FnMut(abi::WriteOut),
) -> Result<usize> {
    let done = |()| 0;
    match operation {
        Operation::Lookup { name } => put_entry(out, fs.lookup(ctx, ino, name)),
        Operation::Forget(forgets) => {
            fs.forget(forgets);
            Ok(0)
        }
        Operation::Getattr { fh } => put_attr(out, fs.getattr(ctx, ino, fh)),
        Operation::Setattr(set) => put_attr(out, fs.setattr(ctx, ino, &set)),
        Operation::Statx { fh, flags, mask } => {
            let statx = fs.statx(ctx, ino, fh, flags, mask)?;
            Ok(out.put(&reply::statx_out(&statx)))
        }
        Operation::Readlink => {
            let target = out.body().get_mut(..SYMLINK_MAX).ok_or(Errno::IO)?;
            match fs.readlink(ctx, ino, target)? {
                len @ 0..=SYMLINK_MAX => Ok(len),
                _ => Err(Errno::NAMETOOLONG),
            }
        }
        Operation::Symlink { name, target } => put_entry(out, fs.symlink(ctx, ino, name, target)),
        Operation::Mknod { name, mode, umask, rdev } => {
            put_entry(out, fs.mknod(ctx, ino, name, mode, umask, rdev))
        }
        Operation::Mkdir { name, mode, umask } => put_entry(out, fs.mkdir(ctx, ino, name, mode, umask)),
        Operation::Unlink { name } => fs.unlink(ctx, ino, name).map(done),
        Operation::Rmdir { name } => fs.rmdir(ctx, ino, name).map(done),
        Operation::Rename(rename) => fs.rename(ctx, &rename).map(done),
        Operation::Link { ino: target, name } => put_entry(out, fs.link(ctx, target, ino, name)),
        Operation::Open { flags, kill_suidgid } => put_open(out, fs.open(ctx, ino, flags, kill_suidgid)),
        Operation::Create { name, create } => put_created(out, fs.create(ctx, ino, name, &create)),
        Operation::Tmpfile(create) => put_created(out, fs.tmpfile(ctx, ino, &create)),
        Operation::Read { read, size } => {
            let mut buf = ReadBuf::new(out.body(), size as usize).ok_or(Errno::INVAL)?;
            fs.read(ctx, ino, &read, &mut buf)?;
            Ok(buf.filled())
        }
        Operation::Write { write, data } => {
            let size = fs.write(ctx, ino, &write, data, &mut |size| early(written(data, size)))?;
            Ok(out.put(&written(data, size)))
        }
        Operation::Flush { fh, lock_owner } => fs.flush(ctx, ino, fh, lock_owner).map(done),
        Operation::Release(release) => fs.release(ctx, ino, &release).map(done),
        Operation::Fsync { fh, datasync } => fs.fsync(ctx, ino, fh, datasync).map(done),
        Operation::Fallocate(fallocate) => fs.fallocate(ctx, ino, &fallocate).map(done),
        Operation::Lseek { fh, offset, whence } => {
            let offset = fs.lseek(ctx, ino, fh, offset, whence)?;
            Ok(out.put(&abi::LseekOut { offset }))
        }
        Operation::CopyFileRange { mut copy, wide } => {
            if !wide {
                copy.len = copy.len.min(u32::MAX.into());
            }
            let bytes_copied = fs.copy_file_range(ctx, ino, &copy)?.min(copy.len);
            Ok(if wide {
                out.put(&abi::CopyFileRangeOut { bytes_copied })
            } else {
                out.put(&abi::WriteOut { size: bytes_copied as u32, padding: 0 })
            })
        }
        Operation::Opendir { flags } => put_open(out, fs.opendir(ctx, ino, flags)),
        Operation::Readdir { fh, offset, size } => {
            let mut sink = DirSink::new(prefix(out.body(), size));
            fs.readdir(ctx, ino, fh, offset, &mut sink)?;
            Ok(sink.len())
        }
        Operation::Readdirplus { fh, offset, size } => {
            let mut sink = DirPlusSink::new(prefix(out.body(), size));
            fs.readdirplus(ctx, ino, fh, offset, &mut sink)?;
            Ok(sink.len())
        }
        Operation::Releasedir(release) => fs.releasedir(ctx, ino, &release).map(done),
        Operation::Fsyncdir { fh, datasync } => fs.fsyncdir(ctx, ino, fh, datasync).map(done),
        Operation::Statfs => {
            let statfs = fs.statfs(ctx, ino)?;
            Ok(out.put(&reply::statfs_out(&statfs)))
        }
        Operation::Syncfs => fs.syncfs(ctx, ino).map(done),
        Operation::Setxattr(set) => fs.setxattr(ctx, ino, &set).map(done),
        Operation::Getxattr { name, size } => {
            let len = fs.getxattr(ctx, ino, name, prefix(out.body(), size))?;
            put_xattr(out, size, len)
        }
        Operation::Listxattr { size } => {
            let len = fs.listxattr(ctx, ino, prefix(out.body(), size))?;
            put_xattr(out, size, len)
        }
        Operation::Removexattr { name } => fs.removexattr(ctx, ino, name).map(done),
        Operation::Access { mask } => fs.access(ctx, ino, mask).map(done),
        Operation::Getlk(request) => {
            let lock = fs.getlk(ctx, ino, &request)?;
            Ok(out.put(&reply::lock_out(&lock)))
        }
        Operation::Setlk(request) => fs.setlk(ctx, ino, &request).map(done),
        Operation::Setlkw(request) => fs.setlkw(ctx, ino, &request).map(done),
        Operation::Ioctl { ioctl, out_size } => ioctl_reply(fs, ctx, ino, &ioctl, out_size, out),
        Operation::Unsupported => Err(Errno::NOSYS),
        // The session answers these; here they come only out of place.
        Operation::Init { .. } | Operation::Destroy | Operation::Interrupt { .. } => Err(Errno::IO),
    }
}

/// The first `size` bytes, or all if there are fewer.
fn prefix(memory: &mut [u8], size: u32) -> &mut [u8] {
    let len = memory.len().min(size as usize);
    &mut memory[..len]
}

fn put_attr(out: &mut ReplyBuf, reply: Result<AttrReply>) -> Result<usize> {
    Ok(out.put(&reply::attr_out(&reply?)))
}

fn written(data: &[u8], size: usize) -> abi::WriteOut {
    // `data` came with a 32-bit length.
    abi::WriteOut { size: size.min(data.len()) as u32, padding: 0 }
}

fn put_entry(out: &mut ReplyBuf, entry: Result<Entry>) -> Result<usize> {
    Ok(out.put(&reply::entry_out(&entry?)))
}

fn put_open(out: &mut ReplyBuf, opened: Result<Opened>) -> Result<usize> {
    Ok(out.put(&reply::open_out(&opened?)))
}

fn put_created(out: &mut ReplyBuf, created: Result<(Entry, Opened)>) -> Result<usize> {
    let (entry, opened) = created?;
    let at = out.put(&reply::entry_out(&entry));
    out.put_at(at, &reply::open_out(&opened)).ok_or(Errno::IO)
}

/// `len` is an xattr's length; its value is in `out` if it fits into `size`.
fn put_xattr(out: &mut ReplyBuf, size: u32, len: usize) -> Result<usize> {
    if size == 0 {
        let size = u32::try_from(len).map_err(|_| Errno::TOOBIG)?;
        return Ok(out.put(&abi::GetxattrOut { size, padding: 0 }));
    }
    if len > prefix(out.body(), size).len() {
        return Err(Errno::RANGE);
    }
    Ok(len)
}

fn ioctl_reply(
    fs: &dyn Filesystem,
    ctx: &Context<'_>,
    ino: u64,
    ioctl: &Ioctl<'_>,
    out_size: u32,
    out: &mut ReplyBuf,
) -> Result<usize> {
    let header_len = size_of::<abi::IoctlOut>();
    let end = header_len.checked_add(out_size as usize).ok_or(Errno::INVAL)?;
    let data = out.body().get_mut(header_len..end).ok_or(Errno::INVAL)?;
    // A handler that fills less than it says must not send what an earlier answer left.
    data.fill(0);
    match fs.ioctl(ctx, ino, ioctl, data)? {
        IoctlReply::Done { result, out_len } => {
            out.put(&abi::IoctlOut { result, ..Default::default() });
            Ok(header_len + out_len.min(out_size as usize))
        }
        IoctlReply::Retry { input, output } => {
            let count = input.len().checked_add(output.len()).ok_or(Errno::INVAL)?;
            if !ioctl.unrestricted || count > IOCTL_MAX_IOV {
                return Err(Errno::INVAL);
            }
            let mut at = out.put(&abi::IoctlOut {
                result: 0,
                flags: IOCTL_RETRY,
                in_iovs: input.len() as u32,
                out_iovs: output.len() as u32,
            });
            for vector in input.iter().chain(&output) {
                let raw = abi::IoctlIovecBody { base: vector.base, len: vector.len };
                at = out.put_at(at, &raw).ok_or(Errno::INVAL)?;
            }
            Ok(at)
        }
    }
}
