// SPDX-License-Identifier: GPL-2.0-only
//! Lines for the kernel log, formatted on the stack.

use core::fmt::{self, Write};

use super::hooks::scoutfs_host_log;
use crate::log::Level;

/// The first part of a line, as much as fits.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let fits = text.floor_char_boundary(room);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        // An error ends the formatting: what follows must not be put behind a gap.
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

pub(crate) fn write(level: Level, args: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 256], len: 0 };
    // An error means that the line was cut.
    let _ = line.write_fmt(args);
    // SAFETY: `len` bytes are live and were written from whole characters.
    unsafe { scoutfs_host_log(level as u32, line.bytes.as_ptr(), line.len) };
}

#[cfg(test)]
mod tests {
    use super::super::test_hooks::LAST_LINE;
    use super::*;

    #[test]
    fn a_long_line_is_cut_between_characters() {
        write(Level::Warn, format_args!("short {}", 1));
        assert_eq!(*LAST_LINE.lock().unwrap(), (1, std::string::String::from("short 1")));
        // 255 bytes, then a character of two bytes, of which only one would fit.
        write(Level::Error, format_args!("{:x>255}\u{e9}{}", "", "tail"));
        assert_eq!(*LAST_LINE.lock().unwrap(), (0, std::string::String::from("x").repeat(255)));
    }
}
