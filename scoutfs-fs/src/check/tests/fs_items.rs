// SPDX-License-Identifier: GPL-2.0-only
//! Damage to the filesystem's items.

use std::vec::Vec;

use scoutfs_btree::space::SpaceKind;
use scoutfs_format::Key;
use scoutfs_format::item::*;
use scoutfs_format::key::{KIND_DATA_SEQ, KIND_META_SEQ, ZONE_FS};

use super::super::{IssueKind as K, Owner, Place, TreeId};
use super::volume::{
    DIR, FILE, FS_VERSION, LINK, LOG_VERSION, ORPHAN, SEQ_BOUND, TAIL_VERSION, dirent, extent, readdir, xattr,
};
use super::{damaged, inode, item};
use crate::acl::AclError;
use crate::acl::tests::list;

fn hash(name: &str) -> u64 {
    name_hash(name.as_bytes())
}

#[test]
pub fn a_missing_root_is_found() {
    let issues = damaged(|v| {
        v.remove(Key::inode(ROOT_INO));
        v.remove(Key::index(KIND_META_SEQ, FS_VERSION, ROOT_INO));
    });
    assert_eq!(
        issues,
        [
            (K::NoInode, inode(ROOT_INO)),
            (K::ParentNotDirectory { parent: ROOT_INO }, inode(DIR)),
            (K::NoRoot, Place::Volume),
            (K::InodeCount { counted: 5, found: 4 }, Place::Volume),
        ]
    );
}

#[test]
pub fn items_without_an_inode_are_found() {
    let issues = damaged(|v| v.put(Key::extent(1500, 4), extent(0, 2, EXTENT_OFFLINE)));
    assert_eq!(issues, [(K::NoInode, inode(1500))]);
}

#[test]
pub fn an_inode_number_that_was_never_given_out_is_found() {
    let issues = damaged(|v| v.sb.ino_bound = LINK.into());
    let kind = K::InoNotGivenOut { bound: LINK };
    assert_eq!(issues, [(kind.clone(), inode(LINK)), (kind, inode(ORPHAN))]);
}

#[test]
pub fn impossible_fields_of_an_inode_are_found() {
    let issues = damaged(|v| v.edit_inode(FILE, |i| i.ctime.nsec = 1_000_000_000.into()));
    assert_eq!(issues, [(K::Nanoseconds { nsec: 1_000_000_000 }, inode(FILE))]);
    let issues = damaged(|v| v.edit_inode(FILE, |i| i.size = u64::MAX.into()));
    assert_eq!(issues, [(K::Size { size: u64::MAX }, inode(FILE))]);
    let issues = damaged(|v| v.edit_inode(FILE, |i| i.flags = 6.into()));
    assert_eq!(issues, [(K::InodeFlags { flags: 6 }, inode(FILE))]);
    // Retention is of regular files.
    assert_eq!(damaged(|v| v.edit_inode(FILE, |i| i.flags = INODE_RETENTION.into())), []);
    let issues = damaged(|v| v.edit_inode(LINK, |i| i.flags = INODE_RETENTION.into()));
    assert_eq!(issues, [(K::InodeFlags { flags: INODE_RETENTION }, inode(LINK))]);
    let issues = damaged(|v| v.put(Key::inode(FILE), Vec::from([1; 9])));
    let length = K::ValueLength { expected: size_of::<InodeItem>(), found: 9 };
    assert!(issues.contains(&(length, item(Key::inode(FILE)))));
}

#[test]
pub fn an_unknown_type_of_file_is_found() {
    let issues = damaged(|v| v.edit_inode(LINK, |i| i.mode = 0o700.into()));
    let key = Key::dirent(DIR, hash("link"), 8);
    assert_eq!(
        issues,
        [
            (K::EntryType { ino: LINK, file_type: FT_LNK, mode: 0o700 }, item(key)),
            (K::Mode { mode: 0o700 }, inode(LINK)),
            (K::NotSymlink, item(Key::symlink(LINK))),
        ]
    );
}

