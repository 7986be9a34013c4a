//! Messages on their way into a chat template and out of it.
//!
//! In: messages with untrusted ranges. Out: what the template is shown in their place. Runs no template.

use minijinja::Value;

use super::ChatMessage;
use crate::lm::untrusted::{Origin, Placeholders, Rendered, UntrustedError, pieces};

pub(super) fn message_value(message: &ChatMessage<'_>, content: &str) -> Value {
    Value::from_pairs([("role", Value::from(message.role)), ("content", Value::from(content))])
}

/// A message's text with placeholders for its untrusted pieces. White space at its two ends stays as it is, whoever wrote
/// it, so that a template trims what it always trims.
pub(super) fn hide<'a>(
    message: &ChatMessage<'a>,
    placeholders: &mut Placeholders<'a>,
) -> Result<String, UntrustedError> {
    let first = message.text.len() - message.text.trim_start().len();
    let last = message.text.trim_end().len().max(first);
    let mut hidden = String::with_capacity(64);
    for piece in pieces(message.text, message.untrusted)? {
        if piece.origin == Origin::Trusted {
            hidden.push_str(piece.text);
            continue;
        }
        // Both are character boundaries of the message, and so of the piece that they fall into.
        let inside = |at: usize| at.saturating_sub(piece.start).min(piece.text.len());
        let (before, rest) = piece.text.split_at_checked(inside(first)).unwrap_or(("", piece.text));
        let (text, after) = rest.split_at_checked(inside(last) - before.len()).unwrap_or((rest, ""));
        hidden.push_str(before);
        hidden.extend(placeholders.hide(text)?);
        hidden.push_str(after);
    }
    Ok(hidden)
}

/// Marks where the last message ends, to cut off there what the template puts behind it.
pub(super) struct Mark {
    mark: char,
    /// White space that ended the message; kept if the template keeps it.
    space: String,
}

impl Mark {
    pub(super) fn put(mark: char, text: &mut String) -> Self {
        let end = text.trim_end().len();
        let space = text.split_off(end);
        text.push(mark);
        text.push_str(&space);
        Self { mark, space }
    }

    pub(super) fn cut(&self, rendered: &str) -> Option<String> {
        let (before, after) = rendered.rsplit_once(self.mark)?;
        let space = if after.starts_with(&self.space) { self.space.as_str() } else { "" };
        Some(before.replace(self.mark, "") + space)
    }
}

/// Every system message joined to the user message that follows it, or turned into one.
pub(super) fn fold_system<'a>(messages: &[ChatMessage<'a>]) -> Result<Vec<(&'a str, Rendered)>, UntrustedError> {
    let mut folded = Vec::with_capacity(messages.len());
    let mut pending = Rendered::default();
    for message in messages {
        let is_system = message.role == "system";
        if !is_system && message.role != "user" && !pending.text.is_empty() {
            folded.push(("user", std::mem::take(&mut pending)));
        }
        let mut text = std::mem::take(&mut pending);
        if !text.text.is_empty() {
            text.push_trusted("\n\n");
        }
        text.push_pieces(&pieces(message.text, message.untrusted)?);
        if is_system { pending = text } else { folded.push((message.role, text)) }
    }
    if !pending.text.is_empty() {
        folded.push(("user", pending));
    }
    Ok(folded)
}
