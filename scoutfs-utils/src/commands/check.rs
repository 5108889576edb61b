// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs check`: proof that a volume is sound.
//!
//! The exit status is 0 when it is, 1 when it is not, and 2 when it could not be checked.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use scoutfs_env::device::{BlockDevice, FileDevice, OpenError, OpenMode};
use scoutfs_env::{Arc, try_box};
use scoutfs_fs::check::{self, Issue, Place, Summary, TreeId};
use serde_json::{Map, Value, json};

use crate::cli::Check;

/// The volume has issues.
const NOT_SOUND: u8 = 1;
/// The volume could not be checked.
const NOT_CHECKED: u8 = 2;

/// How often progress is shown.
const INTERVAL: Duration = Duration::from_millis(200);

/// Checks the volume, and prints issues and a summary.
pub fn run(arguments: &Check) -> ExitCode {
    match check_volume(arguments) {
        Ok(summary) if summary.changed => ExitCode::from(NOT_CHECKED),
        Ok(summary) if summary.issues > 0 => ExitCode::from(NOT_SOUND),
        Ok(_) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("scoutfs: check failed: {why}");
            ExitCode::from(NOT_CHECKED)
        }
    }
}

fn check_volume(arguments: &Check) -> Result<Summary, String> {
    let path = arguments.device.display();
    // Keeps others on this machine from mounting it meanwhile. Whoever may only read cannot claim it, and just reads.
    let _claim = match FileDevice::open(&arguments.device, OpenMode::Exclusive) {
        Err(OpenError::InUse { .. }) => {
            return Err(format!("{path} is in use on this machine; unmount it first"));
        }
        other => other.ok(),
    };
    let device = open(&arguments.device)?;
    let progress = RefCell::new(Progress::new());
    let mut broken_pipe = None;
    let mut print = |line: &str| {
        progress.borrow_mut().clear();
        let mut out = io::stdout().lock();
        if let Err(e) = writeln!(out, "{line}") {
            broken_pipe.get_or_insert(e.to_string());
        }
    };
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    let summary = check::check_with(
        &device,
        arguments.threads.map_or_else(processors, usize::from),
        &mut |issue| {
            let line = if arguments.json { issue_json(&issue).to_string() } else { issue.to_string() };
            print(&line);
        },
        &mut |done, total| progress.borrow_mut().show(done, total),
    );
    progress.borrow_mut().clear();
    let summary = summary.map_err(|e| format!("{path}: {e}"))?;
    if arguments.json {
        print(&summary_json(&summary).to_string());
    } else {
        print(&summary_text(&summary));
    }
    match broken_pipe {
        Some(e) => Err(format!("cannot write: {e}")),
        None => Ok(summary),
    }
}

/// Opens a device for reading.
pub(super) fn open(path: &Path) -> Result<Arc<scoutfs_env::Box<dyn BlockDevice>>, String> {
    let device = FileDevice::open(path, OpenMode::ReadOnly).map_err(|e| e.to_string())?;
    let no_memory = |_| String::from("out of memory");
    let device: scoutfs_env::Box<dyn BlockDevice> = try_box(device).map_err(no_memory)?;
    Arc::new(device).map_err(no_memory)
}

fn summary_text(summary: &Summary) -> String {
    let Summary { issues, nodes, items, inodes, directories, data_blocks, torn, .. } = summary;
    let mut text = format!(
        "volume {:016x}: {nodes} tree blocks, {items} items, {inodes} inodes ({directories} directories), {data_blocks} \
         data blocks",
        summary.fsid
    );
    if *torn > 0 {
        text.push_str(&format!("\n{torn} torn writes, as a power failure leaves them"));
    }
    if !summary.items_checked {
        text.push_str("\nThe items of the filesystem were not checked, since some cannot be read.");
    }
    if !summary.owners_checked {
        text.push_str("\nLost blocks were not looked for, since not all owners are known.");
    }
    text.push_str(&match (summary.changed, issues) {
        (true, _) => {
            "\nThe volume was changed meanwhile: it is mounted somewhere, and this means nothing.".into()
        }
        (false, 0) => "\nNo problems found.".into(),
        (false, 1) => "\n1 problem found.".into(),
        (false, n) => format!("\n{n} problems found."),
    });
    text
}

