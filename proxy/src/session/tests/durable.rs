//! `audit.mode: durable`: nothing is forwarded before its record is on disk, and one receive waits once.

use std::path::Path;

use super::*;

fn world() -> World {
    World::with(Settings { durable: true, ..settings() }, ClusterSettings::default())
}

/// Whether the log on disk holds `text`.
fn log_holds(folder: &Path, text: &str) -> bool {
    let mut files = vec![folder.to_path_buf()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|end| end == "jsonl") {
            let bytes = std::fs::read(&path).expect("a segment");
            if memchr::memmem::find(&bytes, text.as_bytes()).is_some() {
                return true;
            }
        }
    }
    false
}

/// Runs a session and looks every millisecond: stands for the worker, which wakes who waits when the writer rings.
async fn looked_at(run: impl Future<Output = End>, mut look: impl FnMut()) -> End {
    let mut run = std::pin::pin!(run);
    let mut tick = std::pin::pin!(crate::net::sleep(Duration::from_millis(1)));
    std::future::poll_fn(|cx| {
        look();
        let poll = run.as_mut().poll(cx);
        while tick.as_mut().poll(cx).is_ready() {
            tick.set(crate::net::sleep(Duration::from_millis(1)));
        }
        poll
    })
    .await
}

#[test]
fn what_one_receive_brought_is_forwarded_at_once_and_after_the_last_record_of_it() {
    for driver in BOTH {
        let mut world = world();
        let log = world.folder.path().join("audit");
        world.run(driver, async |core| {
            let Wires { client, backend, mut client_far, mut backend_far } = wires(&core);
            let (mut pump, _) = pump(&core, machine(), client, backend);
            let peers = std::thread::spawn(move || {
                greet(&mut backend_far, &mut client_far);
                for round in 0..20 {
                    let mut ask = frame(b'P', format!("\0select {round} as first\0\0\0").as_bytes());
                    ask.extend(frame(b'B', format!("\0\0\0\0\0\x01\0\0\0\x05p{round:04}\0\0").as_bytes()));
                    ask.extend(frame(b'E', b"\0\0\0\0\0"));
                    ask.extend(frame(b'S', b""));
                    client_far.write_all(&ask).expect("ask");
                    let mut bytes = vec![0; 2 * ask.len()];
                    let got = backend_far.read(&mut bytes).expect("bytes");
                    assert!(bytes[..got] == ask, "{got} of {} bytes came first", ask.len());
                    // The parameter is in the record of Bind, and in that of Execute behind it.
                    assert!(log_holds(&log, &format!("select {round} as first")), "round {round}: Parse");
                    assert!(log_holds(&log, &format!("p{round:04}")), "round {round}: Bind");
                    let mut reply = frame(b'1', b"");
                    reply.extend(frame(b'2', b""));
                    reply.extend(frame(b'C', b"SELECT 1\0"));
                    reply.extend(frame(b'Z', b"I"));
                    backend_far.write_all(&reply).expect("reply");
                    assert_eq!(read_some(&mut client_far, reply.len()), reply);
                }
            });
            let end = looked_at(pump.run(), || {}).await;
            peers.join().expect("peers");
            assert!(matches!(end, End::Client | End::Server), "{end:?}");
        });
    }
}

#[test]
fn what_was_not_forwarded_when_the_session_ended_has_a_record_that_says_so() {
    for driver in BOTH {
        let mut world = world();
        let log = world.folder.path().join("audit");
        let mut forwarded = Vec::new();
        world.run(driver, async |core| {
            let Wires { client, backend, mut client_far, mut backend_far } = wires(&core);
            let (mut pump, control) = pump(&core, machine(), client, backend);
            let peers = std::thread::spawn(move || {
                greet(&mut backend_far, &mut client_far);
                client_far.write_all(&frame(b'Q', b"drop table t\0")).expect("query");
                let mut forwarded = Vec::new();
                let _ = backend_far.read_to_end(&mut forwarded);
                drop(client_far);
                forwarded
            });
            // The statement is on record and waits for the disk: the order comes before the next look.
            let end = looked_at(pump.run(), || {
                if control.statements.get() == 1 {
                    control.order(crate::worker::Order::AccessLost);
                }
            })
            .await;
            assert_eq!(end, End::Access);
            pump.close(end).await;
            while !peers.is_finished() {
                crate::net::sleep(Duration::from_millis(1)).await;
            }
            forwarded = peers.join().expect("peers");
        });
        world.audit.take().expect("an audit log").shutdown();
        assert!(log_holds(&log, "drop table t"));
        // The disk may have been faster than the order; what the log says is what the database got.
        assert_eq!(log_holds(&log, "not forwarded"), forwarded.is_empty(), "on {}", driver.word());
    }
}
