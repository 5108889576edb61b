// SPDX-License-Identifier: GPL-2.0-only
//! Random bytes that repeat with the seed.

use super::super::std::random as host;
use crate::sim;

pub(crate) fn fill(buf: &mut [u8]) {
    if !sim::active() {
        return host::fill(buf);
    }
    for part in buf.chunks_mut(8) {
        part.copy_from_slice(&sim::random().to_le_bytes()[..part.len()]);
    }
}
