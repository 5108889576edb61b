// SPDX-License-Identifier: GPL-2.0-only
//! Rules that hold at every moment, by what mounts tell of their insides ([`scoutfs_env::probe`]).
//!
//! - Nobody finds that it may lead after another has found that it may: leaders come one after the other, however late one wakes up.
//! - No two mounts with valid leases hold a lock at once, one of them for writing.
//!
//! Leases are judged by the clock of the mount that has them, for that is how the mount does it. Nothing is forgiven a host
//! that is slow, cut off or stands still: that is what leases are for.

use std::collections::{BTreeMap, BTreeSet};

use scoutfs_env::probe::{Event, Held};
use scoutfs_env::sim::{self, Node};
use scoutfs_env::time::Mono;

/// What is known of a mount.
struct Mount {
    lease: Mono,
    leads_until: Mono,
    /// By the first inode number of their groups.
    locks: BTreeMap<u64, Held>,
}

impl Mount {
    fn is_valid(&self, now: Mono) -> bool {
        now < self.lease.min(self.leads_until)
    }
}

impl Default for Mount {
    fn default() -> Self {
        Mount { lease: Mono::ZERO, leads_until: Mono::MAX, locks: BTreeMap::new() }
    }
}

/// See the module.
#[derive(Default)]
pub struct Rules {
    /// Those that live.
    mounts: BTreeMap<Node, Mount>,
    /// Those that have failed: what is still under way in them is answered to nobody.
    ended: BTreeSet<Node>,
    /// In the order in which they began to lead.
    leaders: Vec<Node>,
    /// How many times each rule was looked at.
    pub checked: u64,
}

impl Rules {
    /// Who was the last to begin to lead.
    pub fn leader(&self) -> Option<Node> {
        self.leaders.last().copied()
    }

    /// Whether a mount leads or has led.
    pub fn has_led(&self, node: Node) -> bool {
        self.leaders.contains(&node)
    }

    /// Whether a mount lives, has not failed and has a valid lease.
    pub fn is_valid(&self, node: Node, clock: impl Fn(Node) -> Mono) -> bool {
        self.mounts.get(&node).is_some_and(|mount| mount.is_valid(clock(node)))
    }

    /// For how long the lease of a mount has been over, and that of a leader too, if it is, in nanoseconds of its clock.
    pub fn lease_over(&self, node: Node, clock: Mono) -> Option<u64> {
        let mount = self.mounts.get(&node)?;
        let lease = if self.has_led(node) { mount.lease.max(mount.leads_until) } else { mount.lease };
        let over = clock.saturating_duration_since(lease);
        (clock > lease && lease > Mono::ZERO).then_some(over.as_nanos() as u64)
    }

    /// A mount is dead: it does nothing any more.
    pub fn died(&mut self, node: Node) {
        self.mounts.remove(&node);
    }

    /// A mount has found or done something. Says what rule it breaks, if any. `clock` is what the clock of a mount shows.
    pub fn told(&mut self, node: Node, event: Event, clock: impl Fn(Node) -> Mono) -> Result<(), String> {
        self.checked += 1;
        match event {
            Event::Ended => {
                self.mounts.remove(&node);
                self.ended.insert(node);
                return Ok(());
            }
            Event::Leads => return self.leads(node),
            _ if self.ended.contains(&node) => return Ok(()),
            Event::Lease(until) => {
                let lease = &mut self.mount(node).lease;
                *lease = until.max(*lease);
            }
            Event::LeaderLease(until) => self.mount(node).leads_until = until,
            Event::Lock { first_ino, held: Held::No } => {
                self.mount(node).locks.remove(&first_ino);
                return Ok(());
            }
            Event::Lock { first_ino, held } => {
                self.mount(node).locks.insert(first_ino, held);
            }
        }
        self.locks_exclude(node, clock)
    }

    fn mount(&mut self, node: Node) -> &mut Mount {
        self.mounts.entry(node).or_default()
    }

    fn leads(&mut self, node: Node) -> Result<(), String> {
        match self.leaders.iter().position(|leader| *leader == node) {
            None => {
                self.leaders.push(node);
                Ok(())
            }
            Some(at) if at + 1 == self.leaders.len() => Ok(()),
            Some(at) => {
                let next = self.leaders[at + 1];
                Err(format!("{node:?} finds that it may lead, and {next:?} has led meanwhile"))
            }
        }
    }

