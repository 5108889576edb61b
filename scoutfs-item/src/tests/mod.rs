// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the cache as a whole.
//!
//! | module | what |
//! | --- | --- |
//! | `forest` | what is committed, as a reader for the cache |
//! | `rules` | what each operation promises |
//! | `model` | random operations against a map |
//! | `packing` | random writes of one page against a map |
//! | `memory` | every allocation of every operation fails once |
//! | `threads` | many threads at once |
//! | `schedules` | (shuttle) a slow reader against a writer, in every order |

mod forest;
#[cfg(not(feature = "shuttle"))]
mod memory;
#[cfg(not(feature = "shuttle"))]
mod model;
#[cfg(not(feature = "shuttle"))]
mod packing;
#[cfg(not(feature = "shuttle"))]
mod rules;
#[cfg(feature = "shuttle")]
mod schedules;
#[cfg(not(feature = "shuttle"))]
mod threads;

use scoutfs_format::Key;

use crate::{Bounds, Limits};

/// The whole key space.
const ALL: Bounds = (Key::MIN, Key::MAX);

/// Pages of a few items.
const SMALL_PAGES: Limits = Limits { page_bytes: 256, cache_bytes: usize::MAX };

/// The n-th key of the tests. There is space between them.
fn key(n: u64) -> Key {
    Key::new(16, 1, 4, n, 0, 0)
}
