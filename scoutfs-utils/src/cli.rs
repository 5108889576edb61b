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
    /// Show the voters, the leader and the mounts of a volume.
    ///
    /// All of it is read from the device, on any node and whether the volume is mounted or not. Nothing is written. For a voter slot: the
    /// mount that owns it, where its server listens, the highest term that it has seen, for which voter it has voted in which term, and
    /// whether it beats, which takes a moment to see. The leader is the voter that has won the highest term and beats. For a mount: its
    /// slot, its number, its address if it is a voter, its epoch, and its state: live; fenced, when its lease ran out and its death is
    /// not confirmed; gone, when what it left is being taken back.
    Status(Status),
    /// Show the space of a mounted volume.
    Df(Df),
    /// Say that a node that is fenced is dead for certain, so that what it held is taken back.
    ConfirmDeath(ConfirmDeath),
    /// Show what a mount has done so far, in numbers.
    Counters(CountersArguments),
    /// List the paths of an inode.
    InoPath(NamesOfInode),
    /// List the directory entries that name an inode.
    GetReferringEntries(NamesOfInode),
    /// List inode numbers in use, up to the end of the group of the first one.
    GetAllocatedInos(GetAllocatedInos),
    /// Show attributes of a file: its place in the change indexes, retention, project and others.
    GetAttrX(GetAttrX),
    /// Set attributes of a file, all or none: retention, project, and what a restored file had before.
    SetAttrX(SetAttrX),
    /// List where the data of a file are.
    GetFiemap(GetFiemap),
    /// Print all metadata of a volume, readable.
    Print(Print),
    /// Prove that a volume that is not mounted is sound. Changes nothing.
    Check(Check),
    /// Write the man pages of all commands to a directory.
    ManPages(ManPages),
    /// Write the completions of all commands for bash, zsh and fish to a directory.
    Completions(Completions),
}

/// The number of a mount, as it is shown.
fn rid(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|e| format!("{e}; it is hexadecimal, as scoutfs status shows it"))
}

/// A number as the C tool takes it: decimal, or hexadecimal after 0x.
fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| e.to_string())
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondsNanoseconds {
    /// Seconds since 1970.
    pub sec: i64,
    /// Nanoseconds of that second.
    pub nsec: u32,
}

