// SPDX-License-Identifier: GPL-2.0-only
//! The FUSE layer under a real kernel: a filesystem in memory, mounted and used.
//!
//! Needs root, `/dev/fuse` and loop devices; without them the tests say so and do nothing.

mod fuse_memfs;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuse_memfs::{IOC_REVERSE, Knobs, Memfs};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;
use scoutfs_utils::fuse::loopdev::{LoopDevice, LoopOptions, backing_file};
use scoutfs_utils::fuse::{
    InitFlags, MountFlags, MountKind, MountOptions, Notifier, Session, SessionError, SessionOptions,
    ThreadOptions, UnmountMode, unmount,
};

/// Nothing in here takes longer; what does, hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that goes away with its content, and can hold a volume and a mount point.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("fuse-transport-{}-{}", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("mnt")).unwrap();
        File::create(path.join("volume")).unwrap().set_len(1 << 20).unwrap();
        Self(fs::canonicalize(path).unwrap())
    }

    fn volume(&self) -> PathBuf {
        self.0.join("volume")
    }

    fn mnt(&self) -> PathBuf {
        self.0.join("mnt")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Not remove_dir_all: nothing that is mounted here must be emptied.
        let _ = fs::remove_file(self.volume());
        let _ = fs::remove_dir(self.mnt());
        let _ = fs::remove_dir(&self.0);
    }
}

/// A mounted filesystem; unmounted in any case.
struct Mounted {
    fs: Arc<Memfs>,
    notifier: Notifier,
    server: Option<JoinHandle<Result<(), SessionError>>>,
    /// When it goes away, the watchdog ends.
    _watched: mpsc::Sender<()>,
    device: Option<LoopDevice>,
    place: Place,
}

fn is_possible() -> bool {
    let possible = rustix::process::geteuid().is_root()
        && Path::new("/dev/fuse").exists()
        && Path::new("/dev/loop-control").exists();
    if !possible {
        eprintln!("skipped: needs root, /dev/fuse and loop devices");
    }
    possible
}

fn options(kind: MountKind, mountpoint: PathBuf) -> SessionOptions {
    let mut options = SessionOptions::new(MountOptions::new(kind, mountpoint, "memfs"));
    options.want |= InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS;
    options
}

impl Mounted {
    /// None: this machine cannot.
    fn new(knobs: Knobs) -> Option<Self> {
        Self::with(knobs, |_| {})
    }

    fn with(knobs: Knobs, change: impl FnOnce(&mut SessionOptions)) -> Option<Self> {
        if !is_possible() {
            return None;
        }
        let place = Place::new();
        let device = LoopDevice::attach(&place.volume(), LoopOptions::default()).unwrap();
        let kind = MountKind::Block { device: device.path().to_owned(), block_size: 4096 };
        let mut options = options(kind, place.mnt());
        change(&mut options);
        Some(Self::mount(knobs, &options, Some(device), place))
    }

    fn mount(knobs: Knobs, options: &SessionOptions, device: Option<LoopDevice>, place: Place) -> Self {
        let fs = Arc::new(Memfs::new(knobs));
        let session = Session::mount(fs.clone(), options).unwrap();
        let notifier = session.notifier();
        let server = Some(std::thread::spawn(move || session.run()));
        // A mount that is not served would hang the test; an aborted one makes it fail.
        let (_watched, watchdog) = mpsc::channel::<()>();
        let mnt = place.mnt();
        std::thread::spawn(move || {
            if watchdog.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{} hangs", mnt.display());
                let _ = unmount(&mnt, UnmountMode::Abort);
            }
        });
        Self { fs, notifier, server, _watched, device, place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.mnt().join(name)
    }

    /// Unmounts and waits for the server's end.
    fn finish(&mut self) {
        unmount(&self.place.mnt(), UnmountMode::IfIdle).unwrap();
        self.server.take().unwrap().join().unwrap().unwrap();
        self.check();
    }

