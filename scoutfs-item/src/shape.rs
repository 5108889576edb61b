// SPDX-License-Identifier: GPL-2.0-only
//! How the keys of a page are packed.
//!
//! Keys of one page are alike: they have the zone in common, most often the inode, and numbers that are near each other. So a page
//! keeps of each field only its distance from the lowest one, in as many bytes as the longest distance takes. These bytes, the first
//! field's first and each with its highest byte first, are one number, and the numbers are in the order of the keys: a search
//! compares nothing else. Where the distances take more than 16 bytes together, keys are kept as they are.

use core::cmp::Ordering;

use scoutfs_format::Key;

/// Fields of a key.
const FIELDS: usize = 6;
/// Bytes of the fields in full.
const FULL: [u8; FIELDS] = [1, 8, 1, 8, 8, 1];
/// Bytes of a key in full.
const FULL_WIDTH: usize = 27;
/// Bytes of the largest packed number.
const MAX_WIDTH: usize = 16;
/// A distance with this many bytes is counted from zero: hashes come in any order.
const FROM_ZERO: u8 = 5;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The lowest of each field.
    lowest: [u64; FIELDS],
    /// The longest distances that fit.
    highest_distances: [u64; FIELDS],
    /// Bytes of the distances.
    widths: [u8; FIELDS],
    /// Bytes of a packed key; at least one.
    width: u8,
}

/// A key as a page of a shape sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packed {
    /// Comes right after all keys below this number, and before all others, of which one may be equal.
    Number(u128),
    /// Comes right before the key with this number, and is not in the page.
    Before(u128),
    /// Comes right after the key with this number, and is not in the page.
    After(u128),
    /// Keys are kept as they are.
    Full(Key),
}

impl Packed {
    /// Whether a page of the shape can have the key.
    pub(crate) fn fits(&self) -> bool {
        matches!(self, Packed::Number(_) | Packed::Full(_))
    }
}

/// The fields in the order of comparison.
fn fields(key: &Key) -> [u64; FIELDS] {
    [key.zone.into(), key.first, key.kind.into(), key.second, key.third, key.fourth.into()]
}

fn from_fields(f: [u64; FIELDS]) -> Key {
    // Nothing is lost of what was a key.
    Key::new(f[0] as u8, f[1], f[2] as u8, f[3], f[4], f[5] as u8)
}

/// Bytes that a number takes.
fn bytes_of(n: u64) -> u8 {
    (u64::BITS - n.leading_zeros()).div_ceil(8) as u8
}

/// The highest number of as many bytes.
fn max_of(width: u8) -> u64 {
    match width {
        0 => 0,
        width => u64::MAX >> (64 - 8 * u32::from(width.min(8))),
    }
}

impl Shape {
    /// The shape for some keys, in any order.
    pub(crate) fn of(keys: impl Iterator<Item = Key>) -> Shape {
        let mut bounds: Option<([u64; FIELDS], [u64; FIELDS])> = None;
        for key in keys {
            let f = fields(&key);
            let (low, high) = bounds.get_or_insert((f, f));
            for at in 0..FIELDS {
                low[at] = low[at].min(f[at]);
                high[at] = high[at].max(f[at]);
            }
        }
        let (mut lowest, high) = bounds.unwrap_or_default();
        let mut widths = [0; FIELDS];
        for at in 0..FIELDS {
            widths[at] = bytes_of(high[at] - lowest[at]);
            if widths[at] >= FROM_ZERO {
                lowest[at] = 0;
                widths[at] = FULL[at];
            } else if widths[at] > 0 {
                // Some that are a little lower will fit, too.
                let rounded = lowest[at] & !(max_of(widths[at]) >> 2);
                if high[at] - rounded <= max_of(widths[at]) {
                    lowest[at] = rounded;
                }
            }
        }
        let width: u8 = widths.iter().sum();
        if usize::from(width) > MAX_WIDTH {
            return Shape::new([0; FIELDS], FULL);
        }
        if width == 0 {
            // The last field gets the byte.
            widths[FIELDS - 1] = 1;
            lowest[FIELDS - 1] = 0;
        }
        Shape::new(lowest, widths)
    }

    fn new(lowest: [u64; FIELDS], widths: [u8; FIELDS]) -> Shape {
        Shape { lowest, highest_distances: widths.map(max_of), widths, width: widths.iter().sum() }
    }

    /// Bytes of a packed key.
    pub(crate) fn width(&self) -> usize {
        usize::from(self.width)
    }

    fn is_full(&self) -> bool {
        self.width() == FULL_WIDTH
    }

    /// A key to search for.
    #[inline]
    pub(crate) fn pack(&self, key: &Key) -> Packed {
        if self.is_full() {
            return Packed::Full(*key);
        }
        let mut number = 0;
        for (at, field) in fields(key).into_iter().enumerate() {
            // Most fields are the same in all keys.
            let distance = field.wrapping_sub(self.lowest[at]);
            if distance > self.highest_distances[at] {
                return self.outside(key);
            }
            if self.widths[at] > 0 {
                number = number << (8 * self.widths[at]) | u128::from(distance);
            }
        }
        Packed::Number(number)
    }

    /// A key to search for, of which some field does not fit. From the first such field on it is below or above all keys that have the
    /// fields before it.
    #[cold]
    fn outside(&self, key: &Key) -> Packed {
        let mut number: u128 = 0;
        let mut side = Ordering::Equal;
        for (at, field) in fields(key).into_iter().enumerate() {
            let max = self.highest_distances[at];
            if side == Ordering::Equal {
                side = match field.checked_sub(self.lowest[at]) {
                    None => Ordering::Less,
                    Some(distance) if distance > max => Ordering::Greater,
                    Some(_) => Ordering::Equal,
                };
            }
            let distance = match side {
                Ordering::Less => 0,
                Ordering::Equal => field - self.lowest[at],
                Ordering::Greater => max,
            };
            number = number << (8 * self.widths[at]) | u128::from(distance);
        }
        match side {
            Ordering::Less => Packed::Before(number),
            Ordering::Equal => Packed::Number(number),
            Ordering::Greater => Packed::After(number),
        }
    }

