// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask programs`: what others wrote to test filesystems, and what people run on them, on a mounted volume.
//!
//! Each gets a volume of its own, made and mounted by the release binary as users do it. Whatever it finds itself, the
//! volume must be clean under `scoutfs check` after each unmount and each crash. Nothing is left behind, also on failure. The same
//! programs run in guests whose kernel mounts (`cargo xtask kernel test programs`).
//!
//! | module | what |
//! | --- | --- |
//! | `stage` | an image, its mount, and what runs on it |
//! | `pjdfstest` | POSIX calls one by one, with a list of named exceptions |
//! | `stress` | stress-ng's file stressors, fio with verification, dbench |
//! | `trees` | rsync there and back, a compile |
//! | `databases` | sqlite and PostgreSQL, with crashes in the middle |

mod databases;
mod pjdfstest;
mod stage;
mod stress;
mod trees;

use std::time::{Duration, Instant};

use crate::setup;
use stage::Stage;

/// Whether the kernel is to mount, with its module: in a guest, where everything is there already.
fn by_kernel() -> bool {
    std::env::var_os("SCOUTFS_TEST_KERNEL").is_some()
}

/// Programs that need no crash, which a kernel has only with its guest, and no cargo.
const IN_GUESTS: &[&str] = &["pjdfstest", "rsync", "fio", "stress-ng", "dbench"];

/// Gets what is needed to run some of the programs in a guest; gives the arguments with which this program does that there.
pub fn prepare_for_guest() -> Result<Vec<&'static str>, String> {
    setup::install()?;
    for program in PROGRAMS.iter().filter(|program| IN_GUESTS.contains(&program.name)) {
        setup::install_programs(program.needs)?;
    }
    pjdfstest::program()?;
    Ok(["programs"].iter().chain(IN_GUESTS).copied().collect())
}

/// One program, or several that belong together.
struct Program {
    name: &'static str,
    /// Ends within seconds: part of `cargo xtask test`.
    is_short: bool,
    size_mib: u64,
    /// Programs that it needs on the PATH, and the Debian packages that hold them.
    needs: &'static [(&'static str, &'static str)],
    /// Returns what it did, in a few words.
    run: fn(&mut Stage) -> Result<String, String>,
}

const PROGRAMS: &[Program] = &[
    Program { name: "pjdfstest", is_short: true, size_mib: 512, needs: &[], run: pjdfstest::run_on },
    Program {
        name: "sqlite",
        is_short: true,
        size_mib: 256,
        needs: &[("sqlite3", "sqlite3")],
        run: databases::sqlite,
    },
    Program {
        name: "rsync",
        is_short: true,
        size_mib: 1024,
        needs: &[("rsync", "rsync"), ("setfattr", "attr")],
        run: trees::rsync,
    },
    Program { name: "fio", is_short: true, size_mib: 1024, needs: &[("fio", "fio")], run: stress::fio },
    Program {
        name: "stress-ng",
        is_short: false,
        size_mib: 2048,
        needs: &[("stress-ng", "stress-ng")],
        run: stress::stress_ng,
    },
    Program {
        name: "dbench",
        is_short: false,
        size_mib: 2048,
        needs: &[("dbench", "dbench")],
        run: stress::dbench,
    },
    Program { name: "compile", is_short: false, size_mib: 8192, needs: &[], run: trees::compile },
    Program {
        name: "postgres",
        is_short: false,
        size_mib: 2048,
        needs: &[("psql", "postgresql"), ("setpriv", "util-linux")],
        run: databases::postgres,
    },
];

/// How one ended.
struct Ended {
    name: &'static str,
    took: Duration,
    result: Result<String, String>,
}

/// Runs the programs of these names, or all.
pub fn run(names: &[String]) -> Result<(), String> {
    if let Some(name) = names.iter().find(|name| PROGRAMS.iter().all(|p| p.name != **name)) {
        let known: Vec<&str> = PROGRAMS.iter().map(|p| p.name).collect();
        return Err(format!("no program is named {name}; there are {}", known.join(", ")));
    }
    run_those(|p| names.is_empty() || names.iter().any(|name| name == p.name))
}

/// Runs those that take seconds.
pub fn run_short() -> Result<(), String> {
    run_those(|p| p.is_short)
}

fn run_those(wanted: impl Fn(&Program) -> bool) -> Result<(), String> {
    setup::need_root()?;
    if !by_kernel() {
        setup::install()?;
        setup::run(setup::cargo(), &["build", "--release", "--package", "scoutfs-utils"])?;
    }
    let ended: Vec<Ended> = PROGRAMS.iter().filter(|p| wanted(p)).map(run_one).collect();

    println!("\n{:<10}  {:<4}  {:>7}  what it did", "program", "", "seconds");
    for Ended { name, took, result } in &ended {
        let (verdict, text) = match result {
            Ok(text) => ("ok", text.as_str()),
            Err(why) => ("FAIL", why.lines().next().unwrap_or_default()),
        };
        println!("{name:<10}  {verdict:<4}  {:>7.1}  {text}", took.as_secs_f64());
    }
    let failed = ended.iter().filter(|e| e.result.is_err()).count();
    println!("{} passed, {failed} failed", ended.len() - failed);
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of the programs failed")) }
}

fn run_one(program: &Program) -> Ended {
    println!("\n== {}", program.name);
    let start = Instant::now();
    let needs = if by_kernel() { &[] } else { program.needs };
    let result = setup::install_programs(needs).and_then(|()| {
        let mut stage = Stage::new(program.name, program.size_mib)?;
        stage.mount()?;
        let text = (program.run)(&mut stage)?;
        stage.unmount()?;
        Ok(text)
    });
    if let Err(why) = &result {
        println!("{} failed: {why}", program.name);
    }
    Ended { name: program.name, took: start.elapsed(), result }
}
