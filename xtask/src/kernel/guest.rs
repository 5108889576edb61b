// SPDX-License-Identifier: GPL-2.0-only
//! Running a script in a guest: User-Mode Linux with the machine's own root over hostfs.
//!
//! The guest is a process that is ended after a time, whatever happens in it. Its root is the machine's, with all rights: scripts
//! write to nothing but their own folder, the disks that they were given, and the guest's own `/tmp`, `/dev` and `/mnt`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::build::Kernel;
use super::sources;
use crate::setup;

/// What a guest runs with.
pub struct Guest<'a> {
    kernel: &'a Kernel,
    /// A folder for scripts, logs and results, which the guest sees under the same name.
    dir: PathBuf,
    disks: Vec<PathBuf>,
    /// Longest life of a guest.
    seconds: u32,
}

/// The end of a guest.
pub struct Ended {
    /// The script's exit code; `None` when the guest did not come so far.
    pub code: Option<i32>,
    /// What it printed, the kernel's messages among it.
    pub log: String,
}

impl<'a> Guest<'a> {
    /// A guest with a folder of its own, which is made.
    pub fn new(kernel: &'a Kernel, dir: &Path) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Guest { kernel, dir: dir.into(), disks: Vec::new(), seconds: 300 })
    }

    /// Gives it a disk: /dev/ubda, then /dev/ubdb.
    pub fn disk(mut self, image: &Path) -> Self {
        self.disks.push(image.into());
        self
    }

    /// Runs a script's text by `sh`, and waits for the guest's end.
    pub fn run(&self, name: &str, script: &str) -> Result<Ended, String> {
        let write =
            |path: &Path, text: &str| fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()));
        let (file, result) = (self.dir.join(format!("{name}.sh")), self.dir.join(format!("{name}.result")));
        write(&file, script)?;
        write(&result, "")?;
        let mut command = Command::new("timeout");
        // On one processor: it has one, and is slower when it wanders.
        command.args(["--kill-after=10", &self.seconds.to_string(), "taskset", "-c", "0"]);
        command.arg(self.kernel.program());
        command.args(["mem=768M", "seccomp=on", "rootfstype=hostfs", "rootflags=/", "rw", "panic=-1"]);
        command.args(["con=null", "con0=fd:0,fd:1"]);
        command.arg(format!("init={}", sources().join("guest/init.sh").display()));
        command.arg(format!("run={}", file.display())).arg(format!("result={}", result.display()));
        for (letter, disk) in ('a'..='z').zip(&self.disks) {
            command.arg(format!("ubd{letter}={}", disk.display()));
        }
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| format!("the guest: {e}"))?;
        let log = String::from_utf8_lossy(&output.stdout).into_owned();
        write(&self.dir.join(format!("{name}.log")), &log)?;
        let code = fs::read_to_string(&result).ok().and_then(|code| code.trim().parse().ok());
        Ok(Ended { code, log })
    }
}

impl Ended {
    /// Fails unless the script succeeded and the kernel had nothing to complain of.
    pub fn check(&self, what: &str) -> Result<(), String> {
        const COMPLAINTS: &[&str] = &[
            "BUG:",
            "WARNING:",
            "Kernel panic",
            "rust_kernel: panicked",
            "Call Trace",
            "blocked for more than",
            "bad stack",
            "list_add corruption",
            "list_del corruption",
            "sleeping function called",
        ];
        let complaint =
            self.log.lines().find(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)));
        match (self.code, complaint) {
            (Some(0), None) => Ok(()),
            (_, Some(line)) => Err(format!("{what}: the kernel says: {line}\n{}", self.tail())),
            (Some(code), None) => Err(format!("{what}: ended with {code}\n{}", self.tail())),
            (None, None) => Err(format!("{what}: the guest did not reach its end\n{}", self.tail())),
        }
    }

    /// The last lines of what it printed.
    fn tail(&self) -> String {
        let lines: Vec<_> = self.log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// `cargo xtask kernel run`.
pub fn run_command(kernel: &Kernel, module: &Path, disk: Option<&Path>, command: &str) -> Result<(), String> {
    setup::need_root()?;
    let dir = setup::root().join("target/kernel-run");
    let mut guest = Guest::new(kernel, &dir)?;
    if let Some(disk) = disk {
        guest = guest.disk(&disk.canonicalize().map_err(|e| format!("{}: {e}", disk.display()))?);
    }
    let ended = guest.run("run", &format!("insmod {}\n{command}\n", module.display()))?;
    print!("{}", ended.log);
    match ended.code {
        Some(0) => Ok(()),
        Some(code) => Err(format!("the command ended with {code}")),
        None => Err("the guest did not reach its end".into()),
    }
}
