// SPDX-License-Identifier: GPL-2.0-only
//! Answers -> bytes, in the buffer that is written to the device.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

use super::abi;
use crate::fuse::buffer::{ALIGN, AlignedBuf};
use crate::fuse::types::*;

/// Bytes of the header before each answer.
const HEADER: usize = size_of::<abi::OutHeader>();

/// A reply under construction. The answer begins on a page, the header lies right before it, so that data
/// of a read are page-aligned and everything goes out in one piece.
#[derive(Debug)]
pub(crate) struct ReplyBuf(AlignedBuf);

impl ReplyBuf {
    /// Makes room for answers of `len` bytes, and for each of the structs in any case.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        Ok(Self(AlignedBuf::new(len.div_ceil(ALIGN).max(1).saturating_add(1))?))
    }

    /// The answer's memory. It may hold an earlier answer.
    pub(crate) fn body(&mut self) -> &mut [u8] {
        &mut self.0[ALIGN..]
    }

    /// Makes `value` the answer and returns its length.
    pub(crate) fn put<T: IntoBytes + Immutable>(&mut self, value: &T) -> usize {
        let bytes = value.as_bytes();
        self.body()[..bytes.len()].copy_from_slice(bytes);
        bytes.len()
    }

    /// As [`put`](Self::put), behind `at` bytes; None if there is no room. Returns the end.
    pub(crate) fn put_at<T: IntoBytes + Immutable>(&mut self, at: usize, value: &T) -> Option<usize> {
        let bytes = value.as_bytes();
        let end = at.checked_add(bytes.len())?;
        self.body().get_mut(at..end)?.copy_from_slice(bytes);
        Some(end)
    }

    /// The message that answers `unique` with the first `len` bytes of the answer.
    pub(crate) fn message(&mut self, unique: u64, len: usize) -> &[u8] {
        let end = (ALIGN + len).min(self.0.len());
        self.finish(unique, 0, end)
    }

    /// The message that answers `unique` with an error.
    pub(crate) fn error(&mut self, unique: u64, error: Errno) -> &[u8] {
        // The kernel refuses larger numbers, and a refused reply leaves the caller waiting.
        let number = match error.raw_os_error() {
            number @ 1..=511 => number,
            _ => Errno::IO.raw_os_error(),
        };
        self.finish(unique, -number, ALIGN)
    }

    fn finish(&mut self, unique: u64, error: i32, end: usize) -> &[u8] {
        let start = ALIGN - HEADER;
        let header = abi::OutHeader { len: (end - start) as u32, error, unique };
        self.0[start..ALIGN].copy_from_slice(header.as_bytes());
        &self.0[start..end]
    }
}

/// The message that answers `unique` with bytes written.
pub(crate) fn small_message(
    unique: u64,
    written: &abi::WriteOut,
) -> [u8; HEADER + size_of::<abi::WriteOut>()] {
    let mut message = [0; HEADER + size_of::<abi::WriteOut>()];
    let header = abi::OutHeader { len: message.len() as u32, error: 0, unique };
    let (front, body) = message.split_at_mut(HEADER);
    front.copy_from_slice(header.as_bytes());
    body.copy_from_slice(written.as_bytes());
    message
}

/// Attributes as the kernel wants them.
fn attr_body(attr: &Attr) -> abi::AttrOutBody {
    abi::AttrOutBody {
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.secs.cast_unsigned(),
        mtime: attr.mtime.secs.cast_unsigned(),
        ctime: attr.ctime.secs.cast_unsigned(),
        atimensec: attr.atime.nanos,
        mtimensec: attr.mtime.nanos,
        ctimensec: attr.ctime.nanos,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: attr.blksize,
        flags: 0,
    }
}

pub(crate) fn attr_out(reply: &AttrReply) -> abi::AttrOut {
    abi::AttrOut {
        attr_valid: reply.timeout.as_secs(),
        attr_valid_nsec: reply.timeout.subsec_nanos(),
        padding: 0,
        attr: attr_body(&reply.attr),
    }
}

