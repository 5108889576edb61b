// SPDX-License-Identifier: GPL-2.0-only
//! Do both sides know the volume's secret? Only who can read the device does.
//!
//! ```text
//! mount  -> server   greeting    its nonce
//! server -> mount    challenge   its own nonce, and its proof over both
//! mount  -> server   proof       over both
//! server -> mount    greeting    messages flow
//! ```
//!
//! A proof is HMAC-SHA-256 under the secret, of who proves, the volume, the mount, the term, the number of the socket and
//! both nonces: it cannot be used again, for another mount, or sent back to who made it. Nothing of a session changes
//! before the mount has proved.

use scoutfs_env::Vec;
use scoutfs_env::auth::{PROOF_LEN, is_proof, prove};
use scoutfs_format::msg::{Challenge, MSG_CHALLENGE, MSG_PROOF, Proof, STATUS_OK};
use zerocopy::{FromBytes, IntoBytes};

use super::greeting::{GreetingError, Hello};
use super::{ConnectionError, Secret};
use crate::frame::{self, Frame, FrameError, Header};

/// Who proves.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Mount,
    Server,
}

/// What both sides have said.
#[derive(Clone, Copy)]
pub(super) struct Said {
    pub fsid: u64,
    pub rid: u64,
    /// Of the server.
    pub term: u64,
    /// Number of the mount's socket.
    pub attempt: u64,
    pub mount_nonce: [u8; 16],
    pub server_nonce: [u8; 16],
}

impl Said {
    fn bytes(&self, side: Side) -> [u8; 80] {
        let label = match side {
            Side::Mount => *b"scoutfs mount   ",
            Side::Server => *b"scoutfs server  ",
        };
        let mut numbers = [[0; 8]; 4];
        for (bytes, number) in numbers.iter_mut().zip([self.fsid, self.rid, self.term, self.attempt]) {
            *bytes = number.to_le_bytes();
        }
        let parts =
            label.iter().chain(numbers.as_flattened()).chain(&self.mount_nonce).chain(&self.server_nonce);
        let mut all = [0; 80];
        for (to, from) in all.iter_mut().zip(parts) {
            *to = *from;
        }
        all
    }

    pub fn prove(&self, secret: &Secret, side: Side) -> [u8; PROOF_LEN] {
        prove(&secret.0, &self.bytes(side))
    }

    pub fn check(&self, secret: &Secret, side: Side, proof: &[u8; PROOF_LEN]) -> Result<(), GreetingError> {
        if is_proof(&secret.0, &self.bytes(side), proof) { Ok(()) } else { Err(GreetingError::Proof) }
    }
}

/// A server's part, for a socket that was accepted and belongs to no connection yet.
///
/// Feed it the socket's frames with [`handle_frame`](Self::handle_frame) and send what it says, until it gives the mount's
/// [`Hello`]: then it is for [`Connection::handle_hello`](super::Connection::handle_hello).
pub struct Handshake {
    fsid: u64,
    term: u64,
    secret: Secret,
    nonce: [u8; 16],
    hello: Option<Hello>,
}

impl Handshake {
    /// For a socket that the server of `term` accepted; `nonce` is random.
    pub fn new(fsid: u64, term: u64, secret: Secret, nonce: [u8; 16]) -> Self {
        Handshake { fsid, term, secret, nonce, hello: None }
    }

    /// A frame came. What is to be sent is added to `out`. On error close the socket, after [`refuse`](super::refuse) if the
    /// error is one of the greeting.
    pub fn handle_frame(
        &mut self,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Hello>, ConnectionError> {
        let Some(hello) = self.hello else {
            let hello = Hello::parse(frame, self.fsid)?;
            if hello.term > self.term {
                return Err(GreetingError::NewerTerm { theirs: hello.term, ours: self.term }.into());
            }
            let proof = self.said(&hello).prove(&self.secret, Side::Server);
            let challenge = Challenge { nonce: self.nonce, proof };
            let header = Header {
                kind: MSG_CHALLENGE,
                response: true,
                status: STATUS_OK,
                seq: 0,
                ack: 0,
                id: hello.attempt,
                term: self.term,
            };
            match frame::encode(&header, challenge.as_bytes(), out) {
                Ok(()) => {}
                Err(FrameError::NoMemory(e)) => return Err(e.into()),
                Err(_) => return Err(ConnectionError::OutOfPlace { kind: MSG_CHALLENGE }),
            }
            self.hello = Some(hello);
            return Ok(None);
        };
        if frame.header.kind != MSG_PROOF {
            return Err(ConnectionError::OutOfPlace { kind: frame.header.kind });
        }
        let proof = Proof::ref_from_bytes(frame.payload).map_err(|_| GreetingError::Length {
            found: frame.payload.len(),
            expected: size_of::<Proof>(),
        })?;
        self.said(&hello).check(&self.secret, Side::Mount, &proof.proof)?;
        Ok(Some(hello))
    }

    fn said(&self, hello: &Hello) -> Said {
        Said {
            fsid: self.fsid,
            rid: hello.rid,
            term: self.term,
            attempt: hello.attempt,
            mount_nonce: hello.nonce,
            server_nonce: self.nonce,
        }
    }
}
