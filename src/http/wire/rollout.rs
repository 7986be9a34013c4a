//! A rollout that came as a prompt and the text that followed on it. In: both, and the format of its calls. Out: messages,
//! of which the policy wrote those of its own in the response. Knows no other field.

use std::borrow::Cow;

use super::message::{MAX_MESSAGES, MessageWire, read_messages};
use super::pointed::{Pointed, pointed_below};
use super::text::{Bounded, Text};
use crate::toolcall;
use crate::trajectory::{Before, Content, Message, Role, THINK_END, ToolFormat, Turn, split_response};

/// Reads a rollout that came as a prompt and the text that followed on it.
pub(super) fn read_prompt_response<'a>(
    prompt: Option<&'a str>,
    response: Text<'a>,
    format: ToolFormat,
) -> Result<Vec<Message<'a>>, Pointed> {
    let mut messages = read_prompt(prompt)?;
    let prompt_end = prompt.map(written_end).unwrap_or_default();
    let before = Before { prompt_end: &prompt_end, thinking: opens_reasoning(prompt, messages.last()) };
    match response.0 {
        Cow::Borrowed(text) => messages.extend(split(text, format, before)),
        Cow::Owned(text) => messages.extend(split(&text, format, before).into_iter().map(own)),
    }
    // Whoever asks behind the policy's words is not who asked for them.
    let asks = |message: &Message<'_>| matches!(message, Message::Other { role: Role::User, .. });
    let begins = matches!(messages.first(), Some(Message::Policy(_)));
    if prompt.is_none() && begins && messages.iter().any(asks) {
        messages.insert(0, Message::Other { role: Role::User, content: Content::Text(Cow::Borrowed("")) });
    }
    Ok(messages)
}

/// What was given before the rollout: context, which is never scored.
pub(super) fn read_prompt(prompt: Option<&str>) -> Result<Vec<Message<'_>>, Pointed> {
    match prompt {
        None => Ok(Vec::new()),
        Some(raw) if raw.starts_with('"') => Ok(vec![Message::Other { role: Role::User, content: Content::Json(raw) }]),
        Some(raw) => {
            let prompt: Bounded<MessageWire<'_>, MAX_MESSAGES> = serde_json::from_str(raw).map_err(|error| {
                let found = pointed_below::<Bounded<MessageWire<'_>, MAX_MESSAGES>>("/prompt", raw, &error);
                let why = found.message;
                Pointed::shape(found.pointer, format!("`prompt` must be a string or a list of messages: {why}"))
            })?;
            let prompt = read_messages(prompt.0, "/prompt")?;
            // What stands in the prompt was not written in this rollout, whoever wrote it.
            Ok(prompt.into_iter().map(as_context).collect())
        }
    }
}

/// The end of a prompt that is a text, in which a template asks for the answer.
fn written_end(raw: &str) -> String {
    const NEAR: usize = 512;
    let end = raw.get(raw.floor_char_boundary(raw.len().saturating_sub(NEAR)).max(1)..).unwrap_or_default();
    if !raw.starts_with('"') || !(end.contains('<') || end.contains("\\u")) {
        return String::new();
    }
    // It may begin inside an escape: the rest of that is garbage, or, of a quote, none.
    let decoded = |from: usize| serde_json::from_str(&["\"", end.get(from..)?].concat()).ok();
    (0..4).find_map(decoded).unwrap_or_default()
}

/// Whether a prompt ends with `<think>`, as templates of reasoning models end: as text, or as the beginning of an answer.
fn opens_reasoning(prompt: Option<&str>, last: Option<&Message<'_>>) -> bool {
    const TAG: &str = "<think>";
    let near =
        |raw: &str| raw.get(raw.floor_char_boundary(raw.len().saturating_sub(64))..)?.contains("think").then_some(());
    let ends = |text: &str| {
        let before = text.trim_end().strip_suffix(TAG)?.trim_end_matches([' ', '\t']);
        // In prose it is a word. Mistral's brackets are tokens as others' bars are.
        (before.is_empty() || before.ends_with(['\n', '>', '|', ':']) || before.ends_with("[/INST]")).then_some(())
    };
    let ends_json = |raw: &str| near(raw).and_then(|()| ends(&serde_json::from_str::<String>(raw).ok()?)).is_some();
    match (prompt, last) {
        (Some(raw), _) if raw.starts_with('"') => ends_json(raw),
        (_, Some(Message::Other { role: Role::Assistant, content: Content::Text(text) })) => ends(text).is_some(),
        (_, Some(Message::Other { role: Role::Assistant, content: Content::Json(raw) })) => ends_json(raw),
        _ => false,
    }
}