/// `SECS.NSECS`: two whole numbers, the second one of nanoseconds.
fn seconds_nanoseconds(text: &str) -> Result<SecondsNanoseconds, String> {
    let (sec, nsec) = text.split_once('.').ok_or("expected SECS.NSECS")?;
    let sec = sec.parse().map_err(|_| format!("'{sec}' is not a number of seconds"))?;
    let nsec = nsec.parse().ok().filter(|nsec| *nsec < 1_000_000_000);
    let nsec = nsec.ok_or("nanoseconds are 0 to 999999999")?;
    Ok(SecondsNanoseconds { sec, nsec })
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
#[command(
    after_long_help = "A node whose lease has run out is fenced: what it had synced is there, and what it may still write is kept apart until it is \
certain that it is dead. The node that runs the server knows that of processes of its own machine. With fence=PROGRAM it asks this \
program about others. PROGRAM, an absolute path, is run as PROGRAM RID IP, as the user that mounted; IP is empty if the node has no \
server_addr. SCOUTFS_FENCED_REQ_RID, _IP, _FSID, _DEVICE and _REASON (unresponsive) are in its environment. It must see to it that the \
node cannot write to the device any more, by cutting its power or its way to the device, and then exit with 0: what the node held is \
taken back at once. After any other exit, or after 30 seconds, when it is killed, it is run again 10 seconds later. Give all nodes with \
server_addr the same option. For a mount by the kernel a process in the background does this, which ends with the mount.\n\n\
Locks of fcntl(2) and flock(2) hold on all nodes. Those of a node that dies are free when its lease has run out; a program on a node that \
was fenced gets EIO from all that it does with its files. A lock that a process on another node has is shown with process 0.\n\n\
Times that are the same on all nodes and cannot be changed. The lease of a node lasts 6 seconds from its last renewal; it is fenced 1 \
second later, and others wait that long for what it had locked. A node that holds a lock which another wants is fenced, too, when it does \
not give it back and for 60 seconds has done nothing for that, such as writing what programs have changed. When the leader dies another leads about 7 seconds after its last beat; when the leader unmounts, in a \
moment. A voter slot is free as soon as its owner has unmounted. That of a process that died is free at once for mounts of the same \
machine, also when that has booted anew; for others it is free after 120 seconds of silence and 8 more. Until then another node with \
server_addr may find no free slot: it waits for one, and does not vote meanwhile.\n\n\
What is not synced is written after 5 seconds (commit_interval_ms=100 to 60000 changes that). Writes to the end of a file, by FUSE small ones, are in memory \
for 50 ms before they go to the device; whoever syncs waits for them. What a quiet node has in its log is given to be merged after 10 \
seconds. A program that finds the volume full waits for space that is just coming back, for 10 seconds when nothing comes and for \
100 seconds at most, before it gets ENOSPC. The space of a file that is unlinked just after another node has looked it up comes back within \
2 seconds; that of files which a node had open that died, when another node looks for them, within 90 seconds of the fence. A node that \
unmounts while there is no leader waits for one for 30 seconds."
)]
pub struct Mount {
    /// Mount options, separated by commas: server_addr=IP[:PORT] lets this node run the server; fence=PROGRAM is its fence agent;
    /// noacl switches POSIX access control lists off; log=FILE (an absolute path) takes the log of a mount in the background, which
    /// else goes to syslog; fuse mounts by FUSE, also where the kernel has scoutfs, as log and -f do; ro, rw, noatime and others of mount(8) are passed on.
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
    /// See there.
    #[command(flatten)]
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
    /// See there.
    #[command(flatten)]
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
    /// See there.
    #[command(flatten)]
    pub path: MountPath,
}

/// `status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
    /// Block device or image file, or a file or directory in the mounted volume.
    #[arg(value_name = "PATH", env = "SCOUTFS_MOUNT_PATH", default_value = ".")]
    pub path: PathBuf,
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
    /// See there.
    #[command(flatten)]
    pub path: MountPath,
}

/// `confirm-death`.
#[derive(Args, Debug)]
#[command(
    after_long_help = "A node that is not heard any more is fenced when its lease has run out: what it had synced is there, and others go on. What it \
may still write is kept apart until it is certain that it is dead. Its machine knows that when it comes back, and so does a fence agent \
(see scoutfs mount, option fence). For a machine that never comes back this command says it, on any node that has the volume mounted.\n\n\
Say it only of a node that cannot write to the device any more: it has no power, or its way to the device is cut for good. What a node \
that lives writes later destroys what others have written since. A node whose lease runs is not taken for dead.\n\n\
Needs CAP_SYS_ADMIN. Fails with status 1 when the node is alive or not known; it is no error to say it twice before all is taken back."
)]
pub struct ConfirmDeath {
    /// The number of the mount, as scoutfs status shows it: hexadecimal.
    #[arg(value_name = "RID", value_parser = rid)]
    pub rid: u64,
    /// See there.
    #[command(flatten)]
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
#[command(
    after_help = "The exit status is 0 when the volume is sound, 1 when it has problems, and 2 when it could not be \
checked: the device cannot be read, there is no volume of this format, or it is mounted or was changed meanwhile."
)]
pub struct Check {
    /// Print one JSON object a line for each problem, and a summary.
    #[arg(long)]
    pub json: bool,
    /// Threads that read and check; by default one for each processor. What is found does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Block device or image file.
    pub device: PathBuf,
}

/// `man-pages`.
#[derive(Args, Debug)]
pub struct ManPages {
    /// Where to; made if it does not exist.
    pub directory: PathBuf,
}

