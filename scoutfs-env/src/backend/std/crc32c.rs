// SPDX-License-Identifier: GPL-2.0-only
//! The `crc32c` crate, which uses the processor's instruction where there is one.

pub(crate) use ::crc32c::crc32c_append as append;
