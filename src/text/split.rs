//! Cutting a line into tokens the way mteval does. In: a line and the rules of a tokenizer; out: its tokens, each a
//! slice of the line. Knows neither sacreBLEU's names nor what is done to the line before.
//!
//! sacreBLEU runs regular expressions over the line one after the other, each adding blanks, and splits at white space:
//!
//! 1. a lone character gets blanks around it;
//! 2. `([^0-9])([.,])`: a point after a non-digit gets blanks around it;
//! 3. `([.,])([^0-9])`: a point before a non-digit gets blanks around it;
//! 4. `([0-9])(-)`: a dash right after a digit gets blanks around it.
//!
//! All of them only ever add blanks, so one pass over the characters decides it. The one subtle part: matches do not
//! overlap, so a point that expression 2 took as its second character cannot be its first one for the next point.

use super::unicode;

/// What a character is to the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Part of a token.
    Letter,
    /// Part of a token, and keeps points and dashes beside it.
    Digit,
    /// White space between tokens.
    Space,
    /// Always a token of its own.
    Lone,
    /// A token of its own unless digits are on both sides: `.` and `,` in mteval-v13a, all punctuation in mteval-v14.
    Point,
    /// A token of its own right after a digit.
    Dash,
    /// Not ASCII: [`Rules::wide`] decides.
    Wide,
}

/// What the expressions see beyond both ends of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edges {
    /// A blank, which is a non-digit.
    Blank,
    /// Nothing, so that an expression that wants a character there does not match.
    Nothing,
}

/// The characters and edges of one tokenizer.
#[derive(Debug)]
pub(super) struct Rules {
    /// Classes of the bytes: see [`byte_classes`].
    pub(super) bytes: [Class; 256],
    /// Classes of the characters beyond ASCII, white space apart.
    pub(super) wide: fn(char) -> Class,
    pub(super) edges: Edges,
}

/// A byte table: white space and non-ASCII as they are, `exceptions` as they say, everything else `rest`.
pub(super) const fn byte_classes(rest: Class, exceptions: &[(&[u8], Class)]) -> [Class; 256] {
    let mut classes = [rest; 256];
    let mut byte = 0;
    while byte < 256 {
        match byte {
            9..=13 | 28..=32 => classes[byte] = Class::Space,
            128.. => classes[byte] = Class::Wide,
            _ => {}
        }
        byte += 1;
    }
    let mut set = 0;
    while set < exceptions.len() {
        let mut member = 0;
        while member < exceptions[set].0.len() {
            classes[exceptions[set].0[member] as usize] = exceptions[set].1;
            member += 1;
        }
        set += 1;
    }
    classes
}

/// What the character before means to a point or a dash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A digit: a dash is cut off.
    Digit,
    /// A non-digit: a point is cut off by expression 2.
    NonDigit,
    /// A point that expression 2 consumed, or the bare start of the line: it is not there for expression 2.
    Unavailable,
}

/// Calls `token` with each token of `text`, in order. Linear in the text; allocates nothing.
#[inline]
pub(super) fn split(rules: &Rules, text: &str, mut token: impl FnMut(&[u8])) {
    let bytes = text.as_bytes();
    let mut emit = |start: usize, end: usize| {
        if let Some(slice) = bytes.get(start..end).filter(|slice| !slice.is_empty()) {
            token(slice);
        }
    };
    let mut before = if rules.edges == Edges::Blank { Before::NonDigit } else { Before::Unavailable };
    let (mut start, mut at) = (0, 0);
    loop {
        // Most of a text is letters: nothing to decide within a run of them.
        let run = at;
        while let Some(&byte) = bytes.get(at)
            && rules.bytes[usize::from(byte)] == Class::Letter
        {
            at += 1;
        }
        if at > run {
            before = Before::NonDigit;
        }
        let Some((class, width)) = rules.class(text, at) else { break };
        let end = at + width;
        let cut = match class {
            Class::Letter | Class::Wide | Class::Digit => false,
            Class::Space | Class::Lone => true,
            Class::Point => before == Before::NonDigit || rules.non_digit_at(text, end),
            Class::Dash => before == Before::Digit,
        };
        before = match class {
            Class::Digit => Before::Digit,
            Class::Point if before == Before::NonDigit => Before::Unavailable,
            _ => Before::NonDigit,
        };
        if cut {
            emit(start, at);
            if class != Class::Space {
                emit(at, end);
            }
            start = end;
        }
        at = end;
    }
    emit(start, at);
}

impl Rules {
    /// The class of the character at byte `at` and its width in bytes; `None` at the end of the line.
    #[inline]
    fn class(&self, text: &str, at: usize) -> Option<(Class, usize)> {
        match self.bytes[usize::from(*text.as_bytes().get(at)?)] {
            Class::Wide => {
                let c = text.get(at..)?.chars().next()?;
                Some((if unicode::is_space(c) { Class::Space } else { (self.wide)(c) }, c.len_utf8()))
            }
            class => Some((class, 1)),
        }
    }

    /// Whether expression 3 finds a non-digit at byte `at`.
    fn non_digit_at(&self, text: &str, at: usize) -> bool {
        match self.class(text, at) {
            Some((class, _)) => class != Class::Digit,
            None => self.edges == Edges::Blank,
        }
    }
}
