// SPDX-License-Identifier: GPL-2.0-only
//! The ledger of invariants: what the C implementation learned the hard way, number by number, and where each is kept here.
//!
//! A test names an invariant by `invariant_N` in its name or by `Invariant N`, `Invariants N, M` in its own doc comment. What
//! no test names must say here why it cannot concern us yet, and what is named may not: so the ledger shrinks as things come.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How an invariant is kept.
enum Kept {
    /// Tests name it.
    Tests,
    /// It comes with a part that is not there yet: the part, and why not without it.
    Later(&'static str, &'static str),
    /// What it is about is not in this design.
    Never(&'static str),
}

use Kept::{Later, Never, Tests};

/// Parts that are not there yet.
const PARTS: &[&str] = &["cluster", "kernel", "archive"];

/// Each invariant, from 1 on.
const LEDGER: &[(&str, Kept)] = &[
    (
        "cached space between items protects as much as items do, whatever page a range of keys moves to",
        Tests,
    ),
    ("a read of the item cache that began before a commit inserts nothing that it read after it", Tests),
    ("the newest version of an item wins, also after every node and the server started again", Tests),
    ("a deletion sorts after the item that it deletes; the change index holds no inode twice", Tests),
    (
        "a read of several trees that meets a stale block drops all that it gathered under the old roots",
        Tests,
    ),
    ("a page of the item cache keeps start <= end, however it is split and trimmed", Tests),
    ("the bytes of erased items are counted once", Tests),
    ("a replaced xattr keeps its id; a shorter value of several parts ends where it ends", Tests),
    (
        "a transaction never changes more blocks than its commit can allocate, with one item in each leaf, too",
        Tests,
    ),
    ("lock recovery reports the mode that was held before a revoke that is still under way", Tests),
    ("no lock request is lost, and no lock freed that a request is about to use", Tests),
    ("idle locks are given back at the pace of use: no storm of messages", Tests),
    (
        "the cost of handling a message does not grow with those under way",
        Later("cluster", "benches would show it; tests assert no times, and nothing else shows it"),
    ),
    ("duplicate revokes and revokes of unknown locks are answered", Tests),
    (
        "dentries match directory items whenever they are used; revoking drops no reference that may delete an inode",
        Tests,
    ),
    ("no lock inversion between reads, faults, truncate, fallocate, listing and fiemap", Tests),
    (
        "the network layer never waits for memory that the filesystem must write back to free",
        Later("kernel", "in userspace memory is locked and PR_SET_IO_FLUSHER set; there is no socket yet"),
    ),
    ("a lost connection, leaving and recovery may interleave in any order", Tests),
    ("a mount that fails ends all requests that wait", Tests),
    ("errors on the wire are mapped, whole, and unknown ones stay errors", Tests),
    ("committing and getting the next seq are steps of their own, and each can be asked for again", Tests),
    ("an error while an answer is prepared leaves no reference to blocks that were not written", Tests),
    ("what the holders of a server commit may allocate is there before they begin", Tests),
    ("the estimate of room counts the blocks that free space itself is written to", Tests),
    ("a server starts from any state of the free space that another one may have left", Tests),
    ("work that grows with users' data is split over many commits, and goes on after a failover", Tests),
    ("a request that a former server did by half is completed when it is sent again", Tests),
    ("statfs reads what is stable, whatever changes meanwhile, and never stops the server", Tests),
    ("freed data extents are absorbed in whatever fragments they come", Tests),
    ("an extent is freed once, also when two delete the same inode", Tests),
    ("a metadata block is freed once in a merge", Tests),
    ("growing past a partial tail block leaves zeros there that survive eviction", Tests),
    (
        "move_blocks always gets further, in time linear in the extents",
        Later("archive", "extents do not move between files before archived ones are restored"),
    ),
    (
        "preallocation covers the block that is written, whatever extent there is; small files waste none",
        Tests,
    ),
    ("timestamps keep nanoseconds on every path; rename updates the ctime of what it replaces", Tests),
    ("setattr works on a restored file without length", Tests),
    (
        "waiting readers of archived data can be given an error without a data version",
        Later("archive", "nobody waits for archived data before they can be brought back"),
    ),
    ("online and offline blocks and st_blocks are the sums of the extents after every operation", Tests),
    ("a fallocate that extends a file changes its data version", Tests),
    ("ENOSPC is said only when no block can be reused anywhere; deleting works on a full volume", Tests),
    ("one deletes an inode, nobody uses it by then, and an orphan item exists iff it has no links", Tests),
    (
        "the last reference to an inode is dropped outside of locks and transactions",
        Later("kernel", "in userspace the front end drops references between operations only"),
    ),
    ("a handle does not revive an unlinked inode", Tests),
    ("newer items are never merged under older ones that are still in open logs", Tests),
    (
        "a reader sees each delta once while a merge goes on",
        Never("items are no deltas: the highest version wins"),
    ),
    ("every range is merged", Tests),
    ("logs of departed mounts never block merging", Tests),
    ("merging happens under any load, and many logs that wait do not slow the server", Tests),
    ("the inputs of a merge are not pinned in memory", Tests),
    (
        "compaction of search files resumes anywhere",
        Never("the search index is items, there is nothing to compact"),
    ),
    (
        "changes of quota rules hold the transaction; cached rules can be invalidated while they are read",
        Later("archive", "there are no quota rules yet"),
    ),
    ("deleting a file deletes its index items, each by its attribute's own id", Tests),
    ("the absence of an access list is cached only when it is true; inheritance is right on each way", Tests),
    ("getting and setting xattrs does not serialise processors", Tests),
    ("padding in structures on disk and of ioctls is zero", Tests),
    ("slow fencing starts no election; beats go on meanwhile", Tests),
    ("beats wait for no memory and no other work; what has arrived is read before silence is judged", Tests),
    ("the term of an election never goes back and starts from the greatest that was seen", Tests),
    ("two requests to fence one mount are harmless, and targets that disappear too", Tests),
    ("dead peers are noticed by keepalives that can be tuned", Tests),
    ("wrong mount options are errors and nothing worse", Tests),
    ("renames into the root directory work from anywhere", Tests),
    ("commands pass file names through untouched", Tests),
    ("print shows a live volume as it is on the device, and can leave out huge trees", Tests),
    ("a message to a mount that leaves or is fenced is not fatal to the server", Tests),
    ("caches give memory back under pressure and never deadlock doing so", Tests),
    ("paths of errors and shutdown leak nothing, and a setup that fails half way is undone", Tests),
    ("another format is refused cleanly, by an older and by a newer binary", Tests),
];

/// The sources of the project: those that `git` would list, without what is built.
fn sources() -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

/// The tests of a source that run by themselves: the name of each, and its doc comment as one line.
fn tests(text: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let belongs = |line: &str| line.starts_with("///") || line.starts_with("#[");
    let mut out = Vec::new();
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[test]") {
        let first = (0..at).rev().take_while(|n| belongs(lines[*n])).last().unwrap_or(at);
        let end = (at..lines.len()).find(|n| !belongs(lines[*n])).unwrap_or(lines.len());
        let name =
            lines.get(end).and_then(|line| line.split("fn ").nth(1)).and_then(|rest| rest.split('(').next());
        let head = &lines[first..end];
        if let Some(name) = name
            && !head.iter().any(|line| line.starts_with("#[ignore"))
        {
            let doc: Vec<&str> =
                head.iter().filter_map(|line| line.strip_prefix("///")).map(str::trim).collect();
            out.push((name.to_string(), doc.join(" ")));
        }
    }
    out
}

