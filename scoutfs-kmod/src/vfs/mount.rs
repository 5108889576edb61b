// SPDX-License-Identifier: GPL-2.0-only
//! Super blocks: mounting, remounting, syncing, unmounting.

use core::ffi::{c_int, c_void, CStr};
use core::mem::zeroed;
use core::ptr::null_mut;
use core::sync::atomic::Ordering;

use kernel::bindings;
use scoutfs_env::device::BlockDevice;
use scoutfs_env::net::Network;
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::{thread, try_box, Arc, Box};
use scoutfs_format::block::SECTORS_PER_BLOCK;
use scoutfs_format::item::{MAX_NAME_LEN, ROOT_INO};
use scoutfs_fs::fs::KernelCaches;
use scoutfs_fs::{Cancel, Error, Mount, MountOptions};
use scoutfs_server::DeathOracle;

use super::caches::{Caches, Dropper};
use super::options::{Options, Parsed};
use super::shrinker::Shrinker;
use super::sysfs::Folder;
use super::{dir, inode, volume, xattr, Volume, ROOT};
use crate::ffi;
use crate::host::device::Device;
use crate::host::network::{Namespace, Tcp};
use crate::host::process::Identity;
use crate::kobj::error::{check, code, Errno, Result};
use crate::kobj::folio::PAGE;
use crate::kobj::nofs::NoFs;
use crate::kobj::text::Text;

/// "scou", for `statfs`.
const MAGIC: usize = 0x7363_6f75;
const BLOCK_BYTES: i32 = 4096;
/// The kernel's answer for an option that is not one of ours.
const ENOPARAM: c_int = 519;

static CONTEXT_OPS: ffi::fs_context_operations = ffi::fs_context_operations {
    free: Some(free_context),
    parse_param: Some(parse_param),
    get_tree: Some(get_tree),
    reconfigure: Some(reconfigure),
    // SAFETY: every member is an option of a function.
    ..unsafe { zeroed() }
};

static SUPER_OPS: bindings::super_operations = bindings::super_operations {
    evict_inode: Some(inode::evict),
    put_super: Some(put_super),
    umount_begin: Some(umount_begin),
    sync_fs: Some(sync_fs),
    freeze_fs: Some(freeze_fs),
    statfs: Some(statfs),
    show_options: Some(show_options),
    // SAFETY: every member is an option of a function.
    ..unsafe { zeroed() }
};

/// Begins a mount, or a remount.
pub(super) unsafe extern "C" fn init_fs_context(fc: *mut bindings::fs_context) -> c_int {
    let fc = fc.cast::<ffi::fs_context>();
    // SAFETY: the VFS gives a new context; one with a root is for changing a mount of ours, which has options already.
    let options = unsafe {
        let root = (*fc).root;
        if root.is_null() {
            Options::new()
        } else {
            volume((*root).d_sb).options
        }
    };
    let Ok(options) = try_box(options) else { return Errno::NOMEM.negative() };
    // SAFETY: the VFS gives a context that is ours to fill.
    unsafe {
        (*fc).fs_private = Box::into_raw(options).cast();
        (*fc).ops = &CONTEXT_OPS;
    }
    0
}

unsafe extern "C" fn free_context(fc: *mut ffi::fs_context) {
    // SAFETY: set in `init_fs_context`, and used up here.
    unsafe {
        let options = (*fc).fs_private.cast::<Options>();
        if !options.is_null() {
            drop(Box::from_raw(options));
        }
    }
}

/// The options of a context.
///
/// # Safety
///
/// The context was begun by `init_fs_context` and is not used by anybody else meanwhile.
unsafe fn options_of<'a>(fc: *mut ffi::fs_context) -> &'a mut Options {
    // SAFETY: by the contract.
    unsafe { &mut *(*fc).fs_private.cast::<Options>() }
}

/// Tells who mounts why it fails.
///
/// # Safety
///
/// The context is alive.
unsafe fn complain(fc: *mut ffi::fs_context, why: core::fmt::Arguments<'_>) {
    let text = Text::<256>::of(why);
    let text = text.as_bytes();
    // SAFETY: the format takes a length and a text.
    unsafe {
        ffi::logfc(
            (*fc).log.log,
            null_mut(),
            b'e',
            c"scoutfs: %.*s".as_ptr().cast(),
            text.len() as c_int,
            text.as_ptr(),
        );
    }
}

