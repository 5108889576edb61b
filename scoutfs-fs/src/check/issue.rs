// SPDX-License-Identifier: GPL-2.0-only
//! What can be wrong with a volume, and where.

use core::fmt;

use scoutfs_btree::Error as TreeError;
use scoutfs_btree::space::{SpaceError, SpaceKind};
use scoutfs_env::device::IoError;
use scoutfs_format::{BlockRef, Key};
use scoutfs_server::error::SlotProblem;
use scoutfs_server::super_block::SuperError;

use super::owners::Owner;
use crate::acl::AclError;

/// A tree of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeId {
    /// The merged tree.
    Fs,
    /// The server's own items.
    Server,
    /// A mount's log tree.
    Log {
        /// The mount's slot.
        slot: u32,
        /// Its number in the slot.
        nr: u64,
    },
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TreeId::Fs => f.write_str("fs tree"),
            TreeId::Server => f.write_str("server tree"),
            TreeId::Log { slot, nr } => write!(f, "log tree {nr} of mount slot {slot}"),
        }
    }
}

/// Where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The volume as a whole.
    Volume,
    /// A copy of the super block.
    Super {
        /// Voter slot.
        voter: u32,
        /// Which of its two copies.
        copy: u32,
    },
    /// A quorum block.
    Quorum {
        /// Voter slot.
        voter: u32,
        /// Which of its two blocks.
        copy: u32,
    },
    /// A mount slot: its ring and what that says.
    Slot {
        /// Which slot.
        slot: u32,
    },
    /// The list of the server's working set.
    WorkList,
    /// A node of a tree, which covers a range of keys.
    Node {
        /// The tree.
        tree: TreeId,
        /// The block.
        block: BlockRef,
        /// First key that it covers.
        first: Key,
        /// Last key that it covers.
        last: Key,
    },
    /// A whole tree.
    Tree {
        /// The tree.
        tree: TreeId,
    },
    /// An item of one tree, or of the records of its slot.
    TreeItem {
        /// The tree.
        tree: TreeId,
        /// Its key.
        key: Key,
    },
    /// An item of the filesystem, as a mount reads it.
    Item {
        /// Its key.
        key: Key,
    },
    /// All of an inode.
    Inode {
        /// Its number.
        ino: u64,
    },
    /// A run of blocks.
    Blocks {
        /// What the unit is: 64 KiB for metadata, 4 KiB for data.
        kind: SpaceKind,
        /// First block.
        start: u64,
        /// Blocks.
        len: u64,
    },
    /// A zone.
    Zone {
        /// Its number.
        zone: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Volume => f.write_str("volume"),
            Place::Super { voter, copy } => write!(f, "super block copy {copy} of voter {voter}"),
            Place::Quorum { voter, copy } => write!(f, "quorum block {copy} of voter {voter}"),
            Place::Slot { slot } => write!(f, "mount slot {slot}"),
            Place::WorkList => f.write_str("list of the working set"),
            Place::Node { tree, block, first, last } => {
                write!(f, "{tree}, node in block {} for keys {first} to {last}", block.blkno)
            }
            Place::Tree { tree } => tree.fmt(f),
            Place::TreeItem { tree, key } => write!(f, "{tree}, item {key}"),
            Place::Item { key } => write!(f, "item {key}"),
            Place::Inode { ino } => write!(f, "inode {ino}"),
            Place::Blocks { kind, start, len } => write!(f, "{kind} blocks {start} + {len}"),
            Place::Zone { zone } => write!(f, "zone {zone}"),
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// What is wrong.
    pub kind: IssueKind,
    /// Where.
    pub place: Place,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.kind)
    }
}

