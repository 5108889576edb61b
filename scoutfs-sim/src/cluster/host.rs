// SPDX-License-Identifier: GPL-2.0-only
//! A host: one mount after another of the volume, its clock, and who knows that it died.
//!
//! A task of nobody's node keeps a host going: it starts a mount as a node of its own, waits until that ends or is killed, and starts
//! the next. A machine knows which of its own mounts are dead, and nothing of others'.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use scoutfs_env::net::Network;
use scoutfs_env::sim::{self, Key, Node};
use scoutfs_env::{Arc as EnvArc, Box as EnvBox, try_box};
use scoutfs_format::le::U64;
use scoutfs_format::voter::ProcessId;
use scoutfs_fs::{Mount, MountOptions};
use scoutfs_net::quorum::Timing;
use scoutfs_server::DeathOracle;

use super::disk::Disk;
use super::file_locks::FileLocks;
use super::history::History;
use super::lock;
use super::nemesis::Weather;
use super::net::{Net, address};
use super::rules::Rules;

/// All that a run consists of.
pub struct World {
    pub disk: Disk,
    pub net: Net,
    pub history: Mutex<History>,
    pub rules: Mutex<Rules>,
    pub file_locks: Mutex<FileLocks>,
    pub hosts: Vec<Mutex<Host>>,
    pub flow: Mutex<Flow>,
    /// What mostly goes wrong.
    pub weather: Weather,
    /// The volume is small, and programs fill it.
    pub is_small: bool,
    /// Hosts work and rest in turn.
    pub in_shifts: bool,
    /// Voter slots of the volume.
    pub voters: usize,
    /// After so many milliseconds of silence a leader is stood against.
    pub patience_ms: u64,
}

impl World {
    /// A mount is dead.
    pub fn died(&self, node: Node) {
        lock(&self.history).died(node);
        lock(&self.rules).died(node);
        lock(&self.file_locks).died(node);
    }
}

/// How far a run is.
#[derive(Default)]
pub struct Flow {
    /// So many of those that lead next will stand still when they write blocks first.
    pub doomed_leaders: u64,
    /// Somebody makes what programs work on.
    pub prepared: bool,
    /// The volume has what programs work on.
    pub ready: bool,
    /// Nothing goes wrong any more, and nobody fills the volume.
    pub calm: bool,
    /// Programs are to end.
    pub stop: bool,
    /// Hosts are not to mount again.
    pub last: bool,
    /// Hosts that have not had their last look. Nobody leaves before: those that are left may be too few to go on.
    pub looking: usize,
}

/// A host.
#[derive(Default)]
pub struct Host {
    /// Its mount.
    pub node: Option<Node>,
    /// The mount was killed, and how the host comes back.
    pub killed: bool,
    /// All its mounts that are dead.
    dead: Vec<Node>,
    /// How often it had mounted.
    pub mounts: u64,
    /// Its mount works.
    pub works: bool,
    /// Its mount has worked.
    pub mounted: bool,
}

const HOST_KEY: usize = 1 << 42;

/// Tells whoever waits for something of a world.
pub fn changed() {
    sim::wake_all(Key::number(HOST_KEY));
}

/// Waits until `done` says so.
pub fn wait_until(what: &'static str, done: impl Fn() -> bool) {
    while !done() {
        sim::block(Key::number(HOST_KEY), Some(Duration::from_millis(500)), what);
    }
}

struct Oracle {
    world: Arc<World>,
    host: usize,
}

impl DeathOracle for Oracle {
    fn is_dead(&self, process: &ProcessId) -> bool {
        let node = process.pid.get() as usize;
        process.machine_id == machine(self.host)
            && lock(&self.world.hosts[self.host]).dead.iter().any(|dead| dead.number() == node)
    }
}

fn machine(host: usize) -> [u8; 16] {
    [1 + host as u8; 16]
}

/// Opens a mount in this task's node.
pub fn mount(world: &Arc<World>, host: usize, may_lead: bool) -> scoutfs_fs::Result<Mount> {
    let node = sim::node().expect("a task");
    let network: EnvBox<dyn Network> = try_box(world.net.port(host, node))?;
    let oracle: EnvBox<dyn DeathOracle + Send + Sync> = try_box(Oracle { world: world.clone(), host })?;
    let process = ProcessId {
        machine_id: machine(host),
        boot_id: [1; 16],
        pid: U64::new(node.number() as u64),
        start: U64::new(node.number() as u64),
    };
    let usual = MountOptions::new(process);
    let options = MountOptions {
        server_addr: may_lead.then_some(address(host)),
        commit_interval: Duration::from_millis(500),
        idle_interval: Duration::from_millis(1500),
        block_cache_bytes: 16 << 20,
        item_cache_bytes: 16 << 20,
        timing: Timing { patience_ms: world.patience_ms, ..usual.timing },
        ..usual
    };
    Mount::open_in(world.disk.device(node), EnvArc::new(network)?, &options, EnvArc::new(oracle)?)
}

/// Keeps a host going until the run's last mounts have ended. `life` is what a mount does.
pub fn keep(world: &Arc<World>, host: usize, life: fn(&Arc<World>, usize)) {
    loop {
        if lock(&world.flow).last {
            return;
        }
        // Millionths: a hundred are more than any quartz.
        let node = sim::add_node(sim::below(400) as i32 - 200);
        if node.number() > Disk::MOST_MOUNTS {
            sim::fail(format_args!("hosts mount again and again: for the {}th time", node.number()));
        }
        world.disk.path(node);
        {
            let mut own = lock(&world.hosts[host]);
            own.node = Some(node);
            own.killed = false;
            own.mounted = false;
            own.mounts += 1;
        }
        // Whoever mounts while a way is cut may be fenced when another leads.
        if world.net.is_cut(host) {
            lock(&world.history).suspect(node);
        }
        let of_task = world.clone();
        let task = sim::spawn(node, "main", move || {
            life(&of_task, host);
            changed();
        })
        .expect("a thread");
        // One that was late, when all others leave, may wait for ever for others to vote.
        let in_vain = || lock(&world.flow).last && !lock(&world.hosts[host]).mounted;
        wait_until("a mount to end", || task.is_finished() || lock(&world.hosts[host]).killed || in_vain());
        {
            let mut own = lock(&world.hosts[host]);
            own.node = None;
            own.works = false;
        }
        // The process is gone, whether it was killed or ended; nobody of it runs or writes any more.
        world.died(node);
        if lock(&world.hosts[host]).killed {
            sim::sleep(Duration::from_millis(sim::below(12_000)));
        } else {
            sim::crash(node);
            world.net.gone(node, true);
        }
        world.disk.bury(node);
        lock(&world.hosts[host]).dead.push(node);
        changed();
    }
}