#[test]
pub fn a_seq_that_its_write_cannot_have_stored_is_found() {
    let issues = damaged(|v| {
        v.edit_inode(LINK, |i| i.meta_seq = 9.into());
        v.remove(Key::index(KIND_META_SEQ, FS_VERSION, LINK));
        v.put(Key::index(KIND_META_SEQ, 9, LINK), Vec::new());
    });
    let kind = K::SeqAboveVersion { meta_seq: 9, data_seq: 0, version: FS_VERSION };
    assert_eq!(issues, [(kind, inode(LINK))]);
}

#[test]
pub fn an_inode_that_the_index_lacks_is_found() {
    let issues = damaged(|v| v.remove(Key::index(KIND_META_SEQ, FS_VERSION, LINK)));
    assert_eq!(issues, [(K::NoIndexEntry { index: KIND_META_SEQ, seq: FS_VERSION }, inode(LINK))]);
    let issues = damaged(|v| v.remove(Key::index(KIND_DATA_SEQ, FS_VERSION, FILE)));
    assert_eq!(issues, [(K::NoIndexEntry { index: KIND_DATA_SEQ, seq: FS_VERSION }, inode(FILE))]);
}

#[test]
pub fn an_index_entry_without_its_inode_is_found() {
    let key = Key::index(KIND_META_SEQ, 3, LINK);
    let issues = damaged(|v| v.put(key, Vec::new()));
    assert_eq!(issues, [(K::IndexSeq { seq: 3, found: FS_VERSION }, item(key))]);
    // The entry of a deleted inode.
    let key = Key::index(KIND_DATA_SEQ, 3, 1700);
    let issues = damaged(|v| v.put(key, Vec::new()));
    assert_eq!(issues, [(K::IndexWithoutInode { seq: 3 }, item(key))]);
}

#[test]
fn a_deletion_that_was_lost_is_found() {
    // The old entry of the directory comes back to light.
    let key = Key::index(KIND_META_SEQ, FS_VERSION, DIR);
    let issues = damaged(|v| drop(v.log.remove(&key)));
    assert_eq!(issues, [(K::IndexSeq { seq: FS_VERSION, found: LOG_VERSION }, item(key))]);
}

#[test]
pub fn an_unlinked_inode_that_no_scan_would_find_is_found() {
    let issues = damaged(|v| drop(v.tail.remove(&Key::orphan(ORPHAN))));
    assert_eq!(issues, [(K::NoOrphanItem, inode(ORPHAN))]);
}

#[test]
pub fn an_orphan_that_has_links_is_found() {
    let key = Key::orphan(FILE);
    let issues = damaged(|v| drop(v.tail.remove(&key)));
    assert_eq!(issues, [(K::OrphanHasLinks { nlink: 2 }, item(key))]);
    let key = Key::orphan(1999);
    let issues = damaged(|v| v.put(key, Vec::new()));
    assert_eq!(issues, [(K::OrphanWithoutInode, item(key))]);
}

#[test]
pub fn a_wrong_link_count_is_found() {
    let issues = damaged(|v| v.edit_inode(FILE, |i| i.nlink = 3.into()));
    assert_eq!(issues, [(K::LinkCount { nlink: 3, found: 2 }, inode(FILE))]);
    let issues = damaged(|v| v.edit_inode(ROOT_INO, |i| i.nlink = 2.into()));
    assert_eq!(issues, [(K::LinkCount { nlink: 2, found: 3 }, inode(ROOT_INO))]);
}

#[test]
pub fn a_wrong_size_of_a_directory_is_found() {
    let issues = damaged(|v| v.edit_dir(|i| i.size = 4.into()));
    assert_eq!(issues, [(K::DirSize { size: 4, found: 5 }, inode(DIR))]);
}

#[test]
pub fn a_missing_entry_by_position_is_found() {
    let issues = damaged(|v| v.remove(Key::readdir(DIR, 8)));
    assert_eq!(issues, [(K::NoReaddir, item(Key::dirent(DIR, hash("link"), 8)))]);
}

#[test]
pub fn a_missing_entry_by_name_is_found() {
    let issues = damaged(|v| v.remove(Key::dirent(DIR, hash("link"), 8)));
    assert_eq!(
        issues,
        [
            (K::NoDirent, item(Key::readdir(DIR, 8))),
            (K::DirSize { size: 5, found: 1 }, inode(DIR)),
            (K::BackrefNoDirent { dir: DIR }, item(Key::backref(LINK, DIR, 8))),
        ]
    );
}

