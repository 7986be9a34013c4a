//! The shape of the source: which module may use which, and what every file owes its reader. One package can tangle
//! unless something fails, so this does.
//!
//! Source is read as tokens (comments and strings taken out), not as text, so that a path in a comment is no use of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A module's rank: it uses only modules of a strictly lower one.
const RANKS: [(&str, u8); 18] = [
    ("named", 0),
    ("locks", 0),
    ("trajectory", 0),
    ("toolcall", 1),
    ("text", 1),
    ("stages", 2),
    ("shaping", 3),
    ("files", 3),
    ("rubric", 4),
    ("score", 5),
    ("lm", 6),
    ("judge", 7),
    ("store", 7),
    ("advantage", 7),
    ("http", 8),
    ("train", 8),
    ("config", 9),
    ("cli", 10),
];

/// No IO, no clock, no environment, no randomness of their own.
const PURE: [&str; 6] = ["trajectory", "toolcall", "text", "stages", "shaping", "advantage"];

#[test]
fn a_module_uses_only_lower_ranks() {
    let mut wrong = Vec::new();
    for file in sources() {
        for used in roots_used(&file.text, &file.modules) {
            let Some(own) = file.modules.first() else {
                // lib.rs declares the modules and uses none; main.rs hands over to the command line.
                if !(file.name == "src/main.rs" && used == "cli") {
                    wrong.push(format!("{} uses {used}", file.name));
                }
                continue;
            };
            match (rank(own), rank(&used)) {
                _ if *own == used => {}
                (Some(user), Some(used)) if used < user => {}
                (user, rank) => wrong.push(format!("{} ({own}, {user:?}) uses {used} ({rank:?})", file.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "a module may use only modules of a strictly lower rank:\n{}", wrong.join("\n"));
}

/// What nobody declares is not compiled, and its tests run nowhere.
#[test]
fn every_file_of_the_tests_is_a_module_of_one_of_them() {
    let files = rust_files("tests");
    let mut lost = Vec::new();
    for file in files.iter().map(Path::new) {
        let is_folder = file.ends_with("mod.rs");
        let module = if is_folder { file.parent().unwrap() } else { file };
        let folder = module.parent().unwrap();
        let is_program = file.ends_with("main.rs") || !is_folder && folder == Path::new("tests");
        let may_declare = |name: &Path| {
            name.parent() == Some(folder)
                && (folder == Path::new("tests") || name.ends_with("mod.rs") || name.ends_with("main.rs"))
        };
        let declaration = format!("mod {};", module.file_stem().unwrap().to_str().unwrap());
        let declares = |name: &String| source(name).lines().any(|line| line.ends_with(&declaration));
        if !is_program && !files.iter().filter(|name| may_declare(Path::new(name))).any(declares) {
            lost.push(file);
        }
    }
    assert!(files.len() > 60 && lost.is_empty(), "no module declares {lost:?}");
}

#[test]
fn every_top_level_module_has_a_rank() {
    let declared = declared_modules();
    assert!(declared.len() > 10, "{declared:?}");
    for module in &declared {
        assert!(rank(module).is_some(), "src/lib.rs declares {module}: give it a rank in this test and in src/lib.rs");
    }
    // A file that no `mod` line names would be compiled by nobody.
    for file in sources() {
        let known = file.modules.first().is_none_or(|module| declared.contains(module));
        assert!(known, "{} belongs to no module of src/lib.rs", file.name);
    }
}

#[test]
fn the_table_in_lib_rs_says_the_same() {
    let table: BTreeMap<String, u8> = source("src/lib.rs").lines().filter_map(table_row).collect();
    let declared = declared_modules();
    let wanted: BTreeMap<String, u8> =
        declared.iter().filter_map(|module| Some((module.clone(), rank(module)?))).collect();
    assert_eq!(table, wanted, "the rank table in src/lib.rs (left) and the modules that it declares (right)");
    let ranks: Vec<u8> = source("src/lib.rs").lines().filter_map(table_row).map(|row| row.1).collect();
    assert!(ranks.is_sorted(), "modules stand in reading order: {ranks:?}");
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    for path in ["src", "tests", "benches", "fuzz/fuzz_targets"].into_iter().flat_map(rust_files) {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "{path} opens with {first:?}; it must open with `//! ` and what it is");
    }
}

#[test]
fn features_switch_modules_and_nothing_inside_functions() {
    let wrong: Vec<String> =
        sources().iter().filter(|file| switches_more_than_modules(&file.text)).map(|file| file.name.clone()).collect();
    assert!(wrong.is_empty(), "`#[cfg(feature = ..)]` stands on `mod` lines and in Cargo.toml only: {wrong:?}");
}

#[test]
fn pure_modules_are_held_to_the_ban_of_clippy_toml() {
    let lib = source("src/lib.rs");
    for module in PURE {
        let marked = format!("#[warn(clippy::disallowed_methods)]\npub mod {module};");
        assert!(lib.contains(&marked), "{module} is pure: src/lib.rs must say\n{marked}");
    }
    let manifest = source("Cargo.toml");
    assert!(manifest.contains("disallowed_methods = \"allow\""), "Cargo.toml must leave the ban to the pure modules");
}

#[test]
fn pure_modules_keep_nothing_between_calls() {
    let pure = |file: &Source| file.modules.first().is_some_and(|module| PURE.contains(&module.as_str()));
    let keep: Vec<String> =
        sources().into_iter().filter(|file| pure(file) && keeps_state(&file.text)).map(|file| file.name).collect();
    // A thread's working space: src/lib.rs names the exception.
    assert_eq!(keep, ["src/text/scratch.rs"], "a pure module holds no global");
}

mod the_reader_of_source {
    use super::*;

    fn used(text: &str) -> Vec<String> {
        roots_used(text, &["a".to_owned(), "b".to_owned()])
    }

    #[test]
    fn finds_paths_and_groups() {
        assert_eq!(used("use crate::x::Y; fn f() { crate::y::z(); }"), ["x", "y"]);
        assert_eq!(used("use crate::{x, y::{Z, W}, z as w};"), ["x", "y", "z"]);
        assert_eq!(used("fn main() { gradus::cli::main() }"), ["cli"]);
        assert_eq!(used("pub(crate) struct S; pub(in crate::x) struct T;"), ["x"]);
    }

    #[test]
    fn follows_super_to_the_root() {
        assert_eq!(used("use super::c; use super::super::x;"), ["x"]);
        assert_eq!(
            used("mod tests { use super::super::c; fn f() { super::super::super::y::z() } } use super::super::{x};"),
            ["y", "x"]
        );
    }

    #[test]
    fn passes_over_comments_strings_and_characters() {
        let text = "// crate::a\n/* crate::b /* crate::c */ crate::d */ //! [`crate::e`]\n\"crate::f\\\"crate::g\" r#\"crate::h\"crate::i\"# \
                    b\"crate::j\" '\"' crate::x 'l: '\\'' crate::y";
        assert_eq!(used(text), ["x", "y"]);
    }

    #[test]
    fn tells_what_is_kept_from_a_table() {
        assert!(keeps_state("thread_local! { static A: Cell<u8> = const { Cell::new(0) }; }"));
        assert!(keeps_state("fn f() { static CALLS: AtomicU64 = AtomicU64::new(0); }"));
        assert!(keeps_state("pub(crate) static mut A: u8 = 0;"));
        assert!(keeps_state("static A: std::sync::LazyLock<Regex> = LazyLock::new(f);"));
        assert!(!keeps_state("static A: [u8; 2] = [0, 1]; fn f(a: &'static mut u8, b: &'static str, c: Cell<u8>) {}"));
        assert!(!keeps_state("// thread_local!\nstatic A: &[&str] = &[\"static B: Mutex<u8>\"];"));
    }

    #[test]
    fn sees_a_feature_inside_a_function() {
        assert!(!switches_more_than_modules(
            "#[cfg(feature = \"cuda\")]\nmod kernels; #[cfg(feature = \"a\")] pub(crate) mod b {}"
        ));
        assert!(!switches_more_than_modules("#[cfg(test)] fn f() {}"));
        assert!(switches_more_than_modules("fn f() { #[cfg(feature = \"cuda\")] g(); }"));
        assert!(switches_more_than_modules("fn f() { if cfg!(feature = \"cuda\") {} }"));
        assert!(switches_more_than_modules("#[cfg(not(feature = \"cuda\"))] use x;"));
        assert!(switches_more_than_modules("#[cfg_attr(feature = \"x\", y)] struct S;"));
    }
}

struct Source {
    name: String,
    text: String,
    /// The path of the module below the crate; empty for lib.rs and main.rs.
    modules: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

fn rank(module: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank)
}

/// All `.rs` files under a directory, as paths from the root; none where there is no directory.
fn rust_files(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(directory)];
    while let Some(directory) = open.pop() {
        let Ok(entries) = std::fs::read_dir(root().join(&directory)) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let read = |name: String| {
        let path = name.trim_start_matches("src/").trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        let modules =
            if matches!(path, "lib" | "main") { Vec::new() } else { path.split('/').map(str::to_owned).collect() };
        Source { text: source(&name), name, modules }
    };
    rust_files("src").into_iter().map(read).collect()
}

/// The modules that lib.rs declares.
fn declared_modules() -> Vec<String> {
    let lib = source("src/lib.rs");
    let tokens = tokens(&lib);
    let declared = tokens.windows(3).filter(|three| three[0] == "mod" && three[2] == ";");
    declared.map(|three| three[1].to_owned()).collect()
}

/// Module and rank of a line such as ``//! | 7 | [`store`] | .. |``.
fn table_row(line: &str) -> Option<(String, u8)> {
    let mut cells = line.strip_prefix("//! |")?.split('|').map(str::trim);
    let rank = cells.next()?.parse().ok()?;
    let module = cells.next()?.strip_prefix("[`")?.strip_suffix("`]")?;
    Some((module.to_owned(), rank))
}

/// Words, `::` and single signs of a Rust source, without comments, strings and characters.
fn tokens(text: &str) -> Vec<&str> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = string(rest) {
            length
        } else if first == '\'' {
            character_or_lifetime(rest)
        } else {
            let length = match rest.find(|c| !word(c)).unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                length => length,
            };
            tokens.push(&rest[..length]);
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// Length of the block comment at the start; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let here = &text[at..];
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// Length of the string at the start, if one is there: plain, byte, C, or raw.
fn string(text: &str) -> Option<usize> {
    let unprefixed = text.trim_start_matches(['b', 'c', 'r']);
    let prefix = &text[..text.len() - unprefixed.len()];
    if prefix.len() > 2 {
        return None;
    }
    let quoted = unprefixed.trim_start_matches('#');
    let hashes = unprefixed.len() - quoted.len();
    let raw = prefix.ends_with('r');
    let body = quoted.strip_prefix('"').filter(|_| raw || hashes == 0)?;
    let start = text.len() - body.len();
    if raw {
        let closer = format!("\"{}", "#".repeat(hashes));
        return Some(body.find(&closer).map_or(text.len(), |at| start + at + closer.len()));
    }
    let mut escaped = false;
    let close = body.char_indices().find(|(_, c)| {
        let closes = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        closes
    });
    Some(close.map_or(text.len(), |(at, _)| start + at + 1))
}

/// Length of what a `'` starts: a character to its closing quote, or the sign of a lifetime.
fn character_or_lifetime(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((escaped, _))) => {
            let after = escaped + text[escaped..].chars().next().map_or(0, char::len_utf8);
            text[after..].find('\'').map_or(text.len(), |at| after + at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The top-level modules that a file reaches through `crate::`, `gradus::`, or `super::` up to the root, each once.
fn roots_used(text: &str, modules: &[String]) -> Vec<String> {
    let tokens = tokens(text);
    let mut used: Vec<String> = Vec::new();
    // Depth of the braces at which inline modules opened: in one, `super` starts a level lower.
    let (mut braces, mut inline): (usize, Vec<usize>) = (0, Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at] {
            "{" => {
                braces += 1;
                if at >= 2 && tokens[at - 2] == "mod" {
                    inline.push(braces);
                }
            }
            "}" => {
                if inline.last() == Some(&braces) {
                    inline.pop();
                }
                braces = braces.saturating_sub(1);
            }
            "crate" | "gradus" if tokens.get(at + 1) == Some(&"::") => names_at(&tokens, at + 2, &mut used),
            "super" => {
                let mut levels = 0;
                while tokens.get(at) == Some(&"super") && tokens.get(at + 1) == Some(&"::") {
                    (levels, at) = (levels + 1, at + 2);
                }
                if levels == 0 {
                    at += 1;
                } else if levels >= modules.len() + inline.len() {
                    names_at(&tokens, at, &mut used);
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    used
}

/// The name at a place, or the first names of the group there.
fn names_at(tokens: &[&str], at: usize, used: &mut Vec<String>) {
    let mut add = |name: &str| {
        if !used.iter().any(|known| known == name) {
            used.push(name.to_owned());
        }
    };
    if tokens.get(at) != Some(&"{") {
        tokens.get(at).into_iter().for_each(|name| add(name));
        return;
    }
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            name if depth == 1 && matches!(tokens[index - 1], "{" | ",") => add(name),
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// Whether something outlives a call and can change: a `thread_local!`, a `static mut`, or a static that is changed inside.
fn keeps_state(text: &str) -> bool {
    const CHANGED_INSIDE: [&str; 8] =
        ["Cell", "RefCell", "OnceCell", "LazyCell", "OnceLock", "LazyLock", "Mutex", "RwLock"];
    let changes = |word: &str| CHANGED_INSIDE.contains(&word) || word.starts_with("Atomic");
    let tokens = tokens(text);
    (0..tokens.len()).any(|at| match tokens[at..] {
        ["thread_local", "!", ..] | ["static", "mut", _, ":", ..] => true,
        ["static", _, ":", ref rest @ ..] => rest.iter().take_while(|token| **token != "=").any(|word| changes(word)),
        _ => false,
    })
}

/// Whether a feature is asked for anywhere but on a `mod` line.
fn switches_more_than_modules(text: &str) -> bool {
    let tokens = tokens(text);
    let asks = |at: usize| tokens[at] == "feature" && tokens.get(at + 1) == Some(&"=");
    (0..tokens.len()).filter(|at| asks(*at)).any(|at| {
        let plain = at >= 4 && tokens[at - 4..at] == ["#", "[", "cfg", "("];
        let negated = at >= 6 && tokens[at - 6..at] == ["#", "[", "cfg", "(", "not", "("];
        let after = tokens.get(at + 2..).unwrap_or_default();
        // The string itself is no token: `) ] [pub [( .. )]] mod`, with one more parenthesis behind a `not`, and the
        // module's path where the other module has its name.
        let closed = if negated { &[")", ")", "]"][..] } else { &[")", "]"][..] };
        let item = after.strip_prefix(closed).unwrap_or_default();
        let item = item.strip_prefix(&["#", "[", "path", "=", "]"][..]).unwrap_or(item);
        let item = item.strip_prefix(&["pub"][..]).unwrap_or(item);
        let item = match item.first() {
            Some(&"(") => item.iter().position(|token| *token == ")").map_or(item, |end| &item[end + 1..]),
            _ => item,
        };
        !((plain || negated) && item.first() == Some(&"mod"))
    })
}
