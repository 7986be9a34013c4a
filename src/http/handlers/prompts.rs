//! The value table of a run: which prompts it visited, what they were worth, and a draw of the next ones. From the stored
//! scores; the numbers are those of the trainer's own module.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Request, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::advantages::SamplingWire;
use super::stored::{Parameters, limit, store, unknown_run};
use crate::advantage::{GroupStatistics, PromptHistory, systematic_draws, unit_from_seed};
use crate::http::app::App;
use crate::http::error::Problem;
use crate::http::handlers::read_text_alone;
use crate::http::kind::Kind;
use crate::http::scoring::by_size;
use crate::http::wire::{choice, read_as, whole_number};
use crate::rubric::Rubric;
use crate::store::{GroupVisit, RunVisits};

/// Most prompts of a draw.
const MAX_DRAWS: usize = 65_536;

/// What a list of prompts is sorted by.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PromptOrder, example = json!("value"))]
pub(crate) enum PromptOrder {
    /// The latest task value, the largest first.
    #[default]
    Value,
    /// The moving average of the task value, the largest first.
    ValueAverage,
    /// The latest mean reward, the smallest first.
    Mean,
    /// The latest deviation, the largest first.
    Std,
    /// Visits, the fewest first.
    Visits,
}

/// How a list of prompts is sorted, and how much of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromptsQuery {
    /// What it is sorted by; `value` where absent.
    #[param(inline)]
    order: Option<PromptOrder>,
    /// How many at most, 1 to 1000; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// What is known of a prompt.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = PromptValue, example = json!({"group": "q42", "visits": 3, "n": 8, "mean": 0.5, "std": 0.5, "value": 0.25, "mean_average": 0.4, "std_average": 0.4, "value_average": 0.2, "last_step": 120}))]
pub(crate) struct PromptValue {
    /// The group that its rollouts were sent under.
    group: String,
    /// How often a group of it was scored: steps in which it has a valid score.
    visits: u32,
    /// Valid rewards of the latest visit.
    n: usize,
    /// Their mean.
    mean: f64,
    /// Their population standard deviation.
    std: f64,
    /// The task value: (largest reward of the rubric - mean) * std.
    value: f64,
    /// Moving average of the means over the visits, the newest weighing 0.3.
    mean_average: f64,
    /// The same of the deviations.
    std_average: f64,
    /// The same of the task values.
    value_average: f64,
    /// The step of the latest visit.
    last_step: Option<i64>,
}

/// The prompts of a run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PromptTable, example = json!({"run_id": "exp-17", "prompts": 1, "items": [{"group": "q42", "visits": 3, "n": 8, "mean": 0.5, "std": 0.5, "value": 0.25, "mean_average": 0.4, "std_average": 0.4, "value_average": 0.2, "last_step": 120}]}))]
pub(crate) struct PromptTable {
    /// Name of the run.
    run_id: String,
    /// How many prompts it has.
    prompts: usize,
    /// The first of them.
    items: Vec<PromptValue>,
}

/// What prompts are drawn by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SampleBy, example = json!("latest"))]
pub(crate) enum SampleBy {
    /// The value at the latest visit.
    #[default]
    Latest,
    /// The moving average of the values.
    Average,
}

/// How many prompts to draw.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SampleRequest, example = json!({"count": 2, "seed": 7}))]
pub(crate) struct SampleRequest {
    /// How many, 1 to 65536; with replacement.
    #[serde(deserialize_with = "whole_number")]
    #[schema(minimum = 1, maximum = 65536)]
    count: usize,
    /// The same seed draws the same from the same table; 0 where absent.
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(required = false)]
    seed: u64,
    /// By value, or all alike.
    #[serde(default, deserialize_with = "choice")]
    #[schema(required = false, inline = false)]
    sampling: SamplingWire,
    /// Which value.
    #[serde(default, deserialize_with = "choice")]
    #[schema(required = false, inline = false)]
    by: SampleBy,
}

