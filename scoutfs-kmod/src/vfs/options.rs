// SPDX-License-Identifier: GPL-2.0-only
//! Mount options: those of `scoutfs mount`, and two that name the machine.
//!
//! | option | what |
//! | --- | --- |
//! | `server_addr=IP`, `IP:PORT`, `[IP]`, `[IP]:PORT` | this node may run the server, at this address, with any free port when none is given |
//! | `commit_interval_ms=100..60000` | changes stay in memory no longer than this |
//! | `acl`, `noacl` | access control lists are on (they are at first) or off |
//! | `machine=HEX`, `boot=HEX` | 32 digits each: the machine's and its boot's names, as userspace makes them |
//!
//! `ro`, `noatime` and their like are the VFS's.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::host::process::Machine;

/// Mount options, understood.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) server_addr: Option<SocketAddr>,
    pub(super) commit_interval: Option<Duration>,
    pub(super) acl: bool,
    machine_id: Option<[u8; 16]>,
    boot_id: Option<[u8; 16]>,
}

/// What became of an option.
pub(super) enum Parsed {
    Taken,
    /// Not one of ours.
    Unknown,
    /// The value makes no sense: why.
    Wrong(&'static str),
}

impl Options {
    pub(super) const fn new() -> Self {
        Options { server_addr: None, commit_interval: None, acl: true, machine_id: None, boot_id: None }
    }

    /// The machine's names, if both were given.
    pub(super) fn machine(&self) -> Option<Machine> {
        Some(Machine { machine_id: self.machine_id?, boot_id: self.boot_id? })
    }

    /// Writes them as they are given, each with a comma before it.
    pub(super) fn write(&self, to: &mut dyn fmt::Write) -> fmt::Result {
        if let Some(address) = self.server_addr {
            write!(to, ",server_addr={address}")?;
        }
        if let Some(interval) = self.commit_interval {
            write!(to, ",commit_interval_ms={}", interval.as_millis())?;
        }
        if let Some(machine) = self.machine() {
            let id = u128::from_be_bytes;
            write!(to, ",machine={:032x},boot={:032x}", id(machine.machine_id), id(machine.boot_id))?;
        }
        if self.acl {
            Ok(())
        } else {
            to.write_str(",noacl")
        }
    }

    /// Takes one option.
    pub(super) fn parse(&mut self, name: &[u8], value: Option<&[u8]>) -> Parsed {
        let text = value.map(|value| core::str::from_utf8(value).unwrap_or(""));
        match (name, text) {
            (b"server_addr", Some(text)) => match parse_address(text) {
                Some(address) => self.server_addr = Some(address),
                None => {
                    return Parsed::Wrong(
                        "server_addr is not the address of one host: IP, IPV4:PORT, [IPV6] or [IPV6]:PORT",
                    )
                }
            },
            (b"commit_interval_ms", Some(text)) => {
                match text.parse().ok().filter(|ms| (100..=60_000).contains(ms)) {
                    Some(ms) => self.commit_interval = Some(Duration::from_millis(ms)),
                    None => return Parsed::Wrong("commit_interval_ms is not in 100 to 60000"),
                }
            }
            (b"machine", Some(text)) => match parse_id(text) {
                Some(id) => self.machine_id = Some(id),
                None => return Parsed::Wrong("machine is not 32 hexadecimal digits"),
            },
            (b"boot", Some(text)) => match parse_id(text) {
                Some(id) => self.boot_id = Some(id),
                None => return Parsed::Wrong("boot is not 32 hexadecimal digits"),
            },
            (b"server_addr" | b"commit_interval_ms" | b"machine" | b"boot", None) => {
                return Parsed::Wrong("the option needs a value");
            }
            (b"acl", None) => self.acl = true,
            (b"noacl", None) => self.acl = false,
            _ => return Parsed::Unknown,
        }
        Parsed::Taken
    }
}

fn parse_address(text: &str) -> Option<SocketAddr> {
    let bare = |ip: &str| match ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(ip) => ip.parse().map(IpAddr::V6),
        None => ip.parse(),
    };
    let address =
        text.parse::<SocketAddr>().or_else(|_| bare(text).map(|ip| SocketAddr::new(ip, 0))).ok()?;
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast {
        return None;
    }
    Some(address)
}

fn parse_id(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}
