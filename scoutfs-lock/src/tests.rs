// SPDX-License-Identifier: GPL-2.0-only
//! The rules one by one, with messages carried by hand.

use core::time::Duration;
use std::vec::Vec;

use scoutfs_env::alloc_fault;
use scoutfs_env::time::Mono;

use crate::*;

const A: u64 = 1;
const B: u64 = 2;
const C: u64 = 3;

fn name(n: u64) -> LockName {
    LockName::group_of(n << GROUP_ORDER)
}

fn request(n: u64, old_mode: Mode, mode: Mode, generation: u64) -> Message {
    Message { name: name(n), version: 0, commit_nr: 0, generation, old_mode, mode }
}

fn server() -> LockServer<u32> {
    let mut server = LockServer::new(0);
    server.finish_recovery();
    server
}

/// What the server says: who, whether a grant, in which mode, and the message.
fn said(server: &mut LockServer<u32>) -> Vec<(u64, Option<u32>, Mode, Message)> {
    let mut said = Vec::new();
    while let Some(output) = server.poll_output(Mono::ZERO) {
        said.push(match output {
            ServerOutput::Grant { client, token, grant } => {
                (client, Some(token), grant.mode(), grant.into_message(99))
            }
            ServerOutput::Revoke { client, message } => (client, None, message.mode, message),
        });
    }
    said
}

fn brief(server: &mut LockServer<u32>) -> Vec<(u64, Option<u32>, Mode)> {
    said(server).into_iter().map(|(client, token, mode, _)| (client, token, mode)).collect()
}

fn outputs(client: &mut LockClient<u32>) -> Vec<Output<u32>> {
    core::iter::from_fn(|| client.poll_output()).collect()
}

/// A client that holds a lock; the ticket's user has it.
fn holding(mode: Mode, generation: u64) -> LockClient<u32> {
    let mut client = LockClient::new(100);
    assert!(matches!(client.acquire(name(1), mode), Ok(Acquire::Wait(_))));
    assert!(matches!(outputs(&mut client)[..], [Output::Request(m)] if m.mode == mode));
    client.handle_grant(&Message { version: 50, ..request(1, Mode::Null, mode, generation) });
    assert!(matches!(
        outputs(&mut client)[..],
        [Output::Acquired { granted: Granted { version: 50, .. }, .. }]
    ));
    client
}

