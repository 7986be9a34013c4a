//! sacreBLEU's tokenizers. In: a segment of text; out: its tokens, exactly those that sacreBLEU counts. Knows nothing
//! of n-grams. The language-specific ones that need a model or a dictionary (`ja-mecab`, `spm`, ..) are not here.

use std::borrow::Cow;
use std::str::FromStr;

use super::split::{Class, Edges, Rules, byte_classes, split};
use super::unicode;

named! {
    /// How a segment becomes tokens, under sacreBLEU's names.
    #[derive(Default)]
    pub enum Tokenizer {
        /// `none`: split at white space.
        None = "none",
        /// `13a`: mteval-v13a, for languages that separate words by blanks; sacreBLEU's default.
        #[default]
        V13a = "13a",
        /// `intl`: mteval-v14, punctuation and symbols of all of Unicode.
        Intl = "intl",
        /// `zh`: Chinese characters one by one, the rest as mteval-v13a.
        Zh = "zh",
        /// `char`: every character that is not white space.
        Char = "char",
    }
}

/// The name of no tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown tokenizer `{0}`: use none, 13a, intl, zh or char")]
pub struct UnknownTokenizer(pub String);

impl Tokenizer {
    /// The tokens of a segment, as sacreBLEU counts them.
    pub fn tokenize(self, text: &str) -> Vec<String> {
        let mut tokens = Vec::new();
        self.for_each_token(text, Case::Mixed, |token| tokens.push(String::from_utf8_lossy(token).into_owned()));
        tokens
    }

    /// Calls `token` with each token of `text`, without allocating for plain text of mixed case.
    #[inline]
    pub(super) fn for_each_token(self, text: &str, case: Case, token: impl FnMut(&[u8])) {
        let cased = case.apply(text);
        let line = cased.trim_end_matches(unicode::is_space);
        match self {
            Self::None => split(&NONE, line, token),
            Self::V13a => split(&V13A, &unescape(line), token),
            Self::Intl => split(&INTL, line, token),
            Self::Zh => split(&ZH, line.trim_start_matches(unicode::is_space), token),
            Self::Char => split(&CHAR, line, token),
        }
    }
}

impl FromStr for Tokenizer {
    type Err = UnknownTokenizer;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|tokenizer| tokenizer.as_str() == name)
            .ok_or_else(|| UnknownTokenizer(name.to_owned()))
    }
}

/// Whether letters keep their case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Mixed,
    Lower,
}

impl Case {
    pub(super) const fn lower_if(lowercase: bool) -> Self {
        if lowercase { Self::Lower } else { Self::Mixed }
    }

    /// The name of sacreBLEU's signature.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Lower => "lc",
        }
    }

    fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Mixed => Cow::Borrowed(text),
            Self::Lower => Cow::Owned(text.to_lowercase()),
        }
    }
}

/// What mteval-v13a does before it cuts: it drops `<skipped>`, joins words hyphenated over a line end, and decodes four
/// entities, in this order, so that `&amp;lt;` becomes `<`.
fn unescape(line: &str) -> Cow<'_, str> {
    // Nearly all lines have none of the three. No early exit, so that the compiler makes vectors of it.
    let special = |byte| u8::from(byte == b'&') | u8::from(byte == b'\n') | u8::from(byte == b'<');
    if line.bytes().fold(0, |found, byte| found | special(byte)) == 0 {
        return Cow::Borrowed(line);
    }
    let mut line = Cow::Borrowed(line);
    for (from, to) in [("<skipped>", ""), ("-\n", ""), ("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        if line.contains(from) {
            line = Cow::Owned(line.replace(from, to));
        }
    }
    line
}

static NONE: Rules = Rules { bytes: byte_classes(Class::Letter, &[]), wide: |_| Class::Letter, edges: Edges::Nothing };

static CHAR: Rules = Rules { bytes: byte_classes(Class::Lone, &[]), wide: |_| Class::Lone, edges: Edges::Nothing };

/// mteval-v13a on ASCII; the apostrophe is a letter.
const MTEVAL_13A: [Class; 256] = byte_classes(
    Class::Letter,
    &[
        (b"0123456789", Class::Digit),
        (b".,", Class::Point),
        (b"-", Class::Dash),
        (b"!\"#$%&()*+/:;<=>?@[\\]^_`{|}~", Class::Lone),
    ],
);

static V13A: Rules = Rules { bytes: MTEVAL_13A, wide: |_| Class::Letter, edges: Edges::Blank };

static ZH: Rules = Rules {
    bytes: MTEVAL_13A,
    wide: |c| if is_chinese(c) { Class::Lone } else { Class::Letter },
    edges: Edges::Nothing,
};

static INTL: Rules = Rules {
    bytes: byte_classes(
        Class::Letter,
        &[(b"0123456789", Class::Digit), (b"!\"#%&'()*,-./:;?@[\\]_{}", Class::Point), (b"$+<=>^`|~", Class::Lone)],
    ),
    wide: |c| match c {
        _ if c.is_numeric() => Class::Digit,
        _ if unicode::is_punctuation(c) => Class::Point,
        _ if unicode::is_symbol(c) => Class::Lone,
        _ => Class::Letter,
    },
    edges: Edges::Nothing,
};

/// What sacreBLEU's `zh` takes for Chinese: CJK ideographs, punctuation, symbols and full-width forms.
///
/// Two ranges look odd because sacreBLEU's source writes five hex digits after a four-digit escape: meant are the
/// supplementary ideographs, matched are U+2001 to U+2A6D and U+2F81 to U+2FA1. Ours must equal its numbers.
const fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{2001}'..='\u{2a6d}' | '\u{2e80}'..='\u{2fdf}' | '\u{2ff0}'..='\u{303f}' | '\u{3100}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}' | '\u{31c0}'..='\u{31ef}' | '\u{3200}'..='\u{33ff}' | '\u{3400}'..='\u{4db5}'
        | '\u{4e00}'..='\u{9fbb}' | '\u{f900}'..='\u{fa2d}' | '\u{fa30}'..='\u{fa6a}' | '\u{fa70}'..='\u{fad9}'
        | '\u{fe10}'..='\u{fe1f}' | '\u{fe30}'..='\u{fe4f}' | '\u{ff00}'..='\u{ffef}')
}
