//! What of a response only quotes: reasoning, the values of calls that are written as tags, strings of calls written as
//! JSON. In: the places of brackets, in order; out: whether a place lies in such a stretch. Every byte is looked at a few
//! times at most, whatever the text is.

use memchr::{memchr3, memmem};

use super::ToolFormat;

/// What opens and closes stretches of text that is read as a whole.
struct Region {
    open: &'static str,
    /// What the tags that open and close it share, behind the bracket.
    word: &'static str,
    /// What cannot stand in it: a stretch that reaches over the end of a call would hide the call's result.
    breaks: &'static [&'static str],
}

const THINK: Region = Region { open: "<think>", word: "think>", breaks: &[] };
const BRACKET_THINK: Region = Region { open: "[THINK]", word: "THINK]", breaks: &[] };
const PARAMETER: Region = Region { open: "<parameter=", word: "parameter", breaks: &["</function>", "</tool_call>"] };
const VALUE: Region = Region { open: "<arg_value>", word: "arg_value>", breaks: &["</tool_call>"] };
const INFORMATION: Region =
    Region { open: "<information>", word: "information>", breaks: &["</search>", "</function>", "</tool_call>"] };

/// Markers after which a call stands in JSON.
const CALLS: [&str; 3] = ["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"];
const CALL_END: &str = "</tool_call>";

/// The stretches around the place that was reached.
pub(super) struct Quoted<'a> {
    text: &'a str,
    /// Whether web pages may stand between information tags: they hold anything.
    has_information: bool,
    /// Where the region under way ends.
    region_end: usize,
    in_call: bool,
    /// How far quotes were counted, and whether a string is open there.
    counted: usize,
    in_string: bool,
}

impl<'a> Quoted<'a> {
    pub(super) fn new(text: &'a str, format: ToolFormat) -> Self {
        let has_information = matches!(format, ToolFormat::SearchR1 | ToolFormat::Auto);
        Self { text, has_information, region_end: 0, in_call: false, counted: 0, in_string: false }
    }

    /// Begins anew: somebody else speaks from `at` on.
    pub(super) fn restart(&mut self, at: usize) {
        (self.region_end, self.counted) = (0, at);
        (self.in_call, self.in_string) = (false, false);
    }

    /// Takes note of what opens or closes at the bracket at `at`.
    pub(super) fn pass(&mut self, at: usize) {
        let rest = &self.text[at..];
        let region = match rest.as_bytes().get(1) {
            Some(b't') if rest.starts_with(THINK.open) => &THINK,
            Some(b'T') if rest.starts_with(BRACKET_THINK.open) => &BRACKET_THINK,
            Some(b'p') if rest.starts_with(PARAMETER.open) => &PARAMETER,
            Some(b'a') if rest.starts_with(VALUE.open) => &VALUE,
            Some(b'i') if self.has_information && rest.starts_with(INFORMATION.open) => &INFORMATION,
            Some(b't' | b'T' | b'|') if CALLS.iter().any(|call| rest.starts_with(call)) => {
                self.in_call = true;
                return;
            }
            Some(b'/') if self.in_call && rest.starts_with(CALL_END) => {
                self.in_call = false;
                return;
            }
            _ => return,
        };
        if at >= self.region_end
            && let Some(end) = region_end(&rest[region.open.len()..], region)
        {
            self.region_end = at + region.open.len() + end;
        }
    }

    /// Whether `at` lies in reasoning or in a value.
    pub(super) fn in_region(&self, at: usize) -> bool {
        at < self.region_end
    }

    /// Whether `at` lies in a string of a call: such a string has no line break in it, so that the quotes of the line tell.
    pub(super) fn in_string(&mut self, at: usize) -> bool {
        let bytes = self.text.as_bytes();
        while let Some(found) = bytes.get(self.counted..at).and_then(|rest| memchr3(b'"', b'\\', b'\n', rest)) {
            let place = self.counted + found;
            self.counted = place + 1;
            match bytes.get(place) {
                Some(b'"') => self.in_string = !self.in_string,
                Some(b'\n') => self.in_string = false,
                // The byte after it is escaped.
                _ if self.in_string => self.counted += 1,
                _ => {}
            }
        }
        self.counted = self.counted.max(at);
        self.in_call && self.in_string
    }
}

/// Where the closing tag of a region stands, unless another one opens first.
fn region_end(inside: &str, region: &Region) -> Option<usize> {
    let bytes = inside.as_bytes();
    for hit in memmem::find_iter(bytes, region.word) {
        match &bytes[..hit] {
            [.., b'<' | b'[', b'/'] => {
                let own = &bytes[..hit];
                let broken = region.breaks.iter().any(|stop| memmem::find(own, stop.as_bytes()).is_some());
                return (!broken).then_some(hit);
            }
            [.., b'<' | b'['] => return None,
            _ => {}
        }
    }
    None
}
