// SPDX-License-Identifier: GPL-2.0-only
//! The threads that serve a mount.
//!
//! Each thread has a device descriptor and buffers of its own: it reads a request, calls the filesystem,
//! writes the answer. A thread is in one of three states:
//!
//! - *reading*: waits in the kernel for a request; counted in `readers`;
//! - *busy*: serves one;
//! - *parked*: waits on a condition variable, because `readers` is as large as wanted; ends after a while.
//!
//! The thread that takes a request while no other is reading brings another one to reading before it serves: a
//! parked one, or a new one up to the limit. Whoever brings a thread to reading counts it at once, so that two
//! threads do not do the same. At the limit the next thread that finishes reads again.
//!
//! Threads that wait for a lock (SETLKW) are not counted against the limit but have one of their own: else
//! waiters could keep the unlock that they wait for from being read.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::device::{Device, ReadError, RequestBuf};
use super::{SessionError, ThreadOptions, UnmountMode, unmount};
use crate::fuse::dispatch::dispatch;
use crate::fuse::filesystem::{Context, Filesystem, Negotiated};
use crate::fuse::interrupt::{Interrupt, Interrupts};
use crate::fuse::protocol::flags::InitFlags;
use crate::fuse::protocol::reply::ReplyBuf;
use crate::fuse::protocol::request::{Operation, ProtocolError, decode_header, decode_operation};
use crate::fuse::protocol::{abi, reply};
use crate::fuse::types::{LockType, Result as Answer};

/// How often DESTROY looks whether the other threads are done.
const DRAIN_POLL: Duration = Duration::from_millis(1);

pub(super) struct Pool<'a> {
    fs: &'a dyn Filesystem,
    device: &'a Device,
    setxattr_ext: bool,
    max_write: u32,
    options: ThreadOptions,
    interrupts: Interrupts,
    readers: AtomicUsize,
    mountpoint: &'a Path,
    /// Set before DESTROY waits for the other handlers; a request that comes later is not served.
    destroying: AtomicBool,
    destroyed: AtomicBool,
    state: Mutex<State>,
    unpark: Condvar,
}

#[derive(Default)]
struct State {
    /// All threads, parked ones and lock waiters too.
    threads: usize,
    lock_waiters: usize,
    parked: usize,
    /// Parked threads that were called and have not woken up yet.
    called: usize,
    ended: bool,
    error: Option<SessionError>,
}

/// What a thread needs of its own.
struct Worker {
    device: Device,
    request: RequestBuf,
    reply: ReplyBuf,
    interrupt: Arc<Interrupt>,
}

impl<'a> Pool<'a> {
    pub(super) fn new(
        fs: &'a dyn Filesystem,
        device: &'a Device,
        negotiated: &Negotiated,
        options: ThreadOptions,
        mountpoint: &'a Path,
    ) -> Self {
        let readers = options.readers.max(1);
        // One more than those that read, so that there can be a reader while all others serve.
        let max_threads = options.max_threads.max(readers.saturating_add(1));
        Self {
            fs,
            device,
            setxattr_ext: negotiated.flags.contains(InitFlags::SETXATTR_EXT),
            max_write: negotiated.max_write,
            options: ThreadOptions { readers, max_threads, ..options },
            interrupts: Interrupts::default(),
            readers: AtomicUsize::new(0),
            mountpoint,
            destroying: AtomicBool::new(false),
            destroyed: AtomicBool::new(false),
            state: Mutex::new(State::default()),
            unpark: Condvar::new(),
        }
    }

