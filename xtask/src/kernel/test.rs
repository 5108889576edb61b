// SPDX-License-Identifier: GPL-2.0-only
//! What is done in guests, and with the volume before and after.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::build::Kernel;
use super::guest::{Guest, slowness};
use super::{Arch, machine, sources};
use crate::{programs, setup};

/// How long a guest waits for another.
const MEETING: Duration = Duration::from_secs(120);

/// Where a guest mounts.
const GUEST_MOUNT: &str = "/mnt/scoutfs";

/// Modules that guests load.
pub struct Modules {
    /// The filesystem.
    pub scoutfs: PathBuf,
    /// Tells what no program can see.
    pub cookie: PathBuf,
    /// Makes mistakes.
    pub faults: PathBuf,
}

type Part = fn(&Bench<'_>) -> Result<(), String>;

/// All parts, in their order, but the mounted tests.
const PARTS: &[(&str, Part)] = &[
    ("exchange", |bench| bench.exchange()),
    ("deaths", |bench| bench.deaths()),
    ("killed", |bench| bench.killed()),
    ("prepared", |bench| bench.prepared()),
    ("manners", |bench| bench.manners()),
    ("cluster", |bench| bench.cluster()),
    ("ipv6", |bench| bench.ipv6()),
    ("nfs", |bench| bench.nfs()),
    ("rounds", |bench| bench.rounds()),
    ("programs", |bench| bench.programs()),
];

/// Before the others, on kernels that look for mistakes.
const LOOKING_PARTS: &[(&str, Part)] =
    &[("reports", |bench| bench.reports()), ("failures", |bench| bench.failures())];

/// All tests, or those of these names; so many rounds of mounting and unmounting.
pub fn run(kernel: &Kernel, modules: &Modules, rounds: u32, names: &[String]) -> Result<(), String> {
    setup::need_root()?;
    let looking = kernel.debug || kernel.arch == Arch::X86;
    let parts: Vec<_> = LOOKING_PARTS.iter().filter(|_| looking).chain(PARTS).copied().collect();
    let known =
        |name: &str| name == "mounted" || name.contains("::") || parts.iter().any(|(part, _)| *part == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<_> = parts.iter().map(|(name, _)| *name).chain(["mounted"]).collect();
        return Err(format!("there is no part {unknown}, but {}", all.join(", ")));
    }
    setup::install()?;
    setup::run(setup::cargo(), &["build", "--release", "--package", "scoutfs-utils"])?;
    let bench = Bench::new(kernel, modules, rounds)?;
    let wanted = |part: &str| names.is_empty() || names.iter().any(|name| name == part);
    parts.iter().filter(|(name, _)| wanted(name)).try_for_each(|(_, part)| part(&bench))?;
    let mounted: Vec<_> = names.iter().filter(|name| name.contains("::")).map(String::as_str).collect();
    match mounted.is_empty() {
        true if wanted("mounted") => match kernel.arch {
            Arch::Um => bench.mounted(MOUNTED),
            Arch::X86 => bench.mounted(MOUNTED_EMULATED),
        },
        true => Ok(()),
        false => bench.mounted(&mounted),
    }
}

/// Which of the mounted tests an emulated guest runs when none are named: where many do something at one time.
const MOUNTED_EMULATED: &[&str] =
    &["cluster::", "data::", "deadlocks::", "file_locks::", "ioctl::who", "posix::a", "sharing::"];

/// Which of the mounted tests a guest runs. Not `killed`, `durability`, `cluster_deaths`, `cluster_chaos`, `status` and `model`: they kill
/// or stop the daemons that serve their mounts, and a kernel dies only with its guest, for which there are tests here. In one of
/// `cluster_deaths` a mount by FUSE dies, and the kernel's have the fence agent.
const MOUNTED: &[&str] = &[
    "acls::",
    "cluster::",
    "cluster_deaths::a_fence_agent",
    "commands::",
    "data::",
    "deadlocks::",
    "errors::",
    "file_locks::",
    "fsx::",
    "full_volume::",
    "handles::",
    "ioctl",
    "limits::",
    "posix::",
    "programs::",
    "quick_start::",
    "sharing::",
    "xattrs::",
];

/// Those among them that a guest does not run, each with the reason.
const NOT_YET: &[&str] = &[
    // A daemon is killed.
    "cluster::what_a_dead_node_had_open_is_deleted",
    "file_locks::locks_outlive_the_death_of_other_nodes",
    "handles::a_handle_of_a_file_that_is_unlinked_at_a_crash_is_stale",
    "posix::an_unlinked_open_file_is_gone_after_a_crash",
    "xattrs::a_killed_daemon_leaves_the_index_true",
];

/// What the tests work with.
struct Bench<'a> {
    kernel: &'a Kernel,
    modules: &'a Modules,
    rounds: u32,
    dir: PathBuf,
    image: PathBuf,
    /// Files to copy: the core's own sources.
    tree: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(kernel: &'a Kernel, modules: &'a Modules, rounds: u32) -> Result<Self, String> {
        let dir = setup::root().join(format!("target/kernel-test-{}", kernel.name()));
        let text = |e: std::io::Error| format!("{}: {e}", dir.display());
        std::fs::create_dir_all(dir.join("fuse")).map_err(text)?;
        let image = dir.join("image");
        Ok(Bench { kernel, modules, rounds, image, tree: setup::root().join("scoutfs-fs/src"), dir })
    }

    fn scoutfs(&self) -> PathBuf {
        setup::root().join("target/release/scoutfs")
    }

    /// A fresh volume that works when so many voters are there.
    fn make_volume(&self, mib: u64, quorum: u32) -> Result<(), String> {
        let text = |e: std::io::Error| format!("{}: {e}", self.image.display());
        let _ = std::fs::remove_file(&self.image);
        File::create(&self.image).and_then(|file| file.set_len(mib << 20)).map_err(text)?;
        let quorum = quorum.to_string();
        self.host("mkfs", Command::new(self.scoutfs()).args(["mkfs", "-Q", &quorum]).arg(&self.image))
    }

    /// Runs a program of the machine, for a time.
    fn host(&self, what: &str, command: &mut Command) -> Result<(), String> {
        println!("kernel: {what}");
        let mut timed = Command::new("timeout");
        timed.arg("300").arg(command.get_program()).args(command.get_args());
        let output = timed.stdin(Stdio::null()).output().map_err(|e| format!("{what}: {e}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&said)))
    }

    fn check(&self) -> Result<(), String> {
        self.host("check", Command::new(self.scoutfs()).arg("check").arg(&self.image))
    }

    /// Mounts by FUSE, runs something with the directory, and unmounts, also when that failed.
    fn on_fuse(&self, run: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
        let directory = self.dir.join("fuse");
        let mut mount = Command::new(self.scoutfs());
        mount.args(["mount", "-o", "server_addr=127.0.0.1"]).arg(&self.image).arg(&directory);
        self.host("mounting by FUSE", &mut mount)?;
        let done = run(&directory);
        self.host("unmounting", Command::new("umount").arg(&directory)).and(done)
    }

    /// Runs a script in a guest with the module loaded and the volume mounted; it is unmounted and the module unloaded afterwards.
    fn in_guest(&self, name: &str, script: &str) -> Result<(), String> {
        println!("kernel: a guest: {name}");
        let text = format!(
            "set -e\ninsmod {module}\n{scoutfs} mount -o server_addr=127.0.0.1 $DISK_A {GUEST_MOUNT}\n\
             grep -q ' {GUEST_MOUNT} scoutfs ' /proc/mounts\n{script}\numount {GUEST_MOUNT}\nrmmod scoutfs\n[ ! -e /sys/fs/scoutfs ]\n",
            module = self.modules.scoutfs.display(),
            scoutfs = self.scoutfs().display(),
        );
        Guest::new(self.kernel, &self.dir)?.disk(&self.image).run(name, &text)?.check(name)
    }

    /// A guest that is killed while it works: what it had synced is there in the next, and the volume is sound.
    fn deaths(&self) -> Result<(), String> {
        const ROUNDS: u32 = 3;
        self.make_volume(256, 1)?;
        let acknowledged = self.dir.join("acknowledged");
        let _ = std::fs::remove_file(&acknowledged);
        for round in 0..ROUNDS {
            println!("kernel: a guest that is killed: {round}");
            let options = format!("server_addr=127.0.0.1,machine={:032x},boot={round:032x}", 1);
            let module = self.modules.scoutfs.display();
            // Names are told to be there only after they were synced; those of the rounds before must still be.
            let script = format!(
                "set -e\ninsmod {module}\nmount -i -t scoutfs -o {options} $DISK_A {GUEST_MOUNT}\ncd {GUEST_MOUNT}\n\
                 touch {list}\nwhile read -r name; do [ \"$(cat \"$name\")\" = \"$name\" ]; done < {list}\n\
                 echo verified\ni=0\nwhile :; do\nname={round}-$i\necho $name > $name\nsync $name\necho $name >> {list}\n\
                 i=$((i + 1))\n[ $i -lt 30 ] || echo killable\ndone\n",
                list = acknowledged.display()
            );
            let ended = Guest::new(self.kernel, &self.dir)?
                .disk(&self.image)
                .killed_at("killable")
                .run(&format!("death-{round}"), &script)?;
            ended.check_killed("a guest that is killed", &["verified", "killable"])?;
            self.check()?;
        }
        let names = std::fs::read_to_string(&acknowledged).map_err(|e| e.to_string())?;
        let wanted = 30 * ROUNDS as usize;
        if names.lines().count() < wanted {
            return Err(format!("only {} names were synced", names.lines().count()));
        }
        Ok(())
    }

    /// Who waits for voters or a server can be killed, and nothing else is the worse for it.
    fn killed(&self) -> Result<(), String> {
        println!("kernel: a guest: a mount that is killed");
        let script = |name: &str| sources().join("guest").join(name).display().to_string();
        let module = self.modules.scoutfs.display();
        self.make_volume(64, 2)?;
        let mount =
            format!("set -e\ninsmod {module}\nsh {} $DISK_A\nrmmod scoutfs\n", script("killed-mount.sh"));
        let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image);
        guest.run("killed-mount", &mount)?.check("a mount that is killed")?;
        self.check()?;

        println!("kernel: a guest: programs that are killed");
        self.make_volume(256, 1)?;
        let programs = format!(
            "set -e\ninsmod {module}\nsh {} {}\nrmmod scoutfs\n",
            script("killed-programs.sh"),
            self.scoutfs().display()
        );
        let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image).disk(&self.image);
        guest.run("killed-programs", &programs)?.check("programs that are killed")?;
        self.check()
    }

    /// Pages that programs have changed are written on a full volume, whoever was fenced meanwhile.
    fn prepared(&self) -> Result<(), String> {
        println!("kernel: a guest: pages that are prepared");
        self.make_volume(64, 1)?;
        let script = format!(
            "set -e\ninsmod {module}\nsh {script} {scoutfs}\nrmmod scoutfs\n",
            module = self.modules.scoutfs.display(),
            script = sources().join("guest/prepared-pages.sh").display(),
            scoutfs = self.scoutfs().display()
        );
        let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image).disk(&self.image);
        guest.run("prepared-pages", &script)?.check("pages that are prepared")?;
        self.check()
    }

    /// A mount is frozen, and mounted elsewhere with owners mapped; a guest dies while its mount is frozen, and nothing is lost.
    fn manners(&self) -> Result<(), String> {
        println!("kernel: a guest: freezing, and owners that are mapped");
        self.make_volume(256, 1)?;
        let idmap = self.dir.join("idmap");
        let source = sources().join("guest/idmap.c");
        let mut compile = Command::new("cc");
        self.host("compiling idmap", compile.args(["-Wall", "-O1", "-o"]).arg(&idmap).arg(&source))?;
        let script = format!(
            "set -e\ninsmod {module}\nsh {script} {scoutfs} {idmap}\nrmmod scoutfs\n",
            module = self.modules.scoutfs.display(),
            script = sources().join("guest/manners.sh").display(),
            scoutfs = self.scoutfs().display(),
            idmap = idmap.display(),
        );
        let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image).disk(&self.image);
        guest.run("manners", &script)?.check("freezing, and owners that are mapped")?;
        self.check()?;

        self.make_volume(64, 1)?;
        let script = |life: u32, work: &str| {
            format!(
                "set -e\ninsmod {module}\nmount -i -t scoutfs -o \\\n    \
                 server_addr=127.0.0.1,commit_interval_ms=60000,machine={machine:032x},boot={life:032x} \\\n    \
                 $DISK_A {GUEST_MOUNT}\ncd {GUEST_MOUNT}\n{work}",
                module = self.modules.scoutfs.display(),
                machine = 1,
            )
        };
        println!("kernel: a guest: killed while its mount is frozen");
        // Nobody has synced, and one page is dirty.
        let work = "echo lives > file\nmkdir dir\nmv file dir\n\
                    xfs_io -x -f -c 'truncate 4096' -c 'mmap -rw 0 4096' -c 'mwrite -S 0x61 0 4096' -c freeze memory\n\
                    echo killable\nsleep 60\n";
        let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image).killed_at("killable");
        guest
            .run("frozen-death", &script(0, work))?
            .check_killed("a guest that is killed while its mount is frozen", &["killable"])?;
        self.check()?;
        let work = format!(
            "[ \"$(cat dir/file)\" = lives ]\n[ \"$(tr -dc a < memory | wc -c)\" = 4096 ]\ncd /\numount {GUEST_MOUNT}\n\
             rmmod scoutfs\n"
        );
        let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image);
        guest.run("frozen-again", &script(1, &work))?.check("what was frozen")?;
        self.check()
    }

    /// Two guests on one disk and one wire. In one a node by the kernel; in the other two, one by the kernel and one by FUSE. The first is
    /// killed, the others go on, and it comes back.
    fn cluster(&self) -> Result<(), String> {
        println!("kernel: two guests with three nodes, by the kernel and by FUSE");
        self.make_volume(512, 2)?;
        let meet = self.dir.join("meet");
        let text = |e: std::io::Error| format!("{}: {e}", meet.display());
        let _ = std::fs::remove_dir_all(&meet);
        std::fs::create_dir_all(&meet).map_err(text)?;
        let (wire, other_end) = UnixDatagram::pair().map_err(text)?;
        let guest = |wire: &UnixDatagram, node: u32| {
            let wire = wire.try_clone().map_err(text)?;
            let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image).disk(&self.image);
            Ok::<_, String>(guest.wire(wire).number(node - 1))
        };
        let script = |name: &str, node: u32| {
            let folder = sources().join("guest");
            format!(
                "NODE={node} MODULE={module} SCOUTFS={scoutfs} MEET={meet} TREE={tree}\n\
                 . {folder}/words.sh\n. {folder}/node.sh\n. {folder}/{name}.sh\n",
                module = self.modules.scoutfs.display(),
                scoutfs = self.scoutfs().display(),
                meet = meet.display(),
                tree = self.tree.display(),
                folder = folder.display(),
            )
        };
        let first = guest(&wire, 1)?.killed_at("killable");
        let (again, second) = (guest(&wire, 1)?, guest(&other_end, 2)?);
        let (died, came_back, survived) = std::thread::scope(|scope| {
            let second = scope.spawn(|| second.run("second-node", &script("second-node", 2)));
            let died = first.run("first-node", &script("first-node", 1));
            let told = std::fs::write(meet.join("first-dead"), "").map_err(text);
            let start = Instant::now();
            while !meet.join("survived").exists()
                && !second.is_finished()
                && start.elapsed() < MEETING * slowness(self.kernel)
            {
                std::thread::sleep(Duration::from_millis(100));
            }
            let came_back = told.and_then(|()| again.run("first-again", &script("first-again", 1)));
            let survived = second.join().unwrap_or_else(|_| Err("the thread of a guest panicked".into()));
            (died, came_back, survived)
        });
        died?.check_killed("the first node", &["first: until it dies", "killable"])?;
        survived?.check("the second node")?;
        came_back?.check("the first node again")?;
        self.check()
    }

    /// Nodes that meet by IPv6.
    fn ipv6(&self) -> Result<(), String> {
        println!("kernel: a guest: nodes that meet by IPv6");
        self.make_volume(256, 1)?;
        let script = format!(
            "set -e\ninsmod {module}\nsh {script} {scoutfs}\nrmmod scoutfs\n",
            module = self.modules.scoutfs.display(),
            script = sources().join("guest/ipv6.sh").display(),
            scoutfs = self.scoutfs().display(),
        );
        let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image).disk(&self.image).disk(&self.image);
        guest.run("ipv6", &script)?.check("nodes that meet by IPv6")?;
        self.check()
    }

    /// The kernel's NFS server over the module, its client, and another node.
    fn nfs(&self) -> Result<(), String> {
        let programs = machine::nfs()?;
        println!("kernel: a guest: NFS");
        self.make_volume(256, 1)?;
        let script = format!(
            "set -e\ninsmod {module}\nsh {script} {scoutfs} {programs} {tree} {cookie}\nrmmod scoutfs\n",
            module = self.modules.scoutfs.display(),
            script = sources().join("guest/nfs.sh").display(),
            scoutfs = self.scoutfs().display(),
            programs = programs.display(),
            tree = self.tree.display(),
            cookie = self.modules.cookie.display(),
        );
        let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image).disk(&self.image);
        guest.seconds(600).run("nfs", &script)?.check("NFS")?;
        self.check()?;

        self.make_volume(64, 1)?;
        let list = self.dir.join("answered");
        let _ = std::fs::remove_file(&list);
        for life in 0..3 {
            println!("kernel: a guest: an NFS server that is killed: {life}");
            let script = format!(
                "set -e\ninsmod {module}\nsh {script} {programs} \\\n    \
                 server_addr=127.0.0.1,commit_interval_ms=60000,machine={machine:032x},boot={life:032x} {list}\n",
                module = self.modules.scoutfs.display(),
                script = sources().join("guest/nfs-death.sh").display(),
                programs = programs.display(),
                machine = 1,
                list = list.display(),
            );
            let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image).killed_at("killable");
            let ended = guest.run(&format!("nfs-death-{life}"), &script)?;
            ended.check_killed("an NFS server that is killed", &["verified", "killable"])?;
            self.check()?;
        }
        Ok(())
    }

    /// Mounts and loads many times, and loses no memory.
    fn rounds(&self) -> Result<(), String> {
        let rounds = self.rounds;
        println!("kernel: a guest: {rounds} rounds of mounting, {} of loading", rounds / 10);
        self.make_volume(64, 1)?;
        let script = format!(
            "sh {script} {module} {scoutfs} $DISK_A {rounds}\n",
            script = sources().join("guest/rounds.sh").display(),
            module = self.modules.scoutfs.display(),
            scoutfs = self.scoutfs().display(),
        );
        let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image);
        guest.seconds(120 + 10 * u64::from(rounds)).run("rounds", &script)?.check("rounds")?;
        self.check()
    }

    /// The kernel tells of each kind of mistake that it looks for, and that is seen.
    fn reports(&self) -> Result<(), String> {
        let always: &[_] = &[
            ("order", "possible circular locking"),
            ("recursion", "possible recursive locking"),
            ("interrupt", "inconsistent lock state"),
            ("atomic", "sleeping function called"),
            ("list", "list_add corruption"),
        ];
        let debug: &[_] = &[
            ("freed", "KASAN: slab-use-after-free"),
            ("beyond", "KASAN: slab-out-of-bounds"),
            ("object", "ODEBUG:"),
            ("leak", "unreferenced object"),
        ];
        for (fault, report) in always.iter().chain(debug.iter().filter(|_| self.kernel.debug)) {
            println!("kernel: a guest: a mistake that is seen: {fault}");
            let script = format!("insmod {} fault={fault}\ntrue", self.modules.faults.display());
            let ended = Guest::new(self.kernel, &self.dir)?.run(&format!("fault-{fault}"), &script)?;
            if ended.complaint().is_none() || !ended.log.contains(*report) {
                return Err(format!("the mistake {fault} is not told of: no {report} is in the log"));
            }
        }
        Ok(())
    }

    /// Memory and the device fail now and then: programs are told so, and nothing is the worse for it.
    fn failures(&self) -> Result<(), String> {
        for (kind, rates) in [("slab", "1 10 100"), ("page", "10 100"), ("io", "1 10 50")] {
            println!("kernel: a guest: failures of {kind}");
            self.make_volume(256, 1)?;
            let script = format!(
                "set -e\ninsmod {module}\nsh {script} {scoutfs} {tree} {kind} {rates}\nrmmod scoutfs\n",
                module = self.modules.scoutfs.display(),
                script = sources().join("guest/failures.sh").display(),
                scoutfs = self.scoutfs().display(),
                tree = self.tree.display(),
            );
            let guest = Guest::new(self.kernel, &self.dir)?.disk(&self.image);
            guest.run(&format!("failures-{kind}"), &script)?.check(&format!("failures of {kind}"))?;
            self.check()?;
        }
        Ok(())
    }

    /// What others wrote to test filesystems, as `cargo xtask programs` runs it.
    fn programs(&self) -> Result<(), String> {
        let arguments = programs::prepare_for_guest()?;
        let xtask = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
        let script = format!(
            "set -e\ninsmod {module}\nmount -t tmpfs -o size=3G programs {folder}\nexport SCOUTFS_TEST_KERNEL=1\n\
             {xtask} {arguments}\nrmmod scoutfs\n",
            module = self.modules.scoutfs.display(),
            folder = setup::root().join("target/programs").display(),
            xtask = xtask.display(),
            arguments = arguments.join(" "),
        );
        println!("kernel: a guest: programs");
        Guest::new(self.kernel, &self.dir)?
            .memory("4G")
            .seconds(1500)
            .run("programs", &script)?
            .check("programs")
    }

    /// The tests of mounted volumes, which know nothing of how it is mounted.
    fn mounted(&self, names: &[&str]) -> Result<(), String> {
        let program = mounted_tests()?;
        let quoted = |words: &[&str], before: &str| {
            words.iter().map(|word| format!("{before}{word}")).collect::<Vec<_>>().join(" ")
        };
        // What tests put into a folder of their own goes into memory, but for the program that was there.
        let script = format!(
            "insmod {module}\ncp {tmp}/tools/bin/fsx /tmp\nmount -t tmpfs -o size=1200M tests {tmp}\n\
             mkdir -p {tmp}/tools/bin\nmv /tmp/fsx {tmp}/tools/bin\nexport SCOUTFS_TEST_KERNEL=1\ncd {here}\n\
             {program} --test-threads=1 {names} {skipped}\n",
            module = self.modules.scoutfs.display(),
            tmp = setup::root().join("target/tmp").display(),
            here = setup::root().join("scoutfs-utils").display(),
            program = program.display(),
            names = quoted(names, ""),
            skipped = quoted(NOT_YET, "--skip "),
        );
        // Cargo builds the program of this one when it first runs.
        if !setup::root().join("target/tmp/tools/bin/fsx").exists() {
            let mut fsx = Command::new(&program);
            fsx.arg("fsx::").current_dir(setup::root().join("scoutfs-utils"));
            self.host("fsx by FUSE", &mut fsx)?;
        }
        println!("kernel: a guest: mounted tests");
        let guest = Guest::new(self.kernel, &self.dir)?
            .memory(if self.kernel.debug { "4G" } else { "2G" })
            .seconds(1500);
        guest.run("mounted", &script)?.check("mounted tests")
    }

    /// What FUSE writes the module reads, and the reverse; between them all operations; and the volume is sound after each.
    fn exchange(&self) -> Result<(), String> {
        self.make_volume(512, 1)?;
        let differ = |one: &Path, other: &Path| {
            self.host("comparing", Command::new("diff").arg("-r").arg(one).arg(other))
        };
        self.on_fuse(|directory| {
            let copy = directory.join("from-fuse");
            self.host("copying a tree", Command::new("cp").arg("-a").arg(&self.tree).arg(&copy))
        })?;
        self.check()?;
        let (tree, script) = (self.tree.display(), sources().join("guest/operations.sh"));
        self.in_guest(
            "operations",
            &format!(
                "diff -r {tree} {GUEST_MOUNT}/from-fuse\nsh {} {GUEST_MOUNT} {tree} {}\n\
                 {} walk-inodes meta_seq 0 -1 {GUEST_MOUNT} | grep -q . ",
                script.display(),
                self.modules.cookie.display(),
                self.scoutfs().display()
            ),
        )?;
        self.check()?;
        self.on_fuse(|directory| {
            differ(&self.tree, &directory.join("tree"))?;
            differ(&self.tree, &directory.join("from-fuse"))?;
            self.host("removing", Command::new("rm").arg("-r").arg(directory.join("tree")))
        })?;
        self.check()?;
        self.in_guest(
            "again",
            &format!("diff -r {tree} {GUEST_MOUNT}/from-fuse\n[ ! -e {GUEST_MOUNT}/tree ]"),
        )?;
        self.check()
    }
}

/// Builds the program of the mounted tests, and returns where it is.
fn mounted_tests() -> Result<PathBuf, String> {
    // Of all packages, as `cargo xtask test` has built them: of one alone its dependencies would have other features.
    let arguments = ["test", "--workspace", "--test", "mounted", "--no-run", "--message-format=json"];
    println!("kernel: building the mounted tests");
    let output = Command::new(setup::cargo())
        .args(arguments)
        .current_dir(setup::root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo {} ended with {}", arguments.join(" "), output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = messages.lines().filter(|line| line.contains("scoutfs-utils/tests/mounted/main.rs"));
    let mut programs = ours.filter_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        rest.split('"').next()
    });
    programs.next().map(PathBuf::from).ok_or_else(|| "cargo does not say where the mounted tests are".into())
}
