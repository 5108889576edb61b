// SPDX-License-Identifier: GPL-2.0-only
//! How an input is changed.

use crate::rng::Rng;

/// Longest input.
pub const MAX_LEN: usize = 256 << 10;

/// Changes an input in one to four places.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..=rng.below(4) {
        match rng.below(16) {
            0 => insert(bytes, rng),
            1 => remove(bytes, rng),
            2 => splice(bytes, other, rng),
            3 => copy_within(bytes, rng),
            4 => fill(bytes, rng),
            _ => set_number(bytes, rng),
        }
    }
    bytes.truncate(MAX_LEN);
}

/// A place: mostly in the first bytes, where headers are.
fn place(len: usize, rng: &mut Rng) -> usize {
    let bound = *rng.pick(&[16, 64, 64, 256, 4096, usize::MAX]);
    rng.below(len.min(bound).max(1))
}

fn insert(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let (at, count) = (rng.below(bytes.len() + 1), 1 + rng.below(*rng.clone().pick(&[1, 8, 64, 1000])));
    let value = rng.next_u64() as u8;
    let new: Vec<u8> = (0..count).map(|_| if rng.one_in(2) { value } else { rng.next_u64() as u8 }).collect();
    bytes.splice(at..at, new);
}

fn remove(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if !bytes.is_empty() {
        let at = place(bytes.len(), rng);
        let end = (at + 1 + rng.below(64)).min(bytes.len());
        bytes.drain(at..if rng.one_in(8) { bytes.len() } else { end });
    }
}

fn splice(bytes: &mut [u8], other: &[u8], rng: &mut Rng) {
    if bytes.is_empty() || other.is_empty() {
        return;
    }
    let at = place(bytes.len(), rng);
    let from = if rng.one_in(2) { at.min(other.len() - 1) } else { place(other.len(), rng) };
    let len = (1 + rng.below(128)).min(bytes.len() - at).min(other.len() - from);
    bytes[at..at + len].copy_from_slice(&other[from..from + len]);
}

fn copy_within(bytes: &mut [u8], rng: &mut Rng) {
    if !bytes.is_empty() {
        let (to, from) = (place(bytes.len(), rng), place(bytes.len(), rng));
        let len = (1 + rng.below(64)).min(bytes.len() - to.max(from));
        bytes.copy_within(from..from + len, to);
    }
}

fn fill(bytes: &mut [u8], rng: &mut Rng) {
    if !bytes.is_empty() {
        let at = place(bytes.len(), rng);
        let end = (at + 1 + rng.below(32)).min(bytes.len());
        bytes[at..end].fill(*rng.pick(&[0, 0xff, 1, 0x80, b'a', b'/', b'.']));
    }
}

/// Changes a number, which mostly lies at a multiple of its size.
fn set_number(bytes: &mut [u8], rng: &mut Rng) {
    let width = (*rng.pick(&[1, 2, 4, 8])).min(bytes.len());
    if width == 0 {
        return;
    }
    let at = place(bytes.len(), rng).min(bytes.len() - width);
    let at = if rng.one_in(4) { at } else { at - at % width };
    let mut old = [0; 8];
    old[..width].copy_from_slice(&bytes[at..at + width]);
    let old = u64::from_le_bytes(old);
    let new = match rng.below(11) {
        0 => 0,
        1 => u64::MAX,
        2 => u64::MAX >> 1,
        3 => 1 << rng.below(width * 8),
        4 => old.wrapping_add(1 + rng.below(16) as u64),
        5 => old.wrapping_sub(1 + rng.below(16) as u64),
        6 => old ^ (1 << rng.below(width * 8)),
        7 => rng.below(70_000) as u64,
        8 => bytes.len() as u64 - at as u64,
        // As many structures of some size as just fit, or just do not.
        9 => (bytes.len() / (8 * (1 + rng.below(12))) + rng.below(9)).saturating_sub(4) as u64,
        _ => rng.next_u64(),
    };
    bytes[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
}
