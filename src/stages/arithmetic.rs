//! Arithmetic as text: of rubrics' `expr` stages, and of the formulas of `multi` graders. In: a text, and the language that it is
//! in, which is what names, functions and operators it has. Out: a checked tree, and its value once the names have theirs.
//!
//! Grammar; not every language has comparisons and powers:
//!
//! ```text
//! comparison = sum [ ("<=" | ">=" | "<" | ">") sum ]        1 or 0
//! sum        = product { ("+" | "-") product }
//! product    = factor { ("*" | "/") factor }
//! factor     = "-" factor | leaf [ ("**" | "^") factor ]
//! leaf       = number | name | function "(" comparison { "," comparison } ")" | "(" comparison ")"
//! ```
//!
//! Bounded in length and depth, so that none takes long.

/// Longest text, in bytes.
pub const MAX_EXPR_BYTES: usize = 1024;
/// Deepest nesting of parentheses, functions, signs and exponents.
const MAX_DEPTH: usize = 32;

/// What a text may be made of.
pub(crate) struct Language<'l, N> {
    /// Whether it has comparisons, and powers.
    pub(crate) comparisons: bool,
    pub(crate) powers: bool,
    /// Its functions by name.
    pub(crate) functions: &'static [(&'static str, Function)],
    /// What names are made of.
    pub(crate) in_name: fn(char) -> bool,
    /// What a name means, or why it means nothing.
    pub(crate) name: &'l dyn Fn(&str) -> Result<N, String>,
    /// Why a text must not begin as the rest does, where a number or a name is expected.
    pub(crate) misread: &'l dyn Fn(&str) -> Option<String>,
}

/// How a tree is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Every step is finite: a division by zero and what is no number are 0, what is too large is the largest.
    Finite,
    /// IEEE 754: a value may be infinite or no number.
    Ieee,
}

/// A checked text, whose names are `N`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node<N> {
    Number(f64),
    Name(N),
    Negate(Box<Self>),
    Binary(Operator, Box<Self>, Box<Self>),
    Call(Function, Vec<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

// Of operators that begin alike, the longer one comes first.
const COMPARISONS: &[(&str, Operator)] =
    &[("<=", Operator::LessEqual), (">=", Operator::GreaterEqual), ("<", Operator::Less), (">", Operator::Greater)];
const SUMS: &[(&str, Operator)] = &[("+", Operator::Add), ("-", Operator::Subtract)];
const PRODUCTS: &[(&str, Operator)] = &[("*", Operator::Multiply), ("/", Operator::Divide)];
const POWERS: &[(&str, Operator)] = &[("**", Operator::Power), ("^", Operator::Power)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Min,
    Max,
    Clamp,
    Abs,
    Floor,
    Ceil,
    Exp,
    Sqrt,
    /// The natural one.
    Log,
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

impl<N> Node<N> {
    /// Reads a text.
    ///
    /// # Errors
    /// When it is not in the language, too long or too deep.
    pub(crate) fn parse(text: &str, language: &Language<'_, N>) -> Result<Self, ExprError> {
        if text.len() > MAX_EXPR_BYTES {
            let message = format!("{} bytes are more than the limit of {MAX_EXPR_BYTES}", text.len());
            return Err(ExprError { at: MAX_EXPR_BYTES, message });
        }
        let mut parser = Parser { text, at: 0, depth: 0, language };
        let root = parser.comparison()?;
        parser.blank();
        if parser.at < text.len() {
            return Err(parser.error("an operator or the end is expected here"));
        }
        Ok(root)
    }

    /// Whether any of its names is such.
    pub(crate) fn any_name(&self, such: &impl Fn(&N) -> bool) -> bool {
        match self {
            Self::Number(_) => false,
            Self::Name(name) => such(name),
            Self::Negate(inner) => inner.any_name(such),
            Self::Binary(_, left, right) => left.any_name(such) || right.any_name(such),
            Self::Call(_, arguments) => arguments.iter().any(|argument| argument.any_name(such)),
        }
    }

    /// Its value, where `name` gives that of a name.
    ///
    /// # Errors
    /// That of the first name that has no value.
    pub(crate) fn value<E>(&self, numbers: Numbers, name: &impl Fn(&N) -> Result<f64, E>) -> Result<f64, E> {
        let value = match self {
            Self::Number(number) => *number,
            Self::Name(named) => name(named)?,
            Self::Negate(inner) => -inner.value(numbers, name)?,
            Self::Binary(operator, left, right) => {
                let (left, right) = (left.value(numbers, name)?, right.value(numbers, name)?);
                let nothing = numbers == Numbers::Finite && *operator == Operator::Divide && right == 0.0;
                if nothing { 0.0 } else { operator.apply(left, right) }
            }
            Self::Call(function, arguments) => {
                let values = arguments.iter().map(|node| node.value(numbers, name)).collect::<Result<Vec<_>, E>>()?;
                function.apply(&values)
            }
        };
        Ok(match numbers {
            Numbers::Ieee => value,
            Numbers::Finite if value.is_nan() => 0.0,
            Numbers::Finite => value.clamp(f64::MIN, f64::MAX),
        })
    }
}

impl Operator {
    fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Power => left.powf(right),
            Self::Less => f64::from(left < right),
            Self::LessEqual => f64::from(left <= right),
            Self::Greater => f64::from(left > right),
            Self::GreaterEqual => f64::from(left >= right),
        }
    }
}

impl Function {
    /// How many arguments it takes; any number, but some, where there is none.
    fn arity(self) -> Option<usize> {
        match self {
            Self::Min | Self::Max => None,
            Self::Clamp => Some(3),
            Self::Abs | Self::Floor | Self::Ceil | Self::Exp | Self::Sqrt | Self::Log => Some(1),
        }
    }

