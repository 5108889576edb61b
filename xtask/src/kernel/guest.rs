// SPDX-License-Identifier: GPL-2.0-only
//! Running a script in a guest, whose root is the machine's own: User-Mode Linux, or x86-64 in QEMU.
//!
//! The guest is a process that is ended after a time, whatever happens in it. Scripts write to nothing but their own folder, the
//! disks that they were given, and the guest's own `/tmp`, `/dev` and `/mnt`; User-Mode Linux would let them. What differs between the two
//! they find in variables that `guest/init.sh` sets: `DISK_A` and the next are their disks, `WIRE` is their network card.

mod qemu;
mod uml;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::build::Kernel;
use super::{Arch, sources};
use crate::setup;

/// What a guest runs with.
pub struct Guest<'a> {
    kernel: &'a Kernel,
    /// A folder for scripts, logs and results, which the guest sees under the same name.
    dir: PathBuf,
    disks: Vec<PathBuf>,
    /// It is killed after this.
    longest: Duration,
    memory: &'static str,
    /// Which of several it is.
    number: u32,
    /// Its network card: a socket of datagrams, one for each frame. It becomes the process's standard input.
    wire: Option<UnixDatagram>,
    /// It is killed when it prints a line that ends in this.
    last_words: Option<&'static str>,
}

/// The end of a guest.
pub struct Ended {
    /// The script's exit code; `None` when the guest did not come so far.
    pub code: Option<i32>,
    /// What it printed, the kernel's messages among it.
    pub log: String,
}

/// What a run of a script has besides.
struct Files<'a> {
    script: &'a Path,
    /// Where the exit code is put.
    result: &'a Path,
}

/// How much longer something takes than in User-Mode Linux that looks for no mistakes.
pub fn slowness(kernel: &Kernel) -> u32 {
    let machine = match kernel.arch {
        Arch::Um => 1,
        // Programs are emulated.
        Arch::X86 => 8,
    };
    machine * if kernel.debug { 6 } else { 1 }
}

impl<'a> Guest<'a> {
    /// A guest with a folder of its own, which is made.
    pub fn new(kernel: &'a Kernel, dir: &Path) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Guest {
            kernel,
            dir: dir.into(),
            disks: Vec::new(),
            longest: Duration::from_secs(300) * slowness(kernel),
            memory: if kernel.debug { "1536M" } else { "768M" },
            number: 0,
            wire: None,
            last_words: None,
        })
    }

    /// Gives it a disk: `DISK_A`, then `DISK_B`. Others may have the same.
    pub fn disk(mut self, image: &Path) -> Self {
        self.disks.push(image.into());
        self
    }

    /// Lets it live so long at most, and longer where it is slow.
    pub fn seconds(mut self, seconds: u64) -> Self {
        self.longest = Duration::from_secs(seconds) * slowness(self.kernel);
        self
    }

    /// Gives it so much memory, as the kernel understands it.
    pub fn memory(mut self, memory: &'static str) -> Self {
        self.memory = memory;
        self
    }

    /// Tells it from others that run beside it, by its processor and its network card.
    pub fn number(mut self, number: u32) -> Self {
        self.number = number;
        self
    }

    /// Gives it a network card.
    pub fn wire(mut self, wire: UnixDatagram) -> Self {
        self.wire = Some(wire);
        self
    }

    /// Kills it when it prints a line that ends in this.
    pub fn killed_at(mut self, words: &'static str) -> Self {
        self.last_words = Some(words);
        self
    }

    /// Runs a script's text by `sh`, and waits for the guest's end.
    pub fn run(&self, name: &str, script: &str) -> Result<Ended, String> {
        let write =
            |path: &Path, text: &str| fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()));
        let (file, result) = (self.dir.join(format!("{name}.sh")), self.dir.join(format!("{name}.result")));
        write(&file, script)?;
        write(&result, "")?;
        let files = Files { script: &file, result: &result };
        let mut command = match self.kernel.arch {
            Arch::Um => uml::command(self, &files),
            Arch::X86 => qemu::command(self, &files),
        };
        if let Some(wire) = &self.wire {
            let wire = wire.try_clone().map_err(|e| format!("the guest's wire: {e}"))?;
            command.stdin(Stdio::from(OwnedFd::from(wire)));
        } else {
            command.stdin(Stdio::null());
        }
        let log = self.dir.join(format!("{name}.log"));
        let log = self.follow(&mut command, &log).map_err(|e| format!("the guest: {e}"))?;
        let code = fs::read_to_string(&result).ok().and_then(|code| code.trim().parse().ok());
        Ok(Ended { code, log })
    }
}

