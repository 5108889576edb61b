// SPDX-License-Identifier: GPL-2.0-only
//! The key of an item.
//!
//! All metadata are items in one ordered key space. Keys compare by zone, first, kind, second, third, fourth,
//! so that all items of an inode lie side by side and those of one kind follow each other.

use core::cmp::Ordering;
use core::fmt;

use crate::layout::{constants, layout};
use crate::le::U64;

constants! { KEY_CONSTANTS:
    /// Change index: `kind` is the index, `second` the seq, `third` the inode number.
    pub const ZONE_INDEX: u8 = 4;
    /// Orphans: unlinked inodes that may still be open. `second` is the inode number.
    pub const ZONE_ORPHAN: u8 = 8;
    /// Search index of extended attributes: `first` is the hash of the name.
    pub const ZONE_XATTR_INDEX: u8 = 12;
    /// The inodes' own items: `first` is the inode number.
    pub const ZONE_FS: u8 = 16;
    /// Keys that exist only to be locked.
    pub const ZONE_LOCK: u8 = 20;
    /// Items of the server's own tree; never in a log tree or the fs tree.
    pub const ZONE_SERVER: u8 = 64;

    /// Index of every inode change.
    pub const KIND_META_SEQ: u8 = 4;
    /// Index of regular files' data changes.
    pub const KIND_DATA_SEQ: u8 = 8;
    /// An orphan.
    pub const KIND_ORPHAN: u8 = 4;
    /// An attribute with the tag `.srch.`: `second` the inode number, `third` the attribute's id.
    pub const KIND_SRCH: u8 = 4;
    /// The inode itself.
    pub const KIND_INODE: u8 = 4;
    /// A part of an extended attribute: `second` name hash, `third` id, `fourth` part.
    pub const KIND_XATTR: u8 = 8;
    /// A directory entry by name: `second` name hash, `third` position.
    pub const KIND_DIRENT: u8 = 12;
    /// A directory entry by position: `second` position.
    pub const KIND_READDIR: u8 = 16;
    /// From an inode to the entries that name it: `second` directory, `third` position.
    pub const KIND_BACKREF: u8 = 20;
    /// The target of a symbolic link.
    pub const KIND_SYMLINK: u8 = 24;
    /// An extent of file data: `second` is its *last* logical block, so that a search from a block finds
    /// the extent that holds it or the next one.
    pub const KIND_EXTENT: u8 = 28;

    /// Server: a member; `second` is the mount slot.
    pub const KIND_MEMBER: u8 = 4;
    /// Server: free space; `first` the kind of space, `second` the first block.
    pub const KIND_FREE: u8 = 8;
    /// Server: a hand-over to a mount; `first` slot, `second` number, `third` part.
    pub const KIND_HAND_OVER: u8 = 12;
    /// Server: progress of the merge of a log tree; `first` slot, `second` log number.
    pub const KIND_MERGE: u8 = 16;
    /// Server: space in quarantine; `first` the kind of space, `second` the first block.
    pub const KIND_QUARANTINE: u8 = 20;
}

/// The key of an item, in host byte order.
///
/// The order of the fields is the order of comparison.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Key {
    /// Which of the zones.
    pub zone: u8,
    /// Most often the inode number.
    pub first: u64,
    /// Kind of item in its zone.
    pub kind: u8,
    /// Depends on the kind.
    pub second: u64,
    /// Depends on the kind.
    pub third: u64,
    /// Depends on the kind.
    pub fourth: u8,
}

layout! {
    /// A key as it is stored.
    pub struct RawKey {
        pub first: U64,
        pub second: U64,
        pub third: U64,
        pub zone: u8,
        pub kind: u8,
        pub fourth: u8,
        pub pad: [u8; 5],
    }
}

impl Key {
    /// The lowest key.
    pub const MIN: Key = Key::new(0, 0, 0, 0, 0, 0);
    /// The highest key.
    pub const MAX: Key = Key::new(u8::MAX, u64::MAX, u8::MAX, u64::MAX, u64::MAX, u8::MAX);

    /// A key from its fields, in the order of comparison.
    pub const fn new(zone: u8, first: u64, kind: u8, second: u64, third: u64, fourth: u8) -> Self {
        Key { zone, first, kind, second, third, fourth }
    }

    /// The next higher key, or `None` after [`Key::MAX`].
    pub const fn next(self) -> Option<Key> {
        let mut k = self;
        macro_rules! carry {
            ($($field:ident: $ty:ty),*) => {$(
                if k.$field != <$ty>::MAX {
                    k.$field += 1;
                    return Some(k);
                }
                k.$field = 0;
            )*};
        }
        carry!(fourth: u8, third: u64, second: u64, kind: u8, first: u64, zone: u8);
        None
    }

