// SPDX-License-Identifier: GPL-2.0-only
//! `/sys/fs/scoutfs/FSID.RID/`: one folder for each mount.
//!
//! | file | what |
//! | --- | --- |
//! | `fsid`, `rid` | the volume and the mount, 16 hexadecimal digits each |
//! | `format_version`, `format_hash` | of the module, and so of the volume |
//! | `server_addr` | where this node may serve; empty if it may not |
//! | `options` | mount options, each in a line of its own |
//! | `quorum` | `role` leader, follower (also when nobody leads yet), deposed or none (it has no server address); of a leader its voter `slot` and `term` |
//! | `lease_ms` | what is left of the mount's lease |
//! | `counters` | what the mount has done, a name and a number a line |
//!
//! A folder is removed, which waits for who reads in it, before its volume is left; its memory goes with the kernel's last reference.

use core::fmt::{self, Write};
use core::mem::{offset_of, zeroed};
use core::ptr::{addr_of_mut, null_mut};

use kernel::bindings;
use kernel::ffi::c_char;
use scoutfs_env::{try_box, Box};
use scoutfs_fs::Rank;

use super::{Table, Volume};
use crate::kobj::error::{check, Errno, Result};
use crate::kobj::text::Text;

/// `/sys/fs/scoutfs`, as long as it lives.
pub(super) struct Root(*mut bindings::kobject);

// SAFETY: a kobject may be used by any thread.
unsafe impl Send for Root {}
// SAFETY: as above.
unsafe impl Sync for Root {}

