// SPDX-License-Identifier: GPL-2.0-only
//! The thread that connects a mount to the server, and receives.
//!
//! It must never wait for an answer itself; what takes longer is queued for the worker. Orders that come before there is a store
//! wait for it.
//!
//! Locking: one mutex over the store and what waits for it, held while orders are handed on; one over why a mount gives up, a leaf.

use core::net::SocketAddr;
use core::sync::atomic::Ordering;
use core::time::Duration;

use scoutfs_env::fault::{Fault, planted};
use scoutfs_env::net::Stream;
use scoutfs_env::sync::Mutex;
use scoutfs_env::thread::{self, JoinHandle};
use scoutfs_env::{Arc, Box, Vec, time};
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{
    Death, JoinRequest, MSG_DEATH, MSG_FILE_LOCK_REPORT, MSG_JOIN, MSG_LOCK_REPORT, MSG_OPENS_REPORT,
    MSG_RECOVERED, OpensReport, Recovered, STATUS_INVALID, STATUS_NOT_MEMBER, STATUS_OK,
};
use scoutfs_net::connection::{ConnectionError, GreetingError, RequestId};
use scoutfs_net::frame::{Decoder, FrameError};
use zerocopy::{FromBytes, IntoBytes};

use super::client::{Arrived, Client, MEMORY_PAUSE, Order, OrderOf};
use super::link::{Link, NoWay};
use super::server_host::Oracle;
use super::voter::{Failures, Ranks};
use super::worker;
use crate::error::{Error, Result};
use crate::store::Store;

/// Bytes that are received at once.
const BUFFER: usize = 16 << 10;
/// A mount that has left, by a record that the next server finds, looks so long for a server to tell: there may be none any
/// more, when those who could run it leave at the same time.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);
/// Who waits for so long is told for what: an election takes a moment.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often to look whether the server is still heard: there are renewals of the lease at least.
const WATCH: Duration = Duration::from_millis(500);
/// After so long a silence it is looked whether another node leads.
const QUIET: Duration = Duration::from_secs(2);
/// After this long a stream is given up in any case. The voter tells of it, so a leader that is cut off from all resigns about when the
/// leases of the mounts run out.
const SILENCE: Duration = Duration::from_secs(4);

/// See the module.
pub(super) struct Session {
    client: Arc<Client>,
    link: Link,
    /// The server's address, if it is not in this process.
    server: Mutex<Option<SocketAddr>>,
    /// The voter wants to know whether there is a server.
    ranks: Option<Arc<Ranks>>,
    orders: Mutex<Orders>,
    /// Tells the server of deaths on this machine.
    oracle: Option<Oracle>,
    /// How long a mount that has no store yet waits on a device that does nothing but fail.
    dead_time: Duration,
    /// Why it does not wait any longer.
    gave_up: Mutex<Option<NoWay>>,
}

#[derive(Default)]
struct Orders {
    store: Option<Arc<Store>>,
    waiting: Vec<Order>,
}

/// Why a stream is given up.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("it has ended")]
    Ended,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl Broken {
    /// The server does not know the session.
    fn is_unknown(&self) -> bool {
        let refused = GreetingError::Refused { status: STATUS_NOT_MEMBER };
        matches!(self, Broken::Connection(ConnectionError::Greeting(e)) if *e == refused)
    }
}

impl Session {
    /// Starts the thread.
    pub fn start(
        client: Arc<Client>,
        link: Link,
        ranks: Option<Arc<Ranks>>,
        oracle: Option<Oracle>,
        dead_time: Duration,
    ) -> Result<(Arc<Session>, JoinHandle)> {
        let (orders, gave_up) = (Mutex::new(Orders::default()), Mutex::new(None));
        let session = Arc::new(Session {
            client,
            link,
            server: Mutex::new(None),
            ranks,
            orders,
            oracle,
            dead_time,
            gave_up,
        })?;
        let (running, watching) = (session.clone(), session.clone());
        let thread = thread::spawn("scoutfs-recv", move || {
            let watch = thread::spawn("scoutfs-watch", move || watching.watch());
            running.run();
            if let Ok(watch) = watch {
                watch.join();
            }
        })
        .map_err(|_| Error::NoMemory)?;
        Ok((session, thread))
    }

    /// Hangs up on a server that says nothing any more, because it sleeps or because the network is cut: nothing else would end such
    /// a stream when another node leads.
    fn watch(&self) {
        while !self.client.wait_closed(WATCH) {
            let Some(silence) = self.client.silence().filter(|silence| *silence >= QUIET) else { continue };
            let Some(server) = *self.server.lock() else { continue };
            if silence >= SILENCE || self.link.leader().is_ok_and(|leader| leader != server) {
                scoutfs_env::info!("the server at {server} says nothing: looking for another");
                self.client.hang_up();
            }
        }
    }