#[test]
pub fn a_missing_back_reference_is_found() {
    let issues = damaged(|v| v.remove(Key::backref(LINK, DIR, 8)));
    assert_eq!(
        issues,
        [
            (K::NoBackref { ino: LINK }, item(Key::dirent(DIR, hash("link"), 8))),
            (K::LinkCount { nlink: 1, found: 0 }, inode(LINK)),
        ]
    );
}

#[test]
pub fn entries_that_name_different_inodes_are_found() {
    let issues = damaged(|v| v.put(Key::readdir(DIR, 8), readdir(FILE, FT_LNK, "link")));
    assert_eq!(issues, [(K::ReaddirDiffers, item(Key::dirent(DIR, hash("link"), 8)))]);
    let issues = damaged(|v| v.put(Key::readdir(DIR, 8), readdir(LINK, FT_LNK, "lint")));
    assert!(issues.contains(&(K::ReaddirDiffers, item(Key::dirent(DIR, hash("link"), 8)))));
}

#[test]
fn an_entry_of_a_deleted_inode_is_found() {
    let issues = damaged(|v| {
        v.remove(Key::inode(LINK));
        v.remove(Key::index(KIND_META_SEQ, FS_VERSION, LINK));
        v.remove(Key::backref(LINK, DIR, 8));
        v.remove(Key::symlink(LINK));
        v.sb.inodes = 3.into();
    });
    assert_eq!(issues, [(K::NoBackref { ino: LINK }, item(Key::dirent(DIR, hash("link"), 8)))]);
}

#[test]
pub fn an_entry_of_another_type_than_its_inode_is_found() {
    let key = Key::dirent(DIR, hash("link"), 8);
    let issues = damaged(|v| {
        v.put(key, dirent(LINK, FT_FIFO, "link"));
        v.put(Key::readdir(DIR, 8), readdir(LINK, FT_FIFO, "link"));
    });
    assert_eq!(issues, [(K::EntryType { ino: LINK, file_type: FT_FIFO, mode: 0o120_777 }, item(key))]);
}

#[test]
pub fn a_wrong_hash_of_a_name_is_found() {
    let issues = damaged(|v| {
        v.remove(Key::dirent(DIR, hash("link"), 8));
        v.put(Key::dirent(DIR, 99, 8), dirent(LINK, FT_LNK, "link"));
    });
    let place = item(Key::dirent(DIR, 99, 8));
    assert_eq!(issues[0], (K::NameHash { stored: 99, computed: hash("link") }, place.clone()));
    assert_eq!(issues[1], (K::ReaddirDiffers, place));
}

#[test]
pub fn two_entries_of_one_name_are_found() {
    let issues = damaged(|v| {
        v.entry(DIR, 6, FILE, FT_REG, "b");
        v.edit_inode(FILE, |i| i.nlink = 3.into());
        v.edit_dir(|i| i.size = 6.into());
    });
    assert_eq!(issues, [(K::DuplicateName { other: 5 }, item(Key::dirent(DIR, hash("b"), 6)))]);
}

#[test]
pub fn names_that_no_entry_can_have_are_found() {
    for name in ["", ".", "..", "a/b", "a\0b"] {
        let issues = damaged(|v| {
            v.entry(DIR, 6, FILE, FT_REG, name);
            v.edit_inode(FILE, |i| i.nlink = 3.into());
            v.edit_dir(|i| i.size = (5 + name.len() as u64).into());
        });
        let key = Key::dirent(DIR, hash(name), 6);
        assert_eq!(issues, [(K::Name { len: name.len() }, item(key))]);
    }
}

#[test]
pub fn a_position_that_will_be_used_again_is_found() {
    let issues = damaged(|v| v.edit_dir(|i| i.next_dir_pos = 8.into()));
    assert_eq!(issues, [(K::Position { pos: 8, next: 8 }, item(Key::dirent(DIR, hash("link"), 8)))]);
}

