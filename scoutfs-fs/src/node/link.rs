// SPDX-License-Identifier: GPL-2.0-only
//! The way to the server, wherever it is: in this process, or at the address in the leader's voter block.
//!
//! Locking: one mutex over the door of this node's server, a leaf.

use core::net::SocketAddr;
use core::time::Duration;

use scoutfs_env::device::{BlockDevice, IoError};
use scoutfs_env::net::{NetError, Network, Stream};
use scoutfs_env::sync::Mutex;
use scoutfs_env::{Arc, Box, IoBuf};
use scoutfs_format::SECTOR_SIZE;
use scoutfs_format::geometry::Geometry;
use scoutfs_net::quorum::VoterBlock;

use super::server_host::Door;

/// How long a server may take to answer when a stream to it is opened.
const CONNECT: Duration = Duration::from_secs(3);

/// See the module.
pub(super) struct Link {
    device: Arc<Box<dyn BlockDevice>>,
    fsid: u64,
    geometry: Geometry,
    network: Option<Arc<Box<dyn Network>>>,
    /// This node's own server, while it runs.
    own: Arc<Mutex<Option<Door>>>,
}

/// Why there is no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoWay {
    /// This node led, and its server has ended.
    #[error("the server of this node has ended")]
    Ended,
    /// There is no network, and this node does not lead.
    #[error("this node does not lead yet")]
    NotLeading,
    /// Nobody leads.
    #[error("no node leads yet, {present} of the {needed} voters that are needed are there")]
    NoLeader {
        /// Voter slots that have owners, who may be dead.
        present: u32,
        /// How many make the volume work.
        needed: u32,
    },
    /// So few of the voters' blocks can be read that nobody can be elected.
    #[error("only {readable} of {slots} voter slots can be read, {needed} are needed")]
    Unreadable {
        /// How many can be read.
        readable: u32,
        /// A majority.
        needed: u32,
        /// How many there are.
        slots: u32,
    },
    /// The device fails.
    #[error("the voters' blocks cannot be read: {0}")]
    Device(IoError),
    /// The leader does not answer.
    #[error("the leader at {address}: {why}")]
    Network {
        /// Where it listens.
        address: SocketAddr,
        /// What went wrong.
        why: NetError,
    },
    /// No memory for a stream.
    #[error("no memory")]
    NoMemory,
}

impl Link {
    /// A link to this node's own server, and over the network, if there is one, to others.
    pub fn new(
        device: Arc<Box<dyn BlockDevice>>,
        fsid: u64,
        geometry: Geometry,
        network: Option<Arc<Box<dyn Network>>>,
        own: Arc<Mutex<Option<Door>>>,
    ) -> Self {
        Link { device, fsid, geometry, network, own }
    }

    /// Opens a stream to the server. Gives its address, if it is not in this process.
    pub fn connect(&self) -> Result<(Box<dyn Stream>, Option<SocketAddr>), NoWay> {
        let own = self.own.lock().clone();
        if let Some(door) = own {
            if door.is_closed() {
                return Err(NoWay::Ended);
            }
            return door.connect().map(|stream| (stream, None)).map_err(|_| NoWay::NoMemory);
        }
        let Some(network) = &self.network else { return Err(NoWay::NotLeading) };
        let address = self.leader()?;
        let stream = network.connect(address, CONNECT);
        stream.map(|stream| (stream, Some(address))).map_err(|why| NoWay::Network { address, why })
    }

    /// Where the leader of the highest term listens, by the voters' blocks.
    pub fn leader(&self) -> Result<SocketAddr, NoWay> {
        let mut sectors = IoBuf::zeroed(2 * SECTOR_SIZE).map_err(|_| NoWay::NoMemory)?;
        let mut leader: Option<VoterBlock> = None;
        let (mut readable, mut present) = (0, 0);
        // Of all reads; nothing is said of a device of which one works.
        let mut failed = None;
        let mut works = false;
        for voter in 0..self.geometry.nr_voters() {
            let mut read = [false; 2];
            for (copy, sector) in sectors.chunks_exact_mut(SECTOR_SIZE).enumerate() {
                let offset = self.geometry.quorum_block_offset(voter, copy as u32);
                match self.device.read(offset, sector) {
                    Ok(()) => read[copy] = true,
                    Err(e) => failed = Some(e),
                }
            }
            works |= read != [false; 2];
            let (first, second) = sectors.split_at(SECTOR_SIZE);
            let copies = [read[0].then_some(first), read[1].then_some(second)];
            let nr_voters = self.geometry.nr_voters();
            let Ok(block) = VoterBlock::newest(copies, self.fsid, voter, nr_voters) else { continue };
            readable += 1;
            present += u32::from(block.owned);
            let better = leader.as_ref().is_none_or(|best| block.leader_term > best.leader_term);
            if block.owned && block.leader_term > 0 && better {
                leader = Some(block);
            }
        }
        if let Some(e) = failed.filter(|_| !works) {
            return Err(NoWay::Device(e));
        }
        let slots = self.geometry.nr_voters();
        let needed = slots / 2 + 1;
        match leader {
            Some(VoterBlock { address: Some(address), .. }) => Ok(address),
            _ if readable < needed => Err(NoWay::Unreadable { readable, needed, slots }),
            _ => Err(NoWay::NoLeader { present, needed }),
        }
    }
}
