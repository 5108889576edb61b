// SPDX-License-Identifier: GPL-2.0-only
//! Building the kernel and the module.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::machine::Machine;
use super::{Arch, cache, frames, sources};
use crate::setup;

/// A kernel that was built.
pub struct Kernel {
    /// What for.
    pub arch: Arch,
    /// Whether it looks for mistakes.
    pub debug: bool,
    /// Its build tree.
    pub tree: PathBuf,
}

impl Kernel {
    /// What runs: a program that is a User-Mode Linux, or what QEMU loads.
    pub fn program(&self) -> PathBuf {
        self.tree.join(match self.arch {
            Arch::Um => "linux",
            Arch::X86 => "arch/x86/boot/bzImage",
        })
    }

    /// Tells its modules and tests from others'.
    pub fn name(&self) -> String {
        name(self.arch, self.debug)
    }
}

fn name(arch: Arch, debug: bool) -> String {
    format!("{}{}", arch.name(), if debug { "-debug" } else { "" })
}

impl Arch {
    fn name(self) -> &'static str {
        match self {
            Arch::Um => "um",
            Arch::X86 => "x86",
        }
    }

    /// Its configurations, in `scoutfs-kmod/config`; the last to set an option counts.
    fn configurations(self, debug: bool) -> &'static [&'static str] {
        match (self, debug) {
            (Arch::Um, false) => &["common", "um", "others"],
            (Arch::Um, true) => &["common", "um", "debug", "debug-um"],
            (Arch::X86, false) => &["common", "x86"],
            (Arch::X86, true) => &["common", "x86", "debug"],
        }
    }

    /// What is built, and the arguments that say for which architecture.
    fn targets(self) -> &'static [&'static str] {
        match self {
            Arch::Um => &["ARCH=um", "linux", "modules"],
            Arch::X86 => &["bzImage", "modules"],
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Arch::Um => &["ARCH=um"],
            Arch::X86 => &[],
        }
    }
}

/// The search path for the kernel's build: its own compilers, not the project's toolchain.
fn search_path(machine: &Machine) -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", machine.bindgen.display())
}

fn make(machine: &Machine, dir: &Path) -> Command {
    let mut make = Command::new("make");
    make.current_dir(dir).arg("LLVM=-19").env("PATH", search_path(machine)).stdin(Stdio::null());
    // Of the cargo and rustup that run this.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "MAKEFLAGS", "MFLAGS"] {
        make.env_remove(name);
    }
    make
}

fn finish(what: &str, command: &mut Command) -> Result<(), String> {
    println!("kernel: {what}");
    let status = command.status().map_err(|e| format!("{what}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed: {status}")) }
}