#[test]
pub fn a_directory_with_two_names_is_found() {
    let issues = damaged(|v| {
        v.entry(DIR, 6, DIR, FT_DIR, "self");
        v.edit_dir(|i| (i.nlink, i.size) = (3.into(), 9.into()));
    });
    assert_eq!(issues, [(K::DirEntries { found: 2 }, inode(DIR))]);
}

#[test]
pub fn a_wrong_parent_is_found() {
    let issues = damaged(|v| v.edit_dir(|i| i.parent = FILE.into()));
    assert_eq!(
        issues,
        [
            (K::Parent { parent: FILE, found: ROOT_INO }, inode(DIR)),
            (K::ParentNotDirectory { parent: FILE }, inode(DIR)),
        ]
    );
}

#[test]
pub fn directories_that_contain_each_other_are_found_once() {
    let issues = damaged(|v| {
        // DIR > 1100 > 1200 > DIR, and 1300 hangs below.
        for (dir, pos, ino) in [(DIR, 6, 1100), (1100, 2, 1200), (1200, 2, DIR), (1200, 3, 1300)] {
            v.entry(dir, pos, ino, FT_DIR, "x");
            if pos == 3 {
                v.entry(dir, pos, ino, FT_DIR, "y");
                v.remove(Key::dirent(dir, hash("x"), pos));
            }
        }
        for (ino, parent, nlink, size) in [(1100, DIR, 3u32, 1u64), (1200, 1100, 4, 2), (1300, 1200, 2, 0)] {
            let item = InodeItem {
                mode: 0o040_755.into(),
                nlink: nlink.into(),
                size: size.into(),
                next_dir_pos: 9.into(),
                parent: parent.into(),
                meta_seq: FS_VERSION.into(),
                ..InodeItem::default()
            };
            v.put(Key::inode(ino), zerocopy::IntoBytes::as_bytes(&item).to_vec());
            v.put(Key::index(KIND_META_SEQ, FS_VERSION, ino), Vec::new());
        }
        v.edit_dir(|i| (i.nlink, i.size, i.parent) = (3.into(), 6.into(), 1200.into()));
        v.remove(Key::dirent(ROOT_INO, hash("d"), 3));
        v.remove(Key::readdir(ROOT_INO, 3));
        v.remove(Key::backref(DIR, ROOT_INO, 3));
        v.edit_inode(ROOT_INO, |i| (i.nlink, i.size) = (2.into(), 1.into()));
        v.sb.inodes = 7.into();
    });
    assert_eq!(issues, [(K::DirLoop { through: DIR }, inode(DIR))]);
}

#[test]
pub fn a_deleted_directory_that_has_entries_is_found() {
    let issues = damaged(|v| {
        v.inode(1100, 0o040_755, |i| (i.size, i.next_dir_pos) = (1.into(), 9.into()));
        v.put(Key::orphan(1100), Vec::new());
        v.entry(1100, 5, FILE, FT_REG, "c");
        v.edit_inode(FILE, |i| i.nlink = 3.into());
        v.sb.inodes = 5.into();
    });
    assert_eq!(issues, [(K::OrphanNotEmpty { entries: 1 }, inode(1100))]);
}

#[test]
pub fn entries_of_what_is_no_directory_are_found() {
    let issues = damaged(|v| {
        v.entry(LINK, 5, FILE, FT_REG, "c");
        v.edit_inode(FILE, |i| i.nlink = 3.into());
    });
    assert_eq!(issues, [(K::NotDirectory, inode(LINK))]);
}

#[test]
pub fn an_unknown_file_type_in_an_entry_is_found() {
    let key = Key::dirent(DIR, hash("link"), 8);
    let issues = damaged(|v| {
        v.put(key, dirent(LINK, 99, "link"));
        v.put(Key::readdir(DIR, 8), readdir(LINK, 99, "link"));
    });
    // No inode has such a type.
    let differs = K::EntryType { ino: LINK, file_type: 99, mode: 0o120_777 };
    assert_eq!(issues, [(K::FileType { file_type: 99 }, item(key)), (differs, item(key))]);
}

