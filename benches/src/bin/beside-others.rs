// SPDX-License-Identifier: GPL-2.0-only
//! The same work in scoutfs' trees and commits, LMDB, redb and fjall, in one run.
//!
//! Random updates of items of 88 bytes with 32-byte keys in durable batches of 1,000, random lookups and a scan of all, on files in
//! one folder (the first argument; the system's folder for temporary files otherwise). Times, CPU and the bytes that this
//! process gave to the kernel to write. scoutfs does more than the others: its updates go through cluster locks, the item cache
//! and transactions that other nodes could read.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use scoutfs_benches::mount_on;
use scoutfs_btree::{BlockCache, Cursor, lookup};
use scoutfs_env::device::{BlockDevice, FileDevice, OpenMode};
use scoutfs_env::{Arc, Box, try_box};
use scoutfs_format::Key;
use scoutfs_format::tree::TreeRoot;
use scoutfs_fs::Mount;
use scoutfs_fs::store::{LockMode, Locks, Need};
use scoutfs_server::super_block::read_super;

const ITEMS: u64 = 204_800;
const BATCHES: u64 = 200;
const BATCH: usize = 1000;
const LOOKUPS: u64 = 200_000;
const FIRST_INO: u64 = 1 << 20;

type Raw = [u8; 32];
type Value = [u8; 88];
type Failed = std::boxed::Box<dyn std::error::Error>;

/// A store with the same items in it as the others.
trait Store {
    fn name(&self) -> &'static str;
    /// Writes items, keys ascending, and makes them durable.
    fn commit(&mut self, items: &[(u64, Value)]) -> Result<(), Failed>;
    /// All items are there: from now on they are updated.
    fn filled(&mut self) {}
    /// Waits for what goes on in the background.
    fn rest(&mut self) -> Result<(), Failed> {
        Ok(())
    }
    /// First byte of each item's value, summed up.
    fn lookups(&mut self, items: &mut dyn Iterator<Item = u64>) -> Result<u64, Failed>;
    /// Number of items.
    fn scan(&mut self) -> Result<u64, Failed>;
}

fn raw(item: u64) -> Raw {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(FIRST_INO + item).to_be_bytes());
    key
}

fn key(item: u64) -> Key {
    Key::xattr(FIRST_INO + item, 1, 1, 0)
}

fn open(image: &Path, mode: OpenMode) -> Result<Box<dyn BlockDevice>, Failed> {
    let device: Box<dyn BlockDevice> = try_box(FileDevice::open(image, mode)?).map_err(|_| "no memory")?;
    Ok(device)
}

/// A mounted volume on an image file.
struct Scoutfs {
    mount: Mount,
    image: PathBuf,
    filled: bool,
    /// The fs tree when all is merged, with its blocks in memory, as the others have theirs.
    tree: Option<(BlockCache, TreeRoot)>,
}

impl Scoutfs {
    fn new(folder: &Path) -> Result<Self, Failed> {
        let image = folder.join("volume");
        File::create(&image)?.set_len(4 << 30)?;
        let device = open(&image, OpenMode::ReadWrite)?;
        Ok(Scoutfs { mount: mount_on(device, |_| ()), image, filled: false, tree: None })
    }

    /// The fs tree, read anew.
    fn read_tree(&self) -> Result<(BlockCache, TreeRoot), Failed> {
        let device = Arc::new(open(&self.image, OpenMode::ReadOnly)?).map_err(|_| "no memory")?;
        let sb = read_super(&**device)?;
        let cache = BlockCache::new(device, sb.sb.id.fsid.get(), sb.geometry, 4096)?;
        Ok((cache, sb.sb.fs_root))
    }
}

