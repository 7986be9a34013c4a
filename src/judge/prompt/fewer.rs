//! A conversation with messages in its middle left out. How many there are is the policy's doing, as is how long they are:
//! without a verdict, taking more turns than a judge can read would escape a low one. In: a conversation. Out: shorter ones,
//! that depend on nothing else.

use std::borrow::Cow;

use super::PastMessage;
use crate::trajectory::Role;

/// The conversation with about half of its messages, then with half as many again, and so on, each with one message in
/// place of those that are missing, which says how many. The beginning up to the task, and the end from what the policy said
/// last, always stay.
pub(super) fn conversations<'a>(whole: &'a [PastMessage<'a>]) -> Vec<Vec<PastMessage<'a>>> {
    let task = whole.iter().position(|message| message.role == Role::User).map_or(1, |at| at + 1);
    let last = whole.iter().rev().position(|message| message.role == Role::Assistant).map_or(1, |at| at + 1);
    let kept = std::iter::successors(Some(whole.len() / 4), |kept| Some(kept / 2)).take_while(|kept| *kept > 0);
    let mut ends: Vec<(usize, usize)> = kept.map(|kept| (kept.max(task), kept.max(last))).collect();
    ends.dedup();
    ends.into_iter().filter_map(|ends| without_middle(whole, ends)).collect()
}

/// None where nothing would become shorter.
fn without_middle<'a>(whole: &'a [PastMessage<'a>], (head, tail): (usize, usize)) -> Option<Vec<PastMessage<'a>>> {
    let missing = whole.len().checked_sub(head + tail).filter(|missing| *missing > 1)?;
    let text = Cow::Owned(format!("[.. {missing} messages left out ..]"));
    let mut left = whole.get(..head)?.to_vec();
    left.push(PastMessage { role: Role::System, text });
    left.extend_from_slice(whole.get(head + missing..)?);
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A conversation whose messages are numbered; `s`, `u`, `a` and `t` say them.
    fn conversation(roles: &str) -> Vec<PastMessage<'static>> {
        let role = |letter| match letter {
            's' => Role::System,
            'u' => Role::User,
            'a' => Role::Assistant,
            _ => Role::Tool,
        };
        let said = roles.chars().enumerate();
        said.map(|(at, letter)| PastMessage { role: role(letter), text: at.to_string().into() }).collect()
    }

    fn texts(roles: &str) -> Vec<String> {
        let joined = |messages: Vec<PastMessage<'_>>| {
            messages.iter().map(|message| message.text.to_string()).collect::<Vec<_>>().join(" ")
        };
        conversations(&conversation(roles)).into_iter().map(joined).collect()
    }

    #[test]
    fn the_middle_goes_until_the_task_and_the_last_word_are_left() {
        let turns = "sua".to_owned() + &"ta".repeat(7);
        assert_eq!(
            texts(&turns),
            [
                "0 1 2 3 [.. 9 messages left out ..] 13 14 15 16",
                "0 1 [.. 13 messages left out ..] 15 16",
                "0 1 [.. 14 messages left out ..] 16"
            ]
        );
        assert_eq!(
            texts("uatatatatt"),
            ["0 1 [.. 5 messages left out ..] 7 8 9", "0 [.. 6 messages left out ..] 7 8 9"]
        );
    }

    #[test]
    fn a_short_conversation_loses_nothing() {
        for turns in ["", "u", "ua", "sua", "uat", "sssssssu", "aaaaaaaaaauuuuuuuuuu"] {
            assert!(texts(turns).is_empty(), "{turns}: {:?}", texts(turns));
        }
    }
}
