//! What is counted, and how Prometheus reads it.

mod classic;
mod family;
mod judges;
mod stored;

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};

use self::classic::classic;
use self::judges::JudgeCollector;
use self::stored::StoreCollector;
use super::batch::Scored;
use super::kind::Kind;
use super::limits::Limits;
use crate::judge::Judges;
use crate::stages::NoScoreCode;
use crate::store::Store;

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
}

/// In which words metrics are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// `OpenMetrics`.
    OpenMetrics,
    /// What Prometheus read before it, and other scrapers still do.
    Classic,
}

/// Of a probability: fine where it should lie, coarse where something is wrong.
fn outside_buckets() -> Histogram {
    Histogram::new([0.0001, 0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0])
}

fn latency_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
}

/// Registers a metric, which counts from then on.
fn added<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, metric: M) -> M {
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric.clone()),
        None => registry.register(name, help, metric.clone()),
    }
    metric
}

impl Metrics {
    /// Metrics of a server with these judges and this store.
    pub fn new(judges: &Judges, store: Option<Store>) -> Self {
        let mut registry = Registry::with_prefix("gradus");
        let r = &mut registry;
        let requests = added(r, "http_requests", "Requests by route, method and status", None, Family::default());
        let seconds = Family::new_with_constructor(latency_buckets as fn() -> Histogram);
        let seconds = added(r, "http_request_duration", "Time to answer, by route", Some(Unit::Seconds), seconds);
        let trajectories =
            added(r, "trajectories", "Trajectories by rubric and outcome (valid, invalid)", None, Family::default());
        let reached = added(r, "stage_reached", "Trajectories that a stage scored", None, Family::default());
        let passed = added(r, "stage_passed", "Trajectories that reached a stage's threshold", None, Family::default());
        let item_errors: Family<CodeLabels, Counter> =
            added(r, "item_errors", "Trajectories that could not be scored, by code", None, Family::default());
        let told_as_reward: Family<KindLabels, Counter> = added(
            r,
            "refusals_told_as_reward",
            "Requests that were refused, and told so by 200 and the lowest reward, by kind of problem",
            None,
            Family::default(),
        );
        // From the start, so that the first of each is an increase.
        for code in NoScoreCode::ALL {
            item_errors.get_or_create(&code_labels(code)).inc_by(0);
        }
        for kind in Kind::ALL {
            told_as_reward.get_or_create(&kind_labels(*kind)).inc_by(0);
        }
        let in_flight = added(r, "requests_in_flight", "Scoring requests in flight", None, Gauge::default());
        let bytes_help = "Bytes of bodies and of answers that have not left";
        let bytes_in_flight = added(r, "in_flight", bytes_help, Some(Unit::Bytes), Gauge::default());
        let outside = added(
            r,
            "judge_outside_probability",
            "Probability that judges gave to something other than their labels, by rubric; only of verdicts, which more \
             than the rubric's `max_outside` is not",
            None,
            Family::new_with_constructor(outside_buckets as fn() -> Histogram),
        );
        r.register_collector(Box::new(StoreCollector(store)));
        r.register_collector(Box::new(JudgeCollector(judges.clone())));
        Self {
            registry,
            requests,
            seconds,
            trajectories,
            reached,
            passed,
            item_errors,
            told_as_reward,
            outside,
            in_flight,
            bytes_in_flight,
        }
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
            for (stage, counts) in rubric.stages.iter().zip(&scored.stages) {
                let labels = StageLabels { rubric: name(), stage: Name(stage.name.to_string()) };
                self.reached.get_or_create(&labels).inc_by(u64::from(counts.reached));
                self.passed.get_or_create(&labels).inc_by(u64::from(counts.passed));
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
            self.item_errors.get_or_create(&code_labels(*code)).inc_by(*n);
        }
    }

    /// Counts a request that was refused, and whose answer cannot say so.
    pub fn count_told_as_reward(&self, kind: Kind) {
        self.told_as_reward.get_or_create(&kind_labels(kind)).inc();
    }

    /// Counts an answered request.
    pub fn answered(&self, route: String, method: String, status: u16, took: Duration) {
        self.seconds.get_or_create(&RouteLabels { route: Name(route.clone()) }).observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { route: Name(route), method: Name(method), status }).inc();
    }

    /// The metrics as text.
    pub fn text(&self, limits: &Limits, format: TextFormat) -> String {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.in_flight.set(gauge(limits.requests.load(Ordering::Relaxed) as u64));
        self.bytes_in_flight.set(gauge(limits.bytes_in_flight() as u64));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        match format {
            TextFormat::OpenMetrics => text,
            TextFormat::Classic => classic(&text),
        }
    }
}

fn code_labels(code: NoScoreCode) -> CodeLabels {
    CodeLabels { code: Name(code.as_str().to_owned()) }
}

fn kind_labels(kind: Kind) -> KindLabels {
    KindLabels { kind: Name(kind.name().to_owned()) }
}
