// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs stat`: what scoutfs knows of a file besides stat(2).

use crate::cli::Stat;
use crate::{commands, ioctl};

/// Prints the fields.
pub fn run(arguments: &Stat) -> Result<(), String> {
    let file = ioctl::open(&arguments.file)?;
    let stat = ioctl::stat_more(&file).map_err(|e| format!("{}: {e}", arguments.file.display()))?;
    let crtime = format!("{}.{:09}", stat.crtime_sec.get() as i64, stat.crtime_nsec);
    commands::print_fields(
        &[
            ("meta_seq", &stat.meta_seq),
            ("data_seq", &stat.data_seq),
            ("data_version", &stat.data_version),
            ("online_blocks", &stat.online_blocks),
            ("offline_blocks", &stat.offline_blocks),
            ("crtime", &crtime),
        ],
        arguments.field.as_deref(),
        arguments.json,
    )
}
