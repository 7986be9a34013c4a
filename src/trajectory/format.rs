//! The names of the tool-call formats and how forgiving their parsers are. In: a name from a request or a
//! rubric; out: the closed enum that the parsers match on. Knows no syntax.

use std::str::FromStr;

named! {
    /// A tool-call format: how a model family writes its calls.
    ///
    /// `Auto` is a request to detect the format, never the format of a parsed turn.
    #[derive(Default)]
    pub enum ToolFormat {
        /// Decide by the first distinctive marker outside reasoning.
        #[default]
        Auto = "auto",
        /// `<tool_call>{"name": .., "arguments": ..}</tool_call>`; also Qwen2.5 and Qwen3.
        Hermes = "hermes",
        /// `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`.
        Qwen3Coder = "qwen3_coder",
        /// `<tool_call>name<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>`.
        Glm45 = "glm45",
        /// `<|python_tag|>{"name": .., "parameters": ..}` or the bare object.
        Llama3Json = "llama3_json",
        /// `[name(key=value), ..]`.
        Pythonic = "pythonic",
        /// `[TOOL_CALLS]` with a list (old form) or `name{..}` (new form).
        Mistral = "mistral",
        /// Sections with `type<sep>name` and a fenced JSON block per call.
        DeepseekV3 = "deepseek_v3",
        /// Sections with `name<sep>{..}` per call.
        DeepseekV31 = "deepseek_v31",
        /// Sections with `functions.name:index` ids.
        KimiK2 = "kimi_k2",
        /// OpenAI's harmony segments.
        Harmony = "harmony",
        /// A JSON list after an optional `<|tool_call|>`.
        Granite = "granite",
        /// `<function_call>{..}`, repeated.
        Granite20bFc = "granite_20b_fc",
        /// `functools[..]`.
        Phi4Mini = "phi4_mini",
        /// `<|action_start|><|plugin|>{..}<|action_end|>`.
        Internlm = "internlm",
        /// `<function=name>{..}</function>`.
        FunctionaryV31 = "functionary_v31",
        /// `>>>name` and an object.
        FunctionaryV32 = "functionary_v32",
        /// `Action:` / `Action Input:` lines.
        React = "react",
        /// `<search>query</search>`.
        SearchR1 = "search_r1",
        /// Native `tool_calls` of a chat message.
        Openai = "openai",
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

named! {
    /// How forgiving the parser is.
    #[derive(Default)]
    pub enum ParseMode {
        /// Exactly the documented rules.
        #[default]
        Strict = "strict",
        /// Also repairs what deployed parsers accept; a repaired call says so.
        Tolerant = "tolerant",
    }
}