#[test]
fn extents_that_overlap_by_more_blocks_than_can_be_counted_are_found() {
    let last = (MAX_FILE_BYTES - 1) / 4096;
    // Their sum is above the largest number of 64 bits, and their items fill several leaves.
    let count = u64::MAX / last + 2;
    let issues = damaged(|v| {
        for i in 0..count {
            v.put(Key::extent(FILE, last - i), extent(0, last - i + 1, EXTENT_OFFLINE));
        }
    });
    let (overlaps, others): (Vec<_>, Vec<_>) =
        issues.into_iter().partition(|issue| matches!(issue.0, K::ExtentOverlap { .. }));
    assert_eq!(overlaps.len() as u64, count);
    let kind = K::BlockCounts { online: 7, offline: 5, found_online: 7, found_offline: u64::MAX };
    assert_eq!(others, [(kind, inode(FILE))]);
}

#[test]
pub fn a_symbolic_link_without_target_is_found() {
    let issues = damaged(|v| v.remove(Key::symlink(LINK)));
    assert_eq!(issues, [(K::NoSymlink, inode(LINK))]);
    let issues = damaged(|v| v.put(Key::symlink(LINK), b"short".to_vec()));
    assert_eq!(issues, [(K::SymlinkLength { size: 6, found: 5 }, item(Key::symlink(LINK)))]);
    let issues = damaged(|v| v.put(Key::symlink(FILE), b"target".to_vec()));
    assert_eq!(issues, [(K::NotSymlink, item(Key::symlink(FILE)))]);
}

#[test]
pub fn an_incomplete_attribute_is_found() {
    let key = |part| Key::xattr(FILE, hash("user.long"), 1, part);
    let issues = damaged(|v| v.remove(key(1)));
    assert_eq!(issues, [(K::XattrIncomplete { parts: 2, found: 1 }, item(key(0)))]);
    let issues = damaged(|v| v.remove(key(0)));
    assert_eq!(issues, [(K::XattrPart { expected: 0, parts: 0, found: 1 }, item(key(1)))]);
    let issues = damaged(|v| v.put(key(2), Vec::from([1; 3])));
    assert_eq!(issues, [(K::XattrPart { expected: 2, parts: 2, found: 2 }, item(key(2)))]);
    let issues = damaged(|v| v.put(key(1), Vec::from([1; 3])));
    let expected = 8 + 9 + 5000 - XATTR_PART_LEN;
    assert_eq!(issues, [(K::ValueLength { expected, found: 3 }, item(key(1)))]);
}

#[test]
pub fn an_attribute_with_a_wrong_header_hash_or_id_is_found() {
    let key = Key::xattr(FILE, hash("user.b"), 1, 0);
    let short = xattr("user.b", b"value").remove(0);
    let issues = damaged(|v| v.put(key, short[..short.len() - 1].to_vec()));
    assert_eq!(issues, [(K::XattrHeader { name_len: 6, val_len: 5, found: 18 }, item(key))]);
    let issues = damaged(|v| v.put(Key::xattr(FILE, 4, 1, 0), short.clone()));
    let kind = K::NameHash { stored: 4, computed: hash("user.b") };
    assert_eq!(issues, [(kind, item(Key::xattr(FILE, 4, 1, 0)))]);
    let key = Key::xattr(FILE, hash("user.b"), 2, 0);
    let issues = damaged(|v| v.put(key, short.clone()));
    assert_eq!(issues, [(K::XattrId { id: 2, next: 2 }, item(key))]);
    let issues = damaged(|v| {
        v.put(Key::xattr(FILE, hash("user.b"), 0, 0), short.clone());
        v.put(Key::xattr(FILE, hash("user.b"), 1, 0), short.clone());
    });
    let key = Key::xattr(FILE, hash("user.b"), 1, 0);
    assert_eq!(issues, [(K::DuplicateXattr { other: 0 }, item(key))]);
}

#[test]
fn an_orphan_may_lack_what_was_deleted_already() {
    let issues = damaged(|v| {
        let value = xattr("user.long", &[7; 9000]).remove(1);
        v.put(Key::xattr(ORPHAN, hash("user.long"), 1, 1), value);
    });
    assert_eq!(issues, []);
}

/// Plants an attribute of one part on an inode, and says where.
fn plant(v: &mut super::Volume, ino: u64, name: &str, value: &[u8]) -> Key {
    let key = Key::xattr(ino, hash(name), 0, 0);
    v.put(key, xattr(name, value).remove(0));
    key
}

