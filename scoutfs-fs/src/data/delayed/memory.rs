// SPDX-License-Identifier: GPL-2.0-only
//! What is gathered of a file, in pieces of memory: the device takes several at one time, and what is there is not copied as it grows.

use core::ops::Range;

use scoutfs_env::{AllocError, IoBuf, Vec};

use crate::data::block_io::BLOCK_LEN;

/// Bytes of a piece that is full.
const PIECE: usize = 256 << 10;

/// Whole blocks, zero where nothing was copied in. All pieces but the last are full.
#[derive(Default)]
pub(super) struct Memory(Vec<IoBuf>);

impl Memory {
    /// Bytes that there is room for.
    pub fn len(&self) -> usize {
        let Some((last, full)) = self.0.split_last() else { return 0 };
        full.len() * PIECE + last.len()
    }

    /// Sees to it that there is room for `len` bytes. So much is `used`. On an error there may be a part more.
    pub fn extend(&mut self, used: usize, len: usize) -> Result<(), AllocError> {
        while self.len() < len {
            let missing = (len - self.len()).next_multiple_of(BLOCK_LEN);
            match self.0.split_last_mut() {
                Some((last, full)) if last.len() < PIECE => {
                    let room = (last.len() + missing).max(2 * last.len()).min(PIECE);
                    let mut larger = IoBuf::zeroed(room)?;
                    let used = used - full.len() * PIECE;
                    larger[..used].copy_from_slice(&last[..used]);
                    *last = larger;
                }
                // What has filled one piece goes on.
                Some(_) => self.0.push(IoBuf::zeroed(PIECE)?)?,
                None => self.0.push(IoBuf::zeroed(missing.min(PIECE))?)?,
            }
        }
        Ok(())
    }

    /// Copies bytes to a place that there is room for.
    pub fn copy_in(&mut self, mut at: usize, mut data: &[u8]) {
        while !data.is_empty() {
            let Some(piece) = self.0.get_mut(at / PIECE) else { return };
            let room = &mut piece[at % PIECE..];
            let len = room.len().min(data.len());
            room[..len].copy_from_slice(&data[..len]);
            (at, data) = (at + len, &data[len..]);
        }
    }

    /// Bytes of one block, where the memory is for what is in the file from `base` on.
    pub fn in_block(&self, base: u64, range: Range<u64>) -> &[u8] {
        let (from, len) = ((range.start - base) as usize, (range.end - range.start) as usize);
        let piece = self.0.get(from / PIECE).map_or(&[][..], |piece| piece);
        piece.get(from % PIECE..from % PIECE + len).unwrap_or_default()
    }

    /// The blocks of a range that begins with one, and where on the device they go, when they follow each other there from `to` on.
    pub fn blocks(&self, base: u64, range: Range<u64>, mut to: u64) -> Result<Vec<(u64, &[u8])>, AllocError> {
        let (mut from, end) = ((range.start - base) as usize, (range.end - base) as usize);
        let end = end.next_multiple_of(BLOCK_LEN);
        let mut pieces = Vec::new();
        while from < end {
            let piece = self.0.get(from / PIECE).map_or(&[][..], |piece| &piece[from % PIECE..]);
            let len = piece.len().min(end - from);
            debug_assert!(len > 0, "there is room for what was copied in");
            if len == 0 {
                break;
            }
            pieces.push((to, &piece[..len]))?;
            from += len;
            to += len as u64;
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec as StdVec;

    /// All that the blocks of a range hold, which must follow each other on the device.
    fn all(memory: &Memory, range: Range<u64>) -> StdVec<u8> {
        let base = 5 * BLOCK_LEN as u64;
        let mut all = vec![];
        for (to, bytes) in memory.blocks(base, base + range.start..base + range.end, 77 << 12).unwrap() {
            assert_eq!(to, (77 << 12) + all.len() as u64);
            all.extend_from_slice(bytes);
        }
        all
    }

    #[test]
    fn it_holds_what_was_copied_in_and_zeros_behind_however_it_grew() {
        for steps in
            [vec![1, 10, 4095, 1], vec![PIECE], vec![100, PIECE, 3 * PIECE + 5], vec![PIECE - 1, 1, 1]]
        {
            let (mut memory, mut want) = (Memory::default(), vec![]);
            for (n, step) in steps.iter().enumerate() {
                let data: StdVec<u8> = (0..*step).map(|i| (i + n) as u8 | 1).collect();
                memory.extend(want.len(), want.len() + step).unwrap();
                memory.copy_in(want.len(), &data);
                want.extend(data);
                assert!(memory.len() >= want.len() && memory.len().is_multiple_of(BLOCK_LEN));
                assert!(memory.len() <= (2 * want.len()).max(want.len() + PIECE).next_multiple_of(BLOCK_LEN));
                let len = want.len();
                let mut padded = want.clone();
                padded.resize(len.next_multiple_of(BLOCK_LEN), 0);
                assert!(all(&memory, 0..len as u64) == padded);
                let last = (len - 1) / BLOCK_LEN * BLOCK_LEN;
                assert!(all(&memory, last as u64..len as u64) == padded[last..]);
                assert_eq!(memory.in_block(0, last as u64..len as u64), &want[last..]);
            }
        }
    }
}
