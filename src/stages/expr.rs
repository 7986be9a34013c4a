//! `expr`: arithmetic over the scores of earlier stages and over measures.
//!
//! Numbers, names, `+ - * /`, comparisons (1 or 0), parentheses, `min(..)`, `max(..)`, `clamp(x, lo, hi)`. In: the expression's
//! text and the names it may use. Out: a checked tree whose value is cut to 0..1. Division by zero is 0, so that every value is
//! finite.

use std::cell::RefCell;

use super::arithmetic::{ExprError, Function, Language, Node, Numbers};
use super::{Evidence, Measure, NoScore, UnitScore};

const FUNCTIONS: &[(&str, Function)] = &[("min", Function::Min), ("max", Function::Max), ("clamp", Function::Clamp)];

/// A checked expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    root: Node<Name>,
}

/// What a name means.
#[derive(Debug, Clone, PartialEq)]
enum Name {
    Stage(usize),
    Measure(Measure),
}

impl Expr {
    /// Reads an expression. `stages` are the names of the earlier stages in order; `measure` gives the measure of a
    /// name with default settings.
    ///
    /// # Errors
    /// When the text is no expression, too long or too deep, or uses an unknown name.
    pub fn parse(text: &str, stages: &[&str], measure: &dyn Fn(&str) -> Option<Measure>) -> Result<Self, ExprError> {
        let name = |name: &str| match stages.iter().position(|stage| *stage == name) {
            Some(index) => Ok(Name::Stage(index)),
            None => measure(name)
                .map(Name::Measure)
                .ok_or_else(|| format!("{name:?} is neither an earlier stage ({}) nor a measure", stages.join(", "))),
        };
        let misread = |rest: &str| unreadable_stage(stages, rest);
        let language = Language {
            comparisons: true,
            powers: false,
            functions: FUNCTIONS,
            in_name,
            name: &name,
            misread: &misread,
        };
        Node::parse(text, &language).map(|root| Self { root })
    }

    /// Whether it takes such a measure.
    pub(super) fn takes(&self, such: fn(&Measure) -> bool) -> bool {
        self.root.any_name(&|name| matches!(name, Name::Measure(measure) if such(measure)))
    }

    /// The value, cut to 0..1.
    pub(super) fn score(
        &self,
        evidence: &Evidence<'_>,
        earlier: &dyn Fn(usize) -> UnitScore,
    ) -> Result<UnitScore, NoScore> {
        // However often an expression names a measure, it is taken once.
        let taken: RefCell<Vec<(Measure, f64)>> = RefCell::default();
        let score_of = |name: &Name| match name {
            Name::Stage(index) => Ok(earlier(*index).get()),
            Name::Measure(measure) => {
                let known = taken.borrow().iter().find(|(known, _)| known == measure).map(|(_, value)| *value);
                let value = known.map_or_else(|| measure.score(evidence).map(|outcome| outcome.score.get()), Ok)?;
                if known.is_none() {
                    taken.borrow_mut().push((measure.clone(), value));
                }
                Ok(value)
            }
        };
        self.root.value(Numbers::Finite, &score_of).map(UnitScore::clamped)
    }
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.')
}

/// What is wrong where the text goes on with an earlier stage by a name that no word of an expression can be.
fn unreadable_stage(stages: &[&str], rest: &str) -> Option<String> {
    let readable = |name: &str| name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(in_name);
    let here = |name: &&&str| rest.strip_prefix(**name).is_some_and(|after| !after.starts_with(in_name));
    let name = stages.iter().filter(|name| !readable(name)).find(here)?;
    Some(format!(
        "{name:?} is an earlier stage, whose name would be read as a number or a difference here; give that stage a `name` of \
         letters, digits and `_` that begins with a letter, or put blanks around a minus"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Expr, ExprError> {
        let measure = |name: &str| (name == "f1").then_some(Measure::F1);
        Expr::parse(text, &["a", "b"], &measure)
    }

    fn value(text: &str) -> f64 {
        let score_of = |name: &Name| {
            Ok::<_, ()>(match name {
                Name::Stage(0) => 0.5,
                Name::Stage(_) => 0.25,
                Name::Measure(_) => 0.75,
            })
        };
        parse(text).unwrap().root.value(Numbers::Finite, &score_of).unwrap()
    }

    #[test]
    fn precedence_and_functions() {
        assert_eq!(value("1 + 2 * 3 - 4 / 2"), 5.0);
        assert_eq!(value("-(a + b) * 2"), -1.5);
        assert_eq!(value("min(a, b, f1) + max(a, b) + clamp(9, 0, 1)"), 1.75);
        assert_eq!(value("(a >= 0.5) * 1 + (a < b)"), 1.0);
        assert_eq!(value("a / (b - b)"), 0.0);
        assert_eq!(value("clamp(1, 2, 0)"), 0.0);
        assert_eq!(value("5e-1 + 2E+2 + 1e1-1.5e-0"), 209.0);
        // Too large is the largest, and not nothing.
        assert_eq!(value("1e308 * 10"), f64::MAX);
    }

    #[test]
    fn errors_say_where() {
        for (text, at) in [
            ("", 0),
            ("a +", 3),
            ("a b", 2),
            ("foo", 0),
            ("sin(a)", 0),
            ("abs(a)", 0),
            ("a ^ 2", 2),
            ("a ** 2", 3),
            ("clamp(a)", 0),
            ("(a", 2),
            ("1e999", 0),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
        }
        assert!(parse(&"(".repeat(1000)).unwrap_err().message.contains("deep"));
        assert!(parse(&"-".repeat(1000)).unwrap_err().message.contains("deep"));
        assert!(parse(&"1+".repeat(1000)).unwrap_err().message.contains("limit"));
    }

    #[test]
    fn a_stage_whose_name_is_no_word_is_not_read_as_something_else() {
        let parse = |text: &str| Expr::parse(text, &["a", "f1", "a-f1", "2", "a.b"], &|_| None);
        for (text, at) in [("a-f1", 0), ("f1 * 2", 5), ("max(a, a-f1)", 7), ("-a-f1*1", 1)] {
            let error = parse(text).unwrap_err();
            assert!(error.at == at && error.message.contains("is an earlier stage"), "{text}: {error}");
        }
        for text in ["a - f1", "a-f1.5", "2.0 * f1", "a.b-a", "1e-2", "22"] {
            let said = parse(text).err().map(|error| error.message);
            assert!(said.is_none_or(|said| !said.contains("is an earlier stage")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-+*/()<>=,. a-z0-9é]{0,80}") {
            let _ = parse(&text);
        }
    }
}
