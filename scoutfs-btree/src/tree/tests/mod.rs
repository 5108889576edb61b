// SPDX-License-Identifier: GPL-2.0-only
//! Tests of trees against ordered maps.

mod faults;
mod hostile;
mod model;
mod shape;
