//! What judges did so far, for Prometheus. In: their states, read anew at every scrape; out: families of samples by judge,
//! and by endpoint for those that answer elsewhere. Counts nothing itself.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::family::{Labels, Metric, counter, gauge};
use crate::judge::{CacheCounts, EndpointSnapshot, Health, JudgeState, Judges};
use crate::lm::WorkerNumbers;

/// All judges of a server.
#[derive(Debug)]
pub(super) struct JudgeCollector(pub(super) Judges);

impl Collector for JudgeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode(&mut encoder, &self.0.states(), self.0.cache_counts())
    }
}

const READY: Metric = gauge("judge_ready", "Whether a judge can answer (1) or is down (0), by judge", None);
const HITS: Metric = counter("judge_cache_hits", "Questions to judges whose answer was known", None);
const MISSES: Metric = counter("judge_cache_misses", "Questions that judges were asked", None);

type LocalValue = fn(&JudgeState, &WorkerNumbers) -> f64;
type EndpointValue = fn(&EndpointSnapshot) -> f64;

/// What a judge on this machine counts.
const LOCAL: [(Metric, LocalValue); 9] = [
    (
        gauge("judge_queued_tokens", "Tokens that wait for a judge on this machine or are worked on", None),
        |state, _| state.queued_tokens as f64,
    ),
    (counter("judge_asked_tokens", "Tokens of all questions to a judge on this machine", None), |_, n| {
        n.asked_tokens as f64
    }),
    (
        counter(
            "judge_computed_tokens",
            "Tokens that went through a judge's layers; the rest was shared or kept",
            None,
        ),
        |_, n| n.computed_tokens as f64,
    ),
    (
        gauge("judge_prefix_hit_ratio", "Share of the asked tokens, since start, that needed no computing", None),
        |_, n| prefix_hits(n),
    ),
    (gauge("judge_kept_tokens", "Tokens whose keys and values a judge keeps", None), |_, n| n.kept_tokens as f64),
    (counter("judge_generated_tokens", "Tokens that a judge wrote", None), |_, n| n.generated_tokens as f64),
    (counter("judge_batches", "Batches that a judge computed", None), |_, n| n.batches as f64),
    (counter("judge_busy", "Time that a judge computed", Some(Unit::Seconds)), |_, n| n.busy_seconds),
    (counter("judge_failures", "Questions that a judge on this machine failed on", None), |_, n| n.failures as f64),
];

/// What an endpoint counts.
const ENDPOINT: [(Metric, EndpointValue); 5] = [
    (counter("judge_endpoint_requests", "Requests to an endpoint, retries included", None), |e| e.requests as f64),
    (counter("judge_endpoint_retries", "Requests to an endpoint that were retries", None), |e| e.retries as f64),
    (
        counter("judge_endpoint_cost", "Cost of an endpoint's tokens, in the currency of the configured prices", None),
        |e| e.cost,
    ),
    (gauge("judge_endpoint_outstanding", "Questions that are with an endpoint or wait for it", None), |e| {
        e.outstanding as f64
    }),
    (
        gauge(
            "judge_endpoint_paused",
            "Time for which an endpoint still wants to be left alone, by its Retry-After; 0: it does not",
            Some(Unit::Seconds),
        ),
        |e| e.paused.as_secs_f64(),
    ),
];

const ENDPOINT_FAILURES: Metric = counter("judge_endpoint_failures", "Failed requests to an endpoint, by kind", None);
const ENDPOINT_TOKENS: Metric = counter(
    "judge_endpoint_tokens",
    "Tokens as an endpoint counts them, by kind: prompt, cached (those of the prompt that it knew), completion",
    None,
);
const ENDPOINT_CIRCUIT: Metric = gauge(
    "judge_endpoint_circuit",
    "State of an endpoint's circuit breaker: 1 for the one it is in (closed: asked, open: left alone, half_open: on trial)",
    None,
);

/// 0 before the first token.
fn prefix_hits(numbers: &WorkerNumbers) -> f64 {
    let computed = numbers.computed_tokens.min(numbers.asked_tokens);
    if numbers.asked_tokens == 0 { 0.0 } else { 1.0 - computed as f64 / numbers.asked_tokens as f64 }
}

