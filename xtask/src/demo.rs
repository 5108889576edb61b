// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask demo`: the main job, on three nodes of one machine: each in a network namespace of its own, all on one image file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::setup;

const NODES: usize = 3;
/// The bridge that stands for the network between the nodes.
const BRIDGE: &str = "scoutfs-demo";
/// What an election may take on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// The demo's namespaces, mounts and files, which go when it ends, however it ends.
struct Stage {
    folder: PathBuf,
    nodes: Vec<Option<Child>>,
}

impl Stage {
    fn new(folder: PathBuf) -> Result<Self, String> {
        let mut stage = Stage { folder, nodes: Vec::new() };
        stage.clear();
        for node in 0..NODES {
            let place = stage.mount_point(node);
            fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
            stage.nodes.push(None);
        }
        Ok(stage)
    }

    fn mount_point(&self, node: usize) -> PathBuf {
        self.folder.join(format!("node{}", node + 1))
    }

    /// A network of namespaces, one for each node.
    fn lay_cables(&self) -> Result<(), String> {
        quiet("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
        quiet("ip", &["link", "set", BRIDGE, "up"])?;
        for node in 0..NODES {
            let (space, outside) = (namespace(node), format!("scoutfs-d{node}"));
            quiet("ip", &["netns", "add", &space])?;
            let ends = ["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &space];
            quiet("ip", &ends)?;
            quiet("ip", &["link", "set", &outside, "master", BRIDGE, "up"])?;
            let address = format!("{}/24", address(node));
            quiet("ip", &["-n", &space, "addr", "add", &address, "dev", "eth0"])?;
            quiet("ip", &["-n", &space, "link", "set", "eth0", "up"])?;
            quiet("ip", &["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// Starts a node, which mounts when enough others are there.
    fn start(&mut self, node: usize, scoutfs: &Path, image: &Path) -> Result<(), String> {
        let place = self.mount_point(node);
        let option = format!("server_addr={}", address(node));
        println!("node {}: mount -t scoutfs -o {option} {} {}", node + 1, image.display(), place.display());
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", namespace(node)))
            .arg(scoutfs)
            .args(["mount", "-f", "-o", &option])
            .args([image, &place])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("nsenter: {e}"))?;
        self.nodes[node] = Some(child);
        Ok(())
    }

    fn wait_until_mounted(&self, node: usize) -> Result<(), String> {
        let start = Instant::now();
        while !is_mounted(&self.mount_point(node)) {
            if start.elapsed() > PATIENCE {
                return Err(format!("node {} is not mounted after {PATIENCE:?}", node + 1));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Kills a node's process: what a power failure is to the others.
    fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn unmount(&mut self, node: usize) -> Result<(), String> {
        setup::run("umount", &[text(&self.mount_point(node))?])?;
        if let Some(mut child) = self.nodes[node].take() {
            let _ = child.wait();
        }
        Ok(())
    }

    fn clear(&mut self) {
        for node in 0..self.nodes.len() {
            self.kill(node);
        }
        for node in 0..NODES {
            let place = self.mount_point(node);
            if is_mounted(&place) {
                let _ = Command::new("umount").arg("-l").arg(&place).status();
            }
            if Path::new("/run/netns").join(namespace(node)).exists() {
                let _ = quiet("ip", &["netns", "del", &namespace(node)]);
            }
        }
        if Path::new("/sys/class/net").join(BRIDGE).exists() {
            let _ = quiet("ip", &["link", "del", BRIDGE]);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
    }
}

fn namespace(node: usize) -> String {
    format!("scoutfs-demo{}", node + 1)
}

fn address(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

fn is_mounted(place: &Path) -> bool {
    fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounts.contains(&format!(" {} ", place.display())))
}

/// Runs a command without showing it.
fn quiet(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), why.trim()))
}

/// Makes a volume, mounts it on three nodes, changes files on each and shows the index on another; then one node dies.
pub fn run() -> Result<(), String> {
    setup::need_root()?;
    setup::install()?;
    setup::run(setup::cargo(), &["build", "--release", "--package", "scoutfs-utils"])?;
    let scoutfs = setup::root().join("target/release/scoutfs");
    let mut stage = Stage::new(setup::root().join("target/demo"))?;
    let image = stage.folder.join("volume.img");
    File::create(&image)
        .and_then(|file| file.set_len(1 << 30))
        .map_err(|e| format!("{}: {e}", image.display()))?;
    stage.lay_cables()?;
    let places: Vec<PathBuf> = (0..NODES).map(|node| stage.mount_point(node)).collect();
    let walk = |node: usize| -> Result<(), String> {
        setup::run(&scoutfs, &["walk-inodes", "meta_seq", "0", "-1", text(&places[node])?])
    };

    println!(
        "\nA volume in an image file that works when two of its voters are there, mounted on three nodes:"
    );
    setup::run(&scoutfs, &["mkfs", "-Q", "2", text(&image)?])?;
    for node in 0..NODES {
        stage.start(node, &scoutfs, &image)?;
    }
    for node in 0..NODES {
        stage.wait_until_mounted(node)?;
    }
    println!("\nThe change index of an empty volume is its root directory:");
    walk(0)?;
    for (node, name) in ["one", "two", "one"].into_iter().enumerate() {
        let other = (node + 1) % NODES;
        println!(
            "\nA change on node {} is in the index on node {} when the sync after it returns:",
            node + 1,
            other + 1
        );
        setup::run("touch", &[text(&places[node].join(name))?])?;
        setup::run("sync", &["-f", text(&places[node])?])?;
        walk(other)?;
    }
    println!("\nAn inode that changed again has moved to the end. The space:");
    setup::run(&scoutfs, &["df", "--path", text(&places[0])?])?;

    println!("\nNode 1 dies. Nodes 2 and 3 go on when its lease has ended, with all that it had synced:");
    stage.kill(0);
    let died = Instant::now();
    setup::run("touch", &[text(&places[1].join("three"))?])?;
    println!("(after {:.1} s)", died.elapsed().as_secs_f64());
    setup::run("sync", &["-f", text(&places[1])?])?;
    walk(2)?;

    println!("\nAfter umount the volume is clean:");
    quiet("umount", &["-l", text(&places[0])?])?;
    for node in [2, 1] {
        stage.unmount(node)?;
    }
    setup::run(&scoutfs, &["check", text(&image)?])?;
    Ok(())
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))
}
