//! How sessions end, rest and wait: what the client is told, what the database gets, and that nothing hangs.

use std::net::Shutdown;

use super::*;
use crate::worker::Order;

/// How long a peer waits for bytes before the test fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs one session between two peers on threads of their own. `look` is called at every poll and every millisecond.
fn between<T: Send + 'static>(
    driver: Driver,
    peers: impl FnOnce(UnixStream, UnixStream) -> T + Send + 'static,
    mut look: impl FnMut(&Rc<Core>, &Rc<Control>),
) -> (End, T) {
    let mut world = World::new();
    world.run(driver, async |core| {
        let Wires { client, backend, client_far, backend_far } = wires(&core);
        for far in [&client_far, &backend_far] {
            far.set_read_timeout(Some(PATIENCE)).expect("a limit");
            far.set_write_timeout(Some(PATIENCE)).expect("a limit");
        }
        let (mut pump, control) = pump(&core, machine(), client, backend);
        let peers = std::thread::spawn(move || peers(client_far, backend_far));
        let end = {
            let mut run = std::pin::pin!(pump.run());
            let mut tick = std::pin::pin!(crate::net::sleep(Duration::from_millis(1)));
            std::future::poll_fn(|cx| {
                look(&core, &control);
                let poll = run.as_mut().poll(cx);
                while tick.as_mut().poll(cx).is_ready() {
                    tick.set(crate::net::sleep(Duration::from_millis(1)));
                }
                poll
            })
            .await
        };
        pump.close(end).await;
        // The sockets close as the runtime runs.
        while !peers.is_finished() {
            crate::net::sleep(Duration::from_millis(1)).await;
        }
        (end, peers.join().expect("peers"))
    })
}

/// A statement that reaches the database.
fn ask(client: &mut UnixStream, backend: &mut UnixStream, text: &[u8]) {
    let query = frame(b'Q', text);
    client.write_all(&query).expect("query");
    assert_eq!(read_some(backend, query.len()), query);
}

/// Its answer, which reaches the client; `state` is the transaction's.
fn answer(backend: &mut UnixStream, client: &mut UnixStream, state: &[u8]) {
    let mut reply = frame(b'C', b"DONE\0");
    reply.extend(frame(b'Z', state));
    backend.write_all(&reply).expect("reply");
    assert_eq!(read_some(client, reply.len()), reply);
}

