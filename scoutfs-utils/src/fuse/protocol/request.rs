// SPDX-License-Identifier: GPL-2.0-only
//! Bytes from the device -> a [`Request`]. Every bound and every name is checked here.

use rustix::fs::RenameFlags;
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::abi;
use super::flags::{self, InitFlags, SetattrValid};
use super::opcode::Opcode;
use crate::fuse::types::*;

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Too short to say what it is.
    #[error("request of {found} bytes, its header alone has {expected}")]
    NoHeader {
        /// Bytes read.
        found: usize,
        /// Bytes of a header.
        expected: usize,
    },
    /// The header's length is not what was read.
    #[error("opcode {opcode}: the header says {stated} bytes, {found} were read")]
    Length {
        /// The request's opcode.
        opcode: u32,
        /// Bytes according to the header.
        stated: u32,
        /// Bytes read.
        found: usize,
    },
    /// An argument is cut off.
    #[error("opcode {opcode}: an argument of {expected} bytes, {found} are left")]
    Truncated {
        /// The request's opcode.
        opcode: u32,
        /// Bytes of the argument.
        expected: usize,
        /// Bytes left.
        found: usize,
    },
    /// A string has no end.
    #[error("opcode {opcode}: a string of {len} bytes without NUL")]
    Unterminated {
        /// The request's opcode.
        opcode: u32,
        /// Bytes left.
        len: usize,
    },
    /// Not a name for a directory entry.
    #[error("opcode {opcode}: a name of {len} bytes is empty, has a '/', or is \".\" or \"..\"")]
    BadName {
        /// The request's opcode.
        opcode: u32,
        /// Bytes of the name.
        len: usize,
    },
    /// A value outside of its range.
    #[error("opcode {opcode}: {field} is {value}")]
    BadValue {
        /// The request's opcode.
        opcode: u32,
        /// Name of the field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

/// Who sent a request and about what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) opcode: u32,
    pub(crate) unique: u64,
    pub(crate) nodeid: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: u32,
}

impl Header {
    /// Whether a reply is expected. Unknown opcodes have one.
    pub(crate) fn has_reply(&self) -> bool {
        Opcode::from_raw(self.opcode).is_none_or(Opcode::has_reply)
    }
}

/// What a request asks for. Slices are parts of the buffer that was decoded.
#[derive(Debug)]
pub(crate) enum Operation<'a> {
    Init {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: InitFlags,
    },
    Destroy,
    Interrupt {
        unique: u64,
    },
    Lookup {
        name: &'a [u8],
    },
    Forget(Forgets<'a>),
    Getattr {
        fh: Option<u64>,
    },
    Setattr(SetAttr),
    Statx {
        fh: Option<u64>,
        flags: u32,
        mask: u32,
    },
    Readlink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    Mknod {
        name: &'a [u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    },
    Mkdir {
        name: &'a [u8],
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: &'a [u8],
    },
    Rmdir {
        name: &'a [u8],
    },
    Rename(Rename<'a>),
    Link {
        ino: u64,
        name: &'a [u8],
    },
    Open {
        flags: u32,
        kill_suidgid: bool,
    },
    Create {
        name: &'a [u8],
        create: Create,
    },
    Tmpfile(Create),
    Read {
        read: Read,
        size: u32,
    },
    Write {
        write: Write,
        data: &'a [u8],
    },
    Flush {
        fh: u64,
        lock_owner: u64,
    },
    Release(Release),
    Fsync {
        fh: u64,
        datasync: bool,
    },
    Fallocate(Fallocate),
    Lseek {
        fh: u64,
        offset: u64,
        whence: u32,
    },
    /// `wide`: the reply counts in 64 bits.
    CopyFileRange {
        copy: CopyFileRange,
        wide: bool,
    },
    Opendir {
        flags: u32,
    },
    Readdir {
        fh: u64,
        offset: u64,
        size: u32,
    },
    Readdirplus {
        fh: u64,
        offset: u64,
        size: u32,
    },
    Releasedir(Release),
    Fsyncdir {
        fh: u64,
        datasync: bool,
    },
    Statfs,
    Syncfs,
    Setxattr(SetXattr<'a>),
    Getxattr {
        name: &'a [u8],
        size: u32,
    },
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: &'a [u8],
    },
    Access {
        mask: u32,
    },
    Getlk(LockRequest),
    Setlk(LockRequest),
    Setlkw(LockRequest),
    Ioctl {
        ioctl: Ioctl<'a>,
        out_size: u32,
    },
    /// Known or not, it is not served; the answer is ENOSYS.
    Unsupported,
}

/// Lookups that the kernel drops: pairs of inode number and count.
#[derive(Clone, Debug)]
pub struct Forgets<'a>(ForgetSource<'a>);

#[derive(Clone, Debug)]
enum ForgetSource<'a> {
    One(Option<(u64, u64)>),
    Batch(&'a [[[u8; 8]; 2]]),
}

impl Iterator for Forgets<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        match &mut self.0 {
            ForgetSource::One(one) => one.take(),
            ForgetSource::Batch(batch) => {
                let ([ino, count], rest) = batch.split_first()?;
                *batch = rest;
                Some((u64::from_ne_bytes(*ino), u64::from_ne_bytes(*count)))
            }
        }
    }
}

