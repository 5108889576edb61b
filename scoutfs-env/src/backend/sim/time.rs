// SPDX-License-Identifier: GPL-2.0-only
//! The clocks of a simulated node.

use super::super::std::time as host;
use crate::sim;
use crate::time::Timespec;

/// Time of day at the start of each simulation.
const START_SEC: i64 = 1_700_000_000;

pub(crate) fn mono_now_ns() -> u64 {
    sim::node_clock_ns().unwrap_or_else(host::mono_now_ns)
}

pub(crate) fn real_now() -> Timespec {
    match sim::node_clock_ns() {
        None => host::real_now(),
        Some(ns) => Timespec {
            sec: START_SEC.saturating_add_unsigned(ns / 1_000_000_000),
            // Always below 10^9.
            nsec: (ns % 1_000_000_000) as u32,
        },
    }
}
