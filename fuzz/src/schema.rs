//! The laws of checking arguments against schemas. In: the text of a schema, and arguments; out: a panic if a verdict
//! changes from one call to the next, points at nothing, or exceeds what it may list.

use gradus::toolcall::schema::{Check, Formats, MAX_MESSAGE_BYTES, MAX_VIOLATIONS, Schema};
use serde_json::Value;

/// A character and the mark that a message was cut, beyond the limit.
const MESSAGE_SLACK: usize = 8;

/// A schema and arguments.
pub fn check(schema: &str, arguments: &Value) {
    for formats in [Formats::Annotate, Formats::Assert] {
        let compiled = Schema::new(schema, formats);
        let verdict = compiled.check(arguments);
        assert_eq!(verdict, compiled.check(arguments), "a verdict does not change");
        assert_eq!(verdict, Schema::new(schema, formats).check(arguments), "nor with a schema compiled anew");
        if let Some(problem) = compiled.problem() {
            assert_eq!(verdict, Check::Problem(problem.clone()), "an unusable schema gives no verdict");
        }
        for name in ["a", "p1", ""] {
            compiled.declared(name);
        }
        bounded(&verdict, arguments);
    }
}

fn bounded(verdict: &Check, arguments: &Value) {
    let short = |message: &str| message.len() <= MAX_MESSAGE_BYTES + MESSAGE_SLACK;
    match verdict {
        Check::Valid => {}
        Check::Problem(problem) => assert!(short(&problem.message), "messages are bounded"),
        Check::Invalid(violations) => {
            assert!((1..=MAX_VIOLATIONS).contains(&violations.len()), "the list of violations is bounded");
            for violation in violations {
                let at = &violation.pointer;
                assert!(arguments.pointer(at).is_some(), "{at:?} points into the arguments");
                assert!(short(&violation.message), "messages are bounded");
            }
        }
    }
}
