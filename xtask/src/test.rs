// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask test`: every check and test.

use crate::{kernel, programs, setup};

/// Runs them, the quick ones first.
pub fn run() -> Result<(), String> {
    setup::need_root()?;
    setup::install()?;
    // On a machine that has none yet it takes longer than anything else, and nobody waits for it before the end.
    let kernel = kernel::build_meanwhile()?;
    let cargo = setup::cargo();
    setup::run(&cargo, &["fmt", "--all", "--check"])?;
    setup::run(&cargo, &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    // The programs under test are built as users build them.
    setup::run(&cargo, &["build", "--release", "--package", "scoutfs-utils"])?;
    setup::run(&cargo, &["test", "--workspace"])?;
    // Built apart: no other program is to have the locks and clocks of a simulation.
    let cluster = ["--package", "scoutfs-sim", "--features", "cluster"];
    setup::run(
        &cargo,
        &[&["clippy", "--quiet", "--all-targets"], &cluster[..], &["--", "-D", "warnings"]].concat(),
    )?;
    setup::run(&cargo, &[&["test"], &cluster[..], &["--lib", "cluster"]].concat())?;
    setup::run(&cargo, &[&["test"], &cluster[..], &["--test", "cluster"]].concat())?;
    setup::run(&cargo, &["test", "--package", "scoutfs-env", "--features", "sim", "sim::"])?;
    kernel.test()?;
    programs::run_short()
}