    fn apply(self, values: &[f64]) -> f64 {
        match (self, values) {
            (Self::Min, _) => values.iter().copied().fold(f64::INFINITY, f64::min),
            (Self::Max, _) => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            // Not f64::clamp: that panics where the bounds are crossed.
            (Self::Clamp, [value, low, high]) => value.max(*low).min(*high),
            (Self::Abs, [value]) => value.abs(),
            (Self::Floor, [value]) => value.floor(),
            (Self::Ceil, [value]) => value.ceil(),
            (Self::Exp, [value]) => value.exp(),
            (Self::Sqrt, [value]) => value.sqrt(),
            (Self::Log, [value]) => value.ln(),
            // As many as it takes, or it is not read.
            _ => f64::NAN,
        }
    }
}

struct Parser<'a, N> {
    text: &'a str,
    at: usize,
    depth: usize,
    language: &'a Language<'a, N>,
}

impl<'a, N> Parser<'a, N> {
    fn error(&self, message: &str) -> ExprError {
        ExprError { at: self.at, message: message.to_owned() }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
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

    fn expect(&mut self, symbol: &str) -> Result<(), ExprError> {
        if self.take(symbol) { Ok(()) } else { Err(self.error(&format!("`{symbol}` is expected here"))) }
    }

    fn operator(&mut self, operators: &[(&str, Operator)]) -> Option<Operator> {
        operators.iter().find(|(symbol, _)| self.take(symbol)).map(|(_, operator)| *operator)
    }

    fn comparison(&mut self) -> Result<Node<N>, ExprError> {
        let left = self.sum()?;
        let operators = if self.language.comparisons { COMPARISONS } else { &[] };
        match self.operator(operators) {
            Some(operator) => Ok(Node::Binary(operator, Box::new(left), Box::new(self.sum()?))),
            None => Ok(left),
        }
    }

    fn sum(&mut self) -> Result<Node<N>, ExprError> {
        self.left_to_right(SUMS, Self::product)
    }

    fn product(&mut self) -> Result<Node<N>, ExprError> {
        self.left_to_right(PRODUCTS, Self::factor)
    }

    fn left_to_right(
        &mut self,
        operators: &[(&str, Operator)],
        operand: fn(&mut Self) -> Result<Node<N>, ExprError>,
    ) -> Result<Node<N>, ExprError> {
        let mut left = operand(self)?;
        while let Some(operator) = self.operator(operators) {
            left = Node::Binary(operator, Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Node<N>, ExprError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let node = if self.take("-") {
            Node::Negate(Box::new(self.factor()?))
        } else {
            let base = self.leaf()?;
            let operators = if self.language.powers { POWERS } else { &[] };
            match self.operator(operators) {
                Some(operator) => Node::Binary(operator, Box::new(base), Box::new(self.factor()?)),
                None => base,
            }
        };
        self.depth -= 1;
        Ok(node)
    }

    fn leaf(&mut self) -> Result<Node<N>, ExprError> {
        if self.take("(") {
            let inner = self.comparison()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let (start, rest) = (self.at, self.rest());
        if let Some(message) = (self.language.misread)(rest) {
            return Err(self.error(&message));
        }
        let wrong = |message: String| ExprError { at: start, message };
        if rest.starts_with(begins_number) {
            let number = &rest[..self.number_bytes()];
            self.at += number.len();
            let read = number.parse::<f64>().ok().filter(|read| read.is_finite());
            return read.map(Node::Number).ok_or_else(|| wrong(format!("{number:?} is no number")));
        }
        let in_name = self.language.in_name;
        let name = &rest[..rest.find(|c| !in_name(c)).unwrap_or(rest.len())];
        if name.is_empty() {
            return Err(self.error("a number, a name or `(` is expected here"));
        }
        self.at += name.len();
        if self.take("(") { self.call(name, start) } else { (self.language.name)(name).map(Node::Name).map_err(wrong) }
    }

    /// Bytes of what stands here and begins like a number: all that could be meant as part of one.
    fn number_bytes(&self) -> usize {
        let rest = self.rest();
        let in_number = |c: char| c == '.' || (self.language.in_name)(c);
        let length = rest.find(|c| !in_number(c)).unwrap_or(rest.len());
        let (digits, sign) = rest.split_at(length);
        // The sign of an exponent.
        match sign.strip_prefix(['-', '+']) {
            Some(exponent) if digits.ends_with(['e', 'E']) => {
                length + 1 + exponent.find(|c: char| !c.is_ascii_digit()).unwrap_or(exponent.len())
            }
            _ => length,
        }
    }

    fn call(&mut self, name: &str, start: usize) -> Result<Node<N>, ExprError> {
        let wrong = |message: String| ExprError { at: start, message };
        let functions = self.language.functions;
        let Some(&(_, function)) = functions.iter().find(|(known, _)| *known == name) else {
            let known = functions.iter().map(|(known, _)| *known).collect::<Vec<_>>();
            let (last, others) =
                known.split_last().map_or(("none", String::new()), |(last, others)| (last, others.join(", ")));
            return Err(wrong(format!("{name:?} is no function; there are {others} and {last}")));
        };
        let mut arguments = vec![self.comparison()?];
        while self.take(",") {
            arguments.push(self.comparison()?);
        }
        self.expect(")")?;
        match function.arity() {
            Some(wanted) if wanted != arguments.len() => {
                Err(wrong(format!("{name} takes {wanted} arguments, not {}", arguments.len())))
            }
            _ => Ok(Node::Call(function, arguments)),
        }
    }
}

fn begins_number(c: char) -> bool {
    c.is_ascii_digit() || c == '.'
}
