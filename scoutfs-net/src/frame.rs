// SPDX-License-Identifier: GPL-2.0-only
//! Messages as bytes on a stream.
//!
//! A frame is a [`MessageHeader`] and its payload; the crc covers both. A stream delivers bytes in pieces of
//! any size, and a broken frame leaves no way to find the next one, so an error ends the stream.

use core::mem::offset_of;

use scoutfs_env::crc32c::crc32c;
use scoutfs_env::{AllocError, Vec};
use scoutfs_format::le::{U16, U32, U64};
use scoutfs_format::msg::{MAGIC_MESSAGE, MAX_PAYLOAD, MSG_RESPONSE, MessageHeader};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of the header.
pub const HEADER_LEN: usize = size_of::<MessageHeader>();
/// Bytes of the largest frame.
pub const MAX_FRAME: usize = HEADER_LEN + MAX_PAYLOAD;
/// The crc covers everything from here.
const CRC_FROM: usize = offset_of!(MessageHeader, magic);

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something else than a message.
    #[error("a message begins with magic {found:#010x}, expected {MAGIC_MESSAGE:#010x}")]
    Magic {
        /// As received.
        found: u32,
    },
    /// The payload is too large.
    #[error("a message of kind {kind} has a payload of {len} bytes, at most {MAX_PAYLOAD} are allowed")]
    TooLong {
        /// `MSG_*`.
        kind: u8,
        /// Bytes of the payload.
        len: usize,
    },
    /// The message was damaged on its way.
    #[error("a message of kind {kind} has crc {found:#010x}, its bytes have {expected:#010x}")]
    Crc {
        /// `MSG_*`.
        kind: u8,
        /// As received.
        found: u32,
        /// Of the bytes received.
        expected: u32,
    },
    /// Flags without a meaning.
    #[error("a message of kind {kind} has the unknown flags {flags:#04x}")]
    Flags {
        /// `MSG_*`.
        kind: u8,
        /// As received.
        flags: u8,
    },
    /// No memory.
    #[error(transparent)]
    NoMemory(#[from] AllocError),
}

/// The fields of a header that its sender decides; length and crc follow from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `MSG_*`.
    pub kind: u8,
    /// Whether it answers a request.
    pub response: bool,
    /// `STATUS_*`; 0 in requests.
    pub status: u16,
    /// Order of sending in the session, from 1; 0 outside of it.
    pub seq: u64,
    /// All messages up to this seq were received.
    pub ack: u64,
    /// Id of the request.
    pub id: u64,
    /// Term of the server.
    pub term: u64,
}

/// A message that was received whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its payload, at most [`MAX_PAYLOAD`] bytes.
    pub payload: &'a [u8],
}

/// Adds a frame to the bytes to be sent. On failure `out` is unchanged.
pub fn encode(header: &Header, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    let len = match u32::try_from(payload.len()) {
        Ok(len) if payload.len() <= MAX_PAYLOAD => len,
        _ => {
            return Err(FrameError::TooLong { kind: header.kind, len: payload.len() });
        }
    };
    let mut raw = MessageHeader {
        crc: U32::ZERO,
        magic: U32::new(MAGIC_MESSAGE),
        payload_len: U32::new(len),
        kind: header.kind,
        flags: if header.response { MSG_RESPONSE } else { 0 },
        status: U16::new(header.status),
        seq: U64::new(header.seq),
        ack: U64::new(header.ack),
        id: U64::new(header.id),
        term: U64::new(header.term),
    };
    raw.crc = U32::new(frame_crc(&raw, payload));
    out.reserve(HEADER_LEN + payload.len())?;
    out.extend_from_slice(raw.as_bytes())?;
    out.extend_from_slice(payload)?;
    Ok(())
}

fn frame_crc(raw: &MessageHeader, payload: &[u8]) -> u32 {
    let covered = raw.as_bytes().get(CRC_FROM..).unwrap_or_default();
    scoutfs_env::crc32c::crc32c_append(crc32c(covered), payload)
}

/// Cuts a stream of bytes into frames.
///
/// Give it what was read with [`push`](Self::push), then take frames with [`next`](Self::next) until there is
/// none. It holds at most one unfinished frame besides what was pushed last. After an error it is of no more use.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that were already given out.
    taken: usize,
}

