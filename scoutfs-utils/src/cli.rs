// SPDX-License-Identifier: GPL-2.0-only
//! The command line: what can be typed. Help, man pages and completions come from these definitions.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Manages scoutfs volumes and mounts.
#[derive(Parser, Debug)]
#[command(name = "scoutfs", version, long_about = None, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a volume on a device or image file. What was there is overwritten.
    Mkfs(Mkfs),
    /// Mount a volume. Returns once it is mounted.
    Mount(Mount),
    /// List the changed inodes in the order of their changes.
    WalkInodes(WalkInodes),
    /// List the inodes that may have an extended attribute whose name has the tag "srch.".
    ///
    /// Prints inode numbers, ascending. All attributes are found that were set and synced before, on any node. An inode
    /// that has another attribute whose name has the same 64-bit hash is listed, too: look at it to be certain. Needs
    /// CAP_SYS_ADMIN.
    SearchXattrs(SearchXattrs),
    /// List the extended attributes of a file whose names have the tag "hide.".
    ///
    /// Prints names, one a line, as they are; in JSON with escapes for what is not printable ASCII. The file must be
    /// readable. listxattr(2) leaves these names out; getfattr -n NAME shows the value of one.
    ListHiddenXattrs(ListHiddenXattrs),
    /// Show what scoutfs knows of a file besides stat(2).
    Stat(Stat),
    /// Show what scoutfs knows of a mounted volume besides statfs(2).
    Statfs(Statfs),
    /// Show the space of a mounted volume.
    Df(Df),
    /// Print all metadata of a volume, readable.
    Print(Print),
    /// Prove that a volume that is not mounted is sound. Changes nothing.
    Check(Check),
    /// Write the man pages of all commands to a directory.
    ManPages(ManPages),
}

/// Where a command finds the mounted volume.
#[derive(Args, Debug)]
pub struct MountPath {
    /// A file or directory in the mounted volume.
    #[arg(short = 'p', long = "path", value_name = "PATH", env = "SCOUTFS_MOUNT_PATH", default_value = ".")]
    pub path: PathBuf,
}

/// `mkfs`.
#[derive(Args, Debug)]
pub struct Mkfs {
    /// Number of voters that must be present before the volume works; the volume gets 2 * COUNT - 1 voter slots.
    #[arg(short = 'Q', long = "quorum-count", alias = "quorum_count", value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=8))]
    pub quorum: u32,
    /// Overwrite even when the device seems to be mounted somewhere.
    #[arg(short, long)]
    pub force: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    /// Block device or image file of at least 64 MiB.
    pub device: PathBuf,
}

/// `mount`.
#[derive(Args, Debug)]
pub struct Mount {
    /// Mount options, separated by commas: server_addr=IP[:PORT] lets this node run the server; noacl switches POSIX access
    /// control lists off; ro, rw, noatime and others of mount(8) are passed on.
    #[arg(short = 'o', long = "options", value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Stay in the foreground and log to the terminal.
    #[arg(short, long)]
    pub foreground: bool,
    /// Accepted for mount(8): be verbose.
    #[arg(short, long)]
    pub verbose: bool,
    /// Accepted for mount(8): do everything but mount.
    #[arg(long)]
    pub fake: bool,
    /// Block device or image file.
    pub device: PathBuf,
    /// Directory to mount on.
    pub directory: PathBuf,
}

/// A change index.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "snake_case")]
pub enum Index {
    /// Every change of an inode.
    MetaSeq,
    /// Changes of regular files' data.
    DataSeq,
}

/// `walk-inodes`.
#[derive(Args, Debug)]
pub struct WalkInodes {
    /// Which index.
    pub index: Index,
    /// Where to begin: SEQ, SEQ.MINOR or SEQ.MINOR.INO; -1 is the highest.
    #[arg(allow_hyphen_values = true)]
    pub first: String,
    /// Where to end, included.
    #[arg(allow_hyphen_values = true)]
    pub last: String,
    /// A file or directory in the mounted volume.
    #[arg(value_name = "PATH")]
    pub positional: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub path: MountPath,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// `search-xattrs`.
#[derive(Args, Debug)]
pub struct SearchXattrs {
    /// The whole name: "scoutfs.", the tags with "srch." among them, and the rest, as in scoutfs.hide.srch.color.
    pub name: OsString,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub path: MountPath,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// `list-hidden-xattrs`.
#[derive(Args, Debug)]
pub struct ListHiddenXattrs {
    /// The file.
    pub file: PathBuf,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// `stat`.
#[derive(Args, Debug)]
pub struct Stat {
    /// Print only this field's value.
    #[arg(short = 's', long = "single-field", value_name = "FIELD")]
    pub field: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
    /// The file.
    pub file: PathBuf,
}

/// `statfs`.
#[derive(Args, Debug)]
pub struct Statfs {
    /// Print only this field's value.
    #[arg(short = 's', long = "single-field", value_name = "FIELD")]
    pub field: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub path: MountPath,
}

/// `df`.
#[derive(Args, Debug)]
pub struct Df {
    /// Sizes for people.
    #[arg(short = 'H', long)]
    pub human: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub path: MountPath,
}

/// `print`.
#[derive(Args, Debug)]
pub struct Print {
    /// Leave out the items of the trees.
    #[arg(short = 'S', long)]
    pub skip_items: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// Block device or image file.
    pub device: PathBuf,
}

/// `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Print one JSON object a line for each problem, and a summary.
    #[arg(long)]
    pub json: bool,
    /// Block device or image file.
    pub device: PathBuf,
}

/// `man-pages`.
#[derive(Args, Debug)]
pub struct ManPages {
    /// Where to; made if it does not exist.
    pub directory: PathBuf,
}
