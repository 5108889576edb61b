// SPDX-License-Identifier: GPL-2.0-only
//! The content of files: holes, sizes, preallocation, mapped memory and direct IO.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::null_mut;

use rustix::fs::{FallocateFlags, SeekFrom as Seek64, fallocate, seek};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

use crate::pattern::content;
use crate::volume::Volume;

/// Lends `len` bytes of a file as shared memory.
fn with_mapped<T>(file: BorrowedFd<'_>, len: usize, f: impl FnOnce(&mut [u8]) -> T) -> T {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice, of a file that nobody shortens meanwhile; it is
    // lent to `f` alone and unmapped after.
    unsafe {
        let address = mmap(null_mut(), len, protection, MapFlags::SHARED, file, 0).unwrap();
        let result = f(std::slice::from_raw_parts_mut(address.cast::<u8>(), len));
        munmap(address, len).unwrap();
        result
    }
}

/// Writes through shared memory, and msyncs.
pub fn write_mapped(file: BorrowedFd<'_>, len: usize, offset: usize, bytes: &[u8]) {
    with_mapped(file, len, |memory| {
        memory[offset..][..bytes.len()].copy_from_slice(bytes);
        // SAFETY: exactly the mapping.
        unsafe { msync(memory.as_mut_ptr().cast(), len, MsyncFlags::SYNC) }.unwrap();
    });
}

fn create(path: &Path) -> File {
    OpenOptions::new().create_new(true).read(true).write(true).open(path).unwrap()
}

#[test]
fn holes_read_as_zeros_and_take_no_space() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("sparse");
    let file = create(&path);
    let far = 1 << 40;
    file.write_all_at(b"far", far).unwrap();
    file.write_all_at(b"near", 10_000).unwrap();
    mounted.sync();
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), far + 3);
    assert_eq!(metadata.blocks() * 512, 2 * 4096, "two blocks of 4 KiB");
    let mut bytes = [1; 12];
    file.read_exact_at(&mut bytes, 9996).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0near\0\0\0\0");
    assert_eq!(seek(&file, Seek64::Data(0)), Ok(8192));
    assert_eq!(seek(&file, Seek64::Hole(8192)), Ok(12_288));
    assert_eq!(seek(&file, Seek64::Data(12_288)), Ok(far));
    assert_eq!(seek(&file, Seek64::Data(far + 3)), Err(rustix::io::Errno::NXIO));
    drop(file);
    mounted.unmount();

    let mounted = volume.mount();
    let file = File::open(&path).unwrap();
    file.read_exact_at(&mut bytes[..3], far).unwrap();
    assert_eq!(&bytes[..3], b"far");
    assert_eq!(file.metadata().unwrap().blocks() * 512, 2 * 4096);
    drop(file);
    mounted.unmount();
}

/// What a kernel keeps for a while it may write at any time; no program sees when it does.
#[test]
fn an_overwrite_changes_the_times_when_it_is_made_and_not_when_it_is_written() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = create(&path);
    let mut want = content(1, 100_000);
    file.write_all_at(&want, 0).unwrap();
    mounted.sync();
    let times = |file: &File| {
        let m = file.metadata().unwrap();
        (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec(), m.blocks(), m.len())
    };
    let mut before = times(&file);
    // In the middle of a block, over several, to the end; more than is written at one time by far.
    for (n, (at, len)) in
        [(5_000, 10), (4_000, 30_000), (90_000, 10_000), (0, 100_000)].into_iter().enumerate()
    {
        let bytes = content(2 + n as u64, len);
        file.write_all_at(&bytes, at as u64).unwrap();
        want[at..at + len].copy_from_slice(&bytes);
        let changed = times(&file);
        assert!((changed.0, changed.1) > (before.0, before.1), "write {n} changed no time");
        assert!((changed.2, changed.3) > (before.2, before.3), "write {n} changed no time");
        let mut read = vec![0; want.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == want, "write {n}");
        mounted.sync();
        assert_eq!(times(&file), changed, "write {n}: the sync changed it");
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == want, "write {n}, from the device");
        before = changed;
    }
    // A time that is set after a write stays.
    file.write_all_at(b"x", 7).unwrap();
    want[7] = b'x';
    let set = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000, 5_000);
    file.set_modified(set).unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().modified().unwrap(), set);
    drop(file);
    mounted.unmount();
    let mounted = volume.mount();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), set);
    assert!(fs::read(&path).unwrap() == want);
    mounted.unmount();
}

/// Invariant 32, past the page cache.
#[test]
fn truncating_never_shows_old_bytes_again() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = create(&path);
    file.write_all_at(&[b'x'; 50_000], 0).unwrap();
    file.set_len(10_001).unwrap();
    file.set_len(60_000).unwrap();
    let mut expected = vec![b'x'; 10_001];
    expected.resize(60_000, 0);
    assert!(fs::read(&path).unwrap() == expected);
    drop(file);
    mounted.unmount();

    let mounted = volume.mount();
    assert!(fs::read(&path).unwrap() == expected);
    File::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    mounted.sync();
    assert_eq!(fs::metadata(&path).unwrap().blocks(), 0);
    mounted.unmount();
}

