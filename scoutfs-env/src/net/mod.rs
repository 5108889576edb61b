// SPDX-License-Identifier: GPL-2.0-only
//! The network between nodes, as the core sees it: streams of bytes that arrive whole and in order, or end.
//!
//! | module | what |
//! | --- | --- |
//! | this | [`Network`], [`Listener`], [`Stream`], [`NetError`] |
//! | `pipe` | [`pipe`]: a stream within the process |
//! | `tcp` | (std) [`TcpNetwork`]: TCP over IPv4 and IPv6 |
//!
//! # What must hold
//!
//! - A stream that has failed or ended stays so; whoever waits in it returns. What was sent may have arrived or not: who
//!   needs to know has the other side say so.
//! - [`Stream::shutdown`] and [`Listener::shutdown`] may be called from any thread, also while others wait, who then return.
//! - One thread receives from a stream and one sends to it at a time; the two do not wait for each other.

mod pipe;
#[cfg(feature = "std")]
mod tcp;

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

pub use pipe::{Pipe, pipe};
#[cfg(feature = "std")]
pub use tcp::{TcpNetwork, TcpTuning};

use crate::Box;

/// What failed in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetOp {
    /// To listen at an address.
    Listen,
    /// To take a stream that another node opens.
    Accept,
    /// To open a stream to another node.
    Connect,
    /// To receive.
    Receive,
    /// To send.
    Send,
}

/// The network failed, or the other node did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetError {
    /// What was to be done.
    pub op: NetOp,
    /// Why, as an `errno` of Linux; 0 when it was ended by [`Stream::shutdown`] or [`Listener::shutdown`].
    pub errno: i32,
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.op {
            NetOp::Listen => "listening",
            NetOp::Accept => "accepting a connection",
            NetOp::Connect => "connecting",
            NetOp::Receive => "receiving",
            NetOp::Send => "sending",
        };
        write!(f, "{what}: errno {}", self.errno)
    }
}

impl core::error::Error for NetError {}

/// A stream of bytes to and from another node.
pub trait Stream: Send + Sync {
    /// Waits for bytes and receives up to as many as `buf` has room for. 0 says that the other side has ended the stream.
    fn receive(&self, buf: &mut [u8]) -> Result<usize, NetError>;

    /// Sends all bytes; waits while the other side does not take them. After an error some may have been sent.
    fn send(&self, bytes: &[u8]) -> Result<(), NetError>;

    /// Sends as many of the bytes as the other side takes without waiting; 0 says no more than that it would wait now.
    fn try_send(&self, bytes: &[u8]) -> Result<usize, NetError> {
        let _ = bytes;
        Ok(0)
    }

    /// Ends both directions.
    fn shutdown(&self);
}

/// Where other nodes open streams to.
pub trait Listener: Send + Sync {
    /// Waits for the next stream.
    fn accept(&self) -> Result<Box<dyn Stream>, NetError>;

    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// Ends it: nobody can connect any more.
    fn shutdown(&self);
}

/// The network of a node.
pub trait Network: Send + Sync {
    /// Listens at an address of this node. Port 0 is any free one.
    fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>, NetError>;

    /// Opens a stream to another node; gives up after `timeout`.
    fn connect(&self, address: SocketAddr, timeout: Duration) -> Result<Box<dyn Stream>, NetError>;
}
