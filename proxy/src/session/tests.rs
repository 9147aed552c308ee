//! The pump over real sockets and the real PostgreSQL machine, on both drivers: what it copies, allocates and holds,
//! and what a panic costs.

use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ringgate_audit::Producer;
use ringgate_control::{AuditSink, Authority, CaKind};
use ringgate_policy::{AuditedStatements, ClusterSettings, CommandSet};
use ringgate_protocol::postgres::Postgres;
use ringgate_protocol::{
    BackendTls, Credential, Fault, Limits, Machine, Opened, Opening, Outbox, Protocol, Refusal, Resumed, Ruling,
    SessionKey, Side, SignIn, Step, Ticket,
};

mod durable;
mod ends;
mod secured;

use super::End;
use super::cancel::Route;
use super::link::Link;
use super::pump::Pump;
use super::rule::Rules;
use super::trail::Trail;
use crate::config::KeyExchange;
use crate::metrics::{Counters, Served};
use crate::net::driver::{self, Driver, RingMode, RingSize};
use crate::net::stream::{Address, Stream};
use crate::net::{allocations, doorbell};
use crate::plane::{ListenerTls, Plane};
use crate::settings::{ArgumentDetail, ParameterDetail, QueryText, Settings};
use crate::tls;
use crate::worker::{About, Control, Core};

const RING: RingSize = RingSize { entries: 256, cq: 1024 };
const BOTH: [Driver; 2] = [Driver::IoUring(RingMode::Plain), Driver::Epoll];

struct Silent;

impl AuditSink for Silent {
    fn record(&self, _: &str, _: &str, _: &str) {}
}

/// Everything a worker needs, in a folder of its own.
struct World {
    plane: Arc<Plane>,
    producer: Option<Producer>,
    audit: Option<ringgate_audit::Handle>,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        World::of(ClusterSettings::default())
    }

    fn of(cluster: ClusterSettings) -> World {
        World::with(settings(), cluster)
    }

    fn with(settings: Settings, cluster: ClusterSettings) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let options = ringgate_audit::Options::new(folder.path().join("audit"));
        let (bell, _ear) = doorbell::pair().expect("a doorbell");
        let ringing = bell.clone();
        let (mut producers, _, audit) =
            ringgate_audit::start(options, 1, vec![Box::new(move || ringing.ring())]).expect("an audit log");
        let authority = Authority::open(ringgate_control::Options {
            data_dir: folder.path().join("data"),
            cluster_name: "test".into(),
            user_cert_ttl: Duration::from_secs(3600),
            db_cert_ttl: Duration::from_secs(3600),
            static_databases: Vec::new(),
            cluster,
            audit: Arc::new(Silent),
        })
        .expect("an authority");
        let identity = authority.listener_certificate(&["localhost".into()]).expect("a certificate");
        let tls = tls::config::server(identity, &authority.trust(CaKind::User), None, false, &[KeyExchange::X25519])
            .map(Arc::new)
            .expect("TLS");
        let tls = ListenerTls { postgres: tls.clone(), redis: tls.clone(), mysql: tls };
        let (inbox, _) = mpsc::channel();
        let (jobs, _) = mpsc::channel();
        let plane = Plane::new(settings, authority, tls, vec![(inbox, bell)], jobs);
        World { plane: Arc::new(plane), producer: producers.pop(), audit: Some(audit), folder }
    }

    fn core(&mut self) -> Rc<Core> {
        let producer = self.producer.take().expect("one core");
        Core::new(0, self.plane.clone(), producer, Arc::new(Counters::default()))
    }

    /// Runs `main` on a worker's runtime.
    fn run<T>(&mut self, driver: Driver, main: impl AsyncFnOnce(Rc<Core>) -> T) -> T {
        let core = self.core();
        driver::run(driver, RING, || main(core)).expect("a runtime")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(audit) = self.audit.take() {
            audit.shutdown();
        }
    }
}

fn settings() -> Settings {
    Settings {
        buffer_small_bytes: 4 << 10,
        buffer_large_bytes: 32 << 10,
        connections_max: 100,
        handshake_timeout: Duration::from_secs(10),
        write_stall_timeout: Duration::from_secs(60),
        postgres_frame_bytes_max: 1 << 30,
        redis_frame_bytes_max: 512 << 20,
        mysql_frame_bytes_max: 512 << 20,
        pre_auth_max: 100,
        login_rate_per_second: 0,
        login_burst: 1,
        handshakes_per_worker: 32,
        durable: false,
        query_text: QueryText::Full,
        query_text_bytes_max: 64 << 10,
        parameters: ParameterDetail::Full,
        arguments: ArgumentDetail::Keys,
    }
}

