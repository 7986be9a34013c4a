//! What is counted, and how Prometheus reads it.

mod classic;
mod family;
mod judges;
mod stored;

use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};

use self::classic::classic;
use self::family::Labels;
use self::judges::JudgeCollector;
use self::stored::StoreCollector;
use super::batch::Counts;
use super::kind::Kind;
use super::limits::Limits;
use crate::judge::Judges;
use crate::stages::NoScoreCode;
use crate::store::Store;

/// All metrics of the server.
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
    trajectories: Family<Labels, Counter>,
    reached: Family<Labels, Counter>,
    passed: Family<Labels, Counter>,
    item_errors: Family<Labels, Counter>,
    told_as_reward: Family<Labels, Counter>,
    outside: Family<Labels, Histogram, fn() -> Histogram>,
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
        registry.register_collector(Box::new(StoreCollector(store)));
        registry.register_collector(Box::new(JudgeCollector(judges.clone())));
        let r = &mut registry;
        let seconds = Family::new_with_constructor(latency_buckets as fn() -> Histogram);
        let outside = Family::new_with_constructor(outside_buckets as fn() -> Histogram);
        let told_help = "Requests that were refused, and told so by 200 and the lowest reward, by kind of problem";
        let bytes_help = "Bytes of bodies and of answers that have not left";
        let outside_help = "Probability that judges gave to something other than their labels, by rubric; only of verdicts, \
             which more than the rubric's `max_outside` is not";
        let family = Family::default;
        let metrics = Self {
            requests: added(r, "http_requests", "Requests by route, method and status", None, family()),
            seconds: added(r, "http_request_duration", "Time to answer, by route", Some(Unit::Seconds), seconds),
            trajectories: added(
                r,
                "trajectories",
                "Trajectories by rubric and outcome (valid, invalid)",
                None,
                family(),
            ),
            reached: added(r, "stage_reached", "Trajectories that a stage scored", None, family()),
            passed: added(r, "stage_passed", "Trajectories that reached a stage's threshold", None, family()),
            item_errors: added(r, "item_errors", "Trajectories that could not be scored, by code", None, family()),
            told_as_reward: added(r, "refusals_told_as_reward", told_help, None, family()),
            in_flight: added(r, "requests_in_flight", "Scoring requests in flight", None, Gauge::default()),
            bytes_in_flight: added(r, "in_flight", bytes_help, Some(Unit::Bytes), Gauge::default()),
            outside: added(r, "judge_outside_probability", outside_help, None, outside),
            registry,
        };
        // From the start, so that the first of each is an increase.
        for code in NoScoreCode::ALL {
            metrics.item_errors.get_or_create(&labels([("code", code.as_str())])).inc_by(0);
        }
        for kind in Kind::ALL {
            metrics.told_as_reward.get_or_create(&labels([("kind", kind.name())])).inc_by(0);
        }
        metrics
    }

    /// Counts a scored request.
    pub fn count(&self, counts: &Counts) {
        let rubric = &*counts.rubric;
        for (outcome, n) in [("valid", counts.valid), ("invalid", counts.invalid)] {
            self.count_trajectories(rubric, outcome, n);
        }
        // The stages of inline rubrics would be names without end.
        for stage in counts.stages.iter().filter(|_| !counts.inline) {
            let labels = labels([("rubric", rubric), ("stage", &*stage.stage)]);
            self.reached.get_or_create(&labels).inc_by(u64::from(stage.reached));
            self.passed.get_or_create(&labels).inc_by(u64::from(stage.passed));
        }
        for outside in &counts.outside {
            self.outside.get_or_create(&labels([("rubric", rubric)])).observe(*outside);
        }
        self.count_errors(&counts.errors);
    }

    /// Counts the items for which a request got no other answer than an error.
    pub fn count_unanswered(&self, rubric: &str, errors: &[(NoScoreCode, u64)]) {
        let invalid = errors.iter().map(|(_, n)| n).sum();
        self.count_trajectories(rubric, "invalid", invalid);
        self.count_errors(errors);
    }

    fn count_trajectories(&self, rubric: &str, outcome: &str, n: u64) {
        if n > 0 {
            self.trajectories.get_or_create(&labels([("rubric", rubric), ("outcome", outcome)])).inc_by(n);
        }
    }

    fn count_errors(&self, errors: &[(NoScoreCode, u64)]) {
        for (code, n) in errors {
            self.item_errors.get_or_create(&labels([("code", code.as_str())])).inc_by(*n);
        }
    }

    /// Counts a request that was refused, and whose answer cannot say so.
    pub fn count_told_as_reward(&self, kind: Kind) {
        self.told_as_reward.get_or_create(&labels([("kind", kind.name())])).inc();
    }

    /// Counts an answered request.
    pub fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        self.seconds.get_or_create(&labels([("route", route)])).observe(took.as_secs_f64());
        let labels = labels([("route", route), ("method", method), ("status", &status.to_string())]);
        self.requests.get_or_create(&labels).inc();
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

fn labels<const N: usize>(named: [(&'static str, &str); N]) -> Labels {
    named.map(|(name, value)| (name, value.to_owned())).into()
}
