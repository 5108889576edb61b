// SPDX-License-Identifier: GPL-2.0-only
//! Types of files, in a mode and in a directory entry.

use scoutfs_format::item::{FT_BLK, FT_CHR, FT_DIR, FT_FIFO, FT_LNK, FT_REG, FT_SOCK};

/// The type's bits of a mode.
pub const S_IFMT: u32 = 0o170000;
/// Set-user-ID of a mode.
pub const S_ISUID: u32 = 0o4000;
/// The group may run the file.
pub const S_IXGRP: u32 = 0o010;
/// Set-group-ID of a mode; on a directory, new entries inherit its group.
pub const S_ISGID: u32 = 0o2000;
/// The bits of a mode that `chmod` changes.
pub const MODE_BITS: u32 = 0o7777;

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// FIFO.
    Fifo,
    /// Character device.
    CharDevice,
    /// Directory.
    Directory,
    /// Block device.
    BlockDevice,
    /// Regular file.
    Regular,
    /// Symbolic link.
    Symlink,
    /// Socket.
    Socket,
}

impl FileType {
    /// The type in a mode, if it is one.
    pub fn of_mode(mode: u32) -> Option<FileType> {
        Some(match mode & S_IFMT {
            0o010000 => FileType::Fifo,
            0o020000 => FileType::CharDevice,
            0o040000 => FileType::Directory,
            0o060000 => FileType::BlockDevice,
            0o100000 => FileType::Regular,
            0o120000 => FileType::Symlink,
            0o140000 => FileType::Socket,
            _ => return None,
        })
    }

    /// Its bits in a mode.
    pub fn mode(self) -> u32 {
        match self {
            FileType::Fifo => 0o010000,
            FileType::CharDevice => 0o020000,
            FileType::Directory => 0o040000,
            FileType::BlockDevice => 0o060000,
            FileType::Regular => 0o100000,
            FileType::Symlink => 0o120000,
            FileType::Socket => 0o140000,
        }
    }

    /// The type that a directory entry stores, if it is one.
    pub fn of_stored(stored: u8) -> Option<FileType> {
        Some(match stored {
            FT_FIFO => FileType::Fifo,
            FT_CHR => FileType::CharDevice,
            FT_DIR => FileType::Directory,
            FT_BLK => FileType::BlockDevice,
            FT_REG => FileType::Regular,
            FT_LNK => FileType::Symlink,
            FT_SOCK => FileType::Socket,
            _ => return None,
        })
    }

    /// As a directory entry stores it.
    pub fn stored(self) -> u8 {
        match self {
            FileType::Fifo => FT_FIFO,
            FileType::CharDevice => FT_CHR,
            FileType::Directory => FT_DIR,
            FileType::BlockDevice => FT_BLK,
            FileType::Regular => FT_REG,
            FileType::Symlink => FT_LNK,
            FileType::Socket => FT_SOCK,
        }
    }
}
