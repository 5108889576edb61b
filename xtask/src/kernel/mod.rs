// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask kernel`: a Linux kernel with Rust, the module in it, and guests that run both.
//!
//! | module | what |
//! | --- | --- |
//! | this | the commands, and where things are kept |
//! | `machine` | packages, bindgen, the kernel's source, from the package sources that the machine uses |
//! | `build` | the kernel, from the configurations in `scoutfs-kmod/config`, and the module |
//! | `frames` | how much stack each function of the module takes |
//! | `guest` | running a script in a guest, in either machine |
//! | `bench` | the module beside other filesystems in a guest |
//! | `test` | what is done in guests, and with the volume before and after |
//! | `meanwhile` | the kernel for `cargo xtask test`, which is built while other tests run |
//!
//! What is expensive is kept outside the project, in `scoutfs/kernel` of the user's cache folder: each kernel under a name made of its
//! source's version and its configuration, so that a change of either makes another.

mod bench;
mod build;
mod frames;
mod guest;
mod machine;
mod meanwhile;
mod test;

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use crate::setup;

pub use meanwhile::build_meanwhile;

/// What `cargo xtask test` runs of the tests in guests: all but NFS and the programs of others, which take longer than the rest together.
const SHORT: &[&str] =
    &["exchange", "deaths", "killed", "prepared", "manners", "cluster", "ipv6", "rounds", "mounted"];

/// Which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// User-Mode Linux: a kernel that is a process, with one processor.
    Um,
    /// x86-64 in QEMU, emulated: two processors at one time, full preemption, lockdep; slow.
    X86,
}

/// What to do with kernels.
#[derive(Subcommand)]
pub enum Action {
    /// Install packages and bindgen, get the kernel's source. Needs root where packages are missing.
    Setup {
        /// For which kernel.
        #[arg(long, value_enum, default_value = "um")]
        arch: Arch,
    },
    /// Build the kernel, if it was not, and the module.
    Build {
        /// Which kernel.
        #[arg(long, value_enum, default_value = "um")]
        arch: Arch,
        /// The debug kernel: it looks for mistakes of its own and of the module.
        #[arg(long)]
        debug: bool,
    },
    /// Build, and test the module in guests. Needs root.
    Test {
        /// In which kernel.
        #[arg(long, value_enum, default_value = "um")]
        arch: Arch,
        /// On the debug kernel, which takes several times as long.
        #[arg(long)]
        debug: bool,
        /// How often a volume is mounted and unmounted to see that no memory is lost; a tenth as often the module is loaded.
        #[arg(long, default_value_t = 30)]
        rounds: u32,
        /// Only these: parts by their names, which a wrong one makes it tell, and names of mounted tests, with `::` in them.
        names: Vec<String>,
    },
    /// Build, and compare the module with ext4 and xfs in a guest. Needs root.
    Bench {
        /// Rounds, whose medians are compared.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Disks in the guest's memory, each of whose requests takes so many microseconds, as many at one time as come; otherwise images
        /// in files.
        #[arg(long)]
        latency: Option<u32>,
        /// Only works whose names begin with one of these words, and what they build on.
        works: Vec<String>,
    },
    /// Build, and run a command in a guest with the module loaded, as root, with the machine's own files.
    Run {
        /// In which kernel.
        #[arg(long, value_enum, default_value = "um")]
        arch: Arch,
        /// A block device of the guest, $DISK_A: an image file.
        #[arg(long)]
        disk: Option<PathBuf>,
        /// In the debug kernel.
        #[arg(long)]
        debug: bool,
        /// The command, for a shell.
        #[arg(required = true)]
        command: Vec<String>,
    },
}

/// Runs one.
pub fn run(action: &Action) -> Result<(), String> {
    match action {
        Action::Setup { arch } => machine::set_up(*arch).and_then(|_| machine::nfs()).map(drop),
        Action::Build { arch, debug } => built(*arch, *debug).map(drop),
        Action::Test { arch, debug, rounds, names } => {
            let (machine, kernel, module) = built(*arch, *debug)?;
            let cookie = build::test_module(&machine, &kernel, "cookie")?;
            let faults = build::test_module(&machine, &kernel, "faults")?;
            test::run(&kernel, &test::Modules { scoutfs: module, cookie, faults }, *rounds, names)
        }
        Action::Bench { rounds, latency, works } => {
            let (_, kernel, module) = built(Arch::Um, false)?;
            bench::run(&kernel, &module, *rounds, *latency, works)
        }
        Action::Run { arch, disk, debug, command } => {
            let (_, kernel, module) = built(*arch, *debug)?;
            guest::run_command(&kernel, &module, disk.as_deref(), &command.join(" "))
        }
    }
}

fn built(arch: Arch, debug: bool) -> Result<(machine::Machine, build::Kernel, PathBuf), String> {
    let machine = machine::set_up(arch)?;
    let kernel = build::kernel(&machine, arch, debug)?;
    let module = build::module(&machine, &kernel)?;
    Ok((machine, kernel, module))
}

/// Where the module's sources are.
fn sources() -> PathBuf {
    setup::root().join("scoutfs-kmod")
}

/// Where expensive things are kept.
fn cache() -> Result<PathBuf, String> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").ok_or("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    let cache = base.join("scoutfs/kernel");
    std::fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    Ok(cache)
}
