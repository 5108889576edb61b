// SPDX-License-Identifier: GPL-2.0-only
//! A list and its bytes.

use scoutfs_env::{AllocError, Vec};
use scoutfs_format::acl::{
    ACL_GROUP, ACL_GROUP_OBJ, ACL_HEADER_LEN, ACL_MASK, ACL_NO_ID, ACL_OTHER, ACL_USER, ACL_USER_OBJ,
    ACL_VERSION, AclEntry, MAX_ACL_ENTRIES,
};
use scoutfs_format::le::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Error, Result};

/// Whom an entry is about. The order is that of the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The owner.
    UserObj,
    /// A user, by number.
    User(u32),
    /// The file's group.
    GroupObj,
    /// A group, by number.
    Group(u32),
    /// The most that users and groups by number and the file's group are given.
    Mask,
    /// All others.
    Other,
}

impl Tag {
    /// Its place in the order, which those of one kind share.
    fn rank(self) -> u8 {
        match self {
            Tag::UserObj => 0,
            Tag::User(_) => 1,
            Tag::GroupObj => 2,
            Tag::Group(_) => 3,
            Tag::Mask => 4,
            Tag::Other => 5,
        }
    }

    fn is_named(self) -> bool {
        matches!(self, Tag::User(_) | Tag::Group(_))
    }
}

/// An entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whom it is about.
    pub tag: Tag,
    /// Permissions: 4 to read, 2 to write, 1 to execute.
    pub perm: u8,
}

/// Why something is no list. `index` counts the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// It does not begin with a version.
    #[error("{len} bytes are no list of entries")]
    Length {
        /// Bytes.
        len: usize,
    },
    /// Another version than the one there is.
    #[error("version {version}")]
    Version {
        /// The version.
        version: u32,
    },
    /// More entries than a list may have.
    #[error("{entries} entries are more than {MAX_ACL_ENTRIES}")]
    TooMany {
        /// Entries.
        entries: usize,
    },
    /// Nobody that an entry can be about.
    #[error("entry {index} has the tag {tag:#x} and the id {id}")]
    EntryTag {
        /// Which entry.
        index: usize,
        /// Its tag.
        tag: u16,
        /// Its id.
        id: u32,
    },
    /// Permissions that there are not.
    #[error("entry {index} has the permissions {perm:#x}")]
    EntryPerm {
        /// Which entry.
        index: usize,
        /// Its permissions.
        perm: u16,
    },
    /// An entry that does not go behind the one before it.
    #[error("entry {index} is out of order, or there twice")]
    Order {
        /// Which entry.
        index: usize,
    },
    /// No entry for the owner, the group or all others, or none for the mask where there must be one.
    #[error("an entry for the owner, the group, the mask or all others is missing")]
    Missing,
    /// Entries whose bytes are not those that this project writes.
    #[error("its bytes are not those of the list that it stands for")]
    NotCanonical,
}

impl From<AclError> for Error {
    fn from(e: AclError) -> Self {
        match e {
            // What Linux says to each.
            AclError::Version { .. } => Error::NotSupported,
            AclError::TooMany { .. } => Error::TooBig,
            _ => Error::Invalid("not an access control list"),
        }
    }
}

