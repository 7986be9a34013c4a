//! `search_r1`: `<search>query</search>`, possibly a whole trajectory with the results between `<information>` tags
//! (rules S1 to S3). In: a [`Scan`]; out: its attempts, each a call of `search`.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::codes::Fault;
use super::find::find;
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::{Markers, Scan};
use super::{Call, ErrorCode, Repair, blocks};

const SEARCH: Markers = Markers { opener: "<search>", closer: "</search>", others: blocks::none };
const INFORMATION: Markers = Markers { opener: "<information>", closer: "</information>", others: blocks::none };
const ANSWER: Markers = Markers { opener: "<answer>", closer: "</answer>", others: blocks::none };

/// The parser of the format.
pub(super) fn search_r1(scan: &mut Scan<'_, '_>) {
    let markers = [SEARCH.opener, INFORMATION.opener, ANSWER.opener, ANSWER.closer];
    let mut walk = Walk::new(markers, Tags::Think, Stops::Openers);
    // What an answer block hides: the attempts from where it begins on, which is at its last opener (E1). Nothing outside.
    let mut answer: Option<usize> = None;
    // An unclosed information block runs to the end, an unclosed answer too (S3), unless it turns out to be reasoning.
    let mut ended = false;
    while let Some(mark) = walk.next(scan) {
        if walk.take_restart() {
            (answer, ended) = (None, false);
        }
        let Mark::Opener { which, at, end } = mark else { continue };
        match which {
            _ if ended => {}
            1 => match find(scan.rest(end).as_bytes(), INFORMATION.closer) {
                Some(length) => walk.resume(end + length + INFORMATION.closer.len()),
                None => ended = true,
            },
            2 => answer = Some(scan.parsed.attempts.len()),
            3 => {
                if let Some(before) = answer.take() {
                    scan.take_back(before);
                }
            }
            _ => {
                let next = search(scan, at, end);
                walk.resume(next);
            }
        }
    }
    if let Some(before) = answer {
        scan.take_back(before);
    }
}

/// Reads the search whose tag ends at `end`; where the walk goes on. It ends at its closer, which must come before the
/// next `<search>`.
fn search(scan: &mut Scan<'_, '_>, at: usize, end: usize) -> usize {
    let rest = scan.rest(end);
    let next = find(rest.as_bytes(), SEARCH.opener);
    let own = rest.get(..next.unwrap_or(rest.len())).unwrap_or_default();
    let (query, stop, repairs) = match (own.split_once(SEARCH.closer), next) {
        (Some((query, _)), _) => (query, end + query.len() + SEARCH.closer.len(), Vec::new()),
        (None, None) if scan.tolerant() => (own, scan.text.len(), vec![Repair::MissingCloser]),
        (None, _) => {
            let fault = Fault::new(ErrorCode::MissingCloser, end, "a `<search>` without its `</search>`");
            scan.push(at..end, Vec::new(), Err(fault.named(Some("search"))));
            return end;
        }
    };
    let arguments = Map::from_iter([("query".to_owned(), Value::String(query.trim().to_owned()))]);
    let call = Call { name: Cow::Borrowed("search"), arguments: Value::Object(arguments) };
    scan.push(at..stop, repairs, Ok(call));
    stop
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::laws::{calls, codes, parsed, tolerant};
    use crate::trajectory::ToolFormat::SearchR1;

    #[test]
    fn s1_searches_outside_other_blocks() {
        let text = "<think>a <search>no</search></think><search> capital of France\n</search>\
                    <information><search>no</search></information><answer><search>no</search></answer>";
        assert_eq!(calls(SearchR1, text), [("search".into(), json!({"query": "capital of France"}))]);
    }

    #[test]
    fn s2_an_unclosed_search_is_malformed() {
        assert_eq!(codes(SearchR1, "<search>a"), ["missing_closer"]);
        assert_eq!(codes(SearchR1, "<search>a <search>b</search>"), ["missing_closer", "ok"]);
        assert_eq!(tolerant(SearchR1, "<search>a"), [vec!["missing_closer"]]);
    }

    #[test]
    fn s3_unclosed_information_or_answer_runs_to_the_end() {
        assert_eq!(codes(SearchR1, "<information>x <search>a</search>"), [""; 0]);
        assert_eq!(codes(SearchR1, "<answer>x <search>a</search>"), [""; 0]);
        assert_eq!(codes(SearchR1, "the <answer> tag</think><search>a</search>"), ["ok"]);
        assert_eq!(codes(SearchR1, "<answer>x <answer> <search>a</search>"), [""; 0]);
    }

    #[test]
    fn s1_an_answer_begins_where_the_answer_is_read_from() {
        // The opener before the last one is no block, and hides nothing.
        let stray = "<answer><search>q <search>r</search><answer>Paris</answer>";
        assert_eq!(codes(SearchR1, stray), ["missing_closer", "ok"]);
        // What is reasoning, or a tool's, takes no part in it.
        for hides in ["<think></answer></think>", "<information></answer></information>"] {
            let text = format!("<answer><search>q {hides}<answer>Paris</answer>");
            assert_eq!(codes(SearchR1, &text), ["missing_closer"], "{text}");
        }
        let inside = "<answer><search>q</search><think><answer></think>Paris</answer>";
        assert_eq!(codes(SearchR1, inside), [""; 0]);
        let two = "<answer>a <search>no</search></answer><search>r</search><answer>b</answer>";
        assert_eq!(calls(SearchR1, two), [("search".into(), json!({"query": "r"}))]);
    }

    #[test]
    fn s1_reasoning_in_an_answer_is_reasoning() {
        let found =
            parsed(SearchR1, "<answer>Paris<think><search>no</search></answer></think></answer><search>r</search>");
        assert!(found.reasoning.iter().eq([&(13..56)]) && found.attempts.len() == 1, "{found:?}");
        assert!(parsed(SearchR1, "<answer><think>Paris</answer>").reasoning_open.is_some());
        // What a template opened may name the tag.
        for (text, wanted) in [
            ("use the <answer> tag.</think><search>a</search><answer>b</answer>", vec!["ok"]),
            ("<answer>x</think><search>q <search>r</search><answer>b</answer>", vec!["missing_closer", "ok"]),
        ] {
            assert_eq!(codes(SearchR1, text), wanted, "{text}");
        }
    }
}
