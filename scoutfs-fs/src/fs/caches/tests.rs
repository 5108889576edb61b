// SPDX-License-Identifier: GPL-2.0-only
//! A kernel that has pages locked while its requests wait, between two mounts of one volume.

use core::time::Duration;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc as StdArc, Mutex};
use std::thread;
use std::time::Instant;
use std::vec::Vec;

use scoutfs_format::item::ROOT_INO;

use super::*;
use crate::counters::Counter;
use crate::fs::testing::{FILE, Pair};
use crate::node::Mount;

/// What waits this long waits for ever.
const FOREVER: Duration = Duration::from_secs(20);

/// A kernel that faults a page in when it is about to look names up again. It has the page locked until its request is answered, and
/// whoever drops pages meanwhile waits for it.
struct FaultingKernel {
    mount: StdArc<Mount>,
    ino: u64,
    /// It does so once, and says with which result.
    fault: Mutex<Option<Sender<Vec<u8>>>>,
    /// The page is not locked any more.
    unlocked: Mutex<Option<Receiver<()>>>,
    stuck: Sender<()>,
}

impl KernelCaches for FaultingKernel {
    fn forget_names(&self) {
        let Some(result) = self.fault.lock().unwrap().take() else { return };
        let (unlock, unlocked) = channel();
        *self.unlocked.lock().unwrap() = Some(unlocked);
        let (mount, ino) = (self.mount.clone(), self.ino);
        let waits = || mount.fs().store().counters.get(Counter::LockWait);
        let before = waits();
        let reader = mount.clone();
        thread::spawn(move || {
            let mut page = std::vec![0; 4096];
            let len = reader.fs().read(ino, 0, &mut page).unwrap();
            page.truncate(len);
            let _ = (unlock.send(()), result.send(page));
        });
        let start = Instant::now();
        while waits() == before && start.elapsed() < FOREVER {
            thread::yield_now();
        }
    }

    fn forget_attributes(&self, _: u64) -> bool {
        true
    }

    fn forget_pages(&self, _: u64, _: u64, _: u64) {
        if let Some(unlocked) = self.unlocked.lock().unwrap().take()
            && unlocked.recv_timeout(FOREVER).is_err()
        {
            self.stuck.send(()).unwrap();
        }
    }
}

/// What `read` sees that begins just when the lock goes back that the mount holds for reading, of a file that is open for writing there
/// or is not.
fn read_that_begins_when_the_lock_goes_back(open_for_writing: bool) {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    let ino = a.fs().create(ROOT_INO, b"file", &FILE).unwrap().ino;
    a.fs().write(ino, 0, b"first").unwrap();
    b.fs().open(ino, open_for_writing).unwrap();
    // Its pages are kept.
    let mut page = [0; 5];
    b.fs().read(ino, 0, &mut page).unwrap();
    // From now on both hold the lock for reading.
    a.fs().getattr(ino).unwrap();
    let (stuck, is_stuck) = channel();
    let (fault, faulted) = channel();
    let kernel: Box<dyn KernelCaches> = Box::new(FaultingKernel {
        mount: b.clone(),
        ino,
        fault: Mutex::new(Some(fault)),
        unlocked: Mutex::new(None),
        stuck,
    });
    b.fs().set_kernel_caches(Arc::new(kernel).unwrap());
    a.fs().write(ino, 0, b"later").unwrap();
    let seen = faulted.recv_timeout(FOREVER).expect("the read ends");
    assert!(
        is_stuck.try_recv().is_err(),
        "pages were to be dropped that a request has locked that waits for the lock"
    );
    // Whoever needs no stronger lock may be let in before the other writes.
    assert!(seen == b"later" || !open_for_writing && seen == b"first", "{seen:?}");
    b.fs().release(ino, open_for_writing);
}

#[test]
fn a_read_that_waits_for_a_lock_for_writing_does_not_keep_that_for_reading_from_going_back() {
    read_that_begins_when_the_lock_goes_back(true);
}

#[test]
fn a_read_whose_pages_are_being_dropped_is_let_in() {
    read_that_begins_when_the_lock_goes_back(false);
}

/// A kernel whose program opens a file to map it just when the lock of the file goes back, and which notes what pages it drops.
struct MappingKernel {
    mount: StdArc<Mount>,
    ino: u64,
    /// It does so once, and says when the file is open.
    open: Mutex<Option<Sender<()>>>,
    dropped: StdArc<Mutex<Vec<(u64, u64, u64)>>>,
}

impl KernelCaches for MappingKernel {
    fn forget_names(&self) {
        let Some(opened) = self.open.lock().unwrap().take() else { return };
        let (mount, ino) = (self.mount.clone(), self.ino);
        let waits = || mount.fs().store().counters.get(Counter::LockWait);
        let before = waits();
        let opener = mount.clone();
        thread::spawn(move || {
            opener.fs().open(ino, true).unwrap();
            let _ = opened.send(());
        });
        let start = Instant::now();
        while waits() == before && start.elapsed() < FOREVER {
            thread::yield_now();
        }
    }

    fn forget_attributes(&self, _: u64) -> bool {
        true
    }

    fn forget_pages(&self, ino: u64, first: u64, end: u64) {
        self.dropped.lock().unwrap().push((ino, first, end));
    }
}