/// Reads the header alone, for requests that cannot be decoded further.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<(Header, &[u8]), ProtocolError> {
    let expected = size_of::<abi::InHeader>();
    let Ok((raw, body)) = abi::InHeader::read_from_prefix(bytes) else {
        return Err(ProtocolError::NoHeader { found: bytes.len(), expected });
    };
    let header = Header {
        opcode: raw.opcode,
        unique: raw.unique,
        nodeid: raw.nodeid,
        uid: raw.uid,
        gid: raw.gid,
        pid: raw.pid,
    };
    Ok((header, body))
}

/// Decodes what follows the header. `bytes` is the whole request, `setxattr_ext` what was negotiated.
pub(crate) fn decode_operation(bytes: &[u8], setxattr_ext: bool) -> Result<Operation<'_>, ProtocolError> {
    let (header, body) = decode_header(bytes)?;
    let opcode = header.opcode;
    let (len, ext) = abi::InHeader::read_from_prefix(bytes).map_or((0, 0), |(h, _)| (h.len, h.total_extlen));
    if usize::try_from(len) != Ok(bytes.len()) {
        return Err(ProtocolError::Length { opcode, stated: len, found: bytes.len() });
    }
    let ext_bytes = usize::from(ext) * 8;
    let args = body
        .len()
        .checked_sub(ext_bytes)
        .and_then(|end| body.get(..end))
        .ok_or(ProtocolError::Truncated { opcode, expected: ext_bytes, found: body.len() })?;
    match Opcode::from_raw(opcode) {
        Some(known) => Args { opcode, rest: args }.operation(known, header.nodeid, setxattr_ext),
        None => Ok(Operation::Unsupported),
    }
}

/// The arguments that are still to be decoded.
struct Args<'a> {
    opcode: u32,
    rest: &'a [u8],
}

type Decoded<T> = Result<T, ProtocolError>;

impl<'a> Args<'a> {
    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Decoded<T> {
        let (value, rest) = T::read_from_prefix(self.rest).map_err(|_| ProtocolError::Truncated {
            opcode: self.opcode,
            expected: size_of::<T>(),
            found: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(value)
    }

    fn bytes(&mut self, len: u32) -> Decoded<&'a [u8]> {
        let expected = len as usize;
        let (taken, rest) = self.rest.split_at_checked(expected).ok_or(ProtocolError::Truncated {
            opcode: self.opcode,
            expected,
            found: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(taken)
    }

    /// A string that ends with NUL and is not empty.
    fn string(&mut self) -> Decoded<&'a [u8]> {
        let rest = self.rest;
        let unterminated = ProtocolError::Unterminated { opcode: self.opcode, len: rest.len() };
        let len = rest.iter().position(|&b| b == 0).ok_or(unterminated)?;
        let (string, tail) = rest.split_at_checked(len).ok_or(unterminated)?;
        if string.is_empty() {
            return Err(ProtocolError::BadName { opcode: self.opcode, len });
        }
        self.rest = tail.get(1..).unwrap_or_default();
        Ok(string)
    }

    /// The name of a directory entry, "." and ".." included.
    fn name_or_dots(&mut self) -> Decoded<&'a [u8]> {
        let name = self.string()?;
        if name.contains(&b'/') {
            return Err(ProtocolError::BadName { opcode: self.opcode, len: name.len() });
        }
        Ok(name)
    }

    /// The name of a directory entry.
    fn name(&mut self) -> Decoded<&'a [u8]> {
        let name = self.name_or_dots()?;
        if name == b"." || name == b".." {
            return Err(ProtocolError::BadName { opcode: self.opcode, len: name.len() });
        }
        Ok(name)
    }

    fn bad_value(&self, field: &'static str, value: u64) -> ProtocolError {
        ProtocolError::BadValue { opcode: self.opcode, field, value }
    }