/// The prompts that were drawn.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SampleResponse, example = json!({"run_id": "exp-17", "u0": 0.25, "sampling": "value", "groups": ["q42", "q42"], "counts": {"q42": 2}}))]
pub(crate) struct SampleResponse {
    /// Name of the run.
    run_id: String,
    /// Where the draw started.
    u0: f64,
    /// `uniform` also where no prompt has any value.
    sampling: SamplingWire,
    /// The groups, each as often as it was drawn, in the order of their names.
    groups: Vec<String>,
    /// How often each was drawn.
    counts: BTreeMap<String, u32>,
}

/// The table, by name. Visits count in the order of their steps, in whichever they came; those without one come first.
fn table(visits: &RunVisits) -> Vec<PromptValue> {
    let largest = |json: &str| Rubric::from_json(json).map_or(1.0, |rubric| rubric.range.max());
    let rubrics: Vec<f64> = visits.rubrics.iter().map(|(_, json)| largest(json)).collect();
    let mut prompts: BTreeMap<&str, (PromptHistory, Option<i64>)> = BTreeMap::new();
    let mut in_order: Vec<&GroupVisit> = visits.visits.iter().collect();
    in_order.sort_by_key(|visit| visit.step);
    for visit in in_order {
        let max_reward = rubrics.get(visit.rubric).copied().unwrap_or(1.0);
        let (history, last_step) = prompts.entry(&visit.group).or_default();
        history.visit(GroupStatistics::of(&mut visit.rewards.clone(), max_reward));
        *last_step = visit.step;
    }
    let value = |(group, (history, last_step)): (&str, (PromptHistory, Option<i64>))| PromptValue {
        group: group.to_owned(),
        visits: history.visits,
        n: history.latest.n,
        mean: history.latest.mean,
        std: history.latest.std,
        value: history.latest.value,
        mean_average: history.mean_average,
        std_average: history.std_average,
        value_average: history.value_average,
        last_step,
    };
    prompts.into_iter().map(value).collect()
}

/// What comes of a run's table. Of a long run it takes seconds, which neither those who wait to be scored nor the connections
/// have to spare: it is worked out, and dropped, on a thread of its own.
async fn of_table<T: Send + 'static>(
    app: &App,
    run_id: &str,
    work: impl FnOnce(Vec<PromptValue>) -> T + Send + 'static,
) -> Result<T, Problem> {
    let visits = store(app)?.run_visits(run_id).await?.ok_or_else(|| unknown_run(run_id))?;
    let done = tokio::task::spawn_blocking(move || work(table(&visits))).await;
    done.map_err(|_| Problem::internal("the run's prompts could not be worked out; please report this"))
}

/// Show what a run's prompts are worth.
///
/// A prompt is a group; its visits are told apart by the trainer's step (by request, where there is none). A trainer that goes
/// back to an earlier step needs a new `run_id`: a step that is sent again adds to the visit that it was.
#[utoipa::path(get, path = "/runs/{run_id}/prompts", tag = "vspo", operation_id = "list_prompts",
    params(("run_id" = String, Path, description = "Name of the run"), PromptsQuery),
    responses(
        (status = 200, description = "The prompts", body = PromptTable),
        (status = 400, description = "A bad parameter"),
        (status = 404, description = "No such run")))]
pub(crate) async fn list_prompts(
    State(app): State<App>,
    Path(run_id): Path<String>,
    Parameters(parameters): Parameters<PromptsQuery>,
) -> Result<Json<PromptTable>, Problem> {
    let limit = limit(parameters.limit)?;
    let order = parameters.order.unwrap_or_default();
    let (prompts, items) = of_table(&app, &run_id, move |table| (table.len(), first(table, order, limit))).await?;
    Ok(Json(PromptTable { run_id, prompts, items }))
}

/// The first prompts of a table in an order. Equal ones stay in the order of their names.
fn first(mut items: Vec<PromptValue>, order: PromptOrder, limit: usize) -> Vec<PromptValue> {
    items.sort_by(|a, b| match order {
        PromptOrder::Value => b.value.total_cmp(&a.value),
        PromptOrder::ValueAverage => b.value_average.total_cmp(&a.value_average),
        PromptOrder::Mean => a.mean.total_cmp(&b.mean),
        PromptOrder::Std => b.std.total_cmp(&a.std),
        PromptOrder::Visits => a.visits.cmp(&b.visits),
    });
    items.truncate(limit);
    items
}

