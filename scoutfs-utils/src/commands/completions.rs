// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs completions`: what shells complete, made from the very definitions of the command line.

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};

use crate::cli::{Cli, Completions};

/// Writes `scoutfs.bash`, `_scoutfs` for zsh, and `scoutfs.fish`.
pub fn run(arguments: &Completions) -> Result<(), String> {
    let directory = &arguments.directory;
    let failed = super::failed(directory);
    std::fs::create_dir_all(directory).map_err(&failed)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "scoutfs", directory).map_err(&failed)?;
    }
    Ok(())
}
