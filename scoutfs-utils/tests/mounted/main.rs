// SPDX-License-Identifier: GPL-2.0-only
//! A mounted volume under real programs, through the `scoutfs` command alone.
//!
//! Needs root, `/dev/fuse` and loop devices, and fails without. After each unmount, and after each crash, `scoutfs check` must
//! find the volume sound. One file alone: `cargo test -p scoutfs-utils --test mounted posix::`.
//!
//! | module | what |
//! | --- | --- |
//! | `volume` | volumes and mounts that always go away |
//! | `run` | external programs, with a time limit |
//! | `user` | being somebody else for a while |
//! | `pattern` | random numbers and content made from them |
//! | `quick_start` | what an administrator types first |
//! | `durability` | what was synced survives the death of the daemon |
//! | `cluster` | several nodes on one volume: what one does the others see |
//! | `cluster_chaos` | all of that and pulled cables, at random, under load |
//! | `cluster_deaths` | nodes that are killed, and nodes that sleep |
//! | `wires` | a network of namespaces for nodes |
//! | `killed` | the same a hundred times at any moment, under the loads of `load` |
//! | `programs` | tar, git, and a large directory |
//! | `acls` | POSIX access control lists |
//! | `xattrs` | names with tags, searches and their ioctls |
//! | `posix` | files, links, names, attributes and permissions |
//! | `limits` | the largest files, the oldest and the newest times |
//! | `sharing` | several processes at once: listing, appending, locks, set-ID bits |
//! | `file_locks` | locks of fcntl and flock, on one node and several |
//! | `ping_pong` | ctdb's test of the coherence of locks and data |
//! | `locker` | a process that takes locks as it is told |
//! | `data` | file content: holes, mapped memory, direct IO |
//! | `deadlocks` | calls whose memory is a mapping of the mount |
//! | `full_volume` | filling to the brim, and getting the space back |
//! | `errors` | refusals: exit status, message, and nothing written |
//! | `ioctl` | the ioctls, as another program calls them |
//! | `ioctl_hostile` | the same with hostile arguments and by callers without rights |
//! | `raw_ioctl` | their numbers and structures, and the call |
//! | `handles` | file handles over renames, remounts and removal |
//! | `commands` | the commands that ask a mount, and what they print |
//! | `status` | who votes, leads and mounts |
//! | `model` | random operations, compared with a filesystem in memory |
//! | `syscalls` | the system calls of that comparison |
//! | `fsx` | the public stress test of that name |

mod acls;
mod cluster;
mod cluster_chaos;
mod cluster_deaths;
mod commands;
mod data;
mod deadlocks;
mod durability;
mod errors;
mod file_locks;
mod fsx;
mod full_volume;
mod handles;
mod ioctl;
mod ioctl_hostile;
mod killed;
mod limits;
mod load;
mod locker;
mod model;
mod pattern;
mod ping_pong;
mod posix;
mod programs;
mod quick_start;
mod raw_ioctl;
mod run;
mod sharing;
mod status;
mod syscalls;
mod user;
mod volume;
mod wires;
mod xattrs;
