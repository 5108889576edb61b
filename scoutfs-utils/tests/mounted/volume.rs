// SPDX-License-Identifier: GPL-2.0-only
//! Volumes and mounts of the tests, which leave nothing behind however the test ends.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use scoutfs_format::geometry::super_offset;
use scoutfs_format::voter::{MAGIC_SUPER, SUPER_CLEAN, SuperBlock};
use zerocopy::FromBytes;

use crate::run::{
    SOON, falls_asleep, program, run, run_for, run_well_for, scoutfs, spawn, wait_until, woke_up,
};

/// A daemon that serves for longer is killed, which turns a hanging test into a failing one.
const LONGEST_MOUNT: Duration = Duration::from_secs(300);

/// More voters than these tests have.
const MAX_VOTERS: u32 = 5;

/// An image file in a directory of its own.
pub struct Volume {
    dir: PathBuf,
}

impl Volume {
    /// An image file of zeros.
    pub fn blank(size_mib: u64) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        assert!(rustix::process::geteuid().is_root(), "these tests mount filesystems: run them as root");
        for needed in ["/dev/fuse", "/dev/loop-control"] {
            assert!(Path::new(needed).exists(), "these tests mount filesystems: they need {needed}");
        }
        let name = format!("mounted-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&dir).unwrap();
        let volume = Volume { dir: dir.canonicalize().unwrap() };
        File::create(volume.image()).unwrap().set_len(size_mib << 20).unwrap();
        volume
    }

    /// A fresh volume with one voter.
    pub fn new(size_mib: u64) -> Self {
        Self::with_quorum(size_mib, 1)
    }

    /// A fresh volume that works when so many voters are there.
    pub fn with_quorum(size_mib: u64, quorum: u32) -> Self {
        let volume = Self::blank(size_mib);
        run(scoutfs(["mkfs", "-Q", &quorum.to_string()]).arg(volume.image()));
        volume
    }

    /// The image file.
    pub fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    /// A place beside the image, not on the volume.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A directory to mount on.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.beside(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Mounts on `mnt` with a daemon in the background.
    pub fn mount(&self) -> Mounted<'_> {
        self.mount_on("mnt")
    }

    /// Mounts on a directory with a daemon in the background, or in the kernel where that has scoutfs (see [`by_kernel`]).
    pub fn mount_on(&self, name: &str) -> Mounted<'_> {
        let directory = self.directory(name);
        let mounted = Mounted::new(self, self.image(), directory.clone(), None);
        run(scoutfs(["mount", "-o", "server_addr=127.0.0.1"]).arg(self.image()).arg(&directory));
        mounted
    }

    /// Mounts as one node of several, on a directory of the node's name, with these options. The node calls the image by a name
    /// of its own, by which its daemon is known, and a log, which is shown when the test fails.
    pub fn mount_node(&self, name: &str, options: &str) -> Mounted<'_> {
        self.mount_node_by(name, options, |command| command)
    }

    /// As [`Volume::mount_node`], by a command that is made of the one that mounts.
    pub fn mount_node_by(
        &self,
        name: &str,
        options: &str,
        by: impl FnOnce(Command) -> Command,
    ) -> Mounted<'_> {
        let directory = self.directory(name);
        let image = self.beside(&format!("image-of-{name}"));
        if !image.exists() {
            std::os::unix::fs::symlink("image", &image).unwrap();
        }
        let mounted = Mounted::new(self, image.clone(), directory.clone(), None);
        let log = self.beside(&format!("{name}.log"));
        // The log is the daemon's.
        let options = match by_kernel() && !options.split(',').any(|option| option == "fuse") {
            true => options.to_owned(),
            false => format!("{options},log={}", log.display()),
        };
        let mut command = scoutfs(["mount", "-o", &options]);
        command.arg(&image).arg(&directory);
        run(by(command));
        mounted
    }

    /// Mounts on `mnt` by the command that is made for an image and a directory.
    pub fn mount_with(&self, command: impl FnOnce(&Path, &Path) -> Command) -> Mounted<'_> {
        let directory = self.directory("mnt");
        // Made first: should the command hang, its daemon goes away with this value.
        let mounted = Mounted::new(self, self.image(), directory.clone(), None);
        run(&mut command(&self.image(), &directory));
        mounted
    }

    /// Mounts on `mnt` with these options.
    pub fn mount_options(&self, options: &str) -> Mounted<'_> {
        self.mount_with(|image, directory| {
            let mut command = scoutfs(["mount", "-o", options]);
            command.arg(image).arg(directory);
            command
        })
    }

    /// Mounts on `mnt` with a daemon that is our child.
    pub fn mount_child(&self) -> Mounted<'_> {
        let directory = self.directory("mnt");
        let mut command = scoutfs(["mount", "-f", "-o", "server_addr=127.0.0.1"]);
        command.arg(self.image()).arg(&directory).stdin(Stdio::null());
        let child = spawn(&mut command);
        // From here on it goes away with this value.
        let mounted = Mounted::new(self, self.image(), directory.clone(), Some(child));
        wait_until("mounted", SOON, || is_mount_point(&directory));
        mounted
    }

    /// `scoutfs check` finds nothing.
    pub fn check(&self) {
        run_well_for(scoutfs(["check"]).arg(self.image()), SOON);
    }

    fn show_logs(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                eprintln!("{}:\n{}", path.display(), fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }

    /// The newest super block says that nobody serves.
    pub fn is_clean(&self) -> bool {
        let bytes = fs::read(self.image()).unwrap();
        let all = (0..MAX_VOTERS).flat_map(|voter| [super_offset(voter, 0), super_offset(voter, 1)]);
        let newest = all
            .map(|at| SuperBlock::read_from_prefix(&bytes[at as usize..]).unwrap().0)
            // Behind the last voter there are other things.
            .filter(|sb| sb.id.magic.get() == MAGIC_SUPER)
            .max_by_key(|sb| (sb.term.get(), sb.seq.get()))
            .expect("a super block");
        newest.flags.get() & SUPER_CLEAN != 0
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_logs();
        }
        // A failed test's volume can be looked at.
        if thread::panicking() && std::env::var_os("KEEP_VOLUME").is_some() {
            eprintln!("kept {}", self.dir.display());
            return;
        }
        // Mounts borrow the volume, so none is left; but should one be, it is not to be emptied.
        if mount_points_below(&self.dir).is_empty() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A mounted volume.
pub struct Mounted<'v> {
    volume: &'v Volume,
    /// As its daemon knows the image.
    image: PathBuf,
    directory: PathBuf,
    child: Option<Child>,
    /// The daemon is stopped.
    asleep: AtomicBool,
    /// When it goes away, the watchdog ends.
    _watched: mpsc::Sender<()>,
}

