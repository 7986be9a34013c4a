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

/// The key of the prompt that a conversation's raw messages begin with. `None` where [`Search`] finds none, or these are no
/// messages.
pub(super) fn key_of_conversation(raw: &str, known: &dyn KnownPrompts) -> Option<PromptKey> {
    let mut search = Search::among(known);
    for turn in read_turns(raw).filter(|_| raw.starts_with('['))? {
        if search.arrive(turn.role, ()) {
            break;
        }
        search.pass(&turn);
    }
    search.found.map(|(key, ())| key)
}

/// Looks in a conversation for its prompt's end: the end of the longest prompt that is known, else where the assistant first
/// speaks after somebody else. `T` is a place in the conversation.
struct Search<'k, T> {
    known: &'k dyn KnownPrompts,
    hasher: KeyHasher,
    /// The prompt's key, and where what follows it begins.
    found: Option<(PromptKey, T)>,
    /// Whether more turns could not change that.
    settled: bool,
}

impl<'k, T> Search<'k, T> {
    fn among(known: &'k dyn KnownPrompts) -> Self {
        Self { known, hasher: KeyHasher::default(), found: None, settled: false }
    }

    /// Comes to a turn of this role, before which the prompt may end. Gives whether there is nothing more to look for.
    fn arrive(&mut self, role: Role, place: T) -> bool {
        if role == Role::Assistant
            && let Some(key) = self.hasher.key()
            && (self.found.is_none() || self.known.knows(key))
        {
            self.found = Some((key, place));
        }
        self.settled = self.found.is_some() && self.hasher.turns >= self.known.most_turns();
        self.settled
    }

    /// Goes on behind it.
    fn pass(&mut self, turn: &PromptTurn) {
        self.hasher.add(turn.role, &turn.text);
    }
}

/// The turns of a templated text; one user turn where it has no markers.
fn turns_of_text(text: &str) -> Vec<PromptTurn> {
    let segments = segments(text);
    if segments.iter().all(|segment| segment.0 == Role::Assistant) {
        return vec![turn((Role::User, 0, text))];
    }
    segments.into_iter().map(turn).filter(|turn| !turn.text.is_empty()).collect()
}

/// A segment as a turn: without the tokens that begin the text, and those at its end.
fn turn((role, offset, text): (Role, usize, &str)) -> PromptTurn {
    let mut text = text.trim();
    while let Some(rest) = LEADING_TOKENS.iter().find_map(|token| text.strip_prefix(token)).filter(|_| offset == 0) {
        text = rest.trim_start();
    }
    // What stands before the first marker is the template's own, as a system message is.
    let role = if role == Role::Assistant && offset == 0 { Role::System } else { role };
    PromptTurn { role, text: without_trailing(text, &["\n", " "]).trim().to_owned() }
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
    /// Whether anybody but the assistant and the system spoke.
    asked: bool,
}

impl KeyHasher {
    fn add(&mut self, role: Role, text: &str) {
        let text = text.trim();
        if role == Role::System {
            return;
        }
        self.turns += 1;
        self.asked |= role != Role::Assistant;
        self.hasher.update(&(text.len() as u64).to_le_bytes());
        self.hasher.update(text.as_bytes());
    }

    /// `None` while nothing was asked.
    fn key(&self) -> Option<PromptKey> {
        let mut key = [0; 16];
        key.copy_from_slice(self.hasher.finalize().as_bytes().get(..16)?);
        self.asked.then_some(PromptKey(key))
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

    /// However it is written: with a greeting that the assistant begins with, and with tokens that nobody knows before it.
    #[test]
    fn a_conversation_has_the_key_of_its_prompt() {
        struct Nobody;
        impl KnownPrompts for Nobody {
            fn knows(&self, _: PromptKey) -> bool {
                false
            }

            fn most_turns(&self) -> usize {
                0
            }
        }
        let say = |role: &str, text: &str| format!(r#"{{"role":"{role}","content":"{text}"}}"#);
        let (greeting, question) = (say("assistant", "Hello!"), say("user", "What is the capital of France?"));
        let list = |turns: &[&str]| format!("[{}]", turns.join(","));
        let greeted = "<|im_start|>assistant\nHello!<|im_end|>\n";
        for (prompt, opening) in [
            (list(&[&question]), ""),
            (list(&[&greeting, &question]), greeted),
            (list(&[&greeting, &greeting, &question]), &greeted.repeat(2)),
        ] {
            let key = key_of(&prompt).unwrap();
            let text = CHATML.replacen("<|im_start|>user", &format!("{opening}<|im_start|>user"), 1);
            let messages = format!("{},{}]", prompt.trim_end_matches(']'), say("assistant", "Paris"));
            assert_eq!(key_of_conversation(&messages, &Nobody), Some(key), "{messages}");
            for text in [text.clone(), format!("<s>{text}"), format!("<|unheard_of|>{text}")] {
                assert_eq!(key_of(&json(&text)), Some(key), "{text}");
                let whole = format!("{text}Paris");
                let divided = divide_raw(&json(&whole), &Nobody).unwrap().unwrap();
                assert_eq!(divided.key, key, "{text}");
                assert!(json(&whole)[1 + divided.response..].starts_with("Paris"), "{text}");
            }
        }
        assert_eq!(key_of_conversation(&list(&[&greeting, &greeting]), &Nobody), None, "nobody asked");
    }

    #[test]
    fn a_templated_prompt_becomes_messages() {
        let turns = read_turns(&json(CHATML)).unwrap();
        let found: Vec<_> = turns.iter().map(|turn| (turn.role, turn.text.as_str())).collect();
        assert_eq!(found, [(Role::System, "Be brief."), (Role::User, "What is the capital of France?")]);
    }
}
