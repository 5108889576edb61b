// SPDX-License-Identifier: GPL-2.0-only
//! The core's locks as lockdep sees them, in a kernel that has it.
//!
//! The kernel's note of a lock lies in the lock, and is made when it is taken first: twice, should two threads come together, which says
//! the same. Classes are places in the module's data, which lockdep forgets with the module. It wants one name for each.

use core::ffi::c_void;
use core::mem::size_of;
use core::pin::Pin;

use kernel::bindings;
use kernel::ffi::{c_char, c_int};
use kernel::sync::global_lock;

use crate::kobj::text::Text;

/// More classes than this share a name, of which lockdep complains.
const MAX_CLASSES: usize = 256;

/// The place of a lock's making, cut if it is long, and a zero.
type Name = Text<64>;

/// The names of classes.
struct Names {
    /// What stands for a class, and its name.
    classes: [(usize, Name); MAX_CLASSES],
    len: usize,
}

global_lock! {
    // SAFETY: initialized before the core is called.
    unsafe(uninit) static NAMES: SpinLock<Names> =
        Names { classes: [const { (0, Name::EMPTY) }; MAX_CLASSES], len: 0 };
}

/// To be called once, before the core is called.
pub(crate) fn init() {
    // SAFETY: by the contract.
    unsafe { NAMES.init() };
}

/// A terminated name, which stays.
fn name_of(class: usize, file: &str, line: u32) -> *const c_char {
    let mut names = NAMES.lock();
    let at = names.classes[..names.len].iter().position(|(known, _)| *known == class);
    let at = at.unwrap_or_else(|| {
        let at = names.len.min(MAX_CLASSES - 1);
        // What matters is behind.
        let from = file.len().saturating_sub(48);
        let file = file.get(from..).unwrap_or(file);
        names.classes[at] = (class, Name::of(format_args!("{file}:{line}\0")));
        names.len = at + 1;
        at
    });
    names.classes[at].1.as_bytes().as_ptr().cast()
}

/// Words that the core has for the kernel's note.
type Notes = [usize; 8];

const _: () = assert!(size_of::<bindings::lockdep_map>() <= size_of::<Notes>());

/// What lockdep shows as the place where a lock is taken; the traces in its reports tell more.
fn here() -> usize {
    scoutfs_host_lock_given_up as *const () as usize
}

/// See `scoutfs_env`.
///
/// # Safety
///
/// As the hook says.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_lock_taken(
    notes: *mut Notes,
    class: *const c_void,
    file: *const u8,
    file_len: usize,
    line: u32,
    nth: u32,
    shared: u32,
    tried: u32,
) {
    let map = notes.cast::<bindings::lockdep_map>();
    // SAFETY: by the contract the notes are ours and zeros at first, the class is an address in the module's data, and the file is text.
    // Of a class lockdep uses only the address.
    unsafe {
        if (&raw const (*map).key).read_volatile().is_null() {
            let file = core::str::from_utf8_unchecked(core::slice::from_raw_parts(file, file_len));
            let name = name_of(class.addr(), file, line);
            bindings::lockdep_init_map_type(
                map,
                name,
                class.cast_mut().cast(),
                0,
                bindings::lockdep_wait_type_LD_WAIT_SLEEP as u8,
                bindings::lockdep_wait_type_LD_WAIT_INV as u8,
                bindings::lockdep_lock_type_LD_LOCK_NORMAL as u8,
            );
        }
        bindings::lock_acquire(map, nth, tried as c_int, shared as c_int, 1, core::ptr::null_mut(), here());
    }
}

/// See `scoutfs_env`.
///
/// # Safety
///
/// As the hook says.
#[no_mangle]
unsafe extern "C" fn scoutfs_host_lock_given_up(notes: *mut Notes) {
    // SAFETY: by the contract the lock was taken by this thread.
    unsafe { bindings::lock_release(notes.cast(), here()) };
}
