//! Writing results: the JSON of a [`Report`], and of everything around it.
//!
//! Fields are borrowed from the report, so that writing is the only copy. Every number is finite: a NaN or an infinity
//! would silently become `null`, and none can reach these types.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;

use super::calls::{LeftOut, Lists, ParseWire, ToolCallWire};
use super::json::{Put, put, put_list, put_object, put_plain};
use crate::rubric::Rubric;
use crate::score::{Fault, Report, StepReward};
use crate::stages::Field;
use crate::toolcall::schema::bounded_pointer;

/// What a report says in a rubric's words, put together while it is written.
#[derive(Debug, Clone, Copy)]
struct InWords<'a> {
    report: &'a Report<'a>,
    rubric: &'a Rubric,
}

/// How every stage of the rubric was scored, written as a list.
#[derive(Debug, Clone, Copy)]
pub struct Stages<'a>(InWords<'a>);

/// Scores by the names of stages and reported measures, written as an object.
#[derive(Debug, Clone, Copy)]
pub struct Metrics<'a>(InWords<'a>);

/// Rewards by the names of what they are made of, written as an object.
#[derive(Debug, Clone, Copy)]
pub struct Components<'a>(InWords<'a>);

impl<'a> Stages<'a> {
    fn iter(self) -> impl Iterator<Item = StageWire<'a>> {
        let InWords { report, rubric } = self.0;
        let reached = report.stage_reached();
        rubric.stages.iter().zip(&report.plan).enumerate().map(move |(index, (stage, plan))| {
            let outcome = report.outcomes.get(index);
            StageWire {
                name: &stage.name,
                score: outcome.map_or(0.0, |outcome| outcome.score.get()),
                weight: plan.weight,
                threshold: plan.threshold,
                open: reached.is_some_and(|reached| index <= reached),
                passed: report.passed(index),
                detail: Detail(outcome.map_or(&[], |outcome| &outcome.detail)),
            }
        })
    }
}

impl<'a> Metrics<'a> {
    /// Every name with its score.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, f64)> {
        let InWords { report, rubric } = self.0;
        let score = |index: usize| report.outcomes.get(index).map_or(0.0, |outcome| outcome.score.get());
        let scores = (0..rubric.stages.len()).map(score).chain(report.extra.iter().copied());
        rubric.metric_names().zip(scores)
    }
}

impl<'a> Components<'a> {
    /// Every name with its part; none where there is no reward.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, f64)> {
        let InWords { report, rubric } = self.0;
        let reward = report.reward.as_ref().ok();
        reward.into_iter().flat_map(move |reward| {
            // 0 - 0 is 0, where -0.0 would be written as such.
            let penalties = reward.penalties.iter().map(|value| 0.0 - *value);
            let parts = rubric
                .base()
                .into_iter()
                .chain(reward.components.iter().copied())
                .chain(penalties)
                .chain([reward.clamp]);
            rubric.component_names().zip(parts)
        })
    }
}

impl Put for Stages<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(self.iter(), out);
    }
}

/// A rubric's own names are letters, digits, `_`, `-` and `.`.
impl Put for Metrics<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        put_object(self.iter(), put_plain, out);
    }
}

impl Put for Components<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        put_object(self.iter(), put_plain, out);
    }
}

/// The numbers that a stage's score was made of, written as an object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Detail<'a>(pub &'a [(Cow<'static, str>, f64)]);

/// Names that stand in this program, and a judge's labels, which may be any text.
impl Put for Detail<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        let put_name = |name: &Cow<'static, str>, out: &mut Vec<u8>| match name {
            Cow::Borrowed(name) => put_plain(name, out),
            Cow::Owned(label) => label.put(out),
        };
        put_object(self.0.iter().map(|(name, number)| (name, *number)), put_name, out);
    }
}

/// How one trajectory was scored.
#[derive(Debug, ToSchema)]
#[schema(as = Result, example = json!({"id": "q42-r3", "group": "q42", "score_id": "0000018b2c3d4e5f-0", "reward": 0.93, "valid": true, "stage_reached": "la_bleu",
    "failed_stage": null, "reason": null,
    "stages": [{"name": "tool_parse", "score": 1.0, "weight": 0.1, "threshold": 1.0, "open": true, "passed": true, "detail": {"attempts": 1.0, "malformed": 0.0}}],
    "metrics": {"tool_parse": 1.0}, "components": {"tool_parse": 0.1},
    "tool_calls": [{"message": 2, "index": 0, "span": [17, 99], "name": "search", "arguments": {"query": "capital of France"}, "parsed": true, "known": true, "schema_valid": true, "errors": []}],
    "parse": {"ok": true, "format": "hermes", "attempts": 1, "errors": []}, "answer": {"text": "Paris", "message": 4},
    "steps": [{"message": 2, "reward": 0.2}, {"message": 4, "reward": 0.73}], "errors": [], "cache": "miss", "latency_ms": 0.4}))]
