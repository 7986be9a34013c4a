//! A model's own way to write a conversation down: Hugging Face chat templates.
//!
//! In: messages, some of whose bytes are untrusted, and options. Out: [`Rendered`], in which the untrusted bytes are still
//! known. A template sees a placeholder where untrusted text stands, so that the text cannot steer it; white space at the
//! ends of a message stays visible, because templates trim it. Knows no tokenizer and reads no clock.

mod clock;
mod messages;
mod predicates;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value};
use regex::Regex;

use self::messages::{Mark, fold_system, hide, message_value};
pub use self::source::SpecialTokens;
use super::jinja::{self, TemplateFault};
use super::untrusted::{Origin, Placeholders, Rendered, UntrustedError, pieces};

/// Longest rendered conversation, in bytes.
const MAX_RENDERED_BYTES: usize = 64 * 1024 * 1024;
const NAME: &str = "chat_template";

/// One message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatMessage<'a> {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: &'a str,
    /// The text.
    pub text: &'a str,
    /// Byte ranges of `text` that are untrusted: on character boundaries, in order, apart from each other.
    pub untrusted: &'a [Range<usize>],
}

/// How a rendered conversation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChatEnd {
    /// After the last message, closed.
    Closed,
    /// With the opening of an answer (`add_generation_prompt`).
    #[default]
    Answer,
    /// Inside the last message, which is to be written on (`continue_final_message`).
    Continue,
}

/// What a template is given besides the messages.
#[derive(Debug, Clone, Default)]
pub struct ChatOptions {
    /// How the text ends.
    pub end: ChatEnd,
    /// Tools, as a JSON list of OpenAI's form.
    pub tools: Option<String>,
    /// More variables, such as `enable_thinking`.
    pub variables: BTreeMap<String, serde_json::Value>,
}

/// A chat template cannot be had, or does not take a conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatTemplateError {
    /// No file has one.
    #[error(
        "no chat template: looked at {}; put the template of the model's family into a file chat_template.jinja beside \
         tokenizer.json", list(.looked_at.iter().map(|path| path.display().to_string()))
    )]
    Missing {
        /// The files that were looked at.
        looked_at: Vec<PathBuf>,
    },
    /// A file cannot be read, or does not say what it should.
    #[error("{}: {message}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        message: String,
    },
    /// A list of templates lacks the one for plain conversations.
    #[error("{}: no chat template is named `default`; there is {}", .path.display(), list(.known))]
    NoDefault {
        /// The file.
        path: PathBuf,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The template is broken, or stumbles over the conversation.
    #[error("{}: {fault}", .path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the line and column of the template.
        fault: TemplateFault,
    },
    /// The template refuses the conversation.
    #[error("the chat template refuses this conversation: {0}")]
    Raised(String),
    /// Nothing to render.
    #[error("a conversation needs at least one message")]
    NoMessages,
    /// The last message is not in the text.
    #[error(
        "the chat template does not show the last message, so that it cannot be continued; end with a user message"
    )]
    CannotContinue,
    /// The tools are no JSON.
    #[error("the tools are no JSON list: {0}")]
    Tools(String),
    /// Untrusted ranges are wrong, or the text is too long.
    #[error(transparent)]
    Untrusted(#[from] UntrustedError),
}

/// What a template does with a system message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SystemMessages {
    /// It writes them.
    Shown,
    /// It refuses or drops them (Gemma's do): they are put in front of the next user message.
    Folded,
}

/// A chat template, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    path: PathBuf,
    tokens: SpecialTokens,
    system: SystemMessages,
}

impl ChatTemplate {
    /// The template of a model directory; of several the one that is named `default`.
    ///
    /// # Errors
    /// When there is none, a file is broken, or the template does not render a plain question.
    pub fn load(directory: &Path) -> Result<Self, ChatTemplateError> {
        let found = source::find(directory)?;
        Self::compile(&found.path, &found.template, found.tokens)
    }

