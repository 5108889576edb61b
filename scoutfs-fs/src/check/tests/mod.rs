// SPDX-License-Identifier: GPL-2.0-only
//! For each kind of damage exactly the issues that it is.

mod fs_items;
mod hostile;
mod mounted;
mod planted;
mod structure;
mod volume;

use std::vec::Vec;

use scoutfs_env::device::BlockDevice;
use scoutfs_env::{Arc, Box};
use scoutfs_format::Key;

use super::cuts::Cuts;
use super::{Issue, IssueKind, Place, Summary, TreeId, check_in_pieces};
use volume::Volume;

/// The issues of a device: the same in the same order with any number of threads.
fn check_device(device: &Arc<Box<dyn BlockDevice>>) -> (Vec<Issue>, Summary) {
    let found = check_cut(device, 1, &[]);
    assert_eq!(found, check_cut(device, 3, &[]));
    found
}

/// As [`check_device`], where all items before which one may cut are pieces of their own.
fn check_cut(device: &Arc<Box<dyn BlockDevice>>, threads: usize, at: &[Key]) -> (Vec<Issue>, Summary) {
    let mut issues = Vec::new();
    let mut last = 0;
    let mut cuts = Cuts::every_leaf();
    cuts.add(at).unwrap();
    let report = &mut |issue: Issue| issues.push(issue);
    let summary = check_in_pieces(device, threads, cuts, report, &mut |done, total| {
        assert!(last <= done && done <= total);
        last = done;
    })
    .unwrap();
    assert_eq!(summary.issues, issues.len() as u64);
    (issues, summary)
}

/// The issues of a sound volume after an edit.
fn damaged(edit: impl FnOnce(&mut Volume)) -> Vec<(IssueKind, Place)> {
    let mut volume = Volume::new();
    edit(&mut volume);
    let device = volume.build().device;
    let (issues, summary) = check_device(&device);
    // Inodes that are cut into pieces have the same issues, though not in this order.
    let keys: Vec<Key> =
        [&volume.fs, &volume.log, &volume.tail].iter().flat_map(|i| i.keys()).copied().collect();
    let (in_pieces, summary_in_pieces) = check_cut(&device, 3, &keys);
    let sorted = |issues: &[Issue]| {
        let mut text: Vec<_> = issues.iter().map(|issue| std::format!("{issue:?}")).collect();
        text.sort();
        text
    };
    assert_eq!(sorted(&in_pieces), sorted(&issues));
    assert_eq!(summary_in_pieces, summary);
    planted::saw(&issues);
    issues.into_iter().map(|issue| (issue.kind, issue.place)).collect()
}

fn item(key: Key) -> Place {
    Place::Item { key }
}

fn inode(ino: u64) -> Place {
    Place::Inode { ino }
}

fn server_item(key: Key) -> Place {
    Place::TreeItem { tree: TreeId::Server, key }
}

#[test]
fn a_sound_volume_has_no_issues() {
    let (issues, summary) = check_device(&Volume::new().build().device);
    assert_eq!(issues, []);
    assert_eq!((summary.inodes, summary.directories, summary.data_blocks), (5, 2, volume::DATA_BLOCKS));
    assert!(summary.items_checked && summary.owners_checked && !summary.changed);
}
