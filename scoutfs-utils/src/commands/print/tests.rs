// SPDX-License-Identifier: GPL-2.0-only

use scoutfs_env::device::MemDevice;
use scoutfs_env::try_box;
use scoutfs_format::item::{DirentHeader, FT_REG};
use scoutfs_format::voter::LeaderId;
use scoutfs_format::{BLOCK_SIZE, Key, SECTOR_SIZE};
use scoutfs_fs::mkfs::{Options, mkfs};
use scoutfs_server::super_block::write_super_after;
use zerocopy::IntoBytes;

use super::*;

fn new_volume() -> (Arc<Box<dyn BlockDevice>>, SuperBlock) {
    let device: Box<dyn BlockDevice> = try_box(MemDevice::new(64 << 20)).unwrap();
    let device = Arc::new(device).unwrap();
    let sb = mkfs(&device, &Options { quorum: 2, force: true }).unwrap();
    (device, sb)
}

fn printed(device: &Arc<Box<dyn BlockDevice>>, skip_items: bool, json: bool) -> String {
    let mut out = Vec::new();
    print(device, &mut out, skip_items, json).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_new_volume_is_printed_from_its_super_blocks_to_its_items() {
    let (device, sb) = new_volume();
    let text = printed(&device, false, false);
    assert_eq!(text.lines().filter(|line| line.starts_with("super voter=0 ")).count(), 2);
    for part in [
        &*format!("fsid={:016x}", sb.id.fsid),
        "item tree=fs key=16.1.4.0.0.0 version=1 is=inode ino=1 mode=0o40755 nlink=2",
        "is=meta_seq seq=1 ino=1",
        "node tree=server",
        " is=free kind=3 ",
        "work kind=1 state=1 ",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(text, printed(&device, false, false));
    let short = printed(&device, true, false);
    assert!(short.contains("node tree=fs") && !short.contains("item tree="));
}

#[test]
fn leaders_and_what_they_took_over_are_printed() {
    let (device, mut sb) = new_volume();
    assert!(!printed(&device, true, false).contains("take_over"));
    sb.work_leader = LeaderId { term: 3.into(), rid: 0xabc.into(), voter: 2.into(), pad: 0.into() };
    let take_over =
        TakeOver { start: 77.into(), term: 4.into(), rid: 0xdef.into(), len: 5.into(), voter: 1.into() };
    write_super_after(&**device, 0, 1, &mut sb, &[TakeOver::default(), take_over]).unwrap();
    let text = printed(&device, true, false);
    assert!(text.contains(" work_term=3 work_rid=0000000000000abc work_voter=2\n"), "{text}");
    assert!(text.contains("\ntake_over start=77 len=5 term=4 rid=0000000000000def voter=1\n"), "{text}");
    assert_eq!(text.matches("take_over").count(), 1);
}

#[test]
fn the_secret_is_never_printed() {
    let (device, sb) = new_volume();
    for json in [false, true] {
        let text = printed(&device, false, json);
        assert!(!text.contains("secret"));
        for part in sb.secret.chunks(4) {
            let number = u32::from_le_bytes(part.try_into().unwrap());
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(!text.contains(&hex) && !text.contains(&number.to_string()));
        }
    }
}

#[test]
fn every_line_of_json_is_an_object_with_a_type() {
    let (device, _) = new_volume();
    for line in printed(&device, false, true).lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(object["type"].is_string(), "{line}");
    }
}

#[test]
fn what_is_damaged_is_said_and_the_rest_printed() {
    let (device, sb) = new_volume();
    let mut sector = IoBuf::zeroed(SECTOR_SIZE).unwrap();
    let offset = sb.fs_root.block.blkno.get() * BLOCK_SIZE as u64;
    device.read(offset, &mut sector).unwrap();
    sector[1000] ^= 1;
    device.write(offset, &sector).unwrap();
    let text = printed(&device, false, false);
    assert!(text.contains("damaged tree=fs block="), "{text}");
    assert!(text.contains("node tree=server"));
}

#[test]
fn names_and_errors_cannot_break_a_line() {
    let head = DirentHeader { ino: 9.into(), file_type: FT_REG, pad: [0; 7] };
    let value = [head.as_bytes(), b"a\n\"\xff name=x"].concat();
    let item = Item { key: Key::dirent(1, 2, 3), version: 4, deletion: false, value: &value };
    let mut out = Vec::new();
    let mut output = Output::new(&mut out, false);
    output.line("item", item::describe(&item));
    output.line("damaged", Fields::default().with("error", Field::Text("a\nb".into())));
    output.finish().unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains(r#" ino=9 file_type=4 name="a\n\"\xff name=x""#), "{text}");
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn an_entry_of_the_search_index_is_printed_with_what_it_names() {
    let item = Item { key: Key::srch(0xabc, 7, 3), version: 4, deletion: true, value: b"" };
    let mut out = Vec::new();
    let mut output = Output::new(&mut out, false);
    output.line("item", item::describe(&item));
    output.finish().unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("item key=12.2748.4.7.3.0 version=4 "), "{text}");
    let deleted = Item { deletion: false, ..item };
    let mut out = Vec::new();
    let mut output = Output::new(&mut out, false);
    output.line("item", item::describe(&deleted));
    output.finish().unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with("is=srch hash=0000000000000abc ino=7 id=3\n"), "{text}");
}

#[test]
fn an_item_that_makes_no_sense_is_printed_as_bytes() {
    let item = Item { key: Key::inode(1), version: 4, deletion: false, value: b"short" };
    let mut out = Vec::new();
    let mut output = Output::new(&mut out, false);
    output.line("item", item::describe(&item));
    output.finish().unwrap();
    assert_eq!(out, b"item key=16.1.4.0.0.0 version=4 is=unknown value=\"short\"\n");
}
