//! The closed lists of what can be wrong with a tool call and of what tolerant parsing may repair. In: nothing; out:
//! the enums and the names that reports use. Knows no format and no schema.

use std::borrow::Cow;
use std::fmt;

/// What is wrong with an attempt at a tool call, or with a call that parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// The JSON breaks RFC 8259.
    JsonSyntax,
    /// A number lies beyond the range of a double.
    JsonNumber,
    /// A string holds half of a surrogate pair.
    JsonSurrogate,
    /// There is valid JSON, but no object where one must stand; or a list element that is no call.
    NotAnObject,
    /// A call object has no `name`.
    MissingName,
    /// A name is empty, or is no string.
    BadName,
    /// A call object has neither `arguments` nor `parameters`.
    MissingArguments,
    /// The arguments are neither an object nor a string that holds one.
    BadArguments,
    /// A call object has both `arguments` and `parameters`.
    AmbiguousArguments,
    /// The call is complete, but the marker that closes it is absent.
    MissingCloser,
    /// The text ends inside the call.
    Truncated,
    /// Something stands inside the call's markers that does not belong there.
    UnexpectedText,
    /// A pythonic call has a positional argument or `**`.
    PositionalArgument,
    /// A pythonic argument is no literal.
    NotALiteral,
    /// A `kimi_k2` id has no index.
    MissingIndex,
    /// Reasoning was opened and never closed.
    ReasoningOpen,
    /// Values nest deeper than the parser follows.
    TooDeep,
    /// The turn, or all turns together, hold more attempts than are looked at.
    TooManyCalls,
    /// The arguments of the trajectory's calls hold more values than there is memory for.
    TooManyValues,
    /// The call names a tool that was not offered.
    UnknownTool,
    /// The arguments break the tool's schema.
    SchemaViolation,
    /// The tool's schema is no valid schema.
    SchemaInvalid,
    /// The tool's schema needs something that is not supported.
    SchemaUnsupported,
}

impl ErrorCode {
    /// Every code, in the documented order.
    pub const ALL: [Self; 23] = [
        Self::JsonSyntax,
        Self::JsonNumber,
        Self::JsonSurrogate,
        Self::NotAnObject,
        Self::MissingName,
        Self::BadName,
        Self::MissingArguments,
        Self::BadArguments,
        Self::AmbiguousArguments,
        Self::MissingCloser,
        Self::Truncated,
        Self::UnexpectedText,
        Self::PositionalArgument,
        Self::NotALiteral,
        Self::MissingIndex,
        Self::ReasoningOpen,
        Self::TooDeep,
        Self::TooManyCalls,
        Self::TooManyValues,
        Self::UnknownTool,
        Self::SchemaViolation,
        Self::SchemaInvalid,
        Self::SchemaUnsupported,
    ];

    /// The name used in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JsonSyntax => "json_syntax",
            Self::JsonNumber => "json_number",
            Self::JsonSurrogate => "json_surrogate",
            Self::NotAnObject => "not_an_object",
            Self::MissingName => "missing_name",
            Self::BadName => "bad_name",
            Self::MissingArguments => "missing_arguments",
            Self::BadArguments => "bad_arguments",
            Self::AmbiguousArguments => "ambiguous_arguments",
            Self::MissingCloser => "missing_closer",
            Self::Truncated => "truncated",
            Self::UnexpectedText => "unexpected_text",
            Self::PositionalArgument => "positional_argument",
            Self::NotALiteral => "not_a_literal",
            Self::MissingIndex => "missing_index",
            Self::ReasoningOpen => "reasoning_open",
            Self::TooDeep => "too_deep",
            Self::TooManyCalls => "too_many_calls",
            Self::TooManyValues => "too_many_values",
            Self::UnknownTool => "unknown_tool",
            Self::SchemaViolation => "schema_violation",
            Self::SchemaInvalid => "schema_invalid",
            Self::SchemaUnsupported => "schema_unsupported",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that tolerant parsing put right in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Repair {
    /// The marker that opens the block is missing, and what follows it tells all the same.
    MissingOpener,
    /// The closing marker is missing at the end of the text.
    MissingCloser,
    /// A comma stands before a closing bracket.
    TrailingComma,
    /// A JSON string stands in single quotes.
    SingleQuotes,
    /// The JSON holds a comment.
    Comment,
    /// `True`, `False` or `None` stands for the JSON literal.
    PythonLiteral,
    /// Another key stands for `name` or `arguments`.
    AliasKey,
}

impl Repair {
    /// Every repair.
    pub const ALL: [Self; 7] = [
        Self::MissingOpener,
        Self::MissingCloser,
        Self::TrailingComma,
        Self::SingleQuotes,
        Self::Comment,
        Self::PythonLiteral,
        Self::AliasKey,
    ];

    /// The name used in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingOpener => "missing_opener",
            Self::MissingCloser => "missing_closer",
            Self::TrailingComma => "trailing_comma",
            Self::SingleQuotes => "single_quotes",
            Self::Comment => "comment",
            Self::PythonLiteral => "python_literal",
            Self::AliasKey => "alias_key",
        }
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an attempt is no call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The kind of fault.
    pub code: ErrorCode,
    /// What is wrong and where, for a human; short whatever the input is.
    pub message: String,
    /// The tool's name, where the attempt got that far; shortened when it is longer than a name can sensibly be.
    pub name: Option<String>,
}

/// A fault at a byte of the text, on its way to becoming a [`Malformed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: ErrorCode,
    pub(super) at: usize,
    pub(super) what: Cow<'static, str>,
}

impl Fault {
    pub(super) fn new(code: ErrorCode, at: usize, what: impl Into<Cow<'static, str>>) -> Self {
        Self { code, at, what: what.into() }
    }

    /// The fault as it is reported, with the name if the attempt had one.
    pub(super) fn named(self, name: Option<&str>) -> Malformed {
        let message = format!("{} (byte {})", self.what, self.at);
        Malformed { code: self.code, message, name: name.map(|name| clip(name).to_owned()) }
    }
}

/// At most the first 200 bytes of `text`, so that no report repeats megabytes of hostile input.
pub fn clip(text: &str) -> &str {
    const LONGEST: usize = 200;
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_repair_has_its_own_name() {
        let mut names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        let mut names: Vec<_> = Repair::ALL.iter().map(|repair| repair.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Repair::ALL.len());
    }

    #[test]
    fn clip_respects_characters() {
        assert_eq!(clip("short"), "short");
        let long = "é".repeat(200);
        assert_eq!(clip(&long).len(), 200);
        assert_eq!(clip(&format!("a{long}")).len(), 199);
    }
}
