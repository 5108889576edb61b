// SPDX-License-Identifier: GPL-2.0-only
//! What goes wrong: one thing after another, for a while.

use std::sync::Arc;
use std::time::Duration;

use scoutfs_env::sim::{self, Node};

use super::host::{World, changed};
use super::lock;

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
    world.net.heal();
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

/// Kills a mount: its process, or its machine.
pub fn kill(world: &World, host: usize, kernel_lives: bool) {
    let mut own = lock(&world.hosts[host]);
    let Some(node) = own.node else { return };
    sim::note(format_args!("host {host}: node {} is killed, its kernel {kernel_lives}", node.number()));
    sim::crash(node);
    lock(&world.history).died(node);
    world.net.gone(node, kernel_lives);
    world.disk.delay(node, true, true);
    own.killed = true;
    own.works = false;
    drop(own);
    changed();
}

fn strike(world: &World) {
    let hosts = world.hosts.len() as u64;
    let Some((host, node)) = someone(world) else { return };
    let now = sim::now_ns();
    match sim::below(12) {
        0..3 => kill(world, host, sim::below(2) == 0),
        3 => {
            let pause = Duration::from_millis(sim::below(SHORT.as_millis() as u64));
            sim::note(format_args!("host {host}: stands still for {pause:?}"));
            sim::pause(node, pause);
        }
        4 => {
            let pause = Duration::from_millis(2000 + sim::below(28_000));
            sim::note(format_args!("host {host}: stands still for {pause:?}"));
            lock(&world.history).suspect(node);
            world.disk.delay(node, true, false);
            sim::pause(node, pause);
        }
        5..7 => {
            let other = sim::below(hosts) as usize;
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
        7..9 => {
            sim::note(format_args!("connections break"));
            world.net.reset_some();
        }
        9 => {
            sim::note(format_args!("host {host}: its disk is slow"));
            lock(&world.history).suspect(node);
            let most = Duration::from_millis(1 + sim::below(1500));
            let until = now + sim::below(8_000_000_000);
            world.disk.trouble(node, |trouble| trouble.slow = (until, most));
        }
        10 => {
            sim::note(format_args!("host {host}: its disk fails now and then"));
            lock(&world.history).suspect(node);
            let until = now + sim::below(4_000_000_000);
            let one_in = 2 + sim::below(40);
            world.disk.trouble(node, |trouble| trouble.failing = (until, one_in));
        }
        _ => {
            sim::note(format_args!("power fails: all are gone"));
            for host in 0..world.hosts.len() {
                kill(world, host, false);
            }
            world.disk.lose_power();
        }
    }
}

fn suspect(world: &World, host: usize) {
    if let Some(node) = lock(&world.hosts[host]).node {
        lock(&world.history).suspect(node);
    }
}
