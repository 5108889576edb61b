// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs statfs`: what scoutfs knows of a mounted volume besides statfs(2).

use crate::cli::Statfs;
use crate::{commands, ioctl};

/// Prints the fields.
pub fn run(arguments: &Statfs) -> Result<(), String> {
    let path = &arguments.path.path;
    let stat = ioctl::statfs_more(&ioctl::open(path)?).map_err(|e| format!("{}: {e}", path.display()))?;
    commands::print_fields(
        &[
            ("fsid", &format!("{:016x}", stat.fsid)),
            ("rid", &format!("{:016x}", stat.rid)),
            ("committed_seq", &stat.committed_seq),
            ("total_meta_blocks", &stat.total_meta_blocks),
            ("total_data_blocks", &stat.total_data_blocks),
        ],
        arguments.field.as_deref(),
        arguments.json,
    )
}
