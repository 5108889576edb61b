// SPDX-License-Identifier: GPL-2.0-only
//! What differs from the std back end in tests under shuttle. Locks and threads have the names of
//! `std`'s, so the std back end is compiled over them; random numbers repeat with the schedule.

pub(crate) mod random {
    use ::shuttle::rand::RngCore;

    pub(crate) fn fill(buf: &mut [u8]) {
        ::shuttle::rand::thread_rng().fill_bytes(buf);
    }
}
