//! The page `/metrics`, in the text format of Prometheus: what the bridge has counted, and the standing, read at each
//! request. A test compares its families with the manual page. Knows the names of metrics and what they mean.

use bridge::{Counted, Counts, LOOKUP_SECONDS};
use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::AdminState;
use super::standing::Standing;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole page.
pub(super) fn page(state: &AdminState) -> String {
    let mut page = Page::default();
    page.ourselves(&state.standing);
    let counts = state.observer.counts();
    page.clients(&counts);
    if let Some(source) = &state.token_source {
        page.lookups(source, &counts);
    }
    if let Some(listens) = state.standing.program_listens() {
        page.program(&state.standing, listens);
    }
    TextEncoder::new().encode_to_string(&page.0).expect("each family has a name and a value")
}

/// The families of metrics up to now.
#[derive(Default)]
struct Page(Vec<MetricFamily>);

impl Page {
    fn ourselves(&mut self, standing: &Standing) {
        let build = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
        let build = labelled(gauge(1.0), &build);
        self.put("websockify_build_info", "What was built.", MetricType::GAUGE, vec![build]);
        let began = standing.began().as_secs_f64();
        self.gauge("websockify_start_time_seconds", "When we began, since 1970.", began);
        let is_ready = f64::from(u8::from(standing.ready().is_ok()));
        self.gauge("websockify_ready", "Whether a client who comes now is served.", is_ready);
    }

    fn clients(&mut self, counts: &Counts) {
        let open = number(counts.open_connections);
        self.gauge("websockify_open_connections", "Connections of clients that are open.", open);
        self.counter(
            "websockify_connections_total",
            "Connections of clients that were accepted.",
            counts.connections,
        );
        self.counters(
            "websockify_tls_handshakes_total",
            "TLS handshakes of clients that are done, by the version of TLS.",
            "version",
            counts.tls.iter().copied(),
        );
        self.counters(
            "websockify_tls_failures_total",
            "Clients that got no TLS, by the reason.",
            "reason",
            counts.tls_failed.iter().copied(),
        );
        self.counters(
            "websockify_handshakes_total",
            "WebSocket handshakes that have become sessions, by the version of the protocol.",
            "version",
            counts.handshakes.iter().copied(),
        );
        self.counters(
            "websockify_refusals_total",
            "Requests and connections that were refused, by the reason.",
            "reason",
            counts.refused.iter().copied(),
        );
        self.sessions(counts);
    }

    fn sessions(&mut self, counts: &Counts) {
        let open = number(counts.open_sessions);
        self.gauge("websockify_open_sessions", "Sessions that are open.", open);
        self.counter("websockify_sessions_total", "Sessions that have begun.", counts.sessions);
        self.counters(
            "websockify_sessions_ended_total",
            "Sessions that have ended, by their close code.",
            "code",
            counts.ended.iter().copied(),
        );
        self.counter("websockify_received_bytes_total", "Payload from clients.", counts.received);
        self.counter("websockify_sent_bytes_total", "Payload for clients.", counts.sent);
        self.counters(
            "websockify_target_failures_total",
            "Sessions that got no connection to their target, by the reason.",
            "reason",
            counts.target_failed.iter().copied(),
        );
    }

    fn lookups(&mut self, source: &str, counts: &Counts) {
        let looked_up = counts.lookups.iter().map(|(result, count)| {
            labelled(counter(number(*count)), &[("source", source), ("result", result)])
        });
        self.put(
            "websockify_lookups_total",
            "Tokens that were looked up, by what came of it.",
            MetricType::COUNTER,
            looked_up.collect(),
        );
        let mut times = Histogram::default();
        times.set_sample_count(counts.lookups_in_all);
        times.set_sample_sum(counts.lookup_seconds);
        let buckets = LOOKUP_SECONDS.iter().zip(counts.lookup_times).map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        times.set_bucket(buckets.collect());
        let mut metric = Metric::default();
        metric.set_histogram(times);
        self.put(
            "websockify_lookup_duration_seconds",
            "How long it took to look tokens up.",
            MetricType::HISTOGRAM,
            vec![labelled(metric, &[("source", source)])],
        );
    }

    fn program(&mut self, standing: &Standing, listens: bool) {
        self.counter(
            "websockify_program_starts_total",
            "Starts of the program.",
            standing.program_starts(),
        );
        self.counters(
            "websockify_program_exits_total",
            "Ends of the program's first process, by how it ended, or of the daemon that it became.",
            "outcome",
            standing.program_ends(),
        );
        let listens = f64::from(u8::from(listens));
        self.gauge("websockify_program_listening", "Whether the program listens.", listens);
        self.gauge(
            "websockify_program_start_time_seconds",
            "When the program that runs was started, since 1970; 0 where none does.",
            standing.program_started_at().as_secs_f64(),
        );
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.put(name, help, MetricType::GAUGE, vec![gauge(value)]);
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) {
        self.put(name, help, MetricType::COUNTER, vec![counter(number(count))]);
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        counts: impl Iterator<Item = Counted>,
    ) {
        let metrics =
            counts.map(|(value, count)| labelled(counter(number(count)), &[(label, value)]));
        self.put(name, help, MetricType::COUNTER, metrics.collect());
    }

    fn put(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

fn gauge(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    Metric::from_gauge(gauge)
}

fn counter(value: f64) -> Metric {
    let (mut counter, mut metric) = (Counter::default(), Metric::default());
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

fn labelled(mut metric: Metric, labels: &[(&str, &str)]) -> Metric {
    let labels = labels.iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    });
    metric.set_label(labels.collect());
    metric
}

/// Prometheus has no other type of number; it is exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
fn number(count: u64) -> f64 {
    count as f64
}
