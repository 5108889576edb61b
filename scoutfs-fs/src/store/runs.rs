// SPDX-License-Identifier: GPL-2.0-only
//! Which log trees a checkpoint writes anew.
//!
//! A checkpoint writes the gathered items as a log tree of their own, a *run*, and leaves the runs before it alone: to
//! change a few items in each leaf of a large tree would write all of it again. So that readers need not look into too many runs,
//! the newest ones are joined with the new one when there are [`FANOUT`] of about the same size. Runs of one size class become
//! one of the next class, so an item is written once for each class: two or three times until its run is finalized
//! and merged into the fs tree.

/// Runs of a size class that become one of the next.
const FANOUT: usize = 8;
/// Bytes of items of the runs of the lowest class, at most.
const LOWEST: u64 = 64 << 10;

/// Size class of so many bytes of items.
fn class(bytes: u64) -> u32 {
    (bytes / LOWEST).checked_ilog(FANOUT as u64).map_or(0, |class| class + 1)
}

/// How many of the runs, oldest first and each by its bytes of items, the checkpoint joins with `new_bytes` of new items: the
/// newest ones.
pub(super) fn to_join(runs: &[u64], new_bytes: u64) -> usize {
    let mut joined = 0;
    let mut bytes = new_bytes;
    loop {
        let class = class(bytes);
        let left = runs.get(..runs.len() - joined).unwrap_or_default();
        let same = left.iter().rev().take_while(|&&run| self::class(run) <= class).count();
        if same + 1 < FANOUT {
            return joined;
        }
        bytes = left.iter().rev().take(same).fold(bytes, |sum, run| sum.saturating_add(*run));
        joined += same;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Whatever the sizes of checkpoints are, there are few runs, and little is written again.
    #[test]
    fn there_are_few_runs_and_an_item_is_written_again_a_few_times() {
        for sizes in [&[130u64 << 10][..], &[10 << 10], &[4 << 10, 250 << 10], &[8 << 20, 64, 64, 64]] {
            let mut runs: Vec<u64> = Vec::new();
            let (mut gathered, mut written, mut most) = (0, 0, 0);
            for size in sizes.iter().cycle() {
                let joined = to_join(&runs, *size);
                let new = runs.drain(runs.len() - joined..).sum::<u64>() + size;
                runs.push(new);
                gathered += size;
                written += new;
                most = most.max(runs.len());
                if gathered > 32 << 20 {
                    break;
                }
            }
            assert!(most <= 28, "{sizes:?}: {most} runs");
            assert!(written < 5 * gathered, "{sizes:?}: {written} bytes for {gathered}");
            assert_eq!(runs.iter().sum::<u64>(), gathered);
        }
    }

    #[test]
    fn a_large_run_is_left_alone_by_small_ones() {
        let large = 16 << 20;
        assert_eq!(to_join(&[large], 1000), 0);
        assert_eq!(to_join(&[large; 6], large), 0);
        assert_eq!(to_join(&[large; 7], large), 7);
        let mut runs = Vec::from([large]);
        runs.extend([1000; 7]);
        assert_eq!(to_join(&runs, 1000), 7);
        assert_eq!(to_join(&[], u64::MAX), 0);
    }
}