    /// Looks at the locks of one mount, of which something has changed.
    fn locks_exclude(&self, node: Node, clock: impl Fn(Node) -> Mono) -> Result<(), String> {
        let Some(own) = self.mounts.get(&node).filter(|own| own.is_valid(clock(node))) else {
            return Ok(());
        };
        let is_other = |other: Node, mount: &Mount| other != node && mount.is_valid(clock(other));
        let others = self.mounts.iter().filter(|(other, mount)| is_other(**other, mount));
        for (other, mount) in others {
            for (lock, held) in &own.locks {
                let theirs = mount.locks.get(lock).copied().unwrap_or(Held::No);
                if theirs != Held::No && (theirs, *held) != (Held::Read, Held::Read) {
                    return Err(format!(
                        "{node:?} holds the lock of inode {lock} for {held:?}, and {other:?} for {theirs:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Has the rules checked at each event of this run.
pub fn watch(world: &std::sync::Arc<super::host::World>) {
    let world = std::sync::Arc::downgrade(world);
    sim::watch(Box::new(move |node, event| {
        let Some(world) = world.upgrade() else { return };
        let before = super::lock(&world.rules).leader();
        let broken = super::lock(&world.rules).told(node, event, sim::clock_of);
        if let Err(why) = broken {
            sim::fail(format_args!("{why}"));
        }
        if matches!(event, Event::Leads) && before != Some(node) {
            super::nemesis::new_leader(&world, node);
        }
    }));
}

#[cfg(test)]
mod tests {
    use scoutfs_env::sim::{Config, Outcome};
    use std::time::Duration;

    use super::*;

    const LOCK: u64 = 1024;

    fn at(ms: u64) -> Mono {
        Mono::from_ns(ms * 1_000_000)
    }

    fn lock(held: Held) -> Event {
        Event::Lock { first_ino: LOCK, held }
    }

    /// Nodes are made by simulations only.
    fn with_nodes(body: fn(Node, Node)) {
        let longest = Duration::from_secs(1);
        let config = Config { seed: 1, preempt: 1, longest, steps: 1000, trace: false, backtraces: false };
        let report = sim::run(config, move || body(sim::add_node(0), sim::add_node(0)));
        assert_eq!(report.outcome, Outcome::Finished);
    }

    #[test]
    fn leaders_come_one_after_the_other() {
        with_nodes(|a, b| {
            let mut rules = Rules::default();
            let mut leads = |node| rules.told(node, Event::Leads, |_| at(0));
            assert!(leads(a).is_ok() && leads(a).is_ok() && leads(b).is_ok() && leads(b).is_ok());
            assert!(leads(a).is_err());
        });
    }

    #[test]
    fn locks_exclude_each_other_while_leases_are_valid() {
        with_nodes(|a, b| {
            let mut rules = Rules::default();
            for node in [a, b] {
                rules.told(node, Event::Lease(at(100)), |_| at(0)).unwrap();
                rules.told(node, lock(Held::Read), |_| at(0)).unwrap();
            }
            // Of a mount without a lease nothing counts, until it has one again.
            let late = |node| if node == a { at(100) } else { at(99) };
            rules.told(b, lock(Held::Write), late).unwrap();
            assert!(rules.told(a, Event::Lease(at(200)), |_| at(99)).is_err());
            rules.told(a, Event::LeaderLease(at(50)), |_| at(99)).unwrap();
            rules.told(b, lock(Held::Write), |_| at(99)).unwrap();
            assert!(rules.told(b, lock(Held::Write), |_| at(49)).is_err());
            rules.told(a, lock(Held::No), |_| at(49)).unwrap();
            rules.told(b, lock(Held::Write), |_| at(49)).unwrap();
            assert!(rules.told(a, lock(Held::Read), |_| at(49)).is_err());
            rules.died(b);
            rules.told(a, lock(Held::Write), |_| at(49)).unwrap();
            rules.told(a, Event::Ended, |_| at(49)).unwrap();
            rules.told(b, Event::Lease(at(100)), |_| at(49)).unwrap();
            rules.told(b, lock(Held::Write), |_| at(49)).unwrap();
            // What it had asked for is answered when it has failed.
            rules.told(a, Event::Lease(at(200)), |_| at(49)).unwrap();
            rules.told(a, lock(Held::Read), |_| at(49)).unwrap();
        });
    }
}