    /// From now on orders go to a store. Those that came before go first.
    pub fn attach(&self, store: &Arc<Store>) {
        let mut orders = self.orders.lock();
        orders.store = Some(store.clone());
        for order in core::mem::take(&mut orders.waiting) {
            carry(store, order);
        }
    }

    /// Why a mount that has no store yet does not wait for a server any longer.
    pub fn gave_up(&self) -> Option<Error> {
        match *self.gave_up.lock() {
            Some(NoWay::Unreadable { readable, needed, slots }) => Some(Error::Voters {
                readable: readable as usize,
                needed: needed as usize,
                slots: slots as usize,
            }),
            Some(NoWay::Device(e)) => Some(Error::Election(e)),
            _ => None,
        }
    }

    /// Whether there is nothing to wait for, and no store that shuts down by itself: too few voters can be read, or the device does
    /// nothing but fail.
    fn gives_up(&self, e: NoWay, reads: &Failures) -> bool {
        let voter = self.ranks.as_ref().and_then(|ranks| ranks.dead_device());
        let dead = reads.for_longer_than(self.dead_time, time::mono_now()).or(voter);
        let in_vain = match (e, dead) {
            (_, Some(e)) => NoWay::Device(e),
            (NoWay::Unreadable { .. }, None) => e,
            _ => return false,
        };
        // A mount that is joined goes on as long as it has its lease.
        if self.orders.lock().store.is_some() {
            return false;
        }
        *self.gave_up.lock() = Some(in_vain);
        true
    }

    /// Whether the mount has failed, other than by being unmounted: no server takes it for a member for long, and it has nothing
    /// to say.
    fn mount_has_failed(&self) -> bool {
        let failed = self.orders.lock().store.as_ref().is_some_and(|store| store.trans.check().is_err());
        failed && !self.client.is_leaving()
    }

    fn run(&self) {
        // What was said last, so that it is not said over and over.
        let mut said = None;
        let mut since = time::mono_now();
        let mut reads = Failures::default();
        while !self.client.is_closed() {
            if self.mount_has_failed() {
                scoutfs_env::info!("the mount has failed: it looks for no server any more");
                break;
            }
            match self.link.connect() {
                Ok((stream, server)) => {
                    *self.server.lock() = server;
                    let why = self.talk(stream);
                    if !matches!(why, Broken::Ended) && !why.is_unknown() {
                        scoutfs_env::warn!("the connection to the server is closed: {why}");
                    }
                    self.set_connected(0);
                    self.client.disconnected(why.is_unknown());
                    said = None;
                    since = time::mono_now();
                }
                Err(NoWay::Ended) => break,
                Err(e) => {
                    if self.client.left_since().is_some_and(|since| since >= LEAVE_PATIENCE) {
                        scoutfs_env::info!("leaving without telling the server: {e}");
                        break;
                    }
                    let now = time::mono_now();
                    reads.note(now, if let NoWay::Device(e) = e { Err(e) } else { Ok(()) });
                    if now.saturating_duration_since(since) >= PATIENCE {
                        if said.as_ref() != Some(&e) {
                            scoutfs_env::info!("waiting for the server: {e}");
                        }
                        said = Some(e);
                        if self.gives_up(e, &reads) {
                            break;
                        }
                    }
                }
            }
            if !self.client.is_closed() {
                time::sleep(PAUSE);
            }
        }
        self.client.close();
        self.client.disconnected(false);
        if let Some(store) = &self.orders.lock().store {
            store.fail("the server is gone");
        }
    }

    fn set_connected(&self, term: u64) {
        if let Some(ranks) = &self.ranks {
            ranks.set_connected(term);
        }
    }

    /// Greets, and receives until the stream ends.
    fn talk(&self, stream: Box<dyn Stream>) -> Broken {
        let Ok(stream) = Arc::new(stream) else { return Broken::Ended };
        if !self.client.connected(&stream) {
            return Broken::Ended;
        }
        self.client.transmit();
        let why = self.receive(&**stream);
        stream.shutdown();
        why
    }

    fn receive(&self, stream: &dyn Stream) -> Broken {
        match self.try_receive(stream) {
            Ok(()) => Broken::Ended,
            Err(e) => e,
        }
    }

    fn try_receive(&self, stream: &dyn Stream) -> core::result::Result<(), Broken> {
        let mut decoder = Decoder::new();
        let mut buffer = Vec::new();
        buffer.resize(BUFFER, 0).map_err(FrameError::from)?;
        loop {
            let received = stream.receive(&mut buffer).map_err(|_| Broken::Ended)?;
            let Some(bytes) = buffer.get(..received).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            decoder.push(bytes).map_err(FrameError::from)?;
            while let Some(frame) = decoder.next()? {
                match self.client.arrived(&frame)? {
                    Arrived::Nothing => {}
                    Arrived::Established { term, resumed } => {
                        self.set_connected(term);
                        if !resumed {
                            self.begin()?;
                        }
                    }
                    Arrived::Order(Order { kind: MSG_DEATH, of: OrderOf::Request(id), payload }) => {
                        self.tell_of_death(id, &payload);
                    }
                    Arrived::Order(order) => self.hand_on(order),
                }
            }
            // Proofs, and what waited for the session.
            self.client.transmit();
        }
    }