fn summary_json(summary: &Summary) -> Value {
    json!({
        "type": "summary", "fsid": format!("{:016x}", summary.fsid), "issues": summary.issues,
        "tree_blocks": summary.nodes, "items": summary.items, "inodes": summary.inodes,
        "directories": summary.directories, "data_blocks": summary.data_blocks,
        "torn_writes": summary.torn, "items_checked": summary.items_checked,
        "owners_checked": summary.owners_checked, "changed": summary.changed,
    })
}

fn issue_json(issue: &Issue) -> Value {
    let mut fields = Map::new();
    issue.kind.for_each_field(&mut |name, value| {
        let text = value.to_string();
        let value = match (text.parse::<u64>(), text.parse::<i64>()) {
            (Ok(n), _) => n.into(),
            (_, Ok(n)) => n.into(),
            _ => text.into(),
        };
        fields.insert(name.to_owned(), value);
    });
    json!({
        "type": "issue", "kind": issue.kind.name(), "fields": fields,
        "place": place_json(&issue.place), "message": issue.to_string(),
    })
}

fn place_json(place: &Place) -> Value {
    let tree = |tree: &TreeId| match tree {
        TreeId::Fs => json!({ "name": "fs" }),
        TreeId::Server => json!({ "name": "server" }),
        TreeId::Log { slot, nr } => json!({ "name": "log", "slot": slot, "nr": nr }),
    };
    let key = |key: &scoutfs_format::Key| key.to_string();
    match place {
        Place::Volume => json!({ "type": "volume" }),
        Place::Super { voter, copy } => json!({ "type": "super", "voter": voter, "copy": copy }),
        Place::Quorum { voter, copy } => json!({ "type": "quorum", "voter": voter, "copy": copy }),
        Place::Slot { slot } => json!({ "type": "slot", "slot": slot }),
        Place::WorkList => json!({ "type": "work_list" }),
        Place::Node { tree: t, block, first, last } => json!({
            "type": "node", "tree": tree(t), "block": block.blkno.get(), "first": key(first), "last": key(last),
        }),
        Place::Tree { tree: t } => json!({ "type": "tree", "tree": tree(t) }),
        Place::TreeItem { tree: t, key: k } => json!({ "type": "tree_item", "tree": tree(t), "key": key(k) }),
        Place::Item { key: k } => json!({ "type": "item", "key": key(k) }),
        Place::Inode { ino } => json!({ "type": "inode", "ino": ino }),
        Place::Blocks { kind, start, len } => {
            json!({ "type": "blocks", "kind": kind.to_string(), "start": start, "len": len })
        }
        Place::Zone { zone } => json!({ "type": "zone", "zone": zone }),
    }
}

/// A line on the terminal that says how much is done; nothing when there is no terminal.
struct Progress {
    enabled: bool,
    /// When it was last written.
    at: Option<Instant>,
    /// Whether it is on the terminal now.
    is_shown: bool,
}

impl Progress {
    fn new() -> Self {
        Progress { enabled: io::stderr().is_terminal(), at: None, is_shown: false }
    }

    fn show(&mut self, done: u64, total: u64) {
        if self.enabled && self.at.is_none_or(|at| at.elapsed() >= INTERVAL) {
            self.at = Some(Instant::now());
            self.is_shown = true;
            eprint!("\rchecking: {}% ", done.saturating_mul(100) / total.max(1));
        }
    }

    /// Makes room for something else.
    fn clear(&mut self) {
        if core::mem::take(&mut self.is_shown) {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use scoutfs_fs::check::IssueKind;

    use super::*;

    #[test]
    fn an_issue_as_json_has_its_numbers_and_its_place() {
        let kind = IssueKind::LinkCount { nlink: 3, found: 2 };
        let value = issue_json(&Issue { kind, place: Place::Inode { ino: 1024 } });
        assert_eq!(
            value,
            json!({
                "type": "issue", "kind": "LinkCount", "fields": { "nlink": 3, "found": 2 },
                "place": { "type": "inode", "ino": 1024 },
                "message": "inode 1024: its link count is 3, but there are 2 links to it",
            })
        );
    }

    #[test]
    fn a_summary_never_says_sound_of_what_was_not_checked() {
        let summary = Summary { issues: 1, ..Summary::default() };
        let text = summary_text(&summary);
        assert!(text.contains("were not checked") && text.contains("not looked for"));
        assert!(text.ends_with("1 problem found."));
        let text = summary_text(&Summary { changed: true, ..Summary::default() });
        assert!(text.ends_with("this means nothing."));
    }
}
