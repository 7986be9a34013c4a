//! `expr`: a small arithmetic expression over the scores of earlier stages and over measures.
//!
//! Grammar: numbers, names, `+ - * /`, comparisons (1 or 0), parentheses, `min(..)`, `max(..)`, `clamp(x, lo, hi)`.
//! In: the expression's text and the names it may use. Out: a checked tree whose value is cut to 0..1. Division by
//! zero is 0, so that every value is finite.

use std::cell::RefCell;

use super::{Evidence, Measure, NoScore, UnitScore};

/// Longest expression, in bytes.
pub const MAX_EXPR_BYTES: usize = 1024;
/// Deepest nesting of parentheses and functions.
const MAX_DEPTH: usize = 32;

/// A checked expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    root: Node,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(f64),
    Stage(usize),
    Measure(Measure),
    Negate(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Min,
    Max,
    Clamp,
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at} of the expression: {message}")]
pub struct ExprError {
    /// Where, in bytes.
    pub at: usize,
    /// What is wrong.
    pub message: String,
}

impl Expr {
    /// Reads an expression. `stages` are the names of the earlier stages in order; `measure` gives the measure of a
    /// name with default settings.
    ///
    /// # Errors
    /// When the text is no expression, too long or too deep, or uses an unknown name.
    pub fn parse(text: &str, stages: &[&str], measure: &dyn Fn(&str) -> Option<Measure>) -> Result<Self, ExprError> {
        if text.len() > MAX_EXPR_BYTES {
            let message = format!("{} bytes are more than the limit of {MAX_EXPR_BYTES}", text.len());
            return Err(ExprError { at: MAX_EXPR_BYTES, message });
        }
        let mut parser = Parser { text, at: 0, depth: 0, stages, measure };
        let root = parser.comparison()?;
        parser.blank();
        if parser.at < text.len() {
            return Err(parser.error("an operator or the end is expected here"));
        }
        Ok(Self { root })
    }

    /// Whether it takes such a measure.
    pub(super) fn takes(&self, such: fn(&Measure) -> bool) -> bool {
        self.root.takes(such)
    }

    /// The value, cut to 0..1.
    pub(super) fn score(
        &self,
        evidence: &Evidence<'_>,
        earlier: &dyn Fn(usize) -> UnitScore,
    ) -> Result<UnitScore, NoScore> {
        // However often an expression names a measure, it is taken once.
        let taken: RefCell<Vec<(Measure, f64)>> = RefCell::default();
        let leaf = |node: &Node| match node {
            Node::Stage(index) => Ok(earlier(*index).get()),
            Node::Measure(measure) => {
                let known = taken.borrow().iter().find(|(known, _)| known == measure).map(|(_, value)| *value);
                let value = known.map_or_else(|| measure.score(evidence).map(|outcome| outcome.score.get()), Ok)?;
                if known.is_none() {
                    taken.borrow_mut().push((measure.clone(), value));
                }
                Ok(value)
            }
            _ => Ok(0.0),
        };
        self.root.value(&leaf).map(UnitScore::clamped)
    }
}

impl Node {
    fn takes(&self, such: fn(&Measure) -> bool) -> bool {
        match self {
            Self::Number(_) | Self::Stage(_) => false,
            Self::Measure(measure) => such(measure),
            Self::Negate(inner) => inner.takes(such),
            Self::Binary(_, left, right) => left.takes(such) || right.takes(such),
            Self::Call(_, arguments) => arguments.iter().any(|argument| argument.takes(such)),
        }
    }

    fn value<E>(&self, leaf: &dyn Fn(&Self) -> Result<f64, E>) -> Result<f64, E> {
        let value = match self {
            Self::Number(number) => *number,
            Self::Stage(_) | Self::Measure(_) => leaf(self)?,
            Self::Negate(inner) => -inner.value(leaf)?,
            Self::Binary(operator, left, right) => operator.apply(left.value(leaf)?, right.value(leaf)?),
            Self::Call(function, arguments) => {
                let values = arguments.iter().map(|node| node.value(leaf)).collect::<Result<Vec<_>, E>>()?;
                function.apply(&values)
            }
        };
        Ok(if value.is_nan() { 0.0 } else { value.clamp(f64::MIN, f64::MAX) })
    }
}

impl Operator {
    fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide if right == 0.0 => 0.0,
            Self::Divide => left / right,
            Self::Less => f64::from(left < right),
            Self::LessEqual => f64::from(left <= right),
            Self::Greater => f64::from(left > right),
            Self::GreaterEqual => f64::from(left >= right),
        }
    }
}

impl Function {
    fn apply(self, values: &[f64]) -> f64 {
        match (self, values) {
            (Self::Min, _) => values.iter().copied().fold(f64::INFINITY, f64::min),
            (Self::Max, _) => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            // Not f64::clamp: that panics where the bounds are crossed.
            (Self::Clamp, [value, low, high]) => value.max(*low).min(*high),
            (Self::Clamp, _) => 0.0,
        }
    }
}

/// What a number or a name is made of.
fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.')
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    stages: &'a [&'a str],
    measure: &'a dyn Fn(&str) -> Option<Measure>,
}

