//! The stages: what each one asks of a trajectory and how it scores the answer.
//!
//! In: the [`Evidence`] read from a trajectory, and the outcomes of earlier stages. Out: a [`UnitScore`] with what
//! it was made of, or the reason why there is none. Pure: the judge is a port ([`Judge`]) that the caller fills.
//! Knows no weights, thresholds or rubric files.

pub(crate) mod arithmetic;
mod equal;
mod evidence;
mod expr;
mod judge;
mod tool_match;

pub use arithmetic::{ExprError, MAX_EXPR_BYTES};
pub(crate) use equal::{identity, json_equal};
pub use evidence::{Answer, CallVerdict, Evidence, ParsedTurn, Reading};
pub use expr::Expr;
pub use judge::{
    Answer as JudgeAnswer, Judge, JudgeKind, JudgeMode, JudgeStage, Label, Panel, Question, Unavailable,
    UnavailableCode, Verdict,
};
pub(crate) use tool_match::MAX_MATCHED_CALLS;
pub use tool_match::{MatchMode, ToolMatch};

use std::borrow::Cow;

use crate::text::{Bleu, LaBleu};
use crate::toolcall::ErrorCode;

/// What the rounding of a sum may take from a score: `0.6 + 0.3 + 0.1` is less than 1 to a computer.
const ROUNDING: f64 = 1e-12;

/// A score: finite, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct UnitScore(f64);

impl UnitScore {
    /// The lowest score.
    pub const ZERO: Self = Self(0.0);
    /// The highest score.
    pub const ONE: Self = Self(1.0);

    /// The score, if the value is finite and from 0 to 1.
    pub fn new(value: f64) -> Option<Self> {
        // Adding zero turns -0.0 into 0.0.
        (0.0..=1.0).contains(&value).then_some(Self(value + 0.0))
    }

    /// The score nearest to the value; not-a-number is 0, and what only rounding keeps from 1 is 1.
    pub fn clamped(value: f64) -> Self {
        match value {
            _ if value.is_nan() => Self::ZERO,
            _ if value >= 1.0 - ROUNDING => Self::ONE,
            _ => Self(value.max(0.0) + 0.0),
        }
    }

    /// Whether it is as large as a threshold, but for rounding.
    pub fn reaches(self, threshold: f64) -> bool {
        self.0 >= threshold - ROUNDING
    }

    /// 1 for true.
    pub fn from_bool(value: bool) -> Self {
        if value { Self::ONE } else { Self::ZERO }
    }

    /// The value, from 0 to 1.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// A measure that needs no model: usable as a stage, in an expression, and as a reported metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// Share of the call attempts that parse; open reasoning counts as an attempt that does not.
    ToolParse {
        /// What a call that had to be repaired earns, from 0 to 1.
        repaired_credit: f64,
    },
    /// Share of the call attempts that are calls of an offered tool with arguments that satisfy its schema.
    ToolSchema,
    /// Calls against the reference calls.
    ToolMatch(ToolMatch),
    /// 1 if the answer is where it should be.
    AnswerFormat,
    /// `SQuAD` exact match, best reference.
    ExactMatch,
    /// `SQuAD` token F1, best reference.
    F1,
    /// Sentence BLEU over all references.
    Bleu(Bleu),
    /// Length-aware BLEU with floor and cap, best reference.
    LaBleu(LaBleu),
}

/// What a stage asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// One of the measures.
    Measure(Measure),
    /// A judge's verdict on the answer.
    Judge(JudgeStage),
    /// The 0-1 reward of the paper's baselines: a measure or a judge's verdict, cut at a threshold.
    Binary {
        /// What is cut.
        of: Box<Stage>,
        /// From here on it is 1; from 0 to 1.
        threshold: f64,
    },
    /// Arithmetic over earlier stages and measures.
    Expr(Expr),
}

/// A stage's score and what it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The score.
    pub score: UnitScore,
    /// Named numbers that explain it.
    pub detail: Vec<(Cow<'static, str>, f64)>,
    /// Of a judge's verdict: whether it was known before.
    pub cached: Option<bool>,
}

impl Outcome {
    fn plain(score: UnitScore) -> Self {
        Self { score, detail: Vec::new(), cached: None }
    }
}

/// Numbers under fixed names.
fn named<const N: usize>(numbers: [(&'static str, f64); N]) -> Vec<(Cow<'static, str>, f64)> {
    numbers.into_iter().map(|(name, number)| (Cow::Borrowed(name), number)).collect()
}

/// Which part of the request is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A JSON pointer into the trajectory.
    Trajectory(String),
    /// A JSON pointer into the tool list, wherever that came from.
    Tools(String),
}

/// Why a stage has no score: the request's or the judge's fault, never the policy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoScore {
    /// What kind of fault.
    pub code: NoScoreCode,
    /// What failed, the value, and the fix.
    pub message: String,
    /// The field at fault.
    pub field: Option<Field>,
}

