//! `POST /aggregate_metrics`: what verify responses come to, per task and over all of them. In: responses without their
//! bodies. Out: statistics of every number in them. Samples that are masked count nowhere.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::advantage::GroupStatistics;
use crate::http::app::App;
use crate::http::dialects::object;
use crate::http::error::{Problem, ProblemWire};
use crate::http::handlers::read_text;
use crate::http::schema::JsonObject;
use crate::http::scoring::by_size;

/// The field that names a task.
const TASK: &str = "_ng_task_index";
/// Fields that are numbers and no measures.
const NAMES: [&str; 2] = [TASK, "_ng_rollout_index"];

/// Verify responses, or what is left of them.
#[derive(Deserialize, ToSchema)]
#[schema(as = AggregateMetricsRequest, example = json!({"verify_responses": [{"_ng_task_index": 0, "reward": 1.0}, {"_ng_task_index": 0, "reward": 0.0}]}))]
pub(crate) struct AggregateRequest {
    /// Each has at least a `reward`.
    #[schema(value_type = Vec<JsonObject>)]
    verify_responses: Vec<Map<String, Value>>,
}

/// Statistics under flat names.
#[allow(clippy::struct_field_names, reason = "the client's names")]
#[derive(Serialize, ToSchema)]
#[schema(as = AggregateMetrics, example = json!({"group_level_metrics": [{"_ng_task_index": 0, "mean/reward": 0.5, "std/reward": 0.5, "min/reward": 0.0, "max/reward": 1.0}],
    "agent_metrics": {"mean/reward": 0.5, "std/reward": 0.5, "min/reward": 0.0, "max/reward": 1.0}, "key_metrics": {"mean/reward": 0.5}}))]
pub(crate) struct Aggregate {
    /// Per task.
    #[schema(value_type = Vec<JsonObject>)]
    group_level_metrics: Vec<Map<String, Value>>,
    /// Over all.
    #[schema(value_type = JsonObject)]
    agent_metrics: Map<String, Value>,
    /// The mean reward.
    #[schema(value_type = JsonObject)]
    key_metrics: Map<String, Value>,
}

/// Mean, deviation, least and largest of every number.
fn statistics<'r>(responses: impl Iterator<Item = &'r Map<String, Value>>) -> Map<String, Value> {
    let mut columns: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, value) in responses.flatten().filter(|(name, _)| !NAMES.contains(&name.as_str())) {
        let number = value.as_f64().or_else(|| value.as_bool().map(|bit| f64::from(u8::from(bit))));
        columns.entry(name).or_default().extend(number);
    }
    let mut out = Map::new();
    for (name, mut numbers) in columns {
        // Sorts them.
        let found = GroupStatistics::of(&mut numbers, 0.0);
        if let (Some(least), Some(largest)) = (numbers.first(), numbers.last()) {
            for (kind, number) in [("mean", found.mean), ("std", found.std), ("min", *least), ("max", *largest)] {
                out.insert(format!("{kind}/{name}"), Value::from(number));
            }
        }
    }
    out
}

fn aggregate(responses: &[Map<String, Value>]) -> Aggregate {
    let measured = |response: &&Map<String, Value>| response.get("mask_sample") != Some(&Value::Bool(true));
    let responses: Vec<_> = responses.iter().filter(measured).collect();
    let mut tasks: BTreeMap<i64, Vec<&Map<String, Value>>> = BTreeMap::new();
    for response in &responses {
        if let Some(task) = response.get(TASK).and_then(Value::as_i64) {
            tasks.entry(task).or_default().push(response);
        }
    }
    let group = |(task, responses): (&i64, &Vec<&Map<String, Value>>)| {
        let mut group = Map::from_iter([(TASK.to_owned(), Value::from(*task))]);
        group.extend(statistics(responses.iter().copied()));
        group
    };
    let agent_metrics = statistics(responses.iter().copied());
    let key = |name: &str| Some((name.to_owned(), agent_metrics.get(name)?.clone()));
    Aggregate {
        group_level_metrics: tasks.iter().map(group).collect(),
        key_metrics: key("mean/reward").into_iter().collect(),
        agent_metrics,
    }
}

/// Sum verify responses up, per task and over all.
#[utoipa::path(post, path = "/aggregate_metrics", tag = "dialects", operation_id = "nemo_gym_aggregate_metrics",
    request_body(content = AggregateRequest, description = "Verify responses"),
    responses(
        (status = 200, description = "Statistics", body = Aggregate),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn aggregate_metrics(State(app): State<App>, request: Request) -> Result<Json<Aggregate>, Problem> {
    let (_admission, text) = read_text(&app, request).await?;
    let answer = by_size(text.len(), move || {
        let request: AggregateRequest = object(&text)?;
        Ok(aggregate(&request.verify_responses))
    });
    answer.await.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tasks_and_all_without_masked_samples() {
        let responses: Vec<Map<String, Value>> = serde_json::from_value(json!([
            {"_ng_task_index": 0, "reward": 1.0, "exact_match": 1.0},
            {"_ng_task_index": 0, "reward": 0.0, "exact_match": 0.0},
            {"_ng_task_index": 1, "reward": 0.5},
            {"_ng_task_index": 1, "reward": 0.0, "mask_sample": true}
        ]))
        .unwrap();
        let found = aggregate(&responses);
        assert_eq!(found.key_metrics["mean/reward"], 0.5);
        assert_eq!(found.group_level_metrics.len(), 2);
        assert_eq!(found.group_level_metrics[0]["std/reward"], 0.5);
        assert_eq!(found.group_level_metrics[1]["mean/reward"], 0.5);
        assert_eq!(found.agent_metrics["max/exact_match"], 1.0);
        assert!(aggregate(&[]).agent_metrics.is_empty());
    }
}