    /// The next lower key, or `None` before [`Key::MIN`].
    pub const fn prev(self) -> Option<Key> {
        let mut k = self;
        macro_rules! borrow {
            ($($field:ident: $ty:ty),*) => {$(
                if k.$field != 0 {
                    k.$field -= 1;
                    return Some(k);
                }
                k.$field = <$ty>::MAX;
            )*};
        }
        borrow!(fourth: u8, third: u64, second: u64, kind: u8, first: u64, zone: u8);
        None
    }

    /// [`Key::next`], staying at the highest key.
    pub const fn saturating_next(self) -> Key {
        match self.next() {
            Some(k) => k,
            None => Key::MAX,
        }
    }

    /// [`Key::prev`], staying at the lowest key.
    pub const fn saturating_prev(self) -> Key {
        match self.prev() {
            Some(k) => k,
            None => Key::MIN,
        }
    }

    /// As stored.
    pub const fn to_raw(self) -> RawKey {
        RawKey {
            first: U64::new(self.first),
            second: U64::new(self.second),
            third: U64::new(self.third),
            zone: self.zone,
            kind: self.kind,
            fourth: self.fourth,
            pad: [0; 5],
        }
    }
}

// By hand, for searches do little else, and what is derived takes twice as many instructions.
impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        if self.zone != other.zone {
            return self.zone.cmp(&other.zone);
        }
        if self.first != other.first {
            return self.first.cmp(&other.first);
        }
        if self.kind != other.kind {
            return self.kind.cmp(&other.kind);
        }
        if self.second != other.second {
            return self.second.cmp(&other.second);
        }
        if self.third != other.third {
            return self.third.cmp(&other.third);
        }
        self.fourth.cmp(&other.fourth)
    }
}

