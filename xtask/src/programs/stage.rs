// SPDX-License-Identifier: GPL-2.0-only
//! An image, its mount, and what runs on it; all gone when the stage is dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::setup;

/// What mounting, unmounting and checking may take.
const SOON: Duration = Duration::from_secs(120);
/// Lines of a failed program's output that are shown.
const SHOWN_LINES: usize = 40;
/// Characters of a command that are shown.
const SHOWN_CHARACTERS: usize = 400;

/// A volume in a folder of its own.
pub struct Stage {
    folder: PathBuf,
    /// The process that serves the mount, unless the kernel does.
    daemon: Option<Child>,
}

impl Stage {
    /// A fresh volume, not mounted.
    pub fn new(name: &str, size_mib: u64) -> Result<Self, String> {
        let stage = Stage { folder: setup::root().join("target/programs").join(name), daemon: None };
        // What a run that was killed left behind.
        stage.clear()?;
        for folder in [stage.mount_point(), stage.outside()] {
            fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        File::create(stage.image())
            .and_then(|file| file.set_len(size_mib << 20))
            .map_err(|e| format!("{}: {e}", stage.image().display()))?;
        let mut mkfs = stage.scoutfs();
        mkfs.args(["mkfs", "-Q", "1"]).arg(stage.image());
        run(&mkfs, SOON)?;
        Ok(stage)
    }

    fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    /// A folder that is not on the volume.
    pub fn outside(&self) -> PathBuf {
        self.folder.join("outside")
    }

    fn scoutfs(&self) -> Command {
        Command::new(setup::root().join("target/release/scoutfs"))
    }

    /// Mounts.
    pub fn mount(&mut self) -> Result<(), String> {
        if super::by_kernel() {
            return self.mount_by_kernel();
        }
        let mut mount = self.scoutfs();
        mount.args(["mount", "-f", "-o", "server_addr=127.0.0.1"]).arg(self.image()).arg(self.mount_point());
        let mut daemon =
            mount.stdin(Stdio::null()).spawn().map_err(|e| format!("starting scoutfs mount: {e}"))?;
        let start = Instant::now();
        while !is_mount_point(&self.mount_point()) {
            let ended = daemon.try_wait().map_err(|e| format!("scoutfs mount: {e}"))?;
            if ended.is_some() || start.elapsed() > SOON {
                let _ = daemon.kill();
                let _ = daemon.wait();
                return Err("scoutfs mount did not mount".into());
            }
            sleep(Duration::from_millis(20));
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    fn mount_by_kernel(&self) -> Result<(), String> {
        let mut mount = self.scoutfs();
        mount.args(["mount", "-o", "server_addr=127.0.0.1"]).arg(self.image()).arg(self.mount_point());
        run(&mount, SOON)?;
        let shown = format!(" {} scoutfs ", self.mount_point().display());
        let mounts =
            fs::read_to_string("/proc/self/mounts").map_err(|e| format!("/proc/self/mounts: {e}"))?;
        if mounts.contains(&shown) { Ok(()) } else { Err("it is not the kernel that has mounted".into()) }
    }

    /// Unmounts and checks.
    pub fn unmount(&mut self) -> Result<(), String> {
        run(Command::new("umount").arg(self.mount_point()), SOON)?;
        if let Some(mut daemon) = self.daemon.take() {
            let status = wait_for(&mut daemon, SOON)?;
            if !status.is_some_and(|status| status.success()) {
                let _ = daemon.kill();
                let _ = daemon.wait();
                return Err("the daemon did not end well after umount".into());
            }
        }
        self.check()
    }

    /// Unmounts, checks and mounts again.
    pub fn remount(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }

    /// Kills the daemon, with all that it had only in memory.
    pub fn crash(&mut self) -> Result<(), String> {
        let mut daemon = self.daemon.take().ok_or("nothing is mounted")?;
        daemon.kill().and_then(|()| daemon.wait()).map_err(|e| format!("killing the daemon: {e}"))?;
        Ok(())
    }

    /// After a crash, and when nothing uses the dead mount: removes it, checks, and mounts again.
    pub fn recover(&mut self) -> Result<(), String> {
        run(Command::new("umount").arg(self.mount_point()), SOON)?;
        self.check()?;
        self.mount()
    }

    fn check(&self) -> Result<(), String> {
        let mut check = self.scoutfs();
        run(check.arg("check").arg(self.image()), SOON).map(drop)
    }

    /// Removes mount and files, as far as it can.
    fn clear(&self) -> Result<(), String> {
        let mount_point = self.mount_point();
        for arguments in [&[][..], &["-l"]] {
            if is_mount_point(&mount_point) {
                let mut umount = Command::new("umount");
                let _ = run(umount.args(arguments).arg(&mount_point), Duration::from_secs(20));
            }
        }
        // Never through a mount.
        if is_mount_point(&mount_point) {
            return Err(format!("{} cannot be unmounted", mount_point.display()));
        }
        match fs::remove_dir_all(&self.folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("{}: {e}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(why) = self.clear() {
            println!("{why}");
        }
        if let Some(mut daemon) = self.daemon.take() {
            // The unmount above ends it, unless it hangs.
            let _ = wait_for(&mut daemon, Duration::from_secs(10));
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Whether something is mounted there. Asks nothing of the filesystem, which may be dead.
fn is_mount_point(path: &Path) -> bool {
    let shown = format!(" {} ", path.display());
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| mounts.contains(&shown))
}

/// Waits for a process to end. `None` if it does not in time.
fn wait_for(child: &mut Child, limit: Duration) -> Result<Option<std::process::ExitStatus>, String> {
    let start = Instant::now();
    loop {
        let status = child.try_wait().map_err(|e| format!("waiting for a process: {e}"))?;
        if status.is_some() || start.elapsed() > limit {
            return Ok(status);
        }
        sleep(Duration::from_millis(20));
    }
}

/// Runs a program that must succeed within `limit`, else it is killed with its children. Gives what it printed.
pub fn run(command: &Command, limit: Duration) -> Result<String, String> {
    let (succeeded, output) = run_any(command, limit)?;
    if succeeded { Ok(output) } else { Err(tail(command, &output)) }
}

/// How much slower than others this machine says it is: guests do.
fn patience() -> u64 {
    std::env::var("PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Runs a program that may fail. Gives whether it succeeded, and what it printed.
pub fn run_any(command: &Command, limit: Duration) -> Result<(bool, String), String> {
    println!("$ {}", shown(command));
    let mut limited = Command::new("timeout");
    limited.args(["--kill-after=10", &(limit.as_secs() * patience()).to_string()]);
    limited.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        limited.current_dir(folder);
    }
    let output = limited.output().map_err(|e| format!("{}: {e}", shown(command)))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    // By the first signal, or by the one that no program survives.
    if matches!(output.status.code(), None | Some(124 | 137)) {
        text.push_str("\nkilled: it took too long\n");
    }
    Ok((output.status.success(), text))
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    if let Some((end, _)) = text.char_indices().nth(SHOWN_CHARACTERS) {
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

/// A program's failure with the end of its output.
pub fn tail(command: &Command, output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    format!("{} failed\n{}", shown(command), last.join("\n"))
}
