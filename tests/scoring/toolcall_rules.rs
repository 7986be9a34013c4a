//! The parsing rules as cases: every file of `tests/cases/toolcalls` is run and all its failures are printed at once.
//! In: the TOML cases, written from the rules alone; out: one test per file, and one that every rule has a case.
//! Knows the library through the `library` module below and nothing of how a format is parsed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

/// The adapter: the only lines that know the library's API.
mod library {
    use anyhow::Context as _;
    use gradus::toolcall::answer::{AnswerFrom, extract, search_r1_format};
    use gradus::toolcall::schema::{Check, SchemaCache};
    use gradus::toolcall::{Options, Parsed, parse, parse_native};
    use gradus::trajectory::{ParseMode, ToolFormat};
    use serde_json::json;

    use super::{Input, Schema, Seen, SeenCall};

    const CACHE_BYTES: u64 = 1 << 20;
    const MAX_CALLS: usize = 64;

    pub(super) fn observe(input: &Input) -> anyhow::Result<Seen> {
        let format: ToolFormat = input.format.parse().context("key `format`")?;
        let mode = if input.tolerant { ParseMode::Tolerant } else { ParseMode::Strict };
        let max_calls = input.max_calls.unwrap_or(MAX_CALLS);
        let options = Options { format, mode, max_calls, thinking: input.thinking, ..Options::default() };
        let tools = SchemaCache::new(CACHE_BYTES).tools(&input.tools, false);
        let parsed = match &input.native {
            Some(native) => parse_native(native, &options, &*tools),
            None => parse(&input.text, &options, &*tools),
        };
        let mut seen = Seen { detected: parsed.format.map(ToolFormat::as_str), ok: parsed.ok(), ..Seen::default() };
        for attempt in &parsed.attempts {
            match &attempt.result {
                Err(malformed) => seen.errors.push(malformed.code.as_str().to_owned()),
                Ok(call) => {
                    let tool = tools.get(&call.name);
                    seen.calls.push(SeenCall {
                        call: json!({"name": call.name, "arguments": call.arguments}),
                        unknown: tool.is_none(),
                        repaired: !attempt.repairs.is_empty(),
                        schema: tool.map_or(Schema::Invalid, |tool| match tool.check(&call.arguments) {
                            Check::Valid => Schema::Valid,
                            Check::Invalid(..) => Schema::Invalid,
                            Check::Problem(..) => Schema::Problem,
                        }),
                    });
                }
            }
        }
        if input.native.is_none() {
            check_spans(&input.text, &parsed, &mut seen);
        }
        if let Some(from) = &input.answer_from {
            let from = answer_from(from)?;
            let found = match from {
                AnswerFrom::LastMessage => extract(&input.text, parsed.format, &parsed.hidden_with_calls(), from),
                _ => extract(&input.text, parsed.format, &parsed.hidden(), from),
            };
            seen.answer = found.map(|(answer, range)| {
                if input.text.get(range.clone()).is_none() {
                    seen.bad_spans.push(format!("answer {range:?}"));
                }
                answer.to_string()
            });
        }
        seen.search_r1_ok = search_r1_format(&input.text);
        Ok(seen)
    }

    /// Spans and reasoning ranges lie in the text, on character boundaries; attempts stand in text order.
    fn check_spans(text: &str, parsed: &Parsed, seen: &mut Seen) {
        for range in parsed.attempts.iter().map(|attempt| &attempt.span).chain(parsed.hidden().iter()) {
            if text.get(range.clone()).is_none() {
                seen.bad_spans.push(format!("{range:?} of {} bytes", text.len()));
            }
        }
        if !parsed.attempts.is_sorted_by_key(|attempt| attempt.span.start) {
            seen.bad_spans.push("attempts are not in text order".to_owned());
        }
    }

    fn answer_from(name: &str) -> anyhow::Result<AnswerFrom> {
        Ok(match name {
            "answer_tag" => AnswerFrom::AnswerTag,
            "boxed" => AnswerFrom::Boxed,
            "hash4" => AnswerFrom::Hash4,
            "final_answer" => AnswerFrom::FinalAnswer,
            "harmony_final" => AnswerFrom::HarmonyFinal,
            "last_message" => AnswerFrom::LastMessage,
            other => anyhow::bail!("unknown answer_from {other:?}"),
        })
    }
}

/// What has no rule of its own and needs a case nevertheless.
const MODES: [&str; 2] = ["auto", "tolerant"];

/// The rules that `docs/toolcalls.md` states: the bold word that begins each item of its lists.
fn rules() -> anyhow::Result<BTreeSet<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/toolcalls.md");
    let text = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let id = |line: &str| Some(line.strip_prefix("- **")?.split_once("** ")?.0.to_owned());
    Ok(text.lines().filter_map(id).collect())
}

