// SPDX-License-Identifier: GPL-2.0-only
//! The project's habits as commands.
//!
//! | command | what it does |
//! | --- | --- |
//! | `cargo xtask test` | every check and test, as root; installs what they need |
//! | `cargo xtask programs` | others' programs on a mounted volume, all or by name |
//! | `cargo xtask fuzz` | every decoder with changed bytes, for as long as one likes |
//! | `cargo xtask crash` | power failures at every place of all small workloads; takes hours |
//! | `cargo xtask kernel` | a Linux kernel with Rust, the module, and tests of both in guests |
//! | `cargo xtask demo` | the main job on an image file: mkfs, mount, walk-inodes |

mod crash;
mod demo;
mod fuzz;
mod kernel;
mod programs;
mod setup;
mod sim;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's habits as commands")]
struct Arguments {
    #[command(subcommand)]
    command: Habit,
}

#[derive(Subcommand)]
enum Habit {
    /// Run every check and test. Needs root for the tests that mount.
    Test,
    /// Run others' programs on a mounted volume: all, or those that are named. Needs root.
    Programs {
        /// Names of programs; all when none is given.
        names: Vec<String>,
    },
    /// Fuzz decoders: all, or those that are named, taking turns. Ends at the first input that fails, and keeps it.
    Fuzz {
        /// For so long, all targets together.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Repeats a run; random when not given.
        #[arg(long)]
        seed: Option<u64>,
        /// Names of targets; all when none is given.
        targets: Vec<String>,
    },
    /// Cut the power at every place of all workloads of up to three operations. Takes hours.
    Crash {
        /// So many workloads instead of all.
        #[arg(long, default_value_t = 0)]
        workloads: u64,
        /// So many images of each at most.
        #[arg(long, default_value_t = 1000)]
        images: u64,
        /// Chooses the workloads, when they are not all.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run the cluster simulation: hosts on a simulated disk, network, clock and scheduler.
    Sim {
        /// The seed; random when not given.
        seed: Option<u64>,
        /// So many hosts instead of what the seed says.
        #[arg(long)]
        nodes: Option<usize>,
        /// So many seeds from this one on.
        #[arg(long)]
        count: Option<u64>,
        /// What mostly goes wrong, instead of what the seed says; an unknown name lists them.
        #[arg(long)]
        weather: Option<String>,
        /// A small volume that programs fill.
        #[arg(long)]
        small: bool,
        /// Plants a fault; an unknown name lists them.
        #[arg(long)]
        fault: Option<String>,
        /// Prints each event, and where each task is when the run fails.
        #[arg(long)]
        trace: bool,
    },
    /// Build a Linux kernel and the module, test and run them in guests.
    Kernel {
        /// What to do.
        #[command(subcommand)]
        action: kernel::Action,
    },
    /// Make a volume in an image file, mount it, and see changes in the index. Needs root.
    Demo,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Habit::Test => test::run(),
        Habit::Programs { names } => programs::run(&names),
        Habit::Fuzz { seconds, seed, targets } => fuzz::run(seconds, seed, &targets),
        Habit::Crash { workloads, images, seed } => crash::run(workloads, images, seed),
        Habit::Sim { seed, nodes, count, weather, small, fault, trace } => {
            let mut arguments = Vec::new();
            let given = [
                ("--nodes", nodes.map(|n| n.to_string())),
                ("--count", count.map(|n| n.to_string())),
                ("--weather", weather),
                ("--fault", fault),
            ];
            for (name, value) in given {
                arguments.extend(value.into_iter().flat_map(|value| [name.to_string(), value]));
            }
            let flags = [("--small", small), ("--trace", trace)];
            arguments.extend(flags.into_iter().filter(|(_, given)| *given).map(|(name, _)| name.to_string()));
            sim::run(seed, &arguments)
        }
        Habit::Kernel { action } => kernel::run(&action),
        Habit::Demo => demo::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}