#[test]
fn requests_are_served_in_the_order_of_their_coming() {
    let mut server = server();
    server.handle_request(A, 10, &request(1, Mode::Null, Mode::Read, 0), &Opens::default()).unwrap();
    server.handle_request(B, 20, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    server.handle_request(C, 30, &request(1, Mode::Null, Mode::Read, 0), &Opens::default()).unwrap();
    let first = said(&mut server);
    let [(A, Some(10), Mode::Read, _), (A, None, Mode::Null, revoke)] = first[..] else {
        panic!("{first:?}");
    };
    // The reader that came later does not overtake the writer.
    let answer = Message { old_mode: Mode::Read, mode: Mode::Null, ..revoke };
    server.handle_answer(A, &answer, &Opens::default()).unwrap();
    let second = said(&mut server);
    let [(B, Some(20), Mode::Write, grant), (B, None, Mode::Read, revoke)] = second[..] else {
        panic!("{second:?}");
    };
    assert_eq!(grant.version, 99);
    // A reader leaves the writer the right to read.
    server.handle_answer(B, &Message { mode: Mode::Read, ..revoke }, &Opens::default()).unwrap();
    assert_eq!(brief(&mut server), [(C, Some(30), Mode::Read)]);
}

#[test]
fn two_readers_that_both_want_to_write_get_it_one_after_the_other() {
    let mut server = server();
    for client in [A, B] {
        server.handle_request(client, 1, &request(1, Mode::Null, Mode::Read, 0), &Opens::default()).unwrap();
    }
    let grants = said(&mut server);
    for (client, _, _, grant) in &grants {
        let wish = request(1, Mode::Read, Mode::Write, grant.generation);
        server.handle_request(*client, 2, &wish, &Opens::default()).unwrap();
    }
    let revokes = said(&mut server);
    let [(B, None, Mode::Null, revoke)] = revokes[..] else {
        panic!("{revokes:?}");
    };
    server.handle_answer(B, &revoke, &Opens::default()).unwrap();
    let next = said(&mut server);
    let [(A, Some(2), Mode::Write, _), (A, None, Mode::Null, revoke)] = next[..] else {
        panic!("{next:?}");
    };
    server.handle_answer(A, &revoke, &Opens::default()).unwrap();
    assert_eq!(brief(&mut server), [(B, Some(2), Mode::Write)]);
}

#[test]
fn duplicates_of_requests_and_answers_change_nothing() {
    let mut server = server();
    let wish = request(1, Mode::Null, Mode::Write, 0);
    server.handle_request(A, 1, &wish, &Opens::default()).unwrap();
    assert_eq!(brief(&mut server).len(), 1);
    server.handle_request(A, 1, &wish, &Opens::default()).unwrap();
    assert_eq!(brief(&mut server), []);
    server.handle_request(B, 2, &request(1, Mode::Null, Mode::Read, 0), &Opens::default()).unwrap();
    server.handle_request(B, 2, &request(1, Mode::Null, Mode::Read, 0), &Opens::default()).unwrap();
    let revokes = said(&mut server);
    let [(A, None, Mode::Read, to_read)] = revokes[..] else { panic!("{revokes:?}") };
    server.handle_answer(A, &to_read, &Opens::default()).unwrap();
    assert_eq!(brief(&mut server), [(B, Some(2), Mode::Read)]);
    server.handle_request(C, 3, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    assert_eq!(brief(&mut server), [(A, None, Mode::Null), (B, None, Mode::Null)]);
    // The answer to the first revoke comes again: it does not answer the second.
    server.handle_answer(A, &Message { mode: Mode::Null, ..to_read }, &Opens::default()).unwrap();
    assert_eq!(brief(&mut server), []);
}

#[test]
fn an_answer_that_keeps_too_much_is_an_error() {
    let mut server = server();
    server.handle_request(A, 1, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    server.handle_request(B, 2, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    let (_, _, _, revoke) = said(&mut server)[1];
    assert_eq!(
        server.handle_answer(A, &Message { mode: Mode::Read, ..revoke }, &Opens::default()),
        Err(LockError::NotGivenBack { client: A, name: name(1), to: Mode::Null, found: Mode::Read })
    );
}

#[test]
fn a_mount_that_is_gone_is_in_nobodys_way() {
    let mut server = server();
    server.handle_request(A, 1, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    server.handle_request(B, 2, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    server.handle_request(C, 3, &request(1, Mode::Null, Mode::Read, 0), &Opens::default()).unwrap();
    said(&mut server);
    server.handle_client_gone(B);
    server.handle_client_gone(A);
    assert_eq!(brief(&mut server), [(C, Some(3), Mode::Read)]);
    server.handle_client_gone(C);
    assert_eq!(brief(&mut server), []);
    assert!(server.is_empty());
}

#[test]
fn a_revoke_that_is_not_answered_is_overdue() {
    let mut server = server();
    let at = |s| Mono::ZERO.saturating_add(Duration::from_secs(s));
    server.handle_request(A, 1, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    server.handle_request(B, 2, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    while server.poll_output(at(5)).is_some() {}
    assert_eq!(server.overdue(at(14), Duration::from_secs(10)), None);
    assert_eq!(server.overdue(at(15), Duration::from_secs(10)), Some(A));
    // It gets on with it. What another does says nothing.
    server.note_progress(B, at(14));
    assert_eq!(server.overdue(at(15), Duration::from_secs(10)), Some(A));
    server.note_progress(A, at(14));
    server.note_progress(A, at(13));
    assert_eq!(server.overdue(at(23), Duration::from_secs(10)), None);
    assert_eq!(server.overdue(at(24), Duration::from_secs(10)), Some(A));
}

#[test]
fn a_new_server_grants_nothing_before_all_have_reported() {
    let mut server = LockServer::new(7);
    server.handle_request(B, 2, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    let report = request(1, Mode::Read, Mode::Read, 40);
    server.handle_report(A, &report).unwrap();
    server.handle_report(C, &report).unwrap();
    assert_eq!(
        server.handle_report(B, &request(1, Mode::Write, Mode::Write, 41)),
        Err(LockError::Conflict {
            name: name(1),
            client: B,
            mode: Mode::Write,
            other: A,
            other_mode: Mode::Read
        })
    );
    assert_eq!(brief(&mut server), []);
    server.finish_recovery();
    let revokes = said(&mut server);
    assert!(revokes.iter().all(|(_, _, mode, m)| *mode == Mode::Null && m.generation > 40));
    assert_eq!(revokes.len(), 2);
    assert!(matches!(server.handle_report(A, &report), Err(LockError::NotRecovering { .. })));
}

#[test]
fn a_request_without_memory_changes_nothing() {
    for fail_at in 0.. {
        let mut server = server();
        server.handle_request(A, 1, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
        said(&mut server);
        alloc_fault::fail_after(fail_at);
        let results = [
            server.handle_request(B, 2, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()),
            server.handle_request(B, 3, &request(2, Mode::Null, Mode::Write, 0), &Opens::default()),
        ];
        alloc_fault::clear();
        let said: Vec<_> = brief(&mut server);
        let [same, other] = results.map(|r| r.is_ok());
        assert_eq!(said.contains(&(A, None, Mode::Null)), same);
        assert_eq!(said.contains(&(B, Some(3), Mode::Write)), other);
        if same && other {
            assert!(fail_at >= 2);
            break;
        }
    }
}

#[test]
fn trying_takes_what_is_there_and_asks_for_nothing() {
    let mut client = holding(Mode::Write, 5);
    assert!(!client.try_acquire(name(2), Mode::Read), "nothing is known of it");
    assert!(!client.try_acquire(name(1), Mode::Null));
    assert!(client.try_acquire(name(1), Mode::Write));
    let revoke = request(1, Mode::Write, Mode::Read, 6);
    assert_eq!(client.handle_revoke(1, &revoke), Revoked::Later);
    assert!(!client.try_acquire(name(1), Mode::Write), "it is to be given back");
    assert!(client.try_acquire(name(1), Mode::Read));
    assert_eq!(client.poll_output(), None, "the user is waited for");
    client.release(name(1), Mode::Write).unwrap();
    client.release(name(1), Mode::Read).unwrap();
    assert!(client.release(name(1), Mode::Read).is_err(), "each use is counted once");
}

#[test]
fn a_revoke_waits_for_users_and_new_users_wait_for_it() {
    let mut client = holding(Mode::Write, 5);
    assert!(matches!(client.acquire(name(1), Mode::Read), Ok(Acquire::Granted(_))));
    let revoke = request(1, Mode::Write, Mode::Read, 6);
    assert_eq!(client.handle_revoke(1, &revoke), Revoked::Later);
    // Reading may go on, writing may not.
    assert!(matches!(client.acquire(name(1), Mode::Read), Ok(Acquire::Granted(_))));
    assert!(matches!(client.acquire(name(1), Mode::Write), Ok(Acquire::Wait(_))));
    assert_eq!(outputs(&mut client), []);
    client.release(name(1), Mode::Write).unwrap();
    assert_eq!(
        outputs(&mut client),
        [Output::Invalidate { name: name(1), held: Mode::Write, keep: Mode::Read }]
    );
    assert_eq!(client.mode(name(1)), Mode::Write);
    client.invalidated(name(1), 33).unwrap();
    let out = outputs(&mut client);
    let [Output::Answer { token: 1, message: answer }, Output::Request(again)] = out[..] else {
        panic!("{out:?}");
    };
    assert_eq!((answer.mode, answer.generation, answer.commit_nr), (Mode::Read, 6, 33));
    assert_eq!((again.old_mode, again.mode, again.commit_nr), (Mode::Read, Mode::Write, 33));
    // The server lets another one write, so the readers must go, too.
    assert_eq!(client.handle_revoke(2, &request(1, Mode::Read, Mode::Null, 7)), Revoked::Later);
    client.release(name(1), Mode::Read).unwrap();
    assert_eq!(outputs(&mut client), []);
    client.release(name(1), Mode::Read).unwrap();
    assert!(matches!(outputs(&mut client)[..], [Output::Invalidate { keep: Mode::Null, .. }]));
    client.invalidated(name(1), 34).unwrap();
    assert!(matches!(outputs(&mut client)[..], [Output::Answer { token: 2, .. }]));
    let grant = Message { version: 60, ..request(1, Mode::Null, Mode::Write, 8) };
    client.handle_grant(&grant);
    let out = outputs(&mut client);
    let [Output::Acquired { mode: Mode::Write, granted, .. }] = out[..] else { panic!("{out:?}") };
    assert_eq!(granted, Granted { version: 60, refresh: 2 });
}

/// Invariant 14.
#[test]
fn duplicate_and_unknown_revokes_are_answered() {
    let mut client = holding(Mode::Write, 5);
    client.release(name(1), Mode::Write).unwrap();
    let revoke = request(1, Mode::Write, Mode::Null, 6);
    assert_eq!(client.handle_revoke(1, &revoke), Revoked::Later);
    assert_eq!(client.handle_revoke(2, &revoke), Revoked::Later);
    assert_eq!(outputs(&mut client).len(), 1);
    client.invalidated(name(1), 9).unwrap();
    assert!(matches!(outputs(&mut client)[..], [Output::Answer { token: 2, .. }]));
    assert!(client.is_empty());
    for n in [1, 7] {
        let Revoked::Answer(answer) = client.handle_revoke(3, &request(n, Mode::Write, Mode::Null, 6)) else {
            panic!("not answered");
        };
        assert_eq!((answer.mode, answer.generation, answer.commit_nr), (Mode::Null, 6, 9));
    }
}

#[test]
fn a_late_duplicate_of_a_grant_does_not_bring_a_lock_back() {
    let mut client = holding(Mode::Write, 5);
    client.release(name(1), Mode::Write).unwrap();
    client.handle_revoke(1, &request(1, Mode::Write, Mode::Null, 6));
    outputs(&mut client);
    client.invalidated(name(1), 9).unwrap();
    outputs(&mut client);
    client.acquire(name(1), Mode::Write).unwrap();
    assert_eq!(outputs(&mut client).len(), 1);
    client.handle_grant(&request(1, Mode::Null, Mode::Write, 5));
    assert_eq!(client.mode(name(1)), Mode::Null);
    assert_eq!(outputs(&mut client), []);
}

#[test]
fn a_request_that_was_taken_for_a_duplicate_is_made_again() {
    let mut server = server();
    let mut client = holding(Mode::Read, 1);
    let first = request(1, Mode::Null, Mode::Read, 0);
    server.handle_request(A, 1, &first, &Opens::default()).unwrap();
    assert_eq!(brief(&mut server), [(A, Some(1), Mode::Read)]);
    server.handle_request(B, 2, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    let (_, _, _, revoke) = said(&mut server)[0];
    client.handle_revoke(1, &revoke);
    client.release(name(1), Mode::Read).unwrap();
    outputs(&mut client);
    client.invalidated(name(1), 1).unwrap();
    let Output::Answer { message, .. } = outputs(&mut client)[0] else { panic!() };
    server.handle_answer(A, &message, &Opens::default()).unwrap();
    server.handle_client_gone(B);
    said(&mut server);
    // The next request is on its way when a duplicate of the first one is granted.
    client.acquire(name(1), Mode::Write).unwrap();
    let Output::Request(second) = outputs(&mut client)[0] else { panic!() };
    server.handle_request(A, 1, &first, &Opens::default()).unwrap();
    let (_, _, _, odd) = said(&mut server)[0];
    server.handle_request(A, 3, &second, &Opens::default()).unwrap();
    assert_eq!(brief(&mut server), []);
    client.handle_grant(&odd);
    let Output::Request(again) = outputs(&mut client)[0] else { panic!() };
    server.handle_request(A, 4, &again, &Opens::default()).unwrap();
    let (_, _, _, grant) = said(&mut server)[0];
    client.handle_grant(&grant);
    assert_eq!(client.mode(name(1)), Mode::Write);
}

#[test]
fn a_grant_that_its_revoke_has_overtaken_is_not_held() {
    let mut client: LockClient<u32> = LockClient::new(100);
    client.acquire(name(1), Mode::Write).unwrap();
    outputs(&mut client);
    let revoke = request(1, Mode::Write, Mode::Null, 6);
    assert!(matches!(client.handle_revoke(1, &revoke), Revoked::Answer(_)));
    client.handle_grant(&request(1, Mode::Null, Mode::Write, 5));
    assert_eq!(client.mode(name(1)), Mode::Null);
    assert!(matches!(outputs(&mut client)[..], [Output::Request(m)] if m.generation == 6));
}

#[test]
fn a_revoke_saves_giving_an_idle_lock_back() {
    let mut client = holding(Mode::Write, 5);
    client.release(name(1), Mode::Write).unwrap();
    assert_eq!(client.shrink(1), 1);
    assert_eq!(outputs(&mut client).len(), 1);
    client.handle_revoke(1, &request(1, Mode::Write, Mode::Null, 6));
    client.invalidated(name(1), 1).unwrap();
    assert!(matches!(outputs(&mut client)[..], [Output::Answer { .. }]));
    assert!(client.is_empty());
}

/// Invariant 10.
#[test]
fn a_lock_that_is_being_given_back_is_reported_as_it_was() {
    let mut client = holding(Mode::Write, 5);
    client.release(name(1), Mode::Write).unwrap();
    client.handle_revoke(1, &request(1, Mode::Write, Mode::Null, 6));
    assert_eq!(outputs(&mut client).len(), 1);
    client.handle_new_server();
    let reports: Vec<_> = client.reports(None).collect();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].mode, reports[0].generation), (Mode::Write, 6));
    assert_eq!(client.reports(Some(name(1))).count(), 0);
    // The revoke of the old server is not answered to the new one.
    client.invalidated(name(1), 9).unwrap();
    assert_eq!(outputs(&mut client), []);
    let again = request(1, Mode::Write, Mode::Null, 90);
    assert!(matches!(client.handle_revoke(4, &again), Revoked::Answer(_)));
}

#[test]
fn a_new_server_is_asked_again_for_what_the_old_one_owed() {
    let mut client: LockClient<u32> = LockClient::new(100);
    client.acquire(name(1), Mode::Read).unwrap();
    assert_eq!(outputs(&mut client).len(), 1);
    client.handle_new_server();
    assert!(matches!(outputs(&mut client)[..], [Output::Request(m)] if m.mode == Mode::Read));
    client.handle_refused(name(1));
    assert!(matches!(outputs(&mut client)[..], [Output::Request(m)] if m.mode == Mode::Read));
}

#[test]
fn waiting_can_be_given_up() {
    let mut client = holding(Mode::Read, 5);
    let Ok(Acquire::Wait(ticket)) = client.acquire(name(1), Mode::Write) else { panic!() };
    assert_eq!(client.cancel(name(1), ticket), Cancel::Cancelled);
    assert_eq!(client.cancel(name(1), ticket), Cancel::Acquired);
    // Even when the lock has come, as long as the waiter was not told.
    let Ok(Acquire::Wait(ticket)) = client.acquire(name(1), Mode::Write) else { panic!() };
    outputs(&mut client);
    client.handle_grant(&request(1, Mode::Null, Mode::Write, 6));
    assert_eq!(client.cancel(name(1), ticket), Cancel::Cancelled);
    assert_eq!(outputs(&mut client), []);
    assert!(client.release(name(1), Mode::Write).is_err());
    client.release(name(1), Mode::Read).unwrap();
}

/// Invariant 12.
#[test]
fn a_new_lock_gives_at_most_one_idle_lock_back() {
    let mut client: LockClient<u32> = LockClient::new(4);
    for n in 0..20 {
        client.acquire(name(n), Mode::Read).unwrap();
        let out = outputs(&mut client);
        let asked = out.iter().filter(|o| matches!(o, Output::Request(_))).count();
        let dropped = out.iter().filter(|o| matches!(o, Output::Invalidate { .. })).count();
        assert_eq!(asked, 1);
        assert!(dropped <= 1, "{out:?}");
        for o in out {
            if let Output::Invalidate { name, .. } = o {
                client.invalidated(name, 1).unwrap();
                let out = outputs(&mut client);
                let [Output::Request(back)] = out[..] else { panic!("{out:?}") };
                assert_eq!((back.mode, back.old_mode), (Mode::Null, Mode::Null));
                client.handle_grant(&Message { generation: 10 * n + 11, ..back });
                assert_eq!(outputs(&mut client), []);
            }
        }
        client.handle_grant(&request(n, Mode::Null, Mode::Read, 10 * n + 12));
        outputs(&mut client);
        client.release(name(n), Mode::Read).unwrap();
    }
    assert!(client.len() <= 8, "{}", client.len());
}

#[test]
fn giving_back_needs_no_memory() {
    let mut client = holding(Mode::Write, 5);
    client.acquire(name(1), Mode::Read).unwrap();
    alloc_fault::fail_after(0);
    client.release(name(1), Mode::Write).unwrap();
    client.handle_revoke(1, &request(1, Mode::Write, Mode::Null, 6));
    client.release(name(1), Mode::Read).unwrap();
    assert!(matches!(client.poll_output(), Some(Output::Invalidate { .. })));
    client.invalidated(name(1), 1).unwrap();
    assert!(matches!(client.poll_output(), Some(Output::Answer { .. })));
    assert_eq!(client.poll_output(), None);
    alloc_fault::clear();
    assert!(client.is_empty());
}

#[test]
fn an_acquire_without_memory_changes_nothing() {
    for fail_at in 0.. {
        let mut client: LockClient<u32> = LockClient::new(4);
        alloc_fault::fail_after(fail_at);
        let result = client.acquire(name(1), Mode::Read);
        alloc_fault::clear();
        if result.is_ok() {
            assert!(fail_at >= 2);
            break;
        }
        assert!(matches!(result, Err(LockError::NoMemory(_))));
        assert!(client.is_empty());
        assert_eq!(outputs(&mut client), []);
    }
}

#[test]
fn mistakes_of_the_caller_are_named() {
    let mut client = holding(Mode::Read, 5);
    let name = name(1);
    assert_eq!(client.acquire(name, Mode::Null), Err(LockError::AcquireNull { name }));
    let error = LockError::NotInUse { name, mode: Mode::Write };
    assert_eq!(client.release(name, Mode::Write), Err(error));
    assert_eq!(client.invalidated(name, 1), Err(LockError::NotInvalidating { name }));
}

/// An inode is deleted by the holder for writing only when nobody else has it open.
#[test]
fn who_writes_is_told_what_others_have_open() {
    let mut server = server();
    let (first, other) = (1 << GROUP_ORDER, (1 << GROUP_ORDER) + 9);
    let open = |inos: &[u64]| {
        let mut opens = Opens::default();
        inos.iter().for_each(|ino| opens.insert(*ino));
        opens
    };
    server.handle_request(A, 1, &request(1, Mode::Null, Mode::Read, 0), &Opens::default()).unwrap();
    said(&mut server);
    server.handle_request(B, 2, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    let revoke = said(&mut server)[0].3;
    // Not what it says in passing, but what it gives the lock back with.
    let stale = Message { generation: revoke.generation + 1, mode: Mode::Null, ..revoke };
    server.handle_answer(A, &stale, &open(&[other])).unwrap();
    assert_eq!(server.opens_elsewhere(name(1), B), Opens::default());
    server.handle_answer(A, &Message { mode: Mode::Null, ..revoke }, &open(&[first, other])).unwrap();
    said(&mut server);
    assert_eq!(server.opens_elsewhere(name(1), B), open(&[first, other]));
    assert_eq!(server.opens_elsewhere(name(1), A), Opens::default(), "its own it knows itself");
    assert_eq!(server.opens_elsewhere(name(2), B), Opens::default());

    // C gives an idle lock back, and has one inode open; that of A that is closed since goes when A gives it back again.
    let give_back = request(1, Mode::Null, Mode::Null, 0);
    server.handle_request(C, 3, &give_back, &open(&[other])).unwrap();
    assert_eq!(server.opens_elsewhere(name(1), C), open(&[first, other]));
    server.handle_request(A, 4, &give_back, &open(&[first])).unwrap();
    said(&mut server);
    assert_eq!(server.opens_elsewhere(name(1), C), open(&[first]));
    assert_eq!(server.opens_elsewhere(name(1), B), open(&[first, other]));

    // Who is gone has nothing open, and then nothing is kept.
    server.handle_client_gone(C);
    assert_eq!(server.opens_elsewhere(name(1), B), open(&[first]));
    server.handle_client_gone(B);
    said(&mut server);
    assert_eq!(server.len(), 1);
    server.handle_request(A, 5, &give_back, &Opens::default()).unwrap();
    said(&mut server);
    assert!(server.is_empty());
}

/// A new server learns what is open from those who opened it, whether they hold the lock or not.
#[test]
fn open_inodes_outlive_a_server() {
    let mut server: LockServer<u32> = LockServer::new(100);
    let mut opens = Opens::default();
    opens.insert(5);
    server.handle_opens(A, name(1), &opens).unwrap();
    server.handle_request(B, 2, &request(1, Mode::Null, Mode::Write, 0), &Opens::default()).unwrap();
    server.finish_recovery();
    said(&mut server);
    assert_eq!(server.opens_elsewhere(name(1), B), opens);
    assert!(matches!(server.handle_opens(A, name(1), &opens), Err(LockError::NotRecovering { .. })));
}
