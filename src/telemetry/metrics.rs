//! Counters for Prometheus.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What was asked and how it went: `ok` or a refusal's code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Verdict {
    /// The operation.
    pub operation: &'static str,
    /// `ok` or the refusal's code.
    pub verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryResult {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct What {
    what: &'static str,
}

/// What `/metrics` shows beside what was counted here, as it is when somebody asks.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// How many transactions the ledger's writer has committed so far.
    pub batches: u64,
    /// How many alarms it has recorded so far.
    pub alarms: u64,
    /// How much work it could not record so far.
    pub unrecorded: u64,
    /// When the first certificate of each kind ends, in unix seconds.
    pub expiries: Vec<(&'static str, i64)>,
}

/// The server's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Verdict, Counter>,
    handshakes: Family<Outcome, Counter>,
    connections: Gauge<i64, AtomicI64>,
    batches: Counter<u64, AtomicU64>,
    alarms: Counter<u64, AtomicU64>,
    unrecorded: Counter<u64, AtomicU64>,
    expiries: Family<What, Gauge<i64, AtomicI64>>,
    deliveries: Family<DeliveryResult, Counter>,
    export_wrong: Gauge<i64, AtomicI64>,
    snapshot_version: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("estd");
        let requests = Family::default();
        let handshakes = Family::default();
        let connections = Gauge::default();
        let batches = Counter::default();
        let alarms = Counter::default();
        let unrecorded = Counter::default();
        let expiries = Family::default();
        let deliveries = Family::default();
        let export_wrong = Gauge::default();
        let help = "1 while files for other gateways cannot be written, or their hook fails";
        registry.register("export_wrong", help, export_wrong.clone());
        let snapshot_version = Gauge::default();
        registry.register("est_requests", "EST requests by verdict", requests.clone());
        registry.register("tls_handshakes", "TLS handshakes by outcome", handshakes.clone());
        registry.register("connections", "Open TLS connections", connections.clone());
        registry.register("ledger_batches", "Ledger transactions of the writer", batches.clone());
        registry.register("alarms", "Certificates refused as an alarm", alarms.clone());
        let help = "Decisions that the ledger could not record";
        registry.register("ledger_unrecorded", help, unrecorded.clone());
        let help = "When the first certificate of its kind ends, in unix seconds";
        registry.register("earliest_expiry_timestamp_seconds", help, expiries.clone());
        let help = "Deliveries to webhooks by result";
        registry.register("webhook_deliveries", help, deliveries.clone());
        registry.register(
            "snapshot_version",
            "Version of the Factories that this server acts by",
            snapshot_version.clone(),
        );
        Self {
            registry,
            requests,
            handshakes,
            connections,
            batches,
            alarms,
            unrecorded,
            expiries,
            deliveries,
            export_wrong,
            snapshot_version,
        }
    }
}

impl Metrics {
    /// Counts an answered request.
    pub fn request(&self, operation: &'static str, verdict: &'static str) {
        self.requests.get_or_create(&Verdict { operation, verdict }).inc();
    }

    /// Counts a handshake that ended: `ok`, a refusal's code, or `failed`.
    pub fn handshake(&self, outcome: &'static str) {
        self.handshakes.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts a connection until the guard is dropped.
    pub fn connection(&self) -> impl Drop + Send + use<> {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    /// Counts an attempt to deliver to a webhook: `delivered`, `failed`, or `dead` if it was the last.
    pub fn webhook_delivery(&self, result: &'static str) {
        self.deliveries.get_or_create(&DeliveryResult { result }).inc();
    }

    /// Notes whether files for other gateways are not what they should be.
    pub fn export_is_wrong(&self, wrong: bool) {
        self.export_wrong.set(wrong.into());
    }

    /// Notes the version of the snapshot in use.
    pub fn snapshot(&self, version: i64) {
        self.snapshot_version.set(version);
    }

    /// Everything as Prometheus reads it.
    ///
    /// # Errors
    /// Never: it is written into a string.
    pub fn to_text(&self, reading: &Reading) -> Result<String, std::fmt::Error> {
        let reach = |counter: &Counter, value: u64| {
            counter.inc_by(value.saturating_sub(counter.get()));
        };
        reach(&self.batches, reading.batches);
        reach(&self.alarms, reading.alarms);
        reach(&self.unrecorded, reading.unrecorded);
        for (what, end) in &reading.expiries {
            self.expiries.get_or_create(&What { what }).set(*end);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

struct OpenConnection(Gauge<i64, AtomicI64>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