#[test]
pub fn names_that_no_attribute_can_have_are_found() {
    for name in ["other.a", "user.", "scoutfs.a", "scoutfs.hide.", "scoutfs.totl.a.1.2.3"] {
        let mut key = Key::MIN;
        let issues = damaged(|v| key = plant(v, FILE, name, b"value"));
        assert_eq!(issues, [(K::XattrName { name_len: name.len() as u8 }, item(key))]);
    }
}

#[test]
pub fn an_attribute_that_the_search_index_lacks_is_found() {
    let mut key = Key::MIN;
    let issues = damaged(|v| key = plant(v, FILE, "scoutfs.srch.a", b""));
    assert_eq!(issues, [(K::NoSearchEntry { id: 0 }, item(key))]);
    // With the entry of another id it is both missing and one too many.
    let entry = Key::srch(hash("scoutfs.srch.a"), FILE, 1);
    let issues = damaged(|v| {
        key = plant(v, FILE, "scoutfs.srch.a", b"");
        v.put(entry, Vec::new());
    });
    assert_eq!(
        issues,
        [(K::SearchNoXattr { ino: FILE, id: 1 }, item(entry)), (K::NoSearchEntry { id: 0 }, item(key))]
    );
    let issues = damaged(|v| {
        plant(v, FILE, "scoutfs.hide.srch.a", b"");
        plant(v, FILE, "scoutfs.hide.a", b"");
        v.put(Key::srch(hash("scoutfs.hide.srch.a"), FILE, 0), Vec::new());
    });
    assert_eq!(issues, []);
}

#[test]
pub fn a_search_entry_without_its_attribute_is_found() {
    // Of a deleted inode, of an attribute that is not there, and of one that is not indexed.
    for (ino, name, id) in [(1700, "scoutfs.srch.a", 0), (FILE, "scoutfs.srch.a", 0), (FILE, "user.long", 1)]
    {
        let entry = Key::srch(hash(name), ino, id);
        let issues = damaged(|v| v.put(entry, Vec::new()));
        assert_eq!(issues, [(K::SearchNoXattr { ino, id }, item(entry))]);
    }
    let entry = Key::srch(hash("scoutfs.srch.a"), FILE, 0);
    let issues = damaged(|v| {
        plant(v, FILE, "scoutfs.srch.a", b"");
        v.put(entry, Vec::from([1]));
    });
    assert_eq!(issues, [(K::ValueLength { expected: 0, found: 1 }, item(entry))]);
    let wrong = Key { fourth: 1, ..entry };
    let issues = damaged(|v| v.put(wrong, Vec::new()));
    assert_eq!(issues, [(K::UnknownKey, item(wrong))]);
}

#[test]
fn a_deletion_of_a_search_entry_that_was_lost_is_found() {
    let entry = Key::srch(hash("scoutfs.srch.gone"), FILE, 0);
    let sound = |v: &mut super::Volume| {
        v.put(entry, Vec::new());
        v.tail.insert(entry, (TAIL_VERSION, None));
    };
    assert_eq!(damaged(sound), []);
    let issues = damaged(|v| {
        sound(v);
        v.tail.remove(&entry);
    });
    assert_eq!(issues, [(K::SearchNoXattr { ino: FILE, id: 0 }, item(entry))]);
}

