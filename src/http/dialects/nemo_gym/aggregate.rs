//! `POST /aggregate_metrics`: what verify responses come to, per task and over all of them. In: responses without their
//! bodies. Out: statistics of every number in them. Samples that are masked count nowhere.

mod columns;

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::columns::{Columns, Measures, TASK};
use crate::advantage::GroupStatistics;
use crate::http::app::App;
use crate::http::dialects::json;
use crate::http::error::{Problem, ProblemWire};
use crate::http::handlers::read_text;
use crate::http::schema::JsonObject;
use crate::http::scoring::by_size;
use crate::http::wire::read_as;

/// Verify responses, or what is left of them.
#[derive(Deserialize, ToSchema)]
#[schema(as = AggregateMetricsRequest, example = json!({"verify_responses": [{"_ng_task_index": 0, "reward": 1.0}, {"_ng_task_index": 0, "reward": 0.0}]}))]
pub(crate) struct AggregateRequest {
    /// Each has at least a `reward`.
    #[schema(value_type = Vec<JsonObject>)]
    verify_responses: Columns,
}

/// Statistics under flat names.
#[allow(clippy::struct_field_names, reason = "the client's names")]
#[derive(Serialize, ToSchema)]
#[schema(as = AggregateMetrics, example = json!({"group_level_metrics": [{"_ng_task_index": 0, "mean/reward": 0.5, "std/reward": 0.5, "min/reward": 0.0, "max/reward": 1.0}],
    "agent_metrics": {"mean/reward": 0.5, "std/reward": 0.5, "min/reward": 0.0, "max/reward": 1.0}, "key_metrics": {"mean/reward": 0.5}}))]
pub(crate) struct Aggregate {
    /// Per task.
    #[schema(value_type = Vec<JsonObject>)]
    group_level_metrics: Vec<Statistics>,
    /// Over all.
    #[schema(value_type = JsonObject)]
    agent_metrics: Statistics,
    /// The mean reward.
    #[schema(value_type = JsonObject)]
    key_metrics: BTreeMap<&'static str, f64>,
}

/// Mean, deviation, least and largest of every number, of one task or of all.
#[derive(Debug, Default)]
struct Statistics {
    task: Option<i64>,
    measures: Vec<(String, [f64; 4])>,
}

/// What is told of a measure.
const KINDS: [&str; 4] = ["mean", "std", "min", "max"];

impl Statistics {
    fn of(task: Option<i64>, columns: Measures) -> Self {
        let statistics = |(name, mut numbers): (String, Vec<f64>)| {
            // Sorts them.
            let found = GroupStatistics::of(&mut numbers, 0.0);
            Some((name, [found.mean, found.std, *numbers.first()?, *numbers.last()?]))
        };
        Self { task, measures: columns.into_iter().filter_map(statistics).collect() }
    }

    fn mean(&self, name: &str) -> Option<f64> {
        let at = self.measures.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        self.measures.get(at).map(|(_, [mean, ..])| *mean)
    }
}

impl Serialize for Statistics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(task) = self.task {
            map.serialize_entry(TASK, &task)?;
        }
        for (name, numbers) in &self.measures {
            for (kind, number) in KINDS.iter().zip(numbers) {
                map.serialize_entry(&format_args!("{kind}/{name}"), number)?;
            }
        }
        map.end()
    }
}

fn aggregate(columns: Columns) -> Aggregate {
    let agent_metrics = Statistics::of(None, columns.all);
    Aggregate {
        group_level_metrics: columns.tasks.into_iter().map(|(task, of)| Statistics::of(Some(task), of)).collect(),
        key_metrics: agent_metrics.mean("reward").map(|mean| ("mean/reward", mean)).into_iter().collect(),
        agent_metrics,
    }
}

/// Sum verify responses up, per task and over all.
#[utoipa::path(post, path = "/aggregate_metrics", tag = "dialects", operation_id = "nemo_gym_aggregate_metrics",
    request_body(content = AggregateRequest, description = "Verify responses"),
    responses(
        (status = 200, description = "Statistics", body = Aggregate),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn aggregate_metrics(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (_admission, text) = read_text(&app, request).await?;
    let answer = by_size(text.len(), move || {
        let request: AggregateRequest = read_as(&text)?;
        // Written here, too: names may be long, and there may be many.
        let metrics = aggregate(request.verify_responses);
        serde_json::to_vec(&metrics).map_err(Problem::internal)
    });
    answer.await.map(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn tasks_and_all_without_masked_samples() {
        let found = |responses: Value| {
            let request: AggregateRequest =
                serde_json::from_str(&json!({"verify_responses": responses}).to_string()).unwrap();
            serde_json::to_value(aggregate(request.verify_responses)).unwrap()
        };
        let responses = found(json!([
            {"_ng_task_index": 0, "reward": 1.0, "exact_match": 1.0, "response": {"output": [1, "a"], "n": null}},
            {"_ng_task_index": 0, "reward": 0, "exact_match": 0.0, "_ng_rollout_index": 3},
            {"_ng_task_index": 1, "reward": 0.5, "right": true, "mask_sample": false},
            {"_ng_task_index": 1, "reward": 0.0, "mask_sample": true},
            {"reward": 0.5, "right": false, "text": "1"}
        ]));
        let all = json!({
            "mean/exact_match": 0.5, "std/exact_match": 0.5, "min/exact_match": 0.0, "max/exact_match": 1.0,
            "mean/reward": 0.5, "std/reward": responses["agent_metrics"]["std/reward"], "min/reward": 0.0, "max/reward": 1.0,
            "mean/right": 0.5, "std/right": 0.5, "min/right": 0.0, "max/right": 1.0
        });
        assert_eq!(responses["agent_metrics"], all);
        assert!((all["std/reward"].as_f64().unwrap() - 0.125_f64.sqrt()).abs() < 1e-12);
        assert_eq!(responses["key_metrics"], json!({"mean/reward": 0.5}));
        let groups = responses["group_level_metrics"].as_array().unwrap();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0]["_ng_task_index"], 0);
        assert_eq!(groups[0]["std/reward"], 0.5);
        assert_eq!(groups[1]["mean/reward"], 0.5);
        assert_eq!(groups[1].as_object().unwrap().len(), 9);
        assert_eq!(found(json!([]))["agent_metrics"], json!({}));
        let refused = serde_json::from_str::<AggregateRequest>(r#"{"verify_responses": [{"reward": -2e100}]}"#);
        let words = refused.err().unwrap().to_string();
        assert!(words.contains("\"reward\" is -2e100") && words.contains("1e100"), "{words}");
    }
}
