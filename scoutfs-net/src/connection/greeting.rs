// SPDX-License-Identifier: GPL-2.0-only
//! The first message both ways: do the two sides belong together?

use scoutfs_env::Vec;
use scoutfs_format::FORMAT_HASH;
use scoutfs_format::le::U64;
use scoutfs_format::msg::{Greeting, MSG_GREETING, STATUS_OK};
use zerocopy::{FromBytes, IntoBytes};

use crate::frame::{self, Frame, FrameError, Header};

/// Why two sides do not talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// Something else came first.
    #[error("a connection begins with a message of kind {kind} instead of a greeting")]
    NotGreeting {
        /// `MSG_*`.
        kind: u8,
    },
    /// The greeting has the wrong size.
    #[error("a greeting has {found} bytes, expected {expected}")]
    Length {
        /// As received.
        found: usize,
        /// As it should be.
        expected: usize,
    },
    /// Another volume.
    #[error("the other side has volume {theirs:016x}, this side has {ours:016x}")]
    Fsid {
        /// Of the other side.
        theirs: u64,
        /// Of this side.
        ours: u64,
    },
    /// Another format.
    #[error("the other side speaks format {theirs:016x}, this side speaks {ours:016x}")]
    Format {
        /// Of the other side.
        theirs: u64,
        /// Of this side.
        ours: u64,
    },
    /// A mount without a number.
    #[error("the mount that greets has rid 0")]
    NoRid,
    /// The other side does not know the volume's secret: it cannot read the device.
    #[error("the other side does not know the volume's secret")]
    Proof,
    /// The other side said no.
    #[error("the server refused the connection with status {status}")]
    Refused {
        /// `STATUS_*`.
        status: u16,
    },
    /// The server is older than one that this mount knows.
    #[error("the server has term {theirs}, but term {ours} has begun")]
    OldTerm {
        /// Of the server.
        theirs: u64,
        /// Of this side.
        ours: u64,
    },
    /// The mount knows a newer server: this one must read the voters' blocks before it does anything else.
    #[error("the mount knows term {theirs}, this server has only {ours}")]
    NewerTerm {
        /// Of the mount.
        theirs: u64,
        /// Of this side.
        ours: u64,
    },
    /// The mount wants to go on with a session that this server does not have.
    #[error("the mount has a session in term {term} that the server does not have")]
    NoSession {
        /// The term of both.
        term: u64,
    },
    /// The mount has forgotten a session in which this server has heard it.
    #[error("the mount wants a second session in term {term}")]
    SecondSession {
        /// The server's term.
        term: u64,
    },
    /// A newer socket of the same mount has been seen.
    #[error("greeting {found} of a mount came after greeting {newest}")]
    OldSocket {
        /// Number of the greeting.
        found: u64,
        /// Highest number of a greeting of the mount.
        newest: u64,
    },
}

/// A greeting from a mount, as the server sees it: right volume, right format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The mount.
    pub rid: u64,
    /// The term of the session that the mount has; 0 none.
    pub term: u64,
    /// Counts the mount's sockets: the highest is the newest.
    pub attempt: u64,
    /// All messages of the session up to this seq were received by the mount.
    pub ack: u64,
    /// Random for each socket.
    pub nonce: [u8; 16],
}

/// What a greeting says, without the header.
pub(super) fn parse<'a>(frame: &Frame<'a>, fsid: u64) -> Result<&'a Greeting, GreetingError> {
    if frame.header.kind != MSG_GREETING {
        return Err(GreetingError::NotGreeting { kind: frame.header.kind });
    }
    let greeting = Greeting::ref_from_bytes(frame.payload)
        .map_err(|_| GreetingError::Length { found: frame.payload.len(), expected: size_of::<Greeting>() })?;
    let theirs = greeting.fsid.get();
    if theirs != fsid {
        return Err(GreetingError::Fsid { theirs, ours: fsid });
    }
    let theirs = greeting.format_hash.get();
    if theirs != FORMAT_HASH {
        return Err(GreetingError::Format { theirs, ours: FORMAT_HASH });
    }
    Ok(greeting)
}

impl Hello {
    /// Checks the first frame of a socket that a server accepted. On error, [`refuse`] tells the mount why.
    pub fn parse(frame: &Frame<'_>, fsid: u64) -> Result<Hello, GreetingError> {
        let greeting = parse(frame, fsid)?;
        if frame.header.response {
            return Err(GreetingError::NotGreeting { kind: frame.header.kind });
        }
        let rid = greeting.rid.get();
        if rid == 0 {
            return Err(GreetingError::NoRid);
        }
        Ok(Hello {
            rid,
            term: greeting.term.get(),
            attempt: frame.header.id,
            ack: frame.header.ack,
            nonce: greeting.nonce,
        })
    }
}

/// Adds the answer of a server that does not want a connection to the bytes to be sent. It carries the server's
/// volume and format, so that the mount can print both sides.
pub fn refuse(fsid: u64, term: u64, status: u16, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let greeting = Greeting {
        fsid: U64::new(fsid),
        format_hash: U64::new(FORMAT_HASH),
        term: U64::new(term),
        ..Default::default()
    };
    let header = Header {
        kind: MSG_GREETING,
        response: true,
        status: if status == STATUS_OK { scoutfs_format::msg::STATUS_INVALID } else { status },
        seq: 0,
        ack: 0,
        id: 0,
        term,
    };
    frame::encode(&header, greeting.as_bytes(), out)
}