    /// Serves until the mount is gone, then calls `destroy` if the kernel has not asked for it.
    pub(super) fn run(&self) -> Result<(), SessionError> {
        let started = std::thread::scope(|scope| {
            for _ in 0..self.options.readers {
                let mut state = self.lock();
                if state.ended {
                    break;
                }
                if let Err(error) = self.spawn(scope, &mut state) {
                    if state.threads == 0 {
                        return Err(SessionError::Resources(error));
                    }
                    // Fewer threads are slower, not wrong.
                    break;
                }
            }
            Ok(())
        });
        self.destroy();
        started?;
        self.lock().error.take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn destroy(&self) {
        if !self.destroyed.swap(true, Ordering::SeqCst) {
            // A panic here must not keep `umount` waiting; the hook has reported it.
            let _ = catch_unwind(AssertUnwindSafe(|| self.fs.destroy()));
        }
    }

    /// Starts a thread that reads. Counts it, unless it fails.
    fn spawn<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, state: &mut State) -> io::Result<()> {
        let mut worker = Worker {
            device: self.device.another()?,
            request: RequestBuf::new(self.max_write)?,
            reply: ReplyBuf::new(self.max_write as usize)?,
            interrupt: self.interrupts.register(),
        };
        let interrupt = Arc::clone(&worker.interrupt);
        state.threads += 1;
        self.readers.fetch_add(1, Ordering::SeqCst);
        let body = move || {
            self.serve(scope, &mut worker);
            self.interrupts.unregister(&worker.interrupt);
        };
        if let Err(error) = Builder::new().name("fuse".to_owned()).spawn_scoped(scope, body) {
            state.threads -= 1;
            self.readers.fetch_sub(1, Ordering::SeqCst);
            self.interrupts.unregister(&interrupt);
            return Err(error);
        }
        Ok(())
    }

