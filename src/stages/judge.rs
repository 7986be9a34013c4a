//! The judge's port: a question goes in; a verdict, the reason for none, or "not yet" comes out. Who answers, and how, is
//! not known here.

use std::borrow::Cow;

use super::{Evidence, NoScore, NoScoreCode, Outcome, UnitScore};
use crate::trajectory::Message;

/// A stage that asks a judge about the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeStage {
    /// What the judge is to look for, in words.
    pub criteria: String,
    /// How it is asked, and how its answer becomes a score.
    pub mode: JudgeMode,
    /// The prompt's template; `None` for the mode's own.
    pub prompt: Option<String>,
    /// The judges by name; several make a panel. At least one.
    pub judges: Vec<String>,
    /// How a panel's scores become one.
    pub panel: Panel,
    /// Probability outside the labels above which there is no verdict, from 0 to 1.
    pub max_outside: f64,
}

/// How a judge is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum JudgeMode {
    /// The probabilities of labels as the next token; the score is their mean value.
    LabelLogprob {
        /// What the judge may say.
        labels: Vec<Label>,
    },
    /// The same with the labels Match and Mismatch, against the references.
    Match,
    /// Reasoning, then a label.
    Generate {
        /// What the judge may say.
        labels: Vec<Label>,
        /// Most tokens of reasoning.
        thinking_tokens: u32,
        /// Seed of its sampling.
        seed: u32,
    },
    /// A reward model; the score is `sigmoid((raw - centre) / scale)`.
    RewardModel {
        /// The raw reward that scores one half.
        centre: f64,
        /// How far above it a raw reward scores 0.73; above 0.
        scale: f64,
    },
    /// All answers of a group in one question, twice: in one order and in its reverse.
    Rank,
}

named! {
    /// What the modes are called.
    pub enum JudgeKind {
        /// [`JudgeMode::LabelLogprob`].
        LabelLogprob = "label_logprob",
        /// [`JudgeMode::Match`].
        Match = "match",
        /// [`JudgeMode::Generate`].
        Generate = "generate",
        /// [`JudgeMode::RewardModel`].
        RewardModel = "reward_model",
        /// [`JudgeMode::Rank`].
        Rank = "rank",
    }
}

/// Something that a judge may say, and what it is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// The word.
    pub name: String,
    /// Its value.
    pub value: UnitScore,
}

named! {
    /// How the scores of several judges become one.
    pub enum Panel {
        /// Their mean.
        Mean = "mean",
        /// The middle one; the mean of the middle two.
        Median = "median",
        /// The lowest.
        Min = "min",
    }
}

impl JudgeMode {
    /// Which one it is.
    pub const fn kind(&self) -> JudgeKind {
        match self {
            Self::LabelLogprob { .. } => JudgeKind::LabelLogprob,
            Self::Match => JudgeKind::Match,
            Self::Generate { .. } => JudgeKind::Generate,
            Self::RewardModel { .. } => JudgeKind::RewardModel,
            Self::Rank => JudgeKind::Rank,
        }
    }

    /// The name in rubric files.
    pub const fn as_str(&self) -> &'static str {
        self.kind().as_str()
    }
}

/// What a judge is asked. The trajectory's text is untrusted.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The stage that asks: the rubric's words, trusted.
    pub stage: &'a JudgeStage,
    /// The conversation.
    pub messages: &'a [Message<'a>],
    /// The policy's answer.
    pub answer: &'a str,
    /// Acceptable answers, if there are any.
    pub references: &'a [Cow<'a, str>],
    /// The group of rollouts that it belongs to.
    pub group: Option<&'a str>,
}

/// A judge's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// How good the answer is.
    pub score: UnitScore,
    /// Named numbers that the score was made of.
    pub detail: Vec<(Cow<'static, str>, f64)>,
    /// Whether it was known before it was asked for.
    pub cached: bool,
}

/// Why there is no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnavailableCode {
    /// No judge is configured, or it is down.
    NotConfigured,
    /// It did not answer in time.
    Timeout,
    /// It answered something that is no verdict.
    NoVerdict,
}

/// No verdict. Never turned into a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unavailable {
    /// Which kind of failure.
    pub code: UnavailableCode,
    /// What failed and what to do.
    pub message: String,
}

impl Unavailable {
    /// The judge answered something that is no verdict.
    pub fn no_verdict(message: impl Into<String>) -> Self {
        Self { code: UnavailableCode::NoVerdict, message: message.into() }
    }
}

/// What a judge says to a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A verdict.
    Verdict(Verdict),
    /// There is none.
    Unavailable(Unavailable),
    /// The question is noted. Whoever scores gets the answers of all that were noted, and scores again.
    Pending,
}

/// Answers questions about trajectories, at once: a score is computed without waiting.
pub trait Judge: Send + Sync {
    /// What is known about one answer.
    fn ask(&self, question: &Question<'_>) -> Answer;
}

impl JudgeStage {
    /// Whether its question is about the references.
    pub(super) fn needs_references(&self) -> bool {
        matches!(self.mode, JudgeMode::Match)
    }

    /// Asks the judge. A policy that gave no answer scores 0 without a question.
    pub(super) fn score(&self, evidence: &Evidence<'_>, judge: &dyn Judge) -> Result<Outcome, NoScore> {
        let Some(answer) = &evidence.answer else {
            return Ok(Outcome::plain(UnitScore::ZERO));
        };
        if self.needs_references() {
            evidence.references()?;
        }
        let question = Question {
            stage: self,
            messages: &evidence.trajectory.messages,
            answer: &answer.text,
            references: &evidence.trajectory.references,
            group: None,
        };
        match judge.ask(&question) {
            Answer::Verdict(verdict) => {
                Ok(Outcome { score: verdict.score, detail: verdict.detail, cached: Some(verdict.cached) })
            }
            Answer::Unavailable(unavailable) => Err(unavailable.into()),
            Answer::Pending => {
                let message = "the judge has not answered yet".to_owned();
                Err(NoScore { code: NoScoreCode::JudgePending, message, field: None })
            }
        }
    }
}