    fn check(&self) {
        assert_eq!(*self.fs.faults.lock().unwrap(), [""; 0]);
        assert!(self.fs.destroyed.load(SeqCst));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        if unmount(&self.place.mnt(), UnmountMode::IfIdle).is_err() {
            let _ = unmount(&self.place.mnt(), UnmountMode::Abort);
        }
        let result = server.join();
        if !std::thread::panicking() {
            result.unwrap().unwrap();
            self.check();
        }
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes that differ from page to page.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 4096 * 7 + i % 251) as u8).collect()
}

#[test]
fn what_is_written_is_read() {
    let Some(m) = Mounted::new(Knobs::default()) else { return };
    let data = pattern(3 << 20);
    let path = m.path("file");
    fs::write(&path, &data).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), data.len() as u64);
    assert_eq!(fs::read(&path).unwrap(), data);

    // Direct IO: one request of 1 MiB each way, in aligned buffers, the end of the file in the middle of a page.
    m.fs.largest_write.store(0, SeqCst);
    let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let mut block = AlignedBlock::new();
    block.bytes().copy_from_slice(&data[4096..4096 + (1 << 20)]);
    assert_eq!(direct.write_at(block.bytes(), 0).unwrap(), 1 << 20);
    assert_eq!(m.fs.largest_write.load(SeqCst), 1 << 20);
    block.bytes().fill(0);
    assert_eq!(direct.read_at(block.bytes(), 0).unwrap(), 1 << 20);
    assert!(block.bytes()[..] == data[4096..4096 + (1 << 20)]);
    direct.set_len(5000).unwrap();
    assert_eq!(direct.read_at(block.bytes(), 4096).unwrap(), 904);

    let file = OpenOptions::new().append(true).open(&path).unwrap();
    (&file).write_all(b"end").unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    assert!(m.fs.fsyncs.load(SeqCst) >= 1);
    assert_eq!(fs::read(&path).unwrap()[5000..], *b"end");
}

/// 1 MiB of memory at a multiple of 4096.
struct AlignedBlock(Vec<u8>);

impl AlignedBlock {
    fn new() -> Self {
        Self(vec![0; (1 << 20) + 4096])
    }

    fn bytes(&mut self) -> &mut [u8] {
        let start = self.0.as_ptr().align_offset(4096);
        &mut self.0[start..start + (1 << 20)]
    }
}

