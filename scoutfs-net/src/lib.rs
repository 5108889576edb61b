// SPDX-License-Identifier: GPL-2.0-only
//! How nodes talk, and how they choose who serves: framing, greeting, resend and election, as state machines.
//!
//! | module | what |
//! | --- | --- |
//! | [`frame`] | messages to bytes and back, over a stream that may be cut anywhere |
//! | [`connection`] | [`Connection`]: one mount and one server, over any number of sockets |
//! | [`quorum`] | [`Voter`]: the election over the voter slots; [`VoterBlock`]: what a slot holds |
//! | [`address`] | network addresses as they are stored |
//!
//! # What must hold
//!
//! - Nothing here does IO, reads a clock, draws a random number or starts a thread: bytes, time and randomness
//!   are arguments, and what is to be done is returned.
//! - Bytes from a socket or a device are hostile. They become the types of this crate only after they were
//!   checked, and an error says what was found and what was expected.
//!
//! # Locks
//!
//! None. A machine belongs to one thread at a time; its host puts a lock around it where several use it.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod address;
pub mod connection;
pub mod frame;
pub mod quorum;

pub use connection::{Connection, ConnectionError, Event, Hello, RequestId};
pub use frame::{Decoder, Frame, FrameError};
pub use quorum::{Timing, Voter, VoterBlock};