    /// A template from its text; `path` is the file that errors name.
    ///
    /// # Errors
    /// When the template is broken or does not render a plain question.
    pub fn compile(path: &Path, source: &str, tokens: SpecialTokens) -> Result<Self, ChatTemplateError> {
        let fault = |fault| ChatTemplateError::Template { path: path.to_owned(), fault };
        jinja::check_length(source).map_err(fault)?;
        let source = without_generation_tags(source);
        let mut environment = jinja::environment();
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_test("iterable", predicates::is_iterable);
        environment.add_test("sequence", predicates::is_sequence);
        environment.add_function("raise_exception", |message: &str| -> Result<String, Error> {
            let raised = jinja::Raised(message.to_owned());
            Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(raised))
        });
        // One that asks for the clock before it reads it has a date of its own where there is none.
        if !asks_for_clock(&source) {
            environment.add_function("strftime_now", |format: &str| {
                clock::strftime(format).map_err(|message| Error::new(ErrorKind::InvalidOperation, message))
            });
        }
        environment
            .add_template_owned(NAME, source.clone())
            .map_err(|error| fault(TemplateFault::of(&error, &source)))?;
        let mut template = Self { environment, source, path: path.to_owned(), tokens, system: SystemMessages::Shown };
        template.system = template.probe()?;
        Ok(template)
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The special tokens that it may write, by name.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.tokens
    }

    /// Writes a conversation down.
    ///
    /// # Errors
    /// When the template refuses it, stumbles, or runs away; when ranges are wrong or the text gets too long.
    pub fn render(&self, messages: &[ChatMessage<'_>], options: &ChatOptions) -> Result<Rendered, ChatTemplateError> {
        if self.system == SystemMessages::Shown || messages.iter().all(|message| message.role != "system") {
            return self.render_all(messages, options);
        }
        let folded = fold_system(messages)?;
        let borrowed: Vec<_> = folded
            .iter()
            .map(|(role, message)| ChatMessage { role, text: &message.text, untrusted: &message.untrusted })
            .collect();
        self.render_all(&borrowed, options)
    }

    /// Renders a plain question, then the same with a system message. A template that wants a text in parts, or another role,
    /// may drop the question without a word.
    fn probe(&self) -> Result<SystemMessages, ChatTemplateError> {
        const INSTRUCTION: &str = "Answer in one word.";
        const QUESTION: &str = "Is water wet?";
        let user = ChatMessage { role: "user", text: QUESTION, untrusted: &[] };
        let system = ChatMessage { role: "system", text: INSTRUCTION, untrusted: &[] };
        let options = ChatOptions::default();
        if !self.render_all(&[user], &options)?.text.contains(QUESTION) {
            return Err(ChatTemplateError::Malformed {
                path: self.path.clone(),
                message: "the template does not show what a user says; put one that does, with the content as a text, into a \
                          file chat_template.jinja beside tokenizer.json"
                    .to_owned(),
            });
        }
        match self.render_all(&[system, user], &options) {
            Ok(rendered) if rendered.text.contains(INSTRUCTION) => Ok(SystemMessages::Shown),
            _ => Ok(SystemMessages::Folded),
        }
    }

    fn render_all(&self, messages: &[ChatMessage<'_>], options: &ChatOptions) -> Result<Rendered, ChatTemplateError> {
        let Some((last, before)) = messages.split_last() else { return Err(ChatTemplateError::NoMessages) };
        let mut placeholders = self.placeholders(messages, options)?;
        let mut values = Vec::with_capacity(messages.len());
        for message in before {
            values.push(message_value(message, &hide(message, &mut placeholders)?));
        }
        let mut last_text = hide(last, &mut placeholders)?;
        let continued = match options.end {
            ChatEnd::Continue => Some(Mark::put(placeholders.fresh()?, &mut last_text)),
            ChatEnd::Closed | ChatEnd::Answer => None,
        };
        values.push(message_value(last, &last_text));
        let rendered = self.run(Value::from_pairs(self.variables(values, options)?))?;
        let rendered = match &continued {
            Some(mark) => mark.cut(&rendered).ok_or(ChatTemplateError::CannotContinue)?,
            None => rendered,
        };
        Ok(placeholders.resolve(&rendered, MAX_RENDERED_BYTES)?)
    }

    /// Placeholders that occur in nothing that the template is given.
    fn placeholders<'a>(
        &self,
        messages: &[ChatMessage<'a>],
        options: &ChatOptions,
    ) -> Result<Placeholders<'a>, ChatTemplateError> {
        let mut seen = vec![self.source.as_str()];
        for message in messages {
            let pieces = pieces(message.text, message.untrusted)?;
            seen.extend(pieces.iter().filter(|piece| piece.origin == Origin::Trusted).map(|piece| piece.text));
            seen.push(message.role);
        }
        seen.extend(self.tokens.values().map(String::as_str));
        seen.extend(options.tools.as_deref());
        let variables: Vec<String> = options.variables.values().map(ToString::to_string).collect();
        seen.extend(variables.iter().map(String::as_str));
        Ok(Placeholders::absent_from(seen))
    }

    fn variables(
        &self,
        messages: Vec<Value>,
        options: &ChatOptions,
    ) -> Result<Vec<(String, Value)>, ChatTemplateError> {
        let mut all: BTreeMap<String, Value> =
            options.variables.iter().map(|(name, value)| (name.clone(), Value::from(Serde(value)))).collect();
        all.extend(self.tokens.iter().map(|(name, text)| (name.clone(), Value::from(text))));
        let tools = options.tools.as_deref().map(serde_json::from_str::<Value>).transpose();
        let tools = tools.map_err(|error| ChatTemplateError::Tools(error.to_string()))?;
        // Templates ask both `if tools` and `tools is not none`.
        all.insert("tools".to_owned(), tools.unwrap_or_else(|| Value::from(())));
        all.insert("messages".to_owned(), Value::from(messages));
        all.insert("add_generation_prompt".to_owned(), Value::from(options.end == ChatEnd::Answer));
        Ok(all.into_iter().collect())
    }

    fn run(&self, variables: Value) -> Result<String, ChatTemplateError> {
        let template = self.environment.get_template(NAME);
        template.and_then(|template| template.render(variables)).map_err(|error| {
            let fault = || TemplateFault::of(&error, &self.source);
            let stumbled = || ChatTemplateError::Template { path: self.path.clone(), fault: fault() };
            jinja::raised(&error).map_or_else(stumbled, ChatTemplateError::Raised)
        })
    }
}

/// Whether a template asks whether there is a clock.
fn asks_for_clock(source: &str) -> bool {
    static ASKED: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\bstrftime_now\s+is\s+(not\s+)?defined\b").ok());
    ASKED.as_ref().is_some_and(|asked| asked.is_match(source))
}

/// `{% generation %}` marks what an assistant wrote, for training masks. Here it is an `if` that always holds, which trims
/// white space just as the tag would and keeps the lines.
fn without_generation_tags(source: &str) -> String {
    static TAG: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").ok());
    let Some(tag) = TAG.as_ref() else { return source.to_owned() };
    let replaced = tag.replace_all(source, |found: &regex::Captures<'_>| {
        let part = |index| found.get(index).map_or("", |part| part.as_str());
        let word = if part(2).is_empty() { "if true" } else { "endif" };
        format!("{{%{} {word} {}%}}", part(1), part(3))
    });
    replaced.into_owned()
}

fn list(items: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    items.into_iter().map(|item| format!("`{}`", item.as_ref())).collect::<Vec<_>>().join(", ")
}
