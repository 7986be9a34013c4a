//! Demonstrations: how a question is answered by searching hop by hop, right or with the flaws that a policy has to lose.
//!
//! In: questions, and the environment that answers the calls. Out: conversations as chat messages. A flawed demonstration
//! goes on as if the call had been right: flaws are behaviour to be unlearnt, the skill beneath them is there. Calls are in
//! the Hermes form, `<tool_call>{"name": .., "arguments": ..}</tool_call>`.

use serde::Serialize;
use serde_json::json;

use super::HopsConfig;
use super::question::{self, Question};
use super::world::{self, Entity, Relation, World};
use crate::train::env::{Environment, MALFORMED_CALL, QaSearch};

/// How much rarer stopping early and a wrong answer are than a flawed call.
const RARER: f64 = 0.3;

/// What can be wrong with a demonstration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// A call of `lookup`, which there is not.
    WrongTool,
    /// A call whose JSON lacks a brace.
    MalformedJson,
    /// A call without `</tool_call>`.
    MissingCloser,
    /// A search for another relation.
    WrongRelation,
    /// A search for a name whose first syllable is another.
    GarbledEntity,
    /// An answer before the last hop: what was found so far.
    StoppedEarly,
    /// An answer that is made up.
    WrongAnswer,
}

impl Flaw {
    /// All of them, those of a call first.
    pub const ALL: [Self; 7] = [
        Self::WrongTool,
        Self::MalformedJson,
        Self::MissingCloser,
        Self::WrongRelation,
        Self::GarbledEntity,
        Self::StoppedEarly,
        Self::WrongAnswer,
    ];

    /// Those of a call.
    const OF_CALLS: [Self; 5] =
        [Self::WrongTool, Self::MalformedJson, Self::MissingCloser, Self::WrongRelation, Self::GarbledEntity];

    /// The name in `flaws`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WrongTool => "wrong_tool",
            Self::MalformedJson => "malformed_json",
            Self::MissingCloser => "missing_closer",
            Self::WrongRelation => "wrong_relation",
            Self::GarbledEntity => "garbled_entity",
            Self::StoppedEarly => "stopped_early",
            Self::WrongAnswer => "wrong_answer",
        }
    }
}

/// One chat message of a demonstration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatMessage {
    /// `user`, `assistant` or `tool`.
    pub role: &'static str,
    /// The text.
    pub content: String,
}

/// One conversation, from the question to the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Demonstration {
    /// The messages.
    pub messages: Vec<ChatMessage>,
    /// The training question's id.
    pub question_id: String,
    /// What is wrong, in the order of the messages; empty for a right one.
    pub flaws: Vec<Flaw>,
}

/// What goes wrong where, decided before anything is written.
#[derive(Default)]
struct Flaws {
    /// For each call that is made, its flaw.
    calls: Vec<Option<Flaw>>,
    stopped_early: bool,
    wrong_answer: bool,
}

impl Flaws {
    /// None, for so many hops.
    fn none(hops: usize) -> Self {
        Self { calls: vec![None; hops], ..Self::default() }
    }

    /// At least one.
    fn some(hops: usize, per_call: f64, random: &mut fastrand::Rng) -> Self {
        let mut flaws = Self::default();
        while flaws.calls.len() < hops && !flaws.stopped_early {
            flaws.calls.push((random.f64() < per_call).then(|| one_of(random)));
            flaws.stopped_early = flaws.calls.len() < hops && random.f64() < per_call * RARER;
        }
        flaws.wrong_answer = random.f64() < per_call * RARER;
        if flaws.list().is_empty() {
            let place = random.usize(..hops.max(1));
            flaws.calls.iter_mut().skip(place).take(1).for_each(|call| *call = Some(one_of(random)));
        }
        flaws
    }

    fn list(&self) -> Vec<Flaw> {
        let early = self.stopped_early.then_some(Flaw::StoppedEarly);
        let wrong = self.wrong_answer.then_some(Flaw::WrongAnswer);
        self.calls.iter().copied().flatten().chain(early).chain(wrong).collect()
    }
}

