// SPDX-License-Identifier: GPL-2.0-only
//! Pages of an inode that a front end's kernel drops while their lock goes back.
//!
//! A kernel that reads or writes pages through requests keeps each page locked until its request is answered, and dropping
//! pages waits for that. So a request that waits for the lock while the pages that it is about are dropped would wait for
//! ever: it is let in, under the lock that goes back (a *guest*). What guests leave in the cache is dropped after them, range by
//! range, and who comes for pages that are not being dropped waits for the next grant; so it ends, however busy the file is.

/// Ranges that are remembered apart; more are joined with the last.
const MAX_AGAIN: usize = 8;

/// A kernel locks and drops pages in naturally aligned folios of at most this many bytes: a request for one page keeps others locked.
const MAX_FOLIO: u64 = 2 << 20;

/// A range of bytes: first, and behind the last.
pub(crate) type ByteRange = (u64, u64);

/// What is being dropped.
#[derive(Default)]
pub(super) struct Flush {
    /// The inode and the range, while the kernel drops it.
    now: Option<(u64, ByteRange)>,
    /// Requests that were let in and are not done.
    guests: usize,
    /// What they were about.
    again: [ByteRange; MAX_AGAIN],
    again_len: usize,
}

impl Flush {
    /// Guests for these pages come in from now on.
    pub fn begin(&mut self, ino: u64, range: ByteRange) {
        self.now = Some((ino, range));
    }

    /// A request for pages: whether it may come in.
    pub fn admit(&mut self, ino: u64, (first, end): ByteRange) -> bool {
        let folio_of = |byte: u64| byte / MAX_FOLIO;
        let shares_folio = |range: ByteRange| {
            folio_of(first) <= folio_of(range.1.saturating_sub(1))
                && folio_of(range.0) <= folio_of(end.saturating_sub(1))
        };
        let wanted = self.now.is_some_and(|(now, range)| now == ino && shares_folio(range));
        if wanted {
            self.guests += 1;
            self.note((first, end));
        }
        wanted
    }

    /// A guest is done.
    pub fn leave(&mut self) {
        self.guests = self.guests.saturating_sub(1);
    }

    /// No more guests.
    pub fn close(&mut self) {
        self.now = None;
    }

    /// Whether all that were let in are done.
    pub fn is_quiet(&self) -> bool {
        self.guests == 0
    }

    /// What must be dropped once more.
    pub fn pop_again(&mut self) -> Option<ByteRange> {
        self.again_len = self.again_len.checked_sub(1)?;
        self.again.get(self.again_len).copied()
    }

    fn note(&mut self, range: ByteRange) {
        let last = self.again_len.min(MAX_AGAIN - 1);
        let Some(place) = self.again.get_mut(last) else { return };
        if last == self.again_len {
            *place = range;
            self.again_len += 1;
        } else {
            *place = (place.0.min(range.0), place.1.max(range.1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn only_requests_for_what_is_being_dropped_come_in_and_are_dropped_again() {
        const F: u64 = MAX_FOLIO;
        let mut flush = Flush::default();
        assert!(!flush.admit(5, (0, F)));
        // A part of the second folio, and of the third.
        flush.begin(5, (F + 100, 2 * F + 100));
        for range in [(0, F), (3 * F, 4 * F)] {
            assert!(!flush.admit(5, range));
        }
        assert!(!flush.admit(6, (F, 2 * F)) && flush.is_quiet());
        // Other bytes of the same folios.
        assert!(flush.admit(5, (3 * F - 1, 4 * F)) && flush.admit(5, (0, F + 1)));
        flush.leave();
        assert!(!flush.is_quiet());
        flush.close();
        assert!(!flush.admit(5, (F, 2 * F)));
        flush.leave();
        assert!(flush.is_quiet());
        assert_eq!(
            [flush.pop_again(), flush.pop_again(), flush.pop_again()],
            [Some((0, F + 1)), Some((3 * F - 1, 4 * F)), None]
        );
    }

    #[test]
    fn no_range_is_forgotten_however_many_there_are() {
        let mut flush = Flush::default();
        flush.begin(5, (0, u64::MAX));
        let ranges: Vec<ByteRange> = (0..100).map(|n| (n * 10, n * 10 + 5)).collect();
        for range in &ranges {
            assert!(flush.admit(5, *range));
        }
        let again: Vec<ByteRange> = core::iter::from_fn(|| flush.pop_again()).collect();
        assert_eq!(again.len(), MAX_AGAIN);
        for range in ranges {
            assert!(again.iter().any(|other| other.0 <= range.0 && range.1 <= other.1), "{range:?}");
        }
    }
}
