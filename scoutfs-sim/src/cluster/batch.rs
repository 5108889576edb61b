// SPDX-License-Identifier: GPL-2.0-only
//! Many seeds, each in a process of its own: a mount that is killed leaves its threads behind.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use scoutfs_env::fault::Fault;

use super::lock;
use super::nemesis::Weather;

/// What is not as a seed says.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// Hosts.
    pub nodes: Option<usize>,
    /// What mostly goes wrong.
    pub weather: Option<Weather>,
    /// The volume is small in any case.
    pub is_small: bool,
    /// What is planted.
    pub fault: Fault,
}

impl Default for Chosen {
    fn default() -> Self {
        Chosen { nodes: None, weather: None, is_small: false, fault: Fault::None }
    }
}

impl Chosen {
    /// As arguments of the program.
    fn arguments(&self) -> Vec<String> {
        let Chosen { nodes, weather, is_small, fault } = *self;
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: String| arguments.extend([name.to_string(), value]);
        if let Some(nodes) = nodes {
            add("--nodes", nodes.to_string());
        }
        if let Some(weather) = weather {
            add("--weather", format!("{weather:?}"));
        }
        if fault != Fault::None {
            add("--fault", format!("{fault:?}"));
        }
        if is_small {
            arguments.push("--small".to_string());
        }
        arguments
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The program `cluster` of this crate.
    pub program: &'a Path,
    /// The first seed.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// What is not as the seed says.
    pub chosen: Chosen,
    /// Begin no more after so many have failed.
    pub enough: usize,
    /// And none after this.
    pub longest: Duration,
}

/// A seed that failed, and its last line.
pub type Failed = (u64, String);

impl Batch<'_> {
    /// Runs them, several at a time. Gives how many ran, and those that failed, by seed.
    pub fn run(&self) -> (u64, Vec<Failed>) {
        let began = Instant::now();
        let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
        let failed: Mutex<Vec<Failed>> = Mutex::default();
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while lock(&failed).len() < self.enough && began.elapsed() < self.longest {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= self.count {
                            return;
                        }
                        if let Err(why) = self.one(self.first + at) {
                            lock(&failed).push((self.first + at, why));
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let mut failed = failed.into_inner().expect("a mutex that no panic poisoned");
        failed.sort();
        (done.into_inner(), failed)
    }

    fn one(&self, seed: u64) -> Result<(), String> {
        let mut command = Command::new(self.program);
        command.arg(seed.to_string()).args(self.chosen.arguments());
        let Output { status, stdout, stderr } = command.output().map_err(|e| e.to_string())?;
        if status.success() {
            return Ok(());
        }
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        Err(stdout.lines().chain(stderr.lines()).next().map_or_else(|| status.to_string(), str::to_string))
    }
}

/// The command that repeats a seed.
pub fn repeat(seed: u64, chosen: &Chosen) -> String {
    let arguments = chosen.arguments().into_iter().map(|argument| format!(" {argument}"));
    format!("cargo xtask sim {seed}{} --trace", arguments.collect::<String>())
}
