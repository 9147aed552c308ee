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

use super::{Counters, Reject};
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
        let sum = |of: fn(&Counters) -> &AtomicU64| input.counters.iter().map(|c| read(of(c))).sum::<f64>();
        let postgres = || vec![("protocol", "postgres".to_owned())];
        let accepted = vec![(vec![("listener", "postgres".to_owned())], sum(|c| &c.connections_total))];
        self.add(true, "ringgate_connections_accepted", "Connections accepted", accepted);
        let rejected = Reject::ALL.map(|why| {
            let labels = vec![("listener", "postgres".to_owned()), ("reason", why.word().to_owned())];
            (labels, input.counters.iter().map(|c| read(&c.rejected[why as usize])).sum())
        });
        self.add(true, "ringgate_connections_rejected", "Connections refused", rejected.into());
        let phase = |word: &str| vec![("listener", "postgres".to_owned()), ("phase", word.to_owned())];
        let active = sum(|c| &c.sessions_active);
        let phases = vec![(phase("login"), input.plane.pre_auth() as f64), (phase("session"), active)];
        self.add(false, "ringgate_connections_active", "Connections open", phases);
        self.add(false, "ringgate_sessions_active", "Sessions in the pump", vec![(postgres(), active)]);
        let ended = End::ALL.map(|end| {
            let labels = vec![("protocol", "postgres".to_owned()), ("reason", end.word().to_owned())];
            (labels, input.counters.iter().map(|c| read(&c.ended[end as usize])).sum())
        });
        self.add(true, "ringgate_session_ended", "Sessions ended", ended.into());
        let cancel = |word: &str| vec![("result", word.to_owned())];
        let cancels = vec![
            (cancel("matched"), sum(|c| &c.cancels_matched)),
            (cancel("unmatched"), sum(|c| &c.cancels_unmatched)),
        ];
        self.add(true, "ringgate_cancel_requests", "Cancel requests", cancels);
        let violation = |side: &str| vec![("protocol", "postgres".to_owned()), ("side", side.to_owned())];
        let violations = vec![
            (violation("client"), sum(|c| &c.violations_client)),
            (violation("server"), sum(|c| &c.violations_server)),
        ];
        self.add(true, "ringgate_protocol_violations", "Frames that broke the protocol", violations);
    }

    fn traffic(&mut self, input: &Input<'_>) {
        let sum = |of: fn(&Counters) -> &AtomicU64| input.counters.iter().map(|c| read(of(c))).sum::<f64>();
        let postgres = || vec![("protocol", "postgres".to_owned())];
        self.add(true, "ringgate_requests", "Statements forwarded", vec![(postgres(), sum(|c| &c.statements))]);
        let errors = vec![(postgres(), sum(|c| &c.statement_errors))];
        self.add(true, "ringgate_request_errors", "Statements that the database answered with an error", errors);
        let seconds = sum(|c| &c.statement_us) / 1e6;
        self.add(true, "ringgate_request_duration_seconds", "Sum of statement durations", vec![(postgres(), seconds)]);
        let refused = vec![(postgres(), sum(|c| &c.statements_refused))];
        self.add(true, "ringgate_policy_denied_commands", "Statements refused", refused);
        let direction = |word: &str| vec![("protocol", "postgres".to_owned()), ("direction", word.to_owned())];
        let bytes = vec![
            (direction("client_in"), sum(|c| &c.client_in)),
            (direction("client_out"), sum(|c| &c.client_out)),
            (direction("server_in"), sum(|c| &c.server_in)),
            (direction("server_out"), sum(|c| &c.server_out)),
        ];
        self.add(true, "ringgate_bytes", "Bytes of ended sessions", bytes);
        let copied = vec![(vec![], sum(|c| &c.copied_bytes))];
        self.add(true, "ringgate_copied_bytes", "Bytes copied in user space outside TLS", copied);
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

fn worker(index: usize) -> Labels {
    vec![("worker", index.to_string())]
}

fn read(counter: &AtomicU64) -> f64 {
    counter.load(Relaxed) as f64
}
