// SPDX-License-Identifier: GPL-2.0-only
//! Many pieces of work, done by several threads, whose results come in order.
//!
//! Who asks gets the result of piece 0, then that of piece 1, and so on, whatever thread was first: what is made of the
//! results does not depend on the number of threads. At most `2 * threads` results are in memory.
//!
//! # Locking
//!
//! One mutex, held for a few instructions; nothing is locked under it.

use scoutfs_env::sync::{Condvar, Mutex};
use scoutfs_env::thread::{JoinHandle, spawn};
use scoutfs_env::{Arc, Vec};

use super::CheckError;

/// Pieces that are taken and the results that wait.
struct State<T> {
    /// The piece that is taken next.
    next: usize,
    /// The piece whose result is wanted next.
    wanted: usize,
    /// Result of piece `n` at `n % len`.
    results: Vec<Option<Result<T, CheckError>>>,
    /// Nobody wants more.
    stop: bool,
}

struct Pool<T, F> {
    state: Mutex<State<T>>,
    /// There is room for another result, or it is time to stop.
    room: Condvar,
    /// A result came, or no more will come.
    ready: Condvar,
    count: usize,
    work: F,
}

impl<T, F: Fn(usize) -> Result<T, CheckError>> Pool<T, F> {
    fn run(&self) {
        while let Some(nr) = self.take() {
            // A panic goes on in who waits for this thread, who must not wait for its result.
            let mut stop = StopUnlessDone { pool: self, done: false };
            let result = (self.work)(nr);
            stop.done = true;
            let mut state = self.state.lock();
            let len = state.results.len();
            if let Some(place) = state.results.get_mut(nr % len.max(1)) {
                *place = Some(result);
            }
            drop(state);
            self.ready.notify_one();
        }
    }

    fn take(&self) -> Option<usize> {
        let mut state = self.state.lock();
        while !state.stop
            && state.next < self.count
            && state.next - state.wanted.min(state.next) >= state.results.len()
        {
            state = self.room.wait(state);
        }
        if state.stop || state.next >= self.count {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }
}

impl<T, F> Pool<T, F> {
    /// The result of the piece that is wanted next, `None` when a thread has panicked.
    fn result(&self) -> Option<Result<T, CheckError>> {
        let mut state = self.state.lock();
        loop {
            let at = state.wanted % state.results.len().max(1);
            if let Some(result) = state.results.get_mut(at).and_then(Option::take) {
                state.wanted += 1;
                drop(state);
                self.room.notify_all();
                return Some(result);
            }
            if state.stop {
                return None;
            }
            state = self.ready.wait(state);
        }
    }

    fn stop(&self) {
        self.state.lock().stop = true;
        self.room.notify_all();
        self.ready.notify_all();
    }
}

struct StopUnlessDone<'a, T, F> {
    pool: &'a Pool<T, F>,
    done: bool,
}

impl<T, F> Drop for StopUnlessDone<'_, T, F> {
    fn drop(&mut self) {
        if !self.done {
            self.pool.stop();
        }
    }
}

/// Ends and waits for all threads when it is dropped.
struct Threads<T, F> {
    pool: Arc<Pool<T, F>>,
    handles: Vec<JoinHandle>,
}

impl<T, F> Drop for Threads<T, F> {
    fn drop(&mut self) {
        self.pool.stop();
        while let Some(handle) = self.handles.pop() {
            handle.join();
        }
    }
}

/// Does the pieces `0..count` with `work` in up to `threads` threads, and gives the results in order to `each`, in the
/// caller's thread. Ends at the first error, of a piece or of `each`. With one thread, or when none can be started, all
/// is done by the caller.
pub(super) fn in_order<T, F>(
    threads: usize,
    count: usize,
    work: F,
    each: &mut dyn FnMut(T) -> Result<(), CheckError>,
) -> Result<(), CheckError>
where
    T: Send + 'static,
    F: Fn(usize) -> Result<T, CheckError> + Send + Sync + 'static,
{
    let threads = threads.min(count);
    if threads < 2 {
        return (0..count).try_for_each(|nr| each(work(nr)?));
    }
    let mut results = Vec::with_capacity(2 * threads)?;
    for _ in 0..2 * threads {
        results.push(None)?;
    }
    let state = State { next: 0, wanted: 0, results, stop: false };
    let (room, ready) = (Condvar::new(), Condvar::new());
    let pool = Arc::new(Pool { state: Mutex::new(state), room, ready, count, work })?;
    let mut running = Threads { pool: pool.clone(), handles: Vec::with_capacity(threads)? };
    for _ in 0..threads {
        let own = pool.clone();
        // With fewer threads it takes longer.
        let Ok(handle) = spawn("check", move || own.run()) else { break };
        // There is room: see above.
        drop(running.handles.push_within_capacity(handle));
    }
    if running.handles.is_empty() {
        return (0..count).try_for_each(|nr| each((pool.work)(nr)?));
    }
    for _ in 0..count {
        match pool.result() {
            Some(result) => each(result?)?,
            // The panic goes on when the threads are waited for.
            None => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex as StdMutex;
    use std::time::Duration;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn results_come_in_order_from_several_threads() {
        static THREADS: StdMutex<BTreeSet<std::string::String>> = StdMutex::new(BTreeSet::new());
        let mut got = Vec::new();
        let work = |nr: usize| {
            THREADS.lock().unwrap().insert(std::format!("{:?}", std::thread::current().id()));
            // Later ones are often done first.
            std::thread::sleep(Duration::from_micros([900, 10, 300, 0][nr % 4]));
            Ok(nr)
        };
        in_order(4, 300, work, &mut |nr| {
            got.push(nr);
            Ok(())
        })
        .unwrap();
        assert_eq!(got, (0..300).collect::<Vec<_>>());
        assert!(THREADS.lock().unwrap().len() > 1);
    }

    #[test]
    fn results_that_wait_are_few() {
        static DONE: StdMutex<usize> = StdMutex::new(0);
        let work = |nr| {
            *DONE.lock().unwrap() += 1;
            Ok(nr)
        };
        in_order(3, 200, work, &mut |nr: usize| {
            std::thread::sleep(Duration::from_micros(200));
            assert!(*DONE.lock().unwrap() <= nr + 1 + 2 * 3);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn the_first_error_in_order_ends_it() {
        for threads in [1, 4] {
            let mut got = 0;
            let work = |nr: usize| if nr < 50 { Ok(nr) } else { Err(CheckError::NoMemory) };
            let ended = in_order(threads, 1000, work, &mut |_| {
                got += 1;
                Ok(())
            });
            assert_eq!(ended, Err(CheckError::NoMemory));
            assert_eq!(got, 50);
            let stop = |nr| if nr < 7 { Ok(()) } else { Err(CheckError::NoMemory) };
            assert_eq!(in_order(threads, 1000, Ok, &mut { stop }), Err(CheckError::NoMemory));
        }
    }

    #[test]
    fn a_panic_of_a_thread_goes_on_in_the_caller() {
        let work = |nr: usize| if nr == 20 { panic!("piece {nr}") } else { Ok(nr) };
        let caught = std::panic::catch_unwind(|| in_order(4, 100, work, &mut |_| Ok(())));
        assert!(caught.is_err());
    }
}
