// SPDX-License-Identifier: GPL-2.0-only
//! What goes wrong: one thing after another, for a while.

use std::sync::Arc;
use std::time::Duration;

use scoutfs_env::sim::{self, Node};

use super::disk::{Region, Snare, Stop};
use super::host::{World, changed};
use super::lock;

/// What mostly goes wrong in a run. A rule of the protocols often matters in one of these only, and then seldom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// A little of everything.
    Mixed,
    /// The leader is held up, also at a write to its super blocks or its voter block, or dies.
    Leaders,
    /// The leader stands still for long, and its successor where it first writes blocks.
    Successors,
    /// Power fails.
    Power,
    /// A mount stands still at a write of its commit record for about as long as its lease, and goes on.
    Late,
    /// The same, at a write of data or of metadata blocks.
    LateData,
    /// Disks are slow, each for some mounts only, or a mount stands still between two reads.
    Slow,
    /// Hosts do not reach each other.
    Apart,
    /// The leader reaches nobody for a while, and nothing else goes wrong.
    Unplugged,
    /// Nothing goes wrong.
    Fine,
}

impl Weather {
    /// All kinds.
    pub const ALL: &'static [Weather] = &[
        Weather::Mixed,
        Weather::Leaders,
        Weather::Successors,
        Weather::Power,
        Weather::Late,
        Weather::LateData,
        Weather::Slow,
        Weather::Apart,
        Weather::Unplugged,
        Weather::Fine,
    ];

    /// Those of which a seed picks one.
    pub const OF_SEEDS: &'static [Weather] =
        &[Weather::Mixed, Weather::Leaders, Weather::Power, Weather::Late, Weather::Slow, Weather::Apart];
}

/// A pause that is shorter has nobody taken for dead: less than the margin of a leader's lease.
const SHORT: Duration = Duration::from_millis(800);

/// Makes trouble until `end` of the true time.
pub fn run(world: &Arc<World>, end: u64) {
    while sim::now_ns() < end {
        sim::sleep(Duration::from_millis(300 + sim::below(5000)));
        strike(world);
    }
}

/// Everything is well again.
pub fn heal(world: &Arc<World>) {
    lock(&world.flow).calm = true;
    world.net.heal();
    world.disk.lay(None);
    for host in &world.hosts {
        if let Some(node) = lock(host).node {
            world.disk.trouble(node, |trouble| *trouble = Default::default());
        }
    }
    sim::note(format_args!("all is well again"));
}

fn someone(world: &World) -> Option<(usize, Node)> {
    let host = sim::below(world.hosts.len() as u64) as usize;
    Some((host, lock(&world.hosts[host]).node?))
}

fn leader(world: &World) -> Option<(usize, Node)> {
    let leader = lock(&world.rules).leader()?;
    Some((world.hosts.iter().position(|host| lock(host).node == Some(leader))?, leader))
}

/// Kills a mount: its process, or its machine.
pub fn kill(world: &World, host: usize, kernel_lives: bool) {
    let mut own = lock(&world.hosts[host]);
    let Some(node) = own.node else { return };
    sim::note(format_args!("host {host}: node {} is killed, its kernel {kernel_lives}", node.number()));
    sim::crash(node);
    world.died(node);
    world.net.gone(node, kernel_lives);
    world.disk.delay(node, true, true);
    own.killed = true;
    own.works = false;
    drop(own);
    changed();
}

/// One thing, of a kind that the weather likes.
fn strike(world: &World) {
    let Some((host, node)) = someone(world) else { return };
    match world.weather {
        Weather::Mixed => mixed(world, host, node),
        Weather::Leaders => {
            if let Some((host, leader)) = leader(world) {
                against_leader(world, host, leader);
            }
        }
        Weather::Successors if sim::below(4) != 0 => {
            if let Some((host, leader)) = leader(world) {
                lock(&world.flow).doomed_leaders = sim::below(3);
                stand_still(world, host, leader, Duration::from_millis(4000 + sim::below(36_000)));
            }
        }
        Weather::Power if sim::below(4) != 0 => power_fails(world),
        Weather::Late => snare(world, host, node, Region::Records, about_a_lease()),
        Weather::LateData => snare(world, host, node, Region::Blocks, about_a_lease()),
        Weather::Unplugged => {
            if let Some((host, leader)) = leader(world) {
                unplug(world, host, leader);
            }
        }
        Weather::Fine => {}
        Weather::Slow => match sim::below(8) {
            0..2 => slow(world, host, node, 4_000),
            // What it reads next is not of the time at which it has read before.
            2..6 => {
                let pause = Duration::from_millis(500 + sim::below(5000));
                lay(world, host, Snare { node, region: Region::Records, pause, stop: Stop::Read });
            }
            _ => mixed(world, host, node),
        },
        Weather::Apart if sim::below(4) != 0 => cut(world, host),
        _ => mixed(world, host, node),
    }
}

