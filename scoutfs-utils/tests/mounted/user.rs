// SPDX-License-Identifier: GPL-2.0-only
//! Being somebody else for a while.

use std::thread;

use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// A user with groups and effective capabilities.
#[derive(Clone, Debug)]
pub struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    capabilities: CapabilitySet,
}

impl User {
    /// A user without capabilities.
    pub fn new(uid: u32, gid: u32, groups: &[u32]) -> Self {
        User { uid, gid, groups: groups.to_vec(), capabilities: CapabilitySet::empty() }
    }

    /// With these capabilities.
    pub fn with(self, capabilities: CapabilitySet) -> Self {
        User { capabilities, ..self }
    }

    /// Runs `f` as this user: in a thread of its own, whose credentials are its alone.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let become_user = || {
            let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            set_thread_groups(&groups)?;
            set_keep_capabilities(true)?;
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            let (effective, inheritable) = (self.capabilities, CapabilitySet::empty());
            set_capabilities(None, CapabilitySets { effective, permitted: effective, inheritable })
        };
        thread::scope(|scope| {
            let other = scope.spawn(move || {
                become_user().unwrap();
                f()
            });
            other.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
        })
    }
}

/// From now on `access` answers this thread what this user, without capabilities, may do. All else the thread does as before.
pub fn ask_as(uid: u32) {
    set_thread_res_uid(Uid::from_raw(uid), Uid::ROOT, Uid::ROOT).unwrap();
}
