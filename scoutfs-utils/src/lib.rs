// SPDX-License-Identifier: GPL-2.0-only
//! What the `scoutfs` command is made of.
//!
//! | module | what |
//! | --- | --- |
//! | [`fuse`] | the FUSE protocol: a mount served from this process; knows nothing of scoutfs |

pub mod fuse;
