//! Prompts as they come from trainers: messages, or one text with the markers of a chat template. In: JSON. Out: turns,
//! and a key that is the same for the same prompt in any of these forms. Knows no dialect and no score.

mod tokens;
mod whole;

use std::borrow::Cow;
use std::fmt;

pub(super) use tokens::{strip_trailing_tokens, without_trailing_tokens};
pub(super) use whole::divide_raw;

use self::tokens::{LEADING_TOKENS, without_trailing};
use super::wire::{PromptMessage, Text};
use crate::trajectory::{Before, Content, Message, Role, ToolFormat, split_response};

/// Names a prompt: a hash of what was asked, whatever template it came in.
///
/// System messages do not count (templates add their own), nor do the names of the roles, white space around a turn, or
/// what an assistant began at the prompt's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PromptKey(pub [u8; 16]);

impl fmt::Display for PromptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One turn of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PromptTurn {
    /// Who speaks.
    pub role: Role,
    /// What is said, without the template's tokens at its end.
    pub text: String,
}

/// The turns of a prompt, from its raw JSON: a string or a list of messages. `None` where it is neither.
pub(super) fn read_turns(raw: &str) -> Option<Vec<PromptTurn>> {
    if raw.starts_with('"') {
        return Some(turns_of_text(&serde_json::from_str::<Text<'_>>(raw).ok()?.0));
    }
    let messages: Vec<PromptMessage<'_>> = serde_json::from_str(raw).ok()?;
    let turn = |message: &PromptMessage<'_>| {
        Some(PromptTurn { role: Role::from_name(&message.role.0)?, text: message.text().into_owned() })
    };
    messages.iter().map(turn).collect()
}

/// The key of a prompt's raw JSON; `None` where nothing is asked.
pub(super) fn key_of(raw: &str) -> Option<PromptKey> {
    key_and_turns(raw).map(|(key, _)| key)
}

/// The same, with how many turns the key is made of.
pub(super) fn key_and_turns(raw: &str) -> Option<(PromptKey, usize)> {
    let turns = read_turns(raw)?;
    let end = turns.iter().rposition(|turn| turn.role != Role::Assistant)? + 1;
    let mut hasher = KeyHasher::default();
    turns.iter().take(end).for_each(|turn| hasher.add(turn.role, &turn.text));
    hasher.key().map(|key| (key, hasher.turns))
}

/// The prompts that are known.
pub(super) trait KnownPrompts {
    /// Whether this is one.
    fn knows(&self, key: PromptKey) -> bool;

    /// Turns of the longest one.
    fn most_turns(&self) -> usize;
}

/// The key of the prompt that a conversation's raw messages begin with: the longest that is known, else all before the
/// assistant first speaks after somebody else. `None` where it never does, or these are no messages.
pub(super) fn key_of_conversation(raw: &str, known: &dyn KnownPrompts) -> Option<PromptKey> {
    let (mut hasher, mut found) = (KeyHasher::default(), None);
    for turn in read_turns(raw).filter(|_| raw.starts_with('['))? {
        if turn.role == Role::Assistant
            && let Some(key) = hasher.key()
            && (found.is_none() || known.knows(key))
        {
            found = Some(key);
        }
        if found.is_some() && hasher.turns >= known.most_turns() {
            break;
        }
        hasher.add(turn.role, &turn.text);
    }
    found
}

/// The turns of a templated text; one user turn where it has no markers.
fn turns_of_text(text: &str) -> Vec<PromptTurn> {
    let turn = |(role, offset, text): (Role, usize, &str)| {
        let mut text = text.trim();
        while let Some(rest) = LEADING_TOKENS.iter().find_map(|token| text.strip_prefix(token)).filter(|_| offset == 0)
        {
            text = rest.trim_start();
        }
        PromptTurn { role, text: without_trailing(text, &["\n", " "]).trim().to_owned() }
    };
    let segments = segments(text);
    if segments.iter().all(|segment| segment.0 == Role::Assistant) {
        return vec![PromptTurn { role: Role::User, ..turn((Role::User, 0, text)) }];
    }
    segments.into_iter().map(turn).filter(|turn| !turn.text.is_empty()).collect()
}

/// Who says what in a templated text, with the byte at which each begins. What stands before the first marker counts as
/// the assistant's.
fn segments(text: &str) -> Vec<(Role, usize, &str)> {
    let segment = |message| match message {
        Message::Policy(turn) => {
            Some((Role::Assistant, turn.offset, text.get(turn.offset..turn.offset + turn.text.len())?))
        }
        Message::Other { role, content: Content::Text(Cow::Borrowed(said)) } => {
            // It is a part of the text: where, the addresses tell.
            Some((role, (said.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?, said))
        }
        Message::Other { .. } => None,
    };
    split_response(text, ToolFormat::Auto, Before::default()).into_iter().filter_map(segment).collect()
}

/// Adds turns to a key.
#[derive(Default)]
struct KeyHasher {
    hasher: blake3::Hasher,
    turns: usize,
}

impl KeyHasher {
    fn add(&mut self, role: Role, text: &str) {
        let text = text.trim();
        if role == Role::System {
            return;
        }
        self.turns += 1;
        self.hasher.update(&(text.len() as u64).to_le_bytes());
        self.hasher.update(text.as_bytes());
    }

    /// `None` while nothing was asked.
    fn key(&self) -> Option<PromptKey> {
        let mut key = [0; 16];
        key.copy_from_slice(self.hasher.finalize().as_bytes().get(..16)?);
        (self.turns > 0).then_some(PromptKey(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const CHATML: &str = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
    pub(super) const LLAMA: &str = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhat is the capital of France?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";

    pub(super) fn json(text: &str) -> String {
        serde_json::to_string(text).unwrap()
    }

    #[test]
    fn a_prompt_has_one_key_in_all_its_forms() {
        let plain = key_of(&json("What is the capital of France?")).unwrap();
        let messages = r#"[{"role":"system","content":"x"},{"role":"user","content":[{"type":"text","text":"What is the capital of France? "}]}]"#;
        let opened = format!("{CHATML}<think>\n");
        for form in [json(CHATML), json(LLAMA), json(&opened), messages.to_owned()] {
            assert_eq!(key_of(&form), Some(plain), "{form}");
        }
        assert_ne!(key_of(&json("What is the capital of Spain?")), Some(plain));
        assert_eq!(key_of("7"), None);
        assert_eq!(key_of("[]"), None);
    }

    #[test]
    fn a_templated_prompt_becomes_messages() {
        let turns = read_turns(&json(CHATML)).unwrap();
        let found: Vec<_> = turns.iter().map(|turn| (turn.role, turn.text.as_str())).collect();
        assert_eq!(found, [(Role::System, "Be brief."), (Role::User, "What is the capital of France?")]);
    }
}
