// SPDX-License-Identifier: GPL-2.0-only
//! The network between nodes: TCP over the kernel's own sockets, in the network namespace of who mounts.
//!
//! Sockets allocate without filesystem reclaim: what is sent may be what a write-back waits for. A signal to the program that
//! sends does not cut a message in two: sending goes on (`scoutfs_env::net` knows no interruption, and a peer that does not
//! acknowledge ends the stream).

use core::ffi::c_void;
use core::mem::{size_of, zeroed};
use core::net::{IpAddr, SocketAddr};
use core::ptr::{addr_of_mut, null_mut};
use core::time::Duration;

use kernel::bindings;
use kernel::ffi::c_int;
use scoutfs_env::net::{Listener, NetError, NetOp, Network, Stream};
use scoutfs_env::{try_box, Arc, Box};

use super::{clock, stack};
use crate::ffi;
use crate::kobj::error::{check, Errno, Result};
use crate::kobj::nofs::NoFs;

/// How soon a peer that is silent counts as gone; the same as over FUSE.
const KEEPALIVE_IDLE_SECS: c_int = 5;
const KEEPALIVE_INTERVAL_SECS: c_int = 1;
const KEEPALIVE_PROBES: c_int = 3;
const USER_TIMEOUT_MS: c_int = 8000;

const BACKLOG: c_int = 64;

const EIO: i32 = 5;
const EINTR: i32 = 4;
const ENOMEM: i32 = 12;
const ETIMEDOUT: i32 = 110;
const EINPROGRESS: i32 = 115;
/// The kernel's own: a system call that a signal ended is to be made again.
const ERESTARTSYS: i32 = 512;

/// Before a call that a signal ended is made again: the signal stays.
const SIGNAL_PAUSE_NS: u64 = 1_000_000;

const SHUT_RDWR: bindings::sock_shutdown_cmd = bindings::sock_shutdown_cmd_SHUT_RDWR;

/// A network namespace, kept.
pub(crate) struct Namespace(*mut bindings::net);

// SAFETY: a namespace may be used by any thread.
unsafe impl Send for Namespace {}
// SAFETY: as above.
unsafe impl Sync for Namespace {}

impl Namespace {
    /// # Safety
    ///
    /// The namespace is alive.
    pub(crate) unsafe fn new(net: *mut bindings::net) -> Self {
        // SAFETY: by the contract.
        Namespace(unsafe { ffi::scoutfs_get_net(net) })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // SAFETY: the reference that was taken in `new`.
        unsafe { ffi::scoutfs_put_net(self.0) };
    }
}

/// TCP in a namespace.
pub(crate) struct Tcp {
    namespace: Arc<Namespace>,
}

impl Tcp {
    pub(crate) fn new(namespace: Arc<Namespace>) -> Self {
        Tcp { namespace }
    }

    /// An address with a port that can be listened on; the kernel chooses one where none is given.
    pub(crate) fn own_address(&self, address: SocketAddr) -> core::result::Result<SocketAddr, NetError> {
        let choose = || {
            let socket = Socket::new(&self.namespace, address)?;
            // SAFETY: the socket is alive.
            unsafe { ffi::scoutfs_socket_reuse_address(socket.raw) };
            socket.bind(address)?;
            socket.address(address)
        };
        choose().map_err(|e| failed(NetOp::Listen, e))
    }
}

/// An address as sockets take it.
union RawAddress {
    v4: bindings::sockaddr_in,
    v6: bindings::sockaddr_in6,
    /// The kernel fills in so much at most.
    storage: [u64; 16],
}

const AF_INET: u16 = bindings::AF_INET as u16;
const AF_INET6: u16 = bindings::AF_INET6 as u16;

