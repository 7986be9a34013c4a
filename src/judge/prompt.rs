//! A rubric's judge prompt: from template and trajectory to messages in which trusted and untrusted text are told apart.
//!
//! In: the template's source (once), then values for each answer. Out: [`PromptMessage`]s, or a [`PromptError`] that says
//! where the template is wrong. Every untrusted value comes with its fence around it, as the template's only way to show
//! it. Knows no backend, no chat template and no tokenizer.
//!
//! A template is Jinja with these variables: `criteria` (text), `question` (the task), `conversation` (a list of `role` and
//! `text`), `references`, `candidates` and `labels` (lists of texts), `answer`, and `fence` (the nonce of the fence lines).
//! A line `<<system>>`, `<<user>>` or `<<assistant>>` starts a message; without one, all is the user's. Messages are cut
//! apart before any value is put in, and each is a template of its own.

mod contained;
mod defaults;
mod fewer;
mod owned_values;
mod statements;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use minijinja::{Environment, UndefinedBehavior};

use self::contained::Contained;
pub(super) use self::defaults::{GENERATE, LABEL, MATCH, RANK};
use self::owned_values::OwnedValues;
use super::fence::Fence;
use super::inquiry::{ChatRole, PromptMessage, ShorterPrompts};
use crate::lm::jinja::{self, TemplateFault};
use crate::lm::untrusted::{Placeholders, UntrustedError};
use crate::trajectory::Role;

/// Most characters of one untrusted value. Past a million spaces in a row the word splitters of tokenizers give up.
const MAX_CHARS: usize = 200_000;

/// Longest message, in bytes.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// The variables that a template may use.
const VARIABLES: [&str; 8] =
    ["criteria", "question", "conversation", "references", "answer", "labels", "candidates", "fence"];

/// What a prompt puts to the judge, and must therefore show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One answer: itself, or something that the policy said in the conversation.
    Answer,
    /// Answers to be put in order: every one of them.
    Candidates,
}

/// One message of the conversation, as templates see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastMessage<'a> {
    /// Who said it.
    pub role: Role,
    /// What; untrusted.
    pub text: Cow<'a, str>,
}

/// What a template is filled with. All but the criteria and the labels is untrusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PromptValues<'a> {
    /// What to look for: the rubric's words, trusted.
    pub criteria: &'a str,
    /// The task: see [`task_of`].
    pub question: &'a str,
    /// The whole conversation, if the template is to show it.
    pub conversation: &'a [PastMessage<'a>],
    /// Acceptable answers.
    pub references: &'a [Cow<'a, str>],
    /// The answer to be judged.
    pub answer: &'a str,
    /// What the judge may say: the rubric's words, trusted.
    pub labels: &'a [String],
    /// The answers to be put in order, where that is the question.
    pub candidates: &'a [Cow<'a, str>],
}

/// A template that cannot be used, or values that do not fit it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// The template is broken, or stumbles over the values.
    #[error("the judge's prompt template: {0}")]
    Template(TemplateFault),
    /// The values are too many or too long.
    #[error("the judge's prompt: {0}")]
    Values(#[from] UntrustedError),
    /// No message has any text.
    #[error("the judge's prompt template renders no user message for this trajectory; give it text outside conditions")]
    NoQuestion,
    /// What is to be judged does not stand in the prompt: a verdict would be about nothing.
    #[error("the judge's prompt template: {}, outside conditions", match .0 {
        Subject::Answer => "nothing of the trajectory is shown; write {{ answer }}, or loop over conversation and write each text",
        Subject::Candidates => "not every answer is shown; loop over candidates and write each",
    })]
    NotShown(Subject),
}

impl PromptError {
    /// Line and column of the template, both from 1, where one is at fault.
    pub fn place(&self) -> Option<(usize, usize)> {
        match self {
            Self::Template(fault) => Some((fault.line, fault.column)),
            Self::Values(_) | Self::NoQuestion | Self::NotShown(_) => None,
        }
    }
}

/// A prompt, and what there is of it for a judge that cannot read all.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    pub(super) messages: Vec<PromptMessage>,
    /// The same with messages left out of the middle of the conversation, each time more of them.
    pub(super) fewer: ShorterPrompts,
}

/// A judge's prompt template, compiled and tried.
#[derive(Debug, Clone)]
pub struct PromptTemplate {
    subject: Subject,
    environment: Environment<'static>,
    source: String,
    sections: Vec<Section>,
}

/// One message of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    role: ChatRole,
    /// The name of its template.
    name: String,
    text: String,
    /// Lines of the whole source before its first one.
    line_offset: usize,
}

