// SPDX-License-Identifier: GPL-2.0-only
//! Faults that the cluster simulation plants in the protocols, to see that it finds them. Only a build with the feature
//! `sim` has them: in all others [`planted`] is the constant `false`, and what it guards is not compiled.

/// A way to get a protocol wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// None.
    None = 0,
}

impl Fault {
    /// All of them.
    pub const ALL: &'static [Fault] = &[Fault::None];
}

#[cfg(feature = "sim")]
static PLANTED: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

/// Plants a fault in this process; [`Fault::None`] takes it away.
#[cfg(feature = "sim")]
pub fn plant(fault: Fault) {
    PLANTED.store(fault as u32, core::sync::atomic::Ordering::Relaxed);
}

/// Whether this fault is planted.
#[cfg(feature = "sim")]
#[inline]
pub fn planted(fault: Fault) -> bool {
    PLANTED.load(core::sync::atomic::Ordering::Relaxed) == fault as u32
}

/// Whether this fault is planted: never.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub const fn planted(_: Fault) -> bool {
    false
}
