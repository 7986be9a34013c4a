//! Colours of the terminal, or none where there is no terminal, a dumb one, or `NO_COLOR` is set.

use std::fmt::Display;
use std::io::IsTerminal;

/// `NO_COLOR` counts unless it is empty (no-color.org).
fn is_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether to colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// Colours for standard output.
    pub(super) fn stdout() -> Self {
        Self(std::io::stdout().is_terminal() && is_wanted())
    }

    /// Whether what goes to standard error may be coloured.
    pub(super) fn colours_stderr() -> bool {
        std::io::stderr().is_terminal() && is_wanted()
    }

    fn code(self, code: &str, text: impl Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub(super) fn bold(self, text: impl Display) -> String {
        self.code("1", text)
    }

    pub(super) fn dim(self, text: impl Display) -> String {
        self.code("2", text)
    }

    pub(super) fn good(self, text: impl Display) -> String {
        self.code("32", text)
    }

    pub(super) fn bad(self, text: impl Display) -> String {
        self.code("31", text)
    }

    pub(super) fn answer(self, text: impl Display) -> String {
        self.code("1;36", text)
    }
}

/// Foreign text, with what a terminal would act upon (control characters, changes of direction) made visible.
pub(super) fn printable(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let acts = |c: char| (c.is_control() && c != '\n' && c != '\t') || turns(c);
    text.chars().map(|c| if acts(c) { '\u{FFFD}' } else { c }).collect()
}

/// Foreign text as a part of one line: where it breaks off or jumps is a blank, so that it makes no line of its own.
pub(super) fn printable_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_acts_on_nothing_and_ends_no_line() {
        let text = "a\u{1b}[31m\tb\r\nc\u{2028}\u{202e}d";
        assert_eq!(printable(text), "a\u{fffd}[31m\tb\u{fffd}\nc\u{fffd}\u{fffd}d");
        assert_eq!(printable_line(text), "a\u{fffd}[31m b\u{fffd} c\u{fffd}\u{fffd}d");
    }
}
