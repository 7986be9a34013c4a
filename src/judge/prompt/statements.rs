//! Which statements a rubric's prompt may have. In: the text of a template; out: the first that it may not have, and where.
//!
//! A name that is bound to a list of itself twice, forty times over, is a short text, and comparing or writing it never ends:
//! the engine counts instructions, not what they go through. So nothing may be bound but the elements of what is given.

use std::sync::LazyLock;

use regex::Regex;

/// What may stand at the start of a statement.
static STATEMENT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^\{%[-+]?\s*(?:(?:if|elif|else|endif|endfor|break|continue)\b|for\s+[\w\s,]+?\s+in\s+(?<list>[^%]*?)[-+]?%\})").ok()
});

/// What may be gone through: what is given, a part of it, some of its elements in another order, or numbers.
static LIST: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^(?:[A-Za-z_][\w.]*(?:\[[-\d:\s]*\])?|range\([-\w\s,.|]*\))(?:\s*\|\s*(?:list|sort|unique|reverse|items))*(?:\s+if\s+[^\[\](){}]*)?$").ok()
});

/// Where a statement begins that a prompt may not have, and why.
pub(super) fn refused(text: &str) -> Option<(usize, &'static str)> {
    let (statement, list) = (STATEMENT.as_ref()?, LIST.as_ref()?);
    text.match_indices("{%").find_map(|(at, _)| {
        let Some(found) = statement.captures(text.get(at..)?) else {
            return Some((
                at,
                "a prompt has `if`, `for`, `break` and `continue`, and no other statements; write out what they say",
            ));
        };
        let through = found.name("list")?.as_str().trim();
        let lists = list.is_match(through);
        (!lists).then_some((
            at,
            "a prompt's `for` goes through what is given, a slice of it, or a `range`, and nothing made of these",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prompts_say_is_allowed() {
        for text in [
            "{{ answer }}",
            "{% if references %}{% for reference in references %}{{ reference }}{% endfor %}{% else %}none{% endif %}",
            "{%- for m in conversation[-3:] -%}{% if m.role == 'user' %}{{ m.text }}{% elif loop.last %}!{% endif %}{%- endfor -%}",
            "{% for i in range(3) %}{% if i > 1 %}{% break %}{% endif %}{% continue %}{% endfor %}",
            "{% for r in references | sort if r != 'x' %}{{ r }}{% endfor %}{%+ for k, v in x.y|items %}{% endfor %}",
            "{%\nfor r in references\n%}{{ [r, answer] | join('/') }}{% endfor %}",
        ] {
            assert_eq!(refused(text), None, "{text}");
        }
    }

    #[test]
    fn what_binds_something_new_is_refused() {
        for text in [
            "{% set a = [1] %}",
            "{%-set a=[a,a]%}",
            "{% with a = [a, a] %}{% endwith %}",
            "{% macro f(a) %}{% endmacro %}",
            "{% call f() %}{% endcall %}",
            "{% import 'x' as y %}",
            "{% include 'x' %}",
            "{% filter upper %}{% endfilter %}",
            "{% for a in [[b, b]] %}{% endfor %}",
            "{% for a in (b, b) %}{% endfor %}",
            "{% for a in b + b %}{% endfor %}",
            "{% for a in b | batch(9) %}{% endfor %}",
            "{% for a in b | chain(b) %}{% endfor %}",
            "{% for a in b if [a, a] %}{% endfor %}",
            "{% for a in b recursive %}{% endfor %}",
            "{% for a in {'x': b} %}{% endfor %}",
            "{% for a in namespace(b=b) %}{% endfor %}",
            "{% forty %}",
            "{%",
        ] {
            assert_eq!(refused(&format!("ok {text}")).map(|(at, _)| at), Some(3), "{text}");
        }
    }
}
