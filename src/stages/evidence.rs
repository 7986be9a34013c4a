//! What the stages look at: the policy's turns parsed once, each call checked against its tool, the answer found.
//!
//! In: a trajectory, its compiled tools and how to read it. Out: [`Evidence`]. Scores nothing.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;

use super::{Field, NoScore, NoScoreCode};
use crate::text::{self, Squad};
use crate::toolcall::answer::{self, AnswerFrom};
use crate::toolcall::schema::{Check, ProblemCode, SchemaProblem, TRAJECTORY_BUDGET, Violation};
use crate::toolcall::tools::ToolSet;
use crate::toolcall::{self, Attempt, Call, Options, Parsed, Room};
use crate::trajectory::{Message, ParseMode, Thinking, ToolFormat, Trajectory, Turn};

/// Most call attempts of a trajectory, over all its turns; one more gives a `too_many_calls` error, and nothing after it is
/// parsed. Each attempt costs memory and a part of the answer, and a trajectory may have thousands of turns.
pub(super) const MAX_ATTEMPTS: usize = 4096;

/// How a rubric reads a trajectory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The format of the calls, unless the trajectory names one.
    pub format: ToolFormat,
    /// Strict or tolerant.
    pub mode: ParseMode,
    /// Most call attempts of one turn.
    pub max_calls: usize,
    /// Where the answer stands.
    pub answer: AnswerFrom,
    /// Whether a schema's `format` is asserted.
    pub assert_format: bool,
}

impl Reading {
    /// How the turns of a trajectory are parsed.
    fn options(&self, trajectory: &Trajectory<'_>) -> Options {
        let format = trajectory.tool_format.unwrap_or(self.format);
        Options { format, mode: self.mode, max_calls: self.max_calls, room: Room::default(), thinking: false }
    }
}

/// What became of one call attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum CallVerdict {
    /// It does not parse.
    Malformed,
    /// It parses, and its tool is not offered.
    UnknownTool,
    /// Its arguments satisfy the schema.
    Valid,
    /// Its arguments do not.
    Violations(Vec<Violation>),
    /// They take more to check than the limits allow, with a schema that is fine: the policy's doing.
    TooCostly(SchemaProblem),
    /// Nobody can say: the schema itself is at fault.
    Problem {
        /// What is wrong with it.
        problem: SchemaProblem,
        /// Where the schema stands in the tool list, as a JSON pointer.
        pointer: String,
    },
}

/// A policy turn with its calls.
#[derive(Debug, Clone)]
pub struct ParsedTurn<'t> {
    /// Index of its message.
    pub message: usize,
    /// Bytes to add to a span to get a position in the client's field.
    pub offset: usize,
    /// Its calls and reasoning.
    pub parsed: Parsed<'t>,
    /// One verdict per attempt.
    pub verdicts: Vec<CallVerdict>,
}

impl ParsedTurn<'_> {
    /// Attempts, of which an overflow of calls is the last, and open reasoning, which counts as one.
    pub(super) fn attempts(&self) -> usize {
        self.parsed.attempts.len() + self.faults()
    }

    /// Call attempts that do not parse.
    pub(super) fn malformed(&self) -> usize {
        self.parsed.attempts.iter().filter(|attempt| attempt.result.is_err()).count()
    }

    /// What is no call and does not parse either: open reasoning.
    pub(super) fn faults(&self) -> usize {
        usize::from(self.parsed.reasoning_open.is_some())
    }

    /// What the attempts earn, one each at most.
    pub fn parse_credit(&self, repaired_credit: f64) -> f64 {
        let credit = |attempt: &Attempt<'_>| match (&attempt.result, attempt.repairs.is_empty()) {
            (Err(_), _) => 0.0,
            (Ok(_), true) => 1.0,
            (Ok(_), false) => repaired_credit,
        };
        self.parsed.attempts.iter().map(credit).sum()
    }

    /// How many calls are well-formed, known and valid.
    pub fn valid_calls(&self) -> usize {
        self.verdicts.iter().filter(|verdict| matches!(verdict, CallVerdict::Valid)).count()
    }
}

