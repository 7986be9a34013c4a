//! What a regular expression may cost, read off its text. In: an ECMA-262 pattern; out: the automaton states that it
//! expands to, and how an engine matches it. Compiles and matches nothing.
//!
//! The estimate errs upwards: a construct read in two ways counts as the larger one, so a pattern that passes the
//! limits stays small in the engine too.

/// Longest pattern that is compiled, in bytes: translating one takes quadratic time.
const MAX_PATTERN_BYTES: usize = 4096;

/// States of one pattern; the engine's own size limit is of the same order.
const MAX_STATES: u64 = 100_000;

/// States of one pattern that needs backtracking: its engine copies more.
const MAX_BACKTRACKING_STATES: u64 = 4096;

/// Repetitions from which on a part counts as one that goes on to the end.
const ENDLESS_COPIES: u64 = 1000;

/// States of a class or escape that spans many scripts, once spelled in UTF-8.
const PROPERTY_STATES: u64 = 512;

/// States of a negated class, which reaches into every length of UTF-8.
const NEGATED_STATES: u64 = 16;

/// Positions of a part whose automaton stays small: about three for each place where it does not know how to go on.
const AUTOMATON_POSITIONS: f64 = 24.0;

/// Most lookarounds of one pattern: each has an engine of its own, which has to start up.
const MAX_LOOKAROUNDS: u64 = 32;

/// What one pattern may cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PatternCost {
    /// Upper bound of the states of its automaton.
    pub(super) states: u64,
    /// Whether it is matched without building those states: one character class, counted.
    pub(super) counted: bool,
    /// How it is matched.
    pub(super) engine: Engine,
    /// Its lookarounds.
    pub(super) lookarounds: u64,
    /// What each match takes that backtracks, beside its steps.
    pub(super) scanning: Scanning,
}

/// What the parts of a pattern take that an engine of its own matches wherever backtracking gets to, in the units of the
/// evaluation budget.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Scanning {
    /// For each step: parts that are tried again and again at one place, and end after some bytes.
    pub(super) steps: f64,
    /// For each step and each byte of the text: such parts that may go on to its end.
    pub(super) step_bytes: f64,
    /// For each byte of the text: parts that are tried once for each, and end after some.
    pub(super) bytes: f64,
    /// For each pair of bytes: such parts that may go on to the end.
    pub(super) squares: f64,
}

/// A part of a pattern that an engine of its own matches.
#[derive(Debug, Clone, Copy)]
struct Part {
    positions: u64,
    /// Those before what is endless in it, if anything is.
    endless: Option<u64>,
    backwards: bool,
    /// Whether it may be tried more than once where a match begins.
    again: bool,
}

impl Scanning {
    /// An automaton steps through few positions that may be taken at once; of many the states have to be gone through one by
    /// one.
    fn add(&mut self, Part { positions, endless, backwards, again }: Part) {
        // What starting an engine takes, however little it has to do.
        const START: f64 = 1.5;
        let at_once = positions.saturating_sub(endless.unwrap_or(0)) as f64;
        let step = if at_once > AUTOMATON_POSITIONS { at_once / 24.0 } else { 0.0 };
        let step = step.max(if backwards { 0.25 } else { 1.0 / 32.0 });
        match (endless, again) {
            (Some(_), false) => self.squares += step,
            (Some(_), true) => (self.steps, self.step_bytes) = (self.steps + START, self.step_bytes + step),
            (None, false) => self.bytes += START + positions as f64 * step,
            (None, true) => self.steps += START + positions as f64 * step,
        }
    }
}

/// How a pattern is matched; a later one does what an earlier one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Engine {
    /// In time linear in the text.
    Linear,
    /// Linear parts after one another: lookaheads right after `^`, then a pattern without lookaround.
    LeadingLookaheads,
    /// Step by step, until it is given up: lookaround elsewhere, back references, atomic groups.
    Backtracking,
}

impl PatternCost {
    /// Cost for every sixteen bytes of text, in the units of the evaluation budget: of an engine that has to look at every state
    /// for every byte.
    pub(super) fn units(self) -> f64 {
        if self.counted { 1.0 } else { 1.0 + 4.0 * self.states as f64 }
    }
}

/// Reads the cost of `pattern`.
///
/// # Errors
///
/// A pattern that is too long, expands to too many states, or uses a construct outside ECMA-262 whose cost is
/// unknown (recursion, conditionals); the message says which.
pub(super) fn cost(pattern: &str) -> Result<PatternCost, String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!("a pattern has {} bytes; at most {MAX_PATTERN_BYTES} are compiled", pattern.len()));
    }
    let mut reader = Reader::new(pattern);
    reader.read()?;
    let cost = reader.cost();
    if cost.lookarounds > MAX_LOOKAROUNDS {
        let found = cost.lookarounds;
        return Err(format!("a pattern has {found} lookarounds; at most {MAX_LOOKAROUNDS} are compiled"));
    }
    let limit = if cost.engine == Engine::Linear { MAX_STATES } else { MAX_BACKTRACKING_STATES };
    if cost.states > limit && !cost.counted {
        return Err(format!("a pattern expands to about {} states; at most {limit} are compiled", cost.states));
    }
    Ok(cost)
}

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

