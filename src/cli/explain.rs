//! `gradus rubric explain`: one trajectory's reward, stage by stage, and its text with what was read in it.

use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::judges::LazyJudges;
use super::paint::{Paint, printable, printable_line};
use super::score::{is_request, without_mark};
use crate::http::batch::Engine;
use crate::http::batch::warnings::{self, ItemOutcome};
use crate::http::wire::{Given, Item, Object, Pointed, read_names, read_request};
use crate::judge::Session;
use crate::rubric::Rubric;
use crate::score::Context as ScoreContext;
use crate::score::{Report, WANTED};
use crate::shaping::Position;
use crate::stages::{CallVerdict, ParsedTurn};
use crate::trajectory::{Content, Message, Turn};

/// Characters of somebody else's message that are shown.
const OTHERS_SHOWN: usize = 400;

pub(super) fn run(
    engine: &Engine,
    judges: &LazyJudges,
    rubric: &str,
    path: &Path,
    step: Option<u64>,
) -> anyhow::Result<ExitCode> {
    let rubric = super::named_or_file(&engine.catalog, rubric)?;
    let is_input = path == Path::new("-");
    let text = if is_input { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let whole = without_mark(&text);
    // Of standard input it is not known before whether it has lines.
    let has_lines = path.extension().is_some_and(|extension| extension == "jsonl")
        || is_input && serde_json::from_str::<IgnoredAny>(whole).is_err();
    let first = || whole.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
    let asked = Asked::read(if has_lines { first() } else { whole }, path, step)?;
    if asked.raw.is_empty() {
        bail!("{}: there is no trajectory in it", path.display());
    }
    let format = rubric.reading.format;
    let items: Vec<_> = asked.raw.iter().map(|raw| Given::of(raw.get()).read(asked.tools, format)).collect();
    let found = scored(engine, judges, &rubric, &asked.position, &items)?;
    let outcome = |index: usize| match found.get(index) {
        Some(Ok((_, report))) => ItemOutcome::of(report),
        _ => ItemOutcome::default(),
    };
    for warning in warnings::of(&items, &rubric, &asked.position, outcome) {
        let said = if asked.is_request { warning.to_string() } else { warning.text };
        note!("{}", printable_line(&said));
    }
    let paint = Paint::stdout();
    for (index, (found, raw)) in found.iter().zip(&asked.raw).enumerate() {
        match found {
            Ok((item, report)) => explain(report, &rubric, item, paint),
            Err(wrong) => {
                let place = if asked.is_request { format!("/trajectories/{index}") } else { String::new() };
                let why = Pointed { pointer: format!("{place}{}", wrong.pointer), ..(*wrong).clone() }.to_string();
                let title = paint.bold(title(read_names(raw.get()).0.as_deref(), &rubric));
                say!("{title} {} {}", paint.bad("no reward:"), printable_line(&why));
            }
        }
    }
    Ok(if found.iter().all(Result::is_ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a file asks about.
struct Asked<'t> {
    raw: Vec<&'t RawValue>,
    /// The request's tools; none where there is no request.
    tools: &'t str,
    position: Position,
    is_request: bool,
}

impl<'t> Asked<'t> {
    /// A request with its trajectories, or one trajectory; `step` counts instead of its own.
    fn read(text: &'t str, path: &Path, step: Option<u64>) -> anyhow::Result<Self> {
        if !is_request(text) {
            let raw = serde_json::from_str(text).with_context(|| path.display().to_string())?;
            return Ok(Self {
                raw: vec![raw],
                tools: "",
                position: Position { step, ..Position::default() },
                is_request: false,
            });
        }
        let request = read_request(text)
            .and_then(|request| if step.is_none() { request.check_one_step().map(|()| request) } else { Ok(request) });
        let request =
            request.map_err(|wrong| anyhow::anyhow!("{}: {}", path.display(), printable_line(&wrong.to_string())))?;
        let curriculum = request.curriculum.map(|Object(curriculum)| curriculum).unwrap_or_default();
        let position = Position { step: step.or(curriculum.step).or(request.step), mastery: curriculum.mastery };
        let tools = request.tools.map_or("", RawValue::get);
        Ok(Self { raw: request.trajectories, tools, position, is_request: true })
    }
}

/// A trajectory with the report on it, or why it could not be read.
type Found<'i, 't> = Result<(&'i Item<'t>, Report<'i>), &'i Pointed>;

/// The reports on all that could be read. Their questions are put to the judges together: one may put the answers of a group
/// in order.
fn scored<'i, 't>(
    engine: &Engine,
    judges: &LazyJudges,
    rubric: &Rubric,
    position: &Position,
    items: &'i [Result<Item<'t>, Pointed>],
) -> anyhow::Result<Vec<Found<'i, 't>>> {
    let runtime = super::runtime()?;
    let mut session = Session::default();
    loop {
        let report = |item: &'i Item<'t>| {
            let group = item.group.as_deref();
            let context = ScoreContext { rubric, position, judge: &session, group, unwanted: WANTED };
            let tools = engine.scorer.tools(item.trajectory.tools, rubric);
            (item, engine.scorer.score(&item.trajectory, &tools, context))
        };
        let found = items.iter().map(|item| item.as_ref().map(report)).collect();
        if !runtime.block_on(judges.answer(&mut session, None))? {
            return Ok(found);
        }
    }
}

/// Whose reward it is, and by which rubric.
fn title(id: Option<&str>, rubric: &Rubric) -> String {
    let id = id.filter(|id| !id.is_empty()).map_or_else(String::new, |id| format!("{} ", printable_line(id)));
    format!("{id}by {}@{}", rubric.name, rubric.version)
}

fn explain(report: &Report<'_>, rubric: &Rubric, item: &Item<'_>, paint: Paint) {
    let title = paint.bold(title(item.id.as_deref(), rubric));
    match &report.reward {
        Ok(reward) => say!("{title} {}", paint.bold(format!("reward {:.4}", reward.value))),
        Err(fault) => say!("{title} {} {}", paint.bad("no reward:"), printable_line(&fault.cause.message)),
    }
    stages(report, rubric, paint);
    if let Some(reason) = report.reason(rubric) {
        say!("  {}", paint.bad(printable_line(&reason)));
    }
    say!("");
    messages(report, item, paint);
}

fn stages(report: &Report<'_>, rubric: &Rubric, paint: Paint) {
    let width = rubric.stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0).max(5);
    let (base, span) = (rubric.range.min(), rubric.range.max() - rubric.range.min());
    // What a stage adds is told in units of the reward, like all below it.
    let scale = if span == 1.0 { String::new() } else { format!(" x {span}") };
    say!("  {:width$}  {:>6} x {:>6}{scale} = {:>7}  {:>9}", "stage", "score", "weight", "adds", "threshold");
    if base != 0.0 {
        say!("  {:width$}  {:>6}   {:>6}{:pad$}   {base:>7.4}", "base", "", "", "", pad = scale.len());
    }
    for (index, (stage, plan)) in rubric.stages.iter().zip(&report.plan).enumerate() {
        let line = match report.outcomes.get(index) {
            Some(outcome) => {
                let score = outcome.score.get();
                let adds = score * plan.weight * span;
                let detail: Vec<_> = outcome.detail.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
                let line = format!(
                    "{:width$}  {score:>6.3} x {:>6.3}{scale} = {adds:>7.4}  {:>9.3}  {}",
                    stage.name,
                    plan.weight,
                    plan.threshold,
                    detail.join(", ")
                );
                if report.passed(index) { paint.good(line) } else { paint.bad(line) }
            }
            None if report.stage_reached() == Some(index) => {
                paint.bad(format!("{:width$}  could not be scored", stage.name))
            }
            None => paint.dim(format!("{:width$}  closed", stage.name)),
        };
        say!("  {line}");
    }
    if let Ok(reward) = &report.reward {
        for ((name, _), value) in rubric.penalties.iter().zip(&reward.penalties) {
            say!("  {name:width$}  takes {value:.4}");
        }
        if reward.clamp != 0.0 {
            say!("  {:width$}  {:+.4}", "clamp", reward.clamp);
        }
    }
}

fn messages(report: &Report<'_>, item: &Item<'_>, paint: Paint) {
    for (index, message) in item.trajectory.messages.iter().enumerate() {
        match message {
            Message::Other { role, content } => {
                let text = shown(content);
                say!("{}", paint.dim(format!("[{index}] {role:?}: {text}")));
            }
            Message::Policy(turn) => {
                let evidence = report.evidence.as_ref();
                let parsed = evidence.and_then(|e| e.turns.iter().find(|parsed| parsed.message == index));
                let answer = evidence.and_then(|e| e.answer.as_ref()).filter(|answer| answer.message == index);
                let answer = answer.map(|answer| answer.span.start - turn.offset..answer.span.end - turn.offset);
                say!("{}", paint.bold(format!("[{index}] policy")));
                policy(turn, parsed, answer, paint);
            }
        }
    }
}

fn shown(content: &Content<'_>) -> String {
    let text = content.text();
    let mut short: String = text.chars().take(OTHERS_SHOWN).collect();
    if short.len() < text.len() {
        short.push_str(" ..");
    }
    printable(&short)
}

/// What a stretch of policy text is.
#[derive(Clone, Copy)]
enum Kind {
    Reasoning,
    Good,
    Bad,
    Answer,
}

fn policy(turn: &Turn<'_>, parsed: Option<&ParsedTurn<'_>>, answer: Option<Range<usize>>, paint: Paint) {
    let mut marks: Vec<(Range<usize>, Kind)> = Vec::new();
    if let Some(parsed) = parsed {
        marks.extend(parsed.parsed.reasoning.iter().map(|span| (span.clone(), Kind::Reasoning)));
        if turn.native_calls.is_none() {
            marks.extend(parsed.parsed.attempts.iter().zip(&parsed.verdicts).map(|(attempt, verdict)| {
                let good = matches!(verdict, CallVerdict::Valid);
                (attempt.span.clone(), if good { Kind::Good } else { Kind::Bad })
            }));
        }
    }
    marks.extend(answer.map(|span| (span, Kind::Answer)));
    marks.sort_by_key(|(span, _)| (span.start, span.end));
    let (mut out, mut at) = (String::new(), 0);
    for (span, kind) in marks.into_iter().filter(|(span, _)| span.start < span.end) {
        let (Some(before), Some(inside)) = (turn.text.get(at..span.start), turn.text.get(span.clone())) else {
            continue;
        };
        out.push_str(&printable(before));
        let inside = printable(inside);
        out.push_str(&match kind {
            Kind::Reasoning => paint.dim(inside),
            Kind::Good => paint.good(inside),
            Kind::Bad => paint.bad(inside),
            Kind::Answer => paint.answer(inside),
        });
        at = span.end;
    }
    out.push_str(&printable(turn.text.get(at..).unwrap_or("")));
    say!("{out}");
    for call in parsed.into_iter().flat_map(|parsed| parsed.parsed.attempts.iter().zip(&parsed.verdicts)) {
        say!("  {}", call_line(call.0, call.1, paint));
    }
}

fn call_line(attempt: &crate::toolcall::Attempt<'_>, verdict: &CallVerdict, paint: Paint) -> String {
    let name = attempt.result.as_ref().map_or("?", |call| &call.name);
    let name = printable_line(name);
    match (verdict, &attempt.result) {
        (CallVerdict::Valid, _) if attempt.repairs.is_empty() => paint.good(format!("call {name}: valid")),
        (CallVerdict::Valid, _) => paint.good(format!("call {name}: valid after repairs")),
        (CallVerdict::UnknownTool, _) => paint.bad(format!("call {name}: no such tool")),
        (CallVerdict::Violations(all), _) => {
            let all: Vec<_> = all.iter().map(|v| format!("{:?} {}", v.pointer, v.message)).collect();
            paint.bad(format!("call {name}: {}", printable_line(&all.join("; "))))
        }
        (CallVerdict::TooCostly(problem) | CallVerdict::Problem { problem, .. }, _) => {
            paint.bad(format!("call {name}: {}", printable_line(&problem.message)))
        }
        (CallVerdict::Malformed, Err(malformed)) => {
            paint.bad(format!("call malformed ({}): {}", malformed.code.as_str(), printable_line(&malformed.message)))
        }
        (CallVerdict::Malformed, Ok(_)) => String::new(),
    }
}
