// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the server as a whole, against mounts that send messages and write real rings.

mod at_once;
mod cut_off;
mod deaths;
mod fences;
mod file_locks;
mod members;
mod merging;
mod mount;
mod recall;
mod rig;
mod roots;
mod space;
mod take_over;
