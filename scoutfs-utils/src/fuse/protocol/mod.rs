// SPDX-License-Identifier: GPL-2.0-only
//! The bytes that cross `/dev/fuse`, in host byte order, as Linux 6.18 (ABI 7.45) defines them.
//!
//! | module | what |
//! | --- | --- |
//! | `abi` | the structs, with their sizes checked at compile time |
//! | `opcode` | the operations and notifications |
//! | `flags` | the bits of each flags field |
//! | `request` | bytes -> `Request`: bounds and names are checked here and nowhere else |
//! | `reply` | answers -> bytes, in a buffer that is written to the device as it is |

pub(crate) mod abi;
pub(crate) mod flags;
pub(crate) mod opcode;
pub(crate) mod reply;
pub(crate) mod request;

/// The protocol's major version; another one is another protocol.
pub(crate) const MAJOR: u32 = 7;
/// The newest minor version whose structs are known here.
pub(crate) const MINOR: u32 = 45;
/// The oldest minor version served (Linux 5.4): from here on struct sizes depend on flags only.
pub(crate) const MINOR_MIN: u32 = 31;
