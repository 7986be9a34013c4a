//! What a regular expression may cost, read off its text. In: an ECMA-262 pattern; out: the automaton states that it
//! expands to, and how an engine matches it. Compiles and matches nothing.
//!
//! The estimate errs upwards: a construct read in two ways counts as the larger one, so a pattern that passes the
//! limits stays small in the engine too.

mod reader;

use self::reader::Reader;

/// Longest pattern that is compiled, in bytes: translating one takes quadratic time.
const MAX_PATTERN_BYTES: usize = 4096;

/// States of one pattern; the engine's own size limit is of the same order.
const MAX_STATES: u64 = 100_000;

/// States of one pattern that needs backtracking: its engine copies more.
const MAX_BACKTRACKING_STATES: u64 = 4096;

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
