//! Puts many answers to the judges by the very way that scoring takes: a [`Question`] asked of a [`Session`], the session
//! put to the judges, the question asked again. In: answers. Out: verdicts, or why there are none.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::examples::Example;
use super::{Judges, Session};
use crate::stages::{Judge, JudgeAnswer, JudgeStage, NoScore, Question, Unavailable, Verdict};
use crate::trajectory::{Content, Message, Role, Thinking, Turn};

/// Questions of one session: enough for full batches, and a bound on the prompts that are held at a time.
const SESSION_QUESTIONS: usize = 128;
/// Longest time for a session. Nobody waits behind a measurement; the judges have their own limits on one question.
const SESSION_LIMIT: Duration = Duration::from_hours(1);

/// An answer to an example's question: its own or another.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'a> {
    pub(super) example: &'a Example,
    pub(super) answer: Cow<'a, str>,
}

/// Called with the number of questions that were answered since it was last called.
pub type OnAnswered<'a> = dyn FnMut(usize) + 'a;

/// What a judge said about one answer.
pub(super) type Polled = Result<Verdict, Unavailable>;

/// The verdict on each candidate, in order.
pub(super) async fn poll(
    judges: &Judges,
    stage: &JudgeStage,
    candidates: &[Candidate<'_>],
    on_answered: &mut OnAnswered<'_>,
) -> Vec<Polled> {
    let mut polled = Vec::with_capacity(candidates.len());
    for candidates in candidates.chunks(SESSION_QUESTIONS) {
        let mut session = Session::default();
        // Asked once, they are noted; asked again, they are answered.
        for candidate in candidates {
            candidate.ask(stage, &session);
        }
        session.put_to(judges, Some(Instant::now() + SESSION_LIMIT)).await;
        polled.extend(candidates.iter().map(|candidate| match candidate.ask(stage, &session) {
            JudgeAnswer::Verdict(verdict) => Ok(verdict),
            JudgeAnswer::Unavailable(unavailable) => Err(unavailable),
            JudgeAnswer::Pending => Err(Unavailable::no_verdict("the judge has not answered")),
        }));
        on_answered(candidates.len());
    }
    polled
}

impl Candidate<'_> {
    fn ask(&self, stage: &JudgeStage, session: &Session) -> JudgeAnswer {
        let task = Content::Text(Cow::Borrowed(self.example.question.as_str()));
        let turn = Turn {
            text: Cow::Borrowed(&*self.answer),
            offset: 0,
            reasoning: None,
            native_calls: None,
            thinking: Thinking::Outside,
        };
        let messages = [Message::Other { role: Role::User, content: task }, Message::Policy(turn)];
        let references: Vec<Cow<'_, str>> =
            self.example.references.iter().map(|reference| Cow::Borrowed(reference.as_str())).collect();
        session.ask(&Question {
            stage,
            messages: &messages,
            answer: &self.answer,
            references: &references,
            group: None,
        })
    }
}

/// A reason for no verdict, and how often it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Which kind of failure: `judge_unavailable`, `judge_timeout` or `judge_no_verdict`.
    pub code: &'static str,
    /// What failed and what to do: the first of those that differ only in their numbers.
    pub message: String,
    /// How many questions failed like this.
    pub count: usize,
}

/// The reasons for no verdict, the most frequent first.
pub(super) fn reasons<'a>(polled: impl IntoIterator<Item = &'a Polled>) -> Vec<Reason> {
    let mut by_form: BTreeMap<String, Reason> = BTreeMap::new();
    for unavailable in polled.into_iter().filter_map(|polled| polled.as_ref().err()) {
        let NoScore { code, message, .. } = unavailable.clone().into();
        let apart: Vec<&str> = message.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
        let form = format!("{} {}", code.as_str(), apart.join("#"));
        by_form.entry(form).or_insert(Reason { code: code.as_str(), message, count: 0 }).count += 1;
    }
    let mut reasons: Vec<Reason> = by_form.into_values().collect();
    // Stable: equal counts stay in the order of their messages.
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
    reasons
}

/// The score of an answer that has one.
pub(super) fn score(polled: &Polled) -> Option<f64> {
    polled.as_ref().ok().map(|verdict| verdict.score.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::UnavailableCode;

    #[test]
    fn reasons_that_differ_in_their_numbers_are_one() {
        let failed = |code, message: &str| Err(Unavailable { code, message: message.to_owned() });
        let polled = [
            failed(UnavailableCode::Timeout, "late"),
            failed(UnavailableCode::NoVerdict, "the judge gives 0.700 of its probability to something else"),
            failed(UnavailableCode::NoVerdict, "the judge gives 0.9125 of its probability to something else"),
            failed(UnavailableCode::NoVerdict, "late"),
        ];
        let found = reasons(&polled);
        let found: Vec<_> = found.iter().map(|reason| (reason.code, reason.count)).collect();
        assert_eq!(found, [("judge_no_verdict", 2), ("judge_no_verdict", 1), ("judge_timeout", 1)]);
    }
}