/// The kinds of [`NoScore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoScoreCode {
    /// The trajectory or its tool list has the wrong shape.
    ItemMalformed,
    /// The stage compares with references, and there are none.
    ReferencesMissing,
    /// A called tool's schema is no schema.
    SchemaInvalid,
    /// A called tool's schema is beyond the limits on what is evaluated.
    SchemaUnsupported,
    /// No judge is configured.
    JudgeUnavailable,
    /// The judge did not answer in time.
    JudgeTimeout,
    /// The judge answered without a verdict.
    JudgeNoVerdict,
    /// The judge is still to be asked. Never leaves the program: whoever scores asks it and scores again.
    JudgePending,
}

impl NoScoreCode {
    /// Every code that a client can see.
    pub const ALL: [Self; 7] = [
        Self::ItemMalformed,
        Self::ReferencesMissing,
        Self::SchemaInvalid,
        Self::SchemaUnsupported,
        Self::JudgeUnavailable,
        Self::JudgeTimeout,
        Self::JudgeNoVerdict,
    ];

    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ItemMalformed => "item_malformed",
            Self::ReferencesMissing => "references_missing",
            Self::SchemaInvalid => ErrorCode::SchemaInvalid.as_str(),
            Self::SchemaUnsupported => ErrorCode::SchemaUnsupported.as_str(),
            Self::JudgeUnavailable => "judge_unavailable",
            Self::JudgeTimeout => "judge_timeout",
            Self::JudgeNoVerdict => "judge_no_verdict",
            Self::JudgePending => "judge_pending",
        }
    }

    /// Whether asking again later may help: the judge's fault, not the request's.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::JudgeUnavailable | Self::JudgeTimeout | Self::JudgeNoVerdict)
    }
}

impl From<Unavailable> for NoScore {
    fn from(unavailable: Unavailable) -> Self {
        let code = match unavailable.code {
            UnavailableCode::NotConfigured => NoScoreCode::JudgeUnavailable,
            UnavailableCode::Timeout => NoScoreCode::JudgeTimeout,
            UnavailableCode::NoVerdict => NoScoreCode::JudgeNoVerdict,
        };
        Self { code, message: unavailable.message, field: None }
    }
}

impl Stage {
    /// What is scored before anything is cut.
    fn uncut(&self) -> &Self {
        match self {
            Self::Binary { of, .. } => of.uncut(),
            _ => self,
        }
    }

    /// The judge that it asks; of a binary one, that whose score it cuts.
    pub fn judge(&self) -> Option<&JudgeStage> {
        if let Self::Judge(judge) = self.uncut() { Some(judge) } else { None }
    }

    /// The measure that it is made of: itself, or what is cut.
    pub fn measure(&self) -> Option<&Measure> {
        if let Self::Measure(measure) = self.uncut() { Some(measure) } else { None }
    }

    /// Scores the evidence. `earlier` looks up the score of an earlier stage by its place in the rubric.
    ///
    /// # Errors
    /// When there is nothing to score with: no references, a broken schema, no verdict.
    pub fn score(
        &self,
        evidence: &Evidence<'_>,
        earlier: &dyn Fn(usize) -> UnitScore,
        judge: &dyn Judge,
    ) -> Result<Outcome, NoScore> {
        match self {
            Self::Measure(measure) => measure.score(evidence),
            Self::Judge(stage) => stage.score(evidence, judge),
            Self::Binary { of, threshold } => {
                let inner = of.score(evidence, earlier, judge)?;
                let mut detail = inner.detail;
                detail.push((Cow::Borrowed("of"), inner.score.get()));
                Ok(Outcome {
                    score: UnitScore::from_bool(inner.score.reaches(*threshold)),
                    detail,
                    cached: inner.cached,
                })
            }
            Self::Expr(expr) => expr.score(evidence, earlier).map(Outcome::plain),
        }
    }

    /// Whether the score is about the answer's text.
    pub fn asks_for_answer(&self) -> bool {
        self.judge().is_some() || self.measure().is_some_and(Measure::compares_with_references)
    }

    /// Whether the score compares with the trajectory's references, and there is none without one.
    pub fn needs_references(&self) -> bool {
        self.judge().is_some_and(JudgeStage::needs_references) || self.takes(Measure::compares_with_references)
    }

    /// Whether the score compares with the trajectory's reference calls, and there is none without them.
    pub fn needs_reference_calls(&self) -> bool {
        self.takes(|measure| matches!(measure, Measure::ToolMatch(_)))
    }