/// `completions`.
#[derive(Args, Debug)]
pub struct Completions {
    /// Where to; made if it does not exist.
    pub directory: PathBuf,
}

/// `counters`.
#[derive(Args, Debug)]
pub struct CountersArguments {
    /// Fill the width of the terminal with columns.
    #[arg(short = 't', long)]
    pub table: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
    /// A file or directory in the mounted volume.
    #[arg(value_name = "PATH")]
    pub positional: Option<PathBuf>,
    /// See there.
    #[command(flatten)]
    pub path: MountPath,
}

/// `ino-path` and `get-referring-entries`.
#[derive(Args, Debug)]
pub struct NamesOfInode {
    /// The inode number.
    #[arg(value_name = "INO", value_parser = number)]
    pub ino: u64,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// See there.
    #[command(flatten)]
    pub path: MountPath,
}

/// `get-allocated-inos`.
#[derive(Args, Debug)]
pub struct GetAllocatedInos {
    /// The first inode number.
    #[arg(short = 'i', long = "ino", value_name = "INO", value_parser = number)]
    pub ino: u64,
    /// Print this number alone, if it is in use.
    #[arg(short = 's', long)]
    pub single: bool,
    /// Print a JSON array.
    #[arg(long)]
    pub json: bool,
    /// See there.
    #[command(flatten)]
    pub path: MountPath,
}

/// `get-attr-x`: all attributes, or those that are asked for.
#[derive(Args, Debug)]
pub struct GetAttrX {
    /// Seq of the inode's newest change.
    #[arg(short = 'm', long = "meta_seq")]
    pub meta_seq: bool,
    /// Seq of the newest change of the file's data.
    #[arg(short = 'd', long = "data_seq")]
    pub data_seq: bool,
    /// Version of the file's data.
    #[arg(short = 'v', long = "data_version")]
    pub data_version: bool,
    /// 4 KiB blocks with data on this volume.
    #[arg(short = 'n', long = "online_blocks")]
    pub online_blocks: bool,
    /// 4 KiB blocks whose data are in the archive.
    #[arg(short = 'f', long = "offline_blocks")]
    pub offline_blocks: bool,
    /// When the inode was changed.
    #[arg(short = 'c', long)]
    pub ctime: bool,
    /// When the inode was made.
    #[arg(short = 'r', long)]
    pub crtime: bool,
    /// Bytes.
    #[arg(short = 's', long)]
    pub size: bool,
    /// Whether the file is retained.
    #[arg(short = 't', long)]
    pub retention: bool,
    /// The project's number.
    #[arg(short = 'p', long = "project_id")]
    pub project_id: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
    /// The file.
    pub file: PathBuf,
}

/// `set-attr-x`.
#[derive(Args, Debug)]
pub struct SetAttrX {
    /// Accepted, as the C tool does; a seq cannot be set.
    #[arg(short = 'm', long = "meta_seq", value_name = "SEQ", value_parser = number)]
    pub meta_seq: Option<u64>,
    /// Accepted, as the C tool does; a seq cannot be set.
    #[arg(short = 'd', long = "data_seq", value_name = "SEQ", value_parser = number)]
    pub data_seq: Option<u64>,
    /// Version of the data of a new file; not 0.
    #[arg(short = 'v', long = "data_version", value_name = "VERSION", value_parser = number)]
    pub data_version: Option<u64>,
    /// Accepted, as the C tool does; blocks cannot be set.
    #[arg(short = 'n', long = "online_blocks", value_name = "COUNT", value_parser = number)]
    pub online_blocks: Option<u64>,
    /// Accepted, as the C tool does; blocks cannot be set.
    #[arg(short = 'f', long = "offline_blocks", value_name = "COUNT", value_parser = number)]
    pub offline_blocks: Option<u64>,
    /// When the inode was changed.
    #[arg(short = 'c', long, value_name = "SECS.NSECS", value_parser = seconds_nanoseconds, allow_hyphen_values = true)]
    pub ctime: Option<SecondsNanoseconds>,
    /// When the inode was made.
    #[arg(short = 'r', long, value_name = "SECS.NSECS", value_parser = seconds_nanoseconds, allow_hyphen_values = true)]
    pub crtime: Option<SecondsNanoseconds>,
    /// Bytes of a new file; one that is not 0 needs a data version.
    #[arg(short = 's', long, value_name = "SIZE", value_parser = number)]
    pub size: Option<u64>,
    /// The data, up to the size, are in the archive.
    #[arg(long, requires = "size")]
    pub offline: bool,
    /// 1: from now on nothing of the file may be changed but extended attributes outside of user., until it is set to 0.
    #[arg(short = 't', long, value_name = "0|1", value_parser = clap::value_parser!(u8).range(0..=1))]
    pub retention: Option<u8>,
    /// The project's number; what is made in a directory inherits it.
    #[arg(short = 'p', long = "project_id", value_name = "PROJECT_ID", value_parser = number)]
    pub project_id: Option<u64>,
    /// The file.
    pub file: PathBuf,
}

