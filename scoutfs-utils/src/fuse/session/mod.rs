// SPDX-License-Identifier: GPL-2.0-only
//! A mount from its beginning to its end.
//!
//! | module | what |
//! | --- | --- |
//! | `mount` | `mount(2)` and `umount2(2)` |
//! | `device` | reading and writing `/dev/fuse` |
//! | `pool` | the threads that serve |
//!
//! [`Session::mount`] mounts and negotiates; from then on the mount is visible and requests queue up.
//! [`Session::run`] serves them until the mount is gone.

mod device;
mod mount;
mod pool;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use thiserror::Error;

pub use mount::{MountFlags, MountKind, MountOptions, UnmountMode, unmount};

pub(crate) use device::Device;
use device::{ReadError, RequestBuf};

use super::filesystem::{Filesystem, Negotiated};
use super::notify::Notifier;
use super::protocol::flags::InitFlags;
use super::protocol::reply::ReplyBuf;
use super::protocol::request::{Operation, decode_header, decode_operation};
use super::protocol::{MAJOR, MINOR, MINOR_MIN, abi};

/// The smallest `max_write`, so that each other request and answer fits into the buffers, too.
const MAX_WRITE_MIN: u32 = 128 << 10;
/// The largest `max_write`: what the kernel allows by default.
const MAX_WRITE_MAX: u32 = 1 << 20;

/// How many threads serve.
#[derive(Clone, Copy, Debug)]
pub struct ThreadOptions {
    /// Threads that wait for requests; more are kept parked for a while, then end.
    pub readers: usize,
    /// The most threads, those that wait for a lock (SETLKW) not counted. There is a thread for each request that waits for
    /// whatever it is, and one of those that come later may be what it waits for: so this is only what the process can bear.
    pub max_threads: usize,
    /// The most requests that the kernel sends though nobody waits for them: readahead and the like.
    pub max_background: u16,
    /// The most requests that wait for a lock at once; one more is answered ENOLCK.
    pub max_lock_waiters: usize,
    /// How long a thread without work is kept.
    pub idle: Duration,
}

impl Default for ThreadOptions {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            // One more than can run: while one finishes its request, another can take the next one
            // without waking a parked thread. With fewer, creates took twice as long.
            readers: cpus.saturating_add(1).clamp(3, 8),
            max_threads: 4096,
            max_background: 32,
            max_lock_waiters: 256,
            idle: Duration::from_secs(10),
        }
    }
}

/// How a session is set up.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The mount.
    pub mount: MountOptions,
    /// What is wanted of the kernel; what it does not offer is left out.
    pub want: InitFlags,
    /// The largest WRITE and READ in bytes, 128 KiB to 1 MiB.
    pub max_write: u32,
    /// The threads.
    pub threads: ThreadOptions,
}

impl SessionOptions {
    /// The usual options for a mount.
    pub fn new(mount: MountOptions) -> Self {
        Self { mount, want: InitFlags::DEFAULT, max_write: MAX_WRITE_MAX, threads: ThreadOptions::default() }
    }
}

