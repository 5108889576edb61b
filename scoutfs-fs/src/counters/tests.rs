// SPDX-License-Identifier: GPL-2.0-only
//! Counters have names that can be told apart, and count what happens.

use std::collections::BTreeMap;
use std::string::{String, ToString};

use scoutfs_format::ioctl::CounterEntry;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::msg::MSG_CONSTANTS;

use super::{Counter, KINDS, MAX_NAME};
use crate::fs::Fs;
use crate::fs::testing::TestFs;

fn read(fs: &Fs) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    fs.for_each_counter(&mut |name, value| {
        assert!(all.insert(name.to_string(), value).is_none(), "{name} is there twice");
        Ok(())
    })
    .unwrap();
    all
}

#[test]
fn names_fit_into_the_structure_that_tells_them() {
    assert_eq!(MAX_NAME + 1, CounterEntry::default().name.len());
    let fs = TestFs::new();
    for name in read(&fs).keys() {
        assert!((1..=MAX_NAME).contains(&name.len()), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
    }
}

#[test]
fn each_kind_of_message_has_its_name() {
    let flags = ["MSG_RESPONSE"];
    let kinds = MSG_CONSTANTS.iter().filter(|c| c.name.starts_with("MSG_") && !flags.contains(&c.name));
    let mut count = 1;
    for kind in kinds {
        assert_eq!(KINDS[kind.value as usize], kind.name["MSG_".len()..].to_lowercase(), "{}", kind.name);
        count += 1;
    }
    assert_eq!(count, KINDS.len());
}

#[test]
fn each_operation_is_counted_once_and_no_counter_goes_back() {
    let fs = TestFs::new();
    let before = read(&fs);
    let ino = fs.touch(ROOT_INO, "file");
    fs.write(ino, 0, &[1; 5000]).unwrap();
    let mut buf = [0; 100];
    fs.read(ino, 4950, &mut buf).unwrap();
    fs.sync().unwrap();
    let after = read(&fs);
    let grown = |name: &str| after[name] - before[name];
    let wanted = [
        ("op_create", 1),
        ("op_write", 1),
        ("op_read", 1),
        ("op_sync", 1),
        ("op_rename", 0),
        ("data_write_bytes", 5000),
        ("data_read_bytes", 50),
    ];
    for (name, by) in wanted {
        assert_eq!(grown(name), by, "{name}");
    }
    // Two blocks of data, and one record of at least one.
    assert!(grown("commits") >= 1 && grown("record_bytes") >= 4096 && grown("commit_items") >= 6);
    assert!(grown("device_write_bytes") >= 8192 + 4096 && grown("device_durable_writes") >= 1);
    assert!(grown("device_flushes") >= 1);
    assert!(grown("item_cache_hits") > 0);
    // What one side sent, the other received and answered.
    assert!(after["sent_seq"] >= 1 && after["received_seq"] >= 1 && after["lock_grants"] >= 1);
    assert_eq!(after["sent_other"], 0);
    assert!(before.iter().all(|(name, value)| after[name] >= *value));
    assert_eq!(fs.store().counters.get(Counter::Write), after["op_write"]);
}