unsafe extern "C" fn parse_param(fc: *mut ffi::fs_context, param: *mut ffi::fs_parameter) -> c_int {
    // SAFETY: the VFS gives a context of ours and a parameter whose key, and value if it is one of text, are terminated.
    unsafe {
        let source = ffi::vfs_parse_fs_param_source(fc, param);
        if source != -ENOPARAM {
            return source;
        }
        let name = CStr::from_ptr((*param).key.cast()).to_bytes();
        let value = match (*param).type_() {
            ffi::fs_value_type_fs_value_is_string => {
                let text = (*param).__bindgen_anon_1.string;
                (!text.is_null()).then(|| CStr::from_ptr(text.cast()).to_bytes())
            }
            ffi::fs_value_type_fs_value_is_flag => None,
            _ => return Errno::INVAL.negative(),
        };
        match options_of(fc).parse(name, value) {
            Parsed::Taken => 0,
            Parsed::Unknown => -ENOPARAM,
            Parsed::Wrong(why) => {
                complain(fc, format_args!("{why}"));
                Errno::INVAL.negative()
            }
        }
    }
}

unsafe extern "C" fn get_tree(fc: *mut ffi::fs_context) -> c_int {
    // SAFETY: the VFS gives a context of ours.
    unsafe { ffi::get_tree_bdev(fc, Some(fill_super)) }
}

unsafe extern "C" fn fill_super(sb: *mut bindings::super_block, fc: *mut ffi::fs_context) -> c_int {
    // SAFETY: the VFS gives a new super block with its block device open, and a context of ours.
    code(unsafe { fill(sb, fc) })
}

/// # Safety
///
/// As [`fill_super`].
unsafe fn fill(sb: *mut bindings::super_block, fc: *mut ffi::fs_context) -> Result<()> {
    // SAFETY: by the contract. The volume is dropped before the block device is closed: here, or by `put_super`.
    unsafe {
        if bindings::sb_set_blocksize(sb, BLOCK_BYTES) == 0 {
            complain(fc, format_args!("the device has logical blocks of more than {BLOCK_BYTES} bytes"));
            return Err(Errno::INVAL);
        }
        let options = *options_of(fc);
        let read_only = (*sb).s_flags & ffi::SCOUTFS_SB_RDONLY != 0;
        let caches = Arc::new(Caches::new(sb))?;
        let namespace = Arc::new(Namespace::new((*fc).net_ns))?;
        let wanted = Wanted { device: Device::new((*sb).s_bdev), options, read_only, caches, namespace };
        let volume = match open(wanted) {
            Ok(volume) => volume,
            Err(e) => {
                complain(fc, format_args!("{e}"));
                return Err(e.into());
            }
        };
        // A mount works without.
        match Folder::new(ROOT.load(Ordering::Acquire), &raw const *volume) {
            Ok(folder) => *volume.folder.lock() = Some(folder),
            Err(e) => scoutfs_env::warn!("no folder in /sys/fs/scoutfs: errno {}", -e.negative()),
        }
        match Shrinker::new(volume.mount.fs().store()) {
            Ok(shrinker) => *volume.shrinker.lock() = Some(shrinker),
            Err(e) => scoutfs_env::warn!("memory will not be given back: errno {}", -e.negative()),
        }
        (*sb).s_magic = MAGIC;
        (*sb).s_maxbytes = i64::MAX;
        (*sb).s_time_gran = 1;
        (*sb).s_op = &SUPER_OPS;
        ffi::scoutfs_set_export_operations(sb);
        bindings::set_default_d_op(sb, &dir::DENTRY_OPS);
        (*sb).s_xattr = xattr::HANDLERS.0.as_ptr().cast();
        // Another node may give a file capabilities at any time: that it had none once says nothing.
        (*sb).s_flags &= !ffi::SCOUTFS_SB_NOSEC;
        if options.acl {
            (*sb).s_flags |= ffi::SCOUTFS_SB_POSIXACL;
        }
        (*sb).s_fs_info = Box::into_raw(volume).cast();
        let root = root(sb);
        if root.is_err() {
            put_super(sb);
        }
        (*sb).s_root = root?;
    }
    Ok(())
}

/// The root's dentry.
///
/// # Safety
///
/// The super block has its volume.
unsafe fn root(sb: *mut bindings::super_block) -> Result<*mut bindings::dentry> {
    // SAFETY: by the contract.
    let root = unsafe {
        let epoch = volume(sb).caches.epoch();
        let attr = {
            let _nofs = NoFs::enter();
            volume(sb).mount.fs().lookup_ino(ROOT_INO)?
        };
        // Gives the inode back when it fails.
        bindings::d_make_root(inode::get(sb, &attr, epoch)?)
    };
    if root.is_null() {
        Err(Errno::NOMEM)
    } else {
        Ok(root)
    }
}

