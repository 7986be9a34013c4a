//! The judge's port: a question goes in, a verdict or the reason for none comes out. Who answers, and how, is
//! not known here.

use std::borrow::Cow;

use super::{Evidence, NoScore, Outcome, UnitScore};
use crate::trajectory::Message;

/// A stage that asks a judge about the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeStage {
    /// What the judge is to look for, in words.
    pub criteria: String,
}

/// What a judge is asked. The trajectory's text is untrusted.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What to look for: the rubric's words, trusted.
    pub criteria: &'a str,
    /// The conversation.
    pub messages: &'a [Message<'a>],
    /// The policy's answer.
    pub answer: &'a str,
    /// Acceptable answers, if there are any.
    pub references: &'a [Cow<'a, str>],
}

/// A judge's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// How good the answer is.
    pub score: UnitScore,
    /// Named numbers that the score was made of.
    pub detail: Vec<(&'static str, f64)>,
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

/// Answers questions about trajectories.
pub trait Judge: Send + Sync {
    /// Judges one answer.
    ///
    /// # Errors
    /// When no verdict can be had.
    fn ask(&self, question: &Question<'_>) -> Result<Verdict, Unavailable>;
}

/// The judge of a server without one.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoJudge;

impl Judge for NoJudge {
    fn ask(&self, _: &Question<'_>) -> Result<Verdict, Unavailable> {
        Err(Unavailable {
            code: UnavailableCode::NotConfigured,
            message: "the rubric asks a judge, and this server has none; use a rubric without a judge stage".to_owned(),
        })
    }
}

impl JudgeStage {
    /// Asks the judge. A policy that gave no answer scores 0 without a question.
    pub(super) fn score(&self, evidence: &Evidence<'_>, judge: &dyn Judge) -> Result<Outcome, NoScore> {
        let Some(answer) = &evidence.answer else {
            return Ok(Outcome { score: UnitScore::ZERO, detail: Vec::new() });
        };
        let verdict = judge.ask(&Question {
            criteria: &self.criteria,
            messages: &evidence.trajectory.messages,
            answer: &answer.text,
            references: &evidence.trajectory.references,
        })?;
        Ok(Outcome { score: verdict.score, detail: verdict.detail })
    }
}
