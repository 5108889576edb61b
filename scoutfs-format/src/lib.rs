// SPDX-License-Identifier: GPL-2.0-only
//! Every byte of scoutfs that is on disk, on the wire or in an ioctl.
//!
//! Nothing else in the project defines layout. The crate has no state, takes no locks, does no IO and never
//! allocates.
//!
//! | module | what |
//! | --- | --- |
//! | [`layout`] | descriptions of structures, from which the format hash is made |
//! | [`key`] | the key of an item: one ordered key space for all metadata |
//! | [`geometry`] | where the regions of a volume are |
//! | [`block`] | header of and reference to a 64 KiB metadata block |
//! | [`tree`] | nodes of the copy-on-write btree |
//! | [`space`] | extents of free space and lists of them |
//! | [`ring`] | a mount's slot: the ring of commit records |
//! | [`voter`] | quorum blocks and super blocks |
//! | [`item`] | values of the filesystem's items |
//! | [`acl`] | access control lists |
//! | [`server_item`] | values of the server's items |
//! | [`msg`] | messages between mounts and the server |
//! | [`ioctl`] | ioctl numbers and structures |
//!
//! What must hold: all integers are little endian; structures have no implicit padding and no alignment of
//! their own; bytes that come from outside are parsed into these types with `zerocopy` and then checked by
//! whoever reads them (a `Raw` byte slice is not a valid structure).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod acl;
pub mod block;
pub mod geometry;
pub mod ioctl;
pub mod item;
pub mod key;
pub mod layout;
pub mod msg;
pub mod ring;
pub mod server_item;
pub mod space;
pub mod tree;
pub mod voter;

pub use block::{BLOCK_SIZE, BlockHeader, BlockRef, SECTOR_SIZE};
pub use key::Key;

use layout::{Constant, Described, Fnv, Layout};

/// Little-endian integers without alignment.
pub mod le {
    pub use zerocopy::little_endian::{I64, U16, U32, U64};
}

/// Bumped by hand when the meaning of the format changes in a way that no structure shows.
pub const MEANING: u64 = 1;

/// Version of the format for people; the hash decides.
pub const FORMAT_VERSION: u32 = 1;

/// All described structures, in the order in which they enter the hash.
pub const LAYOUTS: &[Layout] = &[
    key::RawKey::LAYOUT,
    geometry::RawGeometry::LAYOUT,
    block::BlockHeader::LAYOUT,
    block::BlockRef::LAYOUT,
    tree::TreeRoot::LAYOUT,
    tree::NodeHeader::LAYOUT,
    tree::ItemHeader::LAYOUT,
    space::SpaceEntry::LAYOUT,
    space::SpaceListHeader::LAYOUT,
    space::SpaceListRef::LAYOUT,
    ring::FrameHeader::LAYOUT,
    ring::RecordHeader::LAYOUT,
    ring::LogTree::LAYOUT,
    ring::InlineItem::LAYOUT,
    voter::Address::LAYOUT,
    voter::ProcessId::LAYOUT,
    voter::QuorumBlock::LAYOUT,
    voter::SuperId::LAYOUT,
    voter::LeaderId::LAYOUT,
    voter::TakeOver::LAYOUT,
    voter::SuperBlock::LAYOUT,
    item::Time::LAYOUT,
    item::InodeItem::LAYOUT,
    item::DirentHeader::LAYOUT,
    item::ReaddirHeader::LAYOUT,
    item::BackrefItem::LAYOUT,
    item::XattrHeader::LAYOUT,
    item::ExtentItem::LAYOUT,
    acl::AclEntry::LAYOUT,
    server_item::MemberItem::LAYOUT,
    server_item::FreeItem::LAYOUT,
    server_item::HandOverExtent::LAYOUT,
    server_item::MergeItem::LAYOUT,
    server_item::QuarantineItem::LAYOUT,
    msg::MessageHeader::LAYOUT,
    msg::Greeting::LAYOUT,
    msg::Challenge::LAYOUT,
    msg::Proof::LAYOUT,
    msg::Recovered::LAYOUT,
    msg::JoinRequest::LAYOUT,
    msg::JoinReply::LAYOUT,
    msg::SeqRequest::LAYOUT,
    msg::SeqReply::LAYOUT,
    msg::SeqClosed::LAYOUT,
    msg::InosReply::LAYOUT,
    msg::SpaceRequest::LAYOUT,
    msg::SpaceRecall::LAYOUT,
    msg::SpaceRecalled::LAYOUT,
    msg::FreeBlocks::LAYOUT,
    msg::Renewal::LAYOUT,
    msg::HandOverHeader::LAYOUT,
    msg::HandOverTaken::LAYOUT,
    msg::LockId::LAYOUT,
    msg::LockMessage::LAYOUT,
    msg::OpenInodes::LAYOUT,
    msg::OpensReport::LAYOUT,
    msg::FileLock::LAYOUT,
    msg::FileLockRequest::LAYOUT,
    msg::FileLockReply::LAYOUT,
    msg::CommitNumber::LAYOUT,
    msg::HorizonReply::LAYOUT,
    msg::CommitBelow::LAYOUT,
    msg::MergedLogs::LAYOUT,
    msg::StatfsReply::LAYOUT,
    msg::Death::LAYOUT,
    msg::ConfirmDeath::LAYOUT,
    msg::DeathConfirmed::LAYOUT,
    msg::Fences::LAYOUT,
    msg::RenewReply::LAYOUT,
    ioctl::WalkInodesEntry::LAYOUT,
    ioctl::WalkInodes::LAYOUT,
    ioctl::ListxattrHidden::LAYOUT,
    ioctl::SearchXattrs::LAYOUT,
    ioctl::StatMore::LAYOUT,
    ioctl::StatfsMore::LAYOUT,
    ioctl::AllocDetail::LAYOUT,
    ioctl::AllocDetailEntry::LAYOUT,
    ioctl::InoPath::LAYOUT,
    ioctl::InoPathResult::LAYOUT,
    ioctl::GetAllocatedInos::LAYOUT,
    ioctl::GetReferringEntries::LAYOUT,
    ioctl::Dirent::LAYOUT,
    ioctl::AttrX::LAYOUT,
    ioctl::Fiemap::LAYOUT,
    ioctl::FiemapExtent::LAYOUT,
    ioctl::GetCounters::LAYOUT,
    ioctl::CounterEntry::LAYOUT,
];

/// All constants that enter the hash.
pub const CONSTANTS: &[&[Constant]] = &[
    key::KEY_CONSTANTS,
    geometry::GEOMETRY_CONSTANTS,
    block::BLOCK_CONSTANTS,
    tree::TREE_CONSTANTS,
    space::SPACE_CONSTANTS,
    ring::RING_CONSTANTS,
    voter::VOTER_CONSTANTS,
    item::ITEM_CONSTANTS,
    acl::ACL_CONSTANTS,
    server_item::SERVER_ITEM_CONSTANTS,
    msg::MSG_CONSTANTS,
    ioctl::IOCTL_CONSTANTS,
];

const fn format_hash() -> u64 {
    let mut hash = Fnv::new().number(MEANING);
    let mut i = 0;
    while i < LAYOUTS.len() {
        hash = hash.layout(&LAYOUTS[i]);
        i += 1;
    }
    let mut i = 0;
    while i < CONSTANTS.len() {
        hash = hash.constants(CONSTANTS[i]);
        i += 1;
    }
    hash.0
}

/// The hash of the format that this binary speaks: stored in every super block and sent in every greeting.
pub const FORMAT_HASH: u64 = format_hash();
