//! One episode: the policy writes a turn, its tool calls are run, their results are put before it, until it answers.
//!
//! An [`Episode`] guides one sequence of the generator. What it gathers becomes a [`Rollout`](super::Rollout).

use std::sync::Arc;

use crate::lm::{Drawn, Guide, LmError, Mask, Next};
use crate::toolcall::tools::ToolSet;
use crate::toolcall::{self, Options};
use crate::train::TrainError;
use crate::train::env::{Environment, MALFORMED_CALL, Message};
use crate::train::protocol::{Protocol, TurnStart};
use crate::trajectory::Role;

/// What all episodes of a run share.
#[derive(Clone)]
pub struct EpisodeContext {
    /// Where they take place.
    pub environment: Arc<dyn Environment>,
    /// How the policy is spoken to.
    pub protocol: Arc<Protocol>,
    /// The environment's tools, compiled.
    pub tools: Arc<ToolSet>,
    /// How calls are written.
    pub calls: Options,
}

/// An episode in the making.
pub struct Episode {
    world: EpisodeContext,
    turn: Vec<u32>,
    /// What the template wrote of the turn's text.
    begun: String,
    messages: Vec<Message>,
    turns: u32,
}

impl Episode {
    /// An episode that begins where `prompt` ends; `begun` is what the template wrote of the first turn's text.
    pub fn new(world: EpisodeContext, prompt: Vec<Message>, begun: String) -> Self {
        Self { world, turn: Vec::new(), begun, messages: prompt, turns: 0 }
    }

    /// The conversation, with the turn that was cut off, if one was.
    pub fn into_messages(mut self) -> Vec<Message> {
        if !self.turn.is_empty() {
            // A turn that was cut off amid a character shows what there is.
            let text = self.text().unwrap_or_else(|_| self.begun.clone());
            self.messages.push(Message { role: Role::Assistant, text });
        }
        self.messages
    }

    /// The turn as whoever scores it reads it: with the reasoning open that the template opened, so that neither a call nor an
    /// answer is looked for in it.
    fn text(&self) -> Result<String, TrainError> {
        Ok(self.begun.clone() + &self.world.protocol.text(&self.turn)?)
    }

    fn end_turn(&mut self) -> Result<Next, LmError> {
        let failed = |error: TrainError| LmError::Unsupported(error.to_string());
        let text = self.text().map_err(failed)?;
        self.turn.clear();
        self.turns += 1;
        let may_call = self.turns <= self.world.environment.budgets().turns;
        let results = if may_call { self.results(&text) } else { Vec::new() };
        self.messages.push(Message { role: Role::Assistant, text });
        if results.is_empty() {
            return Ok(Next::Stop);
        }
        let TurnStart { tokens, begun } = self.world.protocol.after_turn(&results).map_err(failed)?;
        self.begun = begun;
        self.messages.extend(results.into_iter().map(|text| Message { role: Role::Tool, text }));
        Ok(Next::Say(tokens))
    }

    /// What the tools say to the calls of a turn; none when it makes no call.
    fn results(&self, text: &str) -> Vec<String> {
        let (world, environment) = (&self.world, &self.world.environment);
        let parsed = toolcall::parse(text, &world.calls, &*world.tools);
        let most = environment.budgets().calls_per_turn as usize;
        let result = |attempt: &toolcall::Attempt<'_>| match &attempt.result {
            Ok(call) => environment.call(&call.name, &call.arguments),
            Err(_) => MALFORMED_CALL.to_owned(),
        };
        parsed.attempts.iter().take(most).map(result).collect()
    }
}

impl Guide for Episode {
    fn allowed(&mut self) -> Result<Option<Mask>, LmError> {
        Ok(None)
    }

    fn accept(&mut self, drawn: Drawn) -> Result<Next, LmError> {
        if self.world.protocol.ends(drawn.token) {
            return self.end_turn();
        }
        self.turn.push(drawn.token);
        Ok(Next::Draw)
    }
}

#[cfg(test)]
pub(in crate::train) mod tests {
    use serde_json::Value;

    use super::*;
    use crate::judge::Judges;
    use crate::rubric::Rubric;
    use crate::train::env::{Budgets, Split, Task};
    use crate::train::protocol::tests::reasoner;
    use crate::train::reward::{Local, Rewarder};
    use crate::train::rollout::Rollout;

    /// Asks one question and knows one tool, which says what it was asked.
    struct Echo(Vec<Task>);

    impl Environment for Echo {
        fn tools_json(&self) -> &'static str {
            r#"[{"type": "function", "function": {"name": "echo", "parameters": {"type": "object"}}}]"#
        }

        fn tasks(&self, _: Split) -> &[Task] {
            &self.0
        }

        fn messages(&self, _: &Task) -> Vec<Message> {
            vec![Message { role: Role::User, text: "Where?".to_owned() }]
        }

        fn call(&self, _: &str, arguments: &Value) -> String {
            arguments.to_string()
        }

        fn budgets(&self) -> Budgets {
            Budgets { turns: 3, calls_per_turn: 1 }
        }
    }

    const CALL: &str = "<tool_call>{\"name\": \"echo\", \"arguments\": {}}</tool_call>";

    fn scorer() -> Local {
        let rubric = Rubric::from_toml(include_str!("../../../rubrics/binary_em.toml")).unwrap();
        Local::new(Arc::new(rubric), Echo(Vec::new()).tools_json(), Judges::none(), None)
    }

    /// Where a model asks the one question.
    pub(in crate::train) fn world(protocol: Protocol) -> EpisodeContext {
        let task =
            Task { id: "q".to_owned(), question: "Where?".to_owned(), answers: vec!["Kemi".to_owned()], hops: None };
        let tools = scorer().tools().clone();
        EpisodeContext {
            environment: Arc::new(Echo(vec![task])),
            protocol: Arc::new(protocol),
            tools,
            calls: Options::default(),
        }
    }

    /// The reward of a rollout of these turns, and how many messages it has with the question.
    fn rewarded(turns: &[&str]) -> (Option<f64>, usize) {
        let world = world(reasoner());
        let task = &world.environment.tasks(Split::Train)[0];
        let messages = world.environment.messages(task);
        let begun = world.protocol.prompt(&messages).unwrap().begun;
        let mut episode = Episode::new(world.clone(), messages, begun);
        for turn in turns {
            for token in world.protocol.turn(turn).unwrap() {
                episode.accept(Drawn { token, logprob: 0.0 }).unwrap();
            }
        }
        let messages = episode.into_messages();
        let said = messages.len();
        let rollout = Rollout { messages, ..Rollout::default() };
        let mut rewarder = Rewarder::Local(Box::new(scorer()));
        let scored =
            rewarder.score(&[(&rollout, task)], 1, &crate::shaping::Position::default(), Split::Train).unwrap();
        (scored[0].reward, said)
    }

    #[test]
    fn in_reasoning_that_the_template_opened_there_is_no_answer_and_no_call() {
        let answer = "<answer>Kemi</answer>";
        assert_eq!(rewarded(&[&format!("Perhaps {answer} or something else")]), (Some(0.0), 2));
        assert_eq!(rewarded(&[&format!("hm</think>{answer}")]), (Some(1.0), 2));
        assert_eq!(rewarded(&[&format!("I could say {CALL}")]), (Some(0.0), 2));
        // Behind the result the template opens none.
        assert_eq!(rewarded(&[&format!("hm</think>{CALL}"), answer]), (Some(1.0), 4));
    }
}
