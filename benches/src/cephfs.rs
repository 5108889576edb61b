// SPDX-License-Identifier: GPL-2.0-only
//! A CephFS of one machine, mounted twice, to compare with: a monitor, an OSD on a file, an MDS and two `ceph-fuse` without a page
//! cache; with one a node reads old bytes of a file. No copies, no keys, all on 127.0.0.1, all in one folder. Needs root; what is
//! missing of Debian's packages is installed.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[path = "../../xtask/src/setup.rs"]
#[allow(dead_code, reason = "the habits need more of it")]
mod setup;

/// Programs, and the Debian packages that hold them.
const PROGRAMS: &[(&str, &str)] = &[
    ("ceph", "ceph-common"),
    ("monmaptool", "ceph-base"),
    ("ceph-mon", "ceph-mon"),
    ("ceph-osd", "ceph-osd"),
    ("ceph-mds", "ceph-mds"),
    ("ceph-fuse", "ceph-fuse"),
    ("setpriv", "util-linux"),
];
const FSID: &str = "5c0f5000-0000-4000-8000-000000000001";
const OSD: &str = "5c0f5000-0000-4000-8000-000000000002";
/// How long a part may take to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two mounts of a new CephFS; both, the daemons and the folder go with the value.
pub struct CephFs {
    folder: PathBuf,
    daemons: Vec<Child>,
    /// Where it is mounted.
    pub nodes: [PathBuf; 2],
}

impl CephFs {
    /// Starts it in a folder, which is emptied.
    pub fn new(folder: &Path) -> Result<CephFs, String> {
        setup::need_root()?;
        setup::install_programs(PROGRAMS).map_err(|e| format!("CephFS needs Debian's packages: {e}"))?;
        let nodes = ["a", "b"].map(|name| folder.join(name));
        let mut ceph = CephFs { folder: folder.to_path_buf(), daemons: Vec::new(), nodes };
        ceph.start()?;
        Ok(ceph)
    }

    /// Takes away what is left of a run, perhaps one that was killed.
    fn clear(&self) {
        for node in &self.nodes {
            let _ = Command::new("umount").arg("-lq").arg(node).stderr(Stdio::null()).status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }

    fn start(&mut self) -> Result<(), String> {
        self.clear();
        let dirs = ["mon", "osd", "mds"].map(|name| self.folder.join(name));
        for dir in dirs.iter().chain(&self.nodes) {
            fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        // A port that nobody else has.
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|port| port.local_addr());
        let monitor = format!("[v2:{}]", port.map_err(|e| format!("a port: {e}"))?);
        let settings = format!(
            "[global]\nfsid = {FSID}\nmon host = {monitor}\n\
             public addr = 127.0.0.1\ncluster addr = 127.0.0.1\nosd heartbeat addr = 127.0.0.1\n\
             auth cluster required = none\nauth service required = none\nauth client required = none\n\
             osd pool default size = 1\nosd pool default min size = 1\nmon allow pool size one = true\n\
             osd crush chooseleaf type = 0\nbluestore block size = {}\nfuse disable pagecache = true\n\
             mon data = {dir}/mon\nosd data = {dir}/osd\nmds data = {dir}/mds\nrun dir = {dir}\n\
             admin socket =\nlog file = {dir}/$name.log\n",
            4u64 << 30,
            dir = self.folder.display()
        );
        fs::write(self.folder.join("ceph.conf"), settings).map_err(|e| format!("ceph.conf: {e}"))?;
        let map = self.folder.join("monmap").display().to_string();
        self.run("monmaptool", &["--create", "--fsid", FSID, "--addv", "a", &monitor, &map])?;
        self.run("ceph-mon", &["-i", "a", "--mkfs", "--monmap", &map])?;
        self.serve("ceph-mon", &["-i", "a"])?;
        self.ask(&["osd", "new", OSD, "0"])?;
        self.run("ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", OSD])?;
        self.serve("ceph-osd", &["-i", "0"])?;
        self.ask(&["osd", "pool", "create", "metadata", "8"])?;
        self.ask(&["osd", "pool", "create", "data", "8"])?;
        self.ask(&["fs", "new", "cephfs", "metadata", "data"])?;
        self.serve("ceph-mds", &["-i", "a"])?;
        wait("the MDS", || Ok(self.ask(&["mds", "stat"])?.contains("up:active")))?;
        for node in self.nodes.clone() {
            let mount_point = node.display().to_string();
            self.serve("ceph-fuse", &[&mount_point])?;
            let wanted = format!(" {mount_point} ");
            let mounts = || fs::read_to_string("/proc/mounts").map_err(|e| format!("/proc/mounts: {e}"));
            wait("ceph-fuse", || Ok(mounts()?.contains(&wanted)))?;
        }
        Ok(())
    }

    /// A call of a program of Ceph, which is shown.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        eprintln!("$ {program} {}", arguments.join(" "));
        // It does not outlive this. Asked nicely, a `ceph-fuse` would wait for an MDS that is gone.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", program]).args(arguments).stdin(Stdio::null());
        command.env("CEPH_CONF", self.folder.join("ceph.conf"));
        command
    }

    /// Starts a daemon.
    fn serve(&mut self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let mut command = self.command(program, &[&["-f"], arguments].concat());
        let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.daemons.push(started.map_err(|e| format!("{program}: {e}"))?);
        Ok(())
    }

    /// Runs a program to its end, and gives what it says.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(program, arguments).output().map_err(|e| format!("{program}: {e}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{program} {} ended with {}: {said}", arguments.join(" "), output.status))
    }

    /// Asks the monitor, which may not be there yet.
    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let patience = PATIENCE.as_secs().to_string();
        self.run("ceph", &[&["--connect-timeout", &patience], arguments].concat())
    }
}

/// Waits until something is so.
fn wait(what: &str, mut is_so: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > deadline {
            return Err(format!("{what} does not start"));
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

impl Drop for CephFs {
    fn drop(&mut self) {
        // The last ones first. Nothing in there is wanted any more, and a mount whose daemon is gone cannot hang.
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        self.clear();
    }
}