/// All families.
fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    states: &BTreeMap<String, JudgeState>,
    cache: CacheCounts,
) -> fmt::Result {
    for (metric, n) in [(HITS, cache.hits), (MISSES, cache.misses)] {
        metric.single(encoder, n as f64)?;
    }
    let by_judge = |name: &String| vec![("judge", name.clone())];
    READY.family(encoder, states.iter().map(|(name, state)| (by_judge(name), f64::from(u8::from(state.ready)))))?;
    for (metric, value) in LOCAL {
        let of = |(name, state): (&String, &JudgeState)| Some((by_judge(name), value(state, &state.numbers?)));
        metric.family(encoder, states.iter().filter_map(of))?;
    }
    endpoints(encoder, &states.iter().flat_map(|(name, state)| named_endpoints(name, state)).collect::<Vec<_>>())
}

fn endpoints(encoder: &mut DescriptorEncoder<'_>, endpoints: &[(Labels, &EndpointSnapshot)]) -> fmt::Result {
    for (metric, value) in ENDPOINT {
        metric.family(encoder, endpoints.iter().map(|(labels, endpoint)| (labels.clone(), value(endpoint))))?;
    }
    let failures = endpoints.iter().flat_map(|(labels, endpoint)| {
        endpoint.failures.iter().map(|(kind, n)| (with(labels, "kind", kind), *n as f64))
    });
    ENDPOINT_FAILURES.family(encoder, failures)?;
    let tokens = endpoints.iter().flat_map(|(labels, endpoint)| {
        let usage = endpoint.usage;
        let kinds =
            [("prompt", usage.prompt_tokens), ("cached", usage.cached_tokens), ("completion", usage.completion_tokens)];
        kinds.map(|(kind, n)| (with(labels, "kind", kind), n as f64))
    });
    ENDPOINT_TOKENS.family(encoder, tokens)?;
    let circuits = endpoints.iter().flat_map(|(labels, endpoint)| {
        Health::ALL
            .map(|health| (with(labels, "state", health.as_str()), f64::from(u8::from(endpoint.health == health))))
    });
    ENDPOINT_CIRCUIT.family(encoder, circuits)
}

/// A judge's endpoints with their labels. A url that is configured twice gets a number: samples must differ.
fn named_endpoints<'s>(judge: &str, state: &'s JudgeState) -> impl Iterator<Item = (Labels, &'s EndpointSnapshot)> {
    state.endpoints.iter().enumerate().map(move |(index, endpoint)| {
        let before = state.endpoints.iter().take(index).filter(|other| other.url == endpoint.url).count();
        let url = if before == 0 { endpoint.url.clone() } else { format!("{} ({})", endpoint.url, before + 1) };
        (vec![("judge", judge.to_owned()), ("endpoint", url)], endpoint)
    })
}

