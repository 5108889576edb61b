// SPDX-License-Identifier: GPL-2.0-only
//! The memory of who called an ioctl.
//!
//! FUSE hands over only the argument's own bytes; what its pointers point to is read and written in the caller. The kernel
//! module has copy_from_user and copy_to_user for this.
//!
//! What must hold: a thread id means the same thread for as long as its request is served. It does: once a request was read from
//! the device, its thread waits in the kernel for the answer, and a signal, SIGKILL among them, does not end that wait.

use std::io;

use scoutfs_fs::Error;
use scoutfs_fs::ioctl::UserMemory;

/// The thread `pid`, if it is one that this process can name: 0 stands for the kernel itself and for threads of other pid
/// namespaces.
fn nameable(pid: u32) -> Option<libc::pid_t> {
    libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0)
}

/// The memory of one thread's process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMemory {
    pid: Option<libc::pid_t>,
}

impl ProcessMemory {
    /// The memory of the process that `pid` is a thread of. It cannot be touched if this process cannot name that thread.
    pub fn of(pid: u32) -> Self {
        ProcessMemory { pid: nameable(pid) }
    }

    /// Moves `len` bytes by `call`, which is given the thread, how many bytes are done, and an address.
    fn transfer(
        self,
        address: u64,
        len: usize,
        mut call: impl FnMut(libc::pid_t, usize, usize) -> libc::ssize_t,
    ) -> Result<(), Error> {
        let mut done = 0;
        while done < len {
            let pid = self.pid.ok_or(Error::NotPermitted)?;
            let at = address.checked_add(done as u64).and_then(|at| usize::try_from(at).ok());
            match call(pid, done, at.ok_or(Error::Fault)?) {
                n @ 1.. => done += n as usize,
                0 => return Err(Error::Fault),
                _ => {
                    return Err(match io::Error::last_os_error().raw_os_error() {
                        Some(libc::ENOMEM) => Error::NoMemory,
                        Some(libc::EPERM) => Error::NotPermitted,
                        // EFAULT, and EINVAL for a length that is beyond every memory.
                        _ => Error::Fault,
                    });
                }
            }
        }
        Ok(())
    }
}

impl UserMemory for ProcessMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.transfer(address, bytes.len(), |pid, done, at| {
            let rest = &mut bytes[done..];
            let local = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
            let remote = libc::iovec { iov_base: at as *mut _, iov_len: rest.len() };
            // SAFETY: the local vector is `rest`, borrowed for writing; the remote one is checked by the kernel.
            unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) }
        })
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.transfer(address, bytes.len(), |pid, done, at| {
            let rest = &bytes[done..];
            let local = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
            let remote = libc::iovec { iov_base: at as *mut _, iov_len: rest.len() };
            // SAFETY: the local vector is `rest`, which is only read; the remote one is checked by the kernel.
            unsafe { libc::process_vm_writev(pid, &local, 1, &remote, 1, 0) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_memory() -> ProcessMemory {
        ProcessMemory::of(std::process::id())
    }

    #[test]
    fn what_is_not_readable_or_writable_is_a_fault() {
        let memory = own_memory();
        let target = [0u8; 8];
        memory.write(target.as_ptr() as u64, &[]).unwrap();
        for address in [0, 8, u64::MAX, u64::MAX - 1, 1 << 63] {
            assert!(matches!(memory.write(address, &[1, 2]), Err(Error::Fault)), "{address:x}");
            assert!(matches!(memory.read(address, &mut [0; 2]), Err(Error::Fault)), "{address:x}");
        }
        let constant: &'static [u8] = b"constants cannot be written";
        assert!(matches!(memory.write(constant.as_ptr() as u64, b"C"), Err(Error::Fault)));
        for nobody in [0, u32::MAX] {
            let memory = ProcessMemory::of(nobody);
            assert!(matches!(memory.write(target.as_ptr() as u64, &[1]), Err(Error::NotPermitted)));
        }
    }

    #[test]
    fn bytes_arrive_in_the_process_and_come_from_it() {
        let mut target = vec![0u8; 100_000];
        let address = target.as_mut_ptr() as u64;
        let bytes: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        own_memory().write(address, &bytes).unwrap();
        assert_eq!(std::hint::black_box(&mut target), &bytes);
        let mut read = vec![0u8; 100_000];
        own_memory().read(address, &mut read).unwrap();
        assert_eq!(read, bytes);
    }
}