/// The answer that the policy gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<'t> {
    /// Its text.
    pub text: Cow<'t, str>,
    /// Index of its message.
    pub message: usize,
    /// Its bytes in the client's field.
    pub span: Range<usize>,
}

/// Everything that stages and penalties look at.
#[derive(Debug)]
pub struct Evidence<'t> {
    /// The trajectory itself.
    pub trajectory: &'t Trajectory<'t>,
    /// The format that was read: the first turn's that has calls.
    pub format: Option<ToolFormat>,
    /// The policy's turns, in order.
    pub turns: Vec<ParsedTurn<'t>>,
    /// The answer, if the last turn gives one.
    pub answer: Option<Answer<'t>>,
    answer_in_place: bool,
    squad: OnceCell<Squad>,
}

impl<'t> Evidence<'t> {
    /// Reads a trajectory: its turns, what their calls are worth, its answer.
    ///
    /// # Errors
    /// When the tool list has the wrong shape.
    pub fn read(trajectory: &'t Trajectory<'t>, tools: &ToolSet, reading: &Reading) -> Result<Self, NoScore> {
        let mut evidence = Self::begin(trajectory, tools, reading)?;
        for step in Self::STEPS {
            step(&mut evidence, tools, reading);
        }
        Ok(evidence)
    }

    /// What follows on [`Self::begin`], in this order; for callers that read several trajectories, step by step.
    pub const STEPS: [fn(&mut Self, &ToolSet, &Reading); 2] = [Self::parse, Self::settle];

    /// Finds out the formats of the turns, and reads nothing yet.
    ///
    /// # Errors
    /// When the tool list has the wrong shape.
    pub fn begin(trajectory: &'t Trajectory<'t>, tools: &ToolSet, reading: &Reading) -> Result<Self, NoScore> {
        if let Some(problem) = tools.problem() {
            return Err(NoScore {
                code: NoScoreCode::ItemMalformed,
                message: problem.message.clone(),
                field: Some(Field::Tools(problem.pointer.clone())),
            });
        }
        let options = reading.options(trajectory);
        let unread = |(message, turn): (usize, &'t Turn<'t>)| {
            let format = match turn.native_calls {
                Some(_) if options.format == ToolFormat::Auto => Some(ToolFormat::Openai),
                _ => toolcall::format_of(&turn.text, &of_turn(turn, &options)),
            };
            let parsed = Parsed { format, ..Parsed::default() };
            ParsedTurn { message, offset: turn.offset, parsed, verdicts: Vec::new() }
        };
        Ok(Self {
            trajectory,
            format: None,
            turns: trajectory.turns().map(unread).collect(),
            answer: None,
            answer_in_place: false,
            squad: OnceCell::new(),
        })
    }

    /// Parses the turns, until there are more attempts than the whole trajectory may have; their values have one room, too.
    fn parse(&mut self, tools: &ToolSet, reading: &Reading) {
        let options = reading.options(self.trajectory);
        let last = self.turns.len().saturating_sub(1);
        let mut left = Some(MAX_ATTEMPTS);
        let mut room = options.room;
        for (index, (turn, (_, source))) in self.turns.iter_mut().zip(self.trajectory.turns()).enumerate() {
            let Some(few) = left else {
                // Nothing after the error is looked at, but that the last turn's answer is not looked for in its reasoning.
                if index == last {
                    let parsed =
                        parse_turn(turn.parsed.format, source, &Options { max_calls: 0, room, ..options }, tools);
                    turn.parsed = Parsed { attempts: Vec::new(), too_many: false, ..parsed };
                }
                continue;
            };
            let max_calls = options.max_calls.min(few);
            turn.parsed = parse_turn(turn.parsed.format, source, &Options { max_calls, room, ..options }, tools);
            room = turn.parsed.room;
            left = Some(few.saturating_sub(turn.parsed.attempts.len()));
            if turn.parsed.too_many && max_calls < options.max_calls {
                left = None;
                say_that_the_trajectory_has_too_many(&mut turn.parsed);
            }
        }
        self.format = self.turns.iter().find_map(|turn| turn.parsed.format);
    }

