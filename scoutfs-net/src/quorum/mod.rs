// SPDX-License-Identifier: GPL-2.0-only
//! Who serves: the election over the voter slots.
//!
//! | module | what |
//! | --- | --- |
//! | `block` | [`VoterBlock`]: the state of a slot, to bytes and back |
//! | `timing` | [`Timing`]: beat, lease and the other times |
//! | `slots` | what was seen of all slots |
//! | `beating` | [`Beating`]: the voters that a leader needs |
//! | `voter` | [`Voter`]: the machine, from outside |
//! | `cycle` | what it decides in a cycle |
//!
//! There are `2n - 1` slots, and `n` votes are a majority. The election needs nothing but the shared device: each
//! owner of a slot writes its own block and reads everybody's. One cycle is: read all blocks, decide, write the own
//! one. So each write follows a reading of the own block, and ends the ownership when a foreign nonce is there.
//!
//! # What is assumed
//!
//! - A reading that begins after a write is durable shows it, or something newer.
//! - A write of a machine that runs lands within the dead time, or fails. A machine whose death is confirmed writes
//!   nothing more. (One whose death is only presumed might; that is why the presumption takes long.)
//! - Clocks run at nearly the same rate: over a lease they differ by less than the margin. They need not agree on
//!   anything else.
//!
//! # Why there is one leader
//!
//! *One winner for each term.* A slot votes once for each term, durably, and two majorities have a slot in common.
//! A new owner keeps the slot's term and vote, and votes only in terms above all that it reads after its claim has
//! settled, so that a vote of its slot which it does not know of cannot be repeated.
//!
//! *Leases do not overlap.* A leader reads, beats, and reads again. Its lease counts from the start of the first reading, before
//! anything of the beat was written, and is extended when the second one, which began after the beat was durable, shows no
//! higher term. A winner writes its win, and then reads. So of the two one sees the other: a second reading that began after
//! the win was durable shows it, and extends nothing; one that began before came after a beat that the winner sees when it
//! reads. The newest beat that a winner sees is therefore that of the last extension, or a newer one, and the lease ends a lease
//! after the moment in which the winner first saw this beat, at the latest: the winner serves when the beat has been there for a
//! lease and the margin, as it would if it had won long ago. Where it cannot read the slot there is still that no
//! extension counts from a later moment than the win: it waits for a lease and the margin after that was durable. After the wait
//! it reads again, and serves only if nobody has won a higher term in the meantime, and its votes still stand.
//!
//! *A lease that has ended can go on.* A leader that was held up (its device hung, its machine slept) acts on nothing while its
//! lease is over, but keeps showing itself as the leader. Its lease goes on by the same rule: with a beat, and a reading after it
//! that shows its own claim and no higher term. Nobody has led meanwhile, for a term never goes back; and whoever wins later sees that
//! beat. Whoever takes over the slot itself, its owner's death not being confirmed, watches for a dead time first, which is longer
//! than a lease.
//!
//! How long others let a leader be silent before one of them stands is a question of manners, not of safety: who stands ends a
//! leader that may only be slow ([`Timing::patience_ms`]).
//!
//! # When the waiting can be left out
//!
//! A volume that was left cleanly should be there at once. Of the waits of an election, this is what each is for, and
//! when it is not needed:
//!
//! - *Silence before a claim* shows that the owner is gone. A slot that was left cleanly has no owner, and its last
//!   owner wrote nothing after it left: no wait. An owner whose death is confirmed cannot write either; the short
//!   silence ([`Timing::confirmed_ms`]) is there to notice a wrong confirmation.
//! - *Watching after a claim* is there because of another claimer that read the slot before this claim was
//!   durable and whose own claim is still on its way: it lands on top of this one. Each claimer measures the time from
//!   the start of its reading until its claim was durable. When that was *prompt*, at most [`Timing::prompt_ms`], then
//!   reading again after [`Timing::settle_ms`] shows every other prompt claim, and exactly one of the claimers finds
//!   its own nonce. A claimer that was not prompt watches for a whole dead time instead. By then a prompt one has
//!   written again (each write goes to the other copy with a higher number, which the late claim cannot beat),
//!   or its lease is over. So a prompt claim of a slot that was free or confirmed dead need not be watched for
//!   long; any other is.
//! - *Waiting after a win* lets the lease of an older leader end. It counts from the win, but from the newest beat of
//!   each other leader when every block is readable, as said above. A block that shows no leader has none to be waited
//!   for: a leader shows itself durably before it serves, in both copies of its slot so that a late claim cannot hide it, and
//!   until its lease has ended; and one that wins later reads after that, and sees this win. A leader whose death is confirmed
//!   writes nothing more: it is waited for the short silence. The win itself must have been prompt, so that it
//!   cannot have been on its way while another owner of the same slot came, watched and won.
//!
//! What remains for a single voter on a clean volume: one reading, the claim, `settle_ms`, one reading, the win, one
//! reading, the win in the other copy, one reading.

mod beating;
mod block;
mod cycle;
#[cfg(test)]
mod simulation;
mod slots;
#[cfg(test)]
mod tests;
mod timing;
mod voter;

pub use beating::{Beating, OtherVoter};
pub use block::{BlockError, SlotError, VoterBlock};
pub use timing::{Timing, TimingError};
pub use voter::{Config, ConfigError, Output, SlotView, Voter};