impl PromptTemplate {
    /// Reads a template and tries it on sample values.
    ///
    /// # Errors
    /// When it is no valid template, uses a variable that there is not, or its messages are in no order that a chat can
    /// have, all with line and column of the source; or when it does not show its subject.
    pub fn parse(source: &str, subject: Subject) -> Result<Self, PromptError> {
        jinja::check_length(source).map_err(PromptError::Template)?;
        let sections = split_sections(source);
        check_order(&sections)?;
        let mut environment = jinja::environment();
        // A variable that is not there is a slip of the pen, which an empty text would hide.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        for section in &sections {
            if let Some((byte, why)) = statements::refused(&section.text) {
                return Err(section.fault_at(byte, why.to_owned()));
            }
            let added = environment.add_template_owned(section.name.clone(), section.text.clone());
            added.map_err(|error| section.fault(&error))?;
        }
        let template = Self { subject, environment, source: source.to_owned(), sections };
        template.check_variables()?;
        template.try_out()?;
        Ok(template)
    }

    /// The source: all that tells two templates apart.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Fills the template in. Messages without any text are left out.
    ///
    /// # Errors
    /// When the template stumbles over these values or runs away, when they are too long, or when no question is left or
    /// its subject is not shown.
    pub fn render(&self, values: &PromptValues<'_>) -> Result<Vec<PromptMessage>, PromptError> {
        self.fill_in(values).map(|(messages, _)| messages)
    }

    /// Fills the template in, and where it shows a conversation, again with fewer messages of it for whoever asks for that.
    /// The values are about one answer.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub(super) fn prompt(self: &Arc<Self>, values: &PromptValues<'_>) -> Result<Prompt, PromptError> {
        let (messages, shows_conversation) = self.fill_in(values)?;
        let fewer = if shows_conversation && fewer::has_any(values.conversation) {
            let (template, kept) = (self.clone(), OwnedValues::of(values));
            ShorterPrompts::made_by(move || template.with_fewer(&kept.values()))
        } else {
            ShorterPrompts::default()
        };
        Ok(Prompt { messages, fewer })
    }

    fn with_fewer(&self, values: &PromptValues<'_>) -> Vec<Vec<PromptMessage>> {
        let fill_in = |conversation: Vec<PastMessage<'_>>| {
            // A template may need a message that is left out: that one is then no way to shorten it.
            self.render(&PromptValues { conversation: &conversation, ..*values }).ok()
        };
        fewer::conversations(values.conversation).into_iter().filter_map(fill_in).collect()
    }

    /// The prompt, and whether it shows the conversation.
    fn fill_in(&self, values: &PromptValues<'_>) -> Result<(Vec<PromptMessage>, bool), PromptError> {
        let references = values.references.iter().map(Cow::as_ref);
        let fence = Fence::new(values.criteria, values.question, references, MAX_CHARS);
        let contained = Contained::new(values, &fence);
        let trusted =
            [self.source.as_str(), values.criteria].into_iter().chain(values.labels.iter().map(String::as_str));
        let mut placeholders = Placeholders::absent_from(trusted);
        let (variables, hidden) = contained.variables(values, &fence, &mut placeholders)?;
        let mut messages = Vec::with_capacity(self.sections.len());
        let mut shown = BTreeSet::new();
        for section in &self.sections {
            let template = self.environment.get_template(&section.name);
            let rendered = template.and_then(|template| template.render(variables.clone()));
            let rendered = rendered.map_err(|error| section.fault(&error))?;
            shown.extend(placeholders.placed(&rendered));
            let text = placeholders.resolve(rendered.trim(), MAX_MESSAGE_BYTES)?;
            if !text.text.is_empty() {
                messages.push(PromptMessage { role: section.role, text: text.text, untrusted: text.untrusted });
            }
        }
        if !messages.iter().any(|message| message.role == ChatRole::User) {
            return Err(PromptError::NoQuestion);
        }
        // By what was rendered: a name that a template uses may be a condition, a length, or another mode's.
        if !hidden.shows(self.subject, &shown) {
            return Err(PromptError::NotShown(self.subject));
        }
        Ok((messages, hidden.shows_conversation(&shown)))
    }

    /// Every variable is known.
    fn check_variables(&self) -> Result<(), PromptError> {
        for section in &self.sections {
            let Ok(template) = self.environment.get_template(&section.name) else { continue };
            for name in template.undeclared_variables(false) {
                let known = VARIABLES.contains(&name.as_str()) || self.environment.globals().any(|(g, _)| g == name);
                if !known {
                    let at = find_word(&section.text, &name);
                    let message = format!("there is no variable `{name}`; there are {}", VARIABLES.join(", "));
                    return Err(section.fault_at(at, message));
                }
            }
        }
        Ok(())
    }

    /// Filters, tests and functions are looked up when a template runs, so it is run, with what its subject has: for an answer
    /// both after words of the policy's own and after results of its calls. A template that shows something of the one alone
    /// would leave it to the policy whether there is a verdict.
    fn try_out(&self) -> Result<(), PromptError> {
        const BEGINNING: [Role; 3] = [Role::System, Role::User, Role::Assistant];
        const ENDS: [&[Role]; 2] = [&[Role::Tool, Role::Assistant], &[Role::Tool, Role::Tool, Role::Tool]];
        let two = [Cow::Borrowed("one"), Cow::Borrowed("two")];
        let labels = ["Yes".to_owned(), "No".to_owned()];
        let values = PromptValues {
            criteria: "The answer is right.",
            question: "a question",
            references: &two,
            ..PromptValues::default()
        };
        if self.subject == Subject::Candidates {
            return self.render(&PromptValues { candidates: &two, ..values }).map(|_| ());
        }
        let values = PromptValues { answer: "an answer", labels: &labels, ..values };
        for end in ENDS {
            let roles = BEGINNING.into_iter().chain(end.iter().copied());
            let said = roles.map(|role| PastMessage { role, text: Cow::Borrowed("some words") });
            self.render(&PromptValues { conversation: &said.collect::<Vec<_>>(), ..values })?;
        }
        Ok(())
    }
}

