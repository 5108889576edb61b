// SPDX-License-Identifier: GPL-2.0-only
//! Fuzzing of every decoder: bytes from a device, a network, a program or the kernel.
//!
//! | module | what |
//! | --- | --- |
//! | this | [`Target`] and [`TARGETS`], the one list of all decoders |
//! | `mutate` | how inputs are changed |
//! | `run` | running a target: the pool of inputs, the watchdog, inputs that fail |
//! | `seeds` | pieces of a real volume to begin with |
//! | `blocks` | super blocks, quorum blocks, nodes, lists of space, rings |
//! | `messages` | frames, lock messages, access lists, FUSE requests |
//! | `mounted` | names, attributes and ioctls of a mounted volume, with hostile memory of the caller |
//!
//! A target takes any bytes and says in a word how they were answered: "ok", or refused and why. It panics when the answer
//! is wrong: when what was accepted is not the same after it was encoded and decoded again, and so on. What else is wrong is seen
//! by the runner: a panic of the code under test, and an input that takes longer than [`run::PATIENCE`].
//!
//! # Guidance
//!
//! Checksums are made right after each change ([`Target::sign`]), else nothing would get past them. Stable Rust gives a program
//! no view of its own coverage that is cheap and needs no `unsafe`; instead an input that is answered in a way that was
//! not seen before is kept and changed further. As each violated invariant is an error variant of its own, the answers tell
//! most branches of a decoder apart.
//!
//! Whole images are fuzzed by `tests/damaged.rs`, messages to a server and to a client by tests of their own.
//!
//! # A new decoder
//!
//! is a function and a line in [`TARGETS`]. An input that ever failed is a file in `corpus/NAME` and runs with every test
//! run, for ever.

mod blocks;
mod messages;
mod mounted;
pub mod mutate;
pub mod run;
mod seeds;

/// A decoder.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, as on the command line and of its folder of inputs.
    pub name: &'static str,
    /// Sound inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes checksums right.
    pub sign: fn(&mut [u8]),
    /// Decodes, and says how it went: "ok" and more, or why not. Panics when something is wrong.
    pub decode: fn(&[u8]) -> String,
}

const fn target(
    name: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    sign: fn(&mut [u8]),
    decode: fn(&[u8]) -> String,
) -> Target {
    Target { name, seeds, sign, decode }
}

/// All decoders.
pub const TARGETS: &[Target] = &[
    target("super", seeds::supers, blocks::sign_super, blocks::super_block),
    target("quorum", seeds::quorum_blocks, blocks::sign_sector, blocks::quorum_block),
    target("node", seeds::nodes, blocks::sign_block, blocks::node),
    target("space-list", seeds::space_lists, blocks::sign_block, blocks::space_list),
    target("ring", seeds::rings, blocks::sign_ring, blocks::ring),
    target("frame", messages::frames, messages::sign_frames, messages::frame),
    target("lock-message", messages::lock_messages, unsigned, messages::lock_message),
    target("acl", messages::acls, unsigned, messages::acl),
    target("fuse", messages::fuse_requests, messages::sign_fuse, messages::fuse_request),
    target("name", mounted::names, unsigned, mounted::name),
    target("xattr", mounted::xattrs, unsigned, mounted::xattr),
    target("ioctl", mounted::ioctls, unsigned, mounted::ioctl),
];

fn unsigned(_: &mut [u8]) {}

/// The target of a name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// How a decoder refused: the words of the error, without its numbers, also hexadecimal ones.
fn refused(error: &dyn std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    let is_word = |word: &&str| {
        !word.contains(|c: char| c.is_ascii_digit()) && word.contains(|c: char| !c.is_ascii_hexdigit())
    };
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_word).collect::<Vec<_>>().join(" ")
}
