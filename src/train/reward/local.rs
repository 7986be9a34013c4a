//! Scores in this process, through the pipeline that the server runs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;
use tokio::runtime::Runtime;

use super::{Attempted, RubricIdentity, Scored, StageScore};
use crate::judge::{Judges, Session};
use crate::rubric::Rubric;
use crate::score::{Context, Report, Scorer, WANTED};
use crate::shaping::Position;
use crate::toolcall::tools::ToolSet;
use crate::trajectory::{Content, Message, Role, Thinking, Trajectory, Turn};

/// The library's scorer with one rubric.
pub struct Local {
    scorer: Scorer,
    rubric: Arc<Rubric>,
    identity: RubricIdentity,
    judges: Judges,
    /// What judges wait on.
    runtime: Option<Arc<Runtime>>,
    tools: Arc<ToolSet>,
    tools_json: String,
}

impl Local {
    /// A scorer for rollouts with these tools (a JSON list). Judge stages need `judges` and a runtime to wait on.
    pub fn new(rubric: Arc<Rubric>, tools_json: &str, judges: Judges, runtime: Option<Arc<Runtime>>) -> Self {
        let scorer = Scorer::new(1 << 20);
        let tools = scorer.tools(tools_json, &rubric);
        let identity = RubricIdentity { name: rubric.name.to_string(), version: rubric.version.to_string() };
        Self { scorer, rubric, identity, judges, runtime, tools, tools_json: tools_json.to_owned() }
    }

    /// The tools, compiled.
    pub fn tools(&self) -> &Arc<ToolSet> {
        &self.tools
    }

    /// The rubric.
    pub fn rubric(&self) -> &Rubric {
        &self.rubric
    }

    pub(super) fn identity(&self) -> &RubricIdentity {
        &self.identity
    }

    pub(super) fn max_reward(&self) -> f64 {
        self.rubric.range.max()
    }

    pub(super) fn judges(&self) -> BTreeMap<String, String> {
        let identity = |name: &String| Some((name.clone(), self.judges.identity_of(name)?.to_owned()));
        self.rubric.judges().filter_map(identity).collect()
    }

    pub(super) fn score(&self, rollouts: &[Attempted<'_>], size: usize, position: &Position) -> Vec<Scored> {
        let mut session = Session::default();
        loop {
            let one = |(place, attempted): (usize, &Attempted<'_>)| {
                let trajectory = trajectory(attempted, &self.tools_json);
                // Not by the task: a step may hold one twice, in two groups.
                let group = (place / size.max(1)).to_string();
                let (rubric, judge) = (&*self.rubric, &session);
                let context = Context { rubric, position, judge, group: Some(&group), unwanted: WANTED };
                scored(&self.scorer.score(&trajectory, &self.tools, context), &self.rubric)
            };
            let scored = rollouts.par_iter().enumerate().map(one).collect();
            let Some(runtime) = self.runtime.as_ref().filter(|_| session.has_questions()) else { return scored };
            if !runtime.block_on(session.put_to(&self.judges, None)) {
                return scored;
            }
        }
    }
}

/// A rollout, as the pipeline sees it.
fn trajectory<'a>((rollout, task): &Attempted<'a>, tools: &'a str) -> Trajectory<'a> {
    let message = |message: &'a crate::train::env::Message| match message.role {
        Role::Assistant => Message::Policy(Turn {
            text: Cow::Borrowed(&message.text),
            offset: 0,
            reasoning: None,
            native_calls: None,
            thinking: Thinking::Outside,
        }),
        role => Message::Other { role, content: Content::Text(Cow::Borrowed(&message.text)) },
    };
    Trajectory {
        messages: rollout.messages.iter().map(message).collect(),
        tools,
        references: task.answers.iter().map(|answer| Cow::Borrowed(answer.as_str())).collect(),
        reference_calls: None,
        tool_format: None,
        truncated: rollout.truncated,
        response_tokens: Some(rollout.written_count() as u64),
    }
}

fn scored(report: &Report<'_>, rubric: &Rubric) -> Scored {
    let stage = |(index, stage): (usize, &crate::rubric::RubricStage)| {
        let outcome = report.outcomes.get(index);
        StageScore {
            name: stage.name.to_string(),
            score: outcome.map_or(0.0, |outcome| outcome.score.get()),
            open: outcome.is_some(),
            passed: report.passed(index),
        }
    };
    let extra = rubric.report.iter().zip(&report.extra).map(|((name, _), value)| (name.to_string(), *value));
    let metrics: BTreeMap<String, f64> = extra.collect();
    let (reward, failed) = match &report.reward {
        Ok(reward) => (Some(reward.value), None),
        Err(fault) => (None, Some(fault.cause.message.clone())),
    };
    let reason = failed.or_else(|| report.reason(rubric));
    Scored { reward, stages: rubric.stages.iter().enumerate().map(stage).collect(), metrics, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Config;
    use crate::train::env::{Message, Task};
    use crate::train::rollout::Rollout;

    #[test]
    fn a_task_that_comes_twice_is_ranked_as_two_groups() {
        let rubric = "name = \"ranked\"\n[answer]\nfrom = \"last_message\"\n\
            [[stages]]\nkind = \"judge\"\nmode = \"rank\"\nweight = 1\ncriteria = \"Better answers first.\"\n";
        // Nobody answers there. Equal answers share a place unasked, so that it is asked of a group of both answers only.
        let judge = "endpoints = [{ url = \"http://127.0.0.1:9/v1\" }]\nmodel = \"judge\"\ndeadline_ms = 100\n";
        let judges = BTreeMap::from([("default".to_owned(), toml::from_str(judge).unwrap())]);
        let judges = Judges::open(&Config { judges, cache_bytes: 0 }, |_| None, None).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let rubric = Arc::new(Rubric::from_toml(rubric).unwrap());
        let local = Local::new(rubric, "[]", judges, Some(Arc::new(runtime)));
        let message = |role, text: &str| Message { role, text: text.to_owned() };
        let rollout = |answer: &&str| Rollout {
            task: 3,
            messages: vec![message(Role::User, "Which city?"), message(Role::Assistant, answer)],
            ..Rollout::default()
        };
        let rollouts: Vec<Rollout> = ["Paris", "Paris", "Lyon", "Lyon"].iter().map(rollout).collect();
        let task = Task {
            id: "q".to_owned(),
            question: "Which city?".to_owned(),
            answers: vec!["Paris".to_owned()],
            hops: None,
        };
        let attempted: Vec<Attempted<'_>> = rollouts.iter().map(|rollout| (rollout, &task)).collect();
        let rewards = |size| {
            let scored = local.score(&attempted, size, &Position::default());
            scored.into_iter().map(|scored| scored.reward).collect::<Vec<_>>()
        };
        assert_eq!(rewards(2), [Some(0.5); 4]);
        assert_eq!(rewards(4), [None; 4]);
    }
}