/// Who waits for the lock to map a file that is open already changes no page yet: those that were kept under the lock for reading go with
/// it. And once it is mapped, pages go when others are to read the file.
#[test]
fn pages_that_were_kept_for_reading_go_though_somebody_is_about_to_map_the_file() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    let ino = a.fs().create(ROOT_INO, b"file", &FILE).unwrap().ino;
    a.fs().write(ino, 0, b"first").unwrap();
    b.fs().open(ino, false).unwrap();
    let mut page = [0; 4096];
    b.fs().read(ino, 0, &mut page).unwrap();
    // From now on both hold the lock for reading.
    a.fs().getattr(ino).unwrap();
    let dropped = StdArc::new(Mutex::new(Vec::new()));
    let (open, opened) = channel();
    let kernel: Box<dyn KernelCaches> = Box::new(MappingKernel {
        mount: b.clone(),
        ino,
        open: Mutex::new(Some(open)),
        dropped: dropped.clone(),
    });
    b.fs().set_kernel_caches(Arc::new(kernel).unwrap());
    a.fs().write(ino, 0, b"later").unwrap();
    assert_eq!(
        dropped.lock().unwrap().first(),
        Some(&(ino, 0, 4096)),
        "a page has stayed that another has changed"
    );
    opened.recv_timeout(FOREVER).expect("the file is opened");
    b.fs().read(ino, 0, &mut page).unwrap();
    assert_eq!(page[..5], *b"later");
    dropped.lock().unwrap().clear();
    a.fs().getattr(ino).unwrap();
    assert_eq!(
        *dropped.lock().unwrap(),
        [(ino, 0, 4096)],
        "a page has stayed that a program can change unseen"
    );
    b.fs().release(ino, true);
    b.fs().release(ino, false);
}

/// Who closes a file does not wait for its pages: they go when another is to read it, and those that come into the kernel later do not.
#[test]
fn pages_that_the_last_close_left_changed_go_with_the_lock_for_writing() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    let ino = b.fs().create(ROOT_INO, b"file", &FILE).unwrap().ino;
    b.fs().write(ino, 0, b"first").unwrap();
    let dropped = StdArc::new(Mutex::new(Vec::new()));
    let kernel: Box<dyn KernelCaches> =
        Box::new(MappingKernel { mount: b.clone(), ino, open: Mutex::new(None), dropped: dropped.clone() });
    b.fs().set_kernel_caches(Arc::new(kernel).unwrap());
    let read_elsewhere = || {
        let mut page = [0; 4096];
        b.fs().read(ino, 0, &mut page).unwrap();
        dropped.lock().unwrap().clear();
        a.fs().getattr(ino).unwrap();
        std::mem::take(&mut *dropped.lock().unwrap())
    };
    for dirty in [false, true] {
        b.fs().open(ino, true).unwrap();
        match dirty {
            true => b.fs().release_dirty(ino),
            false => b.fs().release(ino, true),
        }
        let want: &[_] = if dirty { &[(ino, 0, 4096)] } else { &[] };
        let progress = || b.fs().store().lock_table.revoke_progress();
        let before = progress();
        assert_eq!(read_elsewhere(), want, "dirty: {dirty}");
        assert!(progress() > before, "the server is to know that the mount gets on");
    }
    assert_eq!(read_elsewhere(), [], "they are gone already");
    // Also with a close that leaves none.
    b.fs().open(ino, true).unwrap();
    b.fs().open(ino, true).unwrap();
    b.fs().release_dirty(ino);
    b.fs().release(ino, true);
    assert_eq!(read_elsewhere(), []);
}

/// A kernel that remembers which inode a name is.
#[derive(Default)]
struct RememberingKernel(StdArc<Mutex<Vec<u64>>>);

impl KernelCaches for RememberingKernel {
    fn forget_names(&self) {
        self.0.lock().unwrap().clear();
    }

    fn forget_attributes(&self, _: u64) -> bool {
        true
    }

    fn forget_pages(&self, _: u64, _: u64, _: u64) {}
}

/// Invariant 15: when a directory was changed elsewhere no kernel uses a name of it without looking it up again; and giving the lock
/// back drops no reference: an inode that lost its name elsewhere is there until the kernel forgets it, and goes then.
#[test]
fn no_name_is_remembered_that_was_changed_elsewhere_and_revoking_deletes_nothing() {
    let pair = Pair::new();
    let (a, b) = (&pair.a, &pair.b);
    let names = StdArc::new(Mutex::new(Vec::new()));
    let kernel: Box<dyn KernelCaches> = Box::new(RememberingKernel(names.clone()));
    b.fs().set_kernel_caches(Arc::new(kernel).unwrap());
    let ino = a.fs().create(ROOT_INO, b"name", &FILE).unwrap().ino;
    a.fs().write(ino, 0, b"text").unwrap();
    a.fs().forget(ino, 1);
    assert_eq!(b.fs().lookup(ROOT_INO, b"name").unwrap().ino, ino);
    b.fs().open(ino, false).unwrap();
    names.lock().unwrap().push(ino);
    // A look from elsewhere leaves the name alone.
    a.fs().lookup(ROOT_INO, b"name").unwrap();
    a.fs().forget(ino, 1);
    assert_eq!(*names.lock().unwrap(), [ino]);
    a.fs().unlink(ROOT_INO, b"name").unwrap();
    assert!(names.lock().unwrap().is_empty(), "the name is gone, and remembered");
    let mut text = [0; 4];
    assert_eq!(b.fs().read(ino, 0, &mut text).unwrap(), 4);
    assert_eq!(b.fs().getattr(ino).unwrap().nlink, 0);
    b.fs().release(ino, false);
    b.fs().forget(ino, 1);
    assert!(a.fs().getattr(ino).is_err(), "the last one has closed it");
}
