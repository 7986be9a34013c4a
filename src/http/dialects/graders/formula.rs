//! The formula of a `multi` grader: arithmetic over the graders' names. In: a text and values by name. Out: a finite
//! number, or what is wrong.
//!
//! Grammar: numbers (also 1e-6), names, `+ - * / ^`, parentheses, `min(..)`, `max(..)`, `abs`, `floor`, `ceil`, `exp`, `sqrt`, `log`.
//! Bounded in length and depth, so that no formula takes long.

/// Longest formula, in bytes.
const MAX_BYTES: usize = 1024;
/// Deepest nesting.
const MAX_DEPTH: usize = 32;

/// What is wrong with a formula.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormulaError {
    /// It cannot be read.
    #[error("at byte {at} of the formula: {message}")]
    Syntax {
        /// Where.
        at: usize,
        /// What is wrong.
        message: &'static str,
    },
    /// It names a grader that there is not.
    #[error("the formula names {0:?}; it may name the graders of this multi grader")]
    UnknownName(String),
    /// Its value is no number.
    #[error("the formula's value is not finite; guard its divisions and logarithms with max")]
    NotFinite,
}

/// The value of a formula.
pub(super) fn evaluate(text: &str, value: &dyn Fn(&str) -> Option<f64>) -> Result<f64, FormulaError> {
    let mut reader = Reader { text, at: 0, depth: 0, value };
    if text.len() > MAX_BYTES {
        return Err(reader.wrong("longer than 1024 bytes"));
    }
    let found = reader.sum()?;
    reader.blank();
    if reader.at < text.len() {
        return Err(reader.wrong("an operator or the end is expected here"));
    }
    if found.is_finite() { Ok(found) } else { Err(FormulaError::NotFinite) }
}

struct Reader<'f> {
    text: &'f str,
    at: usize,
    depth: usize,
    value: &'f dyn Fn(&str) -> Option<f64>,
}

impl<'f> Reader<'f> {
    fn wrong(&self, message: &'static str) -> FormulaError {
        FormulaError::Syntax { at: self.at, message }
    }

    fn rest(&self) -> &'f str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn blank(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, symbol: &str) -> bool {
        self.blank();
        let found = self.rest().starts_with(symbol);
        self.at += if found { symbol.len() } else { 0 };
        found
    }

    fn sum(&mut self) -> Result<f64, FormulaError> {
        let mut value = self.product()?;
        loop {
            if self.take("+") {
                value += self.product()?;
            } else if self.take("-") {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<f64, FormulaError> {
        let mut value = self.signed()?;
        loop {
            // `**` is a power, not a product.
            if !self.rest().trim_start().starts_with("**") && self.take("*") {
                value *= self.signed()?;
            } else if self.take("/") {
                value /= self.signed()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn signed(&mut self) -> Result<f64, FormulaError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong("nested too deeply"));
        }
        let value = if self.take("-") { self.signed().map(|value| -value) } else { self.power() };
        self.depth -= 1;
        value
    }

    fn power(&mut self) -> Result<f64, FormulaError> {
        let base = self.atom()?;
        if self.take("**") || self.take("^") { Ok(base.powf(self.signed()?)) } else { Ok(base) }
    }

    fn atom(&mut self) -> Result<f64, FormulaError> {
        if self.take("(") {
            let value = self.sum()?;
            return if self.take(")") { Ok(value) } else { Err(self.wrong("`)` is expected here")) };
        }
        let rest = self.rest();
        let name = rest.len() - rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').len();
        if rest.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            self.at += name;
            let name = rest.get(..name).unwrap_or_default();
            return if self.take("(") { self.call(name) } else { self.named(name) };
        }
        self.number()
    }

    fn named(&self, name: &str) -> Result<f64, FormulaError> {
        (self.value)(name).ok_or_else(|| FormulaError::UnknownName(name.chars().take(64).collect()))
    }

    fn number(&mut self) -> Result<f64, FormulaError> {
        let rest = self.rest();
        let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let mut end = digits(rest);
        // An exponent, as in 1e-6.
        if let Some(exponent) = rest.get(end..).and_then(|rest| rest.strip_prefix(['e', 'E'])) {
            let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            end = rest.len() - unsigned.len() + digits(unsigned);
        }
        let number = rest.get(..end).and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| self.wrong("a number, a name or `(` is expected here"))?;
        self.at += end;
        Ok(number)
    }

    fn call(&mut self, name: &str) -> Result<f64, FormulaError> {
        let mut values = vec![self.sum()?];
        while self.take(",") {
            values.push(self.sum()?);
        }
        if !self.take(")") {
            return Err(self.wrong("`,` or `)` is expected here"));
        }
        match (name, values.as_slice()) {
            ("min", _) => Ok(values.iter().copied().fold(f64::INFINITY, f64::min)),
            ("max", _) => Ok(values.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            ("abs", [value]) => Ok(value.abs()),
            ("floor", [value]) => Ok(value.floor()),
            ("ceil", [value]) => Ok(value.ceil()),
            ("exp", [value]) => Ok(value.exp()),
            ("sqrt", [value]) => Ok(value.sqrt()),
            ("log", [value]) => Ok(value.ln()),
            _ => Err(self.wrong(
                "no such function with so many arguments; there are min, max, abs, floor, ceil, exp, sqrt, log",
            )),
        }
    }
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
        assert!(value(&"(".repeat(1000)).is_err());
        assert!(value(&"-".repeat(1000)).is_err());
        assert!(value(&"1+".repeat(1000)).is_err());
    }
}