fn one_of(random: &mut fastrand::Rng) -> Flaw {
    random.choice(Flaw::OF_CALLS).unwrap_or(Flaw::WrongTool)
}

/// Demonstrations of training questions, each drawn anew; exactly the asked share of them is flawed.
pub(super) fn draw(
    world: &World,
    environment: &QaSearch,
    questions: &[Question],
    config: &HopsConfig,
    random: &mut fastrand::Rng,
) -> Vec<Demonstration> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share, from 0 to 1, of a count")]
    let flawed = (config.demonstrations as f64 * config.flawed).round() as usize;
    let mut is_flawed: Vec<bool> = (0..config.demonstrations).map(|place| place < flawed).collect();
    random.shuffle(&mut is_flawed);
    let demonstration = |flawed: bool| {
        let place = random.usize(..questions.len());
        let question = questions.get(place)?;
        let hops = question.chain.len();
        let flaws = if flawed { Flaws::some(hops, config.flaws_per_call, random) } else { Flaws::none(hops) };
        let messages = Writer { world, environment, random }.conversation(question, &flaws);
        Some(Demonstration { messages, question_id: question::id("train", place), flaws: flaws.list() })
    };
    is_flawed.into_iter().filter_map(demonstration).collect()
}

/// Writes conversations.
struct Writer<'a> {
    world: &'a World,
    environment: &'a QaSearch,
    random: &'a mut fastrand::Rng,
}

impl Writer<'_> {
    fn conversation(&mut self, question: &Question, flaws: &Flaws) -> Vec<ChatMessage> {
        let mut messages = vec![message("user", question.text(self.world))];
        let mut at = question.person;
        for (&relation, &flaw) in question.chain.iter().zip(&flaws.calls) {
            let (call, response) = self.call(at, relation, flaw);
            messages.push(message("assistant", call));
            messages.push(message("tool", response));
            at = self.world.object(at, relation).unwrap_or(at);
        }
        let answer = if flaws.wrong_answer { self.other_name(at) } else { self.world.name(at).to_owned() };
        messages.push(message("assistant", format!("<answer>{answer}</answer>")));
        messages
    }

    /// A call, and what it gets back.
    fn call(&mut self, subject: Entity, relation: Relation, flaw: Option<Flaw>) -> (String, String) {
        let name = if flaw == Some(Flaw::WrongTool) { "lookup" } else { "search" };
        let relation = if flaw == Some(Flaw::WrongRelation) { self.other_relation(relation) } else { relation };
        let entity = self.world.name(subject).to_owned();
        let entity = if flaw == Some(Flaw::GarbledEntity) { self.garbled(&entity) } else { entity };
        let query = format!("{} of {entity}", relation.word());
        let close = if flaw == Some(Flaw::MalformedJson) { "\"}" } else { "\"}}" };
        let closer = if flaw == Some(Flaw::MissingCloser) { "" } else { "</tool_call>" };
        let call = format!(r#"<tool_call>{{"name": "{name}", "arguments": {{"query": "{query}{close}{closer}"#);
        let response = match flaw {
            Some(Flaw::MalformedJson | Flaw::MissingCloser) => MALFORMED_CALL.to_owned(),
            _ => self.environment.call(name, &json!({ "query": query })),
        };
        (call, response)
    }

    fn other_relation(&mut self, relation: Relation) -> Relation {
        let others = Relation::ALL.into_iter().filter(|other| *other != relation);
        self.random.choice(others.collect::<Vec<_>>()).unwrap_or(relation)
    }

    /// The name with another first syllable.
    fn garbled(&mut self, name: &str) -> String {
        let (first, rest) = name.split_at_checked(2).unwrap_or((name, ""));
        let others = world::syllables().into_iter().map(|syllable| world::capital(&syllable));
        let other = self.random.choice(others.filter(|other| other != first).collect::<Vec<_>>());
        other.unwrap_or_default() + rest
    }

    /// A made-up name that is not this one's.
    fn other_name(&mut self, entity: Entity) -> String {
        loop {
            let name = world::name(self.random);
            if name != self.world.name(entity) {
                return name;
            }
        }
    }
}

fn message(role: &'static str, content: String) -> ChatMessage {
    ChatMessage { role, content }
}
