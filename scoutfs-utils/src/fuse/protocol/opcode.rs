// SPDX-License-Identifier: GPL-2.0-only
//! Opcodes of requests and codes of notifications.

/// Declares the opcodes and their decoder together, so that neither can miss one.
macro_rules! opcodes {
    ($( $name:ident = $value:literal, )*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub(crate) enum Opcode { $( $name = $value, )* }

        impl Opcode {
            /// The opcode with this number, or None when it is not known here.
            pub(crate) fn from_raw(raw: u32) -> Option<Self> {
                match raw { $( $value => Some(Self::$name), )* _ => None }
            }

            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$( Self::$name, )*];
        }
    };
}

opcodes! {
    Lookup = 1, Forget = 2, Getattr = 3, Setattr = 4, Readlink = 5, Symlink = 6, Mknod = 8, Mkdir = 9,
    Unlink = 10, Rmdir = 11, Rename = 12, Link = 13, Open = 14, Read = 15, Write = 16, Statfs = 17,
    Release = 18, Fsync = 20, Setxattr = 21, Getxattr = 22, Listxattr = 23, Removexattr = 24, Flush = 25,
    Init = 26, Opendir = 27, Readdir = 28, Releasedir = 29, Fsyncdir = 30, Getlk = 31, Setlk = 32,
    Setlkw = 33, Access = 34, Create = 35, Interrupt = 36, Bmap = 37, Destroy = 38, Ioctl = 39, Poll = 40,
    NotifyReply = 41, BatchForget = 42, Fallocate = 43, Readdirplus = 44, Rename2 = 45, Lseek = 46,
    CopyFileRange = 47, Setupmapping = 48, Removemapping = 49, Syncfs = 50, Tmpfile = 51, Statx = 52,
    CopyFileRange64 = 53,
}

impl Opcode {
    /// Whether the kernel waits for an answer. Answering one of the others is an error.
    pub(crate) fn has_reply(self) -> bool {
        !matches!(self, Self::Forget | Self::BatchForget | Self::Interrupt | Self::NotifyReply)
    }
}

/// What a notification tells the kernel; goes where a reply has its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum NotifyCode {
    InvalInode = 2,
    InvalEntry = 3,
    IncEpoch = 8,
    Prune = 9,
}
