// SPDX-License-Identifier: GPL-2.0-only
//! Proof that each block of a volume has exactly one owner.