#[test]
fn names_can_be_made_moved_linked_and_removed() {
    let Some(mut m) = Mounted::new(Knobs::default()) else { return };
    fs::create_dir(m.path("dir")).unwrap();
    fs::write(m.path("a"), b"a").unwrap();
    assert_eq!(fs::create_dir(m.path("dir")).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    fs::rename(m.path("a"), m.path("dir/b")).unwrap();
    assert!(!m.path("a").exists());
    fs::hard_link(m.path("dir/b"), m.path("c")).unwrap();
    assert_eq!(fs::metadata(m.path("c")).unwrap().nlink(), 2);
    fs::write(m.path("d"), b"d").unwrap();
    let rename = |from: &str, to: &str, flags| {
        rustix::fs::renameat_with(rustix::fs::CWD, m.path(from), rustix::fs::CWD, m.path(to), flags)
    };
    assert_eq!(rename("d", "c", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename("d", "c", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(m.path("d")).unwrap(), b"a");
    assert_eq!(fs::read(m.path("c")).unwrap(), b"d");
    std::os::unix::fs::symlink("../elsewhere", m.path("link")).unwrap();
    assert_eq!(fs::read_link(m.path("link")).unwrap(), Path::new("../elsewhere"));
    assert_eq!(fs::remove_dir(m.path("dir")).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
    fs::remove_file(m.path("dir/b")).unwrap();
    fs::remove_dir(m.path("dir")).unwrap();

    // An open file outlives its name.
    let mut open = File::open(m.path("d")).unwrap();
    fs::remove_file(m.path("d")).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "a");
    let ino = open.metadata().unwrap().ino();
    drop(open);
    wait_until("the unlinked file's end", || m.fs.lookups(ino).is_none());
    m.finish();
}

#[test]
fn a_large_directory_lists_each_entry_once() {
    let Some(m) = Mounted::new(Knobs::default()) else { return };
    fs::create_dir(m.path("dir")).unwrap();
    let mut expected = BTreeSet::new();
    for i in 0..1000 {
        let name = format!("{i}-{}", "x".repeat(i % 200));
        File::create(m.path("dir").join(&name)).unwrap();
        expected.insert(name);
    }
    // Once by readdir alone, once with attributes (readdirplus).
    for plus in [false, true] {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(m.path("dir")).unwrap() {
            let entry = entry.unwrap();
            assert!(entry.file_type().unwrap().is_file());
            assert!(!plus || entry.metadata().unwrap().is_file());
            assert!(found.insert(entry.file_name().into_string().unwrap()));
        }
        assert!(found == expected);
    }
}

#[test]
fn attributes_xattrs_and_statfs_arrive() {
    let Some(m) = Mounted::new(Knobs::default()) else { return };
    let path = m.path("file");
    fs::write(&path, b"x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
    let time = std::time::UNIX_EPOCH - Duration::from_millis(1500);
    File::open(&path).unwrap().set_modified(time).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 12, 34));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-2, 500_000_000));

    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let statx = rustix::fs::statx(rustix::fs::CWD, &path, AtFlags::empty(), flags).unwrap();
    assert!(StatxFlags::from_bits_retain(statx.stx_mask).contains(StatxFlags::BTIME));
    assert!(statx.stx_btime.tv_sec > 0 && m.fs.statxs.load(SeqCst) > 0);

    let get = |name: &str, len: usize| {
        let mut value = vec![0; len];
        let got = rustix::fs::getxattr(&path, name, value.as_mut_slice())?;
        value.truncate(got);
        Ok::<_, Errno>((got, value))
    };
    let large = pattern(60_000);
    rustix::fs::setxattr(&path, "user.small", b"1", XattrFlags::CREATE).unwrap();
    rustix::fs::setxattr(&path, "user.large", &large, XattrFlags::empty()).unwrap();
    let again = rustix::fs::setxattr(&path, "user.small", b"2", XattrFlags::CREATE);
    assert_eq!(again, Err(Errno::EXIST));
    assert_eq!(get("user.small", 10), Ok((1, b"1".to_vec())));
    assert_eq!(rustix::fs::getxattr_query(&path, "user.large"), Ok(large.len()));
    assert_eq!(get("user.large", 100), Err(Errno::RANGE));
    assert_eq!(get("user.large", large.len()).unwrap().1, large);
    assert_eq!(get("user.none", 10), Err(Errno::NODATA));
    let mut names = vec![0; 100];
    let len = rustix::fs::listxattr(&path, names.as_mut_slice()).unwrap();
    assert_eq!(&names[..len], b"user.large\0user.small\0");
    rustix::fs::removexattr(&path, "user.small").unwrap();
    assert_eq!(get("user.small", 10), Err(Errno::NODATA));

    let statfs = rustix::fs::statvfs(m.place.mnt()).unwrap();
    assert_eq!((statfs.f_blocks, statfs.f_bavail, statfs.f_frsize, statfs.f_namemax), (1000, 800, 4096, 255));
}

#[test]
fn tmpfile_fallocate_seek_and_copy_work() {
    let Some(m) = Mounted::new(Knobs::default()) else { return };
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let fd: OwnedFd = rustix::fs::open(m.place.mnt(), flags, Mode::RUSR).unwrap();
    let mut file = File::from(fd);
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 10_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    file.write_at(b"here", 5000).unwrap();
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)), Ok(10_000));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(10_000)), Err(Errno::NXIO));
    let copy = OpenOptions::new().create_new(true).read(true).write(true).open(m.path("copy")).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let copied = rustix::fs::copy_file_range(&file, Some(&mut 4000), &copy, Some(&mut 100), 2000);
    assert_eq!(copied, Ok(2000));
    let mut text = [0; 4];
    copy.read_exact_at(&mut text, 1100).unwrap();
    assert_eq!(&text, b"here");
}

