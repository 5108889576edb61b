// SPDX-License-Identifier: GPL-2.0-only
//! The network of a node that is alone: nobody can reach it, and it reaches nobody.
//!
//! TCP is still to come. Until then a mount of this module serves itself; where another node leads the volume, it cannot join.

use core::net::SocketAddr;
use core::time::Duration;

use scoutfs_env::net::{Listener, NetError, NetOp, Network, Stream};
use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::{try_box, Box};

const ENOMEM: i32 = 12;
const ENETUNREACH: i32 = 101;

/// See the module.
pub(crate) struct Alone;

impl Network for Alone {
    fn listen(&self, address: SocketAddr) -> Result<Box<dyn Listener>, NetError> {
        let nobody = Nobody { address, ended: Mutex::new(false), changed: Condvar::new() };
        let listener = try_box(nobody).map_err(|_| NetError { op: NetOp::Listen, errno: ENOMEM })?;
        Ok(listener)
    }

    fn connect(&self, _: SocketAddr, _: Duration) -> Result<Box<dyn Stream>, NetError> {
        Err(NetError { op: NetOp::Connect, errno: ENETUNREACH })
    }
}

/// Where nobody opens streams to.
struct Nobody {
    address: SocketAddr,
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Listener for Nobody {
    fn accept(&self) -> Result<Box<dyn Stream>, NetError> {
        let mut ended = self.ended.lock();
        while !*ended {
            ended = self.changed.wait(ended);
        }
        Err(NetError { op: NetOp::Accept, errno: 0 })
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn shutdown(&self) {
        *self.ended.lock() = true;
        self.changed.notify_all();
    }
}
