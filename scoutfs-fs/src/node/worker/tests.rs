// SPDX-License-Identifier: GPL-2.0-only
//! What the answers to messages that nobody waits for mean.

use scoutfs_env::Vec;
use scoutfs_format::msg::{MSG_LOCK_REPORT, MSG_RECOVERED, STATUS_NOT_MEMBER, STATUS_OK};

use super::super::client::{Order, OrderOf};
use super::dispatch;
use crate::error::Error;
use crate::fs::testing::TestFs;

fn answered(fs: &TestFs, kind: u8, status: u16) -> Result<(), Error> {
    dispatch(fs.store(), &mut Some(Order { kind, of: OrderOf::Answer(status), payload: Vec::new() }))
}

/// A mount that joins says what it has as soon as it has asked to join. A server that has put off the one, since it
/// takes back what others have left on a full volume, does not know who says the other; the mount joins a moment later.
#[test]
fn who_was_told_to_join_later_is_no_member_yet_and_goes_on() {
    let fs = TestFs::new();
    answered(&fs, MSG_RECOVERED, STATUS_NOT_MEMBER).unwrap();
    answered(&fs, MSG_RECOVERED, STATUS_OK).unwrap();
}

/// A report of a mount that was a member is refused only when it is one no more.
#[test]
fn a_report_that_is_refused_ends_the_mount() {
    let fs = TestFs::new();
    assert!(matches!(
        answered(&fs, MSG_LOCK_REPORT, STATUS_NOT_MEMBER),
        Err(Error::Server(STATUS_NOT_MEMBER))
    ));
}
