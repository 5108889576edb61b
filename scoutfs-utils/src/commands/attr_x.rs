// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs get-attr-x` and `set-attr-x`: chosen attributes of a file.

use scoutfs_format::ioctl::{
    ATTR_ALL, ATTR_BIT_RETENTION, ATTR_CRTIME, ATTR_CTIME, ATTR_DATA_SEQ, ATTR_DATA_VERSION,
    ATTR_FLAG_SIZE_OFFLINE, ATTR_META_SEQ, ATTR_OFFLINE_BLOCKS, ATTR_ONLINE_BLOCKS, ATTR_PROJECT_ID,
    ATTR_RETENTION, ATTR_SIZE, AttrX,
};
use serde_json::Value;

use crate::cli::{GetAttrX, SecondsNanoseconds, SetAttrX};
use crate::ioctl;

/// Prints `name: value` lines; one value alone when one attribute is asked for.
pub fn get(arguments: &GetAttrX) -> Result<(), String> {
    let wanted = [
        (arguments.meta_seq, ATTR_META_SEQ),
        (arguments.data_seq, ATTR_DATA_SEQ),
        (arguments.data_version, ATTR_DATA_VERSION),
        (arguments.online_blocks, ATTR_ONLINE_BLOCKS),
        (arguments.offline_blocks, ATTR_OFFLINE_BLOCKS),
        (arguments.ctime, ATTR_CTIME),
        (arguments.crtime, ATTR_CRTIME),
        (arguments.size, ATTR_SIZE),
        (arguments.retention, ATTR_RETENTION),
        (arguments.project_id, ATTR_PROJECT_ID),
    ];
    let mask = wanted.iter().filter(|(wanted, _)| *wanted).map(|(_, attribute)| attribute).sum();
    let mask = if mask == 0 { ATTR_ALL } else { mask };
    let file = ioctl::open(&arguments.file)?;
    let x = ioctl::get_attr_x(&file, mask).map_err(super::failed(&arguments.file))?;
    let time = |sec: u64, nsec: u32| Value::from(format!("{}.{nsec:09}", sec as i64));
    let fields: [(&str, u64, Value); 10] = [
        ("meta_seq", ATTR_META_SEQ, x.meta_seq.get().into()),
        ("data_seq", ATTR_DATA_SEQ, x.data_seq.get().into()),
        ("data_version", ATTR_DATA_VERSION, x.data_version.get().into()),
        ("online_blocks", ATTR_ONLINE_BLOCKS, x.online_blocks.get().into()),
        ("offline_blocks", ATTR_OFFLINE_BLOCKS, x.offline_blocks.get().into()),
        ("ctime", ATTR_CTIME, time(x.ctime_sec.get(), x.ctime_nsec.get())),
        ("crtime", ATTR_CRTIME, time(x.crtime_sec.get(), x.crtime_nsec.get())),
        ("size", ATTR_SIZE, x.size.get().into()),
        ("retention", ATTR_RETENTION, (x.bits.get() & ATTR_BIT_RETENTION).into()),
        ("project_id", ATTR_PROJECT_ID, x.project_id.get().into()),
    ];
    let fields = fields.into_iter().filter(|(_, attribute, _)| mask & attribute != 0);
    if arguments.json {
        let object: serde_json::Map<String, Value> =
            fields.map(|(name, _, value)| (name.to_owned(), value)).collect();
        println!("{}", Value::Object(object));
        return Ok(());
    }
    for (name, _, value) in fields {
        // Without the quotes that JSON has around times.
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if mask.is_power_of_two() {
            println!("{text}");
        } else {
            println!("{name}: {text}");
        }
    }
    Ok(())
}

/// Sets what was given.
pub fn set(arguments: &SetAttrX) -> Result<(), String> {
    let mut x = AttrX::default();
    let mut mask = 0;
    let mut number = |attribute: u64, given: Option<u64>| {
        mask |= if given.is_some() { attribute } else { 0 };
        given.unwrap_or(0).into()
    };
    x.meta_seq = number(ATTR_META_SEQ, arguments.meta_seq);
    x.data_seq = number(ATTR_DATA_SEQ, arguments.data_seq);
    x.data_version = number(ATTR_DATA_VERSION, arguments.data_version);
    x.online_blocks = number(ATTR_ONLINE_BLOCKS, arguments.online_blocks);
    x.offline_blocks = number(ATTR_OFFLINE_BLOCKS, arguments.offline_blocks);
    x.size = number(ATTR_SIZE, arguments.size);
    x.bits = number(ATTR_RETENTION, arguments.retention.map(u64::from));
    x.project_id = number(ATTR_PROJECT_ID, arguments.project_id);
    let seconds = |time: SecondsNanoseconds| time.sec as u64;
    x.ctime_sec = number(ATTR_CTIME, arguments.ctime.map(seconds));
    x.crtime_sec = number(ATTR_CRTIME, arguments.crtime.map(seconds));
    x.ctime_nsec = arguments.ctime.map_or(0, |time| time.nsec).into();
    x.crtime_nsec = arguments.crtime.map_or(0, |time| time.nsec).into();
    if arguments.offline {
        x.x_flags = ATTR_FLAG_SIZE_OFFLINE.into();
    }
    x.x_mask = mask.into();
    let file = ioctl::open(&arguments.file)?;
    ioctl::set_attr_x(&file, &x).map_err(super::failed(&arguments.file))
}
