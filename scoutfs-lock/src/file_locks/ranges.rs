// SPDX-License-Identifier: GPL-2.0-only
//! What one owner holds of one file.

use scoutfs_env::{AllocError, Vec};

use super::message::ByteRange;
use crate::Mode;

/// Bytes that are held in one mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which.
    pub range: ByteRange,
    /// Read or write.
    pub mode: Mode,
    /// The process that took them last.
    pub pid: u32,
}

/// Pieces in the order of their bytes. They do not overlap, and those that touch differ in mode.
#[derive(Debug, Default)]
pub struct Ranges {
    pieces: Vec<Piece>,
}

impl Ranges {
    /// Nothing.
    pub const fn new() -> Self {
        Ranges { pieces: Vec::new() }
    }

    /// All pieces, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// How many pieces.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The pieces that have bytes of the range.
    pub fn overlapping(&self, range: &ByteRange) -> &[Piece] {
        let (first, end) = self.places(range);
        self.pieces.get(first..end).unwrap_or_default()
    }

    /// The parts of the range that are held in a higher mode than this one.
    pub fn above(&self, range: &ByteRange, mode: Mode) -> impl Iterator<Item = Piece> {
        let higher = self.overlapping(range).iter().filter(move |piece| piece.mode > mode);
        higher.filter_map(|piece| Some(Piece { range: piece.range.common(range)?, ..*piece }))
    }

    /// The first part of the range that is not held in this mode or a higher one.
    pub fn first_below(&self, range: &ByteRange, mode: Mode) -> Option<ByteRange> {
        if mode == Mode::Null {
            return None;
        }
        let mut start = range.start();
        for piece in self.overlapping(range) {
            if piece.range.start() > start {
                return ByteRange::new(start, piece.range.start().saturating_sub(1));
            }
            if piece.mode < mode {
                return ByteRange::new(start, piece.range.end().min(range.end()));
            }
            start = piece.range.end().saturating_add(1);
        }
        ByteRange::new(start, range.end())
    }

    /// How many more pieces there are at most after [`raise`](Self::raise).
    pub fn raise_adds(&self, range: &ByteRange) -> usize {
        // A gap before, between or behind each, or the two ends of one that is cut in three.
        self.overlapping(range).len().saturating_add(1).max(2)
    }

    /// How many more pieces there are at most after [`lower`](Self::lower).
    pub fn lower_adds(&self, range: &ByteRange, mode: Mode) -> usize {
        let pieces = self.overlapping(range);
        let cut_start = pieces.first().is_some_and(|p| p.mode > mode && p.range.start() < range.start());
        let cut_end = pieces.last().is_some_and(|p| p.mode > mode && p.range.end() > range.end());
        match mode {
            // What is between the ends is gone.
            Mode::Null => usize::from(cut_start && cut_end && pieces.len() == 1),
            _ => usize::from(cut_start).saturating_add(usize::from(cut_end)),
        }
    }

    /// Index of the first piece with bytes of the range, and of the first one behind them.
    fn places(&self, range: &ByteRange) -> (usize, usize) {
        let first = self.pieces.partition_point(|piece| piece.range.end() < range.start());
        let end = self.pieces.partition_point(|piece| piece.range.start() <= range.end());
        (first, end)
    }

    /// From now on all of the range is held in this mode at least. On error nothing has changed.
    pub fn raise(&mut self, range: &ByteRange, mode: Mode, pid: u32) -> Result<(), AllocError> {
        self.pieces.reserve(self.raise_adds(range).saturating_add(2))?;
        while let Some(part) = self.first_below(range, mode) {
            self.set(part, mode, pid)?;
        }
        Ok(())
    }

    /// Makes room, so that [`lower`](Self::lower) cannot fail.
    pub fn reserve_lower(&mut self, range: &ByteRange, mode: Mode) -> Result<(), AllocError> {
        self.pieces.reserve(self.lower_adds(range, mode).saturating_add(2))
    }

    /// From now on nothing of the range is held in a higher mode than this one. On error nothing has changed.
    pub fn lower(&mut self, range: &ByteRange, mode: Mode, pid: u32) -> Result<(), AllocError> {
        self.reserve_lower(range, mode)?;
        loop {
            let Some(piece) = self.above(range, mode).next() else { return Ok(()) };
            self.set(piece.range, mode, pid)?;
        }
    }

    /// From now on the range is held in this mode, whatever was held of it. It needs room for two pieces more; on error nothing has
    /// changed.
    fn set(&mut self, range: ByteRange, mode: Mode, pid: u32) -> Result<(), AllocError> {
        self.pieces.reserve(2)?;
        let (mut first, mut end) = self.places(&range);
        let (mut new_start, mut new_end) = (range.start(), range.end());
        // What stays of the first and the last piece, and neighbours of the same mode.
        let (mut left, mut right) = (None, None);
        if let Some(piece) = self.pieces.get(first).filter(|_| first < end) {
            match piece.range.start() {
                start if start >= new_start => {}
                start if piece.mode == mode => new_start = start,
                start => left = piece_of(start, range.start().saturating_sub(1), piece),
            }
        }
        if let Some(piece) = end.checked_sub(1).and_then(|last| self.pieces.get(last)).filter(|_| first < end)
        {
            match piece.range.end() {
                last if last <= new_end => {}
                last if piece.mode == mode => new_end = last,
                last => right = piece_of(range.end().saturating_add(1), last, piece),
            }
        }
        if left.is_none()
            && let Some(at) = first.checked_sub(1)
            && let Some(piece) = self.pieces.get(at)
            && piece.mode == mode
            && piece.range.end().saturating_add(1) == new_start
        {
            new_start = piece.range.start();
            first = at;
        }
        if right.is_none()
            && let Some(piece) = self.pieces.get(end)
            && piece.mode == mode
            && new_end.saturating_add(1) == piece.range.start()
        {
            new_end = piece.range.end();
            end += 1;
        }
        let new = ByteRange::new(new_start, new_end).filter(|_| mode != Mode::Null);
        let new = new.map(|range| Piece { range, mode, pid });
        self.pieces.drain(first..end);
        for piece in [left, new, right].into_iter().flatten() {
            // There is room: at most two more than there were.
            self.pieces.insert(first, piece)?;
            first += 1;
        }
        Ok(())
    }
}

fn piece_of(start: u64, end: u64, of: &Piece) -> Option<Piece> {
    ByteRange::new(start, end).map(|range| Piece { range, ..*of })
}