/// A list that is known to be sound: its entries are in order, with exactly one for the owner, the group and all others, and
/// with one for the mask if any is about a user or group by number.
#[derive(Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    /// A list of these entries.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is not sound, and those of an [`AclError`].
    pub fn new(entries: Vec<Entry>) -> Result<Acl> {
        check(&entries)?;
        Ok(Acl { entries })
    }

    /// Reads a list as programs (and volumes) have it. `None` for one without entries, which stands for none at all. Ids of
    /// entries that have none are not looked at.
    ///
    /// # Errors
    ///
    /// Those of an [`AclError`], and [`Error::NoMemory`].
    pub fn parse(bytes: &[u8]) -> Result<Option<Acl>> {
        match decode(bytes) {
            Ok(entries) if entries.is_empty() => Ok(None),
            Ok(entries) => Acl::new(entries).map(Some),
            Err(Failed::Acl(e)) => Err(e.into()),
            Err(Failed::Memory) => Err(Error::NoMemory),
        }
    }

    /// Reads a list that a volume holds: in the canonical form.
    ///
    /// # Errors
    ///
    /// `Err` when there is no memory; the inner one says why it is no list.
    pub fn parse_stored(
        bytes: &[u8],
    ) -> core::result::Result<core::result::Result<Acl, AclError>, AllocError> {
        let entries = match decode(bytes) {
            Ok(entries) => entries,
            Err(Failed::Acl(e)) => return Ok(Err(e)),
            Err(Failed::Memory) => return Err(AllocError),
        };
        if let Err(e) = check(&entries) {
            return Ok(Err(e));
        }
        let acl = Acl { entries };
        let canonical = acl.encode()?;
        Ok(if canonical[..] == *bytes { Ok(acl) } else { Err(AclError::NotCanonical) })
    }

    /// Its bytes.
    pub fn encode(&self) -> core::result::Result<Vec<u8>, AllocError> {
        let mut bytes = Vec::with_capacity(ACL_HEADER_LEN + self.entries.len() * size_of::<AclEntry>())?;
        bytes.extend_from_slice(&ACL_VERSION.to_le_bytes())?;
        for entry in &self.entries {
            let (tag, id) = match entry.tag {
                Tag::UserObj => (ACL_USER_OBJ, ACL_NO_ID),
                Tag::User(id) => (ACL_USER, id),
                Tag::GroupObj => (ACL_GROUP_OBJ, ACL_NO_ID),
                Tag::Group(id) => (ACL_GROUP, id),
                Tag::Mask => (ACL_MASK, ACL_NO_ID),
                Tag::Other => (ACL_OTHER, ACL_NO_ID),
            };
            let raw = AclEntry { tag: U16::new(tag), perm: U16::new(entry.perm.into()), id: U32::new(id) };
            bytes.extend_from_slice(raw.as_bytes())?;
        }
        Ok(bytes)
    }

    /// Its entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    /// A copy.
    pub fn try_clone(&self) -> core::result::Result<Acl, AllocError> {
        Ok(Acl { entries: self.entries.try_clone()? })
    }
}

/// Why decoding failed.
enum Failed {
    Acl(AclError),
    Memory,
}

fn decode(bytes: &[u8]) -> core::result::Result<Vec<Entry>, Failed> {
    let mut entries = Vec::new();
    if bytes.is_empty() {
        return Ok(entries);
    }
    let length = Failed::Acl(AclError::Length { len: bytes.len() });
    let Ok((version, rest)) = U32::read_from_prefix(bytes) else {
        return Err(length);
    };
    if version.get() != ACL_VERSION {
        return Err(Failed::Acl(AclError::Version { version: version.get() }));
    }
    let Ok(raw) = <[AclEntry]>::ref_from_bytes(rest) else {
        return Err(length);
    };
    if raw.len() > MAX_ACL_ENTRIES {
        return Err(Failed::Acl(AclError::TooMany { entries: raw.len() }));
    }
    for (index, entry) in raw.iter().enumerate() {
        let (tag, perm, id) = (entry.tag.get(), entry.perm.get(), entry.id.get());
        let known = match tag {
            ACL_USER_OBJ => Tag::UserObj,
            ACL_USER if id != ACL_NO_ID => Tag::User(id),
            ACL_GROUP_OBJ => Tag::GroupObj,
            ACL_GROUP if id != ACL_NO_ID => Tag::Group(id),
            ACL_MASK => Tag::Mask,
            ACL_OTHER => Tag::Other,
            _ => return Err(Failed::Acl(AclError::EntryTag { index, tag, id })),
        };
        match u8::try_from(perm) {
            Ok(perm @ 0..=7) => entries.push(Entry { tag: known, perm }).map_err(|_| Failed::Memory)?,
            _ => return Err(Failed::Acl(AclError::EntryPerm { index, perm })),
        }
    }
    Ok(entries)
}

/// Whether entries make a list.
fn check(entries: &[Entry]) -> core::result::Result<(), AclError> {
    if entries.len() > MAX_ACL_ENTRIES {
        return Err(AclError::TooMany { entries: entries.len() });
    }
    let mut last: Option<Tag> = None;
    for (index, entry) in entries.iter().enumerate() {
        if entry.perm > 7 {
            return Err(AclError::EntryPerm { index, perm: entry.perm.into() });
        }
        let in_order = last.is_none_or(|last| {
            let (before, now) = (last.rank(), entry.tag.rank());
            before < now || (before == now && entry.tag.is_named())
        });
        if !in_order {
            return Err(AclError::Order { index });
        }
        last = Some(entry.tag);
    }
    let has = |tag: Tag| entries.iter().any(|e| e.tag == tag);
    let named = entries.iter().any(|e| e.tag.is_named());
    if has(Tag::UserObj) && has(Tag::GroupObj) && has(Tag::Other) && (!named || has(Tag::Mask)) {
        Ok(())
    } else {
        Err(AclError::Missing)
    }
}
