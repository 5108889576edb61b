// SPDX-License-Identifier: GPL-2.0-only
//! The cluster simulation: `cluster [SEED] [--nodes N] [--count N] [--weather NAME] [--small]
//! [--fault NAME] [--trace]`. See `scoutfs_sim::cluster`.
//!
//! One seed runs in this process and tells what became of it; several run in a process each, and those that
//! fail are printed with the command that repeats them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use scoutfs_env::fault::{Fault, plant};
use scoutfs_sim::cluster::{Batch, Chosen, Options, Weather, repeat, run};

/// No run takes so long.
const HUNG: Duration = Duration::from_secs(120);

struct Arguments {
    seed: Option<u64>,
    count: u64,
    chosen: Chosen,
    trace: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments { seed: None, count: 1, chosen: Chosen::default(), trace: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
        match word.as_str() {
            "--nodes" => found.chosen.nodes = Some(number(value()?)? as usize).filter(|nodes| *nodes > 0),
            "--count" => found.count = number(value()?)?,
            "--small" => found.chosen.is_small = true,
            "--trace" => found.trace = true,
            "--weather" => {
                let name = value()?;
                let weather = Weather::ALL.iter().find(|weather| format!("{weather:?}") == name);
                found.chosen.weather =
                    Some(*weather.ok_or(format!("no weather {name}; there are {:?}", Weather::ALL))?);
            }
            "--fault" => {
                let name = value()?;
                let mut all = Fault::ALL.iter().chain([&Fault::None]);
                let fault = all.find(|fault| format!("{fault:?}") == name);
                found.chosen.fault = *fault.ok_or(format!("no fault {name}; there are {:?}", Fault::ALL))?;
            }
            seed => found.seed = Some(number(seed.to_string())?),
        }
    }
    Ok(found)
}

fn main() -> ExitCode {
    let Arguments { seed, count, chosen, trace } = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("cluster: {why}");
            return ExitCode::from(2);
        }
    };
    let seed = seed.unwrap_or_else(|| scoutfs_env::random::u64() >> 32);
    let began = Instant::now();
    if count == 1 {
        // What waits for real, and not in the simulation, would wait for ever.
        std::thread::spawn(move || {
            std::thread::sleep(HUNG);
            println!("seed {seed}: hangs for real\nto repeat it: {}", repeat(seed, &chosen));
            std::process::exit(1);
        });
        plant(chosen.fault);
        let mut options = Options::of_seed(seed);
        options.nodes = chosen.nodes.unwrap_or(options.nodes);
        if let Some(weather) = chosen.weather {
            (options.weather, options.is_small) = (weather, false);
        }
        options.is_small |= chosen.is_small;
        options.trace = trace;
        let verdict = run(&options);
        if let Some(wrong) = &verdict.wrong {
            println!("seed {seed}: {wrong}");
            verdict.report.waiting.iter().for_each(|line| println!("    {line}"));
            println!("to repeat it: {}", repeat(seed, &chosen));
        }
        let (reads, writes, synced) = verdict.operations;
        println!(
            "seed {seed}: {} hosts, weather {:?}, {} mounts, {reads} reads and {writes} writes checked, {synced} synced; {:.1} s of its time, \
             {} switches, trace {:016x}; {:?}",
            options.nodes,
            options.weather,
            verdict.mounts,
            verdict.report.took_ns as f64 / 1e9,
            verdict.report.steps,
            verdict.report.trace,
            began.elapsed(),
        );
        // Not by returning: threads of mounts that were killed are still there.
        std::process::exit(i32::from(verdict.wrong.is_some()));
    }
    let program = std::env::current_exe().expect("this program's path");
    let longest = Duration::from_secs(u64::MAX / 2);
    let batch = Batch { program: &program, first: seed, count, chosen, enough: usize::MAX, longest };
    let (done, failed) = batch.run();
    for (seed, why) in &failed {
        println!("{why}\n    to repeat it: {}", repeat(*seed, &chosen));
    }
    println!("{done} seeds from {seed} on, {} failed; {:?}", failed.len(), began.elapsed());
    ExitCode::from(u8::from(!failed.is_empty()))
}