/// Defines [`IssueKind`] with the name of each variant.
macro_rules! issue_kinds {
    ($( $(#[doc = $doc:literal])* #[error($($text:tt)*)] $name:ident $({ $($field:ident: $ty:ty),* $(,)? })? )*) => {
        /// An invariant that does not hold, with its numbers.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        // The names of the fields say what they are.
        #[allow(missing_docs)]
        pub enum IssueKind {
            $( $(#[doc = $doc])* #[error($($text)*)] $name $({ $($field: $ty),* })? ),*
        }

        impl IssueKind {
            /// The names of all invariants.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// The name of the invariant, for programs.
            pub fn name(&self) -> &'static str {
                match self {
                    $( IssueKind::$name { .. } => stringify!($name) ),*
                }
            }

            /// Its numbers, each with its name.
            pub fn for_each_field(&self, each: &mut dyn FnMut(&'static str, &dyn fmt::Display)) {
                match self {
                    $( IssueKind::$name $({ $($field),* })? => { $( $( each(stringify!($field), $field); )* )? } ),*
                }
            }
        }
    };
}

issue_kinds! {
    // Super blocks and quorum blocks.

    /// A copy is damaged, and it is not the one that a torn write may have left.
    #[error("{error}")]
    SuperCopy { error: SuperError }
    /// A valid copy that belongs to another volume, or has another geometry or secret.
    #[error("its {field} is not that of the newest super block")]
    SuperDiffers { field: &'static str }
    /// Two copies claim to be the same state and differ.
    #[error("term {term}, seq {seq} as in the newest super block, but other content")]
    SuperTie { term: u64, seq: u64 }
    /// Both quorum blocks of a voter are damaged.
    #[error("its checksum is {stored:#010x}, its bytes give {computed:#010x}")]
    QuorumChecksum { stored: u32, computed: u32 }
    /// A quorum block that is not this voter's.
    #[error("it says that it is quorum block (magic {magic:#010x}) of voter {voter} of the volume {fsid:016x}")]
    QuorumIdentity { magic: u32, fsid: u64, voter: u32 }
    /// A quorum block in an unknown state.
    #[error("unknown state {state}")]
    QuorumState { state: u32 }
    /// Votes or wins in terms that were never seen.
    #[error("it has seen term {term}, but voted in {vote_term} and won {leader_term}")]
    QuorumTerms { term: u64, vote_term: u64, leader_term: u64 }

    // Mount slots.

    /// The ring of a member is damaged.
    #[error("{problem}")]
    Slot { problem: SlotProblem }
    /// The device cannot read it.
    #[error("{error}")]
    Io { error: IoError }
    /// What the mount wrote down of its space contradicts itself.
    #[error("its space: {error}")]
    SlotSpace { error: SpaceError }
    /// It names a hand-over as taken that was never given.
    #[error("hand-overs up to {taken} are taken, but only those up to {given} were given")]
    TakenNotGiven { taken: u64, given: u64 }
    /// The server took a hand-over that the mount never gave.
    #[error("the server took hand-overs up to {taken}, but only those up to {given} were given")]
    ServerTookNotGiven { taken: u64, given: u64 }

    // Trees and lists.

    /// A node cannot be read or is not sound; what is below it was not seen.
    #[error("{error}")]
    Node { error: TreeError }
    /// A list of space cannot be read.
    #[error("{error}")]
    List { error: TreeError }
    /// An item's version is one that was never given out.
    #[error("its version is {version}, but none at or above {bound} was given out")]
    VersionNotGivenOut { version: u64, bound: u64 }
    /// An item's version is not among those that its log tree promises.
    #[error("its version is {version}, but its log tree promises {min} to {max}")]
    VersionOutsideLog { version: u64, min: u64, max: u64 }
    /// No item has a key like this.
    #[error("no item of this tree can have this key")]
    UnknownKey
    /// A value of a wrong length.
    #[error("its value has {found} bytes, expected {expected}")]
    ValueLength { expected: usize, found: usize }
    /// The super block counts other deletions than the fs tree has.
    #[error("it has {found} deletions, the super block counts {counted}")]
    TombstoneCount { counted: u64, found: u64 }

    // Owners of blocks.

    /// A block with two owners.
    #[error("owned by {first} and by {second}")]
    OwnedTwice { first: Owner, second: Owner }
    /// A block that is not in the zones, or no run of blocks at all.
    #[error("owned by {owner}, but not in the zones")]
    OutsideZones { owner: Owner }
    /// A block that nobody owns and that is therefore lost.
    #[error("owned by nobody")]
    NoOwner
    /// Metadata and data in one zone.
    #[error("it holds metadata and data")]
    ZoneOfTwoKinds
    /// The super block counts other zones that hold metadata.
    #[error("{found} zones hold metadata, the super block counts {counted}")]
    MetaZoneCount { counted: u64, found: u64 }
    /// Blocks that a leader took over, by the super block, that the server did not have: both in 4 KiB.
    #[error("leaders took {taken} blocks of 4 KiB over, of which the server's tree has {free} as free")]
    TakenOver { taken: u64, free: u64 }

    // The server's items.

    /// A member in a slot that is not there or in an unknown state.
    #[error("no member of slot {slot} can have state {state}")]
    Member { slot: u64, state: u32 }
    /// Space of an unknown kind.
    #[error("unknown kind of space {kind}")]
    UnknownSpaceKind { kind: u64 }
    /// A hand-over that was not given, or was forgotten.
    #[error("hand-over {number} is not one of those after {forgotten} up to {given}")]
    HandOverNumber { number: u64, forgotten: u64, given: u64 }
    /// An entry of the working set that is no free metadata block.
    #[error("entry at {start} + {len} of kind {kind}, state {state}")]
    WorkEntry { start: u64, len: u32, kind: u8, state: u8 }

    // Inodes.

    /// There is no root directory.
    #[error("there is no root directory")]
    NoRoot
    /// Items of an inode that does not exist.
    #[error("it has items, but no inode item")]
    NoInode
    /// An inode number that was never given out.
    #[error("no number at or above {bound} was given out")]
    InoNotGivenOut { bound: u64 }
    /// Not a type of file.
    #[error("mode {mode:#o} has no known file type")]
    Mode { mode: u32 }
    /// Unknown flags.
    #[error("unknown flags {flags:#x}")]
    InodeFlags { flags: u32 }
    /// Larger than the largest file.
    #[error("a size of {size} bytes is larger than any file's")]
    Size { size: u64 }
    /// A time of a second or more of nanoseconds.
    #[error("a time has {nsec} nanoseconds")]
    Nanoseconds { nsec: u32 }
    /// A seq that is above the version of the write that stored it.
    #[error("its meta seq {meta_seq} or data seq {data_seq} is above the version {version} of its item")]
    SeqAboveVersion { meta_seq: u64, data_seq: u64, version: u64 }
    /// Data of what has no data.
    #[error("data seq {data_seq} or blocks, but it is no regular file")]
    DataNotRegular { data_seq: u64 }
    /// The change index lacks the inode.
    #[error("index {index} has no entry for its seq {seq}")]
    NoIndexEntry { index: u8, seq: u64 }
    /// An entry of the change index for a seq that its inode does not have.
    #[error("the entry is for seq {seq}, the inode's is {found}")]
    IndexSeq { seq: u64, found: u64 }
    /// An entry of the change index for an inode that does not exist.
    #[error("the entry is for seq {seq} of an inode that does not exist")]
    IndexWithoutInode { seq: u64 }
    /// No links, but no orphan item.
    #[error("it has no links and no orphan item")]
    NoOrphanItem
    /// An orphan item of an inode that has links.
    #[error("an orphan with {nlink} links")]
    OrphanHasLinks { nlink: u32 }
    /// An orphan item without its inode.
    #[error("an orphan without its inode")]
    OrphanWithoutInode
    /// The link count is not the number of entries (or subdirectories).
    #[error("its link count is {nlink}, but there are {found} links to it")]
    LinkCount { nlink: u32, found: u64 }
    /// The online or offline blocks are not those of the extents.
    #[error("it counts {online} blocks here and {offline} in the archive, its extents have {found_online} and {found_offline}")]
    BlockCounts { online: u64, offline: u64, found_online: u64, found_offline: u64 }
    /// The number of inodes is not that of the super block and the mounts' records.
    #[error("there are {found} inodes, super block and records count {counted}")]
    InodeCount { counted: i64, found: u64 }

    // Directories.

    /// The size is not the sum of the names' lengths.
    #[error("the directory's size is {size}, its names have {found} bytes")]
    DirSize { size: u64, found: u64 }
    /// A directory without links that has entries.
    #[error("a directory without links has {entries} entries")]
    OrphanNotEmpty { entries: u64 }
    /// Entries of what is no directory.
    #[error("it has entries, but is no directory")]
    NotDirectory
    /// A directory is named by one entry, the root by none.
    #[error("a directory that {found} entries name")]
    DirEntries { found: u64 }
    /// The parent is not the directory that has the entry.
    #[error("its parent is {parent}, but its entry is in {found}")]
    Parent { parent: u64, found: u64 }
    /// The parent does not exist or is no directory.
    #[error("its parent {parent} is no directory")]
    ParentNotDirectory { parent: u64 }
    /// Directories that are each other's parents, and cannot be reached.
    #[error("a loop of directories that cannot be reached, by way of {through}")]
    DirLoop { through: u64 }
    /// A name that is empty, too long, or has characters that no name has.
    #[error("a name of {len} bytes that no entry can have")]
    Name { len: usize }
    /// The hash in the key or value is not the name's.
    #[error("the hash is {stored:016x}, the name's is {computed:016x}")]
    NameHash { stored: u64, computed: u64 }
    /// A position that was never given out.
    #[error("position {pos}, but the next one is {next}")]
    Position { pos: u64, next: u64 }
    /// An unknown file type.
    #[error("unknown file type {file_type}")]
    FileType { file_type: u8 }
    /// The type in the entry is not the inode's.
    #[error("file type {file_type}, but the mode of inode {ino} is {mode:#o}")]
    EntryType { ino: u64, file_type: u8, mode: u32 }
    /// Two entries of one name.
    #[error("the entry at position {other} has the same name")]
    DuplicateName { other: u64 }
    /// An entry by name without the one by position.
    #[error("no entry by position goes with it")]
    NoReaddir
    /// An entry by position that says something else than the one by name.
    #[error("the entry by position says something else")]
    ReaddirDiffers
    /// An entry without the back reference.
    #[error("inode {ino} does not exist, or has no back reference to it")]
    NoBackref { ino: u64 }
    /// An entry by position without the one by name.
    #[error("no entry by name goes with it")]
    NoDirent
    /// A back reference to no entry, or to one that names another inode.
    #[error("directory {dir} has no such entry for it")]
    BackrefNoDirent { dir: u64 }

    // Symbolic links, extended attributes, extents.

    /// A symbolic link without target.
    #[error("a symbolic link without target")]
    NoSymlink
    /// A target of what is no symbolic link.
    #[error("it has a target, but is no symbolic link")]
    NotSymlink
    /// A target of a wrong length.
    #[error("a target of {found} bytes, the size is {size}")]
    SymlinkLength { size: u64, found: usize }
    /// Lengths in the header that cannot be.
    #[error("an attribute with a name of {name_len} and a value of {val_len} bytes, of which the first part has {found}")]
    XattrHeader { name_len: u8, val_len: u32, found: usize }
    /// Not the part that comes next.
    #[error("part {found} of an attribute where {expected} of {parts} is due")]
    XattrPart { expected: u8, parts: u8, found: u8 }
    /// The last part is missing.
    #[error("the attribute ends after {found} of {parts} parts")]
    XattrIncomplete { parts: u8, found: u8 }
    /// An id that was never given out.
    #[error("id {id}, but the next one is {next}")]
    XattrId { id: u64, next: u64 }
    /// Two attributes of one name.
    #[error("the attribute with id {other} has the same name")]
    DuplicateXattr { other: u64 }
    /// A name that no attribute can have.
    #[error("an attribute with a name of {name_len} bytes that none can have")]
    XattrName { name_len: u8 }
    /// An attribute that should be in the search index and is not.
    #[error("the search index has no entry for the attribute with id {id}")]
    NoSearchEntry { id: u64 }
    /// An entry of the search index without an attribute that should have one.
    #[error("inode {ino} has no attribute with id {id}, this name's hash and a tag for the index")]
    SearchNoXattr { ino: u64, id: u64 }
    /// An access control list that is none.
    #[error("no access control list: {error}")]
    Acl { error: AclError }
    /// An access list that does not go together with the mode.
    #[error("the access control list permits {permits:#o}, but the mode is {mode:#o}")]
    AclMode { mode: u32, permits: u32 }
    /// An access list that says no more than the mode.
    #[error("the access control list says no more than the mode")]
    AclMinimal
    /// A list of what has none of its kind.
    #[error("nothing of mode {mode:#o} has a list of this kind")]
    AclFileType { mode: u32 }
    /// A length that does not go with the last block.
    #[error("an extent of {len} blocks that ends at block {last}")]
    ExtentLength { last: u64, len: u64 }
    /// Unknown flags, or flags that do not go with the blocks.
    #[error("an extent with flags {flags:#x} at data block {blkno}")]
    ExtentFlags { flags: u8, blkno: u64 }
    /// An extent that begins before the one before it ends.
    #[error("an extent that begins at block {first}, but the one before ends at {previous_end}")]
    ExtentOverlap { first: u64, previous_end: u64 }
}
