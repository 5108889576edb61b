// SPDX-License-Identifier: GPL-2.0-only
//! Signals that ask a serving process to end: it unmounts first, so that the volume is clean and no dead mount stays.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::fuse::{UnmountMode, unmount};

/// What a signal does: ends the process as long as nothing is mounted, then unmounts.
pub struct EndSignals(Arc<Mutex<Option<PathBuf>>>);

impl EndSignals {
    /// Takes the signals over, for all threads that are started from now on. To be called before there are any.
    pub fn take_over() -> std::io::Result<Self> {
        // SAFETY: an all-zero set is overwritten by sigemptyset before it is used; the calls touch only the set and this
        // thread's mask.
        let set = unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::sigaddset(&mut set, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            set
        };
        let mounted = Arc::new(Mutex::new(None));
        let for_thread = Arc::clone(&mounted);
        std::thread::Builder::new().name("scoutfs-signals".into()).spawn(move || {
            loop {
                let mut signal = 0;
                // SAFETY: the set is valid, and `signal` outlives the call.
                let failed = unsafe { libc::sigwait(&set, &mut signal) };
                if failed != 0 {
                    return;
                }
                let mountpoint: Option<PathBuf> =
                    for_thread.lock().unwrap_or_else(|e| e.into_inner()).clone();
                match mountpoint {
                    Some(mountpoint) => end(signal, &mountpoint),
                    None => std::process::exit(128 + signal),
                }
            }
        })?;
        Ok(EndSignals(mounted))
    }

    /// From now on they unmount.
    pub fn unmount(&self, mountpoint: &Path) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(mountpoint.to_owned());
    }
}

/// Unmounts: at once if nobody uses the mount, else when its last user is gone.
fn end(signal: i32, mountpoint: &Path) {
    scoutfs_env::info!("signal {signal}: unmounting {}", mountpoint.display());
    let done = unmount(mountpoint, UnmountMode::IfIdle).or_else(|_| unmount(mountpoint, UnmountMode::Lazy));
    if let Err(e) = done {
        scoutfs_env::warn!("unmounting {}: {e}", mountpoint.display());
    }
}