impl<'v> Mounted<'v> {
    fn new(volume: &'v Volume, image: PathBuf, directory: PathBuf, child: Option<Child>) -> Self {
        let (watched, watchdog) = mpsc::channel();
        let daemons_image = image.clone();
        thread::spawn(move || {
            if watchdog.recv_timeout(LONGEST_MOUNT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{} is mounted for too long: killing its daemon", daemons_image.display());
                kill_daemons(&daemons_image);
            }
        });
        Mounted { volume, image, directory, child, asleep: AtomicBool::new(false), _watched: watched }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes what was done until now durable.
    pub fn sync(&self) {
        run(program("sync", ["-f"]).arg(&self.directory));
    }

    /// Bytes that programs can use.
    pub fn available_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.directory).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Unmounts. The volume is sound and says so as soon as `umount` has returned, and nothing of the mount is left.
    pub fn unmount(mut self) {
        let image = self.volume.image();
        run(program("umount", [&self.directory]));
        assert!(
            self.volume.is_clean(),
            "the super block of an unmounted volume does not say that it is clean"
        );
        self.volume.check();
        if let Some(mut child) = self.child.take() {
            wait_until("the daemon in the foreground ended", SOON, || child.try_wait().unwrap().is_some());
            assert!(child.wait().unwrap().success());
        }
        wait_until("the daemon ended", SOON, || daemons_of(&image).is_empty());
        wait_until("the loop device is gone", SOON, || loop_devices_of(&image).is_empty());
    }

    /// Unmounts a node of several; others may go on. Nothing of its daemon is left.
    pub fn leave(self) {
        run(program("umount", [&self.directory]));
        wait_until("the daemon ended", SOON, || daemons_of(&self.image).is_empty());
    }

    /// Stops the daemon in its tracks, or has it go on.
    pub fn signal_daemon(&self, signal: Signal) {
        let daemons = daemons_of(&self.image);
        assert_eq!(daemons.len(), 1);
        if signal == Signal::STOP && !self.asleep.swap(true, Relaxed) {
            falls_asleep();
        }
        kill_process(daemons[0], signal).unwrap();
        match signal {
            // One of its threads stops the others, when it runs: until then they go on.
            Signal::STOP => {
                wait_until("the daemon to stop", Duration::from_secs(30), || is_stopped(daemons[0]))
            }
            Signal::CONT => self.awake(),
            _ => {}
        }
    }