    /// Begins a session: a mount that is one already tells the new server what it must know, before it goes on. One that has left
    /// has nothing to tell but that; if it asked to join it would become a member again.
    ///
    /// The next stream goes on with the session, which is not begun once more: so this does all of it, and waits for memory.
    fn begin(&self) -> core::result::Result<(), Broken> {
        let store = self.orders.lock().store.clone();
        if let Some(store) = store
            && !self.client.has_left()
        {
            scoutfs_env::info!("another server has taken over: going on with it");
            self.surely(|| recover(&store))?;
            self.surely(|| self.client.resend())?;
            store.lock_table.recovered(&store);
            store.worker.look_for_merged();
        } else {
            self.surely(|| self.client.resend())?;
            self.surely(|| self.client.tell_joining())?;
        }
        Ok(())
    }

    /// Does a part of the beginning, which may be done again when it fails.
    fn surely(&self, part: impl Fn() -> Result<()>) -> core::result::Result<(), Broken> {
        loop {
            match part() {
                Ok(()) => return Ok(()),
                Err(Error::NoMemory) if !self.client.is_closed() && !self.mount_has_failed() => {
                    time::sleep(MEMORY_PAUSE);
                }
                // Nothing of this session is answered any more, and the mount's lease ends.
                Err(e) => {
                    scoutfs_env::warn!("telling the new server what this mount has: {e}");
                    return Err(Broken::Ended);
                }
            }
        }
    }

    /// Answers whether a process of this machine is dead. What cannot be said now is asked again.
    fn tell_of_death(&self, id: RequestId, payload: &[u8]) {
        let (Some(oracle), Ok(asked)) = (&self.oracle, Death::read_from_bytes(payload)) else {
            drop(self.client.answer(MSG_DEATH, id, STATUS_INVALID, &[]));
            return;
        };
        let death = Death { dead: U32::new(oracle.is_dead(&asked.process).into()), ..asked };
        drop(self.client.answer(MSG_DEATH, id, STATUS_OK, death.as_bytes()));
    }

    fn hand_on(&self, order: Order) {
        let mut orders = self.orders.lock();
        match orders.store.clone() {
            Some(store) => carry(&store, order),
            None => {
                let mut order = Some(order);
                while let Err(_e) = orders.waiting.reserve(1) {
                    time::sleep(MEMORY_PAUSE);
                }
                if let Some(order) = order.take() {
                    // There is room.
                    let _ = orders.waiting.push(order);
                }
            }
        }
    }
}

/// Tells a new server which locks, open inodes, locks of files, seqs and hand-overs the mount has. The answers come as orders. To be
/// called again when it fails: to say a part of it twice does no harm, as the server handles nothing else of this mount before it is done.
fn recover(store: &Store) -> Result<()> {
    let given = store.client.begin_recovery();
    let identity = &store.identity;
    let join = JoinRequest {
        rid: U64::new(identity.rid),
        process: identity.process,
        read_only: U32::new(store.read_only.into()),
        pad: U32::ZERO,
    };
    store.client.post_first(MSG_JOIN, join.as_bytes())?;
    store.lock_table.recover(|locks| {
        if planted(Fault::ForgetLocks) {
            return Ok(());
        }
        store.client.post_first(MSG_LOCK_REPORT, locks.as_bytes())
    })?;
    let mut after = None;
    while let Some((name, opens)) = store.opens.after(after) {
        let report = OpensReport { id: name.to_raw(), opens: opens.to_raw() };
        store.client.post_first(MSG_OPENS_REPORT, report.as_bytes())?;
        after = Some(name);
    }
    store.file_locks.recover(|locks| store.client.post_first(MSG_FILE_LOCK_REPORT, locks.as_bytes()))?;
    let said = Recovered {
        seq: U64::new(store.trans.lowest_open().unwrap_or(0)),
        last_seq: U64::new(given.seq.max(store.trans.seq())),
        taken: U64::new(given.hand_over),
        commit_nr: U64::new(store.commit_nr.load(Ordering::Acquire)),
    };
    store.client.post_first(MSG_RECOVERED, said.as_bytes())
}

/// Handles an order or hands it to the worker; what there is no memory for waits, and all that comes after it.
fn carry(store: &Arc<Store>, order: Order) {
    let mut order = Some(order);
    loop {
        match worker::dispatch(store, &mut order) {
            Ok(()) => return,
            Err(Error::NoMemory) if store.trans.check().is_ok() => time::sleep(MEMORY_PAUSE),
            Err(e) => {
                scoutfs_env::error!("a message of the server: {}", store.verdict(e));
                store.fail("a message of the server could not be handled");
                return;
            }
        }
    }
}
