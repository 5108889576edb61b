// SPDX-License-Identifier: GPL-2.0-only
//! Running a target: over the inputs that ever failed, and for a time over changed ones.

use std::any::Any;
use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Target;
use super::mutate::mutate;
use crate::rng::Rng;

/// An input that takes longer hangs. None takes a hundredth of it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Most inputs that are kept to be changed further, besides the seeds.
const POOL: usize = 4096;

/// An input that is not answered as it should be.
#[derive(Debug)]
pub struct Failure {
    /// The target.
    pub target: &'static str,
    /// What was wrong.
    pub what: String,
    /// The input.
    pub input: Vec<u8>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Inputs so far.
    pub inputs: u64,
    /// Different answers.
    pub answers: usize,
}

/// Runs one input.
pub fn run_one(target: &Target, input: &[u8]) -> Result<String, Failure> {
    catch_unwind(AssertUnwindSafe(|| (target.decode)(input))).map_err(|panic| Failure {
        target: target.name,
        what: words(&*panic),
        input: input.to_vec(),
    })
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

/// Does something in a thread that is watched: `next` gives inputs until there are none, `answered` hears of each.
fn watched(
    target: &'static Target,
    mut next: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
    mut answered: impl FnMut(&[u8], String) + Send + 'static,
) -> Result<(), Failure> {
    let current = Arc::new(Mutex::new(Vec::new()));
    let (done, hear) = channel();
    let own = current.clone();
    // Not waited for when it hangs.
    thread::spawn(move || {
        let mut beat = Instant::now();
        while let Some(input) = next() {
            own.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&input);
            match run_one(target, &input) {
                Ok(answer) => answered(&input, answer),
                Err(failure) => return drop(done.send(Some(failure))),
            }
            if beat.elapsed() > PATIENCE / 10 {
                beat = Instant::now();
                let _ = done.send(None);
            }
        }
    });
    loop {
        match hear.recv_timeout(PATIENCE) {
            Ok(None) => {}
            Ok(Some(failure)) => return Err(failure),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                let input = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
                return Err(Failure { target: target.name, what: "it hangs".into(), input });
            }
        }
    }
}

/// Changes inputs for a time, and tells now and then how far it is. The same seed and target give the same inputs in the same
/// order.
pub fn fuzz(
    target: &'static Target,
    seed: u64,
    time: Duration,
    progress: impl Fn(Progress) + Send + Sync + 'static,
) -> Result<Progress, Failure> {
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "no seeds for {}", target.name);
    let began = Instant::now();
    let pool = Arc::new(Mutex::new(seeds.clone()));
    let state = Arc::new(Mutex::new((Progress::default(), BTreeSet::new())));
    let mut rng = Rng::new(seed);
    let mut unchanged = seeds.into_iter();
    let (from, sign) = (pool.clone(), target.sign);
    let next = move || {
        if let Some(input) = unchanged.next() {
            return Some(input);
        }
        if began.elapsed() >= time {
            return None;
        }
        let pool = from.lock().unwrap_or_else(PoisonError::into_inner);
        // New ones more often.
        let newest = pool.len() - 1 - rng.below(pool.len()).min(rng.below(pool.len()));
        let mut input = pool[newest].clone();
        let other = pool[rng.below(pool.len())].clone();
        drop(pool);
        mutate(&mut input, &other, &mut rng);
        if !rng.one_in(32) {
            sign(&mut input);
        }
        Some(input)
    };
    let told = state.clone();
    let mut last = Instant::now();
    let answered = move |input: &[u8], answer: String| {
        let mut state = told.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.inputs += 1;
        if state.1.len() < POOL && state.1.insert(answer) {
            pool.lock().unwrap_or_else(PoisonError::into_inner).push(input.to_vec());
            state.0.answers = state.1.len();
        }
        if last.elapsed() >= Duration::from_millis(500) {
            last = Instant::now();
            progress(state.0);
        }
    };
    watched(target, next, answered)?;
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(state.0)
}

/// The folder of the inputs of a target that ever failed.
pub fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// Runs all inputs that ever failed. Gives their number.
pub fn replay(target: &'static Target) -> Result<usize, Failure> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(corpus(target)).into_iter().flatten() {
        let path = entry.expect("a folder of files").path();
        inputs.push(fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    }
    let count = inputs.len();
    let mut inputs = inputs.into_iter();
    watched(target, move || inputs.next(), |_, _| ())?;
    Ok(count)
}

/// Writes an input that failed to the folder of its target, to be committed once it does not fail any more.
pub fn keep(failure: &Failure) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    failure.input.hash(&mut hasher);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(failure.target);
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{:016x}", hasher.finish()));
    fs::write(&path, &failure.input)?;
    Ok(path)
}