pub struct ResultWire<'a> {
    /// The trajectory's `id`, as sent.
    #[schema(required = true)]
    pub id: Option<&'a str>,
    /// The trajectory's `group`, as sent.
    #[schema(required = true)]
    pub group: Option<&'a str>,
    /// Names this score in `GET /scores/{id}`; absent where nothing is stored.
    #[schema(required = false)]
    pub score_id: Option<&'a str>,
    /// The reward, within the rubric's range; for an item that could not be scored, what `on_invalid` says.
    #[schema(required = true)]
    pub reward: Option<f64>,
    /// Whether the trajectory could be scored. A wrong, unparseable or missing answer is scored, low.
    pub valid: bool,
    /// The last stage that opened.
    #[schema(required = true)]
    pub stage_reached: Option<&'a str>,
    /// The stage that was scored below its threshold and closed the ones after it.
    #[schema(required = true)]
    pub failed_stage: Option<&'a str>,
    /// Why it failed, in words.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// Every stage of the rubric, in order. Where `valid` is false, what was not scored has 0 here, which is no score.
    #[schema(value_type = Vec<StageWire<'static>>)]
    pub stages: Stages<'a>,
    /// Score per stage and reported measure, the same keys for every result of a rubric version; 0 where not reached.
    /// Where `valid` is false, a 0 may also be what could not be scored: weight means over these by `valid`.
    #[schema(value_type = std::collections::BTreeMap<String, f64>)]
    pub metrics: Metrics<'a>,
    /// What the reward is made of, in reward units: stages, penalties (negative), and `base` and `clamp` where the
    /// rubric can have them. A reward that `on_invalid` filled in is the one component `filled`, and one that is null has
    /// none. They sum to `reward`.
    #[schema(value_type = std::collections::BTreeMap<String, f64>)]
    pub components: Components<'a>,
    /// Every call attempt in order, malformed ones too. `left_out` says how many are not listed, if any.
    pub tool_calls: Vec<ToolCallWire<'a>>,
    /// Whether everything parsed.
    pub parse: ParseWire<'a>,
    /// The answer that was found.
    pub answer: AnswerWire<'a>,
    /// What each assistant turn earned; sums to the shaped reward (before scaling and penalties).
    #[schema(value_type = Vec<StepWire>)]
    pub steps: &'a [StepReward],
    /// Why there is no reward; empty for a valid result.
    pub errors: Vec<ErrorWire<'a>>,
    /// `miss`: scored for this request. `hit`: taken from an equal trajectory of the same batch, or all its judges' verdicts
    /// were known before.
    pub cache: CacheWire,
    /// Time that scoring this trajectory took, in milliseconds; 0 for one that is equal to another one of its batch.
    pub latency_ms: f64,
    /// How much is not listed, where the lists would be much longer than the trajectory; absent where nothing was left out.
    #[schema(required = false)]
    pub left_out: Option<LeftOut>,
}

/// Where a result came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Cache, example = json!("miss"))]
pub enum CacheWire {
    /// From an equal trajectory of the same batch, or with verdicts of its judges that were all known before.
    Hit,
    /// Scored for this request.
    Miss,
}

/// One stage of the rubric.
#[derive(Debug, ToSchema)]
#[schema(as = Stage, example = json!({"name": "tool_parse", "score": 1.0, "weight": 0.1, "threshold": 1.0, "open": true, "passed": true, "detail": {"attempts": 1.0, "malformed": 0.0}}))]
pub(super) struct StageWire<'a> {
    /// Its name in the rubric.
    pub name: &'a str,
    /// Its score, from 0 to 1; 0 where it did not open, or could not be scored (see `errors`).
    pub score: f64,
    /// Its share of the shaped reward at this curriculum position; the weights sum to 1.
    pub weight: f64,
    /// The score that opens the next stage at this curriculum position, from 0 to 1.
    pub threshold: f64,
    /// Whether every earlier stage reached its threshold.
    pub open: bool,
    /// Whether it was scored and reached its threshold.
    pub passed: bool,
    /// Named numbers that the score was made of.
    #[schema(value_type = std::collections::BTreeMap<String, f64>)]
    pub detail: Detail<'a>,
}

/// The answer that was found.
#[derive(Debug, ToSchema)]
#[schema(as = Answer, example = json!({"text": "Paris", "message": 4}))]
pub struct AnswerWire<'a> {
    /// Its text; null where there is none.
    #[schema(required = true)]
    pub text: Option<&'a str>,
    /// Index of its message.
    #[schema(required = true)]
    pub message: Option<usize>,
}

/// What one assistant turn earned.
#[allow(dead_code, reason = "the shape of a `StepReward`, for the document")]
#[derive(Debug, ToSchema)]
#[schema(as = Step, example = json!({"message": 2, "reward": 0.2}))]
pub(super) struct StepWire {
    /// Index of the message.
    pub message: usize,
    /// Its share of the shaped reward.
    pub reward: f64,
}

