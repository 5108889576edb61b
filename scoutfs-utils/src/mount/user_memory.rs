// SPDX-License-Identifier: GPL-2.0-only
//! The memory of who called an ioctl.
//!
//! FUSE hands over only the argument's own bytes; what its pointers point to is read and written in the caller, which
//! waits for the answer meanwhile. The kernel module has copy_to_user for this.

use std::io;

use crate::fuse::Errno;

/// The memory of one thread's process.
#[derive(Clone, Copy, Debug)]
pub struct UserMemory {
    pid: libc::pid_t,
}

impl UserMemory {
    /// The memory of the process that `pid` is a thread of. EPERM for callers that this process cannot name.
    pub fn of(pid: u32) -> Result<Self, Errno> {
        match libc::pid_t::try_from(pid) {
            Ok(pid) if pid > 0 => Ok(UserMemory { pid }),
            _ => Err(Errno::PERM),
        }
    }

    /// Fills `bytes` from an address; EFAULT when that is not all readable.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &mut bytes[done..];
            let len = rest.len();
            let local = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: len };
            let Some(from) = address.checked_add(done as u64) else { return Err(Errno::FAULT) };
            let remote = libc::iovec { iov_base: from as *mut _, iov_len: len };
            // SAFETY: the local vector is `rest`, which nobody else uses; the remote one is checked by the kernel.
            let n = unsafe { libc::process_vm_readv(self.pid, &local, 1, &remote, 1, 0) };
            match n {
                1.. => done += n as usize,
                0 => return Err(Errno::FAULT),
                _ => return Err(last_error()),
            }
        }
        Ok(())
    }

    /// Writes all bytes to an address; EFAULT when that is not all writable.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let local = libc::iovec { iov_base: rest.as_ptr() as *mut _, iov_len: rest.len() };
            let Some(to) = address.checked_add(done as u64) else { return Err(Errno::FAULT) };
            let remote = libc::iovec { iov_base: to as *mut _, iov_len: rest.len() };
            // SAFETY: the local vector is `rest`, which is only read; the remote one is checked by the kernel.
            let n = unsafe { libc::process_vm_writev(self.pid, &local, 1, &remote, 1, 0) };
            match n {
                1.. => done += n as usize,
                0 => return Err(Errno::FAULT),
                _ => return Err(last_error()),
            }
        }
        Ok(())
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_writable_is_a_fault() {
        let memory = UserMemory::of(std::process::id()).unwrap();
        let target = [0u8; 8];
        memory.write(target.as_ptr() as u64, &[]).unwrap();
        assert_eq!(memory.write(8, &[1]), Err(Errno::FAULT));
        assert_eq!(memory.write(u64::MAX, &[1, 2]), Err(Errno::FAULT));
        assert_eq!(UserMemory::of(0).unwrap_err(), Errno::PERM);
    }

    #[test]
    fn what_is_not_readable_is_a_fault() {
        let memory = UserMemory::of(std::process::id()).unwrap();
        let (source, mut bytes) = ([1u8, 2, 3], [0; 3]);
        memory.read(source.as_ptr() as u64, &mut bytes).unwrap();
        assert_eq!(bytes, source);
        memory.read(8, &mut []).unwrap();
        assert_eq!(memory.read(8, &mut bytes), Err(Errno::FAULT));
        assert_eq!(memory.read(u64::MAX - 1, &mut bytes), Err(Errno::FAULT));
    }

    #[test]
    fn bytes_arrive_in_the_process() {
        let mut target = vec![0u8; 100_000];
        let address = target.as_mut_ptr() as u64;
        let bytes: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        UserMemory::of(std::process::id()).unwrap().write(address, &bytes).unwrap();
        assert_eq!(std::hint::black_box(&mut target), &bytes);
    }
}
