// SPDX-License-Identifier: GPL-2.0-only
//! stub
use core::net::SocketAddr;
use scoutfs_env::device::BlockDevice;
use scoutfs_env::{Arc, Box};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::voter::ProcessId;
use scoutfs_server::DeathOracle;
use crate::error::Result;
use crate::store::Store;
pub(crate) struct VoterHost { term: u64 }
impl VoterHost {
    pub fn elect(device: &Arc<Box<dyn BlockDevice>>, _fsid: u64, _geometry: Geometry, _rid: u64, _address: SocketAddr, _process: ProcessId, _oracle: &dyn DeathOracle) -> Result<VoterHost> {
        let sb = scoutfs_server::super_block::read_super(&***device).map_err(|e| crate::error::Error::from(scoutfs_server::ServerError::from(e)))?;
        Ok(VoterHost { term: sb.sb.term.get() + 1 })
    }
    pub fn slot(&self) -> u32 { 0 }
    pub fn term(&self) -> u64 { self.term }
    pub fn on_lost(&self, _store: &Arc<Store>) {}
    pub fn leave(self) {}
}
