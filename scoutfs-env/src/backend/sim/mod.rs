// SPDX-License-Identifier: GPL-2.0-only
//! What differs from the std back end in a thread that a [simulation](crate::sim) started. In all other threads
//! these are the std back end.
//!
//! | module | what |
//! | --- | --- |
//! | `sync` | locks: one task runs at a time, so who finds one taken blocks in the scheduler |
//! | `thread`, `time`, `random` | those of the simulation |

pub(crate) mod random;
pub(crate) mod sync;
pub(crate) mod thread;
pub(crate) mod time;