/// FNV-1a: tells configurations apart.
fn hash(texts: &[&[u8]]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.iter().copied().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Builds a kernel, if it was not. Takes 20 minutes of a processor, once, and more for a debug kernel.
pub fn kernel(machine: &Machine, arch: Arch, debug: bool) -> Result<Kernel, String> {
    let configurations = arch.configurations(debug).iter();
    let parts: Vec<_> = configurations.map(|name| sources().join(format!("config/{name}.config"))).collect();
    let texts: Vec<_> = parts
        .iter()
        .map(|part| fs::read(part).map_err(|e| format!("{}: {e}", part.display())))
        .collect::<Result<_, _>>()?;
    let hashed: Vec<&[u8]> =
        [machine.version.as_bytes()].into_iter().chain(texts.iter().map(Vec::as_slice)).collect();
    let key = hash(&hashed);
    let tree = cache()?.join(format!("{}-{}-{key:016x}", name(arch, debug), machine.version));
    let kernel = Kernel { arch, debug, tree };
    // Says what was put right.
    let done = kernel.tree.join("scoutfs-built");
    let corrections: Vec<_> =
        CORRECTIONS.iter().flat_map(|(file, _, right)| [file.as_bytes(), right.as_bytes()]).collect();
    let corrected = if debug { format!("{:016x}", hash(&corrections)) } else { String::new() };
    if fs::read_to_string(&done).is_ok_and(|with| with == corrected) {
        return Ok(kernel);
    }
    correct(&machine.source)?;
    fs::create_dir_all(&kernel.tree).map_err(|e| format!("{}: {e}", kernel.tree.display()))?;
    let out = format!("O={}", kernel.tree.display());
    let config = kernel.tree.join(".config");
    let from_source = |what: &str, targets: &[&str]| {
        let mut make = make(machine, &machine.source);
        finish(what, make.arg(&out).args(arch.arguments()).args(targets))
    };
    from_source("an empty configuration", &["-s", "allnoconfig"])?;
    let mut merge = Command::new("./scripts/kconfig/merge_config.sh");
    merge.current_dir(&machine.source).env("PATH", search_path(machine)).env("KCONFIG_CONFIG", &config);
    merge.args(["-m", "-Q", "-O"]).arg(&kernel.tree).arg(&config).args(&parts).stdout(Stdio::null());
    finish("with ours", &mut merge)?;
    from_source("complete", &["-s", "olddefconfig"])?;
    check_config(&config, &texts)?;
    let jobs = format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from));
    let targets: Vec<_> = ["-s", &jobs].into_iter().chain(arch.targets().iter().copied()).collect();
    from_source("building, which takes long the first time", &targets)?;
    fs::write(&done, corrected).map_err(|e| format!("{}: {e}", done.display()))?;
    Ok(kernel)
}

/// What is put right in the source of User-Mode Linux: a file, what is in it, and what is to be in its place. Kernels that were built without
/// are as good but for debugging.
const CORRECTIONS: &[(&str, &str, &str)] = &[
    // This compiler has large zeros in a section of their own, which was behind what the kernel takes for its end: lockdep did not know its
    // locks, nor kmemleak what it points to.
    (
        "arch/um/kernel/dyn.lds.S",
        "*(.bss .bss.* .gnu.linkonce.b.*)",
        "*(.bss .bss.* .gnu.linkonce.b.* .lbss .lbss.*)",
    ),
    // Traces are saved of each object. Whether a word of the stack is a function's address takes long to find out, and matters only where
    // a frame says that there is one.
    (
        "arch/um/kernel/stacktrace.c",
        "\t\tif (__kernel_text_address(addr)) {\n",
        "\t\tif ((ops != &dump_ops || (unsigned long) sp == bp + sizeof(long)) && __kernel_text_address(addr)) {\n",
    ),
    (
        "arch/um/kernel/stacktrace.c",
        "void dump_trace(struct task_struct *tsk,\n",
        "static const struct stacktrace_ops dump_ops;\n\nvoid dump_trace(struct task_struct *tsk,\n",
    ),
    // Opening the network card takes locks that its soft interrupts take.
    (
        "arch/um/drivers/vector_kern.c",
        "\tspin_lock(&vp->rx_queue->head_lock);\n\tvp->estats.rx_queue_max = 0;\n",
        "\tspin_lock_bh(&vp->rx_queue->head_lock);\n\tvp->estats.rx_queue_max = 0;\n",
    ),
    (
        "arch/um/drivers/vector_kern.c",
        "\tvp->estats.sg_linearized = 0;\n\tspin_unlock(&vp->rx_queue->head_lock);\n",
        "\tvp->estats.sg_linearized = 0;\n\tspin_unlock_bh(&vp->rx_queue->head_lock);\n",
    ),
    (
        "arch/um/drivers/vector_kern.c",
        "\tspin_lock(&vp->tx_queue->head_lock);\n\tvp->estats.tx_timeout_count = 0;\n",
        "\tspin_lock_bh(&vp->tx_queue->head_lock);\n\tvp->estats.tx_timeout_count = 0;\n",
    ),
    (
        "arch/um/drivers/vector_kern.c",
        "\tvp->estats.tx_queue_running_average = 0;\n\tspin_unlock(&vp->tx_queue->head_lock);\n",
        "\tvp->estats.tx_queue_running_average = 0;\n\tspin_unlock_bh(&vp->tx_queue->head_lock);\n",
    ), // Areas of memory are gone through under RCU where no lock of them is held.
    (
        "arch/um/kernel/tlb.c",
        "\tfor_each_vma(vmi, vma)\n\t\tum_tlb_mark_sync(mm, vma->vm_start, vma->vm_end);\n",
        "\trcu_read_lock();\n\tfor_each_vma(vmi, vma)\n\t\tum_tlb_mark_sync(mm, vma->vm_start, vma->vm_end);\n\trcu_read_unlock();\n",
    ),
];

