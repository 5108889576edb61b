// SPDX-License-Identifier: GPL-2.0-only
//! Access control lists: each is sound, belongs to its inode's type, and the access list goes together with the mode.

use scoutfs_env::Vec;
use scoutfs_format::Key;
use scoutfs_format::acl::{ACL_HEADER_LEN, AclEntry, MAX_ACL_ENTRIES};

use super::CheckError;
use super::inode::InodeState;
use super::issue::IssueKind;
use super::items::Pass;
use crate::acl::{Acl, AclError, AclKind};
use crate::inode::kind::FileType;

/// Bytes of the longest list.
const MAX_LIST_LEN: usize = ACL_HEADER_LEN + MAX_ACL_ENTRIES * size_of::<AclEntry>();

/// A list whose parts are being read.
pub(super) struct List {
    kind: AclKind,
    key: Key,
    bytes: Vec<u8>,
    /// Bytes that it says it has.
    len: usize,
}

impl List {
    /// A list that begins with `first`, in the first part of its attribute.
    pub fn new(kind: AclKind, key: Key, len: usize, first: &[u8]) -> Result<List, CheckError> {
        let mut list = List { kind, key, bytes: Vec::new(), len };
        list.add(first)?;
        Ok(list)
    }

    /// Its next bytes. Those of one that is too long are not kept.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), CheckError> {
        if self.len <= MAX_LIST_LEN {
            self.bytes.extend_from_slice(bytes)?;
        }
        Ok(())
    }
}

impl Pass<'_> {
    /// All parts of a list were read.
    pub fn check_list(&mut self, state: &InodeState, list: &List) -> Result<(), CheckError> {
        let key = list.key;
        if list.len > MAX_LIST_LEN {
            let entries = (list.len - ACL_HEADER_LEN) / size_of::<AclEntry>();
            self.issue(IssueKind::Acl { error: AclError::TooMany { entries } }, key);
            return Ok(());
        }
        let acl = match Acl::parse_stored(&list.bytes)? {
            Ok(acl) => acl,
            Err(error) => {
                self.issue(IssueKind::Acl { error }, key);
                return Ok(());
            }
        };
        let Some(mode) = state.item.map(|item| item.mode.get()) else {
            return Ok(());
        };
        match (list.kind, state.file_type) {
            (_, Some(FileType::Symlink)) | (AclKind::Default, Some(_)) if !state.is_dir() => {
                self.issue(IssueKind::AclFileType { mode }, key);
            }
            (AclKind::Access, _) => {
                let permits = acl.mode();
                if permits != mode & 0o777 {
                    self.issue(IssueKind::AclMode { mode, permits }, key);
                }
                if acl.is_minimal() {
                    self.issue(IssueKind::AclMinimal, key);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
