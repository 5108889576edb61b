// SPDX-License-Identifier: GPL-2.0-only
//! The contents of files in the reference, and which blocks they have.

use super::call::{Allocate, Outcome, errno::*};
use super::names::Reference;
use super::node::{BLOCK, Content, Node};

impl Reference {
    /// A regular file.
    fn regular(&self, ino: u64) -> Outcome<&Vec<u8>> {
        let node = self.node(ino);
        node.file().ok_or(if node.is_dir() { EISDIR } else { EINVAL })
    }

    pub(super) fn write(&mut self, ino: u64, offset: u64, data: &[u8]) -> Outcome<u64> {
        self.regular(ino)?;
        self.touch(ino, true).write(offset, data);
        Ok(data.len() as u64)
    }

    pub(super) fn append(&mut self, ino: u64, data: &[u8]) -> Outcome<u64> {
        let end = self.regular(ino)?.len() as u64;
        self.write(ino, end, data)
    }

    pub(super) fn truncate(&mut self, ino: u64, size: u64) -> Outcome<()> {
        self.regular(ino)?;
        let node = self.touch(ino, true);
        if size <= node.seen.stat.size {
            node.blocks.retain(|block, _| *block < size.div_ceil(BLOCK as u64));
        }
        node.resize(size);
        Ok(())
    }

    pub(super) fn allocate(
        &mut self,
        ino: u64,
        how: Allocate,
        keep: bool,
        offset: u64,
        len: u64,
    ) -> Outcome<()> {
        self.regular(ino)?;
        let node = self.touch(ino, true);
        let mut step = 0;
        while node.allocate_step(how, keep, offset, len, step) {
            step += 1;
        }
        Ok(())
    }

    pub(super) fn copy(&mut self, from: u64, at: u64, to: u64, to_at: u64, len: usize) -> Outcome<u64> {
        let source = self.regular(from)?;
        self.regular(to)?;
        let at = at as usize;
        let end = source.len().min(at.saturating_add(len));
        if end <= at {
            return Ok(0);
        }
        let data = source[at..end].to_vec();
        self.write(to, to_at, &data)
    }

    pub(super) fn read(&self, ino: u64, offset: u64, len: usize) -> Outcome<Vec<u8>> {
        let file = self.regular(ino)?;
        let start = file.len().min(offset as usize);
        Ok(file[start..file.len().min(start + len)].to_vec())
    }

    /// Blocks that were written are data, and all others are holes.
    pub(super) fn seek(&self, ino: u64, offset: u64, data: bool) -> Outcome<u64> {
        let size = self.regular(ino)?.len() as u64;
        if offset >= size {
            return Err(ENXIO);
        }
        let (blocks, block_len) = (&self.node(ino).blocks, BLOCK as u64);
        let is = |block: &u64| (blocks.get(block) == Some(&true)) == data;
        match (offset / block_len..size.div_ceil(block_len)).find(is) {
            Some(block) => Ok(offset.max(block * block_len)),
            None if data => Err(ENXIO),
            None => Ok(size),
        }
    }
}

impl Node {
    fn bytes_mut(&mut self) -> &mut Vec<u8> {
        match &mut self.seen.content {
            Content::File(bytes) => bytes,
            _ => panic!("not a regular file"),
        }
    }

    fn resize(&mut self, size: u64) {
        self.bytes_mut().resize(size as usize, 0);
        self.seen.stat.size = size;
        self.seen.stat.blocks = self.blocks.len() as u64;
    }

    /// Writes bytes to a regular file.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let (start, end) = (offset as usize, offset as usize + data.len());
        self.blocks.extend((start / BLOCK..end.div_ceil(BLOCK)).map(|block| (block as u64, true)));
        let size = self.seen.stat.size.max(end as u64);
        self.resize(size);
        self.bytes_mut()[start..end].copy_from_slice(data);
    }

    /// Does one step of an allocation. A crash may leave those from the first to any. False when there is none left.
    pub(super) fn allocate_step(
        &mut self,
        how: Allocate,
        keep: bool,
        offset: u64,
        len: u64,
        step: u64,
    ) -> bool {
        let (start, end, block_len) = (offset as usize, (offset + len) as usize, BLOCK as u64);
        let grows = !keep && how != Allocate::Punch;
        match step {
            0 if how != Allocate::Fill => {
                let size = self.bytes_mut().len();
                self.bytes_mut()[start.min(size)..end.min(size)].fill(0);
                for block in offset.div_ceil(block_len)..(offset + len) / block_len {
                    match how {
                        Allocate::Punch => drop(self.blocks.remove(&block)),
                        // A block that it has; the others are filled later.
                        _ => drop(self.blocks.get_mut(&block).map(|written| *written = false)),
                    }
                }
            }
            0 => {}
            1 if how != Allocate::Punch => {
                for block in offset / block_len..(offset + len).div_ceil(block_len) {
                    self.blocks.entry(block).or_insert(false);
                }
            }
            1 => {}
            2 if grows => {
                let size = self.seen.stat.size.max(end as u64);
                self.resize(size);
            }
            2 => {}
            _ => return false,
        }
        let size = self.seen.stat.size;
        self.resize(size);
        true
    }
}