#[test]
fn a_mapped_file_shows_its_content() {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let Some(m) = Mounted::new(Knobs::default()) else { return };
    let data = pattern(1 << 20);
    fs::write(m.path("file"), &data).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(m.path("file")).unwrap();
    m.notifier.inval_inode(file.metadata().unwrap().ino(), 0, 0).unwrap();
    // SAFETY: a fresh mapping of a file that only this test changes; unmapped below, not used after.
    unsafe {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let map = mmap(std::ptr::null_mut(), data.len(), prot, MapFlags::SHARED, &file, 0).unwrap();
        let bytes = std::slice::from_raw_parts_mut(map.cast::<u8>(), data.len());
        assert!(bytes == data);
        bytes[70_000] = 99;
        rustix::mm::msync(map, data.len(), rustix::mm::MsyncFlags::SYNC).unwrap();
        munmap(map, data.len()).unwrap();
    }
    m.notifier.inval_inode(file.metadata().unwrap().ino(), 0, 0).unwrap();
    assert_eq!(fs::read(m.path("file")).unwrap()[70_000], 99);
}

#[test]
fn sync_returns_after_syncfs_was_answered() {
    let knobs = Knobs { syncfs_delay: Duration::from_millis(200), ..Knobs::default() };
    let Some(m) = Mounted::new(knobs) else { return };
    fs::write(m.path("file"), b"x").unwrap();
    let root = File::open(m.place.mnt()).unwrap();
    let before = m.fs.syncs.load(SeqCst);
    rustix::fs::syncfs(&root).unwrap();
    let after_syncfs = m.fs.syncs.load(SeqCst);
    assert!(after_syncfs > before);
    rustix::fs::sync();
    assert!(m.fs.syncs.load(SeqCst) > after_syncfs);
}

#[test]
fn umount_returns_after_destroy() {
    let knobs = Knobs { destroy_delay: Duration::from_millis(200), ..Knobs::default() };
    let Some(mut m) = Mounted::new(knobs) else { return };
    fs::write(m.path("file"), b"x").unwrap();
    let device = m.device.as_ref().unwrap().path().to_owned();
    let line = format!("{} {} fuseblk.memfs ", device.display(), m.place.mnt().display());
    assert!(fs::read_to_string("/proc/mounts").unwrap().contains(&line));
    assert_eq!(backing_file(&device).unwrap(), Some(m.place.volume()));
    let number = device.to_str().unwrap().strip_prefix("/dev/loop").unwrap();
    let bdi = format!("/sys/class/bdi/7:{number}-fuseblk/read_ahead_kb");
    assert_eq!(fs::read_to_string(bdi).unwrap().trim(), "4096");

    // A busy mount stays.
    let open = File::open(m.path("file")).unwrap();
    let busy = unmount(&m.place.mnt(), UnmountMode::IfIdle).unwrap_err();
    assert_eq!(busy.raw_os_error(), Some(libc::EBUSY));
    assert!(!m.fs.destroyed.load(SeqCst));
    drop(open);
    unmount(&m.place.mnt(), UnmountMode::IfIdle).unwrap();
    assert!(m.fs.destroyed.load(SeqCst));
    m.server.take().unwrap().join().unwrap().unwrap();

    // The loop device goes with its last user.
    drop(m.device.take());
    wait_until("the loop device's end", || backing_file(&device).unwrap() != Some(m.place.volume()));
}

#[test]
fn a_mount_without_a_device_serves_and_is_destroyed() {
    if !is_possible() {
        return;
    }
    let place = Place::new();
    let options = options(MountKind::Plain { source: "nothing".to_owned() }, place.mnt());
    let mut m = Mounted::mount(Knobs::default(), &options, None, place);
    fs::write(m.path("file"), b"x").unwrap();
    assert_eq!(fs::read(m.path("file")).unwrap(), b"x");
    m.finish();
    assert!(m.fs.destroyed.load(SeqCst));
}