/// The task of a conversation: its first user message; empty when there is none.
pub(super) fn task_of<'a>(conversation: &'a [PastMessage<'_>]) -> &'a str {
    conversation.iter().find(|message| message.role == Role::User).map_or("", |message| &message.text)
}

impl Section {
    fn fault(&self, error: &minijinja::Error) -> PromptError {
        let mut fault = TemplateFault::of(error, &self.text);
        fault.line += self.line_offset;
        PromptError::Template(fault)
    }

    fn fault_at(&self, byte: usize, message: String) -> PromptError {
        let (line, column) = jinja::place(&self.text, byte);
        PromptError::Template(TemplateFault { line: line + self.line_offset, column, message })
    }
}

/// Cuts a template at its role lines. Text before the first one is the user's.
fn split_sections(source: &str) -> Vec<Section> {
    let mut sections = vec![Section::new(ChatRole::User, 0)];
    for (index, line) in source.split_inclusive('\n').enumerate() {
        let role = match line.trim() {
            "<<system>>" => Some(ChatRole::System),
            "<<user>>" => Some(ChatRole::User),
            "<<assistant>>" => Some(ChatRole::Assistant),
            _ => None,
        };
        match (role, sections.last_mut()) {
            (None, Some(section)) => section.text.push_str(line),
            (role, _) => sections.push(Section::new(role.unwrap_or(ChatRole::User), index + 1)),
        }
    }
    sections.retain(|section| !section.text.trim().is_empty());
    sections
}

impl Section {
    fn new(role: ChatRole, line_offset: usize) -> Self {
        Self { role, name: format!("{} at line {}", role.as_str(), line_offset + 1), text: String::new(), line_offset }
    }
}

/// Chat templates take a system message first, then user and assistant in turn, and a judge's last word may be begun.
fn check_order(sections: &[Section]) -> Result<(), PromptError> {
    let mut before = None;
    for section in sections {
        let wrong = match (before, section.role) {
            (None, ChatRole::Assistant) => "the judge cannot speak first; begin with <<system>> or <<user>>",
            (Some(_), ChatRole::System) => "<<system>> must be the first message, and the only one of its kind",
            (Some(ChatRole::System), ChatRole::Assistant) => "<<user>> must come between <<system>> and <<assistant>>",
            (Some(before), now) if before == now => "two messages of one speaker in a row; join them",
            _ => "",
        };
        if !wrong.is_empty() {
            return Err(section.fault_at(0, wrong.to_owned()));
        }
        before = Some(section.role);
    }
    if sections.iter().any(|section| section.role == ChatRole::User) {
        return Ok(());
    }
    let message = "the template asks nothing; write the question, after a line <<user>> if there are other messages";
    Err(PromptError::Template(TemplateFault { line: 1, column: 1, message: message.to_owned() }))
}

/// Where a word first stands by itself.
fn find_word(text: &str, word: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let alone = |at: usize| {
        let (before, after) = (text.get(..at).unwrap_or_default(), text.get(at + word.len()..).unwrap_or_default());
        !before.ends_with(is_part) && !after.starts_with(is_part)
    };
    text.match_indices(word).map(|(at, _)| at).find(|at| alone(*at)).unwrap_or(0)
}
