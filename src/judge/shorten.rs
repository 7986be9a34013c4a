//! Prompts that are longer than a judge can read: what comes from the trajectory is cut. How long that is, is the policy's
//! doing; without a verdict, writing more than the judge can read would escape a low one. In: an inquiry and how many
//! characters are too many. Out: the same with its longest untrusted texts cut in the middle. Knows no tokens.

use super::fence::cut_middle;
use super::inquiry::{Inquiry, PromptMessage};

/// Characters that a text keeps at least, and that the mark of a cut takes.
const KEPT: usize = 64;

/// The inquiry without about so many characters of what is untrusted in it; `None` where it has not so many.
pub(super) fn shortened(inquiry: &Inquiry, excess: usize) -> Option<Inquiry> {
    let lengths = inquiry.messages.iter().flat_map(untrusted_lengths).collect();
    let longest = longest_kept(lengths, excess)?;
    let messages = inquiry.messages.iter().map(|message| cut(message, longest)).collect();
    Some(Inquiry { messages, ..inquiry.clone() })
}

/// Characters of untrusted text in an inquiry.
pub(super) fn untrusted_chars(inquiry: &Inquiry) -> usize {
    inquiry.messages.iter().flat_map(untrusted_lengths).sum()
}

/// Characters of each untrusted text.
fn untrusted_lengths(message: &PromptMessage) -> impl Iterator<Item = usize> {
    let chars = |range: &std::ops::Range<usize>| message.text.get(range.clone()).map_or(0, |text| text.chars().count());
    message.untrusted.iter().map(chars)
}

/// The length to which texts are cut so that together they lose so much: the longest ones first.
fn longest_kept(mut lengths: Vec<usize>, excess: usize) -> Option<usize> {
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let mut together = 0;
    for (cut, length) in (1..).zip(&lengths) {
        together += length;
        let next = lengths.get(cut).copied().unwrap_or(0).max(KEPT);
        // A mark stands in the place of what is cut.
        let wanted = together.checked_sub(excess + cut * KEPT).map(|kept| kept / cut);
        if let Some(kept) = wanted.filter(|kept| *kept >= next) {
            return Some(kept);
        }
    }
    None
}

fn cut(message: &PromptMessage, longest: usize) -> PromptMessage {
    let mut text = String::with_capacity(message.text.len());
    let mut untrusted = Vec::with_capacity(message.untrusted.len());
    let mut at = 0;
    for range in &message.untrusted {
        text.push_str(message.text.get(at..range.start).unwrap_or_default());
        let start = text.len();
        text.push_str(&cut_middle(message.text.get(range.clone()).unwrap_or_default(), longest));
        untrusted.push(start..text.len());
        at = range.end;
    }
    text.push_str(message.text.get(at..).unwrap_or_default());
    PromptMessage { speaker: message.speaker, text, untrusted }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::inquiry::{Speaker, Want};
    use super::*;

    fn inquiry(pieces: &[(&str, bool)]) -> Inquiry {
        let (mut text, mut untrusted) = (String::new(), Vec::new());
        for (piece, trusted) in pieces {
            if !trusted {
                untrusted.push(text.len()..text.len() + piece.len());
            }
            text.push_str(piece);
        }
        Inquiry { messages: vec![PromptMessage { speaker: Speaker::User, text, untrusted }], want: Want::Reward }
    }

    #[test]
    fn the_longest_texts_lose_what_is_too_much_and_trusted_ones_nothing() {
        let (long, longer) = ("ä".repeat(1000), "b".repeat(3000));
        let whole =
            inquiry(&[("Question: ", true), ("short", false), (" Answers: ", true), (&long, false), (&longer, false)]);
        for excess in [1, 500, 1999, 2500, 3500] {
            let less = shortened(&whole, excess).unwrap();
            let message = &less.messages[0];
            let texts: Vec<&str> = message.untrusted.iter().map(|range| &message.text[range.clone()]).collect();
            assert!(untrusted_chars(&less) + excess <= 4005, "{excess}: {}", untrusted_chars(&less));
            assert!(untrusted_chars(&less) + excess + 300 > 4005, "{excess}: {}", untrusted_chars(&less));
            assert_eq!(texts[0], "short");
            assert_eq!(texts[1] == long, excess < 1900, "{excess}");
            assert!(texts[2].contains("characters left out"), "{excess}");
            assert!(message.text.starts_with("Question: short Answers: ä"));
        }
        assert_eq!(shortened(&whole, 4000), None);
        assert_eq!(shortened(&inquiry(&[("only trusted", true)]), 1), None);
    }
}
