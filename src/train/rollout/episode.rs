//! One episode: the policy writes a turn, its tool calls are run, their results are put before it, until it answers.
//!
//! An [`Episode`] guides one sequence of the generator. What it gathers becomes a [`Rollout`](super::Rollout).

use std::sync::Arc;

use crate::lm::{Drawn, Guide, LmError, Mask, Next};
use crate::toolcall::tools::ToolSet;
use crate::toolcall::{self, Options};
use crate::train::env::{Environment, MALFORMED_CALL, Message};
use crate::train::protocol::Protocol;
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
    messages: Vec<Message>,
    turns: u32,
}

impl Episode {
    /// An episode that begins where `prompt` ends.
    pub fn new(world: EpisodeContext, prompt: Vec<Message>) -> Self {
        Self { world, turn: Vec::new(), messages: prompt, turns: 0 }
    }

    /// The conversation, with the turn that was cut off, if one was.
    pub fn into_messages(mut self) -> Vec<Message> {
        if !self.turn.is_empty() {
            // A turn that was cut off amid a character shows what there is.
            let text = self.world.protocol.text(&self.turn).unwrap_or_default();
            self.messages.push(Message { role: Role::Assistant, text });
        }
        self.messages
    }

    fn end_turn(&mut self) -> Result<Next, LmError> {
        let failed = |error: crate::train::TrainError| LmError::Unsupported(error.to_string());
        let text = self.world.protocol.text(&self.turn).map_err(failed)?;
        self.turn.clear();
        self.turns += 1;
        let may_call = self.turns <= self.world.environment.budgets().turns;
        let results = if may_call { self.results(&text) } else { Vec::new() };
        self.messages.push(Message { role: Role::Assistant, text });
        if results.is_empty() {
            return Ok(Next::Stop);
        }
        let tokens = self.world.protocol.after_turn(&results).map_err(failed)?;
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