#[test]
fn a_second_mount_of_a_device_is_refused_and_leaves_the_first_alone() {
    let Some(m) = Mounted::new(Knobs::default()) else { return };
    fs::write(m.path("file"), b"x").unwrap();
    let other = Place::new();
    let device = m.device.as_ref().unwrap().path().to_owned();
    let options = options(MountKind::Block { device: device.clone(), block_size: 4096 }, other.mnt());
    let error = Session::mount(Arc::new(Memfs::new(Knobs::default())), &options).err().unwrap();
    assert!(matches!(&error, SessionError::AlreadyMounted { device: named } if *named == device), "{error}");
    assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(other.mnt().to_str().unwrap()));
    assert_eq!(fs::read(m.path("file")).unwrap(), b"x");
}

#[test]
fn a_session_that_never_runs_unmounts() {
    if !is_possible() {
        return;
    }
    let place = Place::new();
    let device = LoopDevice::attach(&place.volume(), LoopOptions::default()).unwrap();
    let kind = MountKind::Block { device: device.path().to_owned(), block_size: 4096 };
    let session = Session::mount(Arc::new(Memfs::new(Knobs::default())), &options(kind, place.mnt()));
    assert!(session.unwrap().negotiated().flags.contains(InitFlags::BIG_WRITES));
    assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(place.mnt().to_str().unwrap()));
}

/// Sets an OFD lock of the whole file.
fn lock(file: &File, command: libc::c_int, typ: libc::c_int) -> Result<(), Option<i32>> {
    // SAFETY: a plain struct of numbers, for which zero is a value.
    let mut flock: libc::flock = unsafe { std::mem::zeroed() };
    flock.l_type = typ as libc::c_short;
    // SAFETY: the command takes a pointer to a `flock`.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut flock) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error()),
    }
}

fn open_rw(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

extern "C" fn do_nothing(_: libc::c_int) {}

#[test]
fn a_signal_ends_the_wait_for_a_lock() {
    let Some(m) = Mounted::new(Knobs::default()) else { return };
    fs::write(m.path("file"), b"x").unwrap();
    let holder = open_rw(&m.path("file"));
    lock(&holder, libc::F_OFD_SETLK, libc::F_WRLCK).unwrap();
    let other = open_rw(&m.path("file"));
    assert_eq!(lock(&other, libc::F_OFD_SETLK, libc::F_WRLCK), Err(Some(libc::EAGAIN)));

    // SAFETY: a handler that does nothing, so that the signal interrupts (without SA_RESTART) and does not kill.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = do_nothing as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let (send, receive) = mpsc::channel();
    let done = Arc::new(AtomicBool::new(false));
    let waiter_done = Arc::clone(&done);
    let waiter = std::thread::spawn(move || {
        // SAFETY: says who this thread is.
        send.send(unsafe { libc::pthread_self() }).unwrap();
        let result = lock(&other, libc::F_OFD_SETLKW, libc::F_WRLCK);
        waiter_done.store(true, SeqCst);
        result
    });
    let thread = receive.recv().unwrap();
    wait_until("the wait", || m.fs.waiting() == 1);
    std::thread::sleep(Duration::from_millis(50));
    assert!(!done.load(SeqCst));
    // SAFETY: the thread has not been joined yet.
    assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
    assert_eq!(waiter.join().unwrap(), Err(Some(libc::EINTR)));
    assert_eq!(m.fs.waiting(), 0);
    lock(&holder, libc::F_OFD_SETLK, libc::F_UNLCK).unwrap();
}

#[test]
fn more_waiting_locks_than_threads_do_not_block_the_unlock() {
    let few = |options: &mut SessionOptions| {
        let idle = Duration::from_millis(100);
        options.threads =
            ThreadOptions { readers: 1, max_threads: 2, max_lock_waiters: 12, idle, ..options.threads };
    };
    let Some(m) = Mounted::with(Knobs::default(), few) else { return };
    fs::write(m.path("file"), b"x").unwrap();
    let holder = open_rw(&m.path("file"));
    lock(&holder, libc::F_OFD_SETLK, libc::F_WRLCK).unwrap();
    std::thread::scope(|s| {
        let path = m.path("file");
        let waiters: Vec<_> = (0..12)
            .map(|_| {
                let file = open_rw(&path);
                s.spawn(move || {
                    lock(&file, libc::F_OFD_SETLKW, libc::F_WRLCK)?;
                    lock(&file, libc::F_OFD_SETLK, libc::F_UNLCK)
                })
            })
            .collect();
        wait_until("the wait", || m.fs.waiting() == 12);
        // One more is too many, and all else goes on.
        let extra = open_rw(&path);
        assert_eq!(lock(&extra, libc::F_OFD_SETLKW, libc::F_WRLCK), Err(Some(libc::ENOLCK)));
        fs::write(m.path("other"), b"y").unwrap();
        lock(&holder, libc::F_OFD_SETLK, libc::F_UNLCK).unwrap();
        for waiter in waiters {
            waiter.join().unwrap().unwrap();
        }
    });
    // The threads of the crowd have ended or are parked; the mount still serves.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(fs::read(m.path("other")).unwrap(), b"y");
}

#[test]
fn handlers_that_wait_for_each_other_all_get_a_thread() {
    let crowd = 24;
    let Some(m) = Mounted::new(Knobs { crowd, ..Knobs::default() }) else { return };
    std::thread::scope(|s| {
        let waiters: Vec<_> = (0..crowd)
            .map(|i| m.path(&format!("crowd{i}")))
            .map(|path| s.spawn(|| fs::metadata(path)))
            .collect();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap().unwrap_err().raw_os_error(), Some(libc::ENOENT));
        }
    });
}

