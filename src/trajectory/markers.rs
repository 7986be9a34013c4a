//! The markers by which chat templates say who speaks. In: a text that may start with one; out: what it says, and in
//! which formats it is a token of the model rather than text. Knows nothing of where it stands.

use super::{Role, ToolFormat};

/// A marker of the chat templates of the supported model families.
pub(super) struct Marker {
    open: &'static str,
    shape: Shape,
    tokens: Tokens,
}

/// How a template says that somebody else speaks from here on.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// `open ROLE.. close`: the next speaker's role by name; text up to `close` is the header. A name that is no role speaks
    /// for nobody that is scored.
    Header { close: &'static str },
    /// `open NAME close`: the next speaker is this role, whatever the name, unless the name is a tool's.
    Named { close: &'static str, role: Role },
    /// `open`: the next speaker is this role.
    Speaker { role: Role },
    /// `open .. close`: one tool result, then the policy again.
    Block { close: &'static str },
    /// The same in characters that people write, too.
    PlainBlock { close: &'static str },
}

/// The formats whose models write a marker as one token. There it separates wherever it stands.
enum Tokens {
    /// All formats: its header ends with a line break, which stands in no string of a call.
    All,
    /// These, and the formats that any model may write.
    Of(&'static [ToolFormat]),
    /// These alone: it is too short to be told from text about templates.
    OnlyOf(&'static [ToolFormat]),
}

const LLAMA: &[ToolFormat] =
    &[ToolFormat::Llama3Json, ToolFormat::Pythonic, ToolFormat::FunctionaryV31, ToolFormat::FunctionaryV32];
const GRANITE: &[ToolFormat] = &[ToolFormat::Granite, ToolFormat::Granite20bFc];
const KIMI: &[ToolFormat] = &[ToolFormat::KimiK2];
const GLM: &[ToolFormat] = &[ToolFormat::Glm45];
const PHI: &[ToolFormat] = &[ToolFormat::Phi4Mini];
const GLM_AND_PHI: &[ToolFormat] = &[ToolFormat::Glm45, ToolFormat::Phi4Mini];
const DEEPSEEK: &[ToolFormat] = &[ToolFormat::DeepseekV3, ToolFormat::DeepseekV31];
const QWEN_AND_GLM: &[ToolFormat] = &[ToolFormat::Hermes, ToolFormat::Qwen3Coder, ToolFormat::Glm45];
const MISTRAL: &[ToolFormat] = &[ToolFormat::Mistral];

const fn marker(open: &'static str, shape: Shape, tokens: Tokens) -> Marker {
    Marker { open, shape, tokens }
}

/// Every marker. Those of anything that is not the policy come under tools' own names, too.
static MARKERS: [Marker; 21] = [
    marker("<|im_start|>", Shape::Header { close: "\n" }, Tokens::All),
    marker("<|start_header_id|>", Shape::Header { close: "<|end_header_id|>" }, Tokens::Of(LLAMA)),
    marker("<|start_of_role|>", Shape::Header { close: "<|end_of_role|>" }, Tokens::Of(GRANITE)),
    marker("<start_of_turn>", Shape::Header { close: "\n" }, Tokens::All),
    marker("<|header_start|>", Shape::Header { close: "<|header_end|>" }, Tokens::Of(LLAMA)),
    marker("<|im_system|>", Shape::Named { close: "<|im_middle|>", role: Role::Tool }, Tokens::Of(KIMI)),
    marker("<|im_user|>", Shape::Named { close: "<|im_middle|>", role: Role::User }, Tokens::Of(KIMI)),
    marker("<|im_assistant|>", Shape::Named { close: "<|im_middle|>", role: Role::Assistant }, Tokens::Of(KIMI)),
    marker("<|system|>", Shape::Speaker { role: Role::System }, Tokens::OnlyOf(GLM_AND_PHI)),
    marker("<|user|>", Shape::Speaker { role: Role::User }, Tokens::OnlyOf(GLM_AND_PHI)),
    marker("<|assistant|>", Shape::Speaker { role: Role::Assistant }, Tokens::OnlyOf(GLM_AND_PHI)),
    marker("<|observation|>", Shape::Speaker { role: Role::Tool }, Tokens::OnlyOf(GLM)),
    marker("<|tool|>", Shape::Speaker { role: Role::Tool }, Tokens::OnlyOf(PHI)),
    marker("<|tool_response|>", Shape::Speaker { role: Role::Tool }, Tokens::OnlyOf(PHI)),
    marker("<｜User｜>", Shape::Speaker { role: Role::User }, Tokens::Of(DEEPSEEK)),
    marker("<｜Assistant｜>", Shape::Speaker { role: Role::Assistant }, Tokens::Of(DEEPSEEK)),
    marker("<｜tool▁outputs▁begin｜>", Shape::Block { close: "<｜tool▁outputs▁end｜>" }, Tokens::Of(DEEPSEEK)),
    marker("<｜tool▁output▁begin｜>", Shape::Block { close: "<｜tool▁output▁end｜>" }, Tokens::Of(DEEPSEEK)),
    marker("<tool_response>", Shape::PlainBlock { close: "</tool_response>" }, Tokens::Of(QWEN_AND_GLM)),
    marker("[TOOL_RESULTS]", Shape::PlainBlock { close: "[/TOOL_RESULTS]" }, Tokens::Of(MISTRAL)),
    marker("[INST]", Shape::PlainBlock { close: "[/INST]" }, Tokens::Of(MISTRAL)),
];

/// Longest header between a role's markers, in bytes: `tool name=..` and the like.
pub(super) const MAX_HEADER_BYTES: usize = 256;

/// A marker that a text starts with.
#[derive(Clone, Copy)]
pub(super) struct Found {
    marker: &'static Marker,
    /// Its place among all markers.
    pub(super) index: usize,
    /// Its bytes, a header included.
    pub(super) length: usize,
    /// Who speaks after it, or inside it.
    pub(super) speaker: Role,
}

/// The marker that `text` starts with.
pub(super) fn at_start(text: &str) -> Option<Found> {
    // Most `<` and `[` open no marker at all: one look at the next byte saves the table. 0xEF begins the bar of DeepSeek's.
    if !matches!(text.as_bytes().get(1), Some(b'|' | b's' | b't' | b'T' | b'I' | 0xEF)) {
        return None;
    }
    MARKERS.iter().enumerate().find_map(|(index, marker)| {
        let open = marker.open.len();
        let (length, speaker) = match marker.shape {
            Shape::Speaker { role } => (text.starts_with(marker.open).then_some(open)?, role),
            Shape::Block { .. } | Shape::PlainBlock { .. } => {
                (text.starts_with(marker.open).then_some(open)?, Role::Tool)
            }
            Shape::Header { close } => {
                let header = header(text, marker.open, close)?;
                let role = header.split(|c: char| c.is_whitespace() || c == ':' || c == '=').next()?;
                (open + header.len() + close.len(), Role::from_name(role).unwrap_or(Role::Tool))
            }
            Shape::Named { close, role } => {
                let header = header(text, marker.open, close)?;
                let speaker = if role == Role::Tool { Role::from_name(header).unwrap_or(role) } else { role };
                (open + header.len() + close.len(), speaker)
            }
        };
        Some(Found { marker, index, length, speaker })
    })
}

impl Found {
    /// Whether models that write `format` write it as one token.
    pub(super) fn is_token_of(&self, format: ToolFormat) -> bool {
        let of_any_model =
            matches!(format, ToolFormat::Auto | ToolFormat::React | ToolFormat::SearchR1 | ToolFormat::Openai);
        match self.marker.tokens {
            Tokens::All => true,
            Tokens::Of(formats) => of_any_model || formats.contains(&format),
            Tokens::OnlyOf(formats) => formats.contains(&format),
        }
    }

    /// What closes it, if it is a block.
    pub(super) fn closer(&self) -> Option<&'static str> {
        match self.marker.shape {
            Shape::Block { close } | Shape::PlainBlock { close } => Some(close),
            Shape::Header { .. } | Shape::Named { .. } | Shape::Speaker { .. } => None,
        }
    }

    /// Whether it is a block in characters that people write, too.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.marker.shape, Shape::PlainBlock { .. })
    }

    /// Whether it stands in square brackets, as words of prose and lists of code do.
    pub(super) fn is_bracketed(&self) -> bool {
        self.marker.open.starts_with('[')
    }

    /// Whether a question of the user stands in it: no response breaks off there.
    pub(super) fn is_question(&self) -> bool {
        self.marker.open == "[INST]"
    }
}

/// What stands between two markers at the start of a text, if they are near each other.
fn header<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let header = text.strip_prefix(open)?;
    let window = &header.as_bytes()[..header.len().min(MAX_HEADER_BYTES)];
    header.get(..memchr::memmem::find(window, close.as_bytes())?)
}