pub(crate) fn entry_out(entry: &Entry) -> abi::EntryOut {
    abi::EntryOut {
        nodeid: entry.ino,
        generation: entry.generation,
        entry_valid: entry.entry_timeout.as_secs(),
        attr_valid: entry.attr_timeout.as_secs(),
        entry_valid_nsec: entry.entry_timeout.subsec_nanos(),
        attr_valid_nsec: entry.attr_timeout.subsec_nanos(),
        attr: attr_body(&entry.attr),
    }
}

pub(crate) fn open_out(opened: &Opened) -> abi::OpenOut {
    abi::OpenOut { fh: opened.fh, open_flags: opened.flags.bits(), backing_id: 0 }
}

pub(crate) fn statx_out(reply: &StatxReply) -> abi::StatxOut {
    let time = |t: Timestamp| abi::StatxTime { sec: t.secs, nsec: t.nanos, reserved: 0 };
    let attr = &reply.attr;
    abi::StatxOut {
        attr_valid: reply.timeout.as_secs(),
        attr_valid_nsec: reply.timeout.subsec_nanos(),
        flags: 0,
        spare: [0; 2],
        stat: abi::StatxOutBody {
            mask: reply.mask,
            blksize: attr.blksize,
            attributes: reply.attributes,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            // File type and permissions have 16 bits.
            mode: attr.mode as u16,
            ino: attr.ino,
            size: attr.size,
            blocks: attr.blocks,
            attributes_mask: reply.attributes_mask,
            atime: time(attr.atime),
            btime: time(reply.btime),
            ctime: time(attr.ctime),
            mtime: time(attr.mtime),
            rdev_major: (attr.rdev >> 8) & 0xfff,
            rdev_minor: (attr.rdev & 0xff) | ((attr.rdev >> 12) & 0xf_ff00),
            ..Default::default()
        },
    }
}

pub(crate) fn statfs_out(statfs: &Statfs) -> abi::StatfsOut {
    abi::StatfsOut {
        blocks: statfs.blocks,
        bfree: statfs.bfree,
        bavail: statfs.bavail,
        files: statfs.files,
        ffree: statfs.ffree,
        bsize: statfs.bsize,
        namelen: statfs.namelen,
        frsize: statfs.frsize,
        ..Default::default()
    }
}

pub(crate) fn lock_out(lock: &FileLock) -> abi::FileLockBody {
    let typ = match lock.typ {
        LockType::Read => libc::F_RDLCK,
        LockType::Write => libc::F_WRLCK,
        LockType::Unlock => libc::F_UNLCK,
    };
    abi::FileLockBody { start: lock.start, end: lock.end, typ: typ.cast_unsigned(), pid: lock.pid }
}

/// Collects the entries of a readdir.
#[derive(Debug)]
pub struct DirSink<'a> {
    memory: &'a mut [u8],
    len: usize,
}

impl<'a> DirSink<'a> {
    pub(crate) fn new(memory: &'a mut [u8]) -> Self {
        Self { memory, len: 0 }
    }

    /// Bytes used.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds an entry, or returns false if it does not fit; the next readdir asks for it again.
    ///
    /// `next_offset` is where a readdir goes on after this entry. Of `mode` only the file type counts.
    #[must_use]
    pub fn add(&mut self, ino: u64, next_offset: u64, mode: u32, name: &[u8]) -> bool {
        self.add_parts(&[], ino, next_offset, mode, name)
    }

    fn add_parts(&mut self, prefix: &[u8], ino: u64, next_offset: u64, mode: u32, name: &[u8]) -> bool {
        let typ = (mode & libc::S_IFMT) >> 12;
        let Ok(namelen) = u32::try_from(name.len()) else { return false };
        let dirent = abi::Dirent { ino, off: next_offset, namelen, typ };
        let used = prefix.len() + size_of::<abi::Dirent>() + name.len();
        let padded = used.next_multiple_of(8);
        let Some(end) = self.len.checked_add(padded) else { return false };
        let Some(mut room) = self.memory.get_mut(self.len..end) else { return false };
        for part in [prefix, dirent.as_bytes(), name] {
            let (now, later) = room.split_at_mut(part.len());
            now.copy_from_slice(part);
            room = later;
        }
        room.fill(0);
        self.len = end;
        true
    }
}

