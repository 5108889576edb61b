// SPDX-License-Identifier: GPL-2.0-only
//! Byte goldens: what each structure reads from the bytes 1, 2, 3, ... and that it writes the same bytes back.

use std::fmt::Write;

use scoutfs_format::*;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The bytes 1, 2, 3, ..., 255, 0, 1, ...
fn pattern(len: usize) -> Vec<u8> {
    (1..=len).map(|i| i as u8).collect()
}

fn read_and_write<T: FromBytes + IntoBytes + Immutable + std::fmt::Debug>(out: &mut String) {
    let bytes = pattern(size_of::<T>());
    let value = T::read_from_bytes(&bytes).unwrap();
    assert_eq!(value.as_bytes(), bytes, "{value:?}");
    writeln!(out, "{value:#x?}").unwrap();
}

#[test]
fn every_structure_reads_its_bytes_as_reviewed() {
    let mut now = String::new();
    let mut count = 0;
    macro_rules! structures {
        ($($name:path),* $(,)?) => {$(
            read_and_write::<$name>(&mut now);
            count += 1;
        )*};
    }
    structures!(
        key::RawKey,
        geometry::RawGeometry,
        block::BlockHeader,
        block::BlockRef,
        tree::TreeRoot,
        tree::NodeHeader,
        tree::ItemHeader,
        space::SpaceEntry,
        space::SpaceListHeader,
        space::SpaceListRef,
        ring::FrameHeader,
        ring::RecordHeader,
        ring::LogTree,
        ring::InlineItem,
        voter::Address,
        voter::ProcessId,
        voter::QuorumBlock,
        voter::SuperId,
        voter::LeaderId,
        voter::TakeOver,
        voter::SuperBlock,
        item::Time,
        item::InodeItem,
        item::DirentHeader,
        item::ReaddirHeader,
        item::BackrefItem,
        item::XattrHeader,
        item::ExtentItem,
        acl::AclEntry,
        server_item::MemberItem,
        server_item::FreeItem,
        server_item::HandOverExtent,
        server_item::MergeItem,
        server_item::QuarantineItem,
        msg::MessageHeader,
        msg::Greeting,
        msg::Challenge,
        msg::Proof,
        msg::Recovered,
        msg::JoinRequest,
        msg::JoinReply,
        msg::SeqRequest,
        msg::SeqReply,
        msg::SeqClosed,
        msg::InosReply,
        msg::SpaceRequest,
        msg::SpaceRecall,
        msg::SpaceRecalled,
        msg::FreeBlocks,
        msg::Renewal,
        msg::HandOverHeader,
        msg::HandOverTaken,
        msg::LockId,
        msg::LockMessage,
        msg::OpenInodes,
        msg::OpensReport,
        msg::FileLock,
        msg::FileLockRequest,
        msg::FileLockReply,
        msg::CommitNumber,
        msg::HorizonReply,
        msg::CommitBelow,
        msg::MergedLogs,
        msg::StatfsReply,
        msg::Death,
        msg::ConfirmDeath,
        msg::DeathConfirmed,
        msg::Fences,
        msg::RenewReply,
        ioctl::WalkInodesEntry,
        ioctl::WalkInodes,
        ioctl::ListxattrHidden,
        ioctl::SearchXattrs,
        ioctl::StatMore,
        ioctl::StatfsMore,
        ioctl::AllocDetail,
        ioctl::AllocDetailEntry,
        ioctl::InoPath,
        ioctl::InoPathResult,
        ioctl::GetAllocatedInos,
        ioctl::GetReferringEntries,
        ioctl::Dirent,
        ioctl::AttrX,
        ioctl::Fiemap,
        ioctl::FiemapExtent,
        ioctl::GetCounters,
        ioctl::CounterEntry,
    );
    assert_eq!(count, LAYOUTS.len(), "a structure has no byte golden");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/bytes.txt");
    if std::env::var_os("SCOUTFS_BLESS").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        now, golden,
        "run this test with SCOUTFS_BLESS=1 if the change is meant, and review bytes.txt"
    );
}
