// SPDX-License-Identifier: GPL-2.0-only
//! TCP over IPv4 and IPv6.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use socket2::{SockRef, TcpKeepalive};

use super::{Listener, NetError, NetOp, Network, Stream};
use crate::{Box, try_box};

/// `errno` of what there is no memory for.
const ENOMEM: i32 = 12;

/// How soon a peer that is silent counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpTuning {
    /// Probes begin after so long without a byte. Whole seconds, at least one.
    pub keepalive_idle: Duration,
    /// And are repeated after this. Whole seconds, at least one.
    pub keepalive_interval: Duration,
    /// A stream ends after so many of them without an answer.
    pub keepalive_probes: u32,
    /// A stream ends when what was sent is not acknowledged for this long.
    pub user_timeout: Duration,
}

impl Default for TcpTuning {
    fn default() -> Self {
        TcpTuning {
            keepalive_idle: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(1),
            keepalive_probes: 3,
            user_timeout: Duration::from_secs(8),
        }
    }
}

/// TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpNetwork {
    tuning: TcpTuning,
}

impl TcpNetwork {
    /// With these times.
    pub fn new(tuning: TcpTuning) -> Self {
        TcpNetwork { tuning }
    }
}

struct Tcp(TcpStream);

struct TcpListener {
    listener: std::net::TcpListener,
    address: SocketAddr,
    tuning: TcpTuning,
}

fn failed(op: NetOp) -> impl Fn(std::io::Error) -> NetError {
    move |e| {
        let timed_out = matches!(e.kind(), ErrorKind::TimedOut).then_some(libc::ETIMEDOUT);
        NetError { op, errno: e.raw_os_error().or(timed_out).unwrap_or(libc::EIO) }
    }
}

fn stream(socket: TcpStream, tuning: &TcpTuning, op: NetOp) -> Result<Box<dyn Stream>, NetError> {
    socket.set_nodelay(true).map_err(failed(op))?;
    let keepalive = TcpKeepalive::new()
        .with_time(tuning.keepalive_idle)
        .with_interval(tuning.keepalive_interval)
        .with_retries(tuning.keepalive_probes);
    let options = SockRef::from(&socket);
    options.set_tcp_keepalive(&keepalive).map_err(failed(op))?;
    options.set_tcp_user_timeout(Some(tuning.user_timeout)).map_err(failed(op))?;
    let stream: Box<dyn Stream> = try_box(Tcp(socket)).map_err(|_| NetError { op, errno: ENOMEM })?;
    Ok(stream)
}

impl Network for TcpNetwork {
    fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>, NetError> {
        let op = NetOp::Listen;
        let listener = std::net::TcpListener::bind(address).map_err(failed(op))?;
        let address = listener.local_addr().map_err(failed(op))?;
        let listener = TcpListener { listener, address, tuning: self.tuning };
        let listener: Box<dyn Listener> = try_box(listener).map_err(|_| NetError { op, errno: ENOMEM })?;
        Ok(listener)
    }

    fn connect(&self, address: SocketAddr, timeout: Duration) -> Result<Box<dyn Stream>, NetError> {
        let socket = TcpStream::connect_timeout(&address, timeout).map_err(failed(NetOp::Connect))?;
        stream(socket, &self.tuning, NetOp::Connect)
    }
}

impl Listener for TcpListener {
    fn accept(&self) -> Result<Box<dyn Stream>, NetError> {
        let (socket, _) = self.listener.accept().map_err(failed(NetOp::Accept))?;
        stream(socket, &self.tuning, NetOp::Accept)
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn shutdown(&self) {
        // On Linux this wakes who waits in accept.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

impl Stream for Tcp {
    fn receive(&self, buf: &mut [u8]) -> Result<usize, NetError> {
        loop {
            match (&self.0).read(buf) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                received => return received.map_err(failed(NetOp::Receive)),
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetError> {
        (&self.0).write_all(bytes).map_err(failed(NetOp::Send))
    }

    fn try_send(&self, bytes: &[u8]) -> Result<usize, NetError> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        match SockRef::from(&self.0).send_with_flags(bytes, flags) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            sent => sent.map_err(failed(NetOp::Send)),
        }
    }

    fn shutdown(&self) {
        // It may have ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::thread;

    use super::*;

    fn any_port(v6: bool) -> SocketAddr {
        match v6 {
            true => (Ipv6Addr::LOCALHOST, 0).into(),
            false => (Ipv4Addr::new(127, 7, 0, 1), 0).into(),
        }
    }

    #[test]
    fn bytes_go_both_ways_over_ipv4_and_ipv6() {
        let network = TcpNetwork::default();
        for v6 in [false, true] {
            let listener = network.listen(any_port(v6)).unwrap();
            let there = network.connect(listener.address(), Duration::from_secs(5)).unwrap();
            let here = listener.accept().unwrap();
            let mut buf = [0; 100];
            for (from, to) in [(&there, &here), (&here, &there)] {
                from.send(b"some bytes").unwrap();
                let n = to.receive(&mut buf).unwrap();
                assert_eq!(&buf[..n], b"some bytes");
            }
            there.shutdown();
            assert_eq!(here.receive(&mut buf), Ok(0));
            drop(there);
        }
    }

    /// Invariant 60: on both ends the kernel notices a peer that is gone without a word, as soon as is asked for.
    #[test]
    fn keepalives_and_the_user_timeout_are_those_that_were_asked_for() {
        let tuning = TcpTuning {
            keepalive_idle: Duration::from_secs(7),
            keepalive_interval: Duration::from_secs(2),
            keepalive_probes: 4,
            user_timeout: Duration::from_millis(9500),
        };
        let network = TcpNetwork::new(tuning);
        let listener = network.listen(any_port(false)).unwrap();
        let there = TcpStream::connect(listener.address()).unwrap();
        let options = there.try_clone().unwrap();
        let _there = stream(there, &tuning, NetOp::Connect).unwrap();
        let options = SockRef::from(&options);
        assert!(options.keepalive().unwrap());
        assert_eq!(options.tcp_keepalive_time().unwrap(), tuning.keepalive_idle);
        assert_eq!(options.tcp_keepalive_interval().unwrap(), tuning.keepalive_interval);
        assert_eq!(options.tcp_keepalive_retries().unwrap(), tuning.keepalive_probes);
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(tuning.user_timeout));
    }

    #[test]
    fn shutdown_wakes_who_waits() {
        let network = TcpNetwork::default();
        let listener = network.listen(any_port(false)).unwrap();
        let there = network.connect(listener.address(), Duration::from_secs(5)).unwrap();
        let _here = listener.accept().unwrap();
        thread::scope(|scope| {
            let accept = scope.spawn(|| listener.accept().map(drop));
            let receive = scope.spawn(|| there.receive(&mut [0; 10]));
            thread::sleep(Duration::from_millis(50));
            listener.shutdown();
            there.shutdown();
            assert!(accept.join().unwrap().is_err());
            assert_eq!(receive.join().unwrap(), Ok(0));
        });
        let address = listener.address();
        drop(listener);
        assert!(network.connect(address, Duration::from_secs(1)).is_err());
    }
}