/// Why a mount failed or ended.
#[derive(Debug, Error)]
pub enum SessionError {
    /// `/dev/fuse` cannot be opened.
    #[error("cannot open /dev/fuse: {0}")]
    Device(#[source] Errno),
    /// `mount(2)` failed.
    #[error("cannot mount at {}: {source}", mountpoint.display())]
    Mount {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The block device is mounted already, perhaps by a process that has died: the kernel
    /// gave us that mount once more, which this process does not serve.
    #[error("{} is mounted already; unmount that first (it is stale if nothing serves it)", device.display())]
    AlreadyMounted {
        /// The block device.
        device: PathBuf,
    },
    /// The kernel's protocol is too old or too new.
    #[error("the kernel speaks FUSE {major}.{minor}, expected {MAJOR}.{MINOR_MIN} or later")]
    Version {
        /// Its major version.
        major: u32,
        /// Its minor version.
        minor: u32,
    },
    /// The first request was not INIT.
    #[error("the kernel began with opcode {opcode}, not with INIT")]
    NoInit {
        /// What it was.
        opcode: u32,
    },
    /// The filesystem refused to begin.
    #[error("the filesystem could not begin: {0}")]
    Init(#[source] Errno),
    /// The mount was gone before it was used.
    #[error("the mount ended before it began")]
    Unmounted,
    /// Reading or writing the device failed.
    #[error("/dev/fuse failed: {0}")]
    Io(#[source] Errno),
    /// No memory or no thread.
    #[error("cannot get memory or threads: {0}")]
    Resources(#[source] io::Error),
}

/// Unmounts a mount that nobody serves: lazily, since its users wait for answers that do not come.
#[derive(Debug)]
struct UnmountOnDrop(Option<PathBuf>);

impl Drop for UnmountOnDrop {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may be gone already; there is nobody to tell.
            let _ = unmount(path, UnmountMode::Abort);
        }
    }
}

/// A mount whose requests queue up until [`run`](Self::run). Dropped before, it unmounts.
pub struct Session {
    fs: Arc<dyn Filesystem>,
    device: Arc<Device>,
    negotiated: Negotiated,
    threads: ThreadOptions,
    mountpoint: PathBuf,
    guard: UnmountOnDrop,
}

impl Session {
    /// Mounts and negotiates. On an error nothing stays mounted.
    pub fn mount(fs: Arc<dyn Filesystem>, options: &SessionOptions) -> Result<Self, SessionError> {
        let max_write = options.max_write.clamp(MAX_WRITE_MIN, MAX_WRITE_MAX).next_multiple_of(4096);
        let device = Arc::new(Device::open().map_err(SessionError::Device)?);
        let mountpoint = mount::mount(&options.mount, &device, max_write)
            .map_err(|source| SessionError::Mount { mountpoint: options.mount.mountpoint.clone(), source })?;
        let handshake = Handshake { fs: &*fs, device: &device, options, max_write };
        let negotiated = match handshake.run() {
            Ok(negotiated) => negotiated,
            Err(error) => {
                // Not by an abort: if the device was mounted already, that would hit the other mount.
                let _ = unmount(&mountpoint, UnmountMode::Lazy);
                return Err(error);
            }
        };
        let guard = UnmountOnDrop(Some(mountpoint.clone()));
        if let Some(kib) = options.mount.read_ahead_kib {
            // Slower reads are no reason not to mount.
            let _ = mount::set_read_ahead(&mountpoint, &options.mount.kind, kib);
        }
        let threads = options.threads;
        Ok(Self { fs, device, negotiated, threads, mountpoint, guard })
    }

    /// What was agreed with the kernel.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Where it is mounted: absolute, without symlinks.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// For telling the kernel to forget things.
    pub fn notifier(&self) -> Notifier {
        Notifier::new(Arc::clone(&self.device))
    }

    /// Serves until the mount is gone and `destroy` has returned.
    pub fn run(mut self) -> Result<(), SessionError> {
        let pool = pool::Pool::new(&*self.fs, &self.device, &self.negotiated, self.threads, &self.mountpoint);
        let result = pool.run();
        if result.is_ok() {
            self.guard.0 = None;
        }
        result
    }
}

/// The exchange of INIT.
struct Handshake<'a> {
    fs: &'a dyn Filesystem,
    device: &'a Arc<Device>,
    options: &'a SessionOptions,
    max_write: u32,
}

impl Handshake<'_> {
    fn run(&self) -> Result<Negotiated, SessionError> {
        let mut request = RequestBuf::new(self.max_write).map_err(SessionError::Resources)?;
        let mut reply = ReplyBuf::new(0).map_err(SessionError::Resources)?;
        loop {
            self.device.read(&mut request).map_err(|error| self.read_error(error))?;
            let Ok((header, _)) = decode_header(request.bytes()) else {
                return Err(SessionError::NoInit { opcode: 0 });
            };
            let Ok(Operation::Init { major, minor, max_readahead, flags }) =
                decode_operation(request.bytes(), false)
            else {
                return Err(SessionError::NoInit { opcode: header.opcode });
            };
            if major > MAJOR {
                // The kernel asks again, in the version that it is told here.
                let len = reply.put(&abi::InitOut { major: MAJOR, minor: MINOR, ..Default::default() });
                self.device.write(reply.message(header.unique, len)).map_err(SessionError::Io)?;
                continue;
            }
            let refuse = |reply: &mut ReplyBuf, errno| {
                // The mount is given up in any case.
                let _ = self.device.write(reply.error(header.unique, errno));
            };
            if major < MAJOR || minor < MINOR_MIN {
                refuse(&mut reply, Errno::PROTO);
                return Err(SessionError::Version { major, minor });
            }
            let negotiated = Negotiated {
                kernel_minor: minor,
                offered: flags,
                flags: flags & self.options.want,
                max_write: self.max_write,
            };
            if let Err(errno) = self.fs.init(&negotiated, Notifier::new(Arc::clone(self.device))) {
                refuse(&mut reply, errno);
                return Err(SessionError::Init(errno));
            }
            let len = reply.put(&self.answer(&negotiated, max_readahead));
            self.device.write(reply.message(header.unique, len)).map_err(SessionError::Io)?;
            return Ok(negotiated);
        }
    }

    fn answer(&self, negotiated: &Negotiated, max_readahead: u32) -> abi::InitOut {
        let background = self.options.threads.max_background.max(1);
        let bits = negotiated.flags.bits();
        abi::InitOut {
            major: MAJOR,
            minor: MINOR,
            max_readahead,
            flags: bits as u32,
            max_background: background,
            congestion_threshold: background - background / 4,
            max_write: self.max_write,
            time_gran: 1,
            // At most 256, by MAX_WRITE_MAX.
            max_pages: (self.max_write / 4096) as u16,
            flags2: (bits >> 32) as u32,
            ..Default::default()
        }
    }

    fn read_error(&self, error: ReadError) -> SessionError {
        match (error, &self.options.mount.kind) {
            (ReadError::NotConnected, MountKind::Block { device, .. }) => {
                SessionError::AlreadyMounted { device: device.clone() }
            }
            (ReadError::NotConnected, MountKind::Plain { .. }) => SessionError::Io(Errno::PERM),
            (ReadError::Unmounted, _) => SessionError::Unmounted,
            (ReadError::Other(errno), _) => SessionError::Io(errno),
        }
    }
}