#[test]
fn appending_writers_never_overwrite_each_other() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("log");
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let path = &path;
            scope.spawn(move || {
                let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
                // Where it stands does not matter.
                file.seek(SeekFrom::Start(0)).unwrap();
                for _ in 0..200 {
                    file.write_all(&[writer; 100]).unwrap();
                }
            });
        }
    });
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 4 * 200 * 100);
    for record in bytes.chunks(100) {
        assert!(record.iter().all(|b| *b == record[0]), "a torn record");
    }
    for writer in 0..4 {
        assert_eq!(bytes.iter().filter(|b| **b == writer).count(), 200 * 100);
    }
    mounted.unmount();
}

#[test]
fn preallocated_space_reads_as_zeros_and_a_punched_hole_gives_it_back() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = create(&path);
    let size = 1 << 20;
    fallocate(&file, FallocateFlags::empty(), 0, size).unwrap();
    mounted.sync();
    assert_eq!(file.metadata().unwrap().len(), size);
    assert_eq!(file.metadata().unwrap().blocks() * 512, size);
    assert!(fs::read(&path).unwrap().iter().all(|b| *b == 0));
    // Beyond the end, the size stays.
    fallocate(&file, FallocateFlags::KEEP_SIZE, size, 8192).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size);

    let mut expected = content(1, size as usize);
    file.write_all_at(&expected, 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 5000, 100_000).unwrap();
    expected[5000..105_000].fill(0);
    fallocate(&file, FallocateFlags::ZERO_RANGE, 200_000, 50_000).unwrap();
    expected[200_000..250_000].fill(0);
    mounted.sync();
    assert!(fs::read(&path).unwrap() == expected);
    // Blocks 2 to 24 lie in the hole whole.
    assert_eq!(file.metadata().unwrap().blocks() * 512, size + 8192 - 23 * 4096);
    drop(file);
    mounted.unmount();

    let mounted = volume.mount();
    assert!(fs::read(&path).unwrap() == expected);
    mounted.unmount();
}

#[test]
fn mapped_memory_and_system_calls_see_each_others_writes() {
    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let file = create(&path);
    let mut expected = content(1, 100_000);
    file.write_all_at(&expected, 0).unwrap();
    with_mapped(file.as_fd(), 100_000, |memory| {
        assert!(memory == expected);
        file.write_all_at(b"by write", 50_000).unwrap();
        assert_eq!(&memory[50_000..50_008], b"by write");
        memory[70_000..70_009].copy_from_slice(b"by memory");
        let mut bytes = [0; 9];
        file.read_exact_at(&mut bytes, 70_000).unwrap();
        assert_eq!(&bytes, b"by memory");
    });
    write_mapped(file.as_fd(), 100_000, 99_990, b"msync");
    expected[50_000..50_008].copy_from_slice(b"by write");
    expected[70_000..70_009].copy_from_slice(b"by memory");
    expected[99_990..99_995].copy_from_slice(b"msync");
    drop(file);
    mounted.unmount();

    let mounted = volume.mount();
    assert!(fs::read(&path).unwrap() == expected);
    mounted.unmount();
}

#[test]
fn direct_io_and_cached_io_see_each_others_writes() {
    /// Memory that direct IO accepts.
    #[repr(C, align(4096))]
    struct Aligned([u8; 4 * 4096]);

    let volume = Volume::new(64);
    let mounted = volume.mount();
    let path = mounted.join("file");
    let cached = create(&path);
    cached.write_all_at(&[1; 5 * 4096], 0).unwrap();
    let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let mut memory = Box::new(Aligned([2; 4 * 4096]));
    direct.write_all_at(&memory.0, 4096).unwrap();
    let mut bytes = vec![0; 5 * 4096];
    cached.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..4096].iter().all(|b| *b == 1) && bytes[4096..].iter().all(|b| *b == 2));
    cached.write_all_at(&[3; 4096], 8192).unwrap();
    direct.read_exact_at(&mut memory.0, 4096).unwrap();
    assert!(memory.0[4096..8192].iter().all(|b| *b == 3) && memory.0[8192..].iter().all(|b| *b == 2));
    drop((cached, direct));
    mounted.unmount();

    let mounted = volume.mount();
    let bytes = fs::read(&path).unwrap();
    for (block, expected) in bytes.chunks(4096).zip([1, 2, 3, 2, 2]) {
        assert!(block.iter().all(|b| *b == expected));
    }
    assert_eq!(bytes.len(), 5 * 4096);
    mounted.unmount();
}
