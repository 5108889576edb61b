// SPDX-License-Identifier: GPL-2.0-only
//! A thin FUSE layer: it mounts, reads requests from `/dev/fuse`, calls a [`Filesystem`] and answers.
//!
//! It speaks to the kernel directly (`mount(2)`, `/dev/fuse`), so it needs root but neither libfuse nor
//! `fusermount`. It knows nothing of any particular filesystem.
//!
//! | module | what |
//! | --- | --- |
//! | `protocol` | the bytes: structs, opcodes, flags; decoding of requests, encoding of replies |
//! | `types` | what a filesystem is asked and answers: attributes, entries, arguments |
//! | `filesystem` | the [`Filesystem`] trait, one method for each operation |
//! | `dispatch` | one decoded request -> one call of the trait -> one encoded reply |
//! | `buffer` | page-aligned buffers, so that a filesystem can use O_DIRECT without copying |
//! | `interrupt` | how a waiting request learns that its caller gave up |
//! | `session` | mounting, negotiation, the device, the threads |
//! | `notify` | telling the kernel to forget what it caches |
//! | [`loopdev`] | a block device for a volume that is a file |
//! | [`daemon`] | going to the background once the mount serves |
//!
//! # What must hold
//!
//! - Every request that has a reply gets exactly one, on the device descriptor it was read from: also when
//!   it is malformed (EIO), unknown (ENOSYS), or its handler panics (EIO). A request without one hangs its caller for good.
//! - No byte sequence read from the device makes the layer panic.
//! - A free reader exists while any handler waits, up to [`ThreadOptions::max_threads`]: otherwise a waiting
//!   lock could never be interrupted nor the request read that would release it.
//! - `destroy` runs once, after every other handler has returned, and before `umount` returns (fuseblk).
//! - Notifications are never sent from a thread that serves a request: the kernel may wait in them for
//!   requests that only that thread could serve.
//!
//! # Locks
//!
//! The pool's mutex and each `Interrupt`'s mutex are leaves: no filesystem method is called under either,
//! except the callback given to [`Interrupt::on_interrupt`], which must not block.

mod buffer;
pub mod daemon;
mod dispatch;
mod filesystem;
mod interrupt;
pub mod loopdev;
mod notify;
mod protocol;
mod session;
mod types;

pub use buffer::ReadBuf;
pub use filesystem::{Context, Filesystem, Negotiated};
pub use interrupt::{Interrupt, InterruptGuard};
pub use notify::Notifier;
pub use protocol::flags::{InitFlags, OpenReplyFlags};
pub use protocol::reply::{DirPlusSink, DirSink};
pub use protocol::request::{Forgets, ProtocolError};
pub use session::{
    MountFlags, MountKind, MountOptions, Session, SessionError, SessionOptions, ThreadOptions, UnmountMode,
    unmount,
};
pub use types::*;

/// Decodes a request and says what it is, as text for people and for tests. `setxattr_ext` is whether the kernel sends the longer
/// form of SETXATTR.
pub fn describe_request(bytes: &[u8], setxattr_ext: bool) -> Result<String, ProtocolError> {
    protocol::request::decode_header(bytes)?;
    Ok(format!("{:?}", protocol::request::decode_operation(bytes, setxattr_ext)?))
}
