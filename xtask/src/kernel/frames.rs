// SPDX-License-Identifier: GPL-2.0-only
//! How much of a kernel's small stack each function of the module takes, read from the machine code.
//!
//! A stack is 16 KiB, and what calls the core and what the core calls (the VFS above, a block driver or TCP below) needs half of it. What
//! is between is a dozen calls deep. No frame but a few may be large.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Bytes that a function may reserve. The registers that it saves and the return address come on top: 64 at most.
pub const LIMIT: u64 = 2048;

/// The same where a kernel has lockdep: each lock has its notes with it, and so has what is made with locks in it.
pub const LIMIT_WITH_NOTES: u64 = 2560;

/// Functions of the core that the module has and does not call, by what is in their names, which may be mangled.
const NOT_CALLED: &[&str] = &[
    // Offline: `scoutfs check` is a program's.
    "scoutfs_fs::check::",
    "scoutfs_fs5check",
];

/// A function and what it reserves.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    bytes: u64,
    function: String,
}

/// Fails when a function of these object files takes more than `limit`.
pub fn check(objects: &[&Path], limit: u64) -> Result<(), String> {
    let mut large = Vec::new();
    let mut functions = 0;
    for object in objects {
        let mut command = Command::new("llvm-objdump-19");
        command.args(["--disassemble", "--demangle", "--no-show-raw-insn", "--no-leading-addr"]).arg(object);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("llvm-objdump-19: {e}"))?;
        let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(|out| out.split(b'\n'));
        let texts = lines.map_while(Result::ok).map(|line| String::from_utf8_lossy(&line).into_owned());
        functions += frames(texts, limit, &mut large);
        if !child.wait().is_ok_and(|status| status.success()) {
            return Err(format!("{} cannot be disassembled", object.display()));
        }
    }
    if functions == 0 {
        return Err("no function was found in the module".into());
    }
    large.sort_by_key(|frame| std::cmp::Reverse(frame.bytes));
    let lines: Vec<_> =
        large.iter().map(|frame| format!("{:6} bytes in {}", frame.bytes, frame.function)).collect();
    match lines.is_empty() {
        true => Ok(()),
        false => Err(format!("frames of more than {limit} bytes:\n{}", lines.join("\n"))),
    }
}

/// Adds the large frames of a disassembly, and counts its functions.
fn frames(lines: impl Iterator<Item = String>, limit: u64, large: &mut Vec<Frame>) -> usize {
    let mut function = String::new();
    let mut functions = 0;
    for line in lines {
        if let Some(name) = line.strip_prefix('<').and_then(|rest| rest.strip_suffix(">:")) {
            function = without_hashes(name);
            functions += 1;
        } else if let Some(bytes) = reserved(&line).filter(|bytes| *bytes > limit)
            && !NOT_CALLED.iter().any(|part| function.contains(part))
        {
            large.push(Frame { bytes, function: function.clone() });
        }
    }
    functions
}

/// What an instruction reserves on the stack; as much as there is when the machine code does not say.
fn reserved(line: &str) -> Option<u64> {
    let instruction = line.split_once('#').map_or(line, |(instruction, _)| instruction);
    let (operation, operands) = instruction.trim().split_once(|c: char| c.is_whitespace())?;
    let amount = operands.trim().strip_suffix(", %rsp")?;
    if !operation.starts_with("sub") {
        return None;
    }
    let number = amount.strip_prefix("$0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    Some(number.unwrap_or(u64::MAX))
}

/// A name without the compiler's hashes of crates: `scoutfs_fs[b1250c7ccd554e4a]::Fs`.
fn without_hashes(name: &str) -> String {
    let mut rest = name;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        rest = match after.split_once(']') {
            Some((hash, after)) if !hash.is_empty() && hash.bytes().all(|b| b.is_ascii_hexdigit()) => after,
            _ => {
                out.push('[');
                after
            }
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_frames_are_found_and_named() {
        let text = "\nkcore.o:\tfile format elf64-x86-64\n\nDisassembly of section .text:\n\n\
            <<scoutfs_fs[b1250c7ccd554e4a]::node::mount::Mount>::open>:\n      \tpushq\t%rbp\n      \tsubq\t$0x1958, %rsp            # imm = 0x1958\n\
            <scoutfs_fs[b1250c7ccd554e4a]::check::check_with>:\n      \tsubq\t$0x2958, %rsp\n\
            <<[u8]>::small>:\n      \tsubq\t$0x800, %rsp\n      \tsubq\t$0x10000, %rax\n      \taddq\t$0x1958, %rsp\n\
            <of_a_size_that_varies>:\n      \tsubq\t%rax, %rsp\n";
        let mut large = Vec::new();
        assert_eq!(frames(text.lines().map(str::to_owned), LIMIT, &mut large), 4);
        let frame = |bytes, function: &str| Frame { bytes, function: function.into() };
        assert_eq!(
            large,
            [
                frame(0x1958, "<scoutfs_fs::node::mount::Mount>::open"),
                frame(u64::MAX, "of_a_size_that_varies")
            ]
        );
        assert_eq!(without_hashes("<[u8; 3] as a[0]::B>"), "<[u8; 3] as a::B>");
    }
}