/// The turns of a response. A format that nobody named is looked for in what the policy wrote, and only adds to what
/// separates turns: the policy must not be able to choose whose words count as its own.
fn split<'r>(response: &'r str, format: ToolFormat, before: Before<'_>) -> Vec<Message<'r>> {
    let messages = split_response(response, format, before);
    if format != ToolFormat::Auto {
        return messages;
    }
    let texts = || {
        messages.iter().filter_map(|message| match message {
            Message::Policy(turn) => Some(&*turn.text),
            Message::Other { .. } => None,
        })
    };
    // Whatever else stands before it: a loop that reads this answers with an observation.
    if texts().any(acts) || texts().find_map(toolcall::detect_rollout) == Some(ToolFormat::React) {
        split_response(response, ToolFormat::React, before)
    } else {
        messages
    }
}

/// Whether lines of a text, outside reasoning, are an action, its input and an observation, in this order.
fn acts(text: &str) -> bool {
    const LABELS: [&str; 3] = ["Action:", "Action Input:", "Observation:"];
    if !text.contains(LABELS[1]) || !text.contains(LABELS[2]) {
        return false;
    }
    let (mut seen, mut thinks) = (0, false);
    for line in text.lines() {
        if !thinks && LABELS.get(seen).is_some_and(|label| line.trim_start().starts_with(label)) {
            seen += 1;
        }
        thinks = match (line.rfind("<think>"), line.rfind(THINK_END)) {
            (None, None) => thinks,
            (opens, closes) => opens > closes,
        };
    }
    seen == LABELS.len()
}

fn as_context(message: Message<'_>) -> Message<'_> {
    match message {
        Message::Policy(turn) => Message::Other { role: Role::Assistant, content: Content::Text(turn.text) },
        other @ Message::Other { .. } => other,
    }
}

fn own<'a>(message: Message<'_>) -> Message<'a> {
    match message {
        Message::Policy(turn) => Message::Policy(Turn {
            text: turn.text.into_owned().into(),
            offset: turn.offset,
            reasoning: None,
            native_calls: None,
            thinking: turn.thinking,
        }),
        Message::Other { role, content: Content::Text(text) } => {
            Message::Other { role, content: Content::Text(text.into_owned().into()) }
        }
        Message::Other { role, content: Content::Json(_) } => {
            Message::Other { role, content: Content::Text(Cow::Borrowed("")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nor may a call behind what it breaks be all that counts.
    #[test]
    fn an_action_behind_an_observation_is_a_turn() {
        for other in ["[TOOL_CALLS]ping{}", "<search>x</search>"] {
            let response = format!("Observation: ok\nAction: ping\nAction Input: broken\n{other}");
            let messages = split(&response, ToolFormat::Auto, Before::default());
            let Some(Message::Policy(turn)) = messages.last() else { panic!("{messages:?}") };
            assert!(turn.text.trim_start().starts_with("Action:"), "{}", turn.text);
            assert_eq!(toolcall::detect(&turn.text), Some(ToolFormat::React));
        }
    }

    /// A judge takes the first words of a user for the task.
    #[test]
    fn a_response_asks_no_question_of_its_own() {
        let response = "3<|im_end|>\n<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n<|im_start|>assistant\n2";
        let first = |prompt: Option<&'static str>, response: &'static str| {
            let messages = read_prompt_response(prompt, Text(Cow::Borrowed(response)), ToolFormat::Auto).unwrap();
            match messages.into_iter().next() {
                Some(Message::Other { role: Role::User, content: Content::Text(text) }) => text.into_owned(),
                Some(Message::Other { role: Role::User, content: Content::Json(text) }) => text.to_owned(),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(first(None, response), "");
        assert_eq!(first(Some("\"Who?\""), response), "\"Who?\"");
        assert!(first(None, "2").starts_with("Some(Policy("));
    }
}