/// What a case gives the library, defaults filled in.
struct Input {
    format: String,
    tolerant: bool,
    text: String,
    native: Option<String>,
    tools: String,
    max_calls: Option<usize>,
    thinking: bool,
    answer_from: Option<String>,
}

/// What the library made of it.
#[derive(Debug, Default)]
struct Seen {
    detected: Option<&'static str>,
    ok: bool,
    calls: Vec<SeenCall>,
    errors: Vec<String>,
    answer: Option<String>,
    search_r1_ok: bool,
    bad_spans: Vec<String>,
}

#[derive(Debug)]
struct SeenCall {
    call: Value,
    unknown: bool,
    schema: Schema,
    repaired: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Schema {
    Valid,
    Invalid,
    Problem,
}

/// A case file: defaults, then its cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    format: String,
    tools: Option<String>,
    case: Vec<Case>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Strict,
    Tolerant,
}

/// One case. Expectations that are left out are not checked, except that `calls` and `errors` default to none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    rule: String,
    name: String,
    /// Why the expectation follows from the rule, where that is not plain.
    why: Option<String>,
    format: Option<String>,
    #[serde(default)]
    mode: Mode,
    text: Option<String>,
    /// The text as a JSON string, for characters that TOML cannot hold literally.
    text_json: Option<String>,
    native: Option<String>,
    tools: Option<String>,
    #[serde(default)]
    fill: Vec<Fill>,
    max_calls: Option<usize>,
    /// Whether the prompt opened reasoning.
    #[serde(default)]
    thinking: bool,
    #[serde(default)]
    calls: Vec<String>,
    /// Codes of the malformed attempts: `a|b` is either, `*` any, a leading `?` may be absent.
    #[serde(default)]
    errors: Vec<String>,
    parse_ok: Option<bool>,
    unknown: Option<Vec<bool>>,
    schema_ok: Option<Vec<bool>>,
    #[serde(default)]
    schema_problem: bool,
    repaired: Option<Vec<bool>>,
    detected: Option<String>,
    answer_from: Option<String>,
    answer: Option<String>,
    #[serde(default)]
    answer_none: bool,
    search_r1_ok: Option<bool>,
}

/// Writes `with` `times` times wherever `mark` stands: large inputs from small files.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fill {
    mark: String,
    with: String,
    times: usize,
}

impl Case {
    fn input(&self, file: &CaseFile) -> anyhow::Result<Input> {
        let filled = |text: &str| {
            self.fill.iter().fold(text.to_owned(), |text, fill| text.replace(&fill.mark, &fill.with.repeat(fill.times)))
        };
        let text = match (&self.text, &self.text_json, &self.native) {
            (Some(text), None, None) => filled(text),
            (None, Some(json), None) => filled(&serde_json::from_str::<String>(json).context("key `text_json`")?),
            (None, None, Some(_)) => String::new(),
            _ => anyhow::bail!("give exactly one of `text`, `text_json` and `native`"),
        };
        Ok(Input {
            format: self.format.as_ref().unwrap_or(&file.format).clone(),
            tolerant: self.mode == Mode::Tolerant,
            text,
            native: self.native.as_deref().map(filled),
            tools: self.tools.as_ref().or(file.tools.as_ref()).context("key `tools` is missing")?.clone(),
            max_calls: self.max_calls,
            thinking: self.thinking,
            answer_from: self.answer_from.clone(),
        })
    }

    /// The differences between what the rules ask for and what the library did; empty when they agree.
    fn differences(&self, file: &CaseFile) -> anyhow::Result<Vec<String>> {
        let seen = library::observe(&self.input(file)?)?;
        let mut found = Differences::default();
        found.compare("spans", &[] as &[String], seen.bad_spans.as_slice());
        if let Some(ok) = self.search_r1_ok {
            found.compare("search_r1_ok", &ok, &seen.search_r1_ok);
            return Ok(found.0);
        }
        if self.answer_from.is_some() {
            ensure!(self.answer.is_some() != self.answer_none, "give one of `answer` and `answer_none`");
            found.compare("answer", &self.answer, &seen.answer);
            return Ok(found.0);
        }
        let calls = self.calls.iter().map(|call| expected_call(call)).collect::<anyhow::Result<Vec<_>>>()?;
        let seen_calls: Vec<&Value> = seen.calls.iter().map(|call| &call.call).collect();
        if !calls.iter().eq(seen_calls.iter().copied()) {
            found.add("calls", &format_args!("{}", json!(calls)), &format_args!("{}", json!(seen_calls)));
        }
        if !codes_match(&self.errors, &seen.errors) {
            found.add("errors", &self.errors, &seen.errors);
        }
        if let Some(ok) = self.parse_ok {
            found.compare("parse_ok", &ok, &seen.ok);
        }
        if let Some(detected) = &self.detected {
            found.compare("detected", &detected.as_str(), &seen.detected.unwrap_or("none"));
        }
        found.compare_each("unknown", self.unknown.as_deref(), &seen, |call| call.unknown);
        found.compare_each("repaired", self.repaired.as_deref(), &seen, |call| call.repaired);
        found.compare_each("schema_ok", self.schema_ok.as_deref(), &seen, |call| call.schema == Schema::Valid);
        for call in &seen.calls {
            found.compare("schema_problem", &self.schema_problem, &(call.schema == Schema::Problem));
        }
        Ok(found.0)
    }
}

