//! Writing results: the JSON of a [`Report`], and of everything around it.
//!
//! Fields are borrowed from the report, so that writing is the only copy. Every number is finite: a NaN or an infinity
//! would silently become `null`, and none can reach these types.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;

use super::json::{Put, put};

use crate::rubric::Rubric;
use crate::score::{Fault, Report, StepReward};
use crate::stages::{CallVerdict, Evidence, Field, ParsedTurn};
use crate::toolcall::{Attempt, ErrorCode};

/// Names with numbers, written as an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Named<'a>(pub Vec<(&'a str, f64)>);

/// The numbers that a stage's score was made of, written as an object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detail<'a>(pub &'a [(Cow<'static, str>, f64)]);

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
    pub id: Option<&'a str>,
    /// The trajectory's `group`, as sent.
    pub group: Option<&'a str>,
    /// Names this score in `GET /scores/{id}`; absent where nothing is stored.
    #[schema(required = false)]
    pub score_id: Option<&'a str>,
    /// The reward, within the rubric's range; for an item that could not be scored, what `on_invalid` says.
    pub reward: Option<f64>,
    /// Whether the trajectory could be scored. A wrong, unparseable or missing answer is scored, low.
    pub valid: bool,
    /// The last stage that opened.
    pub stage_reached: Option<&'a str>,
    /// The stage that was scored below its threshold and closed the ones after it.
    pub failed_stage: Option<&'a str>,
    /// Why it failed, in words.
    pub reason: Option<String>,
    /// Every stage of the rubric, in order.
    pub stages: Vec<StageWire<'a>>,
    /// Score per stage and reported measure, the same keys for every result of a rubric version; 0 where not reached.
    #[schema(value_type = std::collections::BTreeMap<String, f64>)]
    pub metrics: Named<'a>,
    /// What the reward is made of, in reward units: stages, penalties (negative), and `base` and `clamp` where the
    /// rubric can have them. They sum to `reward`.
    #[schema(value_type = std::collections::BTreeMap<String, f64>)]
    pub components: Named<'a>,
    /// Every call attempt in order, malformed ones too.
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
    /// Time that scoring this trajectory took, in milliseconds; 0 for a hit.
    pub latency_ms: f64,
}

/// Where a result came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Cache, example = json!("miss"))]
pub enum CacheWire {
    /// From an equal trajectory of the same batch.
    Hit,
    /// Scored for this request.
    Miss,
}

/// One stage of the rubric.
#[derive(Debug, ToSchema)]
#[schema(as = Stage, example = json!({"name": "tool_parse", "score": 1.0, "weight": 0.1, "threshold": 1.0, "open": true, "passed": true, "detail": {"attempts": 1.0, "malformed": 0.0}}))]
pub struct StageWire<'a> {
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

/// One call attempt.
#[allow(clippy::struct_excessive_bools, reason = "the API's shape: four answers to four questions")]
#[derive(Debug, ToSchema)]
#[schema(as = ToolCall, example = json!({"message": 2, "index": 0, "span": [17, 99], "name": "search", "arguments": {"query": "capital of France"}, "parsed": true, "known": true, "schema_valid": true, "errors": []}))]
pub struct ToolCallWire<'a> {
    /// Index of its message.
    pub message: usize,
    /// Its place among the attempts of that message, from 0.
    pub index: usize,
    /// Start and end in bytes of the message's text (of `response` where that was sent; of the raw `tool_calls` array for
    /// native calls).
    pub span: [usize; 2],
    /// The tool's name, where it could be read.
    pub name: Option<&'a str>,
    /// The decoded arguments; null for a malformed attempt.
    #[schema(value_type = Option<crate::http::schema::JsonObject>)]
    pub arguments: Option<&'a serde_json::Value>,
    /// Whether it is well-formed.
    pub parsed: bool,
    /// Whether it is well-formed and the tool is offered.
    pub known: bool,
    /// Whether the arguments satisfy the tool's schema.
    pub schema_valid: bool,
    /// Whether it parses only after repairs (tolerant mode).
    #[schema(required = false)]
    pub repaired: bool,
    /// What was repaired.
    #[schema(required = false)]
    pub repairs: Vec<&'static str>,
    /// What is wrong with it.
    pub errors: Vec<CallErrorWire<'a>>,
}

