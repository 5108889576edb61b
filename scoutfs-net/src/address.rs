// SPDX-License-Identifier: GPL-2.0-only
//! Network addresses as they are stored and sent.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use scoutfs_format::le::{U16, U32};
use scoutfs_format::voter::{ADDRESS_NONE, ADDRESS_V4, ADDRESS_V6, Address};

/// Why a stored address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The family is unknown.
    #[error(
        "address family {found} is not {ADDRESS_NONE} (none), {ADDRESS_V4} (IPv4) or {ADDRESS_V6} (IPv6)"
    )]
    Family {
        /// As stored.
        found: u16,
    },
    /// An address without a port leads nowhere.
    #[error("the address {ip} has port 0")]
    NoPort {
        /// The address.
        ip: IpAddr,
    },
    /// Bytes that the family does not use are not zero.
    #[error("an address of family {family} has stray bytes where zeros belong")]
    Stray {
        /// The family.
        family: u16,
    },
}

/// A stored address; `None` when none is stored.
pub fn parse(stored: &Address) -> Result<Option<SocketAddr>, AddressError> {
    let family = stored.family.get();
    let (head, tail) = stored.ip.split_at(4);
    let ip = match family {
        ADDRESS_NONE => {
            if *stored != Address::default() {
                return Err(AddressError::Stray { family });
            }
            return Ok(None);
        }
        ADDRESS_V4 => {
            let mut octets = [0; 4];
            octets.copy_from_slice(head);
            if tail.iter().any(|b| *b != 0) {
                return Err(AddressError::Stray { family });
            }
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        ADDRESS_V6 => IpAddr::V6(Ipv6Addr::from(stored.ip)),
        found => return Err(AddressError::Family { found }),
    };
    if stored.pad.get() != 0 {
        return Err(AddressError::Stray { family });
    }
    match stored.port.get() {
        0 => Err(AddressError::NoPort { ip }),
        port => Ok(Some(SocketAddr::new(ip, port))),
    }
}

/// An address as it is stored. Flow label and scope of an IPv6 address mean nothing on another machine and are
/// dropped.
pub fn format(addr: Option<SocketAddr>) -> Address {
    let Some(addr) = addr else {
        return Address::default();
    };
    let mut ip = [0; 16];
    let family = match addr.ip() {
        IpAddr::V4(v4) => {
            for (to, from) in ip.iter_mut().zip(v4.octets()) {
                *to = from;
            }
            ADDRESS_V4
        }
        IpAddr::V6(v6) => {
            ip = v6.octets();
            ADDRESS_V6
        }
    };
    Address { family: U16::new(family), port: U16::new(addr.port()), pad: U32::ZERO, ip }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn addresses_round_trip(v4: bool, bytes: [u8; 16], port in 1u16..) {
            let ip = if v4 {
                IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
            } else {
                IpAddr::from(bytes)
            };
            let addr = Some(SocketAddr::new(ip, port));
            prop_assert_eq!(parse(&format(addr)), Ok(addr));
        }
    }

    #[test]
    fn stored_addresses_that_make_no_sense_are_refused() {
        assert_eq!(parse(&format(None)), Ok(None));
        let v4 = format(Some("10.1.2.3:80".parse().unwrap()));
        let with = |change: fn(&mut Address)| {
            let mut a = v4;
            change(&mut a);
            parse(&a)
        };
        assert_eq!(with(|a| a.family = U16::new(5)), Err(AddressError::Family { found: 5 }));
        assert!(matches!(with(|a| a.port = U16::ZERO), Err(AddressError::NoPort { .. })));
        assert_eq!(with(|a| a.ip[4] = 1), Err(AddressError::Stray { family: 4 }));
        assert_eq!(with(|a| a.pad = U32::new(1)), Err(AddressError::Stray { family: 4 }));
        assert_eq!(with(|a| a.family = U16::new(0)), Err(AddressError::Stray { family: 0 }));
    }
}