/// Lines "key: expected .., got ..".
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn add(&mut self, key: &str, expected: &(impl std::fmt::Debug + ?Sized), got: &(impl std::fmt::Debug + ?Sized)) {
        self.0.push(format!("{key}: expected {expected:?}, got {got:?}"));
    }

    fn compare<T: PartialEq + std::fmt::Debug + ?Sized>(&mut self, key: &str, expected: &T, got: &T) {
        if expected != got {
            self.add(key, expected, got);
        }
    }

    fn compare_each(&mut self, key: &str, expected: Option<&[bool]>, seen: &Seen, of: impl Fn(&SeenCall) -> bool) {
        if let Some(expected) = expected {
            let got: Vec<bool> = seen.calls.iter().map(of).collect();
            self.compare(key, expected, got.as_slice());
        }
    }
}

fn expected_call(call: &str) -> anyhow::Result<Value> {
    serde_json::from_str(call).with_context(|| format!("expected call is no JSON: {call}"))
}

/// Whether the codes fit the patterns in order; a pattern with a leading `?` may match nothing.
fn codes_match(patterns: &[String], codes: &[String]) -> bool {
    let Some((pattern, patterns)) = patterns.split_first() else {
        return codes.is_empty();
    };
    let optional = pattern.strip_prefix('?');
    let either = optional.unwrap_or(pattern);
    let first_fits = codes.split_first().is_some_and(|(code, codes)| {
        either.split('|').any(|choice| choice == "*" || choice == code) && codes_match(patterns, codes)
    });
    first_fits || (optional.is_some() && codes_match(patterns, codes))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/toolcalls")
}

fn load(path: &Path) -> anyhow::Result<CaseFile> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is no case file", path.display()))
}

fn run(name: &str) -> anyhow::Result<()> {
    let file = load(&folder().join(name).with_extension("toml"))?;
    let mut report = String::new();
    let mut failed = 0;
    for case in &file.case {
        let differences = case.differences(&file).with_context(|| format!("case {}", case.name))?;
        if !differences.is_empty() {
            failed += 1;
            let why = case.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            writeln!(report, "\n{} [{}]{why}", case.name, case.rule)?;
            for difference in differences {
                writeln!(report, "    {difference}")?;
            }
        }
    }
    assert_eq!(failed, 0, "{failed} of {} cases of {name}.toml fail:\n{report}", file.case.len());
    Ok(())
}

/// One test per case file, and the list of them.
macro_rules! case_files {
    ($($name:ident),* $(,)?) => {
        const FILES: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() -> anyhow::Result<()> {
            run(stringify!($name))
        })*
    };
}

case_files![
    general,
    reasoning,
    json,
    closers,
    auto,
    qwen3_coder,
    glm45,
    llama3_json,
    pythonic,
    mistral,
    deepseek,
    kimi_k2,
    harmony,
    granite_phi,
    internlm_functionary,
    react,
    search_r1,
    openai,
    schema,
    answers,
    tolerant,
    hostile,
    alternatives,
];

#[test]
fn every_case_file_is_run() -> anyhow::Result<()> {
    let mut on_disk = BTreeSet::new();
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        on_disk.insert(path.file_stem().context("a file without a name")?.to_string_lossy().into_owned());
    }
    let listed: BTreeSet<String> = FILES.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(on_disk, listed);
    Ok(())
}

#[test]
fn every_rule_has_a_case_named_after_it() -> anyhow::Result<()> {
    let mut rules = BTreeSet::new();
    let mut names = BTreeSet::new();
    for name in FILES {
        for case in load(&folder().join(name).with_extension("toml"))?.case {
            let prefix = format!("{}_", case.rule.to_lowercase());
            ensure!(case.name.starts_with(&prefix), "case {} is to start with {prefix}", case.name);
            ensure!(names.insert(case.name.clone()), "case {} stands twice", case.name);
            rules.insert(case.rule);
        }
    }
    let mut expected = self::rules()?;
    ensure!(expected.len() > 80, "the page has {} rules only", expected.len());
    expected.extend(MODES.map(str::to_owned));
    assert_eq!(expected, rules, "rules of the page against rules with cases");
    Ok(())
}
