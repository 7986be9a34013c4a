//! The names of the tool-call formats and how forgiving their parsers are. In: a name from a request or a
//! rubric; out: the closed enum that the parsers match on. Knows no syntax.

use std::fmt;
use std::str::FromStr;

/// A tool-call format: how a model family writes its calls.
///
/// `Auto` is a request to detect the format, never the format of a parsed turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ToolFormat {
    /// Decide by the first distinctive marker outside reasoning.
    #[default]
    Auto,
    /// `<tool_call>{"name": .., "arguments": ..}</tool_call>`; also Qwen2.5 and Qwen3.
    Hermes,
    /// `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`.
    Qwen3Coder,
    /// `<tool_call>name<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>`.
    Glm45,
    /// `<|python_tag|>{"name": .., "parameters": ..}` or the bare object.
    Llama3Json,
    /// `[name(key=value), ..]`.
    Pythonic,
    /// `[TOOL_CALLS]` with a list (old form) or `name{..}` (new form).
    Mistral,
    /// Sections with `type<sep>name` and a fenced JSON block per call.
    DeepseekV3,
    /// Sections with `name<sep>{..}` per call.
    DeepseekV31,
    /// Sections with `functions.name:index` ids.
    KimiK2,
    /// OpenAI's harmony segments.
    Harmony,
    /// A JSON list after an optional `<|tool_call|>`.
    Granite,
    /// `<function_call>{..}`, repeated.
    Granite20bFc,
    /// `functools[..]`.
    Phi4Mini,
    /// `<|action_start|><|plugin|>{..}<|action_end|>`.
    Internlm,
    /// `<function=name>{..}</function>`.
    FunctionaryV31,
    /// `>>>name` and an object.
    FunctionaryV32,
    /// `Action:` / `Action Input:` lines.
    React,
    /// `<search>query</search>`.
    SearchR1,
    /// Native `tool_calls` of a chat message.
    Openai,
}

impl ToolFormat {
    /// Every format, `Auto` first.
    pub const ALL: [Self; 20] = [
        Self::Auto,
        Self::Hermes,
        Self::Qwen3Coder,
        Self::Glm45,
        Self::Llama3Json,
        Self::Pythonic,
        Self::Mistral,
        Self::DeepseekV3,
        Self::DeepseekV31,
        Self::KimiK2,
        Self::Harmony,
        Self::Granite,
        Self::Granite20bFc,
        Self::Phi4Mini,
        Self::Internlm,
        Self::FunctionaryV31,
        Self::FunctionaryV32,
        Self::React,
        Self::SearchR1,
        Self::Openai,
    ];

    /// The name used in requests, rubrics and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Hermes => "hermes",
            Self::Qwen3Coder => "qwen3_coder",
            Self::Glm45 => "glm45",
            Self::Llama3Json => "llama3_json",
            Self::Pythonic => "pythonic",
            Self::Mistral => "mistral",
            Self::DeepseekV3 => "deepseek_v3",
            Self::DeepseekV31 => "deepseek_v31",
            Self::KimiK2 => "kimi_k2",
            Self::Harmony => "harmony",
            Self::Granite => "granite",
            Self::Granite20bFc => "granite_20b_fc",
            Self::Phi4Mini => "phi4_mini",
            Self::Internlm => "internlm",
            Self::FunctionaryV31 => "functionary_v31",
            Self::FunctionaryV32 => "functionary_v32",
            Self::React => "react",
            Self::SearchR1 => "search_r1",
            Self::Openai => "openai",
        }
    }
}

impl fmt::Display for ToolFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no [`ToolFormat`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown tool format {0:?}; one of: {names}", names = ToolFormat::ALL.map(ToolFormat::as_str).join(", "))]
pub struct UnknownFormat(pub String);

impl FromStr for ToolFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.as_str() == name).ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

/// How forgiving the parser is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ParseMode {
    /// Exactly the documented rules.
    #[default]
    Strict,
    /// Also repairs what deployed parsers accept; a repaired call says so.
    Tolerant,
}

impl ParseMode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::Strict, Self::Tolerant];

    /// The name in rubric files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Tolerant => "tolerant",
        }
    }
}