/// The numbers that a doc comment or the name of a test names.
fn named(text: &str) -> Vec<usize> {
    let text = text.to_lowercase();
    let mut numbers = Vec::new();
    for (at, _) in text.match_indices("invariant") {
        let mut rest = &text[at + "invariant".len()..];
        rest = rest.strip_prefix('s').unwrap_or(rest);
        // A list: numbers, each perhaps with words in parentheses, between commas and `and`.
        while let Some(after) = [", and ", " and ", ", ", " ", "_"].iter().find_map(|s| rest.strip_prefix(s))
        {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let Ok(number) = after[..digits].parse() else { break };
            numbers.push(number);
            rest = &after[digits..];
            if let Some((_, behind)) = rest.strip_prefix(" (").and_then(|words| words.split_once(')')) {
                rest = behind;
            }
        }
    }
    numbers
}

#[test]
fn each_invariant_is_named_by_a_test_or_the_ledger_says_why_not() {
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for path in sources() {
        for (name, doc) in tests(&std::fs::read_to_string(&path).unwrap()) {
            for number in named(&name).into_iter().chain(named(&doc)) {
                found.entry(number).or_default().push(format!("{}: {name}", path.display()));
            }
        }
    }
    let mut wrong = Vec::new();
    for (number, (what, kept)) in (1..).zip(LEDGER) {
        let tests = found.remove(&number).unwrap_or_default();
        match (kept, tests.first()) {
            (Tests, None) => wrong.push(format!("{number} ({what}): no test names it")),
            (Later(..) | Never(_), Some(test)) => {
                wrong.push(format!("{number} ({what}): no reason is needed, there is {test}"));
            }
            (Later(part, _), None) if !PARTS.contains(part) => {
                wrong.push(format!("{number} ({what}): {part} is no part"));
            }
            (Later(_, why) | Never(why), None) if why.is_empty() => {
                wrong.push(format!("{number} ({what}): no reason"));
            }
            _ => {}
        }
    }
    for (number, tests) in found {
        wrong.push(format!("{number} is no invariant: {}", tests[0]));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(LEDGER.len(), 68);
}

#[test]
fn only_names_and_doc_comments_of_tests_count() {
    assert_eq!(named("invariant_43_a_handle"), [43]);
    assert_eq!(named("Invariants 3 (the newest, of all), 31 (once), 44 and 7, and 8: 9"), [3, 31, 44, 7, 8]);
    assert_eq!(named("so it goes (invariant 9): 10. An invariant of 5. Variants 6"), [9]);
    let source = "
        // Invariant 1.
        /// Invariant 2.
        #[test]
        #[should_panic]
        /// And invariant 3.
        fn one() {
            // Invariant 4.
        }

        /// Invariant 5.
        fn no_test() {}

        /// Invariant 6.
        #[test]
        #[ignore = \"slow\"]
        fn ignored() {}

        #[test]
        fn invariant_7() {}
    ";
    let found = tests(source);
    assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["one", "invariant_7"]);
    assert_eq!(found[0].1, "Invariant 2. And invariant 3.");
}
