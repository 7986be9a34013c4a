//! The closed lists of what can be wrong with a tool call and of what tolerant parsing may repair. In: nothing; out:
//! the enums and the names that reports use. Knows no format and no schema.

use std::borrow::Cow;

named! {
    /// What is wrong with an attempt at a tool call, or with a call that parsed.
    pub enum ErrorCode {
        /// The JSON breaks RFC 8259.
        JsonSyntax = "json_syntax",
        /// A number lies beyond the range of a double.
        JsonNumber = "json_number",
        /// A string holds half of a surrogate pair.
        JsonSurrogate = "json_surrogate",
        /// There is valid JSON, but no object where one must stand; or a list element that is no call.
        NotAnObject = "not_an_object",
        /// A call object has no `name`.
        MissingName = "missing_name",
        /// A name is empty, or is no string.
        BadName = "bad_name",
        /// A call object has neither `arguments` nor `parameters`.
        MissingArguments = "missing_arguments",
        /// The arguments are neither an object nor a string that holds one.
        BadArguments = "bad_arguments",
        /// A call object has both `arguments` and `parameters`.
        AmbiguousArguments = "ambiguous_arguments",
        /// The call is complete, but the marker that closes it is absent.
        MissingCloser = "missing_closer",
        /// The text ends inside the call.
        Truncated = "truncated",
        /// Something stands inside the call's markers that does not belong there.
        UnexpectedText = "unexpected_text",
        /// A pythonic call has a positional argument or `**`.
        PositionalArgument = "positional_argument",
        /// A pythonic argument is no literal.
        NotALiteral = "not_a_literal",
        /// A `kimi_k2` id has no index.
        MissingIndex = "missing_index",
        /// Reasoning was opened and never closed.
        ReasoningOpen = "reasoning_open",
        /// Values nest deeper than the parser follows.
        TooDeep = "too_deep",
        /// The turn, or all turns together, hold more attempts than are looked at.
        TooManyCalls = "too_many_calls",
        /// The arguments of the trajectory's calls hold more values than there is memory for.
        TooManyValues = "too_many_values",
        /// The call names a tool that was not offered.
        UnknownTool = "unknown_tool",
        /// The arguments break the tool's schema.
        SchemaViolation = "schema_violation",
        /// The tool's schema is no valid schema.
        SchemaInvalid = "schema_invalid",
        /// The tool's schema needs something that is not supported.
        SchemaUnsupported = "schema_unsupported",
    }
}

named! {
    /// Something that tolerant parsing put right in a call.
    pub enum Repair {
        /// The marker that opens the block is missing, and what follows it tells all the same.
        MissingOpener = "missing_opener",
        /// The closing marker is missing at the end of the text.
        MissingCloser = "missing_closer",
        /// A comma stands before a closing bracket.
        TrailingComma = "trailing_comma",
        /// A JSON string stands in single quotes.
        SingleQuotes = "single_quotes",
        /// The JSON holds a comment.
        Comment = "comment",
        /// `True`, `False` or `None` stands for the JSON literal.
        PythonLiteral = "python_literal",
        /// Another key stands for `name` or `arguments`.
        AliasKey = "alias_key",
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
