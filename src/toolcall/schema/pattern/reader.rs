//! The reading of a pattern's text, byte by byte: its groups, atoms and quantifiers. In: an ECMA-262 pattern; out: its states,
//! the engine that it needs, and the parts that an engine of their own matches. Knows no limit.

use super::{Engine, Part, PatternCost, Scanning};

/// Repetitions from which on a part counts as one that goes on to the end.
const ENDLESS_COPIES: u64 = 1000;

/// States of a class or escape that spans many scripts, once spelled in UTF-8.
const PROPERTY_STATES: u64 = 512;

/// States of a negated class, which reaches into every length of UTF-8.
const NEGATED_STATES: u64 = 16;

/// One level of parentheses: the states so far, and those of the last atom, which a quantifier multiplies.
#[derive(Default, Clone, Copy)]
struct Level {
    states: Counted,
    /// Places that leave a doubt about how to go on: each class is one, however many bytes it takes, and no certain character.
    positions: Counted,
    look: Option<Look>,
    /// Positions before the first part that may go on to the end of the text, if there is one.
    endless: Option<u64>,
    /// Whether something in it looks around, and whether its last atom does.
    looks: bool,
    last_looks: bool,
}

/// Which way a group looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Ahead,
    Behind,
}

#[derive(Default, Clone, Copy)]
struct Counted {
    done: u64,
    last: u64,
}

impl Counted {
    fn atom(&mut self, size: u64) {
        self.done = self.total();
        self.last = size;
    }

    fn repeat(&mut self, copies: u64) {
        self.last = self.last.saturating_add(1).saturating_mul(copies);
    }

    fn total(self) -> u64 {
        self.done.saturating_add(self.last)
    }
}

impl Level {
    fn atom(&mut self, states: u64, positions: u64) {
        self.states.atom(states);
        self.positions.atom(positions);
        self.last_looks = false;
    }

    /// Says that so many positions stand before something endless.
    fn endless_after(&mut self, positions: u64) {
        self.endless = Some(self.endless.map_or(positions, |known| known.min(positions)));
    }
}

/// Where the reading of a pattern is.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    anchored: bool,
    outer: Vec<Level>,
    level: Level,
    atoms: usize,
    groups: usize,
    /// Whether nothing but `^` and lookaheads was read so far.
    leading: bool,
    engine: Engine,
    lookarounds: u64,
    parts: Vec<Part>,
    /// Whether a group that looks around is repeated.
    looks_again: bool,
}

impl<'a> Reader<'a> {
    /// Before the first byte.
    pub(super) fn new(pattern: &'a str) -> Self {
        let leading = pattern.starts_with('^');
        Self {
            rest: pattern.strip_prefix('^').unwrap_or(pattern).as_bytes(),
            anchored: leading && pattern.ends_with('$'),
            outer: Vec::new(),
            level: Level::default(),
            atoms: 0,
            groups: 0,
            leading,
            engine: Engine::Linear,
            lookarounds: 0,
            parts: Vec::new(),
            looks_again: false,
        }
    }

    /// The cost of what was read.
    pub(super) fn cost(mut self) -> PatternCost {
        // What is not closed is no pattern.
        while !self.outer.is_empty() {
            self.close();
        }
        let Level { states, positions, endless, .. } = self.level;
        let outside = Part { positions: positions.total(), endless, backwards: false, again: false };
        let mut scanning = Scanning::default();
        scanning.add(outside);
        self.parts.iter().for_each(|part| scanning.add(Part { again: part.again || self.looks_again, ..*part }));
        let counted = self.anchored && self.atoms == 1 && self.groups == 0;
        let Self { engine, lookarounds, .. } = self;
        PatternCost { states: states.total(), counted, engine, lookarounds, scanning }
    }

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// Reads it all.
    ///
    /// # Errors
    /// A construct outside ECMA-262 whose cost is unknown.
    pub(super) fn read(&mut self) -> Result<(), String> {
        while let Some(byte) = self.next() {
            // What stands outside groups ends the leading lookaheads; a quantifier there repeats the last one.
            if self.leading && self.outer.is_empty() && byte != b'(' {
                self.leading = false;
                if self.engine == Engine::LeadingLookaheads && matches!(byte, b'*' | b'+' | b'?' | b'{') {
                    self.backtrack();
                }
            }
            match byte {
                b'(' => self.open()?,
                b')' => self.close(),
                b'|' => self.branch(),
                b'[' => self.class(),
                b'\\' => self.escape()?,
                b'*' | b'+' => self.quantifier(2, true),
                b'?' => self.quantifier(2, false),
                b'{' => self.braces(),
                b'^' | b'$' => self.level.atom(0, 0),
                b'.' => self.atom(NEGATED_STATES, 1),
                _ => self.atom(1, 0),
            }
        }
        Ok(())
    }

    fn atom(&mut self, states: u64, positions: u64) {
        self.atoms += 1;
        self.level.atom(states, positions);
    }

    /// A branch outside groups starts anywhere in the text, whatever the others begin with.
    fn branch(&mut self) {
        self.groups += 1;
        if self.engine == Engine::LeadingLookaheads && self.outer.is_empty() {
            self.backtrack();
        }
        self.level.atom(1, 1);
    }

    fn backtrack(&mut self) {
        self.engine = Engine::Backtracking;
    }