/// From long before to long after a lease can have ended.
fn about_a_lease() -> Duration {
    Duration::from_millis(3000 + sim::below(8000))
}

fn mixed(world: &World, host: usize, node: Node) {
    match sim::below(12) {
        0..3 => kill(world, host, sim::below(2) == 0),
        3 => {
            let pause = Duration::from_millis(sim::below(SHORT.as_millis() as u64));
            sim::note(format_args!("host {host}: stands still for {pause:?}"));
            sim::pause(node, pause);
        }
        4 => stand_still(world, host, node, Duration::from_millis(2000 + sim::below(28_000))),
        5..7 => cut(world, host),
        7..9 => {
            sim::note(format_args!("connections break"));
            world.net.reset_some();
        }
        9 => slow(world, host, node, 1500),
        10 => {
            sim::note(format_args!("host {host}: its disk fails now and then"));
            lock(&world.history).suspect(node);
            let until = sim::now_ns() + sim::below(4_000_000_000);
            let one_in = 2 + sim::below(40);
            world.disk.trouble(node, |trouble| trouble.failing = (until, one_in));
        }
        _ => power_fails(world),
    }
}

/// The leader is held up for less than its lease or for more, anywhere or where it is about to write, or it is gone.
fn against_leader(world: &World, host: usize, leader: Node) {
    let pause = Duration::from_millis(500 + sim::below(9000));
    match sim::below(10) {
        0..3 => stand_still(world, host, leader, pause),
        3..7 => snare(world, host, leader, Region::Supers, pause),
        7..9 => snare(world, host, leader, Region::Votes, pause),
        _ => kill(world, host, sim::below(2) == 0),
    }
}

/// A mount has begun to lead: it may be one that comes to nothing.
pub fn new_leader(world: &World, node: Node) {
    {
        let mut flow = lock(&world.flow);
        if flow.doomed_leaders == 0 || flow.calm {
            return;
        }
        flow.doomed_leaders -= 1;
    }
    if let Some(host) = world.hosts.iter().position(|host| lock(host).node == Some(node)) {
        snare(world, host, node, Region::Blocks, about_a_lease());
    }
}

fn stand_still(world: &World, host: usize, node: Node, pause: Duration) {
    sim::note(format_args!("host {host}: stands still for {pause:?}"));
    lock(&world.history).suspect(node);
    world.disk.delay(node, true, false);
    sim::pause(node, pause);
}

fn snare(world: &World, host: usize, node: Node, region: Region, pause: Duration) {
    let stop = if sim::below(2) == 0 { Stop::Asked } else { Stop::Write };
    lay(world, host, Snare { node, region, pause, stop });
}

fn lay(world: &World, host: usize, snare: Snare) {
    let Snare { region, stop, .. } = snare;
    sim::note(format_args!("host {host}: will stand still at {region:?}, {stop:?}"));
    lock(&world.history).suspect(snare.node);
    world.disk.lay(Some(snare));
}

fn cut(world: &World, host: usize) {
    let other = sim::below(world.hosts.len() as u64) as usize;
    if other == host {
        return;
    }
    let both = sim::below(2) == 0;
    sim::note(format_args!("the way from host {host} to host {other} is cut, both ways {both}"));
    suspect(world, host);
    suspect(world, other);
    world.net.cut(host, other, true);
    if both {
        world.net.cut(other, host, true);
    }
    if sim::below(3) != 0 {
        sim::sleep(Duration::from_millis(sim::below(20_000)));
        world.net.heal();
    }
}

/// A host reaches no other. Only its own mount may fail of that.
fn unplug(world: &World, host: usize, node: Node) {
    let pause = Duration::from_millis(sim::below(20_000));
    sim::note(format_args!("host {host}: reaches nobody for {pause:?}"));
    lock(&world.history).suspect(node);
    for other in (0..world.hosts.len()).filter(|other| *other != host) {
        world.net.cut(host, other, true);
        world.net.cut(other, host, true);
    }
    sim::sleep(pause);
    world.net.heal();
}

fn slow(world: &World, host: usize, node: Node, most_ms: u64) {
    sim::note(format_args!("host {host}: its disk is slow"));
    lock(&world.history).suspect(node);
    let most = Duration::from_millis(1 + sim::below(most_ms));
    let until = sim::now_ns() + sim::below(8_000_000_000);
    world.disk.trouble(node, |trouble| trouble.slow = (until, most));
}

fn power_fails(world: &World) {
    sim::note(format_args!("power fails: all are gone"));
    for host in 0..world.hosts.len() {
        kill(world, host, false);
    }
    world.disk.lose_power();
}

fn suspect(world: &World, host: usize) {
    if let Some(node) = lock(&world.hosts[host]).node {
        lock(&world.history).suspect(node);
    }
}
