// SPDX-License-Identifier: GPL-2.0-only
//! Databases, which lose nothing that they acknowledged when they, or the filesystem below them, are killed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::stage::{Stage, run, run_any};

const LIMIT: Duration = Duration::from_secs(120);

/// A process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Inserts rows one transaction at a time until `enough` are acknowledged. Gives the process in the middle of its next
/// transactions, and the last acknowledged row.
fn insert(database: &Path, enough: u64) -> Result<(Killed, u64), String> {
    let io = |e: std::io::Error| format!("sqlite3: {e}");
    let mut command = Command::new("sqlite3");
    command.arg("-batch").arg(database).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut sqlite = Killed(command.spawn().map_err(io)?);
    let mut input = sqlite.0.stdin.take().ok_or("sqlite3 has no input")?;
    let mut output = BufReader::new(sqlite.0.stdout.take().ok_or("sqlite3 has no output")?).lines();
    writeln!(input, ".bail on\nPRAGMA synchronous=FULL;\nPRAGMA wal_autocheckpoint=20;").map_err(io)?;
    let statement = "INSERT INTO t(text) VALUES (hex(randomblob(3000)));\nSELECT 'row', max(id) FROM t;";
    let mut acknowledged = 0;
    for _ in 0..enough {
        writeln!(input, "{statement}").map_err(io)?;
        acknowledged = loop {
            let line = output.next().ok_or("sqlite3 ended early")?.map_err(io)?;
            if let Some(id) = line.strip_prefix("row|") {
                break id.parse().map_err(|e| format!("{line}: {e}"))?;
            }
        };
    }
    // It works on these when it is killed.
    for _ in 0..10 {
        writeln!(input, "{statement}").map_err(io)?;
    }
    Ok((sqlite, acknowledged))
}

/// Runs SQL. Gives what it printed.
fn query(database: &Path, sql: &str) -> Result<String, String> {
    run(Command::new("sqlite3").arg("-batch").arg(database).arg(sql), LIMIT).map(|s| s.trim().to_owned())
}

/// Whole, and with all rows that were acknowledged.
fn is_whole(database: &Path, acknowledged: u64) -> Result<(), String> {
    let integrity = query(database, "PRAGMA integrity_check;")?;
    let rows: u64 =
        query(database, "SELECT count(*) FROM t;")?.parse().map_err(|e| format!("not a count: {e}"))?;
    if integrity != "ok" || rows < acknowledged {
        return Err(format!("integrity: {integrity}; {rows} rows, {acknowledged} acknowledged"));
    }
    Ok(())
}

/// sqlite with a write-ahead log: killed itself, then the mount below it.
pub fn sqlite(stage: &mut Stage) -> Result<String, String> {
    let database = stage.mount_point().join("database");
    let mode =
        query(&database, "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);")?;
    if mode != "wal" {
        return Err(format!("sqlite3 uses the journal {mode}"));
    }
    let mut last = 0;
    for _ in 0..3 {
        let (killed, acknowledged) = insert(&database, 100)?;
        drop(killed);
        is_whole(&database, acknowledged)?;
        let (running, acknowledged) = insert(&database, 100)?;
        stage.crash()?;
        drop(running);
        stage.recover()?;
        is_whole(&database, acknowledged)?;
        last = acknowledged;
    }
    Ok(format!("3 kills, 3 crashes of the mount, {last} acknowledged rows whole"))
}

/// PostgreSQL's programs, which may not run as root.
struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    outside: PathBuf,
}

impl Postgres {
    fn new(stage: &Stage) -> Result<Self, String> {
        let installed = fs::read_dir("/usr/lib/postgresql").map_err(|e| format!("postgresql: {e}"))?;
        let versions = installed.flatten().map(|entry| entry.path().join("bin"));
        let programs =
            versions.filter(|bin| bin.join("postgres").is_file()).max().ok_or("no PostgreSQL server")?;
        let postgres = Postgres {
            programs,
            data: stage.mount_point().join("postgres"),
            outside: stage.outside().join("postgres"),
        };
        for folder in [&postgres.data, &postgres.outside] {
            fs::create_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            run(Command::new("chown").arg("nobody").arg(folder), LIMIT)?;
        }
        Ok(postgres)
    }

