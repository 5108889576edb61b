// SPDX-License-Identifier: GPL-2.0-only
//! Threads of a process (or of shuttle, which has the same names).

use std::panic;
use std::string::ToString;

use super::super::threads;
use crate::thread::SpawnError;

pub(crate) struct JoinHandle(threads::JoinHandle<()>);

pub(crate) fn spawn<F>(name: &'static str, body: F) -> Result<JoinHandle, SpawnError>
where
    F: FnOnce() + Send + 'static,
{
    threads::Builder::new()
        .name(name.to_string())
        .spawn(body)
        .map(JoinHandle)
        .map_err(|error| SpawnError { name, errno: error.raw_os_error().unwrap_or(libc::EAGAIN) })
}

impl JoinHandle {
    pub(crate) fn join(self) {
        if let Err(payload) = self.0.join() {
            panic::resume_unwind(payload);
        }
    }
}

pub(crate) fn sleep(duration: core::time::Duration) {
    threads::sleep(duration);
}