    /// Checks each call against its tool, and finds the answer.
    fn settle(&mut self, tools: &ToolSet, reading: &Reading) {
        let mut left = TRAJECTORY_BUDGET;
        let mut verdict = |attempt: &Attempt<'_>| match &attempt.result {
            Err(_) => CallVerdict::Malformed,
            Ok(call) => check(call, tools, &mut left),
        };
        for turn in &mut self.turns {
            turn.verdicts = turn.parsed.attempts.iter().map(&mut verdict).collect();
        }
        let last = self.trajectory.turns().next_back().zip(self.turns.last());
        self.answer = last.and_then(|((_, turn), parsed)| find_answer(turn, parsed, reading.answer));
        // An empty frame is no answer: its credit could be had without trying.
        self.answer_in_place = self.answer.as_ref().is_some_and(|answer| !answer.text.is_empty())
            && (reading.answer != AnswerFrom::SearchR1 || answer::search_r1_format(&search_r1_text(self.trajectory)));
    }

    /// The verdicts on all attempts, in order.
    pub fn verdicts(&self) -> impl Iterator<Item = &CallVerdict> {
        self.turns.iter().flat_map(|turn| &turn.verdicts)
    }

    /// The well-formed calls, in order.
    pub fn calls(&self) -> impl Iterator<Item = &Call<'t>> {
        self.turns.iter().flat_map(|turn| turn.parsed.calls())
    }

    /// Whether an answer that is not empty stands where the rubric wants it (and for Search-R1, in the right order of
    /// blocks).
    pub fn answer_in_place(&self) -> bool {
        self.answer_in_place
    }

    /// Exact match and F1 of the answer, computed once; zeros where there is no answer.
    ///
    /// # Errors
    /// When there is no reference.
    pub fn squad(&self) -> Result<Squad, NoScore> {
        let references = self.references()?;
        let compute = || match &self.answer {
            Some(answer) => text::squad(&answer.text, references),
            None => Squad { exact_match: false, f1: 0.0 },
        };
        Ok(*self.squad.get_or_init(compute))
    }

    /// The references, of which there must be one.
    ///
    /// # Errors
    /// When there is none.
    pub fn references(&self) -> Result<&'t [Cow<'t, str>], NoScore> {
        if self.trajectory.references.is_empty() {
            return Err(NoScore {
                code: NoScoreCode::ReferencesMissing,
                message:
                    "this stage compares the answer with `references`, and the trajectory has none; add at least one"
                        .to_owned(),
                field: Some(Field::Trajectory("/references".to_owned())),
            });
        }
        Ok(&self.trajectory.references)
    }
}

/// Makes the error about the turn's attempts one about all turns'.
fn say_that_the_trajectory_has_too_many(parsed: &mut Parsed<'_>) {
    if let Some(Attempt { result: Err(malformed), .. }) = parsed.attempts.last_mut() {
        malformed.message = format!(
            "more than {MAX_ATTEMPTS} call attempts in all turns; the rest is ignored; split the trajectory or stop it earlier"
        );
    }
}

/// How a turn is parsed.
fn of_turn(turn: &Turn<'_>, options: &Options) -> Options {
    Options { thinking: turn.thinking != Thinking::Outside, ..*options }
}

fn parse_turn<'t>(format: Option<ToolFormat>, turn: &'t Turn<'t>, options: &Options, tools: &ToolSet) -> Parsed<'t> {
    let options = &of_turn(turn, options);
    let native = |raw: &'t str, room: Room| toolcall::parse_native(raw, &Options { room, ..*options }, tools);
    let mut written = toolcall::parse_as(format, &turn.text, options, tools);
    if turn.thinking == Thinking::Within {
        written.reasoning_open = None;
    }
    match turn.native_calls {
        // A server may have taken the calls out of the text, or copied those that it understood: the text shows more. It has
        // the reasoning in any case.
        Some(raw) if written.attempts.is_empty() => {
            let Parsed { format, attempts, too_many, room, .. } = native(raw, written.room);
            Parsed { format, attempts, too_many, room, ..written }
        }
        _ => written,
    }
}

