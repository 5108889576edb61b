// SPDX-License-Identifier: GPL-2.0-only
//! For each kind of damage exactly the issues that it is.

mod fs_items;
mod hostile;
mod mounted;
mod structure;
mod volume;

use std::vec::Vec;

use scoutfs_env::device::BlockDevice;
use scoutfs_env::{Arc, Box};
use scoutfs_format::Key;

use super::{Issue, IssueKind, Place, Summary, TreeId, check};
use volume::Volume;

/// The issues of a device.
fn check_device(device: &Arc<Box<dyn BlockDevice>>) -> (Vec<Issue>, Summary) {
    let mut issues = Vec::new();
    let mut last = 0;
    let summary = check(device, &mut |issue| issues.push(issue), &mut |done, total| {
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
    let (issues, _) = check_device(&volume.build().device);
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
