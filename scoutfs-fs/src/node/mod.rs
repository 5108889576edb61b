// SPDX-License-Identifier: GPL-2.0-only
//! A mounted node: what makes a volume on a device into a filesystem that works.
//!
//! | module | what |
//! | --- | --- |
//! | `mount` | [`Mount`]: from a device to a working filesystem, and back |
//! | `cancel` | giving up a mount that is under way |
//! | `voter` | this node's voter slot: claiming it, beating, becoming the leader |
//! | `leadership` | whether this node may act as the leader now |
//! | `lead` | runs the server when this node is elected |
//! | `rivals` | what it sees of other owners while it waits: whom it waits for, and when waiting is in vain |
//! | `server_host` | the threads that run the server when this node is elected |
//! | `desk` | where messages meet the server: handled by who received them, if that takes no waiting |
//! | `inbox` | what has come for the server and is not handled yet |
//! | `port` | where other nodes connect to |
//! | `socket` | a stream from a mount, on the server's side |
//! | `peers` | the mounts that the server talks to |
//! | `link` | the way to the server, wherever it is |
//! | `session` | the thread that connects to the server and receives |
//! | `revoker` | gives locks back |
//! | `flusher` | writes what small writes have gathered |
//! | `lease` | keeps the mount's lease while its device works |
//! | `orphans` | looks for unlinked inodes that nobody has deleted, and closes those that were open in passing |
//! | `counted` | the device, counting what is asked of it |
//! | `client` | requests to the server and their answers |
//! | `worker` | what goes on in the background: commits by time, refills, what the server asks for |
//!
//! Threads of a mount: one that receives the server's messages (and never waits for an answer), one that
//! looks whether the server is heard, one that renews the lease, one worker (which may
//! commit and ask the server), one that gives locks back, one that looks for orphans, one that writes what small writes have gathered, one voter, and those of the server host: the server, the merger, one that accepts streams, and two for
//! each stream, of which the one that receives is the server for messages about locks and seqs.
//!
//! What a hand-over of a lock wakes, when the old holder is not the leader's mount: who receives for the server (the request), who receives for the
//! old holder, its revoker, who receives for the server (the answer), who receives for the new holder, and who waits there.

mod cancel;
mod client;
mod counted;
mod desk;
mod flusher;
mod inbox;
mod lead;
mod leadership;
mod lease;
mod link;
mod mount;
mod orphans;
mod peers;
mod port;
mod revoker;
mod rivals;
mod server_host;
mod session;
mod socket;
mod voter;
mod worker;

pub use cancel::Cancel;
pub(crate) use client::{Client, FENCED, Killed, LOOK, MEMORY_PAUSE};
pub(crate) use leadership::Leadership;
pub use mount::{Mount, MountOptions};
pub(crate) use rivals::shown;
pub use voter::Rank;
pub(crate) use worker::Worker;