/// What is wrong with a call.
#[derive(Debug, ToSchema)]
#[schema(as = CallError, example = json!({"code": "schema_violation", "message": "\"five\" is not of type \"integer\"", "pointer": "/top_k", "schema_pointer": "/properties/top_k/type"}))]
pub struct CallErrorWire<'a> {
    /// One of the closed list of codes.
    #[schema(value_type = String, example = "json_syntax")]
    pub code: &'static str,
    /// What is wrong, for a human.
    pub message: Cow<'a, str>,
    /// JSON pointer into the arguments, for schema errors.
    #[schema(required = false)]
    pub pointer: Option<&'a str>,
    /// JSON pointer into the schema, for schema errors.
    #[schema(required = false)]
    pub schema_pointer: Option<&'a str>,
}

/// Whether everything parsed.
#[derive(Debug, ToSchema)]
#[schema(as = Parse, example = json!({"ok": true, "format": "hermes", "attempts": 1, "errors": []}))]
pub struct ParseWire<'a> {
    /// False if a call attempt is malformed, reasoning stays open, or there are too many calls.
    pub ok: bool,
    /// The format that was read; null where no turn has a call.
    pub format: Option<&'static str>,
    /// Call attempts in all turns.
    pub attempts: usize,
    /// What makes `ok` false.
    pub errors: Vec<ParseErrorWire<'a>>,
}

/// Something that does not parse.
#[derive(Debug, ToSchema)]
#[schema(as = ParseError, example = json!({"code": "reasoning_open", "message": "reasoning is never closed", "message_index": 2, "span": [0, 512]}))]
pub struct ParseErrorWire<'a> {
    /// One of the closed list of codes.
    #[schema(value_type = String, example = "reasoning_open")]
    pub code: &'static str,
    /// What is wrong, for a human.
    pub message: Cow<'a, str>,
    /// Index of the message, as in `tool_calls`.
    pub message_index: usize,
    /// Start and end in bytes, as in `tool_calls`.
    pub span: [usize; 2],
}

/// The answer that was found.
#[derive(Debug, ToSchema)]
#[schema(as = Answer, example = json!({"text": "Paris", "message": 4}))]
pub struct AnswerWire<'a> {
    /// Its text; null where there is none.
    pub text: Option<&'a str>,
    /// Index of its message.
    pub message: Option<usize>,
}

/// What one assistant turn earned.
#[allow(dead_code, reason = "the shape of a `StepReward`, for the document")]
#[derive(Debug, ToSchema)]
#[schema(as = Step, example = json!({"message": 2, "reward": 0.2}))]
pub struct StepWire {
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
    /// JSON pointer into the request.
    pub pointer: Option<String>,
    /// The stage in which it came up.
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
    /// Their mean.
    pub mean: f64,
    /// Their population standard deviation (dividing by n).
    pub std: f64,
    /// VSPO's task value: (largest reward of the rubric - mean) * std.
    pub value: f64,
}

put!(ResultWire {
    id, group, reward, valid, stage_reached, failed_stage, reason, stages, metrics, components, tool_calls, parse, answer,
    steps, errors, cache, latency_ms,
} optional { score_id });
put!(StageWire { name, score, weight, threshold, open, passed, detail } optional {});
put!(ToolCallWire { message, index, span, name, arguments, parsed, known, schema_valid, errors } optional { repaired, repairs });
put!(CallErrorWire { code, message } optional { pointer, schema_pointer });
put!(ParseWire { ok, format, attempts, errors } optional {});
put!(ParseErrorWire { code, message, message_index, span } optional {});
put!(AnswerWire { text, message } optional {});
put!(ErrorWire { code, message, pointer, stage } optional {});

impl Put for StepReward {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"message\":");
        self.message.put(out);
        out.extend_from_slice(b",\"reward\":");
        self.reward.put(out);
        out.push(b'}');
    }
}

impl Put for CacheWire {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self {
            Self::Hit => b"\"hit\"",
            Self::Miss => b"\"miss\"",
        });
    }
}

