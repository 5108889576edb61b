// SPDX-License-Identifier: GPL-2.0-only
//! The `scoutfs` command, and `mount.scoutfs` when it is called by that name.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use scoutfs_utils::cli::{Cli, Command};
use scoutfs_utils::commands;

/// `mount.scoutfs DEVICE DIRECTORY ...` is `scoutfs mount DEVICE DIRECTORY ...`.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let is_helper = arguments
        .first()
        .and_then(|name| Path::new(name).file_name())
        .is_some_and(|name| name == "mount.scoutfs");
    if is_helper {
        arguments.insert(1, "mount".into());
    }
    arguments
}

fn main() -> ExitCode {
    // A reader of our output that has seen enough ends us, as it does any other program.
    // SAFETY: nothing else runs yet, and the default action is no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let cli = Cli::parse_from(arguments());
    let (name, result) = match &cli.command {
        Command::Mkfs(a) => ("mkfs", commands::mkfs::run(a)),
        Command::Mount(a) => ("mount", commands::mount::run(a)),
        Command::WalkInodes(a) => ("walk-inodes", commands::walk_inodes::run(a)),
        Command::SearchXattrs(a) => ("search-xattrs", commands::search_xattrs::run(a)),
        Command::ListHiddenXattrs(a) => ("list-hidden-xattrs", commands::list_hidden_xattrs::run(a)),
        Command::Stat(a) => ("stat", commands::stat::run(a)),
        Command::Statfs(a) => ("statfs", commands::statfs::run(a)),
        Command::Status(a) => ("status", commands::status::run(a)),
        Command::Df(a) => ("df", commands::df::run(a)),
        Command::ConfirmDeath(a) => ("confirm-death", commands::confirm_death::run(a)),
        Command::Counters(a) => ("counters", commands::counters::run(a)),
        Command::InoPath(a) => ("ino-path", commands::ino_path::run(a)),
        Command::GetReferringEntries(a) => ("get-referring-entries", commands::referring_entries::run(a)),
        Command::GetAllocatedInos(a) => ("get-allocated-inos", commands::allocated_inos::run(a)),
        Command::GetAttrX(a) => ("get-attr-x", commands::attr_x::get(a)),
        Command::SetAttrX(a) => ("set-attr-x", commands::attr_x::set(a)),
        Command::GetFiemap(a) => ("get-fiemap", commands::fiemap::run(a)),
        Command::Print(a) => ("print", commands::print::run(a)),
        Command::ManPages(a) => ("man-pages", commands::man_pages::run(a)),
        Command::Completions(a) => ("completions", commands::completions::run(a)),
        Command::Check(a) => return commands::check::run(a),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("scoutfs: {name} failed: {why}");
            ExitCode::FAILURE
        }
    }
}