#[test]
pub fn an_access_list_that_is_none_is_found() {
    const ACCESS: &str = "system.posix_acl_access";
    let sound = list("u::6,u:5:7,g::4,m::4,o::4");
    let issues = damaged(|v| {
        plant(v, FILE, ACCESS, &sound);
    });
    assert_eq!(issues, []);
    let mut canonical = sound.clone();
    canonical[9] = 0;
    let mut twice = sound.clone();
    twice.extend_from_slice(&sound[4..12]);
    for (value, error) in [
        (&sound[..7], AclError::Length { len: 7 }),
        (&[], AclError::Missing),
        (&[9, 0, 0, 0], AclError::Version { version: 9 }),
        (&twice, AclError::Order { index: 5 }),
        (&canonical, AclError::NotCanonical),
    ] {
        let mut key = Key::MIN;
        let issues = damaged(|v| key = plant(v, FILE, ACCESS, value));
        assert_eq!(issues, [(K::Acl { error }, item(key))]);
    }
    // One that is too long, in several parts, and one that is cut, which is told alone.
    let long = [&sound[..], &[0; 6000]].concat();
    let key = |part| Key::xattr(FILE, hash(ACCESS), 0, part);
    let in_parts = |v: &mut super::Volume| {
        for (part, value) in xattr(ACCESS, &long).into_iter().enumerate() {
            v.put(key(part as u8), value);
        }
    };
    let entries = (long.len() - 4) / 8;
    assert_eq!(damaged(in_parts), [(K::Acl { error: AclError::TooMany { entries } }, item(key(0)))]);
    let issues = damaged(|v| {
        in_parts(v);
        v.remove(key(1));
    });
    assert_eq!(issues, [(K::XattrIncomplete { parts: 2, found: 1 }, item(key(0)))]);
}

#[test]
pub fn an_access_list_that_contradicts_the_mode_or_says_no_more_is_found() {
    const ACCESS: &str = "system.posix_acl_access";
    let mut key = Key::MIN;
    let issues = damaged(|v| key = plant(v, FILE, ACCESS, &list("u::6,u:5:7,g::4,m::6,o::4")));
    assert_eq!(issues, [(K::AclMode { mode: 0o100_644, permits: 0o664 }, item(key))]);
    let issues = damaged(|v| key = plant(v, FILE, ACCESS, &list("u::6,g::4,o::4")));
    assert_eq!(issues, [(K::AclMinimal, item(key))]);
    // A default list says nothing about the directory's own mode.
    let issues = damaged(|v| {
        v.edit_dir(|i| i.next_xattr_id = 2.into());
        plant(v, DIR, "system.posix_acl_default", &list("u::6,g::4,o::4"));
    });
    assert_eq!(issues, []);
}

#[test]
pub fn a_list_of_what_has_none_of_its_kind_is_found() {
    for (ino, name, mode) in [
        (FILE, "system.posix_acl_default", 0o100_644),
        (LINK, "system.posix_acl_default", 0o120_777),
        (LINK, "system.posix_acl_access", 0o120_777),
    ] {
        let mut key = Key::MIN;
        let issues = damaged(|v| {
            v.edit_inode(ino, |i| i.next_xattr_id = 2.into());
            key = plant(v, ino, name, &list("u::7,u:5:7,g::7,m::7,o::7"));
        });
        assert_eq!(issues, [(K::AclFileType { mode }, item(key))]);
    }
}

#[test]
pub fn wrong_block_counts_are_found() {
    let issues = damaged(|v| v.edit_inode(FILE, |i| i.offline_blocks = 4.into()));
    let kind = K::BlockCounts { online: 7, offline: 4, found_online: 7, found_offline: 5 };
    assert_eq!(issues, [(kind, inode(FILE))]);
}

#[test]
pub fn extents_that_overlap_in_the_file_are_found() {
    let key = Key::extent(FILE, 11);
    let issues = damaged(|v| {
        v.put(key, extent(0, 3, EXTENT_OFFLINE));
        v.edit_inode(FILE, |i| i.offline_blocks = 8.into());
    });
    assert_eq!(issues, [(K::ExtentOverlap { first: 9, previous_end: 10 }, item(key))]);
}

#[test]
fn extents_that_share_blocks_are_found() {
    let (mut start, key) = (0, Key::extent(LINK, 3));
    let issues = damaged(|v| {
        start = v.data();
        v.remove(Key::inode(LINK));
        v.put(key, extent(start + 3, 2, 0));
    });
    let kind = K::OwnedTwice { first: Owner::Files, second: Owner::Files };
    assert!(issues.contains(&(kind, Place::Blocks { kind: SpaceKind::Data, start: start + 3, len: 2 })));
}

