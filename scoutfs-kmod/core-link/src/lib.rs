// SPDX-License-Identifier: GPL-2.0-only
//! Links the core of scoutfs as a kernel module would: no std, a panic handler and an allocator of its own.
//!
//! It is never run. `xtask/tests/house.rs` builds it and looks at what the core leaves undefined: the host's hooks and
//! nothing else.
#![no_std]

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;

use scoutfs_env::device::{BlockDevice, IoError};
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::voter::ProcessId;
use scoutfs_fs::{Error, Mount, MountOptions};
use scoutfs_server::DeathOracle;

unsafe extern "C" {
    fn scoutfs_host_allocate(size: usize, align: usize) -> *mut u8;
    fn scoutfs_host_free(memory: *mut u8, size: usize, align: usize);
    fn scoutfs_host_panic() -> !;
    fn scoutfs_host_read(offset: u64, buf: *mut u8, len: usize);
    fn scoutfs_host_write(offset: u64, buf: *const u8, len: usize);
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: the host ends the machine.
    unsafe { scoutfs_host_panic() }
}

struct Host;

// SAFETY: the host gives memory as `GlobalAlloc` wants it.
unsafe impl GlobalAlloc for Host {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is valid.
        unsafe { scoutfs_host_allocate(layout.size(), layout.align()) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the memory came from `alloc` with this layout.
        unsafe { scoutfs_host_free(memory, layout.size(), layout.align()) }
    }
}

#[global_allocator]
static HOST: Host = Host;

struct Device;

impl BlockDevice for Device {
    fn size_bytes(&self) -> u64 {
        1 << 30
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        // SAFETY: the buffer is valid for its length.
        unsafe { scoutfs_host_read(offset, buf.as_mut_ptr(), buf.len()) };
        Ok(())
    }
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        // SAFETY: the buffer is valid for its length.
        unsafe { scoutfs_host_write(offset, buf.as_ptr(), buf.len()) };
        Ok(())
    }
    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
}

struct Nobody;

impl DeathOracle for Nobody {
    fn is_dead(&self, _: &ProcessId) -> bool {
        false
    }
}

fn use_everything() -> Result<(), Error> {
    let device: Box<dyn BlockDevice> = try_box(Device)?;
    let mount = Mount::open(Arc::new(device)?, &MountOptions::new(ProcessId::default()), &Nobody)?;
    let fs = mount.fs();
    let new = scoutfs_fs::dir::NewInode { mode: 0o100_644, umask: 0, rdev: 0, uid: 0, gid: 0 };
    let file = fs.create(1, b"file", &new)?;
    fs.write(file.ino, 0, b"data")?;
    fs.read(file.ino, 0, &mut [0; 4])?;
    fs.rename(1, b"file", 1, b"name", scoutfs_fs::dir::RenameFlags::empty())?;
    fs.setxattr(file.ino, b"user.a", b"b", scoutfs_fs::xattr::SetXattrMode::Any)?;
    fs.unlink(1, b"name")?;
    fs.readdir(1, 0, &mut |_| true)?;
    fs.sync()?;
    mount.unmount()
}

/// Reaches all of the core, so that the linker keeps it.
#[unsafe(no_mangle)]
pub extern "C" fn scoutfs_core_link() -> i32 {
    match use_everything() {
        Ok(()) => 0,
        Err(e) => -e.errno(),
    }
}