impl Root {
    pub(super) fn new() -> kernel::error::Result<Self> {
        // SAFETY: the name is terminated and the parent the kernel's.
        let root = unsafe { bindings::kobject_create_and_add(c"scoutfs".as_ptr().cast(), bindings::fs_kobj) };
        if root.is_null() {
            return Err(kernel::error::code::ENOMEM);
        }
        Ok(Root(root))
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::kobject {
        self.0
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // SAFETY: made in `new`. All folders are gone.
        unsafe { bindings::kobject_put(self.0) };
    }
}

/// What a folder's kobject is a part of.
struct Node {
    kobj: bindings::kobject,
    /// Alive as long as the folder is there.
    volume: *const Volume,
}

/// The folder of a mount, as long as it lives.
pub(super) struct Folder(*mut Node);

// SAFETY: a kobject may be used by any thread.
unsafe impl Send for Folder {}
// SAFETY: as above.
unsafe impl Sync for Folder {}

impl Folder {
    /// # Safety
    ///
    /// The volume lives longer than this; the root is `/sys/fs/scoutfs`.
    pub(super) unsafe fn new(root: *mut bindings::kobject, volume: *const Volume) -> Result<Self> {
        // SAFETY: zeros are what a kobject is before it is initialized.
        let node = Box::into_raw(try_box(Node { kobj: unsafe { zeroed() }, volume })?);
        // SAFETY: by the contract the volume is alive.
        let store = unsafe { (*volume).mount.fs().store() };
        let name = Text::<40>::of(format_args!("{:016x}.{:016x}\0", store.fsid(), store.rid()));
        // SAFETY: the node is new, and lives until its release. The format takes a terminated text.
        unsafe {
            let kobj = addr_of_mut!((*node).kobj);
            let name = name.as_bytes().as_ptr();
            let added = bindings::kobject_init_and_add(kobj, &TYPE.0, root, c"%s".as_ptr().cast(), name);
            if let Err(e) = check(added) {
                bindings::kobject_put(kobj);
                return Err(e);
            }
        }
        Ok(Folder(node))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // SAFETY: made in `new`. After the first nobody reads in it.
        unsafe {
            let kobj = addr_of_mut!((*self.0).kobj);
            bindings::kobject_del(kobj);
            bindings::kobject_put(kobj);
        }
    }
}

/// # Safety
///
/// The kobject is that of a node.
unsafe fn node_of(kobj: *mut bindings::kobject) -> *mut Node {
    // SAFETY: by the contract.
    unsafe { kobj.byte_sub(offset_of!(Node, kobj)).cast() }
}

unsafe extern "C" fn release(kobj: *mut bindings::kobject) {
    // SAFETY: the last reference of a node that was given up in `Folder::new`.
    drop(unsafe { Box::from_raw(node_of(kobj)) });
}

static TYPE: Table<bindings::kobj_type> = Table(bindings::kobj_type {
    release: Some(release),
    sysfs_ops: &OPS,
    default_groups: GROUPS.0.as_ptr().cast_mut(),
    // SAFETY: every member is an option of a function.
    ..unsafe { zeroed() }
});

static OPS: bindings::sysfs_ops = bindings::sysfs_ops { show: Some(show), store: None };

static GROUPS: Table<[*const bindings::attribute_group; 2]> = Table([&GROUP.0, null_mut()]);

static GROUP: Table<bindings::attribute_group> = Table(bindings::attribute_group {
    __bindgen_anon_2: bindings::attribute_group__bindgen_ty_2 { attrs_const: ATTRIBUTES.0.as_ptr() },
    // SAFETY: every member is an option of a function, a pointer or a number.
    ..unsafe { zeroed() }
});

const fn file(name: &'static core::ffi::CStr) -> Table<bindings::attribute> {
    // A kernel with lockdep has more in it.
    // SAFETY: zero is valid for all members: numbers and pointers.
    #[allow(clippy::needless_update)]
    Table(bindings::attribute { name: name.as_ptr().cast(), mode: 0o444, ..unsafe { zeroed() } })
}

static FSID: Table<bindings::attribute> = file(c"fsid");
static RID: Table<bindings::attribute> = file(c"rid");
static VERSION: Table<bindings::attribute> = file(c"format_version");
static HASH: Table<bindings::attribute> = file(c"format_hash");
static ADDRESS: Table<bindings::attribute> = file(c"server_addr");
static OPTIONS: Table<bindings::attribute> = file(c"options");
static QUORUM: Table<bindings::attribute> = file(c"quorum");
static LEASE: Table<bindings::attribute> = file(c"lease_ms");
static COUNTERS: Table<bindings::attribute> = file(c"counters");

static ATTRIBUTES: Table<[*const bindings::attribute; 10]> = Table([
    &FSID.0,
    &RID.0,
    &VERSION.0,
    &HASH.0,
    &ADDRESS.0,
    &OPTIONS.0,
    &QUORUM.0,
    &LEASE.0,
    &COUNTERS.0,
    null_mut(),
]);

/// The page that a file's content is written into; what does not fit is left out.
struct Page<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl Write for Page<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

unsafe extern "C" fn show(
    kobj: *mut bindings::kobject,
    attribute: *mut bindings::attribute,
    page: *mut c_char,
) -> isize {
    // SAFETY: the kernel gives a folder of ours, which is there until this returns, and a page.
    let (volume, bytes) = unsafe {
        let bytes = core::slice::from_raw_parts_mut(page.cast::<u8>(), bindings::PAGE_SIZE);
        (&*(*node_of(kobj)).volume, bytes)
    };
    let mut page = Page { bytes, len: 0 };
    match write(volume, attribute, &mut page) {
        Ok(()) => page.len as isize,
        Err(_) if page.len > 0 => page.len as isize,
        Err(_) => Errno::INVAL.negative() as isize,
    }
}

/// Writes the content of a file.
fn write(volume: &Volume, attribute: *const bindings::attribute, page: &mut Page<'_>) -> fmt::Result {
    let (fs, store) = (volume.mount.fs(), volume.mount.fs().store());
    let is = |other: &'static Table<bindings::attribute>| core::ptr::eq(attribute, &other.0);
    if is(&FSID) {
        writeln!(page, "{:016x}", store.fsid())
    } else if is(&RID) {
        writeln!(page, "{:016x}", store.rid())
    } else if is(&VERSION) {
        writeln!(page, "{}", scoutfs_format::FORMAT_VERSION)
    } else if is(&HASH) {
        writeln!(page, "{:016x}", scoutfs_format::FORMAT_HASH)
    } else if is(&ADDRESS) {
        match volume.options.server_addr {
            Some(address) => writeln!(page, "{address}"),
            None => writeln!(page),
        }
    } else if is(&OPTIONS) {
        let mut text = Text::<256>::EMPTY;
        volume.options.write(&mut text)?;
        let text = core::str::from_utf8(text.as_bytes()).unwrap_or("");
        text.split(',').skip(1).try_for_each(|option| writeln!(page, "{option}"))
    } else if is(&QUORUM) {
        match volume.mount.rank() {
            Some(Rank::Leads { slot, term }) => writeln!(page, "role leader\nslot {slot}\nterm {term}"),
            Some(Rank::Follower) => writeln!(page, "role follower"),
            Some(Rank::Lost) => writeln!(page, "role deposed"),
            None => writeln!(page, "role none"),
        }
    } else if is(&LEASE) {
        writeln!(page, "{}", store.lease_left().as_millis())
    } else {
        // An error means that the page is full.
        fs.for_each_counter(&mut |name, value| {
            let _ = writeln!(page, "{name} {value}");
            Ok(())
        })
        .map_err(|_| fmt::Error)
    }
}
