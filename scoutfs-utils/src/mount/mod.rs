// SPDX-License-Identifier: GPL-2.0-only
//! A mounted volume served over FUSE, or by the kernel itself.
//!
//! | module | what |
//! | --- | --- |
//! | `options` | what follows `-o` |
//! | `process` | naming this process, and knowing which others are dead |
//! | `fence` | the administrator's program that makes certain that a node is dead |
//! | `watch` | a process that runs it for a mount by the kernel |
//! | `adapter` | FUSE requests to operations of the filesystem and back |
//! | `caches` | what the kernel keeps, dropped when locks go back |
//! | `caller` | groups and capabilities of who asks |
//! | `convert` | attributes, times and errors between the two |
//! | `kernel` | mounting by the running kernel, if it has scoutfs |
//! | `log` | where the log of a mount in the background goes |
//! | `lost` | which open files know of data that are lost |
//! | `signals` | unmounting when the process is asked to end |
//! | `ioctl` | the ioctls of a mounted volume |
//! | `user_memory` | the memory of who called an ioctl |

mod adapter;
mod caches;
mod caller;
mod convert;
mod fence;
mod ioctl;
pub mod kernel;
pub mod log;
mod lost;
pub mod options;
mod process;
mod signals;
mod user_memory;
mod watch;

pub use adapter::Adapter;
pub use fence::FenceAgent;
pub use process::{LocalProcesses, this_process};
pub use signals::EndSignals;
pub use watch::FenceWatch;
