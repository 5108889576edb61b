// SPDX-License-Identifier: GPL-2.0-only
//! What is said about a lock.

use core::fmt;

use scoutfs_env::{AllocError, Vec};
use scoutfs_format::le::U64;
use scoutfs_format::msg::{LOCK_OPENS, LockMessage, MODE_NULL, MODE_READ, MODE_WRITE, OpenInodes};
use zerocopy::{FromBytes, IntoBytes};

use crate::{LockError, LockName, Opens};

/// How a lock is held. A higher mode includes the lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    /// Not at all.
    #[default]
    Null,
    /// Together with other readers.
    Read,
    /// Alone.
    Write,
}

impl Mode {
    pub(crate) fn parse(raw: u8) -> Result<Mode, LockError> {
        match raw {
            MODE_NULL => Ok(Mode::Null),
            MODE_READ => Ok(Mode::Read),
            MODE_WRITE => Ok(Mode::Write),
            found => Err(LockError::Mode { found }),
        }
    }

    pub(crate) const fn to_raw(self) -> u8 {
        match self {
            Mode::Null => MODE_NULL,
            Mode::Read => MODE_READ,
            Mode::Write => MODE_WRITE,
        }
    }

    /// What a mount may keep while another one has `wanted`.
    pub(crate) const fn beside(wanted: Mode) -> Mode {
        match wanted {
            Mode::Null => Mode::Write,
            Mode::Read => Mode::Read,
            Mode::Write => Mode::Null,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Null => "null",
            Mode::Read => "read",
            Mode::Write => "write",
        })
    }
}

/// A lock message, parsed. What the fields mean depends on what the message is:
///
/// | | request | grant | revoke | answer to a revoke | report |
/// | --- | --- | --- | --- | --- | --- |
/// | `mode` | wanted; null gives it back | granted | may be kept | kept | held |
/// | `old_mode` | held | null | what the server believes is held | held before | held |
/// | `generation` | newest seen, of any lock | its own | its own | of the revoke | newest seen |
/// | `version` | 0 | write version, for write | 0 | 0 | write version, for write |
/// | `commit_nr` | newest record | 0 | 0 | newest record | newest record |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The lock.
    pub name: LockName,
    /// Write version.
    pub version: u64,
    /// The sender's newest commit number under any lock that it has given back; 0 none.
    pub commit_nr: u64,
    /// Counts grants and revokes.
    pub generation: u64,
    /// Mode before.
    pub old_mode: Mode,
    /// Mode.
    pub mode: Mode,
}

impl Message {
    /// Checks the payload of a lock message: the message, which inodes are open, and what follows.
    pub fn parse(payload: &[u8]) -> Result<(Message, Opens, &[u8]), LockError> {
        let length = |expected| LockError::Length { found: payload.len(), expected };
        let (raw, rest) =
            LockMessage::ref_from_prefix(payload).map_err(|_| length(size_of::<LockMessage>()))?;
        let message = Self::from_fields(raw)?;
        if raw.flags & LOCK_OPENS == 0 {
            return Ok((message, Opens::default(), rest));
        }
        let expected = size_of::<LockMessage>() + size_of::<OpenInodes>();
        let (opens, rest) = OpenInodes::ref_from_prefix(rest).map_err(|_| length(expected))?;
        Ok((message, Opens::from_raw(opens), rest))
    }

    /// As [`Message::parse`], where nothing may follow.
    pub fn parse_whole(payload: &[u8]) -> Result<(Message, Opens), LockError> {
        match Self::parse(payload)? {
            (message, opens, []) => Ok((message, opens)),
            (_, _, rest) => {
                Err(LockError::Length { found: payload.len(), expected: payload.len() - rest.len() })
            }
        }
    }

    /// Checks a received message without open inodes.
    pub fn from_raw(raw: &LockMessage) -> Result<Message, LockError> {
        if raw.flags != 0 {
            return Err(LockError::Stray);
        }
        Self::from_fields(raw)
    }

    fn from_fields(raw: &LockMessage) -> Result<Message, LockError> {
        if raw.pad != [0; 5] || raw.flags & !LOCK_OPENS != 0 {
            return Err(LockError::Stray);
        }
        Ok(Message {
            name: LockName::parse(&raw.id)?,
            version: raw.version.get(),
            commit_nr: raw.commit_nr.get(),
            generation: raw.generation.get(),
            old_mode: Mode::parse(raw.old_mode)?,
            mode: Mode::parse(raw.mode)?,
        })
    }

    /// The payload, with the open inodes if there are any.
    pub fn to_payload(&self, opens: &Opens) -> Result<Vec<u8>, AllocError> {
        let mut raw = self.to_raw();
        let mut payload = Vec::new();
        if opens.is_empty() {
            payload.extend_from_slice(raw.as_bytes())?;
            return Ok(payload);
        }
        raw.flags = LOCK_OPENS;
        payload.reserve(size_of::<LockMessage>() + size_of::<OpenInodes>())?;
        payload.extend_from_slice(raw.as_bytes())?;
        payload.extend_from_slice(opens.to_raw().as_bytes())?;
        Ok(payload)
    }

    /// As it is sent, without open inodes.
    pub const fn to_raw(&self) -> LockMessage {
        LockMessage {
            id: self.name.to_raw(),
            version: U64::new(self.version),
            commit_nr: U64::new(self.commit_nr),
            generation: U64::new(self.generation),
            old_mode: self.old_mode.to_raw(),
            mode: self.mode.to_raw(),
            flags: 0,
            pad: [0; 5],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    proptest! {
        #[test]
        fn messages_round_trip_and_rubbish_is_refused(
            mut bytes in any::<[u8; size_of::<LockMessage>()]>(),
            tame in any::<bool>(),
            open in proptest::collection::vec(any::<u8>(), 0..20),
            rest in any::<[u8; 3]>(),
        ) {
            if tame {
                let good = Message {
                    name: LockName::group_of(bytes[0] as u64 * 1024),
                    version: 1, commit_nr: 2, generation: 3, old_mode: Mode::Read, mode: Mode::Write,
                };
                bytes.copy_from_slice(good.to_raw().as_bytes());
                let mut opens = Opens::default();
                open.iter().for_each(|ino| opens.insert(u64::from(*ino)));
                let mut payload = good.to_payload(&opens).unwrap();
                prop_assert_eq!(payload.len() > bytes.len(), !open.is_empty());
                prop_assert_eq!(Message::parse_whole(&payload), Ok((good, opens)));
                prop_assert!(Message::parse(&payload[..payload.len() - 1]).is_err());
                payload.extend_from_slice(&rest).unwrap();
                prop_assert_eq!(Message::parse(&payload), Ok((good, opens, &rest[..])));
                prop_assert!(Message::parse_whole(&payload).is_err());
            }
            if let Ok((message, _, _)) = Message::parse(&bytes) {
                let raw = message.to_raw();
                prop_assert_eq!(raw.as_bytes(), bytes);
            }
            prop_assert!(Message::parse(&bytes[1..]).is_err());
        }
    }
}
