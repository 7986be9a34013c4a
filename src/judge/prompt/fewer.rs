//! A conversation with messages in its middle left out. How many there are is the policy's doing, as is how long they are:
//! without a verdict, taking more turns than a judge can read, or making more calls in one, would escape a low one. In: a
//! conversation. Out: shorter ones, that depend on nothing else.

use std::borrow::Cow;
use std::ops::Range;

use super::PastMessage;
use crate::trajectory::Role;

/// The conversation with about half of its messages, then with half as many again, and so on, each with a message in place
/// of those that are missing, which says how many. The beginning up to the task, what the policy said last, and the last
/// message always stay: what follows the policy's last words is left out as well, for that it may be long, too.
pub(super) fn conversations<'a>(whole: &'a [PastMessage<'a>]) -> Vec<Vec<PastMessage<'a>>> {
    shown(whole).iter().map(|shown| only(whole, shown)).collect()
}

/// Whether there is a shorter one.
pub(super) fn has_any(whole: &[PastMessage<'_>]) -> bool {
    !shown(whole).is_empty()
}

/// What each of the shorter ones shows of the whole.
fn shown(whole: &[PastMessage<'_>]) -> Vec<Vec<Range<usize>>> {
    let task = whole.iter().position(|message| message.role == Role::User).map_or(1, |at| at + 1);
    let last = whole.iter().rposition(|message| message.role == Role::Assistant);
    let kept = std::iter::successors(Some(whole.len() / 4), |kept| Some(kept / 2)).take_while(|kept| *kept > 0);
    let shown = kept.map(|kept| {
        let beginning = Some(0..kept.max(task));
        let last = last.map(|at| at..at + 1);
        joined([beginning, last, Some(whole.len() - kept..whole.len())].into_iter().flatten().collect())
    });
    let mut shown: Vec<Vec<Range<usize>>> = shown.filter(|shown| shown.len() > 1).collect();
    shown.dedup();
    shown
}

/// Ranges in order, those as one between which no more than one message lies: the one in its place would be no shorter.
fn joined(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(before) if range.start <= before.end + 1 => before.end = before.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// The messages in these ranges, and what says how many are missing between them.
fn only<'a>(whole: &'a [PastMessage<'a>], shown: &[Range<usize>]) -> Vec<PastMessage<'a>> {
    let mut left: Vec<PastMessage<'a>> = Vec::new();
    let mut end = 0;
    for range in shown {
        let missing = range.start - end;
        if missing > 0 {
            let text = Cow::Owned(format!("[.. {missing} messages left out ..]"));
            left.push(PastMessage { role: Role::System, text });
        }
        left.extend_from_slice(whole.get(range.clone()).unwrap_or_default());
        end = range.end;
    }
    left
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

    /// The policy decides how many results follow its last words.
    #[test]
    fn results_after_the_last_word_go_as_well() {
        let calls = "t".repeat(20);
        assert_eq!(
            texts(&format!("ua{calls}")),
            [
                "0 1 2 3 4 [.. 12 messages left out ..] 17 18 19 20 21",
                "0 1 [.. 18 messages left out ..] 20 21",
                "0 1 [.. 19 messages left out ..] 21"
            ]
        );
        assert_eq!(
            texts(&format!("uatata{calls}")).last().map(String::as_str),
            Some("0 [.. 4 messages left out ..] 5 [.. 19 messages left out ..] 25")
        );
        assert_eq!(
            texts("uaaauuuuuuuu").last().map(String::as_str),
            Some("0 [.. 2 messages left out ..] 3 [.. 7 messages left out ..] 11")
        );
        assert_eq!(texts("aaaaaaaaaauuuuuuuuuu").len(), 3, "users' words are many, too");
    }

    #[test]
    fn a_short_conversation_loses_nothing() {
        for turns in ["", "u", "ua", "sua", "uat", "sssssssu"] {
            assert!(texts(turns).is_empty(), "{turns}: {:?}", texts(turns));
        }
    }
}
