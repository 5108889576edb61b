// SPDX-License-Identifier: GPL-2.0-only
//! Points in time, the two clocks of the host, and sleep.
//!
//! Only what runs state machines reads a clock; the machines are told what time it is.

use core::time::Duration;

use crate::backend;

/// A point on a clock that never goes back and goes on while the machine is suspended, in nanoseconds since
/// some fixed point of this boot. Leases and timers are reckoned in it. Means nothing on another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(u64);

fn whole_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Mono {
    /// The earliest point.
    pub const ZERO: Mono = Mono(0);
    /// The latest point; serves as "never".
    pub const MAX: Mono = Mono(u64::MAX);

    /// The point `ns` nanoseconds after [`Mono::ZERO`].
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since [`Mono::ZERO`].
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// `duration` later; `None` past [`Mono::MAX`].
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let ns = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_add(ns).map(Self)
    }

    /// `duration` earlier; `None` before [`Mono::ZERO`].
    pub fn checked_sub(self, duration: Duration) -> Option<Self> {
        let ns = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_sub(ns).map(Self)
    }

    /// `duration` later, or [`Mono::MAX`].
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(whole_ns(duration)))
    }

    /// `duration` earlier, or [`Mono::ZERO`].
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(whole_ns(duration)))
    }

    /// Time from `earlier` to here; `None` when `earlier` is later.
    pub fn checked_duration_since(self, earlier: Mono) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }

    /// Time from `earlier` to here; zero when `earlier` is later.
    pub fn saturating_duration_since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A time of day, as inodes keep it: since 1970-01-01 00:00 UTC. `nsec` is below 1,000,000,000 and counts
/// forward from `sec`, before 1970 too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timespec {
    /// Whole seconds.
    pub sec: i64,
    /// Nanoseconds on top of `sec`.
    pub nsec: u32,
}

/// Now, on the clock that counts suspend.
pub fn mono_now() -> Mono {
    Mono(backend::time::mono_now_ns())
}

/// Now, as time of day. May jump either way.
pub fn real_now() -> Timespec {
    backend::time::real_now()
}

/// Stops this thread for at least `duration`.
pub fn sleep(duration: Duration) {
    backend::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stops_at_the_ends_of_the_clock() {
        let ns = Duration::from_nanos;
        assert_eq!(Mono::MAX.checked_add(ns(1)), None);
        assert_eq!(Mono::MAX.saturating_add(ns(1)), Mono::MAX);
        assert_eq!(Mono::ZERO.checked_sub(ns(1)), None);
        assert_eq!(Mono::ZERO.saturating_sub(Duration::MAX), Mono::ZERO);
        assert_eq!(Mono::ZERO.checked_add(Duration::MAX), None);
        assert_eq!(Mono::ZERO.saturating_add(Duration::MAX), Mono::MAX);
        assert_eq!(Mono(5).checked_add(ns(2)), Some(Mono(7)));
        assert_eq!(Mono(5).checked_sub(ns(2)), Some(Mono(3)));
        assert_eq!(Mono(5).checked_duration_since(Mono(6)), None);
        assert_eq!(Mono(5).saturating_duration_since(Mono(6)), ns(0));
        assert_eq!(Mono(6).saturating_duration_since(Mono(4)), ns(2));
    }

    #[cfg(not(feature = "shuttle"))]
    #[test]
    fn the_clocks_move_forward_over_a_sleep() {
        let (mono, real) = (mono_now(), real_now());
        sleep(Duration::from_millis(5));
        assert!(mono_now().saturating_duration_since(mono) >= Duration::from_millis(5));
        assert!(real.sec > 1_600_000_000 && real.nsec < 1_000_000_000);
    }
}
