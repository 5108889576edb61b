// SPDX-License-Identifier: GPL-2.0-only
//! Items as named values.

use scoutfs_btree::Item;
use scoutfs_env::crc32c::crc32c;
use scoutfs_format::Key;
use scoutfs_format::item::{
    BackrefItem, DirentHeader, ExtentItem, InodeItem, ReaddirHeader, Time, XattrHeader,
};
use scoutfs_format::key::*;
use scoutfs_format::server_item::{FreeItem, HandOverExtent, MemberItem, MergeItem, QuarantineItem};
use scoutfs_format::voter::ProcessId;
use zerocopy::FromBytes;

use super::output::{Field, Fields};

/// What an item is, and its values. An item that cannot be understood is `unknown`, with its bytes.
pub fn describe(item: &Item<'_>) -> Fields {
    let key = item.key;
    let fields = Fields::default().with("key", Field::Word(key.to_string())).with("version", item.version);
    if item.deletion {
        return fields.with("is", Field::Word("deletion".into()));
    }
    let (is, values) = content(key, item.value)
        .unwrap_or_else(|| ("unknown", Fields::default().with("value", Field::Name(item.value.to_vec()))));
    fields.with("is", Field::Word(is.into())).and(values)
}

fn content(key: Key, value: &[u8]) -> Option<(&'static str, Fields)> {
    let f = Fields::default();
    Some(match (key.zone, key.kind) {
        (ZONE_INDEX, KIND_META_SEQ) => ("meta_seq", f.with("seq", key.second).with("ino", key.third)),
        (ZONE_INDEX, KIND_DATA_SEQ) => ("data_seq", f.with("seq", key.second).with("ino", key.third)),
        (ZONE_XATTR_INDEX, KIND_SRCH) => {
            let f = f.with("hash", Field::Id(key.first)).with("ino", key.second);
            ("srch", f.with("id", key.third))
        }
        (ZONE_ORPHAN, KIND_ORPHAN) => ("orphan", f.with("ino", key.second)),
        (ZONE_FS, KIND_INODE) => {
            let inode = InodeItem::read_from_bytes(value).ok()?;
            ("inode", inode_fields(key.first, &inode))
        }
        (ZONE_FS, KIND_XATTR) => ("xattr", xattr_fields(key, value)?),
        (ZONE_FS, KIND_DIRENT) => {
            let (head, name) = DirentHeader::read_from_prefix(value).ok()?;
            let f = f.with("dir", key.first).with("hash", Field::Id(key.second)).with("pos", key.third);
            ("dirent", entry(f, head.ino.get(), head.file_type, name))
        }
        (ZONE_FS, KIND_READDIR) => {
            let (head, name) = ReaddirHeader::read_from_prefix(value).ok()?;
            let f = f.with("dir", key.first).with("hash", Field::Id(head.name_hash.get()));
            ("readdir", entry(f.with("pos", key.second), head.ino.get(), head.file_type, name))
        }
        (ZONE_FS, KIND_BACKREF) => {
            let item = BackrefItem::read_from_bytes(value).ok()?;
            let f = f.with("ino", key.first).with("dir", key.second).with("pos", key.third);
            ("backref", f.with("hash", Field::Id(item.name_hash.get())))
        }
        (ZONE_FS, KIND_SYMLINK) => {
            ("symlink", f.with("ino", key.first).with("target", Field::Name(value.to_vec())))
        }
        (ZONE_FS, KIND_EXTENT) => {
            let item = ExtentItem::read_from_bytes(value).ok()?;
            let (last, len) = (key.second, item.len.get());
            let first = last.wrapping_sub(len).wrapping_add(1);
            let f = f.with("ino", key.first).with("first", first).with("len", len);
            let f = f.with("blkno", item.blkno.get()).with("flags", u32::from(item.flags));
            ("extent", f.with("fences", item.fences.get()))
        }
        (ZONE_SERVER, KIND_MEMBER) => {
            let item = MemberItem::read_from_bytes(value).ok()?;
            ("member", member_fields(key.second, &item))
        }
        (ZONE_SERVER, KIND_FREE) => {
            let item = FreeItem::read_from_bytes(value).ok()?;
            let f = f.with("kind", key.first).with("start", key.second);
            ("free", f.with("len", item.len.get()))
        }
        (ZONE_SERVER, KIND_HAND_OVER) => {
            let extents = <[HandOverExtent]>::ref_from_bytes(value).ok()?;
            let text: Vec<String> =
                extents.iter().map(|e| format!("{}:{}+{}", e.kind, e.start, e.len)).collect();
            let f = f.with("slot", key.first).with("number", key.second).with("part", key.third);
            ("hand_over", f.with("extents", Field::Word(text.join(","))))
        }
        (ZONE_SERVER, KIND_MERGE) => {
            let item = MergeItem::read_from_bytes(value).ok()?;
            let f = f.with("slot", key.first).with("log", key.second);
            ("merge", f.with("next", Field::Word(item.next.get().to_string())))
        }
        (ZONE_SERVER, KIND_QUARANTINE) => {
            let item = QuarantineItem::read_from_bytes(value).ok()?;
            let f = f.with("kind", key.first).with("start", key.second).with("len", item.len.get());
            let f = f.with("term", item.term.get()).with("fence", item.fence.get());
            ("quarantine", f.and(process_fields(&item.process)))
        }
        _ => return None,
    })
}

