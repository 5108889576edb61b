// SPDX-License-Identifier: GPL-2.0-only
//! `ping_pong` of ctdb, with which people try whether a cluster filesystem's locks and data are coherent.
//!
//! Each process locks one byte after the other of a file, always two at a time, and adds one to each byte that it has locked. With
//! `n` processes at work each finds that a byte has grown by `n` since it had it last, as long as no lock and no byte is wrong.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::cluster::{leave, nodes};
use crate::run::{program, run_or_kill};
use crate::volume::Volume;

/// `cargo xtask test` puts it there.
const PING_PONG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/programs/ping_pong");

/// How long they play: the others join one after the other, and a byte grows by as many as there are in the end.
const PLAY: Duration = Duration::from_secs(8);
/// The last one to begin is the last to end.
const APART: Duration = Duration::from_millis(700);

/// What one process found last: by how much a byte had grown.
fn increment(output: &str) -> Option<&str> {
    let (_, last) = output.rsplit_once("data increment = ")?;
    last.split(|c: char| !c.is_ascii_digit()).next()
}

#[test]
fn ping_pong_finds_locks_and_data_coherent_on_three_nodes() {
    const NODES: usize = 3;
    assert!(Path::new(PING_PONG).is_file(), "no {PING_PONG}: `cargo xtask test` gets it");
    let volume = Volume::new(256);
    let nodes = nodes(&volume, NODES);
    // One more than there are processes, as its manual says.
    let locks = (NODES + 1).to_string();
    thread::scope(|scope| {
        let players: Vec<_> = nodes
            .iter()
            .map(|node| {
                let mut command = program(PING_PONG, ["-rw"]);
                command.arg(node.join("ball")).arg(&locks);
                let player = scope.spawn(move || run_or_kill(&mut command, PLAY));
                thread::sleep(APART);
                player
            })
            .collect();
        for player in players {
            let (ended, by_itself) = player.join().unwrap();
            assert!(!by_itself, "it plays until it is ended: {ended:?}");
            // Those who began first see the last ones leave, too.
            println!("{}", ended.stdout.replace('\r', "\n"));
            assert!(ended.stdout.contains(&format!("data increment = {NODES}\n")), "{ended:?}");
            assert!(increment(&ended.stdout).is_some() && ended.stderr.is_empty(), "{ended:?}");
        }
    });
    leave(&volume, nodes);
}
