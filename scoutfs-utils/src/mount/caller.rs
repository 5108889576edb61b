// SPDX-License-Identifier: GPL-2.0-only
//! Who asks, as far as a request does not say it: groups and capabilities.
//!
//! The kernel checks nearly everything before it asks. What only this project has a meaning for (names of attributes with tags, ioctls)
//! it lets pass, so the capabilities of the caller are looked up in `/proc`. That is sound: a request that is in the hands of this
//! process keeps its caller waiting, killed or not, so the number still means the same thread, whose credentials only it can
//! change itself.
//!
//! What cannot be known counts as no privilege: callers of other pid namespaces, capabilities that hold only in a user namespace
//! of their own, and kernel threads or workers that act for somebody else (their own user is not the request's).

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs;

use scoutfs_fs::ioctl::Capability;

use crate::fuse::Context;

/// Numbers of capabilities in Linux.
const CAP_FSETID: u32 = 4;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_ADMIN: u32 = 21;

/// What is known of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    uid: u32,
    groups: Vec<u32>,
    /// One bit each.
    capabilities: u64,
}

/// What `/proc/<pid>/status` says.
fn parse(status: &str) -> Option<Credentials> {
    let fields: HashMap<&str, &str> = status.lines().filter_map(|line| line.split_once(':')).collect();
    let numbers = |name: &str| -> Option<Vec<u32>> {
        fields.get(name)?.split_whitespace().map(|n| n.parse().ok()).collect()
    };
    // The fourth of each is that for file systems.
    let uid = *numbers("Uid")?.get(3)?;
    let mut groups = numbers("Groups")?;
    groups.push(*numbers("Gid")?.get(3)?);
    let capabilities = u64::from_str_radix(fields.get("CapEff")?.trim(), 16).ok()?;
    Some(Credentials { uid, groups, capabilities })
}

impl Credentials {
    /// Those of who asks.
    pub fn of(ctx: &Context<'_>) -> Self {
        Self::look_up(ctx.pid, ctx.uid, ctx.gid)
    }

    fn look_up(pid: u32, uid: u32, gid: u32) -> Self {
        let known = || {
            if pid == 0 {
                return None;
            }
            let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/user")).ok();
            let found = parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
            let ours = namespace("self")? == namespace(&pid.to_string())?;
            (ours && found.uid == uid).then_some(found)
        };
        known().unwrap_or(Credentials { uid, groups: vec![gid], capabilities: 0 })
    }

    fn has_number(&self, number: u32) -> bool {
        self.capabilities >> number & 1 == 1
    }

    /// Whether the caller has a capability.
    pub fn has(&self, capability: Capability) -> bool {
        self.has_number(match capability {
            Capability::DacReadSearch => CAP_DAC_READ_SEARCH,
            Capability::SysAdmin => CAP_SYS_ADMIN,
        })
    }

    /// Whether a file that the caller changes keeps its set-ID bits.
    pub fn keeps_set_ids(&self) -> bool {
        self.has_number(CAP_FSETID)
    }

    /// Whether the caller may have set-group-ID on a file of this group.
    pub fn may_set_group_id(&self, gid: u32) -> bool {
        self.keeps_set_ids() || self.groups.contains(&gid)
    }

    /// For checks of permissions.
    pub fn caller(&self) -> scoutfs_fs::acl::Caller<'_> {
        let reads_all = self.has_number(CAP_DAC_OVERRIDE) || self.has_number(CAP_DAC_READ_SEARCH);
        scoutfs_fs::acl::Caller { uid: self.uid, groups: &self.groups, reads_all }
    }
}

/// The credentials of who asks, looked up when they first matter.
pub struct LazyCredentials<'a> {
    ctx: &'a Context<'a>,
    known: OnceCell<Credentials>,
}

impl<'a> LazyCredentials<'a> {
    /// Those of who asks.
    pub fn of(ctx: &'a Context<'a>) -> Self {
        LazyCredentials { ctx, known: OnceCell::new() }
    }

    fn get(&self) -> &Credentials {
        self.known.get_or_init(|| Credentials::of(self.ctx))
    }
}

impl scoutfs_fs::ioctl::Credentials for LazyCredentials<'_> {
    fn capable(&self, capability: Capability) -> bool {
        self.get().has(capability)
    }

    fn caller(&self) -> scoutfs_fs::acl::Caller<'_> {
        self.get().caller()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\ta: b\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t10 11 \nCapEff:\t0000000000200004\n";

    #[test]
    fn the_filesystem_ids_groups_and_effective_capabilities_count() {
        let found = parse(STATUS).unwrap();
        assert_eq!((found.uid, &found.groups[..]), (4, &[10, 11, 8][..]));
        assert!(found.has(Capability::SysAdmin) && found.has(Capability::DacReadSearch));
        assert!(!found.has_number(CAP_DAC_OVERRIDE));
        assert!(found.caller().reads_all);
        for missing in ["Uid", "Gid", "Groups", "CapEff"] {
            let other = STATUS.replace(missing, "Other");
            assert_eq!(parse(&other), None, "{missing}");
        }
        assert_eq!(parse(&STATUS.replace("00200004", "x")), None);
    }

    #[test]
    fn who_cannot_be_known_or_acts_for_another_has_no_privilege() {
        let me = std::process::id();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(Credentials::look_up(me, uid, 0).uid, uid);
        let nobody = Credentials { uid: 7, groups: vec![8], capabilities: 0 };
        assert_eq!(Credentials::look_up(0, 7, 8), nobody);
        assert_eq!(Credentials::look_up(me, uid + 7, 8), Credentials { uid: uid + 7, ..nobody.clone() });
        assert_eq!(Credentials::look_up(u32::MAX, 7, 8), nobody);
    }
}
