// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs df`: the space of a mounted volume, by kind.

use scoutfs_format::ioctl::{ALLOC_AVAILABLE, ALLOC_META};

use crate::cli::Df;
use crate::ioctl;

/// Bytes for people, binary units.
pub fn human(bytes: u64) -> String {
    let mut value = bytes;
    let mut rest = 0;
    let mut unit = 0;
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    while value >= 1024 && unit < UNITS.len() - 1 {
        rest = value % 1024;
        value /= 1024;
        unit += 1;
    }
    if unit == 0 { format!("{value} B") } else { format!("{value}.{} {}", rest * 10 / 1024, UNITS[unit]) }
}

/// Prints the table.
pub fn run(arguments: &Df) -> Result<(), String> {
    let path = &arguments.path.path;
    let file = ioctl::open(path)?;
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let stat = ioctl::statfs_more(&file).map_err(failed)?;
    let detail = ioctl::alloc_detail(&file).map_err(failed)?;
    let sum = |flags: u8| -> u64 {
        detail
            .iter()
            .filter(|e| e.flags & (ALLOC_META | ALLOC_AVAILABLE) == flags)
            .map(|e| e.blocks.get())
            .sum()
    };
    let free = |meta: u8| sum(meta | ALLOC_AVAILABLE);
    let rows = [
        (
            "MetaData",
            64u64 << 10,
            stat.total_meta_blocks.get(),
            free(ALLOC_META).saturating_sub(stat.reserved_meta_blocks.get()),
            sum(ALLOC_META),
        ),
        ("Data", 4 << 10, stat.total_data_blocks.get(), free(0), sum(0)),
    ];
    if arguments.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(kind, size, total, free, quarantined)| {
                serde_json::json!({
                    "type": kind, "block_bytes": size, "total": total,
                    "used": total.saturating_sub(*free), "free": free, "quarantined": quarantined,
                })
            })
            .collect();
        println!("{}", serde_json::Value::from(rows));
        return Ok(());
    }
    println!("{:<10} {:>6} {:>15} {:>15} {:>15} {:>5}", "Type", "Size", "Total", "Used", "Free", "Use%");
    let show = |blocks: u64, size: u64| {
        if arguments.human { human(blocks.saturating_mul(size)) } else { blocks.to_string() }
    };
    for (kind, size, total, free, _) in rows {
        let used = total.saturating_sub(free);
        let percent = if total == 0 { 0 } else { used.saturating_mul(100).div_ceil(total) };
        println!(
            "{kind:<10} {:>6} {:>15} {:>15} {:>15} {percent:>4}%",
            format!("{}KB", size >> 10),
            show(total, size),
            show(used, size),
            show(free, size)
        );
    }
    let aside = rows.map(|(.., size, _, _, quarantined)| show(quarantined, size));
    if rows.iter().any(|(.., quarantined)| *quarantined > 0) {
        println!(
            "Quarantine: {} of metadata and {} of data are used, since nodes that were fenced may still write them",
            aside[0], aside[1]
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_for_people_keep_one_digit() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(u64::MAX), "15.9 EiB");
    }
}