    /// One of its programs, as the user nobody.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]);
        command.arg(self.programs.join(program)).current_dir(&self.outside).env("PGUSER", "nobody");
        command.env("PGHOST", &self.outside).env("PGDATABASE", "postgres");
        command
    }

    /// The server, when it answers.
    fn start(&self) -> Result<Killed, String> {
        let mut server = self.command("postgres");
        server.arg("-D").arg(&self.data).args(["-c", "listen_addresses=", "-c"]);
        server.arg(format!("unix_socket_directories={}", self.outside.display()));
        let log = fs::File::options().append(true).create(true).open(self.outside.join("log"));
        let log = log.map_err(|e| format!("the server's log: {e}"))?;
        let server = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let mut server = Killed(server.map_err(|e| format!("postgres: {e}"))?);
        let start = Instant::now();
        loop {
            let mut ready = self.command("pg_isready");
            if ready.stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
                return Ok(server);
            }
            if start.elapsed() > LIMIT || !matches!(server.0.try_wait(), Ok(None)) {
                let log = fs::read_to_string(self.outside.join("log")).unwrap_or_default();
                return Err(format!("the server does not answer:\n{log}"));
            }
            sleep(Duration::from_millis(200));
        }
    }

    fn query(&self, sql: &str) -> Result<String, String> {
        run(self.command("psql").args(["-Atqc", sql]), LIMIT).map(|s| s.trim().to_owned())
    }

    /// Kills the server with its children, and waits until none is left that uses a file.
    ///
    /// The children alone would not all end: one that waits for a lock of another that is gone waits on.
    fn kill(&self, mut server: Killed) -> Result<(), String> {
        let _ = server.0.kill();
        let _ = server.0.wait();
        let start = Instant::now();
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                return Err(format!("the server's processes do not end: {}", processes.join(" ")));
            }
            // One may have ended by itself meanwhile, which kill would complain about.
            let mut kill = Command::new("kill");
            let _ = kill.arg("-KILL").args(processes).stderr(Stdio::null()).status();
            sleep(Duration::from_millis(100));
        }
    }

    /// The processes that work in the data folder, which are the server's. Asks nothing of the filesystem, which may be
    /// dead.
    fn processes(&self) -> Vec<String> {
        let works_there = |pid: &Path| fs::read_link(pid.join("cwd")).is_ok_and(|cwd| cwd == self.data);
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ours = processes.filter(|process| works_there(&process.path()));
        ours.filter_map(|process| process.file_name().into_string().ok()).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The server went before, when something failed; what it leaves would keep the mount busy.
        for pid in self.processes() {
            let _ = Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status();
        }
    }
}

/// PostgreSQL under pgbench when the mount below it is killed. Nothing of what was acknowledged is missing, and money
/// only moves.
pub fn postgres(stage: &mut Stage) -> Result<String, String> {
    let postgres = Postgres::new(stage)?;
    let mut init = postgres.command("initdb");
    init.args(["--auth=trust", "--data-checksums", "--username=nobody", "-D"]).arg(&postgres.data);
    run(&init, LIMIT)?;
    let server = postgres.start()?;
    run(postgres.command("pgbench").args(["-i", "-q", "-s", "5"]), LIMIT)?;
    postgres.query("CHECKPOINT")?;

    // The clients end when their server does.
    let mut bench = postgres.command("pgbench");
    bench.args(["-n", "-c", "4", "-T", "60"]);
    let clients = std::thread::spawn(move || run_any(&bench, LIMIT));
    sleep(Duration::from_secs(8));
    let crashed = stage.crash();
    let killed = postgres.kill(server);
    let (_, output) = clients.join().map_err(|_| "pgbench's thread panicked")??;
    crashed?;
    killed?;
    let processed = output.lines().find_map(|line| {
        line.strip_prefix("number of transactions actually processed: ")?.split('/').next()?.parse().ok()
    });
    let acknowledged: u64 = processed.ok_or_else(|| format!("pgbench counted nothing:\n{output}"))?;

    stage.recover()?;
    let server = postgres.start()?;
    let committed: u64 = postgres
        .query("SELECT count(*) FROM pgbench_history")?
        .parse()
        .map_err(|e| format!("not a count: {e}"))?;
    if committed < acknowledged || committed == 0 {
        return Err(format!("{acknowledged} transactions were acknowledged, {committed} are there"));
    }
    let sums = postgres.query(
        "SELECT (SELECT sum(delta) FROM pgbench_history), (SELECT sum(abalance) FROM pgbench_accounts), \
         (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers)",
    )?;
    let mut each = sums.split('|');
    let first = each.next();
    if each.any(|sum| Some(sum) != first) {
        return Err(format!("the sums differ: {sums}"));
    }
    run(postgres.command("psql").args(["-Atqc", "CREATE EXTENSION amcheck"]), LIMIT)?;
    run(postgres.command("pg_amcheck").args(["--heapallindexed", "postgres"]), LIMIT)?;
    let mut stop = postgres.command("pg_ctl");
    run(stop.args(["stop", "-m", "fast", "-D"]).arg(&postgres.data), LIMIT)?;
    postgres.kill(server)?;
    stage.remount()?;
    run(postgres.command("pg_checksums").arg("-D").arg(&postgres.data), LIMIT)?;
    Ok(format!("{acknowledged} acknowledged transactions, {committed} there after the crash, sums equal"))
}
