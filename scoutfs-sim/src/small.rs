// SPDX-License-Identifier: GPL-2.0-only
//! All workloads of a few operations over two names in two directories.
//!
//! The tree that they begin with has a file with contents and an attribute under one name, and a directory under one in the
//! other directory. So no two names stand for the same, and there is nothing symmetric to leave out; what is left out are
//! operations that fail, and all but a few lengths and offsets of those that have some.
//!
//! What must hold: [`workloads`] gives each workload of a length once, in an order that never changes, so that a number
//! stands for one.

use scoutfs_fs::Fs;

use crate::model::{Model, Op, Place};
use crate::reference::Data;

const PLACES: [Place; 4] = [Place::new(0, 0), Place::new(0, 1), Place::new(1, 0), Place::new(1, 1)];

/// A few operations.
pub type Workload = Vec<Op>;

/// Operations that succeed on a tree, one of each kind for each place, or pair of places, where it is possible.
fn possible(model: &Model, seed: u64) -> Vec<Op> {
    let mut ops = Vec::new();
    for at in PLACES {
        if model.find(at).is_none() {
            ops.extend([Op::Create(at), Op::Symlink(at), Op::Mkdir(at)]);
            continue;
        }
        for to in PLACES.into_iter().filter(|to| *to != at) {
            if model.can_rename(at, to) {
                ops.push(Op::Rename(at, to));
            }
            if model.find(to).is_some() && at < to {
                ops.push(Op::Exchange(at, to));
            }
            if model.find(to).is_none() && !model.is_dir(at) {
                ops.push(Op::Link(at, to));
            }
        }
        if model.is_dir(at) {
            ops.push(Op::Rmdir(at));
            continue;
        }
        ops.push(Op::Unlink(at));
        if let Some(len) = model.file_len(at) {
            ops.push(Op::Write(at, 0, Data::new(seed, 700)));
            ops.push(Op::Write(at, len, Data::new(seed + 1, 5000)));
            ops.push(Op::Truncate(at, len / 2));
            ops.push(Op::Truncate(at, len + 5000));
            ops.push(Op::Allocate(at, 20_000));
            ops.push(Op::SetXattr(at, 0, Data::new(seed + 2, 300)));
            if model.has_xattr(at, 0) {
                ops.push(Op::RemoveXattr(at, 0));
            }
        }
    }
    ops
}

/// The tree that each workload begins with.
///
/// # Panics
///
/// When an operation fails.
pub fn set_up(fs: &Fs) -> Model {
    let mut model = Model::set_up(fs).expect("a new volume");
    for op in [
        Op::Create(PLACES[0]),
        Op::Write(PLACES[0], 0, Data::new(1, 6000)),
        Op::SetXattr(PLACES[0], 0, Data::new(2, 50)),
        Op::Mkdir(PLACES[3]),
    ] {
        model.apply(fs, &op).unwrap_or_else(|e| panic!("{op:?}: {e}"));
    }
    model
}

/// All workloads of exactly `len` operations that succeed one after the other.
pub fn workloads(start: &Model, len: usize) -> Vec<Workload> {
    let mut all = vec![(start.clone(), Workload::new())];
    for step in 0..len {
        let mut longer = Vec::new();
        for (model, ops) in &all {
            for op in possible(model, 10 * (step as u64 + 1)) {
                let mut model = model.clone();
                model.apply_alone(&op);
                let mut ops = ops.clone();
                ops.push(op);
                longer.push((model, ops));
            }
        }
        all = longer;
    }
    all.into_iter().map(|(_, ops)| ops).collect()
}