    /// Writes a key that this shape has packed, and that is in it, into the first bytes of `out`.
    pub(crate) fn put(&self, packed: &Packed, out: &mut [u8]) {
        match packed {
            Packed::Number(number) | Packed::Before(number) | Packed::After(number) => {
                let bytes = number.to_be_bytes();
                out[..self.width()].copy_from_slice(&bytes[MAX_WIDTH - self.width()..]);
            }
            Packed::Full(key) => {
                let mut rest = out;
                for (at, field) in fields(key).into_iter().enumerate() {
                    let width = usize::from(FULL[at]);
                    let (here, after) = rest.split_at_mut(width);
                    here.copy_from_slice(&field.to_be_bytes()[8 - width..]);
                    rest = after;
                }
            }
        }
    }

    /// The number of the packed key with which at least 16 bytes begin. Not for a shape with keys as they are.
    #[inline]
    pub(crate) fn number(&self, bytes: &[u8]) -> u128 {
        match bytes.first_chunk() {
            Some(bytes) => u128::from_be_bytes(*bytes) >> (8 * (MAX_WIDTH - self.width().min(MAX_WIDTH))),
            None => 0,
        }
    }

    /// The key with whose packed form the bytes begin.
    pub(crate) fn get(&self, bytes: &[u8]) -> Key {
        let mut f = [0; FIELDS];
        if self.is_full() {
            let mut rest = bytes;
            for at in 0..FIELDS {
                let (here, after) = rest.split_at(usize::from(FULL[at]));
                f[at] = here.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
                rest = after;
            }
            return from_fields(f);
        }
        let mut number = self.number(bytes);
        for at in (0..FIELDS).rev() {
            f[at] = self.lowest[at];
            if self.widths[at] > 0 {
                // It was put there as a distance from the lowest.
                f[at] = f[at].wrapping_add(number as u64 & self.highest_distances[at]);
                number >>= 8 * self.widths[at];
            }
        }
        from_fields(f)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::collection;
    use proptest::prelude::*;

    use super::*;

    /// Numbers that are near each other, at ends and anywhere.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => 0..3u64,
            4 => 1000..1400u64,
            1 => (1u64 << 40)..(1 << 40) + 70_000,
            1 => u64::MAX - 2..=u64::MAX,
            1 => any::<u64>(),
        ]
    }

    fn key() -> impl Strategy<Value = Key> {
        let byte = || prop_oneof![6 => 16..18u8, 1 => any::<u8>()];
        (byte(), number(), byte(), number(), number(), byte()).prop_map(
            |(zone, first, kind, second, third, fourth)| Key::new(zone, first, kind, second, third, fourth),
        )
    }

    /// Keys that have fields in common.
    fn keys() -> impl Strategy<Value = Vec<Key>> {
        (key(), collection::vec((key(), any::<[bool; FIELDS]>()), 1..20)).prop_map(|(like, keys)| {
            let other = |(key, differs): (Key, [bool; FIELDS])| {
                let (own, like) = (fields(&key), fields(&like));
                from_fields(core::array::from_fn(
                    |at| if differs[at] && at != 0 { own[at] } else { like[at] },
                ))
            };
            keys.into_iter().map(other).collect()
        })
    }

    proptest! {
        #[test]
        fn packed_keys_are_the_keys_and_in_their_order(keys in keys(), others in keys()) {
            let shape = Shape::of(keys.iter().copied());
            let packed: Vec<[u8; 32]> = keys
                .iter()
                .map(|key| {
                    let packed = shape.pack(key);
                    assert!(packed.fits());
                    let mut bytes = [0xee; 32];
                    shape.put(&packed, &mut bytes);
                    assert_eq!(shape.get(&bytes), *key);
                    bytes
                })
                .collect();
            if shape.is_full() {
                return Ok(());
            }
            for (key, bytes) in keys.iter().zip(&packed) {
                let number = shape.number(bytes);
                for other in keys.iter().chain(&others) {
                    let expected = key.cmp(other);
                    match shape.pack(other) {
                        Packed::Number(other) => prop_assert_eq!(number.cmp(&other), expected),
                        // Those that are equal to the number are on one side of what is not there.
                        Packed::Before(other) => prop_assert_eq!(number >= other, expected.is_gt()),
                        Packed::After(other) => prop_assert_eq!(number <= other, expected.is_lt()),
                        Packed::Full(_) => prop_assert!(false),
                    }
                }
            }
        }
    }

    #[test]
    fn keys_of_a_directory_and_of_inodes_are_short() {
        let entries = (0..100u64).map(|n| Key::dirent(1, n.wrapping_mul(0x9e37_79b9_7f4a_7c15), 2 + n));
        assert_eq!(Shape::of(entries).width(), 9);
        let inodes = (0..100u64).flat_map(|n| [Key::inode(70_000 + n), Key::backref(70_000 + n, 1, 2 + n)]);
        assert_eq!(Shape::of(inodes).width(), 4);
        assert_eq!(Shape::of(core::iter::once(Key::MAX)).width(), 1);
        assert_eq!(Shape::of([Key::MIN, Key::MAX].into_iter()).width(), FULL_WIDTH);
    }
}
