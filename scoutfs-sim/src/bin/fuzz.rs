// SPDX-License-Identifier: GPL-2.0-only
//! Fuzzing by hand, for as long as one likes: `fuzz [--seconds N] [--seed N] [TARGET...]`. See `scoutfs_sim::fuzz`.
//!
//! Targets take turns of a few seconds, each turn with another seed. Ends at the first input that fails, which it writes to
//! the folder of those that are run with every test run.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use scoutfs_sim::fuzz::run::{Progress, fuzz, keep, replay};
use scoutfs_sim::fuzz::{TARGETS, Target, find};

/// Longest turn of one target.
const TURN: Duration = Duration::from_secs(20);

struct Arguments {
    time: Duration,
    seed: u64,
    targets: Vec<&'static Target>,
}

fn arguments() -> Result<Arguments, String> {
    let mut found =
        Arguments { time: Duration::from_secs(60), seed: scoutfs_env::random::u64(), targets: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or(format!("{word} needs a number"))?;
            value.parse::<u64>().map_err(|e| format!("{word} {value}: {e}"))
        };
        match word.as_str() {
            "--seconds" => found.time = Duration::from_secs(number()?),
            "--seed" => found.seed = number()?,
            name => {
                let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
                let target = find(name).ok_or_else(|| format!("no target {name}; there are {}", names()));
                found.targets.push(target?);
            }
        }
    }
    if found.targets.is_empty() {
        found.targets = TARGETS.iter().collect();
    }
    Ok(found)
}

fn main() -> ExitCode {
    let Arguments { time, seed, targets } = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("fuzz: {why}");
            return ExitCode::from(2);
        }
    };
    scoutfs_env::log::set_sink(|_, _| ());
    let began = Instant::now();
    let share = time / targets.len() as u32;
    let mut totals = vec![Progress::default(); targets.len()];
    for turn in 0.. {
        for (target, total) in targets.iter().zip(&mut totals) {
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() && turn > 0 {
                report(&targets, &totals);
                return ExitCode::SUCCESS;
            }
            let name = target.name;
            let shows = stderr().is_terminal();
            let tell = move |progress: Progress| {
                if shows {
                    let percent = began.elapsed().as_millis() * 100 / time.as_millis().max(1);
                    let Progress { inputs, answers } = progress;
                    eprint!(
                        "\r\x1b[K{}% {name}: {inputs} inputs, {answers} different answers",
                        percent.min(100)
                    );
                }
            };
            let found = match turn {
                0 => replay(target).map(|_| ()),
                _ => Ok(()),
            };
            let found = found.and_then(|()| {
                fuzz(target, seed.wrapping_add(turn), TURN.min(share).min(left.max(share / 10)), tell)
            });
            match found {
                Ok(progress) => {
                    total.inputs += progress.inputs;
                    total.answers = total.answers.max(progress.answers);
                }
                Err(failure) => {
                    let kept = keep(&failure).map(|path| path.display().to_string());
                    eprintln!(
                        "\nfuzz: {name}: {}\nthe input is {}",
                        failure.what,
                        kept.unwrap_or_else(|e| format!("lost: {e}"))
                    );
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

fn report(targets: &[&Target], totals: &[Progress]) {
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    for (target, Progress { inputs, answers }) in targets.iter().zip(totals) {
        println!("{:<14} {inputs:>10} inputs {answers:>5} different answers", target.name);
    }
}