fn rest_of(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset instead of an end is an end too; what came before it counts.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn holds(bytes: &[u8], part: &str) -> bool {
    memchr::memmem::find(bytes, part.as_bytes()).is_some()
}

/// A switch that a peer throws and `look` sees.
fn switch() -> (Arc<std::sync::atomic::AtomicBool>, Arc<std::sync::atomic::AtomicBool>) {
    let switch = Arc::new(std::sync::atomic::AtomicBool::new(false));
    (switch.clone(), switch)
}

#[test]
fn every_order_ends_an_idle_session_with_its_own_native_error() {
    let orders = [
        (Order::Idle, End::Idle, "C57P05\0"),
        (Order::Expired, End::Expired, "C57P01\0"),
        (Order::AccessLost, End::Access, "C57P01\0"),
        (Order::Drain, End::Drain, "C57P01\0"),
        (Order::Abort, End::Drain, "C57P01\0"),
    ];
    for driver in BOTH {
        for (order, expected, code) in orders {
            let (ready, seen) = switch();
            let (end, said) = between(
                driver,
                move |mut client, mut backend| {
                    greet(&mut backend, &mut client);
                    ready.store(true, Relaxed);
                    let said = rest_of(&mut client);
                    drop(client);
                    assert!(rest_of(&mut backend).is_empty());
                    said
                },
                |_, control| {
                    if seen.load(Relaxed) {
                        control.order(order);
                    }
                },
            );
            assert_eq!(end, expected);
            assert_eq!(said.first(), Some(&b'E'), "{order:?}: {said:?}");
            assert!(holds(&said, "SFATAL\0") && holds(&said, code), "{order:?}: {said:?}");
        }
    }
}

#[test]
fn a_drain_waits_for_the_statement_and_for_the_transaction() {
    for driver in BOTH {
        let (ready, seen) = switch();
        let (end, said) = between(
            driver,
            move |mut client, mut backend| {
                greet(&mut backend, &mut client);
                ask(&mut client, &mut backend, b"begin\0");
                ready.store(true, Relaxed);
                answer(&mut backend, &mut client, b"T");
                ask(&mut client, &mut backend, b"commit\0");
                answer(&mut backend, &mut client, b"I");
                rest_of(&mut client)
            },
            |_, control| {
                if seen.load(Relaxed) {
                    control.order(Order::Drain);
                }
            },
        );
        assert_eq!(end, End::Drain);
        assert!(holds(&said, "C57P01\0"), "{said:?}");
    }
}

#[test]
fn a_lost_right_ends_a_busy_session_that_is_being_drained() {
    for driver in BOTH {
        let (ready, seen) = switch();
        let (end, said) = between(
            driver,
            move |mut client, mut backend| {
                greet(&mut backend, &mut client);
                ask(&mut client, &mut backend, b"select 1\0");
                ready.store(true, Relaxed);
                rest_of(&mut client)
            },
            |_, control| {
                if seen.load(Relaxed) {
                    control.order(Order::Drain);
                    control.order(Order::AccessLost);
                }
            },
        );
        assert_eq!(end, End::Access);
        assert!(holds(&said, "C57P01\0"), "{said:?}");
    }
}

#[test]
fn a_running_statement_is_not_idle() {
    for driver in BOTH {
        let (ready, seen) = switch();
        let (refused, withdrawn) = switch();
        let (end, ()) = between(
            driver,
            move |mut client, mut backend| {
                greet(&mut backend, &mut client);
                ask(&mut client, &mut backend, b"select pg_sleep(1000)\0");
                ready.store(true, Relaxed);
                let limit = Instant::now() + PATIENCE;
                while !withdrawn.load(Relaxed) {
                    assert!(Instant::now() < limit, "the order to end stands");
                    std::thread::yield_now();
                }
                answer(&mut backend, &mut client, b"I");
            },
            |_, control| {
                if seen.swap(false, Relaxed) {
                    control.order(Order::Idle);
                    assert_eq!(control.ordered(), Some(Order::Idle));
                    refused.store(false, Relaxed);
                } else if control.ordered().is_none() && control.statements.get() == 1 {
                    refused.store(true, Relaxed);
                }
            },
        );
        assert!(matches!(end, End::Client | End::Server), "{end:?}");
    }
}

#[test]
fn nothing_is_forwarded_after_the_order_to_end() {
    for driver in BOTH {
        let mut world = World::new();
        world.run(driver, async |core| {
            let Wires { client, backend, mut client_far, mut backend_far } = wires(&core);
            let (mut pump, control) = pump(&core, machine(), client, backend);
            let mut first = frame(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]);
            first.extend(frame(b'Z', b"I"));
            backend_far.write_all(&first).expect("hello");
            let mut polls = 0;
            let end = {
                let mut run = std::pin::pin!(pump.run());
                std::future::poll_fn(|cx| {
                    polls += 1;
                    if control.secret_len.get() > 0 && polls == 3 {
                        client_far.write_all(&frame(b'Q', b"drop table t\0")).expect("query");
                        backend_far.write_all(&frame(b'N', b"SNOTICE\0\0")).expect("notice");
                        control.order(Order::AccessLost);
                    }
                    let poll = run.as_mut().poll(cx);
                    if poll.is_pending() && polls < 3 {
                        control.wake();
                    }
                    poll
                })
                .await
            };
            assert_eq!(end, End::Access);
            let peers = std::thread::spawn(move || (rest_of(&mut client_far), rest_of(&mut backend_far)));
            pump.close(end).await;
            while !peers.is_finished() {
                crate::net::sleep(Duration::from_millis(1)).await;
            }
            let (said, forwarded) = peers.join().expect("peers");
            assert!(forwarded.is_empty(), "on {}", driver.word());
            let fatal = memchr::memmem::find(&said, b"SFATAL").expect("an error") - 5;
            let len = u32::from_be_bytes(said[fatal + 1..fatal + 5].try_into().expect("a length")) as usize;
            assert_eq!(said.len(), fatal + 1 + len, "something follows the last words: {said:?}");
        });
    }
}