impl Store for Scoutfs {
    fn name(&self) -> &'static str {
        "scoutfs"
    }

    fn commit(&mut self, items: &[(u64, Value)]) -> Result<(), Failed> {
        let store = self.mount.fs().store();
        let mut locks: Option<Locks<'_>> = None;
        for (item, value) in items {
            let ino = FIRST_INO + item;
            if !locks.as_ref().is_some_and(|locks| locks.covers(ino, LockMode::Write)) {
                // Given up before the next one is asked for.
                drop(locks.take());
                locks = Some(store.lock(&[(ino, LockMode::Write)])?);
            }
            let Some(locks) = &locks else { continue };
            let hold = locks.hold(Need { items: 1, bytes: value.len(), privileged: false })?;
            if self.filled {
                hold.update(key(*item), &[value])?;
            } else {
                hold.create(key(*item), &[value])?;
            }
        }
        drop(locks);
        Ok(store.sync()?)
    }

    fn filled(&mut self) {
        self.filled = true;
    }

    fn rest(&mut self) -> Result<(), Failed> {
        let mut quiet = 0;
        let mut last = TreeRoot::EMPTY;
        while quiet < 30 {
            std::thread::sleep(Duration::from_millis(100));
            let (_, root) = self.read_tree()?;
            quiet = if root == last { quiet + 1 } else { 0 };
            last = root;
        }
        self.tree = Some(self.read_tree()?);
        self.scan()?;
        Ok(())
    }

    fn lookups(&mut self, items: &mut dyn Iterator<Item = u64>) -> Result<u64, Failed> {
        let (cache, root) = self.tree.as_ref().ok_or("nothing was read")?;
        let mut sum = 0;
        for item in items {
            let found = lookup(cache, root, &key(item))?.ok_or("an item is not there")?;
            sum += u64::from(found.item().value[0]);
        }
        Ok(sum)
    }

    fn scan(&mut self) -> Result<u64, Failed> {
        let (cache, root) = self.tree.as_ref().ok_or("nothing was read")?;
        let mut count = 0;
        let mut cursor = Cursor::new(cache, *root, key(0));
        while let Some(item) = cursor.peek()? {
            if item.key > key(ITEMS) {
                break;
            }
            count += 1;
            cursor.advance();
        }
        Ok(count)
    }
}

/// LMDB.
struct Lmdb {
    env: lmdb::Environment,
    db: lmdb::Database,
}

impl Lmdb {
    fn new(folder: &Path) -> Result<Self, Failed> {
        fs::create_dir_all(folder)?;
        let env = lmdb::Environment::new().set_map_size(4 << 30).open(folder)?;
        let db = env.open_db(None)?;
        Ok(Lmdb { env, db })
    }
}

impl Store for Lmdb {
    fn name(&self) -> &'static str {
        "LMDB"
    }

    fn commit(&mut self, items: &[(u64, Value)]) -> Result<(), Failed> {
        let mut write = self.env.begin_rw_txn()?;
        for (item, value) in items {
            write.put(self.db, &raw(*item), value, lmdb::WriteFlags::empty())?;
        }
        Ok(lmdb::Transaction::commit(write)?)
    }

    fn lookups(&mut self, items: &mut dyn Iterator<Item = u64>) -> Result<u64, Failed> {
        let read = self.env.begin_ro_txn()?;
        let mut sum = 0;
        for item in items {
            sum += u64::from(lmdb::Transaction::get(&read, self.db, &raw(item))?[0]);
        }
        Ok(sum)
    }

    fn scan(&mut self) -> Result<u64, Failed> {
        let read = self.env.begin_ro_txn()?;
        let mut cursor = lmdb::Transaction::open_ro_cursor(&read, self.db)?;
        Ok(lmdb::Cursor::iter(&mut cursor).count() as u64)
    }
}

/// redb.
struct Redb(redb::Database);

const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("items");

impl Store for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn commit(&mut self, items: &[(u64, Value)]) -> Result<(), Failed> {
        let write = self.0.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            for (item, value) in items {
                table.insert(&raw(*item)[..], &value[..])?;
            }
        }
        Ok(write.commit()?)
    }

    fn lookups(&mut self, items: &mut dyn Iterator<Item = u64>) -> Result<u64, Failed> {
        use redb::ReadableDatabase;
        let table = self.0.begin_read()?.open_table(TABLE)?;
        let mut sum = 0;
        for item in items {
            let found = table.get(&raw(item)[..])?.ok_or("an item is not there")?;
            sum += u64::from(found.value()[0]);
        }
        Ok(sum)
    }

    fn scan(&mut self) -> Result<u64, Failed> {
        use redb::{ReadableDatabase, ReadableTable};
        let table = self.0.begin_read()?.open_table(TABLE)?;
        let mut count = 0;
        for item in table.iter()? {
            item?;
            count += 1;
        }
        Ok(count)
    }
}

