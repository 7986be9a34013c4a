//! TRL and ms-swift: `POST /trl`, the arguments of a reward function as columns. What cannot be scored is `null`, which
//! the function hands on as `None`: the trainer leaves it out.

use std::borrow::Cow;

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::docs::TextOrMessagesDoc;
use super::fields::{Parts, Value, one_for_each};
use super::label::{COLUMNS, Label, size_of};
use super::options::{Options, Repeatable};
use super::raw_item::{NO_WORDS, RawItem, Written};
use super::results::{Named, Outcome, Results, written};
use super::{Dialect, Incoming, serve};
use crate::http::error::{Problem, ProblemWire};
use crate::http::wire::{OnInvalid, Pointed};

/// How many rollouts a group has.
const SIZE: &str = "num_generations";

/// Columns of the group's name.
const GROUPS: [&str; 3] = ["group", "group_id", "prompt_id"];

/// The arguments of a reward function.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = TrlRequest, example = json!({"prompts": [[{"role": "user", "content": "What is the capital of France?"}], [{"role": "user", "content": "What is the capital of France?"}]],
    "completions": [[{"role": "assistant", "content": "<answer>Paris</answer>", "tool_calls": []}], [{"role": "assistant", "content": "?"}]],
    "columns": {"ground_truth": ["Paris", "Paris"]}, "num_generations": 2, "global_step": 120}))]
pub(crate) struct TrlRequestDoc {
    /// What the policy was given, text or messages.
    #[schema(required = false)]
    prompts: Option<Vec<TextOrMessagesDoc>>,
    /// What it wrote, text or messages.
    completions: Vec<TextOrMessagesDoc>,
    /// The dataset's other columns, a list each. The first of `references`, `golds`, `ground_truth`, `target`, `answer`,
    /// `answers`, `expected_answer`, `golden_answers`, `solution` and `label` that there is says what is right, `tools` what
    /// was offered, `reference_calls` what should be called, `group` what belongs together; the rest is ignored. Without
    /// `columns` they may stand beside `completions`, as a reward function is given them.
    #[schema(required = false, value_type = BTreeMap<String, Vec<serde_json::Value>>)]
    columns: Option<serde_json::Value>,
    /// How many rollouts a group has.
    #[schema(required = false)]
    num_generations: Option<usize>,
    /// The trainer's step.
    #[schema(required = false)]
    global_step: Option<u64>,
}

/// Rewards in order.
#[derive(Serialize, ToSchema)]
#[schema(as = TrlResponse, example = json!({"rewards": [0.93, null], "metrics": {"exact_match": [1.0, null]}}))]
pub(crate) struct TrlResponse<'s> {
    /// The rewards; `null` for what could not be scored.
    rewards: Vec<Option<f64>>,
    /// Score per stage and reported measure, a list each.
    #[schema(value_type = BTreeMap<String, Vec<Option<f64>>>)]
    metrics: Named<'s, Vec<Option<f64>>>,
}

/// A column, if there is one: an entry per completion.
type Column<'t, 'b> = Option<Vec<Value<'t, 'b>>>;

/// The first of these columns that there is in an object, which stands at `at`.
fn column<'t, 'b>(of: Value<'t, 'b>, at: &str, names: &[&str], wanted: usize) -> Result<Column<'t, 'b>, Pointed> {
    let Some(column) = of.first(names) else { return Ok(None) };
    let pointer = format!("{at}/{}", column.key());
    let entries: Vec<_> = column.list(&pointer)?.inside().collect();
    one_for_each(entries.len(), wanted, "completions", pointer)?;
    Ok(Some(entries))
}

struct Trl {
    step: Option<u64>,
}

impl Dialect for Trl {
    const ON_INVALID: OnInvalid = OnInvalid::Null;

    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed> {
        let parts = Parts::read(body, 3)?;
        let body = parts.object(body)?;
        let completions = body.needed("completions")?.list("/completions")?.raws();
        let prompts = column(body, "", &["prompts"], completions.len())?;
        let columns = body.get("columns").map(|columns| columns.object("/columns")).transpose()?;
        // A reward function is given its columns beside the completions: whoever sends its arguments as they are means those.
        let (columns, place) = columns.map_or((body, ""), |columns| (columns, "/columns"));
        let of = |names: &[&str]| column(columns, place, names, completions.len());
        // TRL's own columns first: a data set may have others that are called as a label is elsewhere.
        let answers = of(&[&["ground_truth", "solution"], COLUMNS].concat())?;
        let (groups, tools, calls) = (of(&GROUPS)?, of(&["tools"])?, of(&["reference_calls"])?);
        let group_size = body.raw_of(SIZE).map(|raw| size_of(SIZE, raw)).transpose();
        let group_size = group_size.map_err(|wrong| Pointed::shape(format!("/{SIZE}"), wrong))?;
        let raw_items = completions.into_iter().enumerate().map(|(place, completion)| {
            let about = Label {
                reference_calls: at(calls.as_ref(), place),
                group: at(groups.as_ref(), place),
                group_size,
                ..Label::default()
            };
            let answer = answers.as_ref().and_then(|column| column.get(place)).copied();
            RawItem {
                prompt: at(prompts.as_ref(), place),
                written: written_by(completion),
                label: about.or(answer.map(Value::raw).map(Label::of_raw).unwrap_or_default()),
                tools: at(tools.as_ref(), place),
                ..RawItem::default()
            }
        });
        let raw_items = raw_items.collect();
        Ok((Self { step: body.count_of("global_step")? }, raw_items))
    }

    fn step(&self) -> Option<u64> {
        self.step
    }

    fn write(&self, _: &str, results: &Results<'_>) -> Vec<u8> {
        let metrics = results.metric_columns(|outcome, score| score.filter(|_| outcome.valid()));
        let rewards = results.outcomes.iter().map(Outcome::reward).collect();
        written(&TrlResponse { rewards, metrics: Named { own: Vec::new(), metrics } })
    }
}

/// A column's entry, if there is one and it is not null.
fn at<'b>(column: Option<&Vec<Value<'_, 'b>>>, place: usize) -> Option<Cow<'b, str>> {
    column.and_then(|column| column.get(place)).filter(|value| !value.is_null()).map(|value| Cow::Borrowed(value.raw()))
}

fn written_by(completion: &str) -> Written<'_> {
    match completion.strip_prefix('[') {
        // Of a completion without a token no message is left.
        Some(rest) if rest.trim_start() == "]" => Written::Messages(format!("[{NO_WORDS}]").into()),
        Some(_) => Written::Messages(completion.into()),
        None => Written::response(completion),
    }
}

/// Score columns as a reward function of TRL gets them.
#[utoipa::path(post, path = "/trl", tag = "dialects", operation_id = "trl_reward", params(Options, Repeatable),
    request_body(content = TrlRequestDoc, description = "The arguments of a reward function"),
    responses(
        (status = 200, description = "Rewards in order", body = TrlResponse<'static>),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn score_columns(incoming: Incoming) -> Result<Response, Problem> {
    serve::<Trl>(incoming).await
}
