// SPDX-License-Identifier: GPL-2.0-only
//! Every decoder answers any bytes: inputs that ever failed, and changed ones for about a minute for all decoders together.
//!
//! `SCOUTFS_FUZZ_SECONDS=n` takes n seconds; `cargo xtask fuzz` goes on for hours.

use std::time::Duration;

use scoutfs_sim::fuzz::run::{Failure, fuzz, keep, replay, run_one};
use scoutfs_sim::fuzz::{TARGETS, Target};

fn fail(failure: &Failure) -> ! {
    let kept = keep(failure).map(|path| path.display().to_string());
    panic!("{}: {}; the input is {kept:?}", failure.target, failure.what)
}

#[test]
fn inputs_that_once_failed_are_answered() {
    for target in TARGETS {
        if let Err(failure) = replay(target) {
            fail(&failure);
        }
    }
}

#[test]
fn any_bytes_are_answered() {
    scoutfs_env::log::set_sink(|_, _| ());
    let seconds = std::env::var("SCOUTFS_FUZZ_SECONDS").map_or(60, |n| n.parse().expect("a number"));
    let share = Duration::from_secs(seconds) / TARGETS.len() as u32;
    for target in TARGETS {
        match fuzz(target, scoutfs_env::random::u64(), share, |_| ()) {
            Ok(progress) => println!("{:<14} {progress:?}", target.name),
            Err(failure) => fail(&failure),
        }
    }
}

/// Seeds get past the first checks, and signing keeps them: else nothing behind those would be tested.
#[test]
fn seeds_are_accepted() {
    for target in TARGETS {
        let mut answers = std::collections::BTreeSet::new();
        for seed in (target.seeds)() {
            let mut signed = seed.clone();
            (target.sign)(&mut signed);
            assert!(signed == seed, "{}: signing changes a sound input", target.name);
            answers.insert(run_one(target, &seed).unwrap_or_else(|failure| panic!("{failure:?}")));
        }
        assert!(answers.iter().any(|answer| answer.starts_with("ok")), "{}: {answers:?}", target.name);
    }
}

static TOY: Target = Target {
    name: "toy",
    seeds: || vec![b"a long enough input".to_vec()],
    sign: |_| (),
    // Needs what is kept of one answer to get to the next.
    decode: |bytes| match bytes {
        [0, 1, 2, ..] => panic!("found"),
        [0, 1, ..] => "two".into(),
        [0, ..] => "one".into(),
        _ => "none".into(),
    },
};

#[test]
fn a_planted_bug_is_found_by_way_of_new_answers() {
    let failure = fuzz(&TOY, 1, Duration::from_secs(60), |_| ()).expect_err("the bug");
    assert_eq!((failure.what.as_str(), &failure.input[..3]), ("found", &[0u8, 1, 2][..]));
}
