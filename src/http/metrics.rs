//! What is counted, and how Prometheus reads it.

mod judges;

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use self::judges::JudgeCollector;
use super::batch::Scored;
use super::kind::Kind;
use super::limits::Limits;
use crate::judge::Judges;
use crate::stages::NoScoreCode;
use crate::store::Counters;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name(String);

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Name,
    method: Name,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RubricLabels {
    rubric: Name,
    outcome: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    rubric: Name,
    stage: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JudgedLabels {
    rubric: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: Name,
}

/// All metrics of the server.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    trajectories: Family<RubricLabels, Counter>,
    reached: Family<StageLabels, Counter>,
    passed: Family<StageLabels, Counter>,
    item_errors: Family<CodeLabels, Counter>,
    told_as_reward: Family<KindLabels, Counter>,
    outside: Family<JudgedLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    bytes_in_flight: Gauge,
    store_queue_bytes: Gauge,
    store_commits: Gauge,
    store_failures: Gauge,
    store_held_batches: Gauge,
    store_lost_batches: Gauge,
    store_findings: Gauge,
    store_lost_findings: Gauge,
}

/// Of a probability: fine where it should lie, coarse where something is wrong.
fn outside_buckets() -> Histogram {
    Histogram::new([0.0001, 0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0])
}

fn latency_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
}

impl Metrics {
    /// Metrics of a server with these judges.
    pub fn new(judges: &Judges) -> Self {
        let mut registry = Registry::with_prefix("gradus");
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(latency_buckets as fn() -> Histogram),
            trajectories: Family::default(),
            reached: Family::default(),
            passed: Family::default(),
            item_errors: Family::default(),
            told_as_reward: Family::default(),
            outside: Family::new_with_constructor(outside_buckets as fn() -> Histogram),
            in_flight: Gauge::default(),
            bytes_in_flight: Gauge::default(),
            store_queue_bytes: Gauge::default(),
            store_commits: Gauge::default(),
            store_failures: Gauge::default(),
            store_held_batches: Gauge::default(),
            store_lost_batches: Gauge::default(),
            store_findings: Gauge::default(),
            store_lost_findings: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "Requests by route, method and status", metrics.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time to answer, by route",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        registry.register(
            "trajectories",
            "Trajectories by rubric and outcome (valid, invalid)",
            metrics.trajectories.clone(),
        );
        registry.register("stage_reached", "Trajectories that a stage scored", metrics.reached.clone());
        registry.register("stage_passed", "Trajectories that reached a stage's threshold", metrics.passed.clone());
        registry.register("item_errors", "Trajectories that could not be scored, by code", metrics.item_errors.clone());
        registry.register(
            "refusals_told_as_reward",
            "Requests that were refused, and told so by 200 and the lowest reward, by kind of problem",
            metrics.told_as_reward.clone(),
        );
        registry.register("requests_in_flight", "Scoring requests in flight", metrics.in_flight.clone());
        registry.register_with_unit(
            "in_flight",
            "Bytes of bodies and of answers that have not left",
            Unit::Bytes,
            metrics.bytes_in_flight.clone(),
        );
        registry.register_with_unit(
            "store_queue",
            "Bytes that wait for the store",
            Unit::Bytes,
            metrics.store_queue_bytes.clone(),
        );
        registry.register("store_commits", "Transactions of the store since start", metrics.store_commits.clone());
        registry.register(
            "store_failures",
            "Batches that the store could not write, since start",
            metrics.store_failures.clone(),
        );
        registry.register(
            "store_held_batches",
            "Batches that were answered (durability `relaxed`) and wait until they can be stored",
            metrics.store_held_batches.clone(),
        );
        registry.register(
            "store_lost_batches",
            "Batches that were answered and could not be stored, since start",
            metrics.store_lost_batches.clone(),
        );
        registry.register("store_findings", "Judges' findings stored since start", metrics.store_findings.clone());
        registry.register(
            "store_lost_findings",
            "Judges' findings that were not stored, since start; they are asked again when they are needed",
            metrics.store_lost_findings.clone(),
        );
        registry.register(
            "judge_outside_probability",
            "Probability that judges gave to something other than their labels, by rubric; only of verdicts, which more \
             than the rubric's `max_outside` is not",
            metrics.outside.clone(),
        );
        registry.register_collector(Box::new(JudgeCollector(judges.clone())));
        Self { registry, ..metrics }
    }

    /// Counts a scored request.
    pub fn count(&self, scored: &Scored) {
        let rubric = &scored.settings.rubric;
        let name = || Name(scored.settings.metric_label().to_owned());
        let valid = scored.rows.iter().filter(|row| row.valid).count();
        for (outcome, n) in [("valid", valid), ("invalid", scored.rows.len() - valid)] {
            self.count_trajectories(name(), outcome, n as u64);
        }
        if !scored.settings.inline {
            for (stage, tally) in rubric.stages.iter().zip(&scored.tallies) {
                let labels = StageLabels { rubric: name(), stage: Name(stage.name.to_string()) };
                self.reached.get_or_create(&labels).inc_by(u64::from(tally.reached));
                self.passed.get_or_create(&labels).inc_by(u64::from(tally.passed));
            }
        }
        for outside in &scored.outside {
            self.outside.get_or_create(&JudgedLabels { rubric: name() }).observe(*outside);
        }
        self.count_errors(&scored.errors);
    }

    /// Counts the items for which a request got no other answer than an error.
    pub fn count_unanswered(&self, rubric: &str, errors: &[(NoScoreCode, u64)]) {
        let invalid = errors.iter().map(|(_, n)| n).sum();
        self.count_trajectories(Name(rubric.to_owned()), "invalid", invalid);
        self.count_errors(errors);
    }

    fn count_trajectories(&self, rubric: Name, outcome: &str, n: u64) {
        if n > 0 {
            let labels = RubricLabels { rubric, outcome: Name(outcome.to_owned()) };
            self.trajectories.get_or_create(&labels).inc_by(n);
        }
    }

    fn count_errors(&self, errors: &[(NoScoreCode, u64)]) {
        for (code, n) in errors {
            self.item_errors.get_or_create(&CodeLabels { code: Name(code.as_str().to_owned()) }).inc_by(*n);
        }
    }

    /// Counts a request that was refused, and whose answer cannot say so.
    pub fn count_told_as_reward(&self, kind: Kind) {
        self.told_as_reward.get_or_create(&KindLabels { kind: Name(kind.name().to_owned()) }).inc();
    }

    /// Counts an answered request.
    pub fn answered(&self, route: String, method: String, status: u16, took: Duration) {
        self.seconds.get_or_create(&RouteLabels { route: Name(route.clone()) }).observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { route: Name(route), method: Name(method), status }).inc();
    }

    /// The metrics as text, in the OpenMetrics format.
    pub fn text(&self, limits: &Limits, store: Option<Counters>) -> String {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.in_flight.set(gauge(limits.requests.load(Ordering::Relaxed) as u64));
        self.bytes_in_flight.set(gauge(limits.bytes_in_flight() as u64));
        if let Some(counters) = store {
            self.store_queue_bytes.set(gauge(counters.queue_bytes));
            self.store_commits.set(gauge(counters.transactions));
            self.store_failures.set(gauge(counters.failures));
            self.store_held_batches.set(gauge(counters.held_batches));
            self.store_lost_batches.set(gauge(counters.lost_batches));
            self.store_findings.set(gauge(counters.findings));
            self.store_lost_findings.set(gauge(counters.lost_findings));
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
