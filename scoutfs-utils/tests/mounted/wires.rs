// SPDX-License-Identifier: GPL-2.0-only
//! A network namespace for each node, all on one bridge, whose cables can be pulled.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::run::{program, run};

/// Namespaces, a bridge and the cables between; all go with this value.
pub struct Wires {
    /// Part of the names of all that is made, this test's alone.
    id: String,
    nodes: usize,
}

impl Wires {
    pub fn new(nodes: usize) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        // Interfaces have names of at most 15 bytes.
        let id = format!("{:x}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let wires = Wires { id, nodes };
        let bridge = wires.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&["link", "set", &bridge, "up"]);
        for node in 0..nodes {
            let (space, cable, address) = (wires.space(node), wires.cable(node), wires.address(node));
            ip(&["netns", "add", &space]);
            ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &space]);
            ip(&["link", "set", &cable, "master", &bridge, "up"]);
            ip(&["-n", &space, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
            ip(&["-n", &space, "link", "set", "eth0", "up"]);
            ip(&["-n", &space, "link", "set", "lo", "up"]);
        }
        wires
    }

    /// The address of a node; those of other tests' networks are the same and do not meet.
    pub fn address(&self, node: usize) -> String {
        format!("10.79.0.{}", node + 1)
    }

    /// A command that runs in a node's namespace.
    pub fn at(&self, node: usize, command: &Command) -> Command {
        let mut inside = program("nsenter", [format!("--net=/run/netns/{}", self.space(node))]);
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }

    /// Pulls a node's cable, or plugs it in again.
    pub fn plug(&self, node: usize, plugged: bool) {
        ip(&["link", "set", &self.cable(node), if plugged { "up" } else { "down" }]);
    }

    fn bridge(&self) -> String {
        format!("sb{}", self.id)
    }

    fn cable(&self, node: usize) -> String {
        format!("sc{}n{node}", self.id)
    }

    fn space(&self, node: usize) -> String {
        format!("scoutfs-{}-{node}", self.id)
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        let quietly = |arguments: &[&str]| {
            let _ = Command::new("ip").args(arguments).status();
        };
        for node in 0..self.nodes {
            if Path::new("/run/netns").join(self.space(node)).exists() {
                quietly(&["netns", "del", &self.space(node)]);
            }
        }
        if Path::new("/sys/class/net").join(self.bridge()).exists() {
            quietly(&["link", "del", &self.bridge()]);
        }
    }
}

fn ip(arguments: &[&str]) {
    run(program("ip", arguments));
}
