// SPDX-License-Identifier: GPL-2.0-only
//! What is said about a lock.

use core::fmt;

use scoutfs_format::le::U64;
use scoutfs_format::msg::{LockMessage, MODE_NULL, MODE_READ, MODE_WRITE};
use zerocopy::FromBytes;

use crate::{LockError, LockName};

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
    fn parse(raw: u8) -> Result<Mode, LockError> {
        match raw {
            MODE_NULL => Ok(Mode::Null),
            MODE_READ => Ok(Mode::Read),
            MODE_WRITE => Ok(Mode::Write),
            found => Err(LockError::Mode { found }),
        }
    }

    const fn to_raw(self) -> u8 {
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
    /// Checks the payload of a lock message.
    pub fn parse(payload: &[u8]) -> Result<Message, LockError> {
        let raw = LockMessage::ref_from_bytes(payload)
            .map_err(|_| LockError::Length { found: payload.len(), expected: size_of::<LockMessage>() })?;
        Self::from_raw(raw)
    }

    /// Checks a received message.
    pub fn from_raw(raw: &LockMessage) -> Result<Message, LockError> {
        if raw.pad != [0; 6] {
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

    /// As it is sent.
    pub const fn to_raw(&self) -> LockMessage {
        LockMessage {
            id: self.name.to_raw(),
            version: U64::new(self.version),
            commit_nr: U64::new(self.commit_nr),
            generation: U64::new(self.generation),
            old_mode: self.old_mode.to_raw(),
            mode: self.mode.to_raw(),
            pad: [0; 6],
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
        fn messages_round_trip_and_rubbish_is_refused(mut bytes: [u8; size_of::<LockMessage>()], tame: bool) {
            if tame {
                let good = Message {
                    name: LockName::group_of(bytes[0] as u64 * 1024),
                    version: 1, commit_nr: 2, generation: 3, old_mode: Mode::Read, mode: Mode::Write,
                };
                bytes.copy_from_slice(good.to_raw().as_bytes());
                prop_assert_eq!(Message::parse(&bytes), Ok(good));
            }
            if let Ok(message) = Message::parse(&bytes) {
                let raw = message.to_raw();
                prop_assert_eq!(raw.as_bytes(), bytes);
            }
            prop_assert!(Message::parse(&bytes[1..]).is_err());
        }
    }
}