/// What a result needs beside its report.
#[derive(Debug, Clone, Copy)]
pub struct Naming<'a> {
    /// The trajectory's place in the request.
    pub index: usize,
    /// Its id.
    pub id: Option<&'a str>,
    /// Its group.
    pub group: Option<&'a str>,
    /// The id of its score.
    pub score_id: Option<&'a str>,
    /// Whether its tool list is its own or the request's.
    pub own_tools: bool,
    /// Where the result came from.
    pub cache: CacheWire,
    /// CPU time in milliseconds.
    pub latency_ms: f64,
}

impl<'a> ResultWire<'a> {
    /// The result of a report.
    pub fn new(report: &'a Report<'a>, rubric: &'a Rubric, naming: Naming<'a>) -> Self {
        let stage_name = |index: usize| rubric.stages.get(index).map(|stage| &*stage.name);
        let evidence = report.evidence.as_ref();
        let answer = evidence.and_then(|evidence| evidence.answer.as_ref());
        Self {
            id: naming.id,
            group: naming.group,
            score_id: naming.score_id,
            reward: report.reward.as_ref().ok().map(|reward| reward.value),
            valid: report.reward.is_ok(),
            stage_reached: report.stage_reached().and_then(stage_name),
            failed_stage: report.failed_stage().and_then(stage_name),
            reason: report.reason(rubric),
            stages: stages(report, rubric),
            metrics: metrics(report, rubric),
            components: components(report, rubric),
            tool_calls: evidence.map_or_else(Vec::new, tool_calls),
            parse: evidence.map_or(ParseWire { ok: false, format: None, attempts: 0, errors: Vec::new() }, parse),
            answer: AnswerWire {
                text: answer.map(|answer| &*answer.text),
                message: answer.map(|answer| answer.message),
            },
            steps: &report.steps,
            errors: report.reward.as_ref().err().map_or_else(Vec::new, |fault| vec![error(fault, rubric, &naming)]),
            cache: naming.cache,
            latency_ms: naming.latency_ms,
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
        pointer: Some(pointer),
        stage: fault.stage.and_then(|stage| rubric.stages.get(stage)).map(|stage| &*stage.name),
    }
}

fn stages<'a>(report: &'a Report<'_>, rubric: &'a Rubric) -> Vec<StageWire<'a>> {
    let reached = report.stage_reached();
    let stage = |(index, (stage, plan)): (usize, (&'a crate::rubric::RubricStage, &crate::shaping::StagePlan))| {
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
    };
    rubric.stages.iter().zip(&report.plan).enumerate().map(stage).collect()
}

fn metrics<'a>(report: &Report<'_>, rubric: &'a Rubric) -> Named<'a> {
    let score = |index: usize| report.outcomes.get(index).map_or(0.0, |outcome| outcome.score.get());
    let stages = rubric.stages.iter().enumerate().map(|(index, stage)| (&*stage.name, score(index)));
    let extra = rubric.report.iter().zip(&report.extra).map(|((name, _), value)| (&**name, *value));
    Named(stages.chain(extra).collect())
}

fn components<'a>(report: &Report<'_>, rubric: &'a Rubric) -> Named<'a> {
    let Ok(reward) = &report.reward else { return Named(Vec::new()) };
    let mut all = Vec::with_capacity(rubric.stages.len() + rubric.penalties.len() + 2);
    if reward.base != 0.0 {
        all.push(("base", reward.base));
    }
    all.extend(rubric.stages.iter().zip(&reward.components).map(|(stage, value)| (&*stage.name, *value)));
    // 0 - 0 is 0, where -0.0 would be written as such.
    all.extend(rubric.penalties.iter().zip(&reward.penalties).map(|((name, _), value)| (&**name, 0.0 - *value)));
    if !rubric.penalties.is_empty() {
        all.push(("clamp", reward.clamp));
    }
    Named(all)
}