    /// The daemon goes on, or is dead.
    fn awake(&self) {
        if self.asleep.swap(false, Relaxed) {
            woke_up();
        }
    }

    /// Removes the mount point of a node whose daemon was killed; others may go on.
    pub fn bury_node(mut self) {
        self.kill_daemon();
        run(program("umount", [&self.directory]));
    }

    /// Kills the daemon, with all that it had only in memory.
    pub fn kill_daemon(&mut self) {
        kill_daemons(&self.image);
        self.awake();
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// Removes what a killed daemon left: the mount point. The volume is sound without recovery.
    pub fn bury(mut self) {
        self.kill_daemon();
        run(program("umount", [&self.directory]));
        self.volume.check();
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let image = self.image.clone();
        if thread::panicking() {
            // It may be stopped; then `umount` would wait for it.
            kill_daemons(&image);
            self.awake();
        }
        for arguments in [&[][..], &["-l"]] {
            if is_mount_point(&self.directory) {
                // A hanging umount is a failed one, but a panic within a panic would leave everything.
                let mut command = program("umount", arguments);
                command.arg(&self.directory);
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    run_for(&mut command, Duration::from_secs(20))
                }));
            }
        }
        let start = Instant::now();
        while !daemons_of(&image).is_empty() && start.elapsed() < Duration::from_secs(5) {
            sleep(Duration::from_millis(20));
        }
        kill_daemons(&image);
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if image != self.volume.image() {
            // Others may have loop devices of the same file; one without a user goes by itself.
            return;
        }
        let start = Instant::now();
        while !loop_devices_of(&image).is_empty() && start.elapsed() < Duration::from_secs(5) {
            sleep(Duration::from_millis(20));
        }
        for device in loop_devices_of(&image) {
            let _ = spawn(program("losetup", ["-d"]).arg(device)).wait();
        }
    }
}

/// Whether mounts are the running kernel's own, in a guest of `cargo xtask kernel test`. Tests that need daemons have no business
/// there.
pub fn by_kernel() -> bool {
    std::env::var_os("SCOUTFS_TEST_KERNEL").is_some()
}

/// The processes that were started as `... mount ... IMAGE ...`. The image is the test's own, so they are, too.
pub fn daemons_of(image: &Path) -> Vec<Pid> {
    let is_ours = |cmdline: &[u8]| {
        let mut arguments = cmdline.split(|b| *b == 0).skip(1);
        arguments.any(|a| a == image.as_os_str().as_encoded_bytes())
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let name = fs::read_link(process.path().join("exe")).ok()?;
            let cmdline = fs::read(process.path().join("cmdline")).ok()?;
            (name == Path::new(env!("CARGO_BIN_EXE_scoutfs")).canonicalize().ok()? && is_ours(&cmdline))
                .then_some(Pid::from_raw(pid)?)
        })
        .collect()
}

/// Whether no thread of a process runs any more. One that waits for a device does not go on either, once another has stopped.
fn is_stopped(pid: Pid) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else { return true };
    let states: Vec<char> = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok())
        .filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next())
        .collect();
    states.contains(&'T') && states.iter().all(|state| matches!(state, 'T' | 'D'))
}

fn kill_daemons(image: &Path) {
    for pid in daemons_of(image) {
        let _ = kill_process(pid, Signal::KILL);
    }
    let start = Instant::now();
    while !daemons_of(image).is_empty() && start.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(5));
    }
}

/// The loop devices whose file is the image.
pub fn loop_devices_of(image: &Path) -> Vec<PathBuf> {
    let Ok(devices) = fs::read_dir("/sys/block") else { return Vec::new() };
    devices
        .flatten()
        .filter(|device| {
            fs::read_to_string(device.path().join("loop/backing_file"))
                .is_ok_and(|file| Path::new(file.trim_end()) == image)
        })
        .map(|device| Path::new("/dev").join(device.file_name()))
        .collect()
}

/// As this thread sees them: it may have a mount namespace of its own.
fn mount_points() -> io::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts")?;
    Ok(mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from).collect())
}

/// Whether something is mounted there. Asks nothing of the filesystem, which may be dead.
pub fn is_mount_point(path: &Path) -> bool {
    mount_points().unwrap().iter().any(|point| point == path)
}

fn mount_points_below(dir: &Path) -> Vec<PathBuf> {
    mount_points().unwrap_or_default().into_iter().filter(|point| point.starts_with(dir)).collect()
}