/// What a mount is made of.
struct Wanted {
    device: Device,
    options: Options,
    read_only: bool,
    caches: Arc<Caches>,
    namespace: Arc<Namespace>,
}

/// What came of a mount, and a sign that something did.
type Mounted = (Mutex<Option<scoutfs_fs::Result<Box<Volume>>>>, Condvar);

/// Mounts the volume on a device, in a thread of its own: on the stack of a system call that has come so far there is no room for it.
/// Who calls may be killed while that waits for a server.
fn open(wanted: Wanted) -> scoutfs_fs::Result<Box<Volume>> {
    let cancel = Cancel::new()?;
    let mounted: Arc<Mounted> = Arc::new((Mutex::new(None), Condvar::new()))?;
    let (for_thread, cancel_thread) = (mounted.clone(), cancel.clone());
    let mounting = thread::spawn("scoutfs-mount", move || {
        let volume = open_here(wanted, &cancel_thread);
        *for_thread.0.lock() = Some(volume);
        for_thread.1.notify_all();
    });
    let mounting = mounting.map_err(|_| Error::NoMemory)?;
    let mut result = mounted.0.lock();
    while result.is_none() && !thread::is_killed() {
        result = mounted.1.wait(result);
    }
    drop(result);
    // Without effect on one that is done.
    cancel.cancel();
    mounting.join();
    let result = mounted.0.lock().take();
    result.unwrap_or(Err(Error::Shutdown("the thread that mounts did not run")))
}

fn open_here(wanted: Wanted, cancel: &Cancel) -> scoutfs_fs::Result<Box<Volume>> {
    let Wanted { device, mut options, read_only, caches, namespace } = wanted;
    let network = Tcp::new(namespace);
    if let Some(address) = options.server_addr {
        options.server_addr =
            Some(network.own_address(address).map_err(|why| Error::Network { address, why })?);
    }
    let identity = Identity::new(options.machine())?;
    let device: Box<dyn BlockDevice> = try_box(device)?;
    let mut how = MountOptions::new(identity.process());
    how.server_addr = options.server_addr;
    how.read_only = read_only;
    how.acl = options.acl;
    // More than this is not kept even if nobody else wants it.
    // SAFETY: reads a number.
    let memory = unsafe { ffi::scoutfs_totalram_pages() }.saturating_mul(PAGE as usize);
    how.block_cache_bytes = (memory / 32).clamp(32 << 20, how.block_cache_bytes);
    how.item_cache_bytes = (memory / 16).clamp(64 << 20, how.item_cache_bytes);
    if let Some(interval) = options.commit_interval {
        how.commit_interval = interval;
    }
    let network: Box<dyn Network> = try_box(network)?;
    let oracle: Box<dyn DeathOracle + Send + Sync> = try_box(identity.oracle())?;
    let (device, network) = (Arc::new(device)?, Arc::new(network)?);
    let mount = Mount::open_until(device, network, &how, Arc::new(oracle)?, cancel)?;
    let dropper: Box<dyn KernelCaches> = try_box(Dropper(caches.clone()))?;
    mount.fs().set_kernel_caches(Arc::new(dropper)?);
    let (folder, shrinker) = (Mutex::new(None), Mutex::new(None));
    Ok(try_box(Volume { folder, shrinker, mount, options, caches, _identity: identity })?)
}

/// A forced unmount begins, which may still find the mount in use: nobody waits long any more for a server, if there is none.
unsafe extern "C" fn umount_begin(sb: *mut bindings::super_block) {
    let _nofs = NoFs::enter();
    // SAFETY: the VFS gives a mounted super block of ours.
    unsafe { volume(sb) }.mount.begin_unmount();
}

/// The last use of a super block is gone.
pub(super) unsafe extern "C" fn kill_sb(sb: *mut bindings::super_block) {
    // SAFETY: the VFS gives a super block of ours, whose volume is there unless mounting failed. Inodes go first, which takes locks.
    unsafe {
        if !(*sb).s_fs_info.is_null() {
            umount_begin(sb);
        }
        bindings::kill_block_super(sb);
    }
}

