//! Prompts that are longer than a judge can read: what comes from the trajectory is cut. How long that is, is the policy's
//! doing; without a verdict, writing more than the judge can read would escape a low one. In: an inquiry and a length. Out:
//! the same with every untrusted text that is longer cut in its middle; where that is not enough, because they are many, with
//! fewer messages of the conversation. Knows no tokens.

use std::iter::successors;

use super::fence::cut_middle;
use super::inquiry::{Inquiry, PromptMessage, ShorterPrompts};

/// Characters that a text keeps at least.
pub(super) const KEPT: usize = 64;

/// Characters of the longest untrusted text.
pub(super) fn longest_untrusted(inquiry: &Inquiry) -> usize {
    let texts = inquiry
        .messages
        .iter()
        .flat_map(|message| message.untrusted.iter().filter_map(|range| message.text.get(range.clone())));
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

/// The inquiry with at most so many characters, and the mark of a cut, of each untrusted text.
pub(super) fn cut_to(inquiry: &Inquiry, longest: usize) -> Inquiry {
    let messages = inquiry.messages.iter().map(|message| cut(message, longest.max(KEPT))).collect();
    Inquiry { messages, ..inquiry.clone() }
}

/// The inquiry with ever fewer messages of the conversation.
pub(super) fn with_fewer(inquiry: &Inquiry) -> impl Iterator<Item = Inquiry> {
    let with = |messages: &Vec<PromptMessage>| Inquiry {
        messages: messages.clone(),
        want: inquiry.want.clone(),
        fewer: ShorterPrompts::default(),
    };
    // Not before the first is wanted: whoever asks may do with less of each text.
    std::iter::once_with(|| inquiry.fewer.all()).flatten().map(with)
}

/// The inquiry ever shorter, for who cannot measure: texts of half the length, and of that half, then fewer of them.
pub(super) fn halved(inquiry: &Inquiry) -> impl Iterator<Item = Inquiry> {
    let lengths = successors(Some(longest_untrusted(inquiry)), |longest| {
        Some((longest / 2).max(KEPT)).filter(|_| *longest > KEPT)
    });
    lengths.skip(1).map(|longest| cut_to(inquiry, longest)).chain(with_fewer(inquiry).map(|fewer| cut_to(&fewer, KEPT)))
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
    PromptMessage { role: message.role, text, untrusted }
}

#[cfg(test)]
mod tests {
    use super::super::inquiry::{AnswerForm, ChatRole};
    use super::*;

    #[test]
    fn long_texts_are_cut_in_their_middle_and_trusted_ones_are_not() {
        let (mut text, mut untrusted) = (String::new(), Vec::new());
        let (long, longer) = ("ä".repeat(1000), "b".repeat(3000));
        for (trusted, piece) in [("Question: ", "short"), (" Answers: ", &long), ("", &longer)] {
            text.push_str(trusted);
            untrusted.push(text.len()..text.len() + piece.len());
            text.push_str(piece);
        }
        text.push_str(&"trusted ".repeat(500));
        let messages = vec![PromptMessage { role: ChatRole::User, text, untrusted }];
        let whole = Inquiry { messages, want: AnswerForm::Reward, fewer: [].into() };
        assert_eq!(longest_untrusted(&whole), 3000);
        assert_eq!(cut_to(&whole, 3000), whole);
        let texts = |inquiry: &Inquiry| -> Vec<String> {
            let message = &inquiry.messages[0];
            message.untrusted.iter().map(|range| message.text[range.clone()].to_owned()).collect()
        };
        let less = cut_to(&whole, 2000);
        assert_eq!(texts(&less)[..2], ["short".to_owned(), long]);
        assert!(texts(&less)[2].contains("[.. 1000 characters left out ..]"));
        let least = cut_to(&whole, 1);
        assert_eq!(texts(&least)[0], "short");
        assert!(texts(&least)[1].contains(&format!("[.. {} characters left out ..]", 1000 - KEPT)));
        assert!(least.messages[0].text.starts_with("Question: short Answers: ä"));
        assert!(least.messages[0].text.ends_with(&"trusted ".repeat(500)));
    }

    #[test]
    fn texts_are_halved_until_only_fewer_of_them_are_left() {
        let messages = |length: usize| {
            let untrusted = std::iter::once(0..length).collect();
            vec![PromptMessage { role: ChatRole::User, text: "a".repeat(length), untrusted }]
        };
        let whole = |length| Inquiry {
            messages: messages(length),
            want: AnswerForm::Reward,
            fewer: [messages(80), messages(9)].into(),
        };
        let kept = |inquiry: Inquiry| {
            assert!(inquiry.messages[0].text.chars().filter(|c| *c == 'a').count() > 0);
            inquiry.messages[0].text.split_once("[..").map_or_else(
                || inquiry.messages[0].text.len(),
                |(head, rest)| head.len() + rest.split_once("..]").unwrap().1.len(),
            )
        };
        assert_eq!(halved(&whole(300)).map(kept).collect::<Vec<_>>(), [150, 75, 64, 64, 9]);
        assert_eq!(halved(&whole(64)).map(kept).collect::<Vec<_>>(), [64, 9], "no text is too long");
    }
}