/// Collects the entries of a readdirplus.
#[derive(Debug)]
pub struct DirPlusSink<'a>(DirSink<'a>);

impl<'a> DirPlusSink<'a> {
    pub(crate) fn new(memory: &'a mut [u8]) -> Self {
        Self(DirSink::new(memory))
    }

    /// Bytes used.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds an entry, or returns false if it does not fit. One that was added counts as a lookup of its inode.
    ///
    /// "." and ".." and entries whose attributes are not at hand go by [`add_plain`](Self::add_plain).
    #[must_use]
    pub fn add(&mut self, entry: &Entry, next_offset: u64, name: &[u8]) -> bool {
        let prefix = entry_out(entry);
        self.0.add_parts(prefix.as_bytes(), entry.attr.ino, next_offset, entry.attr.mode, name)
    }

    /// Adds an entry as readdir would, or returns false if it does not fit. It does not count as a lookup.
    #[must_use]
    pub fn add_plain(&mut self, ino: u64, next_offset: u64, mode: u32, name: &[u8]) -> bool {
        let prefix = entry_out(&Entry::negative(Duration::ZERO));
        self.0.add_parts(prefix.as_bytes(), ino, next_offset, mode, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    fn header(message: &[u8]) -> abi::OutHeader {
        abi::OutHeader::read_from_prefix(message).unwrap().0
    }

    #[test]
    fn a_reply_states_its_length_and_follows_its_header() {
        let mut reply = ReplyBuf::new(4096).unwrap();
        let len = reply.put(&abi::WriteOut { size: 7, padding: 0 });
        let message = reply.message(42, len);
        let h = header(message);
        assert_eq!((h.len, h.error, h.unique), (24, 0, 42));
        assert_eq!(message.len(), 24);
        assert_eq!(message[16], 7);
        assert_eq!(reply.body().as_ptr() as usize % 4096, 0);
        let error = reply.error(43, Errno::NOENT);
        assert_eq!((error.len(), header(error).error), (16, -libc::ENOENT));
    }

    #[test]
    fn errors_that_the_kernel_refuses_become_eio() {
        let mut reply = ReplyBuf::new(0).unwrap();
        for raw in [512, 524, 4095] {
            let message = reply.error(1, Errno::from_raw_os_error(raw));
            assert_eq!(header(message).error, -libc::EIO);
        }
    }

    #[test]
    fn directory_entries_are_padded_and_never_cut() {
        let mut memory = [0xff_u8; 24 + 8 + 24 + 8 + 7];
        let mut sink = DirSink::new(&mut memory);
        assert!(sink.add(5, 1, libc::S_IFDIR | 0o755, b"a"));
        assert!(sink.add(6, 2, libc::S_IFREG, b"12345678"));
        assert!(!sink.add(7, 3, libc::S_IFREG, b""));
        assert_eq!(sink.len(), 64);
        let (first, rest) = abi::Dirent::read_from_prefix(&memory).unwrap();
        assert_eq!((first.ino, first.off, first.namelen, first.typ), (5, 1, 1, 4));
        assert_eq!(&rest[..8], b"a\0\0\0\0\0\0\0");
    }

    #[test]
    fn device_numbers_split_as_the_kernel_encodes_them() {
        // Major 0x123, minor 0x45678.
        let rdev = 0x78 | (0x123 << 8) | (0x456_u32 << 20);
        let attr = Attr { rdev, ..Attr::default() };
        let out = statx_out(&StatxReply { attr, ..StatxReply::default() });
        assert_eq!((out.stat.rdev_major, out.stat.rdev_minor), (0x123, 0x45678));
    }
}
