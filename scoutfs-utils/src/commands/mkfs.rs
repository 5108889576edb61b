// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs mkfs`: making a volume.

use std::fmt::Write;

use scoutfs_env::device::{BlockDevice, FileDevice, OpenMode};
use scoutfs_env::{Arc, try_box};
use scoutfs_format::FORMAT_VERSION;
use scoutfs_format::geometry::Geometry;
use scoutfs_fs::mkfs::{self, Options};

use super::df::human;
use crate::cli::Mkfs;

/// A UUID as text.
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in uuid.iter().enumerate() {
        if [4, 6, 8, 10].contains(&i) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Makes the volume and says what it is.
pub fn run(arguments: &Mkfs) -> Result<(), String> {
    let path = arguments.device.display();
    let device = FileDevice::open(&arguments.device, OpenMode::Exclusive).map_err(|e| e.to_string())?;
    let no_memory = |_| String::from("out of memory");
    let device: scoutfs_env::Box<dyn BlockDevice> = try_box(device).map_err(no_memory)?;
    let device = Arc::new(device).map_err(no_memory)?;
    let options = Options { quorum: arguments.quorum, force: arguments.force };
    let sb = mkfs::mkfs(&device, &options).map_err(|e| format!("{path}: {e}"))?;
    let geometry = Geometry::from_raw(&sb.geometry).map_err(|e| format!("{path}: {e}"))?;

    let fsid = format!("{:016x}", sb.id.fsid);
    let hash = format!("{:016x}", sb.id.format_hash);
    let uuid = uuid_text(&sb.id.uuid);
    if arguments.json {
        let object = serde_json::json!({
            "device": arguments.device, "fsid": fsid, "format_hash": hash,
            "format_version": FORMAT_VERSION, "uuid": uuid, "bytes": geometry.volume_bytes(),
            "zones": geometry.nr_zones(), "zone_bytes": geometry.zone_bytes(),
            "mount_slots": geometry.nr_slots(), "quorum_count": geometry.quorum(),
        });
        println!("{object}");
        return Ok(());
    }
    println!("Created scoutfs filesystem:");
    println!("  device path:        {path}");
    println!("  fsid:               {fsid}");
    println!("  format hash:        {hash}");
    println!("  format version:     {FORMAT_VERSION}");
    println!("  uuid:               {uuid}");
    println!("  size:               {} ({} bytes)", human(geometry.volume_bytes()), geometry.volume_bytes());
    println!(
        "  zones:              {} of {}, of 64KB metadata or 4KB data blocks",
        geometry.nr_zones(),
        human(geometry.zone_bytes())
    );
    println!("  mount slots:        {}", geometry.nr_slots());
    println!("  quorum count:       {}", geometry.quorum());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn uuids_are_written_as_everybody_does() {
        let uuid = *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";
        assert_eq!(super::uuid_text(&uuid), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
