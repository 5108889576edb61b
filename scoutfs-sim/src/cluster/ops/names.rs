// SPDX-License-Identifier: GPL-2.0-only
//! Names of one directory. The value of a name is its inode.

use scoutfs_env::sim;
use scoutfs_fs::Error;
use scoutfs_fs::dir::RenameFlags;

use super::super::history::{Register, Seen};
use super::super::work::{End, file};
use super::{Program, lock};

fn name(n: usize) -> Vec<u8> {
    format!("name{n}").into_bytes()
}

impl Program<'_> {
    pub(super) fn create(&self, n: usize) -> Result<(), End> {
        let at = Register::Name(n);
        let began = sim::now_ns();
        let write = lock(&self.world.history).writes(self.node, at, None);
        match self.fs.create(self.common, &name(n), &file()) {
            Ok(attr) => {
                sim::note(format_args!("created name{n}: {}", attr.ino));
                self.fs.forget(attr.ino, 1);
                let mut history = lock(&self.world.history);
                history.read_but(self.node, at, Seen::Value(0), began, Some(write))?;
                history.written(write, Some(attr.ino));
                Ok(())
            }
            Err(Error::Exists) => {
                let mut history = lock(&self.world.history);
                history.refused(write);
                Ok(history.read(self.node, at, Seen::Something, began)?)
            }
            Err(Error::NoSpace) => {
                lock(&self.world.history).refused(write);
                Err(End::NoSpace)
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn remove(&self, n: usize) -> Result<(), End> {
        let at = Register::Name(n);
        let began = sim::now_ns();
        let write = lock(&self.world.history).writes(self.node, at, Some(0));
        let removed = self.fs.unlink(self.common, &name(n));
        let mut history = lock(&self.world.history);
        match removed {
            Ok(()) => {
                sim::note(format_args!("removed name{n}"));
                history.read_but(self.node, at, Seen::Something, began, Some(write))?;
                history.written(write, None);
                Ok(())
            }
            Err(Error::NotFound) => {
                history.refused(write);
                Ok(history.read(self.node, at, Seen::Value(0), began)?)
            }
            Err(Error::NoSpace) => Err(End::Unexpected("a name cannot be removed for want of space".into())),
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn find(&self, n: usize) -> Result<(), End> {
        let began = sim::now_ns();
        let seen = match self.fs.lookup(self.common, &name(n)) {
            Ok(attr) => {
                self.fs.forget(attr.ino, 1);
                attr.ino
            }
            Err(Error::NotFound) => 0,
            Err(e) => return Err(e.into()),
        };
        sim::note(format_args!("found name{n}: {seen}"));
        Ok(lock(&self.world.history).read(self.node, Register::Name(n), Seen::Value(seen), began)?)
    }

    pub(super) fn rename(&self, from: usize, to: usize) -> Result<(), End> {
        if from == to {
            return Ok(());
        }
        let began = sim::now_ns();
        let (old, new) = {
            let mut history = lock(&self.world.history);
            let old = history.writes(self.node, Register::Name(from), Some(0));
            (old, history.writes(self.node, Register::Name(to), None))
        };
        let (from_name, to_name) = (name(from), name(to));
        let renamed = self.fs.rename(self.common, &from_name, self.common, &to_name, RenameFlags::empty());
        let mut history = lock(&self.world.history);
        match renamed {
            Ok(_) => {
                sim::note(format_args!("renamed name{from} to name{to}"));
                history.read_but(self.node, Register::Name(from), Seen::Something, began, Some(old))?;
                history.written(old, None);
                history.written(new, None);
                Ok(())
            }
            Err(Error::NotFound) => {
                history.refused(old);
                history.refused(new);
                Ok(history.read(self.node, Register::Name(from), Seen::Value(0), began)?)
            }
            Err(Error::NoSpace) => {
                history.refused(old);
                history.refused(new);
                Err(End::NoSpace)
            }
            Err(e) => Err(e.into()),
        }
    }
}