#[test]
fn an_end_does_not_wait_for_a_client_that_reads_nothing() {
    for driver in BOTH {
        for (order, expected) in [(Order::Abort, End::Drain), (Order::Stalled, End::Stalled)] {
            let (ready, seen) = switch();
            let (end, ()) = between(
                driver,
                move |mut client, mut backend| {
                    greet(&mut backend, &mut client);
                    ask(&mut client, &mut backend, b"select big\0");
                    backend.write_all(&frame(b'T', b"\0\0")).expect("head");
                    let row = frame(b'D', &vec![7; 1 << 20]);
                    ready.store(true, Relaxed);
                    // Ends when the session does.
                    while backend.write_all(&row).is_ok() {}
                },
                |_, control| {
                    if seen.load(Relaxed) && control.sending_since_ms.get() != 0 {
                        control.order(order);
                    }
                },
            );
            assert_eq!(end, expected, "on {}", driver.word());
        }
    }
}

#[test]
fn a_reader_that_is_slow_but_reads_is_not_stalled() {
    for driver in BOTH {
        let mut longest = 0;
        let (end, ()) = between(
            driver,
            move |mut client, mut backend| {
                greet(&mut backend, &mut client);
                ask(&mut client, &mut backend, b"select big\0");
                let writer = std::thread::spawn(move || {
                    backend.write_all(&frame(b'T', b"\0\0")).expect("head");
                    let row = frame(b'D', &vec![7; 1 << 20]);
                    for _ in 0..40 {
                        backend.write_all(&row).expect("row");
                    }
                    backend
                });
                let mut left = 7 + 40 * ((1 << 20) + 5);
                let mut bytes = vec![0; 256 << 10];
                while left > 0 {
                    left -= client.read(&mut bytes).expect("bytes");
                    std::thread::park_timeout(Duration::from_millis(10));
                }
                drop(writer.join().expect("writer"));
            },
            |core, control| {
                let since = control.sending_since_ms.get();
                if since != 0 {
                    longest = longest.max(core.now_ms().saturating_sub(since));
                }
            },
        );
        assert!(matches!(end, End::Client | End::Server), "{end:?}");
        // The whole takes well over a second; the client takes something every few milliseconds.
        assert!(longest < 1000, "a send seemed to stand still for {longest} ms on {}", driver.word());
    }
}

#[test]
fn a_session_holds_a_buffer_only_for_bytes_that_are_there_and_loses_none() {
    for driver in BOTH {
        let mut empty = 0u64;
        let (end, ()) = between(
            driver,
            move |mut client, mut backend| {
                greet(&mut backend, &mut client);
                let query = frame(b'Q', b"select 1\0");
                let mut seed = 88_172_645_463_325_252_u64;
                for round in 0..600 {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    // Now and then long enough for the session to be looked at.
                    std::thread::park_timeout(Duration::from_micros(seed % 2500));
                    // Every third frame is cut in its head: its front is held until the rest comes.
                    let cut = if round % 3 == 0 { 3 } else { query.len() };
                    client.write_all(&query[..cut]).expect("query");
                    client.write_all(&query[cut..]).expect("query");
                    assert_eq!(read_some(&mut backend, query.len()), query);
                    answer(&mut backend, &mut client, b"I");
                }
            },
            |core, control| {
                empty += u64::from(control.statements.get() > 0 && core.pool.live_bytes() == 0);
            },
        );
        assert!(matches!(end, End::Client | End::Server), "{end:?}");
        assert!(empty > 100, "only {empty} looks found no buffer on {}", driver.word());
    }
}

#[test]
fn an_idle_session_notices_that_either_side_leaves() {
    for driver in BOTH {
        for client_leaves in [true, false] {
            for _ in 0..10 {
                let (end, ()) = between(
                    driver,
                    move |mut client, mut backend| {
                        greet(&mut backend, &mut client);
                        if client_leaves {
                            drop(client);
                            assert!(rest_of(&mut backend).is_empty());
                        } else {
                            drop(backend);
                            assert!(holds(&rest_of(&mut client), "C08001\0"));
                        }
                    },
                    |_, _| {},
                );
                assert_eq!(end, if client_leaves { End::Client } else { End::Server });
            }
        }
    }
}