fn entry(fields: Fields, ino: u64, file_type: u8, name: &[u8]) -> Fields {
    fields.with("ino", ino).with("file_type", u32::from(file_type)).with("name", Field::Name(name.to_vec()))
}

fn time(time: &Time) -> Field {
    Field::Word(format!("{}.{:09}", time.sec, time.nsec))
}

fn inode_fields(ino: u64, inode: &InodeItem) -> Fields {
    Fields::default()
        .with("ino", ino)
        .with("mode", Field::Word(format!("{:#o}", inode.mode)))
        .with("nlink", inode.nlink.get())
        .with("uid", inode.uid.get())
        .with("gid", inode.gid.get())
        .with("size", inode.size.get())
        .with("meta_seq", inode.meta_seq.get())
        .with("data_seq", inode.data_seq.get())
        .with("data_version", inode.data_version.get())
        .with("online_blocks", inode.online_blocks.get())
        .with("offline_blocks", inode.offline_blocks.get())
        .with("next_dir_pos", inode.next_dir_pos.get())
        .with("next_xattr_id", inode.next_xattr_id.get())
        .with("changes", inode.version.get())
        .with("atime", time(&inode.atime))
        .with("mtime", time(&inode.mtime))
        .with("ctime", time(&inode.ctime))
        .with("crtime", time(&inode.crtime))
        .with("rdev", inode.rdev.get())
        .with("flags", inode.flags.get())
        .with("project", inode.project.get())
        .with("parent", inode.parent.get())
}

/// The value itself is somebody's data; its checksum shows whether it changed.
fn xattr_fields(key: Key, value: &[u8]) -> Option<Fields> {
    let fields = Fields::default()
        .with("ino", key.first)
        .with("hash", Field::Id(key.second))
        .with("id", key.third)
        .with("part", u32::from(key.fourth));
    let (fields, value) = if key.fourth == 0 {
        let (head, body) = XattrHeader::read_from_prefix(value).ok()?;
        let (name, value) = body.split_at_checked(head.name_len.into())?;
        let fields = fields.with("name", Field::Name(name.to_vec())).with("val_len", head.val_len.get());
        (fields, value)
    } else {
        (fields, value)
    };
    Some(fields.with("bytes", value.len()).with("crc", crc32c(value)))
}

/// A member as its item says.
pub fn member_fields(slot: u64, member: &MemberItem) -> Fields {
    Fields::default()
        .with("slot", slot)
        .with("rid", Field::Id(member.rid.get()))
        .with("epoch", member.epoch.get())
        .with("state", member.state.get())
        .with("fence", member.fence.get())
        .with("merged_through", member.merged_through.get())
        .with("down_given", member.down_given.get())
        .with("down_forgotten", member.down_forgotten.get())
        .with("up_taken", member.up_taken.get())
        .with("frozen_commit_nr", member.frozen_commit_nr.get())
        .and(process_fields(&member.process))
}

/// A process on a machine.
pub fn process_fields(process: &ProcessId) -> Fields {
    Fields::default()
        .with("boot_id", Field::Word(super::super::mkfs::uuid_text(&process.boot_id)))
        .with("pid", process.pid.get())
        .with("start_ticks", process.start.get())
}