impl Decoder {
    /// A decoder for the start of a stream.
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), taken: 0 }
    }

    /// Adds bytes that were received. On failure nothing is added.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), AllocError> {
        self.buffer.drain(..self.taken.min(self.buffer.len()));
        self.taken = 0;
        self.buffer.extend_from_slice(bytes)
    }

    /// The next frame, or `None` until more bytes are pushed. The header is checked as soon as it is there, so a
    /// stream of rubbish is refused before its supposed payload is gathered.
    // Not an iterator: a frame borrows the decoder.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Ok((raw, body)) = MessageHeader::read_from_prefix(rest) else {
            return Ok(None);
        };
        let kind = raw.kind;
        if raw.magic.get() != MAGIC_MESSAGE {
            return Err(FrameError::Magic { found: raw.magic.get() });
        }
        let len = raw.payload_len.get() as usize;
        if len > MAX_PAYLOAD {
            return Err(FrameError::TooLong { kind, len });
        }
        let Some(payload) = body.get(..len) else {
            return Ok(None);
        };
        let expected = frame_crc(&raw, payload);
        if raw.crc.get() != expected {
            return Err(FrameError::Crc { kind, found: raw.crc.get(), expected });
        }
        if raw.flags & !MSG_RESPONSE != 0 {
            return Err(FrameError::Flags { kind, flags: raw.flags });
        }
        self.taken += HEADER_LEN + len;
        Ok(Some(Frame {
            header: Header {
                kind,
                response: raw.flags & MSG_RESPONSE != 0,
                status: raw.status.get(),
                seq: raw.seq.get(),
                ack: raw.ack.get(),
                id: raw.id.get(),
                term: raw.term.get(),
            },
            payload,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = Header> {
        (any::<(u8, bool, u16)>(), any::<(u64, u64, u64, u64)>()).prop_map(
            |((kind, response, status), (seq, ack, id, term))| Header {
                kind,
                response,
                status,
                seq,
                ack,
                id,
                term,
            },
        )
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting_of_the_stream(
            frames in vec((any_header(), vec(any::<u8>(), 0..300)), 1..8),
            cuts in vec(1usize..200, 1..50),
        ) {
            let mut stream = Vec::new();
            for (header, payload) in &frames {
                encode(header, payload, &mut stream).unwrap();
            }
            let mut decoder = Decoder::new();
            let mut got = std::vec::Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                rest = after;
                decoder.push(piece).unwrap();
                while let Some(frame) = decoder.next().unwrap() {
                    got.push((frame.header, frame.payload.to_vec()));
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn any_flipped_bit_is_noticed_or_waits_for_more(
            header in any_header(),
            payload in vec(any::<u8>(), 0..100),
            bit: prop::sample::Index,
        ) {
            let mut bytes = Vec::new();
            encode(&header, &payload, &mut bytes).unwrap();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = Decoder::new();
            decoder.push(&bytes).unwrap();
            // A longer length makes it wait; the bytes that follow then fail the crc.
            if let Ok(got) = decoder.next() {
                prop_assert_eq!(got, None);
                decoder.push(&[0; MAX_PAYLOAD]).unwrap();
                prop_assert!(decoder.next().is_err());
            }
        }

        #[test]
        fn rubbish_never_panics(bytes in vec(any::<u8>(), 0..500)) {
            let mut decoder = Decoder::new();
            decoder.push(&bytes).unwrap();
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn the_largest_payload_passes_and_one_more_byte_does_not() {
        let header = Header { kind: 1, response: true, status: 2, seq: 3, ack: 4, id: 5, term: 6 };
        let payload = std::vec![7; MAX_PAYLOAD + 1];
        let mut bytes = Vec::new();
        assert_eq!(
            encode(&header, &payload, &mut bytes),
            Err(FrameError::TooLong { kind: 1, len: MAX_PAYLOAD + 1 })
        );
        assert!(bytes.is_empty());
        encode(&header, &payload[1..], &mut bytes).unwrap();
        assert_eq!(bytes.len(), MAX_FRAME);
        let mut decoder = Decoder::new();
        decoder.push(&bytes).unwrap();
        assert_eq!(decoder.next().unwrap().unwrap().payload, &payload[1..]);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_the_payload_comes() {
        let mut raw = MessageHeader {
            magic: U32::new(MAGIC_MESSAGE),
            payload_len: U32::new(MAX_PAYLOAD as u32 + 1),
            ..Default::default()
        };
        raw.crc = U32::new(frame_crc(&raw, &[]));
        let mut decoder = Decoder::new();
        decoder.push(raw.as_bytes()).unwrap();
        assert!(matches!(decoder.next(), Err(FrameError::TooLong { .. })));
    }
}
