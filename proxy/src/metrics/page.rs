//! The metrics page (user-experience section 10), in the text format of OpenMetrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Counters, Reject, Served, Traffic};
use crate::net::driver::Driver;
use crate::plane::Plane;
use crate::session::End;

/// What the page is made of.
pub struct Input<'a> {
    /// The workers' figures, then the acceptor's.
    pub counters: &'a [Arc<Counters>],
    /// What the threads share.
    pub plane: &'a Arc<Plane>,
    /// The audit writer's figures.
    pub audit: Option<ringgate_audit::Stats>,
    /// The I/O driver.
    pub driver: Driver,
    /// When the process started serving.
    pub started: Instant,
}

/// The page.
pub fn render(input: &Input<'_>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures::take(input)));
    let mut page = String::new();
    match text::encode(&mut page, &registry) {
        Ok(()) => page,
        // Writing to a string does not fail.
        Err(fmt::Error) => String::new(),
    }
}

type Labels = Vec<(&'static str, String)>;

/// One metric with all its label sets.
#[derive(Debug)]
struct Figure {
    name: &'static str,
    help: &'static str,
    counter: bool,
    values: Vec<(Labels, f64)>,
}

#[derive(Debug)]
struct Figures(Vec<Figure>);

impl Figures {
    fn take(input: &Input<'_>) -> Figures {
        let mut figures = Figures(Vec::new());
        figures.process(input);
        figures.sessions(input);
        figures.traffic(input);
        figures.workers(input);
        figures.audit(input);
        figures
    }

    fn add(&mut self, counter: bool, name: &'static str, help: &'static str, values: Vec<(Labels, f64)>) {
        self.0.push(Figure { name, help, counter, values });
    }

    fn process(&mut self, input: &Input<'_>) {
        let build = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("tls_provider", "aws-lc-rs".to_owned()),
            ("driver", input.driver.word().to_owned()),
        ];
        self.add(false, "ringgate_build_info", "What is running", vec![(build, 1.0)]);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let start = now - input.started.elapsed().as_secs_f64();
        self.add(false, "ringgate_start_time_seconds", "When serving began", vec![(vec![], start)]);
        let generations = input.counters.iter().take(input.plane.gates().len()).enumerate();
        let generations = generations.map(|(i, c)| (worker(i), read(&c.policy_generation))).collect();
        self.add(false, "ringgate_policy_generation", "Policy snapshot adopted", generations);
    }

    fn sessions(&mut self, input: &Input<'_>) {
        let accepted = each("listener", |served| sum(input, served, |t| &t.connections_total));
        self.add(true, "ringgate_connections_accepted", "Connections accepted", accepted);
        let rejected = Served::ALL.into_iter().flat_map(|served| {
            Reject::ALL.map(|why| {
                let labels = vec![("listener", served.word().to_owned()), ("reason", why.word().to_owned())];
                (labels, input.counters.iter().map(|c| read(&c.of(served).rejected[why as usize])).sum())
            })
        });
        self.add(true, "ringgate_connections_rejected", "Connections refused", rejected.collect());
        // Who has not said anything yet is counted for all listeners together.
        let phase = |listener: &str, word: &str| vec![("listener", listener.to_owned()), ("phase", word.to_owned())];
        let mut phases = vec![(phase("all", "login"), input.plane.pre_auth() as f64)];
        let active = |served| sum(input, served, |t| &t.sessions_active);
        phases.extend(Served::ALL.map(|served| (phase(served.word(), "session"), active(served))));
        self.add(false, "ringgate_connections_active", "Connections open", phases);
        self.add(false, "ringgate_sessions_active", "Sessions in the pump", each("protocol", active));
        let ended = Served::ALL.into_iter().flat_map(|served| {
            End::ALL.map(|end| {
                let labels = vec![("protocol", served.word().to_owned()), ("reason", end.word().to_owned())];
                (labels, input.counters.iter().map(|c| read(&c.of(served).ended[end as usize])).sum())
            })
        });
        self.add(true, "ringgate_session_ended", "Sessions ended", ended.collect());
        let cancel = |word: &str| vec![("result", word.to_owned())];
        let all = |of: fn(&Counters) -> &AtomicU64| input.counters.iter().map(|c| read(of(c))).sum::<f64>();
        let cancels = vec![
            (cancel("matched"), all(|c| &c.cancels_matched)),
            (cancel("unmatched"), all(|c| &c.cancels_unmatched)),
        ];
        self.add(true, "ringgate_cancel_requests", "Cancel requests", cancels);
        let sides: [(&'static str, Which); 2] =
            [("client", |t| &t.violations_client), ("server", |t| &t.violations_server)];
        let violations = by(input, "side", &sides);
        self.add(true, "ringgate_protocol_violations", "Frames that broke the protocol", violations);
    }

    fn traffic(&mut self, input: &Input<'_>) {
        let figures: [(&'static str, &'static str, Which); 3] = [
            ("ringgate_requests", "Statements forwarded", |t| &t.statements),
            ("ringgate_request_errors", "Statements that the database answered with an error", |t| &t.statement_errors),
            ("ringgate_policy_denied_commands", "Statements refused", |t| &t.statements_refused),
        ];
        for (name, help, which) in figures {
            self.add(true, name, help, each("protocol", |served| sum(input, served, which)));
        }
        let seconds = each("protocol", |served| sum(input, served, |t| &t.statement_us) / 1e6);
        self.add(true, "ringgate_request_duration_seconds", "Sum of statement durations", seconds);
        let directions: [(&'static str, Which); 4] = [
            ("client_in", |t| &t.client_in),
            ("client_out", |t| &t.client_out),
            ("server_in", |t| &t.server_in),
            ("server_out", |t| &t.server_out),
        ];
        self.add(true, "ringgate_bytes", "Bytes of ended sessions", by(input, "direction", &directions));
        let copied = input.counters.iter().map(|c| read(&c.copied_bytes)).sum();
        self.add(true, "ringgate_copied_bytes", "Bytes copied in user space outside TLS", vec![(vec![], copied)]);
    }

    fn workers(&mut self, input: &Input<'_>) {
        let gates = input.plane.gates().iter().enumerate();
        let ages = gates.map(|(i, gate)| (worker(i), gate.silence().as_secs_f64())).collect();
        self.add(false, "ringgate_worker_heartbeat_age_seconds", "Since the worker's last sweep", ages);
        let counters = || input.counters.iter().take(input.plane.gates().len()).enumerate();
        let tasks = input.plane.gates().iter().enumerate().map(|(i, g)| (worker(i), g.load() as f64)).collect();
        self.add(false, "ringgate_worker_tasks", "Connections of the worker", tasks);
        let panics = counters().map(|(i, c)| (worker(i), read(&c.panics))).collect();
        self.add(true, "ringgate_worker_panics", "Panics caught in sessions", panics);
        let buffers = counters().map(|(i, c)| (worker(i), read(&c.buffer_bytes))).collect();
        self.add(false, "ringgate_buffer_bytes", "Buffer bytes in use", buffers);
    }

    fn audit(&mut self, input: &Input<'_>) {
        let Some(stats) = &input.audit else { return };
        self.add(true, "ringgate_audit_events", "Audit events written", vec![(vec![], stats.events as f64)]);
        self.add(true, "ringgate_audit_dropped", "Audit events lost", vec![(vec![], stats.dropped as f64)]);
        let ready = f64::from(u8::from(stats.sink_ok));
        self.add(false, "ringgate_ready", "Readiness", vec![(vec![("check", "audit".to_owned())], ready)]);
        self.add(
            false,
            "ringgate_audit_disk_free_bytes",
            "Space for the audit log",
            vec![(vec![], stats.disk_free as f64)],
        );
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for figure in &self.0 {
            let kind =
                if figure.counter { ConstCounter::new(0.0).metric_type() } else { ConstGauge::new(0.0).metric_type() };
            let mut metric = encoder.encode_descriptor(figure.name, figure.help, None, kind)?;
            for (labels, value) in &figure.values {
                let sample = metric.encode_family(labels)?;
                if figure.counter {
                    ConstCounter::new(*value).encode(sample)?;
                } else {
                    ConstGauge::new(*value).encode(sample)?;
                }
            }
        }
        Ok(())
    }
}

/// Picks one of a protocol's figures.
type Which = fn(&Traffic) -> &AtomicU64;

/// One figure of one protocol over all workers.
fn sum(input: &Input<'_>, served: Served, which: Which) -> f64 {
    input.counters.iter().map(|c| read(which(c.of(served)))).sum()
}

/// A value for each protocol, under `label`.
fn each(label: &'static str, value: impl Fn(Served) -> f64) -> Vec<(Labels, f64)> {
    Served::ALL.map(|served| (vec![(label, served.word().to_owned())], value(served))).into()
}

/// Several figures for each protocol, told apart by `label`.
fn by(input: &Input<'_>, label: &'static str, figures: &[(&'static str, Which)]) -> Vec<(Labels, f64)> {
    let one = |served: Served, (word, which): (&'static str, Which)| {
        let labels = vec![("protocol", served.word().to_owned()), (label, word.to_owned())];
        (labels, sum(input, served, which))
    };
    Served::ALL.into_iter().flat_map(|served| figures.iter().map(move |figure| one(served, *figure))).collect()
}

fn worker(index: usize) -> Labels {
    vec![("worker", index.to_string())]
}

fn read(counter: &AtomicU64) -> f64 {
    counter.load(Relaxed) as f64
}