/// Puts the source right, if it is not.
fn correct(source: &Path) -> Result<(), String> {
    for (file, wrong, right) in CORRECTIONS {
        let file = source.join(file);
        let text = |e: std::io::Error| format!("{}: {e}", file.display());
        let old = fs::read_to_string(&file).map_err(text)?;
        if old.contains(right) {
            continue;
        }
        if !old.contains(wrong) {
            return Err(format!("{}: there is no {wrong}", file.display()));
        }
        fs::write(&file, old.replace(wrong, right)).map_err(text)?;
    }
    Ok(())
}

/// Fails when the kernel does not take an option that is wanted: it was renamed, or needs another.
fn check_config(config: &Path, texts: &[Vec<u8>]) -> Result<(), String> {
    let got = fs::read_to_string(config).map_err(|e| format!("{}: {e}", config.display()))?;
    let got: Vec<_> = got.lines().collect();
    let texts: Vec<_> = texts.iter().map(|text| String::from_utf8_lossy(text)).collect();
    let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("CONFIG_"));
    let wanted: BTreeMap<_, _> = lines.filter_map(|line| Some((line.split_once('=')?.0, line))).collect();
    let missing: Vec<_> =
        wanted.into_values().filter(|line| !line.ends_with("=n") && !got.contains(line)).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("this kernel's configuration does not take {}", missing.join(", ")))
    }
}

/// Builds the module for a kernel, looks at how much stack it takes, and returns where it is.
pub fn module(machine: &Machine, kernel: &Kernel) -> Result<PathBuf, String> {
    let out = setup::root().join("target").join(format!("kmod-{}", kernel.name()));
    let arguments: Vec<_> = ["-s", "LLVM=-19"].iter().chain(kernel.arch.arguments()).copied().collect();
    let own = format!("{} CARGO={} RUSTC=/usr/bin/rustc", arguments.join(" "), setup::cargo());
    let mut make = make(machine, &sources());
    make.arg(format!("KDIR={}", kernel.tree.display()))
        .arg(format!("MO={}", out.display()))
        .arg(format!("KARGS={own}"));
    finish("the module", make.arg("-s"))?;
    if !kernel.debug {
        // There functions are larger by what looks after them, and so are stacks.
        let limit = match kernel.arch {
            Arch::Um => frames::LIMIT,
            Arch::X86 => frames::LIMIT_WITH_NOTES,
        };
        frames::check(&[&out.join("kcore.o"), &out.join("src/main.o")], limit)?;
    }
    Ok(out.join("scoutfs.ko"))
}

/// Builds a module of the tests, `guest/NAME`, and returns where it is.
pub fn test_module(machine: &Machine, kernel: &Kernel, name: &str) -> Result<PathBuf, String> {
    let out = setup::root().join("target").join(format!("kmod-{name}-{}", kernel.name()));
    let source = sources().join("guest").join(name);
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let mut make = make(machine, &kernel.tree);
    make.arg("-s").args(kernel.arch.arguments());
    make.arg(format!("M={}", source.display())).arg(format!("MO={}", out.display())).arg("modules");
    finish(&format!("a module for tests, {name}"), &mut make)?;
    Ok(out.join(format!("scoutfs_{name}.ko")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_or_configuration_is_another_kernel() {
        let all = [&[b"7.3".as_slice(), b"a"][..], &[b"7.4", b"a"], &[b"7.3", b"b"], &[b"7.3a", b""]];
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert_eq!(hash(one) == hash(other), i == j);
            }
        }
    }
}