    fn open(&mut self) -> Result<(), String> {
        self.groups += 1;
        let leads = self.leading && self.outer.is_empty() && matches!(self.rest, [b'?', b'=' | b'!', ..]);
        self.leading &= leads || !self.outer.is_empty();
        self.outer.push(std::mem::take(&mut self.level));
        let Some(rest) = self.rest.strip_prefix(b"?") else { return Ok(()) };
        self.rest = rest;
        self.level.look = match rest {
            [b'=' | b'!', ..] => Some(Look::Ahead),
            [b'<', b'=' | b'!', ..] => Some(Look::Behind),
            _ => None,
        };
        self.lookarounds += u64::from(self.level.look.is_some());
        match rest {
            [b'=' | b'!', ..] if leads => self.engine = self.engine.max(Engine::LeadingLookaheads),
            [b'=' | b'!' | b'>', ..] | [b'<', b'=' | b'!', ..] => self.backtrack(),
            [b':' | b'i' | b'm' | b's' | b'-', ..] => {}
            [b'<', name, ..] | [b'P', b'<', name, ..] if name.is_ascii_alphabetic() || *name == b'_' => {}
            _ => return Err("a pattern has a group outside ECMA-262; use (?:..), (?=..), (?!..) or (?<name>..)".into()),
        }
        Ok(())
    }

    fn close(&mut self) {
        let Level { states, positions, look, endless, looks, .. } = self.level;
        let (states, mut positions) = (states.total().saturating_add(1), positions.total().saturating_add(1));
        self.level = self.outer.pop().unwrap_or_default();
        if let Some(look) = look {
            // What is endless before it is given back byte by byte, and it is tried each time.
            let again = self.outer.iter().chain([&self.level]).any(|level| level.endless.is_some());
            self.parts.push(Part { positions, endless, backwards: look == Look::Behind, again });
            positions = 0;
        } else if let Some(before) = endless {
            self.level.endless_after(self.level.positions.total().saturating_add(before));
        }
        self.level.atom(states, positions);
        self.level.last_looks = looks || look.is_some();
        self.level.looks |= self.level.last_looks;
    }

    /// A class ends at the first bracket that is not escaped: the earliest end that any reading gives it.
    fn class(&mut self) {
        let mut states = if self.rest.first() == Some(&b'^') { NEGATED_STATES } else { 1 };
        while let Some(byte) = self.next() {
            let member = match byte {
                b']' => break,
                b'\\' => self.next().map_or(1, escape_states),
                0x80.. => NEGATED_STATES,
                _ => 0,
            };
            states = states.saturating_add(member.saturating_sub(1));
        }
        self.atom(states, 1);
    }

    fn escape(&mut self) -> Result<(), String> {
        let Some(byte) = self.next() else { return Ok(()) };
        match byte {
            b'1'..=b'9' | b'k' => self.backtrack(),
            b'g' => return Err(r"a pattern uses \g, which is not ECMA-262; use \1".into()),
            b'A' | b'z' | b'Z' | b'G' | b'K' | b'R' | b'X' | b'h' | b'H' | b'O' | b'N' | b'e' => {
                self.backtrack();
            }
            _ => {}
        }
        self.skip_name(byte);
        let is_class = matches!(byte, b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'p' | b'P');
        self.atom(escape_states(byte), u64::from(is_class));
        Ok(())
    }

    /// The braces of `\p{..}`, `\u{..}` and `\x{..}` belong to the escape and are no count.
    fn skip_name(&mut self, escape: u8) {
        if matches!(escape, b'p' | b'P' | b'u' | b'x') && self.rest.first() == Some(&b'{') {
            let end = self.rest.iter().position(|&byte| byte == b'}').map_or(self.rest.len(), |end| end + 1);
            self.rest = self.rest.get(end..).unwrap_or_default();
        }
    }

    fn quantifier(&mut self, copies: u64, endless: bool) {
        // `a++` is one repetition to ECMA-262 and a possessive one to other engines.
        if self.rest.first() == Some(&b'+') {
            self.backtrack();
        }
        self.looks_again |= self.level.last_looks && copies > 1;
        let repeated = self.level.positions.last;
        self.level.states.repeat(copies);
        self.level.positions.repeat(copies);
        if endless {
            // One round of it is part of what may be taken at once.
            self.level.endless_after(self.level.positions.total().saturating_sub(repeated));
        }
    }

    /// `{m}`, `{m,}`, `{m,n}`; anything else is literal text.
    fn braces(&mut self) {
        let Some(end) = self.rest.iter().position(|&byte| byte == b'}') else { return self.atom(1, 0) };
        let (inside, after) = self.rest.split_at(end);
        let is_count = inside.iter().all(|byte| matches!(byte, b'0'..=b'9' | b',' | b' ')) && !inside.is_empty();
        if !is_count {
            return self.atom(1, 0);
        }
        self.rest = after.get(1..).unwrap_or_default();
        let copies = inside.split(|&byte| byte == b',').map(number).max().unwrap_or(1);
        // As good as endless, for a text that is no longer.
        let endless = inside.ends_with(b",") || copies > ENDLESS_COPIES;
        self.quantifier(copies.saturating_add(1), endless);
    }
}

fn number(digits: &[u8]) -> u64 {
    let digits = digits.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

fn escape_states(byte: u8) -> u64 {
    match byte {
        b'p' | b'P' => PROPERTY_STATES,
        b'S' | b'W' | b'D' => NEGATED_STATES,
        b's' => 8,
        _ => 1,
    }
}