impl PartialOrd for Key {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl RawKey {
    /// In host byte order. Padding is not looked at.
    pub const fn get(&self) -> Key {
        Key {
            zone: self.zone,
            first: self.first.get(),
            kind: self.kind,
            second: self.second.get(),
            third: self.third.get(),
            fourth: self.fourth,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}.{}.{}", self.zone, self.first, self.kind, self.second, self.third, self.fourth)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Constructors for the keys of each kind of item.
impl Key {
    /// The inode item.
    pub const fn inode(ino: u64) -> Key {
        Key::new(ZONE_FS, ino, KIND_INODE, 0, 0, 0)
    }

    /// Part `part` of the extended attribute with this name hash and id.
    pub const fn xattr(ino: u64, name_hash: u64, id: u64, part: u8) -> Key {
        Key::new(ZONE_FS, ino, KIND_XATTR, name_hash, id, part)
    }

    /// A directory entry by name.
    pub const fn dirent(dir: u64, name_hash: u64, pos: u64) -> Key {
        Key::new(ZONE_FS, dir, KIND_DIRENT, name_hash, pos, 0)
    }

    /// A directory entry by position.
    pub const fn readdir(dir: u64, pos: u64) -> Key {
        Key::new(ZONE_FS, dir, KIND_READDIR, pos, 0, 0)
    }

    /// The back reference of an inode to the entry at `pos` of `dir`.
    pub const fn backref(ino: u64, dir: u64, pos: u64) -> Key {
        Key::new(ZONE_FS, ino, KIND_BACKREF, dir, pos, 0)
    }

    /// The target of a symbolic link.
    pub const fn symlink(ino: u64) -> Key {
        Key::new(ZONE_FS, ino, KIND_SYMLINK, 0, 0, 0)
    }

    /// The extent whose last logical block is `last_block`.
    pub const fn extent(ino: u64, last_block: u64) -> Key {
        Key::new(ZONE_FS, ino, KIND_EXTENT, last_block, 0, 0)
    }

    /// An orphan.
    pub const fn orphan(ino: u64) -> Key {
        Key::new(ZONE_ORPHAN, 0, KIND_ORPHAN, ino, 0, 0)
    }

    /// An entry of the change index `kind` ([`KIND_META_SEQ`] or [`KIND_DATA_SEQ`]).
    pub const fn index(kind: u8, seq: u64, ino: u64) -> Key {
        Key::new(ZONE_INDEX, 0, kind, seq, ino, 0)
    }

    /// The entry of the search index for the attribute `id` of an inode, whose name has this hash.
    pub const fn srch(name_hash: u64, ino: u64, id: u64) -> Key {
        Key::new(ZONE_XATTR_INDEX, name_hash, KIND_SRCH, ino, id, 0)
    }

    /// First key of all of an inode's items.
    pub const fn inode_first(ino: u64) -> Key {
        Key::new(ZONE_FS, ino, 0, 0, 0, 0)
    }

    /// Last key of all of an inode's items.
    pub const fn inode_last(ino: u64) -> Key {
        Key::new(ZONE_FS, ino, u8::MAX, u64::MAX, u64::MAX, u8::MAX)
    }

    /// First key of an inode's items of one kind.
    pub const fn kind_first(ino: u64, kind: u8) -> Key {
        Key::new(ZONE_FS, ino, kind, 0, 0, 0)
    }

    /// Last key of an inode's items of one kind.
    pub const fn kind_last(ino: u64, kind: u8) -> Key {
        Key::new(ZONE_FS, ino, kind, u64::MAX, u64::MAX, u8::MAX)
    }

    /// Server: the member in a mount slot.
    pub const fn member(slot: u32) -> Key {
        Key::new(ZONE_SERVER, 0, KIND_MEMBER, slot as u64, 0, 0)
    }

    /// Server: free space of a kind that begins at `start`.
    pub const fn free(space_kind: u8, start: u64) -> Key {
        Key::new(ZONE_SERVER, space_kind as u64, KIND_FREE, start, 0, 0)
    }

    /// Server: a part of a hand-over to the mount in `slot`.
    pub const fn hand_over(slot: u32, number: u64, part: u64) -> Key {
        Key::new(ZONE_SERVER, slot as u64, KIND_HAND_OVER, number, part, 0)
    }

    /// Server: progress of a merge, or of what follows it (see
    /// [`MergeItem`](crate::server_item::MergeItem)).
    pub const fn merge(slot: u32, log_nr: u64) -> Key {
        Key::new(ZONE_SERVER, slot as u64, KIND_MERGE, log_nr, 0, 0)
    }

    /// Server: space in quarantine that begins at `start`.
    pub const fn quarantine(space_kind: u8, start: u64) -> Key {
        Key::new(ZONE_SERVER, space_kind as u64, KIND_QUARANTINE, start, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn any_key() -> impl Strategy<Value = Key> {
        let n = prop_oneof![Just(0u64), Just(1), Just(u64::MAX - 1), Just(u64::MAX), any::<u64>()];
        let b = prop_oneof![Just(0u8), Just(1), Just(254), Just(255)];
        (b.clone(), n.clone(), b.clone(), n.clone(), n, b)
            .prop_map(|(z, f, k, s, t, l)| Key::new(z, f, k, s, t, l))
    }

    proptest! {
        #[test]
        fn next_and_prev_are_inverse_and_adjacent(k in any_key()) {
            if let Some(n) = k.next() {
                prop_assert!(n > k);
                prop_assert_eq!(n.prev(), Some(k));
            } else {
                prop_assert_eq!(k, Key::MAX);
            }
        }

        #[test]
        fn raw_keys_round_trip(k in any_key()) {
            prop_assert_eq!(k.to_raw().get(), k);
        }
    }

    #[test]
    fn raw_key_bytes_are_fixed() {
        let k = Key::new(0x10, 0x0102030405060708, 0x1c, 0x1112131415161718, 0x21, 0x31);
        let raw = k.to_raw();
        assert_eq!(
            raw.as_bytes(),
            [
                8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x21, 0, 0, 0, 0, 0,
                0, 0, 0x10, 0x1c, 0x31, 0, 0, 0, 0, 0
            ]
        );
    }

    #[test]
    fn all_items_of_an_inode_lie_between_first_and_last() {
        for k in [
            Key::inode(7),
            Key::xattr(7, u64::MAX, u64::MAX, 255),
            Key::dirent(7, 0, 2),
            Key::readdir(7, u64::MAX),
            Key::backref(7, 1, 2),
            Key::symlink(7),
            Key::extent(7, u64::MAX),
        ] {
            assert!(Key::inode_first(7) <= k && k <= Key::inode_last(7));
            assert!(Key::inode_last(6) < k && k < Key::inode_first(8));
        }
    }

    #[test]
    fn keys_are_ordered_by_their_fields() {
        // All pairs of keys whose fields have one of two values, which do not ascend with the field.
        let keys: std::vec::Vec<Key> = (0..64u8)
            .map(|bits| {
                let bit = |n: u8| bits >> n & 1;
                let wide = |n: u8| u64::MAX * u64::from(bit(n));
                Key::new(9 - bit(0), wide(1), 7 + bit(2), wide(3), 5 - u64::from(bit(4)), bit(5))
            })
            .collect();
        for a in &keys {
            for b in &keys {
                let fields = |k: &Key| (k.zone, k.first, k.kind, k.second, k.third, k.fourth);
                assert_eq!(a.cmp(b), fields(a).cmp(&fields(b)));
                assert_eq!(a.partial_cmp(b), Some(a.cmp(b)));
            }
        }
    }
}
