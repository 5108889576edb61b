// SPDX-License-Identifier: GPL-2.0-only
//! A leader that has lost the network fences nobody.
//!
//! All others fall silent at once then, while it is the leader who is to go: it resigns, but only after a while, and whoever it had
//! fenced by then would have failed for nothing. So no lease counts as run out while the server hears fewer of the voters
//! that beat than the leader must reach ([`Beating::lacks`]). When it hears enough again, all mounts have a whole
//! lease to be heard: some reconnect sooner than others.

use core::time::Duration;

use scoutfs_env::log;
use scoutfs_env::time::Mono;
use scoutfs_net::quorum::{Beating, OtherVoter};

use super::{LEASE, Server};

/// A mount that has not renewed its lease for so long is not heard. It renews several times meanwhile, and when all have been cut
/// off at once, the one who was heard last is silent for this long before the lease of the first runs out.
const HEARD: Duration = Duration::from_millis(LEASE.as_millis() as u64 * 2 / 3);

/// See the module.
#[derive(Default)]
pub(super) struct CutOff {
    beating: Beating,
    /// As found last.
    is_cut_off: bool,
}

impl Server {
    /// The voters that beat, as the leader's voter saw them last.
    pub fn set_beating(&mut self, beating: &Beating) {
        self.cut_off.beating = *beating;
    }

    /// Whether too few voters are heard.
    pub(super) fn is_cut_off(&self) -> bool {
        self.cut_off.is_cut_off
    }

    /// Looks whether enough voters are heard.
    pub(super) fn check_network(&mut self, now: Mono) {
        let lacks = self.cut_off.beating.lacks(|other| self.hears(other, now));
        if core::mem::replace(&mut self.cut_off.is_cut_off, lacks) == lacks {
            return;
        }
        if lacks {
            log::warn!("scoutfs server: too few voters are heard: no mount is fenced meanwhile");
        } else {
            log::info!("scoutfs server: enough voters are heard again");
            self.resumed(now);
        }
    }

    /// A voter that is no member (yet) is heard when it says that it is connected.
    fn hears(&self, other: &OtherVoter, now: Mono) -> bool {
        match self.members.live().find(|member| member.rid() == other.rid) {
            Some(member) => now.saturating_duration_since(member.renewed) < HEARD,
            None => other.connected,
        }
    }
}