    /// Whether the score asks what tools the calls are of.
    pub fn needs_tools(&self) -> bool {
        self.takes(|measure| match measure {
            Measure::ToolSchema => true,
            Measure::ToolMatch(config) => config.invalid_credit < 1.0,
            _ => false,
        })
    }

    /// Whether a measure that it is made of is such a one.
    fn takes(&self, such: fn(&Measure) -> bool) -> bool {
        match self.uncut() {
            Self::Expr(expr) => expr.takes(such),
            stage => stage.measure().is_some_and(such),
        }
    }

    /// Whether the score depends on the other answers of the group.
    pub fn ranks(&self) -> bool {
        self.judge().is_some_and(|judge| matches!(judge.mode, JudgeMode::Rank))
    }
}

impl Measure {
    /// Whether it compares the answer's text with the trajectory's references.
    fn compares_with_references(&self) -> bool {
        matches!(self, Self::ExactMatch | Self::F1 | Self::Bleu(_) | Self::LaBleu(_))
    }

    /// Scores the evidence.
    ///
    /// # Errors
    /// When the references it needs are missing, or a called tool has a broken schema.
    pub fn score(&self, evidence: &Evidence<'_>) -> Result<Outcome, NoScore> {
        match self {
            Self::ToolParse { repaired_credit } => Ok(tool_parse(evidence, *repaired_credit)),
            Self::ToolSchema => tool_schema(evidence),
            Self::ToolMatch(config) => config.score(evidence),
            Self::AnswerFormat => Ok(Outcome::plain(UnitScore::from_bool(evidence.answer_in_place()))),
            Self::ExactMatch => Ok(Outcome::plain(UnitScore::from_bool(evidence.squad()?.exact_match))),
            Self::F1 => Ok(Outcome::plain(UnitScore::clamped(evidence.squad()?.f1))),
            Self::Bleu(bleu) => against_references(evidence, |answer, references| bleu.sentence(answer, references)),
            Self::LaBleu(_) if evidence.squad()?.exact_match => Ok(Outcome::plain(UnitScore::ONE)),
            Self::LaBleu(la_bleu) => against_references(evidence, |answer, references| {
                la_bleu.partial_credit(la_bleu.similarity(answer, references))
            }),
        }
    }
}

/// Degenerate case: no attempt and closed reasoning scores 1, since nothing failed to parse.
fn tool_parse(evidence: &Evidence<'_>, repaired_credit: f64) -> Outcome {
    let (credit, attempts) = evidence.turns.iter().fold((0.0, 0), |(credit, attempts), turn| {
        (credit + turn.parse_credit(repaired_credit), attempts + turn.attempts())
    });
    let score = if attempts == 0 { 1.0 } else { credit / attempts as f64 };
    let faults: usize = evidence.turns.iter().map(ParsedTurn::faults).sum();
    let malformed: usize = evidence.turns.iter().map(ParsedTurn::malformed).sum();
    let mut detail = named([("attempts", (attempts - faults) as f64), ("malformed", malformed as f64)]);
    if faults > 0 {
        detail.push((Cow::Borrowed("faults"), faults as f64));
    }
    Outcome { score: UnitScore::clamped(score), detail, cached: None }
}

/// A call that does not parse satisfies no schema: to break one never pays. Degenerate case: no attempt at a call scores 1;
/// whether there should have been one is `tool_match`'s question.
fn tool_schema(evidence: &Evidence<'_>) -> Result<Outcome, NoScore> {
    let (mut calls, mut valid) = (0_usize, 0_usize);
    for verdict in evidence.verdicts() {
        match verdict {
            CallVerdict::Valid => valid += 1,
            CallVerdict::Malformed
            | CallVerdict::UnknownTool
            | CallVerdict::Violations(_)
            | CallVerdict::TooCostly(_) => {}
            CallVerdict::Problem { problem, pointer } => return Err(evidence::schema_no_score(problem, pointer)),
        }
        calls += 1;
    }
    let score = if calls == 0 { 1.0 } else { valid as f64 / calls as f64 };
    let detail = named([("calls", calls as f64), ("valid", valid as f64)]);
    Ok(Outcome { score: UnitScore::clamped(score), detail, cached: None })
}

/// A policy that gave no answer scores 0; a request that gave no reference has no score.
fn against_references(
    evidence: &Evidence<'_>,
    measure: impl Fn(&str, &[std::borrow::Cow<'_, str>]) -> f64,
) -> Result<Outcome, NoScore> {
    let references = evidence.references()?;
    let score = evidence.answer.as_ref().map_or(0.0, |answer| measure(&answer.text, references));
    Ok(Outcome::plain(UnitScore::clamped(score)))
}
