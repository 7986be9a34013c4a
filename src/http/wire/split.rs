//! A body taken apart: its items, and what stands around them.
//!
//! In: a body that is probably JSON. Out: the items, read in passing where they are as usual, and the body with an empty
//! list in their place. Whatever is wrong inside an item shows when it is read; whatever is odd outside makes this give
//! up, so that the body is read in the slow, exact way.

use std::ops::Range;

use super::item::Given;
use super::walk::Walk;

/// A body taken apart.
#[derive(Debug)]
pub struct Split<'a> {
    /// The body with `[]` as its `trajectories`.
    pub envelope: String,
    /// The items.
    pub items: Vec<Given<'a>>,
}

impl<'a> Split<'a> {
    /// Takes a body apart; `None` where it is odd.
    pub fn of(body: &'a str) -> Option<Self> {
        let mut walk = Walk::new(body);
        let mut found: Option<(Range<usize>, Vec<Given<'a>>)> = None;
        walk.object(|walk, key| {
            if key != "trajectories" || found.is_some() {
                return walk.value().map(drop);
            }
            let (start, mut items) = (walk.start(), Vec::new());
            walk.list(|walk| {
                items.push(Given::next(walk)?);
                (items.len() <= super::MAX_TRAJECTORIES).then_some(())
            })?;
            found = Some((start..start + walk.since(start)?.len(), items));
            Some(())
        })?;
        let (list, items) = found.filter(|_| walk.is_done())?;
        let envelope = [body.get(..list.start)?, "[]", body.get(list.end..)?].concat();
        Some(Self { envelope, items })
    }

    /// A body whose items stand at known places, in order and with nothing else in their list; `None` where there are none.
    pub fn of_known(body: &'a str, items: &[Range<usize>]) -> Option<Self> {
        let (first, last) = (items.first()?, items.last()?);
        let envelope = [body.get(..first.start)?, body.get(last.end..)?].concat();
        let mut walk = Walk::new(body);
        let items = items.iter().map(|range| Given::at(&mut walk, range)).collect::<Option<Vec<_>>>()?;
        (items.len() <= super::MAX_TRAJECTORIES).then_some(Self { envelope, items })
    }
}

/// Bytes of a body that are looked at for its deadline before it is its turn.
const LOOKED_AT: usize = 64 << 10;

/// The `deadline_ms` of a body, for whoever cannot wait until it is read; `None` where it does not stand before the items: to
/// look for it behind them would cost every request a part of what scoring it does.
pub fn early_deadline_ms(body: &str) -> Option<u64> {
    let mut walk = Walk::new(body.get(..body.floor_char_boundary(LOOKED_AT))?);
    let mut found = None;
    let _ = walk.object(|walk, key| {
        if key == "trajectories" {
            return None;
        }
        let value = walk.value()?;
        if key != "deadline_ms" {
            return Some(());
        }
        // At the end of what is looked at a number may go on.
        if !walk.is_done() {
            found = value.parse().ok();
        }
        // The rest is read when it is its turn.
        None
    });
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw<'a>(split: &Split<'a>) -> Vec<&'a str> {
        split.items.iter().map(|item| item.raw).collect()
    }

    #[test]
    fn items_are_found_wherever_the_list_stands() {
        let body = " {\"step\": 3, \"trajectories\" : [ {\"a\": \"}]\\\"\"} , [1,[2]],\"x\" ,null ] , \"tools\":[] } ";
        let found = Split::of(body).unwrap();
        assert_eq!(raw(&found), ["{\"a\": \"}]\\\"\"}", "[1,[2]]", "\"x\"", "null"]);
        assert_eq!(found.envelope, " {\"step\": 3, \"trajectories\" : [] , \"tools\":[] } ");
        assert!(Split::of("{\"trajectories\":[]}").unwrap().items.is_empty());
    }

    #[test]
    fn odd_bodies_are_left_to_the_slow_way() {
        for body in [
            "",
            "{",
            "[]",
            "{}",
            "{\"trajectories\":{}}",
            "{\"trajectories\":[1,]}",
            "{\"trajectories\":[1]}x",
            "{\"trajectories\":[\"a]}",
            "{\"step\":01,\"trajectories\":[1]}",
        ] {
            assert!(Split::of(body).is_none(), "{body}");
        }
    }

    #[test]
    fn a_deadline_is_found_near_the_start() {
        let long = format!("\"{}\"", "é".repeat(LOOKED_AT));
        for (body, found) in [
            ("{\"deadline_ms\": 400, \"trajectories\": [{}]}".to_owned(), Some(400)),
            ("{\"step\": 3, \"deadline_ms\":7, \"trajectories\": [{}]}".to_owned(), Some(7)),
            ("{\"trajectories\": [{}], \"deadline_ms\": 7}".to_owned(), None),
            (format!("{{\"run_id\": \"r\", \"deadline_ms\": 400, \"trajectories\": [{long}]}}"), Some(400)),
            (format!("{{\"run_id\": {long}, \"deadline_ms\": 400}}"), None),
            ("{\"deadline_ms\": null, \"trajectories\": []}".to_owned(), None),
            ("{\"deadline_ms\": 12".to_owned(), None),
            ("7".to_owned(), None),
        ] {
            assert_eq!(early_deadline_ms(&body), found, "{}", &body[..body.floor_char_boundary(60)]);
        }
        // A number of which only the start is looked at.
        let cut = format!("{{{}\"deadline_ms\":60000}}", " ".repeat(LOOKED_AT - 17));
        assert_eq!((&cut[..LOOKED_AT][LOOKED_AT - 3..], early_deadline_ms(&cut)), (":60", None));
    }

    /// Items whose prompts and tools repeat, nearly repeat, or are wrong somewhere.
    fn repeating() -> impl Strategy<Value = Vec<String>> {
        let tool = (0..3_usize, 0..3_usize).prop_map(|(name, end)| {
            let end = ["{}}", "{\"a\":1}}", "{\"a\":01}}"][end];
            format!(
                r#"{{"type":"function","function":{{"name":"{}"}},"more":"{}","x":{end}"#,
                "n".repeat(name + 1),
                "m".repeat(40)
            )
        });
        let tools = prop::collection::vec(tool, 0..3).prop_map(|tools| format!("[{}]", tools.join(" , ")));
        let content = (0..3_usize, any::<bool>()).prop_map(|(more, open)| {
            let text = format!("\"{}{}\"", "prompt ".repeat(12), "!".repeat(more));
            if open { format!("[{{\"type\":\"text\",\"text\":{text}}}]") } else { text }
        });
        let item = (tools, content).prop_map(|(tools, content)| {
            format!(r#"{{"messages":[{{"role":"user","content":{content}}},{{"role":"assistant","content":"a"}}],"tools":{tools}}}"#)
        });
        prop::collection::vec(item, 1..6)
    }

    proptest! {
        #[test]
        fn what_came_before_is_read_as_if_it_had_not(items in repeating()) {
            let body = format!("{{\"trajectories\":[{}]}}", items.join(", "));
            let shown = |given: Given<'_>| format!("{:?}", given.read("", crate::trajectory::ToolFormat::Auto).map_err(|wrong| wrong.pointer));
            let expected: Vec<_> = items.iter().map(|item| shown(Given::unread(item))).collect();
            let starts = items.iter().scan(body.find('[').unwrap() + 1, |at, item| {
                let start = *at;
                *at += item.len() + 2;
                Some(start..start + item.len())
            });
            let known: Vec<_> = starts.collect();
            for found in [Split::of(&body).unwrap(), Split::of_known(&body, &known).unwrap()] {
                prop_assert_eq!(raw(&found), items.iter().map(String::as_str).collect::<Vec<_>>());
                let found: Vec<_> = found.items.into_iter().map(shown).collect();
                prop_assert_eq!(&found, &expected);
            }
        }

        #[test]
        fn no_text_panics_and_what_is_json_is_taken_apart_as_json(text in "[\\[\\]{}\",:\\\\ a1]{0,40}") {
            let _ = Split::of(&text);
            let body = format!("{{\"trajectories\":[{text}]}}");
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&body) {
                let found = Split::of(&body).unwrap();
                prop_assert_eq!(found.items.len(), value["trajectories"].as_array().unwrap().len());
            }
        }
    }
}
