// SPDX-License-Identifier: GPL-2.0-only
//! A mounted node: what makes a volume on a device into a filesystem that works.
//!
//! | module | what |
//! | --- | --- |
//! | `mount` | [`Mount`]: from a device to a working filesystem, and back |
//! | `voter` | this node's voter slot: claiming it, beating, becoming the leader |
//! | `leadership` | whether this node may act as the leader now |
//! | `rivals` | what it sees of other owners while it waits: whom it waits for, and when waiting is in vain |
//! | `server_host` | the threads that run the server when this node is elected |
//! | `transport` | the connection to a server in this process |
//! | `counted` | the device, counting what is asked of it |
//! | `client` | requests to the server and their answers |
//! | `worker` | what goes on in the background: commits by time, refills, what the server asks for |
//!
//! Threads of a mount: one that receives the server's messages (and never waits for anything else), one worker (which may
//! commit and ask the server), one voter, and those of the server host.

mod client;
mod counted;
mod leadership;
mod mount;
mod rivals;
mod server_host;
mod transport;
mod voter;
mod worker;

pub(crate) use client::Client;
pub use mount::{Mount, MountOptions};
pub(crate) use rivals::shown;
pub(crate) use worker::Worker;
