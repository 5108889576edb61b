// SPDX-License-Identifier: GPL-2.0-only
//! Names of attributes: which there may be, and what they say.

use bitflags::bitflags;
use scoutfs_format::item::MAX_XATTR_NAME_LEN;

use crate::acl::AclKind;
use crate::error::{Error, Result};

/// Prefixes of names that mean nothing here. Kernels know who may use which.
const PLAIN: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// Prefix of names with tags.
const TAGGED: &[u8] = b"scoutfs.";

bitflags! {
    /// Tags of a name: they follow the prefix `scoutfs.` in any order, each at most once, before the rest of the name.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Tags: u8 {
        /// `hide.`: not among the names that listxattr gives.
        const HIDE = 1;
        /// `srch.`: indexed.
        const SRCH = 2;
    }
}

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Nothing.
    Plain,
    /// The value is an access control list.
    Acl(AclKind),
    /// Tags, at least one. Only privileged callers change such an attribute.
    Tagged(Tags),
}

impl Class {
    /// What a name says; that of a name with tags that are not offered here is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Range`] for an empty name or one that is too long; [`Error::NotSupported`] for other namespaces and
    /// tags; [`Error::Invalid`] for a name with the prefix of tags that has none, one twice, or nothing behind them.
    pub fn of(name: &[u8]) -> Result<Class> {
        if name.is_empty() || name.len() > MAX_XATTR_NAME_LEN {
            return Err(Error::Range);
        }
        if name.contains(&0) {
            return Err(Error::NotSupported);
        }
        for kind in [AclKind::Access, AclKind::Default] {
            if name == kind.xattr_name() {
                return Ok(Class::Acl(kind));
            }
        }
        if PLAIN.iter().any(|p| name.len() > p.len() && name.starts_with(p)) {
            return Ok(Class::Plain);
        }
        match name.strip_prefix(TAGGED) {
            Some(rest) => tags(rest).map(Class::Tagged),
            None => Err(Error::NotSupported),
        }
    }

    /// Whether a stored name has a tag.
    pub fn has(name: &[u8], tag: Tags) -> bool {
        matches!(Class::of(name), Ok(Class::Tagged(tags)) if tags.contains(tag))
    }
}

fn tags(name: &[u8]) -> Result<Tags> {
    let mut tags = Tags::empty();
    let mut rest = name;
    // A tag and the dot behind it are five bytes.
    while let Some((head, behind)) = rest.split_at_checked(5) {
        let tag = match head {
            b"hide." => Tags::HIDE,
            b"srch." => Tags::SRCH,
            b"totl." | b"indx." => return Err(Error::NotSupported),
            _ => break,
        };
        if tags.contains(tag) {
            return Err(Error::Invalid("a tag is in the name twice"));
        }
        tags |= tag;
        rest = behind;
    }
    if tags.is_empty() {
        return Err(Error::Invalid("a name with this prefix must have a tag"));
    }
    if rest.is_empty() {
        return Err(Error::Invalid("nothing follows the tags of the name"));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_in_any_order_each_once_and_before_the_name() {
        let both = Tags::HIDE | Tags::SRCH;
        for (name, tags) in [
            (&b"scoutfs.hide.a"[..], Tags::HIDE),
            (b"scoutfs.srch.a", Tags::SRCH),
            (b"scoutfs.srch.hide.a", both),
            (b"scoutfs.hide.srch.a", both),
            (b"scoutfs.hide.srch", Tags::HIDE),
            (b"scoutfs.hide.srch.srch", both),
            (b"scoutfs.hide.x.srch.y", Tags::HIDE),
            (b"scoutfs.hide.totl", Tags::HIDE),
            (b"scoutfs.hide..", Tags::HIDE),
        ] {
            assert_eq!(Class::of(name).unwrap(), Class::Tagged(tags), "{}", name.escape_ascii());
            assert_eq!(Class::has(name, Tags::SRCH), tags.contains(Tags::SRCH));
        }
    }

    #[test]
    fn other_names_with_the_prefix_are_refused_and_say_why() {
        for name in [
            &b"scoutfs."[..],
            b"scoutfs.a",
            b"scoutfs.hide",
            b"scoutfs.hide.",
            b"scoutfs.hide.srch.",
            b"scoutfs.hide.hide.a",
            b"scoutfs.srch.hide.srch.a",
            b"scoutfs.Hide.a",
        ] {
            assert!(matches!(Class::of(name), Err(Error::Invalid(_))), "{}", name.escape_ascii());
        }
        for name in [&b"scoutfs.totl.a.1.2.3"[..], b"scoutfs.hide.indx.a.1.2", b"scoutfs.totl."] {
            assert!(matches!(Class::of(name), Err(Error::NotSupported)), "{}", name.escape_ascii());
        }
        // The prefix is no name of another namespace.
        assert!(matches!(Class::of(b"scoutfs"), Err(Error::NotSupported)));
        assert!(matches!(Class::of(b"scoutfs.srch.\0"), Err(Error::NotSupported)));
    }
}