#[test]
fn a_client_that_closes_only_its_own_direction_gets_every_answer() {
    for driver in BOTH {
        let (end, ()) = between(
            driver,
            move |mut client, mut backend| {
                greet(&mut backend, &mut client);
                let mut ask = frame(b'P', b"s\0select 1\0\0\0");
                ask.extend(frame(b'S', b""));
                client.write_all(&ask).expect("parse");
                client.shutdown(Shutdown::Write).expect("half-close");
                // The database sees all of it and then the end, answers, and closes.
                assert_eq!(rest_of(&mut backend), ask);
                let mut reply = frame(b'1', b"");
                reply.extend(frame(b'Z', b"I"));
                backend.write_all(&reply).expect("reply");
                drop(backend);
                assert_eq!(rest_of(&mut client), reply);
            },
            |_, _| {},
        );
        assert_eq!(end, End::Client);
    }
}

#[test]
fn the_last_words_of_a_database_reach_a_client_that_is_sending() {
    for driver in BOTH {
        let (end, said) = between(
            driver,
            move |mut client, mut backend| {
                greet(&mut backend, &mut client);
                let fatal = frame(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0");
                // What the client sends next meets a database that is gone and has said why.
                backend.write_all(&fatal).expect("fatal");
                drop(backend);
                let _ = client.write_all(&frame(b'Q', b"select 1\0"));
                (rest_of(&mut client), fatal)
            },
            |_, _| {},
        );
        assert_eq!(end, End::Server);
        assert_eq!(said.0, said.1, "on {}", driver.word());
    }
}

#[test]
fn a_database_that_dies_under_a_statement_leaves_a_native_error_and_a_record() {
    for driver in BOTH {
        let mut world = World::new();
        world.run(driver, async |core| {
            let Wires { client, backend, mut client_far, mut backend_far } = wires(&core);
            let (mut pump, _) = pump(&core, machine(), client, backend);
            let peers = std::thread::spawn(move || {
                greet(&mut backend_far, &mut client_far);
                ask(&mut client_far, &mut backend_far, b"select 1\0");
                drop(backend_far);
                rest_of(&mut client_far)
            });
            let end = pump.run().await;
            let trail = pump.close(end).await;
            assert_eq!(end, End::Server);
            // Start, statement, and what came of it.
            assert_eq!(trail.next_ei(), 3);
            let said = peers.join().expect("peers");
            assert!(holds(&said, "SFATAL\0") && holds(&said, "C08001\0"), "{said:?}");
        });
    }
}

#[test]
fn a_session_let_in_by_an_older_policy_is_judged_by_the_newest() {
    for driver in BOTH {
        let mut world = World::of(ClusterSettings {
            on_access_change: ringgate_policy::OnAccessChange::End,
            ..ClusterSettings::default()
        });
        world.run(driver, async |core| {
            let Wires { client, backend, client_far, backend_far } = wires(&core);
            // Its database is in no snapshot of this world, and the one that let it in is none of them.
            let (pump, control) = pump(&core, machine(), client, backend);
            core.sweep();
            core.enter(&control);
            assert_eq!(control.ordered(), None);
            core.sweep();
            assert_eq!(control.ordered(), Some(Order::AccessLost));
            drop((pump, client_far, backend_far));
        });
    }
}

#[test]
fn a_drain_ends_a_session_that_is_still_connecting() {
    for driver in BOTH {
        let mut world = World::new();
        let plane = world.plane.clone();
        world.run(driver, async |core| {
            crate::net::spawn(
                async move {
                    crate::net::sleep(Duration::from_millis(5)).await;
                    plane.drain();
                },
                || {},
            );
            let never = std::future::pending::<Result<(), _>>();
            let ended = crate::net::within(PATIENCE, crate::session::connect::unless_drained(&core, never)).await;
            let error = ended.expect("an end in time").expect_err("nothing was reached");
            assert!(error.for_client("orders").contains("shutting down"), "{error}");
        });
    }
}