/// Leaves the volume. All inodes are gone.
unsafe extern "C" fn put_super(sb: *mut bindings::super_block) {
    let _nofs = NoFs::enter();
    // SAFETY: set when it was mounted. Nobody uses it any more but who walks a path without references, which is waited for.
    let volume = unsafe {
        bindings::synchronize_rcu();
        let info = core::mem::replace(&mut (*sb).s_fs_info, null_mut());
        Box::from_raw(info.cast::<Volume>())
    };
    drop(volume.folder.lock().take());
    drop(volume.shrinker.lock().take());
    if let Err(e) = volume.mount.unmount() {
        scoutfs_env::error!("unmounting: {e}");
    }
}

unsafe extern "C" fn reconfigure(fc: *mut ffi::fs_context) -> c_int {
    // SAFETY: the VFS gives a context of ours whose root is that of a mount.
    code(unsafe {
        let sb = (*(*fc).root).d_sb;
        let volume = volume(sb);
        if *options_of(fc) != volume.options {
            complain(fc, format_args!("options cannot change while the volume is mounted"));
            return Errno::INVAL.negative();
        }
        let writable = (*fc).sb_flags as usize & ffi::SCOUTFS_SB_RDONLY == 0;
        if writable && volume.mount.fs().store().read_only() {
            complain(fc, format_args!("a read-only mount cannot become writable: unmount it first"));
            return Errno::OPNOTSUPP.negative();
        }
        check(bindings::sync_filesystem(sb)).map(drop)
    })
}

unsafe extern "C" fn sync_fs(sb: *mut bindings::super_block, wait: c_int) -> c_int {
    if wait == 0 {
        // The VFS comes again and waits.
        return 0;
    }
    let _nofs = NoFs::enter();
    // SAFETY: the VFS gives a mounted super block of ours.
    code(unsafe { volume(sb) }.mount.fs().sync().map_err(Errno::from))
}

/// The mount is about to be frozen: who changes something waits already, and everything was synced. So is what the core has done by itself
/// since then. It needs no telling of the thaw: nothing of it stands still meanwhile, and locks go back to other nodes.
unsafe extern "C" fn freeze_fs(sb: *mut bindings::super_block) -> c_int {
    // SAFETY: as the VFS calls it.
    unsafe { sync_fs(sb, 1) }
}

unsafe extern "C" fn statfs(dentry: *mut bindings::dentry, out: *mut bindings::kstatfs) -> c_int {
    let _nofs = NoFs::enter();
    // SAFETY: the VFS gives a dentry of ours and room for the answer.
    let fs = unsafe { volume((*dentry).d_sb) }.mount.fs();
    let fsid = fs.store().fsid();
    code(fs.statfs().map_err(Errno::from).map(|stat| {
        let meta = |blocks: u64| blocks.saturating_mul(SECTORS_PER_BLOCK);
        let free = stat.free_data.saturating_add(stat.unassigned);
        let spare_meta = meta(stat.free_meta.saturating_sub(stat.reserved_meta));
        // Inodes are limited by metadata space alone: about two thousand bytes each.
        let room = spare_meta.saturating_add(stat.unassigned).saturating_mul(2);
        // SAFETY: as above.
        let out = unsafe { &mut *out.cast::<ffi::kstatfs>() };
        out.f_type = MAGIC as isize;
        out.f_bsize = BLOCK_BYTES as isize;
        out.f_frsize = BLOCK_BYTES as isize;
        out.f_blocks = meta(stat.total_meta).saturating_add(stat.total_data).saturating_add(stat.unassigned);
        out.f_bfree = free.saturating_add(spare_meta);
        out.f_bavail = free;
        out.f_files = stat.inodes.saturating_add(room);
        out.f_ffree = room;
        out.f_namelen = MAX_NAME_LEN as isize;
        out.f_fsid.val = [fsid as i32, (fsid >> 32) as i32];
    }))
}

unsafe extern "C" fn show_options(seq: *mut bindings::seq_file, dentry: *mut bindings::dentry) -> c_int {
    // SAFETY: the VFS gives a dentry of ours.
    let options = unsafe { volume((*dentry).d_sb) }.options;
    let mut text = Text::<256>::EMPTY;
    // There is room for all.
    let _ = options.write(&mut text);
    let text = text.as_bytes();
    // SAFETY: the VFS gives a sequence that is being written; the text is live.
    unsafe { bindings::seq_write(seq, text.as_ptr().cast::<c_void>(), text.len()) };
    0
}