fn tool_calls<'a>(evidence: &'a Evidence<'_>) -> Vec<ToolCallWire<'a>> {
    let mut all = Vec::with_capacity(evidence.turns.iter().map(|turn| turn.parsed.attempts.len()).sum());
    for turn in &evidence.turns {
        let attempts = turn.parsed.attempts.iter().zip(&turn.verdicts).enumerate();
        all.extend(attempts.map(|(index, (attempt, verdict))| tool_call(turn, index, attempt, verdict)));
    }
    all
}

fn tool_call<'a>(
    turn: &ParsedTurn<'_>,
    index: usize,
    attempt: &'a Attempt<'_>,
    verdict: &'a CallVerdict,
) -> ToolCallWire<'a> {
    let call = attempt.result.as_ref().ok();
    let name = match &attempt.result {
        Ok(call) => Some(&*call.name),
        Err(malformed) => malformed.name.as_deref(),
    };
    ToolCallWire {
        message: turn.message,
        index,
        span: [attempt.span.start + turn.offset, attempt.span.end + turn.offset],
        name,
        arguments: call.map(|call| &call.arguments),
        parsed: call.is_some(),
        known: !matches!(verdict, CallVerdict::Malformed | CallVerdict::UnknownTool),
        schema_valid: matches!(verdict, CallVerdict::Valid),
        repaired: !attempt.repairs.is_empty(),
        repairs: attempt.repairs.iter().map(|repair| repair.as_str()).collect(),
        errors: call_errors(attempt, verdict),
    }
}

fn call_errors<'a>(attempt: &'a Attempt<'_>, verdict: &'a CallVerdict) -> Vec<CallErrorWire<'a>> {
    let plain = |code: &'static str, message: Cow<'a, str>| CallErrorWire {
        code,
        message,
        pointer: None,
        schema_pointer: None,
    };
    match (verdict, &attempt.result) {
        (_, Err(malformed)) => vec![plain(malformed.code.as_str(), Cow::Borrowed(&malformed.message))],
        (CallVerdict::Valid | CallVerdict::Malformed, Ok(_)) => Vec::new(),
        (CallVerdict::UnknownTool, Ok(call)) => {
            let message = format!("the tool {:?} is not offered", call.short_name());
            vec![plain(ErrorCode::UnknownTool.as_str(), message.into())]
        }
        (CallVerdict::Violations(violations), Ok(_)) => violations
            .iter()
            .map(|violation| CallErrorWire {
                code: ErrorCode::SchemaViolation.as_str(),
                message: Cow::Borrowed(&violation.message),
                pointer: Some(&violation.pointer),
                schema_pointer: Some(&violation.schema_pointer),
            })
            .collect(),
        (CallVerdict::TooCostly(problem) | CallVerdict::Problem { problem, .. }, Ok(_)) => {
            vec![CallErrorWire {
                code: problem.code.as_str(),
                message: Cow::Borrowed(&problem.message),
                pointer: None,
                schema_pointer: Some(&problem.pointer),
            }]
        }
    }
}

fn parse<'a>(evidence: &'a Evidence<'_>) -> ParseWire<'a> {
    let errors: Vec<_> = evidence.turns.iter().flat_map(parse_errors).collect();
    ParseWire {
        ok: errors.is_empty(),
        format: evidence.format.map(crate::trajectory::ToolFormat::as_str),
        attempts: evidence.turns.iter().map(|turn| turn.parsed.attempts.len()).sum(),
        errors,
    }
}

fn parse_errors<'a>(turn: &'a ParsedTurn<'_>) -> impl Iterator<Item = ParseErrorWire<'a>> {
    let entry = |code: ErrorCode, message: Cow<'a, str>, span: &std::ops::Range<usize>| ParseErrorWire {
        code: code.as_str(),
        message,
        message_index: turn.message,
        span: [span.start + turn.offset, span.end + turn.offset],
    };
    let malformed = turn.parsed.attempts.iter().filter_map(move |attempt| {
        let malformed = attempt.result.as_ref().err()?;
        Some(entry(malformed.code, Cow::Borrowed(&malformed.message), &attempt.span))
    });
    let open = turn.parsed.reasoning_open.as_ref();
    let open = open.map(move |span| entry(ErrorCode::ReasoningOpen, "reasoning is never closed".into(), span));
    malformed.chain(open)
}