impl RawAddress {
    fn new(address: SocketAddr) -> (Self, c_int) {
        let mut raw = RawAddress { storage: [0; 16] };
        let port = address.port().to_be();
        // Writing a part of zeros leaves a valid whole.
        let len = match address.ip() {
            IpAddr::V4(ip) => {
                // SAFETY: zeros are valid.
                raw.v4 = unsafe { zeroed() };
                raw.v4.sin_family = AF_INET;
                raw.v4.sin_port = port;
                raw.v4.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
                size_of::<bindings::sockaddr_in>()
            }
            IpAddr::V6(ip) => {
                // SAFETY: zeros are valid.
                raw.v6 = unsafe { zeroed() };
                raw.v6.sin6_family = AF_INET6;
                raw.v6.sin6_port = port;
                raw.v6.sin6_addr.in6_u.u6_addr8 = ip.octets();
                size_of::<bindings::sockaddr_in6>()
            }
        };
        (raw, len as c_int)
    }

    /// Its port. The ports of both families are in one place.
    fn port(&self) -> u16 {
        // SAFETY: all of it was initialized; any number is valid.
        u16::from_be(unsafe { self.v4.sin_port })
    }

    fn as_ptr<T>(&mut self) -> *mut T {
        addr_of_mut!(*self).cast()
    }
}

/// A socket of ours.
struct Socket {
    raw: *mut bindings::socket,
    /// The kernel does not keep it for such a socket.
    namespace: Arc<Namespace>,
}

// SAFETY: a socket may be used by any thread.
unsafe impl Send for Socket {}
// SAFETY: as above: one sends and one receives, which the kernel allows, and anybody may shut it down.
unsafe impl Sync for Socket {}

impl Socket {
    fn new(namespace: &Arc<Namespace>, address: SocketAddr) -> Result<Self> {
        let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
        let mut raw = null_mut();
        // SAFETY: the namespace is alive, and there is room for the answer.
        check(unsafe { ffi::scoutfs_socket_create(namespace.0, family.into(), &mut raw) })?;
        Ok(Socket { raw, namespace: namespace.clone() })
    }

    fn bind(&self, address: SocketAddr) -> Result<()> {
        let (mut raw, len) = RawAddress::new(address);
        // SAFETY: the socket is alive, the address is one of its length.
        check(unsafe { bindings::kernel_bind(self.raw, raw.as_ptr(), len) }).map(drop)
    }

    /// `address`, with the port that the socket has.
    fn address(&self, mut address: SocketAddr) -> Result<SocketAddr> {
        let mut raw = RawAddress { storage: [0; 16] };
        // SAFETY: the socket is alive, and there is room for every kind of address.
        check(unsafe { bindings::kernel_getsockname(self.raw, raw.as_ptr()) })?;
        address.set_port(raw.port());
        Ok(address)
    }

    /// As a stream to another node.
    fn into_stream(self, op: NetOp) -> core::result::Result<Box<dyn Stream>, NetError> {
        // SAFETY: the socket is alive.
        unsafe {
            ffi::scoutfs_socket_tune(
                self.raw,
                KEEPALIVE_IDLE_SECS,
                KEEPALIVE_INTERVAL_SECS,
                KEEPALIVE_PROBES,
                USER_TIMEOUT_MS,
            );
        }
        let stream: Box<dyn Stream> = try_box(self).map_err(|_| NetError { op, errno: ENOMEM })?;
        Ok(stream)
    }

    /// Sends or receives a piece, over signals.
    fn transfer(&self, op: NetOp, memory: *mut u8, len: usize) -> core::result::Result<usize, NetError> {
        loop {
            // SAFETY: zeros are a valid message without address and control data. The memory is the caller's, for as long as this
            // takes: written to when it receives, and only read when it sends.
            let done = unsafe {
                let mut message: bindings::msghdr = zeroed();
                message.msg_flags = bindings::MSG_NOSIGNAL;
                let mut vec = bindings::kvec { iov_base: memory.cast::<c_void>(), iov_len: len };
                stack::look("network");
                if matches!(op, NetOp::Send) {
                    bindings::kernel_sendmsg(self.raw, &mut message, &mut vec, 1, len)
                } else {
                    bindings::kernel_recvmsg(self.raw, &mut message, &mut vec, 1, len, 0)
                }
            };
            match usize::try_from(done) {
                Ok(done) => return Ok(done),
                Err(_) if done == -EINTR || done == -ERESTARTSYS => clock::sleep_ns(SIGNAL_PAUSE_NS),
                Err(_) => return Err(NetError { op, errno: done.checked_neg().unwrap_or(EIO) }),
            }
        }
    }