/// One session: the pump's two links, and the far ends for the peers.
struct Wires {
    client: Link,
    backend: Link,
    client_far: UnixStream,
    backend_far: UnixStream,
}

fn wires(core: &Rc<Core>) -> Wires {
    let deadline = Instant::now() + Duration::from_secs(30);
    let link = |near: UnixStream| Link::new(Stream::from_fd(near.into()).expect("a stream"), &core.pool, deadline);
    let (client_near, client_far) = UnixStream::pair().expect("a pair");
    let (backend_near, backend_far) = UnixStream::pair().expect("a pair");
    Wires { client: link(client_near), backend: link(backend_near), client_far, backend_far }
}

fn machine() -> <Postgres as Protocol>::Machine {
    let mut opening = Postgres::opening(&[], [0; 32]);
    opening.offer_no_tls();
    let startup = b"\0\0\0\x1f\0\x03\0\0user\0app\0database\0app\0\0";
    let mut out = Vec::new();
    assert!(matches!(opening.handle(startup, false, &mut out), Ok(Opened::Startup { .. })));
    let login = Postgres::login(
        &opening,
        SignIn {
            user: "app",
            database: "app",
            tls: BackendTls::Off,
            credential: Credential::None,
            seed: [0; 32],
            learned: None,
        },
    );
    Postgres::machine(opening, login, SessionKey { pid: 7, secret: [1; 32] }, Limits::default())
}

