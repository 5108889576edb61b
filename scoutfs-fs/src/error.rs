// SPDX-License-Identifier: GPL-2.0-only
//! What an operation can fail with, and the errno of each.

use scoutfs_env::AllocError;

/// Why an operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such entry or inode (ENOENT).
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken (EEXIST).
    #[error("file exists")]
    Exists,
    /// Not a directory (ENOTDIR).
    #[error("not a directory")]
    NotDirectory,
    /// A directory (EISDIR).
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries (ENOTEMPTY).
    #[error("directory not empty")]
    NotEmpty,
    /// A name or path is too long (ENAMETOOLONG).
    #[error("name too long")]
    NameTooLong,
    /// An argument makes no sense (EINVAL).
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// The inode has too many links (EMLINK).
    #[error("too many links")]
    TooManyLinks,
    /// Beyond the largest file (EFBIG).
    #[error("file too large")]
    FileTooBig,
    /// No such extended attribute (ENODATA).
    #[error("no such attribute")]
    NoAttribute,
    /// The buffer is too small for the result (ERANGE).
    #[error("result does not fit")]
    Range,
    /// A value is too large (E2BIG).
    #[error("value too large")]
    TooBig,
    /// Not offered (EOPNOTSUPP).
    #[error("operation not supported")]
    NotSupported,
    /// The permissions do not allow it (EACCES).
    #[error("permission denied")]
    AccessDenied,
    /// Flags that are not understood (EBADR).
    #[error("unknown flags")]
    UnknownFlags,
    /// Memory of the caller cannot be read or written (EFAULT).
    #[error("bad address")]
    Fault,
    /// The file is not open for that (EBADF).
    #[error("the file is not open for this")]
    NotOpened,
    /// Not an ioctl of this filesystem (ENOTTY).
    #[error("no such ioctl")]
    UnknownIoctl,
    /// More results than there is room for (EOVERFLOW).
    #[error("too little room for the results")]
    Overflow,
    /// Not permitted (EPERM).
    #[error("operation not permitted")]
    NotPermitted,
    /// No device or address behind a seek (ENXIO).
    #[error("no data or hole there")]
    NoSuchOffset,
    /// The inode behind a handle is gone (ESTALE).
    #[error("stale handle")]
    StaleHandle,
    /// Out of space (ENOSPC).
    #[error("no space left on the volume")]
    NoSpace,
    /// The volume is so full that the mount could not delete (ENOSPC).
    #[error(
        "the volume is full: no space is left that another mount needs to be able to delete; delete something on a mount that is there; \
         space of fenced mounts (see: scoutfs status, scoutfs confirm-death) comes back when they are known to be dead"
    )]
    NoReserve,
    /// Out of memory (ENOMEM).
    #[error("out of memory")]
    NoMemory,
    /// The mount is read-only (EROFS).
    #[error("read-only mount")]
    ReadOnly,
    /// A waiting operation was interrupted (EINTR).
    #[error("interrupted")]
    Interrupted,
    /// Another lock is in the way (EAGAIN).
    #[error("locked by another")]
    Locked,
    /// Processes would wait for each other (EDEADLK).
    #[error("waiting for this lock would never end")]
    Deadlock,
    /// The mount has as many locks on files as it can have (ENOLCK).
    #[error("too many locks on files")]
    TooManyLocks,
    /// The mount has shut down after a failure that it cannot mend (EIO).
    #[error("the mount has shut down: {0}")]
    Shutdown(&'static str),
    /// An error of the device (EIO).
    #[error("{0}")]
    Io(scoutfs_env::device::IoError),
    /// Damaged blocks or trees (EIO).
    #[error("{0}")]
    Tree(scoutfs_btree::error::Error),
    /// The super block, a slot or the server's items are damaged, or of another format (EIO).
    #[error("{0}")]
    Volume(scoutfs_server::ServerError),
    /// An inode's items contradict each other (EIO).
    #[error("inode {ino}: {what}")]
    Corrupt {
        /// Which inode.
        ino: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// There is no server to join, and this node may not run one (ENOTCONN).
    #[error("no server: this mount needs the option server_addr=IP, so that this node may run the server")]
    NoServer,
    /// The network does not do what the mount needs (its errno).
    #[error("{address}: {why}")]
    Network {
        /// This node's address, or the other's.
        address: core::net::SocketAddr,
        /// What went wrong.
        why: scoutfs_env::net::NetError,
    },
    /// Other mounts have the volume, and joining them is not possible (EBUSY).
    #[error(
        "the volume is in use by the mount {rid:016x}, at {}; several mounts of one volume are not possible yet",
        crate::node::shown(address)
    )]
    InUse {
        /// The mount that leads, or that has a voter slot.
        rid: u64,
        /// Where its server listens.
        address: Option<core::net::SocketAddr>,
    },
    /// Too few voter slots can be read for an election (EIO).
    #[error(
        "only {readable} of {slots} voter slots can be read, {needed} are needed: the quorum blocks of the others are damaged"
    )]
    Voters {
        /// Slots of which a quorum block can be read.
        readable: usize,
        /// How many are needed.
        needed: usize,
        /// How many there are.
        slots: usize,
    },
    /// The device does nothing but fail during an election (EIO).
    #[error("cannot read or write the voter slots: {0}")]
    Election(scoutfs_env::device::IoError),
    /// Data that a program had written were lost since it was told so.
    #[error("data that were written are lost: errno {errno}")]
    LostWrite {
        /// Why.
        errno: i32,
    },
    /// The server refused (EIO).
    #[error("the server answered with status {0}")]
    Server(u16),
}

