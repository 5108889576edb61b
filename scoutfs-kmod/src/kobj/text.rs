// SPDX-License-Identifier: GPL-2.0-only
//! A line of text on the stack, for messages and options.

use core::fmt::{self, Write};

/// As much of a text as fits.
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// No text.
    pub(crate) const EMPTY: Self = Text { bytes: [0; N], len: 0 };

    /// Formats; what does not fit is left out.
    pub(crate) fn of(args: fmt::Arguments<'_>) -> Self {
        let mut text = Self::EMPTY;
        // An error means that the text was cut.
        let _ = text.write_fmt(args);
        text
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(N - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        if fits == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}