    fn end(&self) {
        // SAFETY: the socket is alive. It may have ended already.
        unsafe { bindings::kernel_sock_shutdown(self.raw, SHUT_RDWR) };
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        unsafe { bindings::sock_release(self.raw) };
    }
}

impl Stream for Socket {
    fn receive(&self, buf: &mut [u8]) -> core::result::Result<usize, NetError> {
        let _nofs = NoFs::enter();
        self.transfer(NetOp::Receive, buf.as_mut_ptr(), buf.len())
    }

    fn send(&self, bytes: &[u8]) -> core::result::Result<(), NetError> {
        let _nofs = NoFs::enter();
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = self.transfer(NetOp::Send, rest.as_ptr().cast_mut(), rest.len())?;
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    fn shutdown(&self) {
        self.end();
    }
}

/// Where other nodes connect to.
struct Listening {
    socket: Socket,
    address: SocketAddr,
}

impl Listener for Listening {
    fn accept(&self) -> core::result::Result<Box<dyn Stream>, NetError> {
        let _nofs = NoFs::enter();
        let mut raw = null_mut();
        // SAFETY: the socket is alive and listens; there is room for the answer.
        let accepted = check(unsafe { bindings::kernel_accept(self.socket.raw, &mut raw, 0) });
        accepted.map_err(|e| failed(NetOp::Accept, e))?;
        Socket { raw, namespace: self.socket.namespace.clone() }.into_stream(NetOp::Accept)
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn shutdown(&self) {
        // Wakes who accepts.
        self.socket.end();
    }
}

fn failed(op: NetOp, e: Errno) -> NetError {
    let errno = match -e.negative() {
        // How a connection ends that is not there in time.
        EINPROGRESS => ETIMEDOUT,
        errno => errno,
    };
    NetError { op, errno }
}

impl Network for Tcp {
    fn listen(&self, address: SocketAddr) -> core::result::Result<Box<dyn Listener>, NetError> {
        let op = NetOp::Listen;
        let _nofs = NoFs::enter();
        let listen = || {
            let socket = Socket::new(&self.namespace, address)?;
            // SAFETY: the socket is alive.
            unsafe { ffi::scoutfs_socket_reuse_address(socket.raw) };
            socket.bind(address)?;
            // SAFETY: as above.
            check(unsafe { bindings::kernel_listen(socket.raw, BACKLOG) })?;
            let address = socket.address(address)?;
            Ok(Listening { socket, address })
        };
        let listening = listen().map_err(|e| failed(op, e))?;
        let listener: Box<dyn Listener> = try_box(listening).map_err(|_| NetError { op, errno: ENOMEM })?;
        Ok(listener)
    }

    fn connect(
        &self,
        address: SocketAddr,
        timeout: Duration,
    ) -> core::result::Result<Box<dyn Stream>, NetError> {
        let op = NetOp::Connect;
        let _nofs = NoFs::enter();
        let connect = || {
            let socket = Socket::new(&self.namespace, address)?;
            let (mut raw, len) = RawAddress::new(address);
            let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
            // SAFETY: the socket is alive, the address is one of its length.
            unsafe {
                ffi::scoutfs_socket_send_timeout(socket.raw, timeout_ms);
                check(bindings::kernel_connect(socket.raw, raw.as_ptr(), len, 0))?;
                ffi::scoutfs_socket_send_timeout(socket.raw, 0);
            }
            Ok(socket)
        };
        connect().map_err(|e| failed(op, e))?.into_stream(op)
    }
}