struct Reader<'a> {
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
    fn new(pattern: &'a str) -> Self {
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

    fn cost(mut self) -> PatternCost {
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

    fn read(&mut self) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pattern: &str) -> PatternCost {
        cost(pattern).expect("a pattern within the limits")
    }

    #[test]
    fn v3_plain_patterns_are_cheap_and_linear() {
        for pattern in ["^[a-z]+$", r"^\d{4}-\d{2}-\d{2}$", "(foo|bar)*", r"^[\w.+-]+@[\w-]+\.[\w.]+$", "(?:a)(?<n>b)"]
        {
            let cost = read(pattern);
            assert!(cost.states < 200 && cost.engine == Engine::Linear, "{pattern}: {cost:?}");
        }
    }

    #[test]
    fn v3_lookaround_and_back_references_backtrack() {
        for pattern in ["(?=a)b", "(?!a)b", "(?<=a)b", "(?<!a)b", r"(a)\1", r"(?<x>a)\k<x>", "(?>a)b", "a++b"] {
            assert_eq!(read(pattern).engine, Engine::Backtracking, "{pattern}");
        }
    }

    #[test]
    fn v3_leading_lookaheads_are_told_apart() {
        for pattern in [r"^(?!.*\.\.)[\w./]+$", "^(?=.*[a-z])(?=.*[0-9]).{8,}$", "^(?!(?:con|aux)$)[a-z]+(?:x|y)*$"] {
            assert_eq!(read(pattern).engine, Engine::LeadingLookaheads, "{pattern}");
        }
        for pattern in [
            "(?!a)b",
            "^(?=a)*b",
            "^(?=a)b|c",
            "^a(?=b)",
            "^(?=(?!a)b)c",
            "^(?=a)b(?!c)",
            "^(?:(?=a)b)*",
            r"^(?=(a))\1",
        ] {
            assert_eq!(read(pattern).engine, Engine::Backtracking, "{pattern}");
        }
    }

    #[test]
    fn v3_repetitions_multiply() {
        assert!(read("(?:ab){100}").states >= 200);
        assert!(cost("a{1000}{1000}{1000}").is_err());
        assert!(cost("(((a{100}){100}){100}){100}").is_err());
        assert!(cost("(?=a)(b{100}){100}").is_err());
        assert!(cost(r"(\p{L}{100}){100}").is_err());
        assert!(cost("a{99999999999999999999999}").is_err());
    }

    #[test]
    fn v3_one_counted_class_is_not_built() {
        let cost = read("^[\\s\\S]{1,1000000}$");
        assert!(cost.counted && cost.units() < 2.0, "{cost:?}");
        assert!(!read("^ab{2}$").counted);
    }

    #[test]
    fn v3_what_backtracking_scans_is_told_apart() {
        let squares = |pattern: &str| read(pattern).scanning.squares;
        assert_eq!(squares("(?!DROP)x(?=ab)"), 0.0, "they end");
        assert!(read("(?!DROP)x(?=ab)").scanning.bytes > 0.0);
        // One pair of bytes takes a thirty-second of a unit where an automaton steps.
        assert_eq!(squares(r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d).{8,}"), 4.0 / 32.0);
        assert_eq!(squares("^(?:(?!DROP).)*$"), 1.0 / 32.0);
        assert_eq!(squares("(?<!(a|b)*)c"), 0.25);
        for pattern in
            ["(?=(a|b)*a(a|b){50}x)a", r"(z)\1|(a|b)*a(a|b){50}x", "(?=((a|b){1,50}a)*x)a", "(?=(a|b)*(a|b){400})a"]
        {
            assert!(squares(pattern) > 5.0, "{pattern}: {}", squares(pattern));
        }
    }

    #[test]
    fn v3_unknown_constructs_are_refused() {
        for pattern in ["(?R)", "(?1)", "(?(1)a|b)", r"(a)\g<1>", "(?&name)", "(?P>name)"] {
            assert!(cost(pattern).is_err(), "{pattern}");
        }
        assert!(cost(&"a".repeat(MAX_PATTERN_BYTES + 1)).is_err());
    }

    #[test]
    fn v3_broken_patterns_are_read_too() {
        for pattern in ["(", ")", "[", "\\", "{", "a{", "a{,}", "*", "((((", "[^", "(?"] {
            let _ = cost(pattern);
        }
    }
}
