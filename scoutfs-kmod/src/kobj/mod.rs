// SPDX-License-Identifier: GPL-2.0-only
//! Safe wrappers of kernel objects.
//!
//! | module | what |
//! | --- | --- |
//! | `error` | error numbers and pointers that are errors |
//! | `changed` | which pages of a folio have changed |
//! | `nofs` | a scope without filesystem reclaim |
//! | `folio` | folios of the page cache, and locks of an address space |
//! | `text` | a line of text on the stack |

pub(crate) mod changed;
pub(crate) mod error;
pub(crate) mod folio;
pub(crate) mod nofs;
pub(crate) mod text;
