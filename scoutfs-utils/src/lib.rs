// SPDX-License-Identifier: GPL-2.0-only
//! What the `scoutfs` command is made of.
//!
//! | module | what |
//! | --- | --- |
//! | [`cli`] | the command line's definitions |
//! | [`commands`] | the commands, one a file |
//! | [`ioctl`] | calling the ioctls of a mounted volume |
//! | [`mount`] | a mounted volume served over FUSE |
//! | [`fuse`] | the FUSE protocol: a mount served from this process; knows nothing of scoutfs |

pub mod cli;
pub mod commands;
pub mod fuse;
pub mod ioctl;
pub mod mount;
