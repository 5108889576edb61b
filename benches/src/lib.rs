// SPDX-License-Identifier: GPL-2.0-only
//! Head to be written.
