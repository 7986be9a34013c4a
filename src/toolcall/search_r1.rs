//! `search_r1`: `<search>query</search>`, possibly a whole trajectory with the results between `<information>` tags
//! (rules S1 to S3). In: a [`Scan`]; out: its attempts, each a call of `search`.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::codes::Fault;
use super::find::find;
use super::reasoning::{Mark, Stops, Tags, Walk};
use super::scan::{Markers, Scan};
use super::{Call, ErrorCode, Repair};

const SEARCH: Markers = Markers { opener: "<search>", closer: "</search>" };

/// The parser of the format.
pub(super) fn search_r1(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new([SEARCH.opener, "<information>", "<answer>"], Tags::Think, Stops::Openers);
    // An unclosed information or answer block runs to the end (S3), unless all of it turns out to be reasoning.
    let mut ended = false;
    while let Some(mark) = walk.next(scan) {
        ended &= !walk.take_restart();
        let Mark::Opener { which, at, end } = mark else { continue };
        if ended {
            continue;
        }
        let closer = match which {
            0 => {
                let next = search(scan, at, end);
                walk.resume(next);
                continue;
            }
            1 => "</information>",
            _ => "</answer>",
        };
        match find(scan.rest(end).as_bytes(), closer) {
            Some(length) => walk.resume(end + length + closer.len()),
            None => ended = true,
        }
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

    use super::super::laws::{calls, codes, tolerant};
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
    }
}