/// Why a trajectory could not be scored.
#[derive(Debug, Clone, PartialEq, ToSchema)]
#[schema(as = ItemError, example = json!({"code": "item_malformed", "message": "invalid type: integer `5`, expected a string", "pointer": "/trajectories/0/messages/2/role", "stage": null}))]
pub struct ErrorWire<'a> {
    /// One of the closed list: `item_malformed`, `references_missing`, `schema_invalid`, `schema_unsupported`,
    /// `judge_unavailable`, `judge_timeout`, `judge_no_verdict`.
    #[schema(value_type = String, example = "item_malformed")]
    pub code: &'static str,
    /// What is wrong, the value, and the fix.
    pub message: Cow<'a, str>,
    /// JSON pointer into the request. A long one has `…` in its middle, as every pointer in an answer has: 256 bytes are told.
    #[schema(required = true)]
    pub pointer: Option<String>,
    /// The stage in which it came up.
    #[schema(required = true)]
    pub stage: Option<&'a str>,
}

/// Statistics of a group's valid rewards.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Group, example = json!({"group": "q42", "n": 4, "mean": 0.5, "std": 0.5, "value": 0.25}))]
pub struct GroupWire<'a> {
    /// The group's name.
    pub group: Cow<'a, str>,
    /// How many valid rewards.
    pub n: usize,
    /// Their mean; null where there is no valid reward, as the other two.
    #[schema(required = true)]
    pub mean: Option<f64>,
    /// Their population standard deviation (dividing by n).
    #[schema(required = true)]
    pub std: Option<f64>,
    /// VSPO's task value: (largest reward of the rubric - mean) * std.
    #[schema(required = true)]
    pub value: Option<f64>,
}

put!(ResultWire<'_> {
    id, group, reward, valid, stage_reached, failed_stage, reason, stages, metrics, components, tool_calls, parse, answer,
    steps, errors, cache, latency_ms,
} optional { score_id, left_out });
put!(StageWire<'_> { name, score, weight, threshold, open, passed, detail });
put!(AnswerWire<'_> { text, message });
put!(ErrorWire<'_> { code, message, pointer, stage });
put!(StepReward { message, reward });

impl Put for CacheWire {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self {
            Self::Hit => b"\"hit\"",
            Self::Miss => b"\"miss\"",
        });
    }
}

/// What a result needs beside its report.
#[derive(Debug)]
pub struct Naming<'a> {
    /// The trajectory's place in the request.
    pub index: usize,
    /// Its id.
    pub id: Option<Cow<'a, str>>,
    /// Its group.
    pub group: Option<Cow<'a, str>>,
    /// The id of its score.
    pub score_id: Option<String>,
    /// Whether its tool list is its own or the request's.
    pub own_tools: bool,
    /// Where the result came from.
    pub cache: CacheWire,
    /// Time that scoring it took, by the clock, in milliseconds.
    pub latency_ms: f64,
    /// Bytes of the item in the request: what its lists may take goes by them.
    pub bytes: usize,
}

impl<'a> ResultWire<'a> {
    /// The result of a report.
    pub fn new(report: &'a Report<'a>, rubric: &'a Rubric, naming: &'a Naming<'_>) -> Self {
        let words = InWords { report, rubric };
        let stage_name = |index: usize| rubric.stages.get(index).map(|stage| &*stage.name);
        let evidence = report.evidence.as_ref();
        let answer = evidence.and_then(|evidence| evidence.answer.as_ref());
        let lists = evidence.map_or_else(Lists::nothing, |evidence| Lists::of(evidence, naming.bytes));
        Self {
            id: naming.id.as_deref(),
            group: naming.group.as_deref(),
            score_id: naming.score_id.as_deref(),
            reward: report.reward.as_ref().ok().map(|reward| reward.value),
            valid: report.reward.is_ok(),
            stage_reached: report.stage_reached().and_then(stage_name),
            failed_stage: report.failed_stage().and_then(stage_name),
            reason: report.reason(rubric),
            stages: Stages(words),
            metrics: Metrics(words),
            components: Components(words),
            tool_calls: lists.tool_calls,
            parse: lists.parse,
            answer: AnswerWire {
                text: answer.map(|answer| &*answer.text),
                message: answer.map(|answer| answer.message),
            },
            steps: &report.steps,
            errors: report.reward.as_ref().err().map_or_else(Vec::new, |fault| vec![error(fault, rubric, naming)]),
            cache: naming.cache,
            latency_ms: naming.latency_ms,
            left_out: lists.left_out,
        }
    }
}

/// The entry of `errors` for a fault.
pub fn error<'a>(fault: &'a Fault, rubric: &'a Rubric, naming: &Naming<'_>) -> ErrorWire<'a> {
    let item = format!("/trajectories/{}", naming.index);
    let pointer = match &fault.cause.field {
        Some(Field::Trajectory(pointer)) => item + pointer,
        Some(Field::Tools(pointer)) if naming.own_tools => format!("{item}/tools{pointer}"),
        Some(Field::Tools(pointer)) => format!("/tools{pointer}"),
        None => item,
    };
    ErrorWire {
        code: fault.cause.code.as_str(),
        message: Cow::Borrowed(&fault.cause.message),
        // Told once per item, whoever sent it once for all of them.
        pointer: Some(bounded_pointer(&pointer)),
        stage: fault.stage.and_then(|stage| rubric.stages.get(stage)).map(|stage| &*stage.name),
    }
}
