//! The template engine as Gradus runs it: bounded, without files, with errors that say where.
//!
//! In: the source of a chat template or of a rubric's prompt. Out: an environment that holds it, or [`TemplateFault`].
//! Knows neither what a template is for nor what it is given.

mod json;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error};

/// Work that one rendering may do, in the engine's units: about one an instruction and one per 64 bytes made. Ordinary
/// templates need some thousands; this is a fraction of a second and at most 64 MiB.
const FUEL: u64 = 1_000_000;

/// Deepest nesting of macros, loops and conditions. The engine's default takes more stack than a small thread has.
const RECURSION: usize = 120;

/// Longest source, in bytes.
pub const MAX_SOURCE_BYTES: usize = 1024 * 1024;

/// Longest text of a fault, in characters: a template may put anything into one.
const MAX_MESSAGE_CHARS: usize = 400;

/// What is wrong with a template, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct TemplateFault {
    /// Line of the source, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

/// What a template says about its input through `raise_exception`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Raised(pub String);

/// An engine without templates and without a way to load any: `include`, `import` and `extends` find nothing.
pub fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // As Hugging Face sets them. Both are fixed words for the builder, so it cannot refuse them.
    if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    // The engine's own would let what placeholders stand for leave its string.
    environment.add_filter("tojson", json::tojson);
    // Without it an error knows its line only.
    environment.set_debug(true);
    environment
}

/// Refuses a source that is too long to read.
///
/// # Errors
/// When it has more than [`MAX_SOURCE_BYTES`].
pub fn check_length(source: &str) -> Result<(), TemplateFault> {
    if source.len() <= MAX_SOURCE_BYTES {
        return Ok(());
    }
    let message = format!("the template has {} bytes, more than the limit of {MAX_SOURCE_BYTES}", source.len());
    Err(TemplateFault { line: 1, column: 1, message })
}

impl TemplateFault {
    /// Reads the engine's error about this source.
    pub fn of(error: &Error, source: &str) -> Self {
        let line = error.line().unwrap_or(1);
        let span = error.range().filter(|span| span.start < source.len());
        let (line, column) = span.map_or((line, 1), |span| place(source, span.start));
        Self { line, column, message: describe(error) }
    }
}

/// Line and column of a byte of a text, from 1.
pub fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// What `raise_exception` said, when the error comes from there.
pub fn raised(error: &Error) -> Option<String> {
    causes(error).find_map(|cause| cause.downcast_ref::<Raised>()).map(|raised| shorten(raised.0.clone()))
}

fn describe(error: &Error) -> String {
    let mut said = error.kind().to_string();
    if let Some(detail) = error.detail() {
        said = format!("{said}: {detail}");
    }
    let inner = causes(error).last().map(ToString::to_string);
    shorten(inner.map_or_else(|| said.clone(), |inner| format!("{said}: {inner}")))
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |cause| cause.source()).take(16)
}

fn shorten(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_MESSAGE_CHARS) {
        text.truncate(end);
        text.push_str(" ..");
    }
    text
}