impl Parser<'_> {
    fn error(&self, message: &str) -> ExprError {
        ExprError { at: self.at, message: message.to_owned() }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn blank(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Takes the first of the symbols that comes next.
    fn take<T: Copy>(&mut self, symbols: &[(&str, T)]) -> Option<T> {
        self.blank();
        let (symbol, value) = symbols.iter().find(|(symbol, _)| self.rest().starts_with(symbol))?;
        self.at += symbol.len();
        Some(*value)
    }

    fn comparison(&mut self) -> Result<Node, ExprError> {
        let left = self.sum()?;
        let operators = [
            ("<=", Operator::LessEqual),
            (">=", Operator::GreaterEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        match self.take(&operators) {
            Some(operator) => Ok(Node::Binary(operator, Box::new(left), Box::new(self.sum()?))),
            None => Ok(left),
        }
    }

    fn sum(&mut self) -> Result<Node, ExprError> {
        let mut left = self.product()?;
        while let Some(operator) = self.take(&[("+", Operator::Add), ("-", Operator::Subtract)]) {
            left = Node::Binary(operator, Box::new(left), Box::new(self.product()?));
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Node, ExprError> {
        let mut left = self.factor()?;
        while let Some(operator) = self.take(&[("*", Operator::Multiply), ("/", Operator::Divide)]) {
            left = Node::Binary(operator, Box::new(left), Box::new(self.factor()?));
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Node, ExprError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let node = if self.take(&[("-", ())]).is_some() {
            Node::Negate(Box::new(self.factor()?))
        } else if self.take(&[("(", ())]).is_some() {
            let inner = self.comparison()?;
            self.expect(")")?;
            inner
        } else {
            self.leaf()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), ExprError> {
        self.take(&[(symbol, ())]).ok_or_else(|| self.error(&format!("`{symbol}` is expected here")))
    }

    /// The earlier stage that stands here by a name that no word of an expression can be.
    fn unreadable_stage(&self) -> Option<&str> {
        let readable = |name: &str| name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(in_word);
        let here = |name: &&&str| self.rest().strip_prefix(**name).is_some_and(|after| !after.starts_with(in_word));
        self.stages.iter().filter(|name| !readable(name)).find(here).copied()
    }

    fn leaf(&mut self) -> Result<Node, ExprError> {
        self.blank();
        let start = self.at;
        if let Some(name) = self.unreadable_stage() {
            let message = format!(
                "{name:?} is an earlier stage, whose name would be read as a number or a difference here; give that stage a \
                 `name` of letters, digits and `_` that begins with a letter, or put blanks around a minus"
            );
            return Err(self.error(&message));
        }
        let mut length = self.rest().find(|c| !in_word(c)).unwrap_or(self.rest().len());
        // The sign of an exponent.
        if let Some((digits, sign)) = self.rest().split_at_checked(length)
            && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && digits.ends_with(['e', 'E'])
            && let Some(exponent) = sign.strip_prefix(['-', '+'])
        {
            length += 1 + exponent.find(|c: char| !c.is_ascii_digit()).unwrap_or(exponent.len());
        }
        let token = self.text[start..start + length].to_owned();
        if token.is_empty() {
            return Err(self.error("a number, a name or `(` is expected here"));
        }
        self.at += length;
        if token.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            let number = token.parse::<f64>().ok().filter(|n| n.is_finite());
            return number
                .map(Node::Number)
                .ok_or_else(|| ExprError { at: start, message: format!("{token:?} is no number") });
        }
        if self.take(&[("(", ())]).is_some() {
            return self.call(&token, start);
        }
        if let Some(index) = self.stages.iter().position(|name| *name == token) {
            return Ok(Node::Stage(index));
        }
        (self.measure)(&token).map(Node::Measure).ok_or_else(|| {
            let earlier = self.stages.join(", ");
            ExprError { at: start, message: format!("{token:?} is neither an earlier stage ({earlier}) nor a measure") }
        })
    }

    fn call(&mut self, name: &str, start: usize) -> Result<Node, ExprError> {
        let (function, arity) = match name {
            "min" => (Function::Min, None),
            "max" => (Function::Max, None),
            "clamp" => (Function::Clamp, Some(3)),
            _ => {
                let message = format!("{name:?} is no function; there are min, max and clamp");
                return Err(ExprError { at: start, message });
            }
        };
        let mut arguments = vec![self.comparison()?];
        while self.take(&[(",", ())]).is_some() {
            arguments.push(self.comparison()?);
        }
        self.expect(")")?;
        match arity {
            Some(wanted) if wanted != arguments.len() => {
                let message = format!("{name} takes {wanted} arguments, not {}", arguments.len());
                Err(ExprError { at: start, message })
            }
            _ => Ok(Node::Call(function, arguments)),
        }
    }
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
        let leaf = |node: &Node| {
            Ok::<_, ()>(match node {
                Node::Stage(0) => 0.5,
                Node::Stage(_) => 0.25,
                _ => 0.75,
            })
        };
        parse(text).unwrap().root.value(&leaf).unwrap()
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
        for (text, at) in
            [("", 0), ("a +", 3), ("a b", 2), ("foo", 0), ("sin(a)", 0), ("clamp(a)", 0), ("(a", 2), ("1e999", 0)]
        {
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
