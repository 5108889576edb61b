// SPDX-License-Identifier: GPL-2.0-only
//! A device that counts what is asked of it.

use scoutfs_env::device::{BlockDevice, IoError};
use scoutfs_env::{Arc, Box};

use crate::counters::{Counter, Counters};

/// See the module.
pub(crate) struct CountedDevice {
    device: Arc<Box<dyn BlockDevice>>,
    counters: Arc<Counters>,
}

impl CountedDevice {
    pub fn new(device: Arc<Box<dyn BlockDevice>>, counters: Arc<Counters>) -> Self {
        CountedDevice { device, counters }
    }

    fn written(&self, buf: &[u8]) {
        self.counters.inc(Counter::DeviceWrite);
        self.counters.add(Counter::DeviceWriteBytes, buf.len() as u64);
    }
}

impl BlockDevice for CountedDevice {
    fn size_bytes(&self) -> u64 {
        self.device.size_bytes()
    }

    fn read_only(&self) -> bool {
        self.device.read_only()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.counters.inc(Counter::DeviceRead);
        self.counters.add(Counter::DeviceReadBytes, buf.len() as u64);
        self.device.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.written(buf);
        self.device.write(offset, buf)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.counters.inc(Counter::DeviceFlush);
        self.device.flush()
    }

    fn write_durable(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.written(buf);
        self.counters.inc(Counter::DeviceDurableWrite);
        self.device.write_durable(offset, buf)
    }
}
