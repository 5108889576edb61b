// SPDX-License-Identifier: GPL-2.0-only
//! Mount options: what follows `-o`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::fuse::MountFlags;

/// Mount options, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// This node may run the server, at this address; port 0 lets the kernel choose.
    pub server_addr: Option<SocketAddr>,
    /// Change nothing.
    pub read_only: bool,
    /// Changes stay in memory no longer than this.
    pub commit_interval: Option<Duration>,
    /// Makes certain that a node is dead.
    pub fence: Option<PathBuf>,
    /// POSIX access control lists are on.
    pub acl: bool,
    /// The log of a mount in the background goes to this file, an absolute path, and not to syslog.
    pub log: Option<PathBuf>,
    /// By FUSE, also where the kernel has scoutfs.
    pub fuse: bool,
    /// For the kernel.
    pub flags: MountFlags,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            server_addr: None,
            read_only: false,
            commit_interval: None,
            fence: None,
            acl: true,
            log: None,
            fuse: false,
            flags: MountFlags::empty(),
        }
    }
}

/// `IP`, `IP:PORT`, or `[IP]` and `[IP]:PORT` for IPv6: the address of one host.
fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let bare = |ip: &str| match ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(ip) => ip.parse().map(IpAddr::V6),
        None => ip.parse(),
    };
    let address = text
        .parse::<SocketAddr>()
        .or_else(|_| bare(text).map(|ip| SocketAddr::new(ip, 0)))
        .map_err(|_| format!("server_addr={text} is not IP, IPV4:PORT, [IPV6] or [IPV6]:PORT"))?;
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast {
        return Err(format!("server_addr={text} is not the address of one host"));
    }
    Ok(address)
}

impl Options {
    /// Parses options, each a list separated by commas. An unknown one is an error.
    pub fn parse<S: AsRef<str>>(lists: &[S]) -> Result<Self, String> {
        let mut options = Options::default();
        for option in lists.iter().flat_map(|list| list.as_ref().split(',')).filter(|o| !o.is_empty()) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            let flag = match (name, value) {
                ("server_addr", Some(value)) => {
                    options.server_addr = Some(parse_address(value)?);
                    continue;
                }
                ("commit_interval_ms", Some(value)) => {
                    let ms = value.parse().ok().filter(|ms| (100..=60_000).contains(ms));
                    let ms =
                        ms.ok_or_else(|| format!("commit_interval_ms={value} is not in 100 to 60000"))?;
                    options.commit_interval = Some(Duration::from_millis(ms));
                    continue;
                }
                ("log", Some(value)) => {
                    let path = PathBuf::from(value);
                    if !path.is_absolute() {
                        return Err(format!("log={value} is not an absolute path"));
                    }
                    options.log = Some(path);
                    continue;
                }
                ("fence", Some(value)) => {
                    // It is run by a process in the background, which has another directory.
                    if !value.starts_with('/') {
                        return Err(format!("fence={value} is not an absolute path of a program"));
                    }
                    options.fence = Some(value.into());
                    continue;
                }
                ("acl" | "noacl", None) => {
                    options.acl = name == "acl";
                    continue;
                }
                ("fuse", None) => {
                    options.fuse = true;
                    continue;
                }
                ("ro", None) => {
                    options.read_only = true;
                    (MountFlags::RDONLY, true)
                }
                ("rw", None) => {
                    options.read_only = false;
                    (MountFlags::RDONLY, false)
                }
                ("nosuid", None) => (MountFlags::NOSUID, true),
                ("suid", None) => (MountFlags::NOSUID, false),
                ("nodev", None) => (MountFlags::NODEV, true),
                ("dev", None) => (MountFlags::NODEV, false),
                ("noexec", None) => (MountFlags::NOEXEC, true),
                ("exec", None) => (MountFlags::NOEXEC, false),
                ("noatime", None) => (MountFlags::NOATIME, true),
                ("relatime", None) => (MountFlags::RELATIME, true),
                ("sync", None) => (MountFlags::SYNCHRONOUS, true),
                ("async", None) => (MountFlags::SYNCHRONOUS, false),
                ("dirsync", None) => (MountFlags::DIRSYNC, true),
                // For mount(8) and systemd, not for filesystems.
                (
                    "defaults" | "auto" | "noauto" | "nofail" | "_netdev" | "user" | "nouser" | "atime"
                    | "diratime",
                    None,
                ) => {
                    continue;
                }
                (name, _) if name.starts_with("x-") || name.starts_with("comment") => continue,
                ("server_addr" | "commit_interval_ms" | "log" | "fence", None) => {
                    return Err(format!("the mount option {name} needs a value"));
                }
                _ => return Err(format!("unknown mount option '{option}'")),
            };
            options.flags.set(flag.0, flag.1);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_starts_options_are_understood() {
        let options = Options::parse(&["rw,noatime", "server_addr=192.168.1.2"]).unwrap();
        assert_eq!(options.server_addr, Some("192.168.1.2:0".parse().unwrap()));
        assert_eq!((options.read_only, options.flags), (false, MountFlags::NOATIME));
        let options = Options::parse(&["ro,server_addr=[fd00::1]:12345"]).unwrap();
        assert_eq!(options.server_addr, Some("[fd00::1]:12345".parse().unwrap()));
        for bare in ["server_addr=fd00::1", "server_addr=[fd00::1]"] {
            assert_eq!(Options::parse(&[bare]).unwrap().server_addr, Some("[fd00::1]:0".parse().unwrap()));
        }
        assert!(options.read_only && options.acl);
        let fence = Options::parse(&["fence=/usr/sbin/fence-it,ro"]).unwrap().fence;
        assert_eq!(fence, Some("/usr/sbin/fence-it".into()));
        assert!(!Options::parse(&["acl,noacl"]).unwrap().acl);
        assert!(Options::parse(&["noacl", "acl"]).unwrap().acl);
    }

    /// Invariant 61.
    #[test]
    fn wrong_options_are_refused_by_name() {
        for option in [
            "server_addr",
            "server_addr=",
            "server_addr=0.0.0.0",
            "server_addr=224.0.0.1",
            "server_addr=255.255.255.255",
            "server_addr=host:1",
            "server_addr=1.2.3.4:99999",
            "server_addr=[1.2.3.4]",
            "server_addr=[::]",
            "server_addr=[fd00::1",
            "commit_interval_ms=5",
            "log",
            "log=here",
            "fence",
            "fence=agent.sh",
            "frobnicate",
            "noacl=1",
            "ro=1",
        ] {
            let error = Options::parse(&[option]).unwrap_err();
            let name = option.split('=').next().unwrap();
            assert!(error.contains(name), "{option}: {error}");
        }
    }
}
