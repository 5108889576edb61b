// SPDX-License-Identifier: GPL-2.0-only
//! The User-Mode Linux kernel and the module for `cargo xtask test`. A machine that never built them takes a quarter of an hour for that:
//! they are built while other tests run, which mostly wait.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Action, Arch, SHORT};
use crate::setup;

/// A build that goes on.
pub struct Building {
    child: Child,
    log: PathBuf,
}

/// Begins to build what [`Building::test`] needs, with the lowest priority.
pub fn build_meanwhile() -> Result<Building, String> {
    let log = setup::root().join("target/kernel-build.log");
    let text = |e: std::io::Error| format!("{}: {e}", log.display());
    fs::create_dir_all(setup::root().join("target")).map_err(text)?;
    let out = File::create(&log).map_err(text)?;
    let err = out.try_clone().map_err(text)?;
    let xtask = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    println!("kernel: building meanwhile, see {}", log.display());
    let child = Command::new("nice")
        .args(["-n", "19"])
        .arg(xtask)
        .args(["kernel", "build"])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()
        .map_err(|e| format!("nice: {e}"))?;
    Ok(Building { child, log })
}

impl Building {
    /// Waits until it is built, and runs the short tests in guests.
    pub fn test(mut self) -> Result<(), String> {
        let status = self.child.wait().map_err(|e| format!("the build of the kernel: {e}"))?;
        if !status.success() {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            return Err(format!("{said}the build of the kernel ended with {status}"));
        }
        let names = SHORT.iter().map(|name| (*name).to_owned()).collect();
        super::run(&Action::Test { arch: Arch::Um, debug: false, rounds: 10, names })
    }
}

impl Drop for Building {
    /// Other tests failed: nobody needs it. What is built in part is gone on with the next time.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let group = format!("-{}", self.child.id());
            let _ = Command::new("kill").args(["--", &group]).status();
            let _ = self.child.wait();
        }
    }
}
