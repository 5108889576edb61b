// SPDX-License-Identifier: GPL-2.0-only
//! The parts of an extended attribute.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::item::{MAX_XATTR_NAME_LEN, MAX_XATTR_VALUE_LEN, XATTR_PART_LEN, XattrHeader, name_hash};
use zerocopy::FromBytes;

use crate::error::{Error, Result};
use crate::inode::record::Inode;
use crate::store::Locks;

const HEADER_LEN: usize = size_of::<XattrHeader>();

/// Most parts of an attribute.
pub(crate) const MAX_PARTS: usize =
    (HEADER_LEN + MAX_XATTR_NAME_LEN + MAX_XATTR_VALUE_LEN).div_ceil(XATTR_PART_LEN);

/// How many parts an attribute has.
pub(crate) fn nr_parts(name_len: usize, value_len: usize) -> usize {
    (HEADER_LEN + name_len + value_len).div_ceil(XATTR_PART_LEN)
}

/// An attribute that an inode has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Xattr {
    pub ino: u64,
    pub hash: u64,
    pub id: u64,
    pub name_len: usize,
    pub value_len: usize,
}

impl Xattr {
    /// Parses an attribute's first part; gives its name, too.
    pub fn parse(ino: u64, key: Key, part: &[u8]) -> Result<(Xattr, &[u8])> {
        let corrupt = |what| Err(Error::Corrupt { ino, what });
        let Ok((header, rest)) = XattrHeader::ref_from_prefix(part) else {
            return corrupt("an extended attribute's first part is too short");
        };
        let value_len = header.val_len.get() as usize;
        let name_len = usize::from(header.name_len);
        let Some(name) = rest.get(..name_len).filter(|name| !name.is_empty()) else {
            return corrupt("an extended attribute's name is cut");
        };
        if value_len > MAX_XATTR_VALUE_LEN {
            return corrupt("an extended attribute's value is too long");
        }
        if key.fourth != 0 || key.second != name_hash(name) {
            return corrupt("an extended attribute is at a wrong key");
        }
        Ok((Xattr { ino, hash: key.second, id: key.third, name_len, value_len }, name))
    }

    /// The attribute of a name.
    pub fn find(locks: &Locks<'_>, ino: u64, name: &[u8]) -> Result<Option<Xattr>> {
        let hash = name_hash(name);
        let last = Key::xattr(ino, hash, u64::MAX, u8::MAX);
        let mut from = Key::xattr(ino, hash, 0, 0);
        loop {
            let found = locks.next(from, last, |key, part| {
                let (xattr, stored) = Xattr::parse(ino, key, part)?;
                Ok::<_, Error>((xattr, stored == name))
            })?;
            let Some((xattr, is_it)) = found.transpose()? else {
                return Ok(None);
            };
            if is_it {
                return Ok(Some(xattr));
            }
            from = xattr.behind();
        }
    }

    /// An attribute that an inode is to get, with its next id. `bytes` are all of the attribute.
    pub fn next_of(inode: &mut Inode, name: &[u8], bytes: &[u8]) -> Result<Xattr> {
        let id = inode.item.next_xattr_id.get();
        inode.item.next_xattr_id.set(id.checked_add(1).ok_or(Error::NoSpace)?);
        let empty = Xattr { ino: inode.ino, hash: name_hash(name), id, name_len: name.len(), value_len: 0 };
        Ok(empty.with_bytes(bytes))
    }

    /// It with another value. `bytes` are all of the attribute.
    pub fn with_bytes(self, bytes: &[u8]) -> Xattr {
        Xattr { value_len: bytes.len().saturating_sub(HEADER_LEN + self.name_len), ..self }
    }

    /// The key of one of its parts.
    pub fn key(&self, part: usize) -> Key {
        // There are at most `MAX_PARTS`.
        Key::xattr(self.ino, self.hash, self.id, part as u8)
    }

    /// The first key behind it.
    pub fn behind(&self) -> Key {
        Key::xattr(self.ino, self.hash, self.id, u8::MAX).saturating_next()
    }

    pub fn nr_parts(&self) -> usize {
        nr_parts(self.name_len, self.value_len)
    }

    /// Reads the value into `buf`, which has its length.
    pub fn read(&self, locks: &Locks<'_>, mut buf: &mut [u8]) -> Result<()> {
        let corrupt = Error::Corrupt {
            ino: self.ino,
            what: "an extended attribute's part is missing or has a wrong size",
        };
        for part in 0..self.nr_parts() {
            let skip = if part == 0 { HEADER_LEN + self.name_len } else { 0 };
            let len = buf.len().min(XATTR_PART_LEN - skip);
            let (now, rest) = buf.split_at_mut(len);
            let read = locks.get(self.key(part), |stored| match stored.split_at_checked(skip) {
                Some((_, value)) if value.len() == now.len() => {
                    now.copy_from_slice(value);
                    true
                }
                _ => false,
            })?;
            if read != Some(true) {
                return Err(corrupt);
            }
            buf = rest;
        }
        Ok(())
    }
}

/// All of an attribute, to be cut into parts.
pub(crate) fn encode(name: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    use scoutfs_format::le::U32;
    use zerocopy::IntoBytes;
    let (Ok(val_len), Ok(name_len)) = (u32::try_from(value.len()), u8::try_from(name.len())) else {
        return Err(Error::TooBig);
    };
    let header = XattrHeader { val_len: U32::new(val_len), name_len, pad: [0; 3] };
    let mut bytes = Vec::with_capacity(HEADER_LEN + name.len() + value.len())?;
    bytes.extend_from_slice(header.as_bytes())?;
    bytes.extend_from_slice(name)?;
    bytes.extend_from_slice(value)?;
    Ok(bytes)
}