fn check(call: &Call<'_>, tools: &ToolSet, left: &mut f64) -> CallVerdict {
    let Some(tool) = tools.get(&call.name) else {
        return CallVerdict::UnknownTool;
    };
    match tool.check_within(&call.arguments, left) {
        Check::Valid => CallVerdict::Valid,
        Check::Invalid(violations) => CallVerdict::Violations(violations),
        Check::Problem(problem) if tool.problem().is_none() => CallVerdict::TooCostly(problem),
        Check::Problem(problem) => CallVerdict::Problem { problem, pointer: tool.pointer().to_owned() },
    }
}

/// The answer of the last turn. Native calls leave the text whole.
fn find_answer<'t>(turn: &'t Turn<'t>, parsed: &ParsedTurn<'t>, from: AnswerFrom) -> Option<Answer<'t>> {
    let format = parsed.parsed.format;
    let place = match (from, format) {
        // A right answer in a wrong frame is an answer: the frame is `answer_format`'s question.
        (AnswerFrom::SearchR1, _) => AnswerFrom::AnswerTag,
        // What the user sees of harmony is its final channel; a server may have taken the markers out.
        (AnswerFrom::LastMessage, Some(ToolFormat::Harmony)) if turn.text.contains("<|message|>") => {
            AnswerFrom::HarmonyFinal
        }
        (from, _) => from,
    };
    let (text, span) = if place == AnswerFrom::LastMessage && format != Some(ToolFormat::Openai) {
        answer::extract(&turn.text, format, &parsed.parsed.hidden_with_calls(), place)?
    } else {
        answer::extract(&turn.text, format, &parsed.parsed.hidden_with_read_calls(), place)?
    };
    if from == AnswerFrom::LastMessage && text.is_empty() {
        return None;
    }
    let span = span.start + turn.offset..span.end + turn.offset;
    Some(Answer { text, message: parsed.message, span })
}

/// The whole rollout as Search-R1 writes it: results that came as messages stand between information tags, reasoning that came in
/// a field of its own between its tags, and what the prompt opened is open.
fn search_r1_text<'t>(trajectory: &'t Trajectory<'t>) -> Cow<'t, str> {
    let first = trajectory.messages.iter().position(|message| matches!(message, Message::Policy(_))).unwrap_or(0);
    let rollout = trajectory.messages.get(first..).unwrap_or_default();
    let opened = matches!(rollout.first(), Some(Message::Policy(turn)) if turn.thinking != Thinking::Outside);
    // Not twice, where the text has it, too.
    let thought = |turn: &Turn<'_>| {
        let field = turn.reasoning.as_deref().unwrap_or_default();
        !field.trim().is_empty() && !turn.text.trim_start().starts_with("<think>")
    };
    if let ([Message::Policy(only)], false) = (rollout, opened)
        && !thought(only)
    {
        return Cow::Borrowed(&only.text);
    }
    let mut whole = if opened { "<think>".to_owned() } else { String::new() };
    for message in rollout {
        match message {
            Message::Policy(turn) => {
                if thought(turn) {
                    whole.push_str("<think></think>");
                }
                whole.push_str(toolcall::without_end_tokens(&turn.text));
            }
            // What a tool found may show any tags.
            Message::Other { .. } => whole.push_str("<information></information>"),
        }
    }
    Cow::Owned(whole)
}

pub(super) fn schema_no_score(problem: &SchemaProblem, pointer: &str) -> NoScore {
    let code = match problem.code {
        ProblemCode::Invalid => NoScoreCode::SchemaInvalid,
        ProblemCode::Unsupported => NoScoreCode::SchemaUnsupported,
    };
    let field = Some(Field::Tools(format!("{pointer}{}", problem.pointer)));
    NoScore { code, message: problem.message.clone(), field }
}