#[test]
pub fn extents_that_cannot_be_are_found() {
    let counts = |v: &mut super::Volume| v.edit_inode(FILE, |i| i.offline_blocks = 0.into());
    for (last, len, kind) in [
        (9, 0, K::ExtentLength { last: 9, len: 0 }),
        (9, 11, K::ExtentLength { last: 9, len: 11 }),
        (9, u64::MAX, K::ExtentLength { last: 9, len: u64::MAX }),
    ] {
        let key = Key::extent(FILE, last);
        let issues = damaged(|v| {
            v.put(key, extent(0, len, EXTENT_OFFLINE));
            counts(v);
        });
        assert_eq!(issues, [(kind, item(key))]);
    }
    let key = Key::extent(FILE, 9);
    for (flags, blkno) in [(0, 0), (EXTENT_OFFLINE, 7), (EXTENT_OFFLINE | EXTENT_UNWRITTEN, 7), (64, 7)] {
        let issues = damaged(|v| {
            v.put(key, extent(blkno, 5, flags));
            counts(v);
        });
        assert_eq!(issues, [(K::ExtentFlags { flags, blkno }, item(key))]);
    }
    // Nowhere on the device.
    let issues = damaged(|v| {
        v.put(key, extent(u64::MAX - 2, 5, 0));
        v.edit_inode(FILE, |i| (i.online_blocks, i.offline_blocks) = (12.into(), 0.into()));
    });
    assert_eq!(issues, [(K::OutsideZones { owner: Owner::Files }, item(key))]);
}

#[test]
pub fn data_of_what_is_no_file_are_found() {
    let key = Key::extent(LINK, 9);
    let issues = damaged(|v| {
        v.put(key, extent(0, 5, EXTENT_OFFLINE));
        v.edit_inode(LINK, |i| i.offline_blocks = 5.into());
    });
    assert_eq!(issues, [(K::DataNotRegular { data_seq: 0 }, inode(LINK))]);
}

#[test]
pub fn keys_that_no_item_has_are_found() {
    let key = Key::new(ZONE_FS, FILE, 200, 0, 0, 0);
    let issues = damaged(|v| v.put(key, Vec::new()));
    assert_eq!(issues, [(K::UnknownKey, item(key))]);
    let key = Key { third: 1, ..Key::readdir(DIR, 5) };
    let issues = damaged(|v| v.put(key, Vec::new()));
    assert_eq!(issues, [(K::UnknownKey, item(key))]);
    let key = Key::new(99, 0, 0, 0, 0, 0);
    let issues = damaged(|v| v.put(key, Vec::new()));
    assert_eq!(issues, [(K::UnknownKey, Place::TreeItem { tree: TreeId::Fs, key })]);
}

#[test]
pub fn a_version_that_was_never_given_out_is_found() {
    let key = Key::symlink(LINK);
    let issues = damaged(|v| drop(v.fs.insert(key, (SEQ_BOUND, Some(b"target".to_vec())))));
    let kind = K::VersionNotGivenOut { version: SEQ_BOUND, bound: SEQ_BOUND };
    assert_eq!(issues, [(kind, Place::TreeItem { tree: TreeId::Fs, key })]);
}

#[test]
pub fn a_version_that_a_log_tree_does_not_promise_is_found() {
    let tree = TreeId::Log { slot: 0, nr: 1 };
    let issues = damaged(|v| v.log_tree.min_version = (LOG_VERSION + 1).into());
    assert_eq!(issues.len(), 3);
    let (min, max) = (LOG_VERSION + 1, LOG_VERSION);
    let kind = K::VersionOutsideLog { version: LOG_VERSION, min, max };
    assert!(issues.iter().all(|issue| issue.0 == kind));
    // What is in a record is newer than the tree, but not older than it promises.
    let key = Key::inode(ORPHAN);
    let issues = damaged(|v| {
        let (_, value) = v.tail[&key].clone();
        v.tail.insert(key, (LOG_VERSION - 1, value));
    });
    let kind = K::VersionOutsideLog { version: LOG_VERSION - 1, min: LOG_VERSION, max: u64::MAX };
    assert_eq!(issues[0], (kind, Place::TreeItem { tree, key }));
    let kind = K::SeqAboveVersion { meta_seq: TAIL_VERSION, data_seq: 0, version: LOG_VERSION - 1 };
    assert_eq!(issues[1], (kind, inode(ORPHAN)));
}