    /// Sees to it that a thread reads, if there is one to be had.
    fn ensure_reader<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let mut state = self.lock();
        if state.ended || self.readers.load(Ordering::SeqCst) > 0 {
            return;
        }
        if state.parked > state.called {
            state.called += 1;
            self.readers.fetch_add(1, Ordering::SeqCst);
            self.unpark.notify_one();
        } else if state.threads.saturating_sub(state.lock_waiters) < self.options.max_threads {
            // Without another thread it goes on with those there are.
            let _ = self.spawn(scope, &mut state);
        }
    }

    /// Becomes a reader again after a request. False: this thread is not needed any more and ends.
    fn read_again(&self) -> bool {
        if self.readers.fetch_add(1, Ordering::SeqCst) < self.options.readers {
            return true;
        }
        let deadline = Instant::now() + self.options.idle;
        let mut state = self.lock();
        // Readers may have left since, and have counted on this thread. The last one to come here sees it.
        if self.readers.fetch_sub(1, Ordering::SeqCst) - 1 < self.options.readers {
            self.readers.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        state.parked += 1;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.called > 0 {
                // Whoever called has counted this thread as a reader.
                state.called -= 1;
                state.parked -= 1;
                return true;
            }
            if state.ended || left.is_zero() {
                state.parked -= 1;
                return false;
            }
            state = self.unpark.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The mount is gone.
    fn end(&self) {
        self.lock().ended = true;
        self.unpark.notify_all();
        // Nobody is left who waits for an answer, though some may wait for a lock.
        self.interrupts.raise_all();
    }

    /// The mount cannot be served any more: ends it, so that neither its users nor the other threads wait for ever.
    fn fail(&self, errno: Errno) {
        self.lock().error.get_or_insert(SessionError::Io(errno));
        // It may be gone already.
        let _ = unmount(self.mountpoint, UnmountMode::Abort);
        self.end();
    }

    /// Tells the filesystem what the kernel did wrong. A panic in there is reported by the panic hook.
    fn report(&self, error: &ProtocolError) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.fs.protocol_error(error)));
    }

    fn serve<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, worker: &mut Worker) {
        loop {
            let read = worker.device.read(&mut worker.request);
            let others = self.readers.fetch_sub(1, Ordering::SeqCst) - 1;
            match read {
                Ok(()) => {}
                Err(ReadError::Unmounted) => {
                    self.end();
                    break;
                }
                Err(ReadError::NotConnected) => {
                    self.fail(Errno::PERM);
                    break;
                }
                Err(ReadError::Other(errno)) => {
                    self.fail(errno);
                    break;
                }
            }
            self.request(scope, worker, others == 0);
            if !self.read_again() {
                break;
            }
        }
        self.lock().threads -= 1;
    }

    /// Serves one request. `last`: no other thread is reading.
    fn request<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, worker: &mut Worker, last: bool) {
        let Worker { device, request, reply, interrupt } = worker;
        let header = match decode_header(request.bytes()) {
            Ok((header, _)) => header,
            Err(error) => {
                // Nobody can be answered.
                self.report(&error);
                return;
            }
        };
        let mut operation = match decode_operation(request.bytes(), self.setxattr_ext) {
            Ok(Operation::Interrupt { unique }) => {
                // Callbacks of the filesystem run in there.
                let _ = catch_unwind(AssertUnwindSafe(|| self.interrupts.raise(unique)));
                return;
            }
            other => Some(other),
        };
        // To give one back never waits.
        let waits_for_lock = matches!(&operation,
            Some(Ok(Operation::Setlkw(request))) if request.lock.typ != LockType::Unlock);
        let mut lock_waiter = None;
        if waits_for_lock {
            lock_waiter = self.lock_waiter();
            if lock_waiter.is_none() {
                operation = None;
            }
        }
        // From here on the handler may block, and someone must be reading then.
        if last {
            self.ensure_reader(scope);
        }
        self.interrupts.begin(interrupt, header.unique);
        if lock_waiter.is_some() && self.lock().ended {
            // It was read just before.
            self.interrupts.raise(header.unique);
        }
        let mut early = Early { device, unique: header.unique, wanted: header.has_reply(), sent: false };
        let answer = match operation {
            None => Err(Errno::NOLCK),
            Some(Ok(Operation::Destroy)) => {
                self.destroying.store(true, Ordering::SeqCst);
                let _ = catch_unwind(AssertUnwindSafe(|| self.fs.begin_destroy()));
                while self.interrupts.others_busy(interrupt) {
                    std::thread::sleep(DRAIN_POLL);
                }
                self.destroy();
                Ok(0)
            }
            Some(Ok(_)) if self.destroying.load(Ordering::SeqCst) => Err(Errno::NODEV),
            Some(Ok(operation)) => {
                let ctx = Context {
                    unique: header.unique,
                    uid: header.uid,
                    gid: header.gid,
                    pid: header.pid,
                    interrupt,
                };
                let mut early = |written| early.send(&written);
                let call = || dispatch(self.fs, &ctx, header.nodeid, operation, reply, &mut early);
                catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Errno::IO))
            }
            Some(Err(error)) => {
                self.report(&error);
                Err(Errno::IO)
            }
        };
        drop(lock_waiter);
        if header.has_reply() && !early.sent {
            send(device, reply, header.unique, answer);
        }
        self.interrupts.end(interrupt);
    }

    /// Counts this thread as one that waits for a lock, until the guard goes. None: there are too many.
    fn lock_waiter(&self) -> Option<LockWaiter<'_, 'a>> {
        let mut state = self.lock();
        if state.lock_waiters >= self.options.max_lock_waiters {
            return None;
        }
        state.lock_waiters += 1;
        Some(LockWaiter(self))
    }
}

struct LockWaiter<'p, 'a>(&'p Pool<'a>);

impl Drop for LockWaiter<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().lock_waiters -= 1;
    }
}

/// The answer to a write that goes on.
struct Early<'a> {
    device: &'a Device,
    unique: u64,
    wanted: bool,
    sent: bool,
}

impl Early<'_> {
    /// Sends it, once.
    fn send(&mut self, written: &abi::WriteOut) {
        if self.wanted && !self.sent {
            self.sent = true;
            // When the mount is gone, the next read says so, and nobody waits.
            let _ = self.device.write(&reply::small_message(self.unique, written));
        }
    }
}

/// Answers a request. When the mount is gone, the next read says so.
fn send(device: &Device, reply: &mut ReplyBuf, unique: u64, answer: Answer<usize>) {
    let sent = match answer {
        Ok(len) => device.write(reply.message(unique, len)),
        Err(error) => device.write(reply.error(unique, error)),
    };
    match sent {
        // ENOENT: nobody waits for it any more.
        Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
        Err(_) => {
            // The kernel does not like the answer, and without one the caller would wait for ever.
            let _ = device.write(reply.error(unique, Errno::IO));
        }
    }
}