    fn timestamp(&self, secs: u64, nanos: u32) -> Decoded<Timestamp> {
        if nanos >= 1_000_000_000 {
            return Err(self.bad_value("nanoseconds", nanos.into()));
        }
        Ok(Timestamp { secs: secs.cast_signed(), nanos })
    }

    fn operation(mut self, opcode: Opcode, nodeid: u64, setxattr_ext: bool) -> Decoded<Operation<'a>> {
        Ok(match opcode {
            Opcode::Init => self.init()?,
            Opcode::Destroy => Operation::Destroy,
            Opcode::Interrupt => Operation::Interrupt { unique: self.take::<abi::InterruptIn>()?.unique },
            Opcode::Lookup => Operation::Lookup { name: self.name_or_dots()? },
            Opcode::Forget => {
                let one = (nodeid, self.take::<abi::ForgetIn>()?.nlookup);
                Operation::Forget(Forgets(ForgetSource::One(Some(one))))
            }
            Opcode::BatchForget => self.batch_forget()?,
            Opcode::Getattr => {
                let raw: abi::GetattrIn = self.take()?;
                Operation::Getattr { fh: (raw.getattr_flags & flags::GETATTR_FH != 0).then_some(raw.fh) }
            }
            Opcode::Setattr => Operation::Setattr(self.setattr()?),
            Opcode::Statx => {
                let raw: abi::StatxIn = self.take()?;
                let fh = (raw.getattr_flags & flags::GETATTR_FH != 0).then_some(raw.fh);
                Operation::Statx { fh, flags: raw.sx_flags, mask: raw.sx_mask }
            }
            Opcode::Readlink => Operation::Readlink,
            Opcode::Symlink => Operation::Symlink { name: self.name()?, target: self.string()? },
            Opcode::Mknod => {
                let raw: abi::MknodIn = self.take()?;
                Operation::Mknod { name: self.name()?, mode: raw.mode, umask: raw.umask, rdev: raw.rdev }
            }
            Opcode::Mkdir => {
                let raw: abi::MkdirIn = self.take()?;
                Operation::Mkdir { name: self.name()?, mode: raw.mode, umask: raw.umask }
            }
            Opcode::Unlink => Operation::Unlink { name: self.name()? },
            Opcode::Rmdir => Operation::Rmdir { name: self.name()? },
            Opcode::Rename => {
                let raw: abi::RenameIn = self.take()?;
                Operation::Rename(self.rename(nodeid, raw.newdir, 0)?)
            }
            Opcode::Rename2 => {
                let raw: abi::Rename2In = self.take()?;
                Operation::Rename(self.rename(nodeid, raw.newdir, raw.flags)?)
            }
            Opcode::Link => {
                let raw: abi::LinkIn = self.take()?;
                Operation::Link { ino: raw.oldnodeid, name: self.name()? }
            }
            Opcode::Open => {
                let raw: abi::OpenIn = self.take()?;
                let kill_suidgid = raw.open_flags & flags::OPEN_KILL_SUIDGID != 0;
                Operation::Open { flags: raw.flags, kill_suidgid }
            }
            Opcode::Create => {
                let create = self.create()?;
                Operation::Create { name: self.name()?, create }
            }
            // The name that follows is a placeholder of the kernel's.
            Opcode::Tmpfile => Operation::Tmpfile(self.create()?),
            Opcode::Read => {
                let raw: abi::ReadIn = self.take()?;
                let lock_owner = (raw.read_flags & flags::READ_LOCKOWNER != 0).then_some(raw.lock_owner);
                let read = Read { fh: raw.fh, offset: raw.offset, flags: raw.flags, lock_owner };
                Operation::Read { read, size: raw.size }
            }
            Opcode::Write => self.write()?,
            Opcode::Flush => {
                let raw: abi::FlushIn = self.take()?;
                Operation::Flush { fh: raw.fh, lock_owner: raw.lock_owner }
            }
            Opcode::Release => Operation::Release(self.release()?),
            Opcode::Releasedir => Operation::Releasedir(self.release()?),
            Opcode::Fsync => {
                let raw: abi::FsyncIn = self.take()?;
                Operation::Fsync { fh: raw.fh, datasync: raw.fsync_flags & flags::FSYNC_FDATASYNC != 0 }
            }
            Opcode::Fsyncdir => {
                let raw: abi::FsyncIn = self.take()?;
                Operation::Fsyncdir { fh: raw.fh, datasync: raw.fsync_flags & flags::FSYNC_FDATASYNC != 0 }
            }
            Opcode::Fallocate => {
                let raw: abi::FallocateIn = self.take()?;
                let (fh, offset, length, mode) = (raw.fh, raw.offset, raw.length, raw.mode);
                Operation::Fallocate(Fallocate { fh, offset, length, mode })
            }
            Opcode::Lseek => {
                let raw: abi::LseekIn = self.take()?;
                Operation::Lseek { fh: raw.fh, offset: raw.offset, whence: raw.whence }
            }
            Opcode::CopyFileRange => Operation::CopyFileRange { copy: self.copy()?, wide: false },
            Opcode::CopyFileRange64 => Operation::CopyFileRange { copy: self.copy()?, wide: true },
            Opcode::Opendir => Operation::Opendir { flags: self.take::<abi::OpenIn>()?.flags },
            Opcode::Readdir => {
                let raw: abi::ReadIn = self.take()?;
                Operation::Readdir { fh: raw.fh, offset: raw.offset, size: raw.size }
            }
            Opcode::Readdirplus => {
                let raw: abi::ReadIn = self.take()?;
                Operation::Readdirplus { fh: raw.fh, offset: raw.offset, size: raw.size }
            }
            Opcode::Statfs => Operation::Statfs,
            Opcode::Syncfs => Operation::Syncfs,
            Opcode::Setxattr => self.setxattr(setxattr_ext)?,
            Opcode::Getxattr => {
                let raw: abi::GetxattrIn = self.take()?;
                Operation::Getxattr { name: self.string()?, size: raw.size }
            }
            Opcode::Listxattr => Operation::Listxattr { size: self.take::<abi::GetxattrIn>()?.size },
            Opcode::Removexattr => Operation::Removexattr { name: self.string()? },
            Opcode::Access => Operation::Access { mask: self.take::<abi::AccessIn>()?.mask },
            Opcode::Getlk => Operation::Getlk(self.lock()?),
            Opcode::Setlk => Operation::Setlk(self.lock()?),
            Opcode::Setlkw => Operation::Setlkw(self.lock()?),
            Opcode::Ioctl => self.ioctl()?,
            Opcode::Bmap
            | Opcode::Poll
            | Opcode::NotifyReply
            | Opcode::Setupmapping
            | Opcode::Removemapping => Operation::Unsupported,
        })
    }

    fn init(&mut self) -> Decoded<Operation<'a>> {
        let raw: abi::InitIn = self.take()?;
        let mut bits = u64::from(raw.flags);
        if InitFlags::from_bits_retain(bits).contains(InitFlags::INIT_EXT) {
            bits |= u64::from(self.take::<abi::InitInExt>()?.flags2) << 32;
        }
        let flags = InitFlags::from_bits_truncate(bits);
        let (major, minor, max_readahead) = (raw.major, raw.minor, raw.max_readahead);
        Ok(Operation::Init { major, minor, max_readahead, flags })
    }

    fn batch_forget(&mut self) -> Decoded<Operation<'a>> {
        let raw: abi::BatchForgetIn = self.take()?;
        let count = raw.count as usize;
        let (batch, _) = <[[[u8; 8]; 2]]>::ref_from_prefix_with_elems(self.rest, count).map_err(|_| {
            ProtocolError::Truncated {
                opcode: self.opcode,
                expected: count.saturating_mul(16),
                found: self.rest.len(),
            }
        })?;
        Ok(Operation::Forget(Forgets(ForgetSource::Batch(batch))))
    }

    fn setattr(&mut self) -> Decoded<SetAttr> {
        let raw: abi::SetattrIn = self.take()?;
        let valid = SetattrValid::from_bits_retain(raw.valid);
        let set_time = |set, now, secs, nanos| -> Decoded<Option<SetTime>> {
            Ok(if valid.contains(now) {
                Some(SetTime::Now)
            } else if valid.contains(set) {
                Some(SetTime::At(self.timestamp(secs, nanos)?))
            } else {
                None
            })
        };
        Ok(SetAttr {
            fh: valid.contains(SetattrValid::FH).then_some(raw.fh),
            mode: valid.contains(SetattrValid::MODE).then_some(raw.mode),
            uid: valid.contains(SetattrValid::UID).then_some(raw.uid),
            gid: valid.contains(SetattrValid::GID).then_some(raw.gid),
            size: valid.contains(SetattrValid::SIZE).then_some(raw.size),
            atime: set_time(SetattrValid::ATIME, SetattrValid::ATIME_NOW, raw.atime, raw.atimensec)?,
            mtime: set_time(SetattrValid::MTIME, SetattrValid::MTIME_NOW, raw.mtime, raw.mtimensec)?,
            ctime: match valid.contains(SetattrValid::CTIME) {
                true => Some(self.timestamp(raw.ctime, raw.ctimensec)?),
                false => None,
            },
            lock_owner: valid.contains(SetattrValid::LOCK_OWNER).then_some(raw.lock_owner),
            kill_suidgid: valid.contains(SetattrValid::KILL_SUIDGID),
        })
    }

    fn rename(&mut self, parent: u64, new_parent: u64, bits: u32) -> Decoded<Rename<'a>> {
        let (name, new_name) = (self.name()?, self.name()?);
        Ok(Rename { parent, name, new_parent, new_name, flags: RenameFlags::from_bits_retain(bits) })
    }

    fn create(&mut self) -> Decoded<Create> {
        let raw: abi::CreateIn = self.take()?;
        let kill_suidgid = raw.open_flags & flags::OPEN_KILL_SUIDGID != 0;
        Ok(Create { mode: raw.mode, umask: raw.umask, flags: raw.flags, kill_suidgid })
    }

    fn write(&mut self) -> Decoded<Operation<'a>> {
        let raw: abi::WriteIn = self.take()?;
        let write = Write {
            fh: raw.fh,
            offset: raw.offset,
            flags: raw.flags,
            lock_owner: (raw.write_flags & flags::WRITE_LOCKOWNER != 0).then_some(raw.lock_owner),
            from_cache: raw.write_flags & flags::WRITE_CACHE != 0,
            kill_suidgid: raw.write_flags & flags::WRITE_KILL_SUIDGID != 0,
        };
        Ok(Operation::Write { write, data: self.bytes(raw.size)? })
    }

    fn release(&mut self) -> Decoded<Release> {
        let raw: abi::ReleaseIn = self.take()?;
        Ok(Release {
            fh: raw.fh,
            flags: raw.flags,
            flock_owner: (raw.release_flags & flags::RELEASE_FLOCK_UNLOCK != 0).then_some(raw.lock_owner),
            flush: raw.release_flags & flags::RELEASE_FLUSH != 0,
        })
    }

    fn copy(&mut self) -> Decoded<CopyFileRange> {
        let raw: abi::CopyFileRangeIn = self.take()?;
        Ok(CopyFileRange {
            fh_in: raw.fh_in,
            offset_in: raw.off_in,
            ino_out: raw.nodeid_out,
            fh_out: raw.fh_out,
            offset_out: raw.off_out,
            len: raw.len,
            flags: raw.flags,
        })
    }

    fn setxattr(&mut self, ext: bool) -> Decoded<Operation<'a>> {
        let raw: abi::SetxattrIn = self.take()?;
        let more = if ext { self.take::<abi::SetxattrInExt>()? } else { abi::SetxattrInExt::default() };
        let name = self.string()?;
        Ok(Operation::Setxattr(SetXattr {
            name,
            value: self.bytes(raw.size)?,
            flags: raw.flags,
            acl_kill_sgid: more.setxattr_flags & flags::SETXATTR_ACL_KILL_SGID != 0,
        }))
    }

    fn lock(&mut self) -> Decoded<LockRequest> {
        let raw: abi::LkIn = self.take()?;
        let typ = match raw.lk.typ.cast_signed() {
            libc::F_RDLCK => LockType::Read,
            libc::F_WRLCK => LockType::Write,
            libc::F_UNLCK => LockType::Unlock,
            _ => return Err(self.bad_value("lock type", raw.lk.typ.into())),
        };
        let lock = FileLock { start: raw.lk.start, end: raw.lk.end, typ, pid: raw.lk.pid };
        let flock = raw.lk_flags & flags::LK_FLOCK != 0;
        Ok(LockRequest { fh: raw.fh, owner: raw.owner, lock, flock })
    }

    fn ioctl(&mut self) -> Decoded<Operation<'a>> {
        let raw: abi::IoctlIn = self.take()?;
        let ioctl = Ioctl {
            fh: raw.fh,
            cmd: raw.cmd,
            arg: raw.arg,
            data: self.bytes(raw.in_size)?,
            compat: raw.flags & (flags::IOCTL_COMPAT | flags::IOCTL_32BIT) != 0,
            unrestricted: raw.flags & flags::IOCTL_UNRESTRICTED != 0,
            dir: raw.flags & flags::IOCTL_DIR != 0,
        };
        Ok(Operation::Ioctl { ioctl, out_size: raw.out_size })
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
