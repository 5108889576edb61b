// SPDX-License-Identifier: GPL-2.0-only
//! Ioctls, and the memory and rights of who calls: the core carries them out.

use core::ffi::c_void;

use kernel::bindings;
use kernel::ffi::{c_long, c_uint, c_ulong};
use scoutfs_env::{IoBuf, Vec};
use scoutfs_format::ioctl::{IOC_GET_ATTR_X, IOC_SET_ATTR_X, IOC_STAT_MORE};
use scoutfs_fs::acl;
use scoutfs_fs::ioctl::{Caller, Capability, Credentials, Request, UserMemory};
use scoutfs_fs::Error;

use super::{ids, inode, with};
use crate::ffi;
use crate::kobj::error::{check, Errno, Result};

const CAP_DAC_READ_SEARCH: i32 = 2;
const CAP_SYS_ADMIN: i32 = 21;

/// In an ioctl's number: the caller writes the argument, reads it, and its size.
const DIR_WRITE: u32 = 1 << 30;
const DIR_READ: u32 = 1 << 31;
const fn size_of_argument(cmd: u32) -> usize {
    (cmd >> 16 & 0x3fff) as usize
}

/// The memory of the current task.
struct CurrentMemory;

impl UserMemory for CurrentMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> scoutfs_fs::Result<()> {
        let from = address as usize as *const c_void;
        // SAFETY: the slice is exclusively borrowed; the address is checked by the kernel.
        let left =
            unsafe { bindings::copy_from_user(bytes.as_mut_ptr().cast(), from, bytes.len() as c_ulong) };
        if left == 0 {
            Ok(())
        } else {
            Err(Error::Fault)
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> scoutfs_fs::Result<()> {
        let to = address as usize as *mut c_void;
        // SAFETY: the slice is live; the address is checked by the kernel.
        let left = unsafe { bindings::copy_to_user(to, bytes.as_ptr().cast(), bytes.len() as c_ulong) };
        if left == 0 {
            Ok(())
        } else {
            Err(Error::Fault)
        }
    }
}

/// The rights of the current task towards a file, with the volume's numbers.
struct CurrentRights {
    file: *mut bindings::file,
    uid: u32,
    groups: Vec<u32>,
}

impl CurrentRights {
    /// # Safety
    ///
    /// The file is alive, longer than this.
    unsafe fn new(file: *mut bindings::file) -> Result<Self> {
        let mut groups = Vec::new();
        // SAFETY: by the contract; and credentials of the current task, which do not change while it is in here.
        let uid = unsafe {
            let idmap = ffi::scoutfs_file_mnt_idmap(file);
            let cred = (*bindings::get_current()).cred;
            groups.push(ids::kept_gid(idmap, (*cred).fsgid.val))?;
            let info = (*cred).group_info;
            let more = (*info).gid.as_slice((*info).ngroups.unsigned_abs() as usize);
            for gid in more {
                groups.push(ids::kept_gid(idmap, gid.val))?;
            }
            ids::kept_uid(idmap, (*cred).fsuid.val)
        };
        Ok(CurrentRights { file, uid, groups })
    }
}

impl Credentials for CurrentRights {
    fn capable(&self, capability: Capability) -> bool {
        let capability = match capability {
            Capability::DacReadSearch => CAP_DAC_READ_SEARCH,
            Capability::SysAdmin => CAP_SYS_ADMIN,
        };
        // SAFETY: asks about the current task.
        unsafe { bindings::capable(capability) }
    }

    fn caller(&self) -> acl::Caller<'_> {
        // What the VFS asks for where this very file is read.
        // SAFETY: the file is alive, and the capability that of the current task.
        let reads_all = unsafe {
            let (idmap, inode) = (ffi::scoutfs_file_mnt_idmap(self.file), (*self.file).f_inode);
            bindings::capable_wrt_inode_uidgid(idmap, inode, CAP_DAC_READ_SEARCH)
        };
        acl::Caller { uid: self.uid, groups: &self.groups, reads_all }
    }
}

/// Files and directories.
pub(super) unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
    // SAFETY: the VFS gives a file of ours.
    match unsafe { run(file, cmd, arg as u64) } {
        Ok(result) => result as c_long,
        Err(e) => e.negative() as c_long,
    }
}

/// # Safety
///
/// The file is one of ours.
unsafe fn run(file: *mut bindings::file, cmd: u32, arg: u64) -> Result<i32> {
    let size = size_of_argument(cmd);
    let mut input = IoBuf::zeroed(if cmd & DIR_WRITE != 0 { size } else { 0 })?;
    CurrentMemory.read(arg, &mut input)?;
    let mut out = IoBuf::zeroed(if cmd & DIR_READ != 0 { size } else { 0 })?;
    // SAFETY: by the contract.
    unsafe {
        let credentials = CurrentRights::new(file)?;
        let can_read = (*file).f_mode & ffi::SCOUTFS_FMODE_READ != 0;
        let caller = Caller { memory: &CurrentMemory, credentials: &credentials, can_read };
        let inode = (*file).f_inode;
        if matches!(cmd, IOC_STAT_MORE | IOC_GET_ATTR_X) {
            // They tell of the version of the data: what programs have changed before counts.
            check(bindings::filemap_write_and_wait_range((*inode).i_mapping, 0, i64::MAX))?;
        }
        let mut call =
            || with(inode, |fs, ino| fs.ioctl(&Request { ino, cmd, arg, input: &input }, &mut out, &caller));
        // The one that changes a file takes all that it needs from its argument, which was copied. It waits while the mount is frozen.
        let done = if cmd == IOC_SET_ATTR_X {
            check(bindings::mnt_want_write_file(file))?;
            let done = inode::change_wholly(inode, call);
            bindings::mnt_drop_write_file(file);
            done?
        } else {
            call()?
        };
        let answer = out.get(..done.out_len).ok_or(Errno::INVAL)?;
        CurrentMemory.write(arg, answer)?;
        Ok(done.result)
    }
}
