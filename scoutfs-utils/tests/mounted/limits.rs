// SPDX-License-Identifier: GPL-2.0-only
//! The largest files, and the oldest and the newest times.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, SeekFrom, StatxFlags, Timespec, Timestamps, fallocate, seek, statx,
    utimensat,
};
use rustix::io::Errno;

use crate::volume::Volume;

#[test]
fn sparse_files_reach_many_tebibytes_and_end_at_the_largest_offset() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("sparse");
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path).unwrap();
    let places: Vec<u64> = [1, 7, 16, 100, 4096, 1 << 20].iter().map(|tib| (tib << 40) + 4093).collect();
    for place in &places {
        // Over the end of a block.
        file.write_all_at(&place.to_le_bytes(), *place).unwrap();
    }
    let largest = i64::MAX as u64;
    file.set_len(largest).unwrap();
    file.write_all_at(b"end", largest - 3).unwrap();
    // No byte more, in each way.
    let mut append = OpenOptions::new().append(true).open(&path).unwrap();
    assert_eq!(append.write(b"more").unwrap_err().raw_os_error(), Some(libc::EFBIG));
    assert_eq!(fallocate(&file, FallocateFlags::empty(), largest - 1, 2), Err(Errno::FBIG));
    drop((file, append));
    mounted.unmount();

    let mounted = volume.mount();
    let file = File::open(&path).unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), largest);
    assert_eq!(metadata.blocks() * 512, (2 * places.len() as u64 + 1) * 4096);
    let mut from = 0;
    for place in &places {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, *place).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), *place);
        let block = place / 4096 * 4096;
        assert_eq!(seek(&file, SeekFrom::Data(from)), Ok(block));
        assert_eq!(seek(&file, SeekFrom::Hole(block)), Ok(block + 8192));
        from = block + 8192;
    }
    let mut end = [0; 3];
    file.read_exact_at(&mut end, largest - 3).unwrap();
    assert_eq!(&end, b"end");
    drop(file);
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    mounted.sync();
    assert_eq!(fs::metadata(&path).unwrap().blocks(), 0);
    mounted.unmount();
}

#[test]
fn times_from_before_1970_to_after_2400_keep_their_nanoseconds() {
    // Days since 1970: 1600-01-01, 1901-12-13, 1969-12-31, 1970-01-01, 2106-02-08, 2401-01-01, 2500-01-01, 9999-12-31.
    let days = [-135_140_i64, -24_856, -1, 0, 49_711, 157_420, 193_579, 2_932_896];
    let time = |day: i64, nsec| Timespec { tv_sec: day * 86_400 + 12_345, tv_nsec: nsec };
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let before = std::time::SystemTime::now();
    for (i, day) in days.iter().enumerate() {
        let path = mounted.join(format!("{i}"));
        File::create(&path).unwrap();
        let times = Timestamps { last_access: time(*day, 1), last_modification: time(*day, 999_999_999) };
        utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
    }
    let root = mounted.path().to_owned();
    let look = || {
        for (i, day) in days.iter().enumerate() {
            let path = root.join(i.to_string());
            let metadata = fs::metadata(&path).unwrap();
            let seconds = day * 86_400 + 12_345;
            assert_eq!((metadata.atime(), metadata.atime_nsec()), (seconds, 1), "day {day}");
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (seconds, 999_999_999), "day {day}");
            // Setting times is no birth.
            let born = statx(CWD, &path, AtFlags::empty(), StatxFlags::BTIME).unwrap();
            assert!(StatxFlags::from_bits_retain(born.stx_mask).contains(StatxFlags::BTIME));
            let now = before.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
            assert!((now - 1..now + 300).contains(&born.stx_btime.tv_sec), "{:?}", born.stx_btime.tv_sec);
        }
    };
    look();
    mounted.unmount();
    let mounted = volume.mount();
    look();
    mounted.unmount();
}
