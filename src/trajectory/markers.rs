//! The markers by which chat templates say who speaks. In: a text that may start with one; out: what it says. Knows nothing
//! of where it stands.

use super::{Role, ToolFormat};

/// Templates whose markers belong together: a turn that one of them opened is closed by no other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    ChatMl,
    Llama3,
    Llama4,
    Granite,
    Gemma,
    Kimi,
    /// GLM and Phi: a role between bars.
    Bars,
    DeepSeek,
    Mistral,
    Harmony,
    Exaone,
    MiniMax,
    Cohere,
    SeedOss,
    Nemotron,
}

/// How a template says that somebody else speaks from here on.
enum Opening {
    /// `open ROLE.. close`: the next speaker's role by name; text up to the first closer is the header. A name that is no role
    /// speaks for nobody that is scored.
    Header { open: &'static str, close: &'static [&'static str] },
    /// `open NAME close`: the next speaker is this role, whatever the name, unless the name is a tool's.
    Named { open: &'static str, close: &'static [&'static str], role: Role },
    /// `open`: the next speaker is this role.
    Speaker { open: &'static str, role: Role },
}

/// Begins a turn of Granite's.
const GRANITE: &str = "<|start_of_role|>";

const fn kimi(open: &'static str, role: Role) -> (Family, Opening) {
    (Family::Kimi, Opening::Named { open, close: &["<|im_middle|>"], role })
}

const fn bars(open: &'static str, role: Role) -> (Family, Opening) {
    speaker(Family::Bars, open, role)
}

const fn speaker(family: Family, open: &'static str, role: Role) -> (Family, Opening) {
    (family, Opening::Speaker { open, role })
}

/// What begins a turn in the supported model families.
static TURNS: [(Family, Opening); 31] = [
    (Family::ChatMl, Opening::Header { open: "<|im_start|>", close: &["\n", "<|im_sep|>"] }),
    (Family::Llama3, Opening::Header { open: "<|start_header_id|>", close: &["<|end_header_id|>"] }),
    (Family::Granite, Opening::Header { open: GRANITE, close: &["<|end_of_role|>"] }),
    (Family::Gemma, Opening::Header { open: "<start_of_turn>", close: &["\n"] }),
    (Family::Llama4, Opening::Header { open: "<|header_start|>", close: &["<|header_end|>"] }),
    // Of anything that is not the policy: tools, under their own names, too.
    kimi("<|im_system|>", Role::Tool),
    kimi("<|im_user|>", Role::User),
    kimi("<|im_assistant|>", Role::Assistant),
    bars("<|system|>", Role::System),
    bars("<|user|>", Role::User),
    bars("<|assistant|>", Role::Assistant),
    bars("<|observation|>", Role::Tool),
    bars("<|tool|>", Role::Tool),
    bars("<|tool_response|>", Role::Tool),
    speaker(Family::DeepSeek, "<｜User｜>", Role::User),
    speaker(Family::DeepSeek, "<｜Assistant｜>", Role::Assistant),
    speaker(Family::Exaone, "[|system|]", Role::System),
    speaker(Family::Exaone, "[|user|]", Role::User),
    speaker(Family::Exaone, "[|assistant|]", Role::Assistant),
    speaker(Family::Exaone, "[|tool|]", Role::Tool),
    // With the end of the turn before, which begins with what is looked for anyway.
    speaker(Family::MiniMax, "[e~[\n]~b]user", Role::User),
    speaker(Family::MiniMax, "[e~[\n]~b]ai", Role::Assistant),
    speaker(Family::MiniMax, "[e~[\n]~b]tool", Role::Tool),
    speaker(Family::Cohere, "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", Role::User),
    speaker(Family::Cohere, "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", Role::Assistant),
    // Tools speak in turns of the system's.
    speaker(Family::Cohere, "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>", Role::Tool),
    speaker(Family::Cohere, "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", Role::System),
    (Family::SeedOss, Opening::Header { open: "<seed:bos>", close: &["\n"] }),
    speaker(Family::Nemotron, "<SPECIAL_10>System", Role::System),
    speaker(Family::Nemotron, "<SPECIAL_11>User", Role::User),
    speaker(Family::Nemotron, "<SPECIAL_11>Assistant", Role::Assistant),
];

/// Where a block counts as a tool's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Wherever it stands: its markers are tokens.
    Anywhere,
    /// After something that may be a call: people write its markers, too. Templates write it in turns of others only: so where
    /// the template is known, it stands in none of the policy's.
    AfterCall,
    /// The same, with markers in square brackets, as prose and code have them: only in formats that any model may write and
    /// in mistral's, and elsewhere after a token that ends a turn.
    Bracketed,
    /// Directly after a search.
    AfterSearch,
}

/// `open .. close`: what a tool or a user said, then whoever spoke before.
pub(super) struct Block {
    pub(super) open: &'static str,
    pub(super) close: &'static str,
    pub(super) standing: Standing,
    /// Whether it runs to the end where its closer was cut off.
    pub(super) may_be_cut: bool,
    /// The template whose tokens its markers are, where no other has them.
    pub(super) family: Option<Family>,
}

const fn block(open: &'static str, close: &'static str, standing: Standing) -> Block {
    Block { open, close, standing, may_be_cut: true, family: None }
}

const fn deepseek(open: &'static str, close: &'static str) -> Block {
    Block { family: Some(Family::DeepSeek), ..block(open, close, Standing::Anywhere) }
}

const fn mistral(open: &'static str, close: &'static str) -> Block {
    Block { family: Some(Family::Mistral), ..block(open, close, Standing::Bracketed) }
}

static BLOCKS: [Block; 6] = [
    deepseek("<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"),
    deepseek("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
    block("<tool_response>", "</tool_response>", Standing::AfterCall),
    block("<information>", "</information>", Standing::AfterSearch),
    mistral("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    // No response breaks off in a question of the user.
    Block { may_be_cut: false, ..mistral("[INST]", "[/INST]") },
];

/// Tokens that end a turn, of all templates; servers often leave them in the text.
pub const TURN_ENDS: [&str; 19] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|end_of_sentence|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
    "[|endofturn|]",
    "[e~[",
    "<|END_OF_TURN_TOKEN|>",
    "<seed:eos>",
    "<SPECIAL_12>",
];

/// Longest header between a role's markers, in bytes: `tool name=..` and the like.
pub(super) const MAX_HEADER_BYTES: usize = 256;

/// A marker that a text starts with.
pub(super) enum Found {
    /// A turn begins: the bytes of its marker, a header included, and who speaks.
    Opening { family: Family, length: usize, speaker: Role },
    /// A block begins: the bytes of its marker, and its place among all blocks.
    Block { block: &'static Block, length: usize, index: usize },
    /// Harmony's message of somebody else: it runs to the next message.
    Message { length: usize },
}

/// The family of the marker that gives the policy the floor at the end of a prompt. Behind it stand at most tags with which an
/// answer begins: any other text may be somebody's who writes about markers.
pub(super) fn asked(text: &str) -> Option<Family> {
    const BEGINNINGS: [&str; 6] =
        ["", ">>>", "[THINK]", "<|START_THINKING|>", "<|START_THINKING|><|END_THINKING|>", "<|START_RESPONSE|>"];
    let mut from_the_end = text.match_indices(['<', '[']).rev().filter_map(|(at, _)| text.get(at..));
    let gives = |rest| floor_at_start(rest).or_else(|| turn_at_start(rest));
    let (rest, (family, length, speaker)) = from_the_end.find_map(|rest| Some((rest, gives(rest)?)))?;
    let behind = rest.get(length..)?.trim();
    let asks = speaker == Role::Assistant && (BEGINNINGS.contains(&behind) || behind.ends_with("think>"));
    asks.then_some(family)
}

/// What gives the policy the floor in templates where it begins no turn that splits a response, as `turn_at_start` says it.
fn floor_at_start(text: &str) -> Option<(Family, usize, Role)> {
    const FLOORS: [(Family, &str); 3] =
        [(Family::Mistral, "[/INST]"), (Family::Mistral, "[/TOOL_RESULTS]"), (Family::Harmony, "<|start|>assistant")];
    let (family, floor) = FLOORS.iter().find(|(_, floor)| text.starts_with(floor))?;
    Some((*family, floor.len(), Role::Assistant))
}

/// The marker of a turn that `text` starts with: its family, its bytes, and who speaks.
fn turn_at_start(text: &str) -> Option<(Family, usize, Role)> {
    TURNS.iter().find_map(|(family, turn)| turn.at_start(text).map(|(length, speaker)| (*family, length, speaker)))
}

/// The marker that `text` starts with.
pub(super) fn at_start(text: &str, format: ToolFormat) -> Option<Found> {
    // Most `<` and `[` open no marker at all: one look at the next byte saves the tables. 0xEF begins the bar of DeepSeek's.
    if !matches!(text.as_bytes().get(1), Some(b'|' | b's' | b't' | b'T' | b'I' | b'i' | b'S' | b'e' | 0xEF)) {
        return None;
    }
    let turn = turn_at_start(text).map(|(family, length, speaker)| Found::Opening { family, length, speaker });
    let block = || {
        let (index, block) = BLOCKS.iter().enumerate().find(|(_, block)| text.starts_with(block.open))?;
        Some(Found::Block { block, length: block.open.len(), index })
    };
    turn.or_else(block).or_else(|| (format == ToolFormat::Auto).then(|| message(text)).flatten())
}

impl Opening {
    fn open(&self) -> &'static str {
        match *self {
            Self::Header { open, .. } | Self::Named { open, .. } | Self::Speaker { open, .. } => open,
        }
    }

    /// The bytes of the marker that a text starts with, and who speaks after it.
    fn at_start(&self, text: &str) -> Option<(usize, Role)> {
        match *self {
            Self::Speaker { open, role } => text.starts_with(open).then_some((open.len(), role)),
            Self::Header { open, close } => {
                let (header, length) = header(text, open, close)?;
                Some((length, Role::from_name(name(header)).unwrap_or(Role::Tool)))
            }
            Self::Named { open, close, role } => {
                let (header, length) = header(text, open, close)?;
                let named = if role == Role::Tool { Role::from_name(header) } else { None };
                Some((length, named.unwrap_or(role)))
            }
        }
    }
}

/// A message of harmony that is not the policy's. Where the format is named, its parser tells the speakers apart.
fn message(text: &str) -> Option<Found> {
    let (header, length) = header(text, "<|start|>", &["<|message|>"])?;
    (Role::from_name(name(header)) != Some(Role::Assistant)).then_some(Found::Message { length })
}

/// The role or name that a header begins with.
fn name(header: &str) -> &str {
    header.split(|c: char| c.is_whitespace() || matches!(c, ':' | '=' | '<')).next().unwrap_or_default()
}

/// What stands between two markers at the start of a text, if they are near each other, and the bytes of all three. Text
/// with quotes or brackets is no header: somebody writes about markers.
fn header<'a>(text: &'a str, open: &str, close: &[&str]) -> Option<(&'a str, usize)> {
    let rest = text.strip_prefix(open)?;
    let window = &rest.as_bytes()[..rest.len().min(MAX_HEADER_BYTES)];
    let ends = close.iter().filter_map(|close| Some((memchr::memmem::find(window, close.as_bytes())?, close.len())));
    let (end, closer) = ends.min()?;
    let header = rest.get(..end)?;
    // Granite says in JSON how the answer is to be.
    let more = if open == GRANITE { "{}\"," } else { "" };
    let may_stand =
        |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:=<|>/-▁｜".contains(c) || more.contains(c);
    let is_header = header.chars().all(may_stand);
    (is_header && !has_turn(header)).then_some((header, open.len() + end + closer))
}

/// Whether a turn begins or ends in what would be a header: then this marker was cut off, and the closer is that of another.
fn has_turn(header: &str) -> bool {
    const HARMONY: [&str; 3] = ["<|start|>", "<|call|>", "<|return|>"];
    let opens = |(_, turn): &(Family, Opening)| header.contains(turn.open());
    header.contains('<')
        && (TURN_ENDS.iter().chain(&HARMONY).any(|token| header.contains(token)) || TURNS.iter().any(opens))
}