/// Draw the next prompts of a run.
///
/// In proportion to their value (systematic resampling, as VSPO's plan draws), seeded.
#[utoipa::path(post, path = "/runs/{run_id}/sample", tag = "vspo", operation_id = "sample_prompts",
    params(("run_id" = String, Path, description = "Name of the run")),
    request_body(content = SampleRequest, description = "How many, and by what"),
    responses(
        (status = 200, description = "The draw", body = SampleResponse),
        (status = 400, description = "Not JSON, or parameters in the URL"),
        (status = 404, description = "No such run, or it has no prompts"),
        (status = 422, description = "The request has the wrong shape")))]
pub(crate) async fn sample_prompts(
    State(app): State<App>,
    Path(run_id): Path<String>,
    request: Request,
) -> Result<Json<SampleResponse>, Problem> {
    let (_admission, text) = read_text_alone(&app, request).await?;
    let request: SampleRequest = by_size(text.len(), move || Ok(read_as(&text)?)).await?;
    if !(1..=MAX_DRAWS).contains(&request.count) {
        let detail = format!("{} is out of range; it must be from 1 to {MAX_DRAWS}", request.count);
        return Err(Problem::shape("/count", detail));
    }
    let name = run_id.clone();
    let drawn = of_table(&app, &run_id, move |table| (!table.is_empty()).then(|| draw(name, &table, &request))).await?;
    drawn.map(Json).ok_or_else(|| {
        let detail = format!("the run {run_id:?} has no scores with a group; send `group` with every trajectory");
        Problem::new(Kind::NoPrompts, detail)
    })
}

fn draw(run_id: String, table: &[PromptValue], request: &SampleRequest) -> SampleResponse {
    let value = |prompt: &PromptValue| match request.by {
        SampleBy::Latest => prompt.value,
        SampleBy::Average => prompt.value_average,
    };
    let mut weights: Vec<f64> = table.iter().map(value).collect();
    let worthless = !weights.iter().any(|weight| *weight > 0.0);
    let sampling = if worthless { SamplingWire::Uniform } else { request.sampling };
    if sampling == SamplingWire::Uniform {
        weights.fill(1.0);
    }
    let u0 = unit_from_seed(request.seed);
    let drawn = systematic_draws(&weights, request.count, u0);
    let drawn: Vec<(&PromptValue, u32)> = table.iter().zip(drawn).filter(|(_, count)| *count > 0).collect();
    SampleResponse {
        run_id,
        u0,
        sampling,
        groups: drawn.iter().flat_map(|(prompt, n)| (0..*n).map(|_| prompt.group.clone())).collect(),
        counts: drawn.iter().map(|(prompt, count)| (prompt.group.clone(), *count)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier, mpsc};

    use super::*;
    use crate::store::{Batch, Store};

    #[tokio::test]
    async fn a_table_is_worked_out_though_all_threads_that_score_are_busy() {
        let store = Store::in_memory();
        let run_id = Some("exp".to_owned());
        store.append(Batch { run_id, ..Batch::empty(store.next_id(1)) }).await.unwrap();
        let app = App::plain(Some(store));
        let threads = rayon::current_num_threads();
        let (busy, began) = mpsc::channel();
        let end = Arc::new(Barrier::new(threads + 1));
        let ends = Arc::clone(&end);
        rayon::spawn_broadcast(move |_| {
            busy.send(()).unwrap();
            ends.wait();
        });
        let began = move || (0..threads).for_each(|_| began.recv().unwrap());
        tokio::task::spawn_blocking(began).await.unwrap();
        let table = of_table(&app, "exp", |table| table.len());
        let prompts = tokio::time::timeout(std::time::Duration::from_mins(1), table).await;
        tokio::task::spawn_blocking(move || end.wait()).await.unwrap();
        assert_eq!(prompts.unwrap().unwrap(), 0);
    }
}
