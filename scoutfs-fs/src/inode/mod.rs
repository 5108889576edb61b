// SPDX-License-Identifier: GPL-2.0-only
//! Inodes: what they are, which are in use, how they change and how they end.
//!
//! | module | what |
//! | --- | --- |
//! | [`kind`] | types of files |
//! | `record` | an inode's item, checked, and [`Attr`] |
//! | `table` | the inodes in use on this mount: references and local locks |
//! | `passing` | inodes between the look-up of their name and what it was for |
//! | `change` | changes of several items that happen as a whole, with the change index |
//! | `attr` | getattr, setattr |
//! | `attr_x` | chosen attributes of archive agents, retention, projects |
//! | `privileges` | what a change of its contents takes away from a file |
//! | `allocated` | which inode numbers are in use |
//! | `delete` | deleting unlinked inodes, the orphan scan |
//!
//! What must hold: an orphan item exists exactly while an inode has no links; an inode has exactly one item in the
//! `meta_seq` index, at its `meta_seq`, and one in the `data_seq` index if its `data_seq` is not 0; only
//! one thread deletes an inode, when nobody on this mount uses it. Every operation that changes an inode asks first whether it is
//! retained.
//!
//! Locking: cluster locks, then inodes' local locks by number (see `table`), then the transaction.

mod allocated;
mod attr;
mod attr_x;
pub(crate) mod change;
mod delete;
pub mod kind;
pub(crate) mod passing;
mod privileges;
pub(crate) mod record;
pub(crate) mod table;

pub(crate) use attr::INODE_NEED;
pub use attr::{SetAttr, SetTime};
pub use privileges::{Drops, without_set_ids};
pub use record::Attr;

#[cfg(test)]
mod tests;