fn with(labels: &Labels, key: &'static str, value: &str) -> Labels {
    labels.iter().cloned().chain([(key, value.to_owned())]).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::judge::Usage;

    #[derive(Debug)]
    struct Fixed(BTreeMap<String, JudgeState>);

    impl Collector for Fixed {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            encode(&mut encoder, &self.0, CacheCounts { hits: 3, misses: 4 })
        }
    }

    fn text(states: impl IntoIterator<Item = (&'static str, JudgeState)>) -> String {
        let mut registry = Registry::with_prefix("gradus");
        let states = states.into_iter().map(|(name, state)| (name.to_owned(), state)).collect();
        registry.register_collector(Box::new(Fixed(states)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    fn state(numbers: Option<WorkerNumbers>, endpoints: Vec<EndpointSnapshot>) -> JudgeState {
        JudgeState { ready: true, identity: "judge".to_owned(), queued_tokens: 17, numbers, endpoints }
    }

    fn endpoint(url: &str) -> EndpointSnapshot {
        EndpointSnapshot {
            url: url.to_owned(),
            requests: 10,
            retries: 2,
            failures: [("busy", 1), ("cut", 2)].into(),
            usage: Usage { prompt_tokens: 100, cached_tokens: 40, completion_tokens: 7 },
            cost: 0.25,
            outstanding: 5,
            health: Health::HalfOpen,
            paused: Duration::from_millis(2500),
        }
    }

    #[track_caller]
    fn assert_has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "no line {line:?} in\n{text}");
        }
    }

    #[test]
    fn a_judge_on_this_machine_tells_its_tokens_and_its_time() {
        let numbers = WorkerNumbers {
            asked_tokens: 1000,
            computed_tokens: 250,
            batches: 4,
            generated_tokens: 30,
            busy_seconds: 1.5,
            kept_tokens: 200,
            failures: 1,
        };
        let text = text([("default", state(Some(numbers), Vec::new()))]);
        assert_has(
            &text,
            &[
                "gradus_judge_cache_hits_total 3.0",
                "gradus_judge_cache_misses_total 4.0",
                "gradus_judge_ready{judge=\"default\"} 1.0",
                "gradus_judge_queued_tokens{judge=\"default\"} 17.0",
                "gradus_judge_asked_tokens_total{judge=\"default\"} 1000.0",
                "gradus_judge_computed_tokens_total{judge=\"default\"} 250.0",
                "gradus_judge_prefix_hit_ratio{judge=\"default\"} 0.75",
                "gradus_judge_generated_tokens_total{judge=\"default\"} 30.0",
                "gradus_judge_batches_total{judge=\"default\"} 4.0",
                "gradus_judge_busy_seconds_total{judge=\"default\"} 1.5",
                "gradus_judge_kept_tokens{judge=\"default\"} 200.0",
                "gradus_judge_failures_total{judge=\"default\"} 1.0",
                "# UNIT gradus_judge_busy_seconds seconds",
            ],
        );
        assert!(!text.contains("endpoint"), "it has none:\n{text}");
    }

    #[test]
    fn an_endpoint_tells_its_requests_failures_tokens_cost_and_circuit() {
        let text = text([("far", state(None, vec![endpoint("http://a/v1")]))]);
        let labels = "{judge=\"far\",endpoint=\"http://a/v1\"";
        let lines = [
            format!("gradus_judge_endpoint_requests_total{labels}}} 10.0"),
            format!("gradus_judge_endpoint_retries_total{labels}}} 2.0"),
            format!("gradus_judge_endpoint_failures_total{labels},kind=\"busy\"}} 1.0"),
            format!("gradus_judge_endpoint_failures_total{labels},kind=\"cut\"}} 2.0"),
            format!("gradus_judge_endpoint_tokens_total{labels},kind=\"prompt\"}} 100.0"),
            format!("gradus_judge_endpoint_tokens_total{labels},kind=\"cached\"}} 40.0"),
            format!("gradus_judge_endpoint_tokens_total{labels},kind=\"completion\"}} 7.0"),
            format!("gradus_judge_endpoint_cost_total{labels}}} 0.25"),
            format!("gradus_judge_endpoint_outstanding{labels}}} 5.0"),
            format!("gradus_judge_endpoint_paused_seconds{labels}}} 2.5"),
            format!("gradus_judge_endpoint_circuit{labels},state=\"closed\"}} 0.0"),
            format!("gradus_judge_endpoint_circuit{labels},state=\"half_open\"}} 1.0"),
        ];
        assert_has(&text, &lines.each_ref().map(String::as_str));
        assert!(!text.contains("gradus_judge_asked_tokens"), "it computes elsewhere:\n{text}");
    }

    #[test]
    fn no_two_samples_are_the_same() {
        let twice = || state(None, vec![endpoint("http://a/v1"), endpoint("http://a/v1")]);
        let text = text([("one", twice()), ("other", twice())]);
        let mut samples: Vec<&str> = text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
        samples.sort_unstable();
        let all = samples.len();
        samples.dedup();
        assert_eq!(samples.len(), all, "{text}");
    }

    #[test]
    fn every_family_is_explained_and_a_server_without_judges_has_none_of_them() {
        let full = text([("default", state(Some(WorkerNumbers::default()), vec![endpoint("http://a/v1")]))]);
        for name in full.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
            assert!(full.contains(&format!("# HELP {name} ")), "{name}");
        }
        assert!(full.lines().filter(|line| line.starts_with("# HELP ")).all(|line| line.ends_with('.')), "{full}");
        let none = text([]);
        assert_eq!(none.lines().filter(|line| !line.starts_with('#')).count(), 2, "the cache's two alone:\n{none}");
        assert!(!full.contains("NaN"), "nothing was asked yet:\n{full}");
    }
}