#[test]
fn an_ioctl_carries_data_both_ways() {
    let Some(m) = Mounted::new(Knobs::default()) else { return };
    fs::write(m.path("file"), b"x").unwrap();
    for path in [m.path("file"), m.place.mnt()] {
        let file = File::open(path).unwrap();
        let mut data = *b"0123456789abcdef";
        let call = |command: u32, data: &mut [u8; 16]| {
            // SAFETY: the commands used here read and write 16 bytes.
            unsafe { libc::ioctl(file.as_raw_fd(), command as libc::Ioctl, data.as_mut_ptr()) }
        };
        assert_eq!(call(IOC_REVERSE, &mut data), 16);
        assert_eq!(&data, b"fedcba9876543210");
        assert_eq!(call(IOC_REVERSE + 1, &mut data), -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOTTY));
    }
}

#[test]
fn a_panic_in_a_handler_is_an_io_error_and_no_more() {
    let Some(m) = Mounted::new(Knobs::default()) else { return };
    for _ in 0..10 {
        let error = fs::metadata(m.path("panic")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
    fs::write(m.path("file"), b"x").unwrap();
    assert_eq!(fs::read(m.path("file")).unwrap(), b"x");
}

#[test]
fn names_that_are_not_text_arrive_unchanged() {
    let Some(m) = Mounted::new(Knobs::default()) else { return };
    let name = OsString::from_vec((1..=255).filter(|b| *b != b'/').collect());
    fs::write(m.place.mnt().join(&name), b"x").unwrap();
    let found: Vec<_> = fs::read_dir(m.place.mnt()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(found, [name]);
}

/// Given to the child of the test below: where it mounts.
const CHILD_PLACE: &str = "FUSE_TRANSPORT_CHILD_PLACE";

/// Not a test of its own: the child of the next one. Mounts, and unmounts with a `destroy` that does not return.
#[test]
#[ignore = "is run by another test"]
fn child_that_is_killed_while_it_unmounts() {
    let Some(path) = std::env::var_os(CHILD_PLACE) else { return };
    let place = std::mem::ManuallyDrop::new(Place(path.into()));
    let device = LoopDevice::attach(&place.volume(), LoopOptions::default()).unwrap();
    let kind = MountKind::Block { device: device.path().to_owned(), block_size: 4096 };
    let knobs = Knobs { destroy_delay: Duration::from_secs(3600), ..Knobs::default() };
    let session = Session::mount(Arc::new(Memfs::new(knobs)), &options(kind, place.mnt())).unwrap();
    let _server = std::thread::spawn(move || session.run());
    // The parent looks at the mount before it says go.
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let _ = unmount(&place.mnt(), UnmountMode::IfIdle);
}

/// A child that is killed in any case.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Aborts the FUSE connection of a loop device, whatever state it is in.
fn abort_connection(place: &Place, device: &Path) {
    let number = rustix::fs::stat(device).unwrap().st_rdev;
    let id = (libc::major(number) << 20) | libc::minor(number);
    rustix::mount::mount("none", place.mnt(), "fusectl", MountFlags::empty(), None).unwrap();
    let _ = fs::write(place.mnt().join(id.to_string()).join("abort"), "1");
    rustix::mount::unmount(place.mnt(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[test]
fn a_process_that_is_killed_while_it_unmounts_ends_and_so_does_its_mount() {
    if !is_possible() {
        return;
    }
    let place = Place::new();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child_that_is_killed_while_it_unmounts"])
        .env(CHILD_PLACE, &place.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let mut child = Killed(child.unwrap());
    let volume = place.volume();
    let attached = || {
        let devices = fs::read_dir("/dev").unwrap().map(|entry| entry.unwrap().path());
        let mut loops = devices.filter(|path| path.to_string_lossy().starts_with("/dev/loop"));
        loops.find(|path| backing_file(path).is_ok_and(|file| file.as_ref() == Some(&volume)))
    };
    let mounted = || fs::read_to_string("/proc/mounts").unwrap().contains(place.mnt().to_str().unwrap());
    wait_until("the mount", || attached().is_some() && mounted());
    let device = attached().unwrap();
    child.0.stdin.as_ref().unwrap().write_all(&[1]).unwrap();
    wait_until("the unmount", || !mounted());
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(child.0.try_wait().unwrap(), None, "destroy has not returned");
    child.0.kill().unwrap();
    let begin = Instant::now();
    while child.0.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(10) {
            // Otherwise a sync would hang on this machine from now on.
            abort_connection(&place, &device);
            panic!("the process hangs in its unmount");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    wait_until("the loop device's end", || attached().is_none());
}

/// Whether this kernel is at least the given version.
fn kernel_is(major: u32, minor: u32) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

#[test]
fn the_kernel_forgets_what_it_is_told_to() {
    let Some(m) = Mounted::new(Knobs::default()) else { return };
    fs::write(m.path("file"), b"old").unwrap();
    let read = || fs::read_to_string(m.path("file")).unwrap();
    assert_eq!(read(), "old");
    let ino = m.fs.scribble(b"file", b"newer");
    assert_eq!(read(), "old");
    m.notifier.inval_inode(ino, 0, 0).unwrap();
    assert_eq!(read(), "newer");

    let exists = |name: &str| m.path(name).exists();
    m.fs.rename_secretly(b"file", b"other");
    assert!(exists("file"));
    m.notifier.inval_entry(1, b"file").unwrap();
    assert!(!exists("file") && exists("other"));
    m.fs.rename_secretly(b"other", b"file");
    assert!(!exists("file") && exists("other"));
    m.notifier.expire_entry(1, b"file").unwrap();
    m.notifier.expire_entry(1, b"other").unwrap();
    assert!(exists("file") && !exists("other"));

    // What is not there is no error.
    m.notifier.inval_entry(1, b"never seen").unwrap();
    m.notifier.inval_inode(12345, 0, 0).unwrap();

    if kernel_is(6, 16) {
        m.fs.rename_secretly(b"file", b"third");
        assert!(exists("file"));
        m.notifier.inc_epoch().unwrap();
        assert!(!exists("file") && exists("third"));
    }
    if kernel_is(6, 18) && m.fs.lookups(ino).is_some_and(|n| n > 0) {
        m.notifier.prune(&[ino]).unwrap();
        wait_until("the forget", || m.fs.lookups(ino) == Some(0));
    }
}
