// SPDX-License-Identifier: GPL-2.0-only
//! Random bytes from getrandom(2).

use std::io;

pub(crate) fn fill(mut buf: &mut [u8]) {
    while !buf.is_empty() {
        // SAFETY: the pointer and length are those of a live, exclusively borrowed slice.
        let got = unsafe { libc::getrandom(buf.as_mut_ptr().cast(), buf.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => buf = &mut buf[got..],
            Err(_) => {
                let error = io::Error::last_os_error();
                // The only other causes are a bad pointer and a kernel older than 3.17; going on with
                // guessable nonces would be worse than stopping.
                assert!(error.kind() == io::ErrorKind::Interrupted, "getrandom failed: {error}");
            }
        }
    }
}
