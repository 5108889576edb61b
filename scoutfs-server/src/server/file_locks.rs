// SPDX-License-Identifier: GPL-2.0-only
//! Locks that programs have on files: feeds their machine and sends what it says.
//!
//! Nothing of this is durable. A mount's locks go when its membership ends, as its cluster locks do; a new server answers nothing
//! before every member that it found live has told what it holds, or is gone.

use scoutfs_env::Vec;
use scoutfs_format::msg::{
    FileLock as RawLock, FileLockRequest as RawRequest, MSG_FILE_LOCK, STATUS_INVALID, STATUS_OK,
};
use scoutfs_lock::LockError;
use scoutfs_lock::file_locks::{FileLock, FileLockOutput, FileLockRequest};
use zerocopy::FromBytes;

use super::locks::lock_handled;
use super::{Answer, Handled, Outgoing, Refusal, Server, bytes_of, parse};
use crate::error::ServerError;

impl Server {
    /// A program on a mount wants something of a lock. It may be answered much later.
    pub(super) fn file_lock_request(&mut self, from: u64, id: u64, payload: &[u8]) -> Handled {
        let request = FileLockRequest::from_raw(&parse::<RawRequest>(payload)?);
        let handled = request.and_then(|request| self.file_locks.handle_request(from, id, &request));
        lock_handled(from, handled)?;
        self.send_file_locks()?;
        Ok(Answer::Later)
    }

    /// A mount that was a member under a former server says which locks its programs hold.
    pub(super) fn file_lock_report(&mut self, from: u64, payload: &[u8]) -> Handled {
        let raws = <[RawLock]>::ref_from_bytes(payload).map_err(|_| Refusal::Status(STATUS_INVALID))?;
        for raw in raws {
            let handled = FileLock::from_raw(raw).and_then(|lock| self.file_locks.handle_report(from, &lock));
            lock_handled(from, handled)?;
        }
        self.send_file_locks()?;
        Ok(Answer::Now(Vec::new()))
    }

    /// Sends what the machine has to say.
    pub(super) fn send_file_locks(&mut self) -> Result<(), ServerError> {
        let failed = |e| match e {
            LockError::NoMemory(_) => ServerError::NoMemory,
            // Answers have no other errors.
            _ => ServerError::Stopped,
        };
        while let Some(output) = self.file_locks.poll_output().map_err(failed)? {
            let FileLockOutput { client: to, token: id, reply } = output;
            let payload = bytes_of(&reply.to_raw())?;
            let (kind, status) = (MSG_FILE_LOCK, STATUS_OK);
            self.send(Outgoing { to, kind, response: true, status, id, payload }, false);
        }
        Ok(())
    }
}
