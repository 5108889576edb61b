// SPDX-License-Identifier: GPL-2.0-only
//! Reading extended attributes.

use scoutfs_format::Key;
use scoutfs_format::key::KIND_XATTR;

use crate::counters::Counter;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::store::LockMode;
use crate::xattr::name::{Class, Tags};
use crate::xattr::value::Xattr;

impl Fs {
    /// Reads an attribute's value into `buf` and returns its length; with an empty `buf`, only the length.
    ///
    /// # Errors
    ///
    /// [`Error::NoAttribute`]; [`Error::Range`] when `buf` is not empty and too short.
    pub fn getxattr(&self, ino: u64, name: &[u8], buf: &mut [u8]) -> Result<usize> {
        self.class_of(name)?;
        self.count(Counter::Getxattr);
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Read)])?;
        let _state = pin.data.read();
        self.load(&locks, ino)?;
        let xattr = Xattr::find(&locks, ino, name)?.ok_or(Error::NoAttribute)?;
        if !buf.is_empty() {
            let value = buf.get_mut(..xattr.value_len).ok_or(Error::Range)?;
            xattr.read(&locks, value)?;
        }
        Ok(xattr.value_len)
    }

    /// As [`Fs::listxattr_if`], of all names.
    pub fn listxattr(&self, ino: u64, buf: &mut [u8]) -> Result<usize> {
        self.listxattr_if(ino, buf, &mut |_| true)
    }

    /// Writes the names of all attributes, each with a zero behind it, into `buf` and returns their length; with
    /// an empty `buf`, only the length. Hidden ones are left out, and those for which `show` is false: that is for the
    /// caller, who knows which names its user may not see. `show` runs under locks of the item cache: it only looks at the name.
    ///
    /// # Errors
    ///
    /// [`Error::Range`] when `buf` is not empty and too short.
    pub fn listxattr_if(
        &self,
        ino: u64,
        buf: &mut [u8],
        show: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<usize> {
        self.count(Counter::Getxattr);
        let pin = self.pin(ino)?;
        let locks = self.store().lock(&[(ino, LockMode::Read)])?;
        let _state = pin.data.read();
        self.load(&locks, ino)?;
        let wanted = !buf.is_empty();
        let mut len = 0;
        let mut from = Key::kind_first(ino, KIND_XATTR);
        let last = Key::kind_last(ino, KIND_XATTR);
        loop {
            let found = locks.next(from, last, |key, part| {
                let (xattr, name) = Xattr::parse(ino, key, part)?;
                let hidden = match Class::of(name) {
                    Ok(Class::Tagged(tags)) => tags.contains(Tags::HIDE),
                    Ok(Class::Acl(_)) => !self.acls(),
                    _ => false,
                };
                if hidden || !show(name) {
                    return Ok(xattr);
                }
                if wanted {
                    put_name(buf, len, name).ok_or(Error::Range)?;
                }
                len += name.len() + 1;
                Ok::<_, Error>(xattr)
            })?;
            let Some(xattr) = found.transpose()? else {
                return Ok(len);
            };
            from = xattr.behind();
        }
    }
}

/// Writes a name and a zero behind it at `at`, if there is room.
pub(super) fn put_name(buf: &mut [u8], at: usize, name: &[u8]) -> Option<()> {
    let place = buf.get_mut(at..at + name.len() + 1)?;
    let (text, zero) = place.split_at_mut(name.len());
    text.copy_from_slice(name);
    zero.fill(0);
    Some(())
}
