// SPDX-License-Identifier: GPL-2.0-only
//! A mount by the kernel that has a fence agent: a process of its own looks after it, for as long as the mount is there.
//!
//! While the mount's node leads, it looks on the device which mounts are fenced, has the [`FenceAgent`] confirm their deaths, and tells the
//! mount, as `scoutfs confirm-death` does. It keeps nothing of the mount open, so that it can be unmounted.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use scoutfs_format::msg::DEATH_CONFIRMED;
use scoutfs_server::{DeathOracle, Suspect};

use super::FenceAgent;
use crate::commands::status::fenced_mounts;
use crate::ioctl;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
pub struct FenceWatch {
    agent: FenceAgent,
    /// What holds the volume.
    path: PathBuf,
    /// Where it is mounted.
    directory: PathBuf,
    /// The device number of what is mounted.
    dev: u64,
    /// The module's folder about the mount.
    folder: PathBuf,
}

impl FenceWatch {
    /// Will look after the mount by the kernel on a directory, of the volume in a file or on a device, with this program.
    pub fn new(program: PathBuf, path: &Path, directory: &Path) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("{}: {e}", directory.display());
        let root = ioctl::open(directory)?;
        let dev = root.metadata().map_err(failed)?.dev();
        let ids = ioctl::statfs_more(&root).map_err(failed)?;
        let (fsid, rid) = (ids.fsid.get(), ids.rid.get());
        let folder = PathBuf::from(format!("/sys/fs/scoutfs/{fsid:016x}.{rid:016x}"));
        let agent = FenceAgent::new(program, path.to_owned(), fsid);
        Ok(FenceWatch { agent, path: path.to_owned(), directory: directory.to_owned(), dev, folder })
    }

    /// Looks until the mount is gone.
    pub fn run(&self) {
        let mut last = None;
        while self.folder.exists() {
            if self.leads() {
                let looked = fenced_mounts(&self.path).map(|suspects| {
                    for suspect in suspects.iter().filter(|suspect| self.agent.confirm(suspect)) {
                        self.tell(suspect);
                    }
                });
                // Not the same each second.
                let complaint = looked.err();
                if let Some(why) = &complaint
                    && complaint != last
                {
                    scoutfs_env::warn!("looking for mounts that are fenced: {why}");
                }
                last = complaint;
            }
            sleep(PAUSE);
        }
    }

    /// Whether the mount's node leads.
    fn leads(&self) -> bool {
        let quorum = fs::read_to_string(self.folder.join("quorum")).unwrap_or_default();
        quorum.lines().any(|line| line == "role leader")
    }

    /// Tells the mount that one is dead. Where that does not work now, it is told again.
    fn tell(&self, suspect: &Suspect) {
        let told = ioctl::open(&self.directory).and_then(|root| {
            let failed = |e: std::io::Error| format!("{}: {e}", self.directory.display());
            if root.metadata().map_err(failed)?.dev() != self.dev {
                return Err(format!("{} is not the mount any more", self.directory.display()));
            }
            ioctl::confirm_death(&root, suspect.rid).map_err(failed)
        });
        match told {
            Ok(DEATH_CONFIRMED) => scoutfs_env::info!("mount {:016x} is dead", suspect.rid),
            // It is not fenced any more, or gone.
            Ok(_) => {}
            Err(why) => scoutfs_env::warn!("mount {:016x} is dead, which cannot be told: {why}", suspect.rid),
        }
    }
}