impl Guest<'_> {
    /// Words on the kernel's command line that `guest/init.sh` reads.
    fn words(&self, files: &Files<'_>) -> Vec<String> {
        vec![
            format!("init={}", sources().join("guest/init.sh").display()),
            format!("run={}", files.script.display()),
            format!("result={}", files.result.display()),
            format!("patience={}", slowness(self.kernel)),
        ]
    }

    /// Runs it to its end, and returns what it printed, which is in a file as soon as it is printed.
    fn follow(&self, command: &mut Command, file: &Path) -> std::io::Result<String> {
        let mut file = fs::File::create(file)?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let out = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        std::thread::scope(|scope| {
            let (said_last_words, end) = mpsc::channel();
            let reader = scope.spawn(move || {
                let mut log = String::new();
                for line in BufReader::new(out).split(b'\n') {
                    // A serial line has ends of its own.
                    let line = String::from_utf8_lossy(&line?).trim_end_matches('\r').to_string();
                    if self.last_words.is_some_and(|words| line.trim_end().ends_with(words)) {
                        // Nobody listens the second time.
                        let _ = said_last_words.send(());
                    }
                    writeln!(file, "{line}")?;
                    log.push_str(&line);
                    log.push('\n');
                }
                Ok(log)
            });
            // A guest is a session of its own and hears nothing else.
            if end.recv_timeout(self.longest) != Err(mpsc::RecvTimeoutError::Disconnected) {
                child.kill()?;
            }
            child.wait()?;
            reader.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))
        })
    }
}

impl Ended {
    /// Fails unless the script succeeded and the kernel had nothing to complain of.
    pub fn check(&self, what: &str) -> Result<(), String> {
        match (self.code, self.complaint()) {
            (Some(0), None) => Ok(()),
            (_, Some(line)) => Err(format!("{what}: the kernel says: {line}\n{}", self.tail())),
            (Some(code), None) => Err(format!("{what}: ended with {code}\n{}", self.tail())),
            (None, None) => Err(format!("{what}: the guest did not reach its end\n{}", self.tail())),
        }
    }

    /// Fails unless a guest that was to be killed said all this before, and nothing went wrong.
    pub fn check_killed(&self, what: &str, said: &[&str]) -> Result<(), String> {
        let unsaid =
            said.iter().find(|words| !self.log.lines().any(|line| line.trim_end().ends_with(*words)));
        match (self.complaint(), unsaid) {
            (None, None) if self.code.is_none() => Ok(()),
            (Some(line), _) => Err(format!("{what}: the kernel says: {line}\n{}", self.tail())),
            (None, Some(words)) => Err(format!("{what}: it did not come to '{words}'\n{}", self.tail())),
            (None, None) => Err(format!("{what}: it ended by itself\n{}", self.tail())),
        }
    }

    /// What the kernel complains of.
    pub fn complaint(&self) -> Option<&str> {
        complaint(&self.log)
    }

    /// The last lines of what it printed.
    fn tail(&self) -> String {
        let lines: Vec<_> = self.log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// What a kernel complains of in its log.
fn complaint(log: &str) -> Option<&str> {
    const COMPLAINTS: &[&str] = &[
        "BUG:",
        "BUG ",
        "WARNING:",
        "Kernel panic",
        "Oops",
        "rust_kernel: panicked",
        "Call Trace",
        "blocked for more than",
        "detected stall",
        "bad stack",
        "list_add corruption",
        "list_del corruption",
        "sleeping function called",
        "possible recursive locking",
        "possible circular locking",
        "inconsistent lock state",
        "non-static key",
        "turning off the locking correctness validator",
        "KASAN:",
        "KFENCE:",
        "ODEBUG:",
        "unreferenced object",
        // Of `init.sh`.
        "lockdep is off",
    ];
    log.lines().find(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)))
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

#[cfg(test)]
mod tests {
    use super::complaint;

    #[test]
    fn each_kind_of_report_is_a_complaint() {
        for line in [
            "BUG: KASAN: slab-use-after-free in touch+0x1c/0x30 [scoutfs]",
            "BUG: KFENCE: use-after-free read in touch+0x1c/0x30",
            "BUG kmalloc-64 (Tainted: G           O       ): Right Redzone overwritten",
            "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:287",
            "WARNING: possible circular locking dependency detected",
            "WARNING: possible recursive locking detected",
            "WARNING: inconsistent lock state",
            "WARNING: suspicious RCU usage",
            "INFO: trying to register non-static key.",
            "list_add corruption. next->prev should be prev (0000), but was 0001.",
            "INFO: task mount:77 blocked for more than 120 seconds.",
            "rcu: INFO: rcu_sched self-detected stall on CPU",
            "Oops: general protection fault",
            "kernel BUG at fs/inode.c:700!",
            "unreferenced object 0x60c00000 (size 64):",
        ] {
            let line = format!("[    1.000000] {line}");
            let log = format!("[    0.900000] scoutfs: loaded\n{line}\nall done\n");
            assert_eq!(complaint(&log), Some(&*line));
        }
        let harmless = "[    0.1] Lock dependency validator: Copyright (c) 2006 Red Hat, Inc.\n\
                        [    0.2] KernelAddressSanitizer initialized\n[    0.3] kmemleak: Kernel memory leak detector initialized\n\
                        test limits::what_a_debugger_sees ... ok\n";
        assert_eq!(complaint(harmless), None);
    }
}
