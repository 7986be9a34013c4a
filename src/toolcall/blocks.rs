//! The calls that are written in one block, where that breaks (rule G4): each is an attempt, or to write several in one block
//! would pay. In: the text of a block behind its opener; out: where calls begin in it. Reads no values.

use super::elements::{Grammar, Place, Shape, starts};
use super::find::find_iter;
use super::reasoning::Tags;
use super::scan::Scan;

/// Where calls behind the first one begin in the text of a block, ascending, at most as many as are looked at.
pub(super) type Others = fn(&Scan<'_, '_>, &str) -> Vec<usize>;

/// Of a format whose blocks hold no several calls.
pub(super) fn none(_: &Scan<'_, '_>, _: &str) -> Vec<usize> {
    Vec::new()
}

/// Of call objects.
pub(super) fn objects(scan: &Scan<'_, '_>, text: &str) -> Vec<usize> {
    const SHAPE: Shape = Shape { grammar: Grammar::List, openers: &[], tags: Tags::Think };
    let (starts, _) = starts(text, SHAPE, (0, Place::Behind), scan.max_calls);
    // What lacks its brace may be more of the object before it, but for its name.
    let is_object = |index: usize, start: usize| {
        let own = text.get(start..starts.get(index + 1).copied().unwrap_or(text.len())).unwrap_or_default();
        own.starts_with('{') || own.contains("name")
    };
    let others = starts.iter().copied().enumerate().skip(1);
    others.filter(|(index, start)| is_object(*index, *start)).map(|(_, start)| start).collect()
}

/// Of arguments, before which a name may stand. Quotes are not followed, since one of them may be what is missing; braces are
/// where only a comma tells arguments from the elements of a list in them.
pub(super) fn arguments(scan: &Scan<'_, '_>, text: &str) -> Vec<usize> {
    let (mut starts, mut depth) = (Vec::new(), 0_usize);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => {
                starts.extend(behind_arguments(text, at, depth).filter(|_| starts.len() < scan.max_calls));
                depth += 1;
            }
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    starts
}

/// Where the call begins whose arguments may be the object at `at`, if others stand before it.
fn behind_arguments(text: &str, at: usize, depth: usize) -> Option<usize> {
    let (head, object) = text.split_at_checked(at)?;
    object.get(1..)?.trim_start().starts_with(['"', '\'', '}']).then_some(())?;
    let id = without_name(head.strip_suffix("[ARGS]").unwrap_or(head));
    let unnamed = id.strip_suffix("[CALL_ID]").map_or(id, without_name);
    let before = unnamed.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ';'));
    let told = unnamed.len() < head.len() || depth == 0 || !unnamed.get(before.len()..)?.contains(',');
    (told && before.ends_with('}')).then_some(unnamed.len())
}

/// Of calls that each have a separator behind their name.
pub(super) fn separated(scan: &Scan<'_, '_>, text: &str, separator: &'static str) -> Vec<usize> {
    let places = find_iter(text.as_bytes(), separator).skip(1).take(scan.max_calls);
    places.map(|at| without_name(text.get(..at).unwrap_or_default()).len()).collect()
}

fn without_name(head: &str) -> &str {
    head.trim_end_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ':' | '/'))
}

#[cfg(test)]
mod tests {
    use super::super::laws::codes;
    use crate::trajectory::ToolFormat::{self, *};

    /// As many wrong calls in one block as in several.
    #[test]
    fn g4_each_call_in_a_broken_block_is_an_attempt() {
        let object = |q: &str| {
            format!("{{\"name\": \"s\", \"arguments\": {{\"q\": \"{q}\", \"l\": [{{\"a\": 1}}, {{\"b\": 2}}]}}}}")
        };
        let arguments = |q: &str| format!("{{\"q\": \"{q}\", \"l\": [{{\"a\": 1}}, {{\"b\": 2}}]}}");
        let named = |q: &str| format!("s{}", arguments(q));
        let three = |call: &dyn Fn(&str) -> String, between: &str| ["a", "b", "c"].map(call).join(between);
        let tags = |q: &str| format!("<function=s>\n<parameter=q>\n{q}\n</parameter>\n</function>\n");
        let pairs = |q: &str| {
            format!(
                "s\n<arg_key>q</arg_key>\n<arg_value>{q}</arg_value>\n<arg_key>r</arg_key><arg_value>1</arg_value>\n"
            )
        };
        let v31 = |q: &str| format!("s<｜tool▁sep｜>{}", arguments(q));
        let kimi = |q: &str| format!("functions.s:0<|tool_call_argument_begin|>{}", arguments(q));
        let section = ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "<｜tool▁call▁end｜><｜tool▁calls▁end｜>");
        let blocks: [(ToolFormat, String); 17] = [
            (Hermes, format!("<tool_call>{}</tool_call>", three(&object, "\n"))),
            (Hermes, format!("<tool_call>[{}]</tool_call>", three(&object, ", "))),
            (Hermes, format!("<tool_call>{}", three(&object, "\n"))),
            (Hermes, format!("<tool_call>{}</tool_call>", three(&object, "\n").replacen("}}", "", 1))),
            (Qwen3Coder, format!("<tool_call>\n{}</tool_call>", three(&tags, ""))),
            (Glm45, format!("<tool_call>{}</tool_call>", three(&pairs, ""))),
            (Granite20bFc, format!("<function_call>[{}]", three(&object, ","))),
            (Internlm, format!("<|action_start|><|plugin|>{}<|action_end|>", three(&object, ";"))),
            (FunctionaryV31, format!("<function=s>{}</function>", three(&arguments, ""))),
            (FunctionaryV31, format!("<function=s>{}</function>", three(&arguments, ", "))),
            (FunctionaryV32, format!(">>>s\n{}", three(&arguments, "\n").replacen("1}", "}", 1))),
            (DeepseekV31, format!("{}{}{}", section.0, three(&v31, ""), section.1)),
            (KimiK2, format!("<|tool_calls_section_begin|><|tool_call_begin|>{}<|tool_call_end|>", three(&kimi, ""))),
            (Mistral, format!("[TOOL_CALLS]{}", three(&named, "").replacen("1}", "}", 1))),
            (Mistral, format!("[TOOL_CALLS]1 [{}]", three(&object, ", "))),
            (Mistral, format!("[TOOL_CALLS] //c\n[{}]", three(&object, ", "))),
            (Mistral, format!("[TOOL_CALLS]```json\n[{}]", three(&object, ", "))),
        ];
        for (format, text) in blocks {
            let found = codes(format, &text);
            assert!(found.len() == 3 && !found.contains(&"ok"), "{format} {text}: {found:?}");
            let one = codes(format, &text.replacen("[{\"a\": 1}, {\"b\": 2}]", "[{\"a\": }, {\"b\": 2}]", 1));
            assert_eq!(one.len(), 3, "{format} {text}: {one:?}");
        }
        // One call is one, whatever its arguments are like.
        let one = object("a").replace("1}", "}");
        assert_eq!(codes(Hermes, &format!("<tool_call>{one}</tool_call>")).len(), 1);
        let code =
            "<function=s>{\"c\": \"if (a) {b} else {c} \\frac{1}{2}\", \"l\": [{\"a\": 1}, {\"b\": 2}]}</function>";
        assert_eq!(codes(FunctionaryV31, &code.replace("\"c\"", "c")).len(), 1);
    }
}
