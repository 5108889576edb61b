// SPDX-License-Identifier: GPL-2.0-only
//! The names of hidden attributes.
//!
//! They are listed piece by piece, from a position that a caller keeps. The interface that agents know has 32 bits of a
//! hash and an id for it, and a name's hash has 64 bits; so the order is by the high half of the hash, then by id. Ids are never
//! reused, so a position stays right whatever comes and goes, and nothing that is there all the time is missed or
//! told twice. Attributes that share the high half lie side by side, but not in the order of their ids: of those the next few are
//! picked in one pass.

use scoutfs_env::Vec;
use scoutfs_format::Key;

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::store::{LockMode, Locks};
use crate::xattr::get::put_name;
use crate::xattr::name::{Class, Tags};
use crate::xattr::value::Xattr;

/// Attributes with one high half of the hash that are picked in one pass over them.
const PICKED: usize = 64;

/// Where a listing of hidden names goes on; [`HiddenPosition::default`] is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HiddenPosition {
    /// High half of the name's hash.
    pub hash: u32,
    /// Lowest id with this hash that was not told.
    pub id: u64,
}

impl HiddenPosition {
    fn of(xattr: &Xattr) -> Self {
        HiddenPosition { hash: (xattr.hash >> 32) as u32, id: xattr.id }
    }

    fn next(self) -> Option<Self> {
        match self.id.checked_add(1) {
            Some(id) => Some(HiddenPosition { id, ..self }),
            None => Some(HiddenPosition { hash: self.hash.checked_add(1)?, id: 0 }),
        }
    }
}

impl Fs {
    /// Writes names of hidden attributes, each with a zero behind it, into `buf`, as many as fit, from `position` on. Moves the
    /// position on and returns the length; 0 when there are no more (or the next one does not fit: 256 bytes hold any).
    pub fn list_hidden_xattrs(
        &self,
        ino: u64,
        position: &mut HiddenPosition,
        buf: &mut [u8],
    ) -> Result<usize> {
        self.list_hidden(ino, position, buf, PICKED)
    }

    /// As [`Fs::list_hidden_xattrs`], picking as many as `most` in one pass.
    pub(super) fn list_hidden(
        &self,
        ino: u64,
        position: &mut HiddenPosition,
        buf: &mut [u8],
        most: usize,
    ) -> Result<usize> {
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Read)])?;
        let _state = pin.data.read();
        self.load(&locks, ino)?;
        let mut picked = Vec::with_capacity(most)?;
        let mut len = 0;
        loop {
            pick(&locks, ino, *position, most, &mut picked)?;
            if picked.is_empty() {
                return Ok(len);
            }
            for xattr in &picked {
                let put = locks.get(xattr.key(0), |part| {
                    let (_, name) = Xattr::parse(ino, xattr.key(0), part)?;
                    if !Class::has(name, Tags::HIDE) {
                        return Ok(Some(0));
                    }
                    Ok::<_, Error>(put_name(buf, len, name).map(|()| name.len() + 1))
                })?;
                match put.transpose()?.flatten() {
                    Some(more) => len += more,
                    None => return Ok(len),
                }
                match HiddenPosition::of(xattr).next() {
                    Some(next) => *position = next,
                    None => return Ok(len),
                }
            }
        }
    }
}

/// Picks the next attributes from a position on, in order: those of one high half of the hash, `most` of them at most.
fn pick(
    locks: &Locks<'_>,
    ino: u64,
    position: HiddenPosition,
    most: usize,
    picked: &mut Vec<Xattr>,
) -> Result<()> {
    picked.clear();
    let mut from = Key::xattr(ino, u64::from(position.hash) << 32, 0, 0);
    let last = Key::xattr(ino, u64::MAX, u64::MAX, u8::MAX);
    while let Some(found) =
        locks.next(from, last, |key, part| Xattr::parse(ino, key, part).map(|(x, _)| x))?
    {
        let xattr = found?;
        let place = HiddenPosition::of(&xattr);
        if picked.first().is_some_and(|first| HiddenPosition::of(first).hash != place.hash) {
            break;
        }
        from = xattr.behind();
        if place < position {
            continue;
        }
        let at = picked.partition_point(|p| p.id < xattr.id);
        if at < most {
            picked.truncate(most - 1);
            picked.insert(at, xattr)?;
        }
    }
    Ok(())
}
