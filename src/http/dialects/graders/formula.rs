//! The formula of a `multi` grader: arithmetic over the graders' names. In: a text and values by name. Out: a finite
//! number, or what is wrong.
//!
//! Numbers, names, `+ - * / ^`, parentheses, `min(..)`, `max(..)`, `abs`, `floor`, `ceil`, `exp`, `sqrt`, `log`; as bounded as a
//! rubric's `expr`.

use crate::stages::arithmetic::{ExprError, Function, Language, Node, Numbers};

const FUNCTIONS: &[(&str, Function)] = &[
    ("min", Function::Min),
    ("max", Function::Max),
    ("abs", Function::Abs),
    ("floor", Function::Floor),
    ("ceil", Function::Ceil),
    ("exp", Function::Exp),
    ("sqrt", Function::Sqrt),
    ("log", Function::Log),
];

/// What is wrong with a formula.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormulaError {
    /// It cannot be read.
    #[error("at byte {} of the formula: {}", .0.at, .0.message)]
    Syntax(ExprError),
    /// It names a grader that there is not.
    #[error("the formula names {0:?}; it may name the graders of this multi grader")]
    UnknownName(String),
    /// Its value is no number.
    #[error("the formula's value is not finite; guard its divisions and logarithms with max")]
    NotFinite,
}

/// The value of a formula.
pub(super) fn evaluate(text: &str, value: &dyn Fn(&str) -> Option<f64>) -> Result<f64, FormulaError> {
    let language = Language {
        comparisons: false,
        powers: true,
        functions: FUNCTIONS,
        in_name: |c| c.is_alphanumeric() || c == '_',
        name: &|name| Ok(name.to_owned()),
        misread: &|_| None,
    };
    let formula = Node::parse(text, &language).map_err(FormulaError::Syntax)?;
    let value_of =
        |name: &String| value(name).ok_or_else(|| FormulaError::UnknownName(name.chars().take(64).collect()));
    let found = formula.value(Numbers::Ieee, &value_of)?;
    if found.is_finite() { Ok(found) } else { Err(FormulaError::NotFinite) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<f64, FormulaError> {
        evaluate(text, &|name| match name {
            "a" => Some(0.5),
            "b_2" => Some(0.25),
            _ => None,
        })
    }

    #[test]
    fn arithmetic() {
        assert_eq!(value("0.5 * a + 2*b_2"), Ok(0.75));
        assert_eq!(value("-(a - 1) / 2"), Ok(0.25));
        assert_eq!(value("2 ^ 3 ** 1 - 1"), Ok(7.0));
        assert_eq!(value("-2 ^ 2 - --1"), Ok(-5.0));
        assert_eq!(value("max(a, b_2, min(3, 2)) + abs(-1)"), Ok(3.0));
        assert_eq!(value("a / (1 + 1e-6) * 2.5E0 + 1e+2"), Ok(0.5 / (1.0 + 1e-6) * 2.5 + 100.0));
        assert_eq!(value("sqrt(4) + floor(1.5) + ceil(0.5) + exp(0) + log(1)"), Ok(5.0));
    }

    #[test]
    fn what_is_wrong_is_said_and_nothing_panics() {
        for text in [
            "",
            "a +",
            "(a",
            "a b_2",
            "min()",
            "sqrt(1, 2)",
            "__import__('os')",
            "1..2",
            "1e",
            "1e-",
            "1e2.5",
            "1 e2",
            "e2",
            "é",
            "a.x",
        ] {
            assert!(value(text).is_err(), "{text}");
        }
        assert_eq!(value("nobody"), Err(FormulaError::UnknownName("nobody".to_owned())));
        assert_eq!(value("1 / 0"), Err(FormulaError::NotFinite));
        // What only a rubric's `expr` has.
        for text in ["a < 1", "clamp(a, 0, 1)"] {
            assert!(matches!(value(text), Err(FormulaError::Syntax(_))), "{text}");
        }
        assert_eq!(value("1e2 * 1E-1"), Ok(10.0));
        assert_eq!(value("min(1 / 0, 2) + 1 / (1 / 0)"), Ok(2.0));
        assert!(value(&"(".repeat(1000)).is_err());
        assert!(value(&"-".repeat(1000)).is_err());
        assert!(value(&"1+".repeat(1000)).is_err());
    }
}