fn pump<M: Machine>(core: &Rc<Core>, machine: M, client: Link, backend: Link) -> (Box<Pump<M>>, Rc<Control>) {
    let trail = Trail::new("postgres", "test".into());
    let key = SessionKey { pid: 7, secret: [1; 32] };
    let about = About {
        served: Served::Postgres,
        identity: Rc::new(super::identify::tests_identity()),
        service: "db".into(),
        db_user: "app".into(),
        db_name: "app".into(),
        policy_version: 0,
        peer: "test".into(),
        idle_limit: None,
        ends_on_expiry: false,
    };
    let control = Control::new(trail.sid, key, about, core.now_ms());
    let route = Route { address: Address::Unix("/".into()), tls: None, write: Postgres::cancel, tls_request: b"" };
    let all = CommandSet::DEFAULT;
    let rules = Rules::new(trail, all, AuditedStatements::All, ParameterDetail::Full, route);
    (Box::new(Pump::new(machine, client, backend, rules, core.clone(), control.clone())), control)
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![tag];
    frame.extend_from_slice(&u32::try_from(body.len() + 4).expect("short").to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

fn read_some(stream: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("bytes");
    bytes
}

/// The database's first words, and what the client sees of them.
fn greet(backend: &mut UnixStream, client: &mut UnixStream) {
    let mut hello = frame(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]);
    hello.extend(frame(b'Z', b"I"));
    backend.write_all(&hello).expect("hello");
    // AuthenticationOk, BackendKeyData of ours, ReadyForQuery.
    read_some(client, 9 + 13 + 6);
}

#[test]
fn a_pumped_frame_copies_nothing_and_allocates_nothing() {
    for driver in BOTH {
        let mut world = World::new();
        world.run(driver, async |core| {
            let Wires { client, backend, mut client_far, mut backend_far } = wires(&core);
            let (mut pump, _) = pump(&core, machine(), client, backend);
            let measured = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let flag = measured.clone();
            let peers = std::thread::spawn(move || {
                greet(&mut backend_far, &mut client_far);
                let mut ask = frame(b'P', b"s\0select $1\0\0\0");
                let mut cycle = frame(b'B', b"\0s\0\0\0\0\x01\0\0\0\x011\0\0");
                cycle.extend(frame(b'E', b"\0\0\0\0\0"));
                cycle.extend(frame(b'S', b""));
                let mut reply = frame(b'2', b"");
                reply.extend(frame(b'D', &[0, 1, 0, 0, 0, 1, b'1']));
                reply.extend(frame(b'C', b"SELECT 1\0"));
                reply.extend(frame(b'Z', b"I"));
                ask.extend(frame(b'S', b""));
                client_far.write_all(&ask).expect("parse");
                read_some(&mut backend_far, ask.len());
                let mut parsed = frame(b'1', b"");
                parsed.extend(frame(b'Z', b"I"));
                backend_far.write_all(&parsed).expect("parsed");
                read_some(&mut client_far, parsed.len());
                for round in 0..3000 {
                    if round == 1000 {
                        flag.store(true, Relaxed);
                    }
                    client_far.write_all(&cycle).expect("cycle");
                    assert_eq!(read_some(&mut backend_far, cycle.len()), cycle);
                    backend_far.write_all(&reply).expect("reply");
                    assert_eq!(read_some(&mut client_far, reply.len()), reply);
                    if round == 2900 {
                        flag.store(false, Relaxed);
                    }
                }
            });
            let mut window: Option<(u64, u64, u64)> = None;
            let mut checked = None;
            let mut run = std::pin::pin!(pump.run());
            let end = std::future::poll_fn(|cx| {
                let poll = run.as_mut().poll(cx);
                let now = (
                    allocations::count(),
                    core.counters.copied_bytes.load(Relaxed),
                    core.counters.of(Served::Postgres).statements.load(Relaxed),
                );
                match (measured.load(Relaxed), window) {
                    (true, None) => window = Some(now),
                    (true, Some(first)) => checked = Some((first, now)),
                    _ => {}
                }
                poll
            })
            .await;
            peers.join().expect("peers");
            assert!(matches!(end, End::Client | End::Server), "{end:?}");
            let (first, last) = checked.expect("a measured window");
            assert!(last.2 - first.2 > 1500, "the window holds {} statements", last.2 - first.2);
            assert_eq!(last.0 - first.0, 0, "allocations on {}", driver.word());
            assert_eq!(last.1 - first.1, 0, "copied bytes on {}", driver.word());
        });
    }
}

#[test]
fn a_client_that_reads_nothing_holds_two_buffers_for_each_direction_at_most() {
    for driver in BOTH {
        let mut world = World::new();
        world.run(driver, async |core| {
            let Wires { client, backend, mut client_far, mut backend_far } = wires(&core);
            let (mut pump, _) = pump(&core, machine(), client, backend);
            let (stalled, resumed) = (mpsc::channel::<()>(), mpsc::channel::<()>());
            let seen = stalled.1;
            let go = resumed.0;
            let peers = std::thread::spawn(move || {
                greet(&mut backend_far, &mut client_far);
                let query = frame(b'Q', b"select big\0");
                client_far.write_all(&query).expect("query");
                read_some(&mut backend_far, query.len());
                let row = frame(b'D', &vec![7; 1 << 20]);
                let total = 64 * row.len();
                let mut sender = backend_far.try_clone().expect("clone");
                sender.write_all(&frame(b'T', b"\0\0")).expect("head");
                let writer = std::thread::spawn(move || {
                    for _ in 0..64 {
                        sender.write_all(&row).expect("row");
                    }
                });
                // Nobody reads until the pump was seen to stand still.
                resumed.1.recv().expect("go");
                let mut left = total + 7;
                let mut bytes = vec![0; 1 << 16];
                while left > 0 {
                    left -= client_far.read(&mut bytes).expect("bytes");
                }
                writer.join().expect("writer");
                drop(stalled.0);
            });
            let mut most = 0;
            let mut quiet_since = Instant::now();
            let mut told = false;
            let mut run = std::pin::pin!(pump.run());
            let mut tick = std::pin::pin!(crate::net::sleep(Duration::from_millis(1)));
            let end = std::future::poll_fn(|cx| {
                if core.pool.live_bytes() != most {
                    quiet_since = Instant::now();
                }
                most = most.max(core.pool.live_bytes());
                if !told && most > 0 && quiet_since.elapsed() > Duration::from_millis(300) {
                    told = true;
                    go.send(()).expect("peers listen");
                }
                let poll = run.as_mut().poll(cx);
                while tick.as_mut().poll(cx).is_ready() {
                    tick.set(crate::net::sleep(Duration::from_millis(1)));
                }
                poll
            })
            .await;
            peers.join().expect("peers");
            assert!(seen.recv().is_err());
            assert!(matches!(end, End::Client | End::Server), "{end:?}");
            let bound = 4 * core.pool.large().capacity();
            assert!(most <= bound, "{most} bytes of buffers, {bound} allowed, on {}", driver.word());
        });
    }
}

/// The real machine, but it panics at a statement.
struct Explosive<M>(M);

impl<M: Machine> Machine for Explosive<M> {
    fn start(&mut self, out: &mut Outbox) {
        self.0.start(out);
    }
    fn handle<'a>(&'a mut self, from: Side, input: &'a [u8], out: &mut Outbox) -> Result<Step<'a>, Fault> {
        assert!(!(from == Side::Client && input[0] == b'Q'), "a planted mistake");
        self.0.handle(from, input, out)
    }
    fn resume(&mut self, ruling: Ruling<'_>) -> Resumed {
        self.0.resume(ruling)
    }
    fn refuse(&mut self, refusal: &Refusal<'_>, out: &mut Outbox) {
        self.0.refuse(refusal, out);
    }
    fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
    fn secret_len(&self) -> usize {
        self.0.secret_len()
    }
    fn has_parted(&self) -> bool {
        self.0.has_parted()
    }
    fn outstanding(&self) -> usize {
        self.0.outstanding()
    }
    fn take_unanswered(&mut self) -> Option<Ticket> {
        self.0.take_unanswered()
    }
}

#[test]
fn a_panic_ends_its_own_session_with_a_native_error_and_no_other() {
    for driver in BOTH {
        let mut world = World::new();
        world.run(driver, async |core| {
            let bad = wires(&core);
            let good = wires(&core);
            let (mut exploding, _) = pump(&core, Explosive(machine()), bad.client, bad.backend);
            let (mut steady, _) = pump(&core, machine(), good.client, good.backend);
            let (mut bad_client, mut bad_backend) = (bad.client_far, bad.backend_far);
            let (mut client, mut backend) = (good.client_far, good.backend_far);
            let peers = std::thread::spawn(move || {
                greet(&mut bad_backend, &mut bad_client);
                greet(&mut backend, &mut client);
                bad_client.write_all(&frame(b'Q', b"select 1\0")).expect("query");
                let mut last_words = Vec::new();
                bad_client.read_to_end(&mut last_words).expect("the end");
                // The other session goes on.
                client.write_all(&frame(b'Q', b"select 2\0")).expect("query");
                read_some(&mut backend, 14);
                last_words
            });
            let (tell, mut told) = (Rc::new(std::cell::Cell::new(None)), None);
            let other = tell.clone();
            crate::net::spawn(
                async move {
                    let end = exploding.run().await;
                    exploding.close(end).await;
                    other.set(Some(end));
                },
                || {},
            );
            let end = steady.run().await;
            assert!(matches!(end, End::Client | End::Server), "{end:?}");
            let limit = Instant::now() + Duration::from_secs(10);
            while told.is_none() && Instant::now() < limit {
                told = tell.take();
                crate::net::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(told, Some(End::Panic));
            assert_eq!(core.counters.panics.load(Relaxed), 1);
            let last_words = peers.join().expect("peers");
            assert_eq!(last_words[0], b'E');
            assert!(memchr::memmem::find(&last_words, b"CXX000").is_some());
        });
    }
}

#[test]
fn random_cuts_change_nothing() {
    for driver in BOTH {
        let mut world = World::new();
        world.run(driver, async |core| {
            let Wires { client, backend, mut client_far, mut backend_far } = wires(&core);
            let (mut pump, _) = pump(&core, machine(), client, backend);
            let peers = std::thread::spawn(move || {
                greet(&mut backend_far, &mut client_far);
                let mut seed = 0x2545_F491_4F6C_DD1Du64;
                let mut next = move |below: usize| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    usize::try_from(seed % below as u64).expect("small") + 1
                };
                let mut asked = Vec::new();
                for n in 0..200usize {
                    let text = format!("select '{}'\0", "x".repeat(n * 37 % 5000));
                    asked.extend(frame(b'Q', text.as_bytes()));
                }
                let sent = asked.clone();
                let mut sender = client_far.try_clone().expect("clone");
                let writer = std::thread::spawn(move || {
                    let mut rest = sent.as_slice();
                    while !rest.is_empty() {
                        let (now, later) = rest.split_at(next(3000).min(rest.len()));
                        sender.write_all(now).expect("cut");
                        rest = later;
                    }
                });
                assert_eq!(read_some(&mut backend_far, asked.len()), asked);
                writer.join().expect("writer");
                client_far.shutdown(std::net::Shutdown::Both).expect("shutdown");
            });
            let end = pump.run().await;
            peers.join().expect("peers");
            assert!(matches!(end, End::Client | End::Server), "{end:?}");
            assert_eq!(core.counters.of(Served::Postgres).statements.load(Relaxed), 200);
        });
    }
}

#[test]
fn an_idle_session_is_small() {
    // Sizes of what every session keeps; the rest is rustls' connection and its keys.
    fn size_of_result<A, R>(_: impl FnOnce(A) -> R) -> usize {
        size_of::<R>()
    }
    let future = size_of_result(super::run::<Postgres>);
    assert!(future <= 1024, "the session's future has {future} bytes");
    let pump = size_of::<Pump<<Postgres as Protocol>::Machine>>();
    assert!(pump <= 3072, "the pump has {pump} bytes");
}

#[test]
fn a_place_is_given_back_and_limits_do_not_mix() {
    use crate::plane::Counted;
    let world = World::new();
    let database = || Counted::Database("orders".into());
    let first = world.plane.count(database(), 1).expect("the first");
    assert!(world.plane.count(database(), 1).is_none());
    // A user of the same name is somebody else, and 0 is no limit.
    assert!(world.plane.count(Counted::User("orders".into()), 1).is_some());
    assert!(world.plane.count(database(), 0).is_some());
    drop(first);
    assert!(world.plane.count(database(), 1).is_some());
}
