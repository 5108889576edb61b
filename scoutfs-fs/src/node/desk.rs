// SPDX-License-Identifier: GPL-2.0-only
//! Where messages meet the server: who has received one handles it himself, if that takes no waiting, and has the server's thread
//! woken if not.
//!
//! To wake a thread takes longer than most messages, and those about locks and seqs are what mounts wait for when something is handed
//! over between them. They are handled in memory alone. Whatever may read or write the device, waits for a commit or came
//! behind such a thing is left to the server's thread (`server_host`), which also does all that goes by time.
//!
//! What must hold:
//!
//! - Messages are handled in the order in which they came: inputs are taken while the server is locked.
//! - Nothing is handled, and no answer sent, without a valid lease as the leader. Who has no lease leaves it to the server's
//!   thread, which can wait for one.
//! - Who handles a message at once never waits for a mount, for the device, or for another thread, but for memory, as the server's thread
//!   does. So only threads that do nothing but receive do it, not those of a mount that sends, which may be the ones to free memory.
//!
//! Locking: the server has a mutex, held by the server's thread for a whole round with its IO, and only tried by all others;
//! the inbox and outgoing bytes of sockets are locked under it.

use scoutfs_env::sync::{Mutex, MutexGuard};
use scoutfs_env::time;
use scoutfs_env::{Arc, Box, memory};
use scoutfs_server::Server;

use super::inbox::{Inbox, Input};
use super::leadership::Leadership;
use super::peers::Peers;
use super::server_host::MEMORY_LIMIT;
use crate::error::Result;

/// More messages than this are left to the server's thread: who receives from one mount is not kept by the others.
const MOST_AT_ONCE: usize = 64;

/// See the module.
pub(super) struct Desk {
    pub inbox: Inbox,
    /// While it runs.
    engine: Mutex<Option<Engine>>,
}

/// The server, and the mounts that it talks to.
pub(super) struct Engine {
    pub server: Box<Server>,
    pub peers: Peers,
    leadership: Arc<Leadership>,
    /// A message could not be sent: the server is to end, so that mounts ask the next one.
    pub is_mute: bool,
}

impl Desk {
    /// One at which nobody serves yet.
    pub fn new() -> Self {
        Desk { inbox: Inbox::new(), engine: Mutex::new(None) }
    }

    /// From now on messages are handled.
    pub fn open(&self, server: Box<Server>, peers: Peers, leadership: Arc<Leadership>) {
        *self.engine.lock() = Some(Engine { server, peers, leadership, is_mute: false });
    }

    /// The server for its own thread; none when the desk is not open.
    pub fn lock(&self) -> MutexGuard<'_, Option<Engine>> {
        self.engine.lock()
    }

    /// Nothing is handled any more.
    pub fn close(&self) -> Option<Engine> {
        self.inbox.close();
        self.engine.lock().take()
    }

    /// Something came from a mount. For threads that do nothing but receive; waits while too much of this mount is not handled.
    pub fn put(&self, input: Input) -> Result<()> {
        let is_message = matches!(input, Input::Message { .. });
        self.inbox.put(input)?;
        if !(is_message && self.handle_at_once()) {
            self.inbox.wake();
        }
        Ok(())
    }

    /// Handles all that has come, if nobody else is at it, and if it takes no waiting. False when there may be something left.
    fn handle_at_once(&self) -> bool {
        let Some(mut engine) = self.engine.try_lock() else { return false };
        let Some(engine) = &mut *engine else { return false };
        if engine.is_mute || !engine.leadership.is_leading() {
            return false;
        }
        let server = &engine.server;
        let at_once = |input: &Input| matches!(input, Input::Message { header, .. } if server.handles_at_once(header.kind));
        let Some(inputs) = self.inbox.take_if(MOST_AT_ONCE, at_once) else { return false };
        memory::patiently(MEMORY_LIMIT, || {
            inputs.iter().for_each(|input| engine.handle(input));
            engine.answer_at_once()
        })
    }
}

impl Engine {
    /// Hands what came to the server.
    pub fn handle(&mut self, input: &Input) {
        if let Some(incoming) = self.peers.handle(input)
            && let Input::Message { payload, .. } = input
        {
            self.server.handle(time::mono_now(), incoming.rid, &incoming.header, payload);
        }
    }

    /// Answers what was handled. False when that is for the server's thread: something must be durable first, or the server is to end.
    fn answer_at_once(&mut self) -> bool {
        if self.server.dirty() || self.server.failed().is_some() || !self.leadership.is_leading() {
            return false;
        }
        self.send();
        !self.is_mute
    }

    /// Sends what the server has to say.
    pub fn send(&mut self) {
        let mut sent = Ok(());
        while let Some(message) = self.server.poll_message() {
            sent = sent.and_then(|()| self.peers.send(message));
        }
        if let Err(e) = sent.and_then(|()| self.peers.transmit()) {
            scoutfs_env::error!("server: a message cannot be sent: {e}");
            self.is_mute = true;
        }
    }
}

#[cfg(test)]
mod tests;
