// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs confirm-death`: the administrator says that a fenced node is dead.

use scoutfs_format::msg::{DEATH_CONFIRMED, DEATH_OF_LIVE};

use crate::cli::ConfirmDeath;
use crate::ioctl;

/// Says it, and prints what came of it.
pub fn run(arguments: &ConfirmDeath) -> Result<(), String> {
    let (path, rid) = (&arguments.path.path, arguments.rid);
    let file = ioctl::open(path)?;
    match ioctl::confirm_death(&file, rid).map_err(|e| format!("{}: {e}", path.display()))? {
        DEATH_CONFIRMED => {
            println!("mount {rid:016x} is dead: what it held is taken back");
            Ok(())
        }
        DEATH_OF_LIVE => Err(format!(
            "mount {rid:016x} is not fenced: its lease runs, and it is not taken for dead before that has ended"
        )),
        _ => Err(format!("{}: there is no mount {rid:016x}, or nothing of it is left", path.display())),
    }
}
