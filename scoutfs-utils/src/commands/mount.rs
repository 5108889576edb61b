// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs mount`: a volume on a directory, by the running kernel if it has scoutfs, else by FUSE.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc as StdArc;

use rustix::mount::UnmountFlags;
use scoutfs_env::device::{BlockDevice, FileDevice, OpenMode};
use scoutfs_env::net::{Network, TcpNetwork};
use scoutfs_env::{Arc, try_box};
use scoutfs_fs::{Mount as Node, MountOptions};
use scoutfs_server::DeathOracle;
use scoutfs_server::super_block::read_super;

use crate::cli::Mount;
use crate::fuse::daemon::{self, Ready, Started};
use crate::fuse::loopdev::{LoopDevice, LoopOptions};
use crate::fuse::{self, MountKind, Session, SessionOptions};
use crate::mount::options::Options;
use crate::mount::{Adapter, EndSignals, FenceAgent, FenceWatch, LocalProcesses, kernel, log, this_process};

/// The type that `/proc/mounts` shows is `fuseblk.` and this.
const SUBTYPE: &str = "scoutfs";

/// Mounts; returns once it is mounted, or with `-f` when it is unmounted.
pub fn run(arguments: &Mount) -> Result<(), String> {
    let options = Options::parse(&arguments.options)?;
    let device = absolute(&arguments.device)?;
    let directory = absolute(&arguments.directory)?;
    if !directory.is_dir() {
        return Err(format!("{} is not a directory", directory.display()));
    }
    if arguments.fake {
        return Ok(());
    }
    if !arguments.foreground && kernel::can_mount(&options) {
        return match &options.fence {
            None => mount_in_kernel(&device, &directory, &options),
            Some(program) => in_background(None, |ready| {
                mount_in_kernel(&device, &directory, &options)?;
                let begun = FenceWatch::new(program.clone(), &device, &directory).and_then(|watch| {
                    log::to_syslog(&device);
                    ready.serving().map_err(|e| e.to_string())?;
                    Ok(watch)
                });
                match begun {
                    Ok(watch) => watch.run(),
                    Err(why) => {
                        let _ = rustix::mount::unmount(&directory, UnmountFlags::empty());
                        return Err(why);
                    }
                }
                Ok(())
            }),
        };
    }
    if arguments.foreground {
        return serve(&device, &directory, &options, None).map(drop);
    }
    in_background(options.log.clone(), |ready| serve(&device, &directory, &options, Some(ready)))
}

/// Has a process of its own mount, and waits until it has.
fn in_background(log: Option<PathBuf>, body: impl FnOnce(Ready) -> Result<(), String>) -> Result<(), String> {
    match daemon::run_in_background(log, |ready| body(ready).map(|()| 0)).map_err(|e| e.to_string())? {
        Started::Serving => Ok(()),
        Started::Failed { message, .. } => Err(message),
    }
}

/// Has the kernel mount it.
fn mount_in_kernel(path: &Path, directory: &Path, options: &Options) -> Result<(), String> {
    // The mount holds the loop device from then on; it goes with it. One that changes nothing votes and leads all the same.
    let (device, _loop_device) = block_device(path, false)?;
    kernel::mount(&device, directory, options).map_err(|e| format!("{}: {e}", path.display()))
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))
}

/// Joins the volume, mounts and serves until it is unmounted.
fn serve(path: &Path, directory: &Path, options: &Options, ready: Option<Ready>) -> Result<(), String> {
    // Not allowed everywhere, and the mount works without.
    let _ = daemon::set_io_flusher();
    let no_memory = |_| String::from("out of memory");
    let device = FileDevice::open(path, OpenMode::ReadWrite).map_err(|e| e.to_string())?;
    let device: scoutfs_env::Box<dyn BlockDevice> = try_box(device).map_err(no_memory)?;
    let device = Arc::new(device).map_err(no_memory)?;
    let mut how = MountOptions::new(this_process());
    how.server_addr = options.server_addr.map(own_address).transpose()?;
    how.read_only = options.read_only;
    how.acl = options.acl;
    if let Some(interval) = options.commit_interval {
        how.commit_interval = interval;
    }
    let signals = EndSignals::take_over().map_err(|e| e.to_string())?;
    let network: scoutfs_env::Box<dyn Network> = try_box(TcpNetwork::default()).map_err(no_memory)?;
    let oracle: scoutfs_env::Box<dyn DeathOracle + Send + Sync> = match &options.fence {
        None => try_box(LocalProcesses::new()).map_err(no_memory)?,
        Some(program) => {
            let found = read_super(&**device).map_err(|e| format!("{}: {e}", path.display()))?;
            let agent = FenceAgent::new(program.clone(), path.to_owned(), found.sb.id.fsid.get());
            try_box(agent).map_err(no_memory)?
        }
    };
    let (network, oracle) = (Arc::new(network).map_err(no_memory)?, Arc::new(oracle).map_err(no_memory)?);
    let node =
        Node::open_in(device, network, &how, oracle).map_err(|e| format!("{}: {e}", path.display()))?;
    let adapter = StdArc::new(Adapter::new(node, options.acl));

    // The mount holds the loop device from then on; it goes with it.
    let (block_device, loop_device) = block_device(path, options.read_only)?;
    let kind = MountKind::Block { device: block_device, block_size: 4096 };
    let mut session = SessionOptions::new(fuse::MountOptions {
        flags: options.flags,
        ..fuse::MountOptions::new(kind, directory, SUBTYPE)
    });
    session.want = adapter.wanted();
    session.threads.readers = session.threads.readers.max(2);
    // Pages that are dropped may be written before, while so many reads ahead of other files wait for their locks.
    session.threads.max_background = 256;
    let session = match Session::mount(adapter.clone(), &session) {
        Ok(session) => session,
        Err(e) => {
            let _ = adapter.unmount();
            return Err(e.to_string());
        }
    };
    drop(loop_device);
    signals.unmount(session.mountpoint());
    if let Some(ready) = ready {
        match &options.log {
            Some(_) => log::to_file(path),
            None => log::to_syslog(path),
        }
        ready.serving().map_err(|e| e.to_string())?;
    }
    session.run().map_err(|e| e.to_string())
}

/// The address with a port that can be listened on; the kernel chooses one where none was given.
fn own_address(address: SocketAddr) -> Result<SocketAddr, String> {
    TcpListener::bind(address)
        .and_then(|listener| listener.local_addr())
        .map_err(|e| format!("server_addr={address}: {e}"))
}

/// The block device to mount: the volume's own, or a loop device when the volume is a file.
fn block_device(path: &Path, read_only: bool) -> Result<(PathBuf, Option<LoopDevice>), String> {
    let file_type = path.metadata().map_err(|e| format!("{}: {e}", path.display()))?.file_type();
    if file_type.is_block_device() {
        return Ok((path.to_owned(), None));
    }
    let how = LoopOptions { read_only, ..LoopOptions::default() };
    let device = LoopDevice::attach(path, how).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok((device.path().to_owned(), Some(device)))
}
