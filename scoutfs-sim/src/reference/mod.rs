// SPDX-License-Identifier: GPL-2.0-only
//! A filesystem of a few lines in memory, and what makes sure that the real one answers as it does.
//!
//! | module | what |
//! | --- | --- |
//! | `node` | inodes |
//! | `names` | the filesystem: inodes and names |
//! | `data` | contents of files, with their blocks |
//! | `attrs` | permissions, owners, times, extended attributes |
//! | `acl` | access control lists |
//! | `call` | what is asked of a filesystem, and what it answers |
//! | `apply` | carrying out a call on the reference |
//! | `op` | random operations, which become calls |
//! | `history` | what a crash may leave |
//! | `run` | the same calls on both, compared |
//!
//! What must hold: whoever carries out calls ([`Subject`]) is asked for everything that it can show; that the two are
//! the same is decided here alone.

pub mod acl;
mod apply;
mod attrs;
mod call;
mod data;
mod history;
mod names;
mod node;
mod op;
mod run;

pub use call::{Allocate, Answer, Call, Data, Existing, NewTime, Outcome, Place, Target, Value, Way};
pub use history::{Found, History};
pub use names::{Reference, Rules};
pub use node::{BLOCK, Content, Name, Node, Seen, Stat, Time, Times};
pub use op::{HIDDEN, Op, any_op};
pub use run::{Run, Subject};