/// `get-fiemap`.
#[derive(Args, Debug)]
pub struct GetFiemap {
    /// Print places on the device only.
    #[arg(short = 'P', long)]
    pub physical: bool,
    /// Print places in the file only.
    #[arg(short = 'L', long, conflicts_with = "physical")]
    pub logical: bool,
    /// Print bytes, not blocks of 4 KiB.
    #[arg(short = 'b', long)]
    pub byte: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// The file.
    pub file: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    /// The page of mount names the times that an administrator may notice: they are those of the code.
    #[test]
    fn the_page_of_mount_tells_times_as_they_are() {
        use clap::CommandFactory;
        use scoutfs_format::voter::ProcessId;
        use scoutfs_server::server::{LEASE, LEASE_MARGIN};
        let options = scoutfs_fs::MountOptions::new(ProcessId::default());
        let timing = options.timing;
        let mut command = Cli::command();
        let page = command.find_subcommand_mut("mount").unwrap().render_long_help().to_string();
        let page: Vec<&str> = page.split_whitespace().collect();
        let page = page.join(" ");
        let leads_ms = timing.lease_ms + timing.margin_ms;
        assert_eq!(leads_ms % 1000 + timing.dead_ms % 1000 + timing.presumed_ms.unwrap() % 1000, 0);
        for said in [
            format!("The lease of a node lasts {} seconds", LEASE.as_secs()),
            format!("it is fenced {} second later", LEASE_MARGIN.as_secs()),
            format!("another leads about {} seconds after its last beat", leads_ms / 1000),
            format!(
                "free after {} seconds of silence and {} more",
                timing.presumed_ms.unwrap() / 1000,
                timing.dead_ms / 1000
            ),
            format!("What is not synced is written after {} seconds", options.commit_interval.as_secs()),
            format!("given to be merged after {} seconds", options.idle_interval.as_secs()),
        ] {
            assert!(page.contains(&said), "{said:?} is not in: {page}");
        }
    }

    #[test]
    fn numbers_and_times_are_parsed_as_the_c_tool_does() {
        assert_eq!((number("18446744073709551615"), number("0x1F")), (Ok(u64::MAX), Ok(31)));
        for text in ["", "-1", "1.5", "0x", "18446744073709551616"] {
            assert!(number(text).is_err(), "{text}");
        }
        let time = |sec, nsec| Ok(SecondsNanoseconds { sec, nsec });
        assert_eq!(seconds_nanoseconds("5.7"), time(5, 7));
        assert_eq!(seconds_nanoseconds("-5.999999999"), time(-5, 999_999_999));
        for text in ["", "5", "5.", ".5", "5.1000000000", "x.1"] {
            assert!(seconds_nanoseconds(text).is_err(), "{text}");
        }
    }
}
