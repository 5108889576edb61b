// SPDX-License-Identifier: GPL-2.0-only
//! Log lines of a process: to a sink that it sets, or to standard error.

use core::fmt;
use std::sync::{PoisonError, RwLock};

use crate::log::{Level, Sink};

static SINK: RwLock<Sink> = RwLock::new(to_stderr);

fn to_stderr(level: Level, line: fmt::Arguments<'_>) {
    std::eprintln!("scoutfs: {level}: {line}");
}

pub(crate) fn set_sink(sink: Sink) {
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = sink;
}

pub(crate) fn write(level: Level, line: fmt::Arguments<'_>) {
    // The sink is copied out, so that it may itself log.
    let sink = *SINK.read().unwrap_or_else(PoisonError::into_inner);
    sink(level, line);
}
