// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs man-pages`: the man pages, made from the very definitions of the command line.

use clap::CommandFactory;

use crate::cli::{Cli, ManPages};

/// Writes `scoutfs.8`, and `scoutfs-COMMAND.8` for each command.
pub fn run(arguments: &ManPages) -> Result<(), String> {
    let directory = &arguments.directory;
    let failed = |e: std::io::Error| format!("{}: {e}", directory.display());
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut command = Cli::command();
    command.build();
    let mut pages = vec![("scoutfs".to_owned(), command.clone())];
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
        let name = format!("scoutfs-{}", sub.get_name());
        // A page has one name, which lives as long as the program.
        let title: &'static str = name.clone().leak();
        pages.push((name, sub.clone().name(title)));
    }
    for (name, page) in pages {
        let mut text = Vec::new();
        clap_mangen::Man::new(page).section("8").manual("scoutfs").render(&mut text).map_err(failed)?;
        let path = directory.join(format!("{name}.8"));
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