/// The result of an operation.
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    /// Whether it says that what was read from the device is damaged.
    pub fn is_damage(&self) -> bool {
        use scoutfs_btree::error::Error as Tree;
        matches!(
            self,
            Error::Tree(Tree::Stale { .. } | Tree::Corrupt(_) | Tree::Ring(_))
                | Error::Volume(_)
                | Error::Corrupt { .. }
        )
    }

    /// The errno of Linux that says this to a program.
    pub fn errno(&self) -> i32 {
        match self {
            Error::NotPermitted => 1,
            Error::NotFound => 2,
            Error::Interrupted => 4,
            Error::Shutdown(_)
            | Error::Io(_)
            | Error::Tree(_)
            | Error::Volume(_)
            | Error::Corrupt { .. }
            | Error::Voters { .. }
            | Error::Election(_)
            | Error::Server(_) => 5,
            Error::NoSuchOffset => 6,
            Error::TooBig => 7,
            Error::NotOpened => 9,
            Error::Locked => 11,
            Error::NoMemory => 12,
            Error::AccessDenied => 13,
            Error::Fault => 14,
            Error::InUse { .. } => 16,
            Error::Exists => 17,
            Error::NotDirectory => 20,
            Error::IsDirectory => 21,
            Error::Invalid(_) => 22,
            Error::UnknownIoctl => 25,
            Error::FileTooBig => 27,
            Error::NoSpace | Error::NoReserve => 28,
            Error::ReadOnly => 30,
            Error::TooManyLinks => 31,
            Error::Range => 34,
            Error::Deadlock => 35,
            Error::NameTooLong => 36,
            Error::TooManyLocks => 37,
            Error::NotEmpty => 39,
            Error::UnknownFlags => 53,
            Error::NoAttribute => 61,
            Error::Overflow => 75,
            Error::NotSupported => 95,
            Error::NoServer => 107,
            Error::Network { why, .. } => why.errno,
            Error::LostWrite { errno } => *errno,
            Error::StaleHandle => 116,
        }
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        Error::NoMemory
    }
}

impl From<scoutfs_env::device::IoError> for Error {
    fn from(e: scoutfs_env::device::IoError) -> Self {
        Error::Io(e)
    }
}

impl From<scoutfs_btree::error::Error> for Error {
    fn from(e: scoutfs_btree::error::Error) -> Self {
        use scoutfs_btree::error::Error as Tree;
        match e {
            Tree::NoMemory => Error::NoMemory,
            Tree::NoSpace => Error::NoSpace,
            Tree::Io(e) => Error::Io(e),
            other => Error::Tree(other),
        }
    }
}

impl From<scoutfs_item::ItemError> for Error {
    fn from(e: scoutfs_item::ItemError) -> Self {
        use scoutfs_item::ItemError as Item;
        match e {
            Item::Exists => Error::Exists,
            Item::NotFound => Error::NotFound,
            Item::NoMemory => Error::NoMemory,
            Item::Tree(e) => e.into(),
            _ => Error::Shutdown("the item cache found a broken invariant"),
        }
    }
}