/// fjall.
struct Fjall {
    db: fjall::Database,
    items: fjall::Keyspace,
}

impl Fjall {
    fn new(folder: &Path) -> Result<Self, Failed> {
        let db = fjall::Database::builder(folder).open()?;
        let items = db.keyspace("items", fjall::KeyspaceCreateOptions::default)?;
        Ok(Fjall { db, items })
    }
}

impl Store for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn commit(&mut self, items: &[(u64, Value)]) -> Result<(), Failed> {
        let mut batch = self.db.batch();
        for (item, value) in items {
            batch.insert(&self.items, raw(*item), value);
        }
        batch.commit()?;
        Ok(self.db.persist(fjall::PersistMode::SyncAll)?)
    }

    fn lookups(&mut self, items: &mut dyn Iterator<Item = u64>) -> Result<u64, Failed> {
        let mut sum = 0;
        for item in items {
            sum += u64::from(self.items.get(raw(item))?.ok_or("an item is not there")?[0]);
        }
        Ok(sum)
    }

    fn scan(&mut self) -> Result<u64, Failed> {
        let mut count = 0;
        for item in self.items.iter() {
            item.key()?;
            count += 1;
        }
        Ok(count)
    }
}

/// What the kernel counts for this process.
#[derive(Clone, Copy)]
struct Counted {
    cpu: Duration,
    written: u64,
}

fn counted() -> Result<Counted, Failed> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime, in hundredths of a second.
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    let io = fs::read_to_string("/proc/self/io")?;
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).ok_or("no write_bytes")?;
    Ok(Counted { cpu: Duration::from_millis(ticks * 10), written: written.trim().parse()? })
}

/// Runs a part and says what it cost for each of its `count` steps.
fn measure<T>(what: &str, count: u64, part: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    let before = counted()?;
    let began = Instant::now();
    let result = part()?;
    let time = began.elapsed();
    let after = counted()?;
    let each = |n: f64| n / count as f64;
    print!(
        "  {what} {:>7.2} us {:>7.2} us CPU {:>7.0} B |",
        each(time.as_secs_f64() * 1e6),
        each((after.cpu - before.cpu).as_secs_f64() * 1e6),
        each((after.written - before.written) as f64),
    );
    std::io::stdout().flush()?;
    Ok(result)
}

struct Chance(u64);

impl Chance {
    fn item(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 20) % ITEMS
    }
}

fn run(store: &mut dyn Store) -> Result<(), Failed> {
    print!("{:<8}", store.name());
    let mut chance = Chance(7);
    let all: Vec<(u64, Value)> = (0..ITEMS).map(|item| (item, [1; 88])).collect();
    measure("fill", ITEMS, || all.chunks(BATCH).try_for_each(|batch| store.commit(batch)))?;
    store.filled();
    store.rest()?;
    let updates = BATCHES * BATCH as u64;
    measure("update", updates, || {
        (0..BATCHES).try_for_each(|batch| {
            let mut items: Vec<(u64, Value)> =
                (0..BATCH).map(|_| (chance.item(), [batch as u8; 88])).collect();
            items.sort_unstable_by_key(|(item, _)| *item);
            items.dedup_by_key(|(item, _)| *item);
            store.commit(&items)
        })
    })?;
    measure("later", updates, || store.rest())?;
    measure("lookup", LOOKUPS, || {
        let mut chance = Chance(9);
        store.lookups(&mut (0..LOOKUPS).map(move |_| chance.item()))
    })?;
    let count = measure("scan", ITEMS, || store.scan())?;
    println!();
    if count != ITEMS {
        return Err(format!("{} has {count} items instead of {ITEMS}", store.name()).into());
    }
    Ok(())
}

fn compare(folder: &Path) -> Result<(), Failed> {
    run(&mut Scoutfs::new(folder)?)?;
    run(&mut Lmdb::new(&folder.join("lmdb"))?)?;
    run(&mut Redb(redb::Database::create(folder.join("redb"))?))?;
    run(&mut Fjall::new(&folder.join("fjall"))?)
}

fn main() -> Result<(), Failed> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = parent.join(format!("scoutfs-beside-others-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    println!(
        "{ITEMS} items; time, CPU time and bytes written for each; later: what the updates still cost in the background"
    );
    let result = compare(&folder);
    fs::remove_dir_all(&folder)?;
    result
}
