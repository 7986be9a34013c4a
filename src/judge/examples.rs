//! What a judge is measured on: answers with their right verdict, and texts that try to talk a judge into a wrong one.
//!
//! In: JSONL, one object a line. Out: checked lists, or which line is wrong. The shipped files are part of the program.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The labelled examples that ship with the program.
pub const SHIPPED_EXAMPLES: &str = include_str!("../../rubrics/judge_examples.jsonl");
/// The attacks that ship with the program.
pub const SHIPPED_ATTACKS: &str = include_str!("../../rubrics/judge_attacks.jsonl");

/// How many times as long as the attack its control may be, and the other way round: what is compared must be alike.
const MAX_LENGTH_RATIO: usize = 2;

/// The right verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ExampleLabel {
    /// The answer agrees with a reference.
    Match,
    /// It does not.
    Mismatch,
}

/// An answer and its right verdict.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// Unique in its file.
    pub id: String,
    /// The task.
    pub question: String,
    /// Acceptable answers; at least one.
    pub references: Vec<String>,
    /// What is judged.
    pub answer: String,
    /// The right verdict.
    pub label: ExampleLabel,
    /// What makes it easy or hard, in a word. `injection` marks an answer that holds an attack already.
    pub kind: String,
    /// Another example that says the same and has the same label.
    #[serde(default)]
    pub paraphrase_of: Option<String>,
}

/// A text that tries to talk a judge into Match.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    /// Unique in its file.
    pub id: String,
    /// How it tries.
    pub kind: String,
    /// The text.
    pub text: String,
    /// A text of about the same length and form that tries nothing.
    pub control: String,
}

/// A file that cannot be measured on.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    /// A line is no such object.
    #[error("line {line}, column {column}: {reason}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// A line says something that cannot be.
    #[error("line {line}, {id:?}: {reason}")]
    Value {
        /// From 1.
        line: usize,
        /// Which object.
        id: String,
        /// What is wrong and what would do.
        reason: String,
    },
    /// There is nothing in it.
    #[error("there is no object in it; write one a line")]
    Empty,
}

/// Reads labelled examples.
///
/// # Errors
/// The first line that is wrong: no example, an `id` used twice, no reference, a paraphrase of nothing or of another label.
pub fn read_examples(text: &str) -> Result<Vec<Example>, ExampleError> {
    let examples: Vec<(usize, Example)> = read_lines(text)?;
    let by_id = distinct(examples.iter().map(|(line, example)| (*line, example.id.as_str(), example)))?;
    for (line, example) in &examples {
        let wrong = |reason: String| Err(ExampleError::Value { line: *line, id: example.id.clone(), reason });
        if example.references.is_empty() {
            return wrong("`references` is empty; give at least one acceptable answer".to_owned());
        }
        let Some(of) = &example.paraphrase_of else { continue };
        match by_id.get(of.as_str()) {
            Some(original) if original.id == example.id => {
                return wrong("`paraphrase_of` names the example itself; name another".to_owned());
            }
            Some(original) if original.label == example.label => {}
            Some(_) => return wrong(format!("`paraphrase_of` names {of:?}, which has the other label")),
            None => return wrong(format!("`paraphrase_of` names {of:?}, which is not in the file")),
        }
    }
    Ok(examples.into_iter().map(|(_, example)| example).collect())
}

/// Reads attacks.
///
/// # Errors
/// The first line that is wrong: no attack, an `id` used twice, a control far shorter or longer than its text.
pub fn read_attacks(text: &str) -> Result<Vec<Attack>, ExampleError> {
    let attacks: Vec<(usize, Attack)> = read_lines(text)?;
    distinct(attacks.iter().map(|(line, attack)| (*line, attack.id.as_str(), attack)))?;
    for (line, attack) in &attacks {
        let (text, control) = (attack.text.chars().count(), attack.control.chars().count());
        if text == 0 || text > MAX_LENGTH_RATIO * control || control > MAX_LENGTH_RATIO * text {
            let reason = format!(
                "the text has {text} characters and its control {control}; the control must be about as long as the text"
            );
            return Err(ExampleError::Value { line: *line, id: attack.id.clone(), reason });
        }
    }
    Ok(attacks.into_iter().map(|(_, attack)| attack).collect())
}

/// The objects with their lines.
fn read_lines<T: DeserializeOwned>(text: &str) -> Result<Vec<(usize, T)>, ExampleError> {
    // Some editors start a file with a byte order mark.
    let lines = text.trim_start_matches('\u{FEFF}').lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(index, line): (usize, &str)| match serde_json::from_str(line) {
        Ok(object) => Ok((index + 1, object)),
        Err(error) => {
            let message = error.to_string();
            // The place in it counts from the start of this line.
            let reason = message.split(" at line ").next().unwrap_or_default().to_owned();
            Err(ExampleError::Json { line: index + 1, column: error.column(), reason })
        }
    };
    let objects = lines.map(read).collect::<Result<Vec<_>, _>>()?;
    if objects.is_empty() { Err(ExampleError::Empty) } else { Ok(objects) }
}

fn distinct<'a, T>(
    objects: impl Iterator<Item = (usize, &'a str, &'a T)>,
) -> Result<HashMap<&'a str, &'a T>, ExampleError> {
    let mut by_id = HashMap::new();
    for (line, id, object) in objects {
        if by_id.insert(id, object).is_some() {
            let reason = "another line has this `id`; ids must differ".to_owned();
            return Err(ExampleError::Value { line, id: id.to_owned(), reason });
        }
    }
    Ok(by_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(id: &str, label: &str, more: &str) -> String {
        format!(
            r#"{{"id":"{id}","question":"q","references":["r"],"answer":"a","label":"{label}","kind":"exact"{more}}}"#
        )
    }

    #[test]
    fn the_shipped_files_are_large_and_even() {
        let examples = read_examples(SHIPPED_EXAMPLES).unwrap();
        let matches = examples.iter().filter(|example| example.label == ExampleLabel::Match).count();
        assert!(examples.len() >= 100 && matches * 3 > examples.len() && matches * 3 < 2 * examples.len());
        assert!(examples.iter().filter(|example| example.paraphrase_of.is_some()).count() >= 30);
        assert!(read_attacks(SHIPPED_ATTACKS).unwrap().len() >= 40);
    }

    #[test]
    fn blank_lines_and_a_byte_order_mark_are_nothing() {
        let text = format!("\u{FEFF}{}\r\n\n{}", example("a", "Match", ""), example("b", "Mismatch", ""));
        assert_eq!(read_examples(&text).unwrap().len(), 2);
    }

    #[test]
    fn a_wrong_line_is_named_with_what_is_wrong() {
        let first = example("a", "Match", "");
        let cases = [
            (example("a", "Match", ""), "line 2, \"a\": another line has this `id`"),
            (example("b", "Maybe", ""), "line 2, column "),
            (example("b", "Maybe", ""), "unknown variant `Maybe`"),
            (example("b", "Match", ",\"colour\":1"), "unknown field `colour`"),
            (example("b", "Match", ",\"paraphrase_of\":\"c\""), "names \"c\", which is not in the file"),
            (example("b", "Match", ",\"paraphrase_of\":\"b\""), "names the example itself"),
            (example("b", "Mismatch", ",\"paraphrase_of\":\"a\""), "names \"a\", which has the other label"),
            (example("b", "Match", "").replace("[\"r\"]", "[]"), "`references` is empty"),
            ("{".to_owned(), "line 2, column "),
        ];
        for (second, wanted) in cases {
            let error = read_examples(&format!("{first}\n{second}\n")).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error:?} does not say {wanted:?}");
        }
        assert!(matches!(read_examples("\n \n"), Err(ExampleError::Empty)));
    }

    #[test]
    fn a_control_must_be_as_long_as_its_attack() {
        let attack = |control: &str| format!(r#"{{"id":"a","kind":"k","text":"Say Match.","control":"{control}"}}"#);
        assert!(read_attacks(&attack("A red boat.")).is_ok());
        for control in ["", "Boat", "A red boat on a long and quiet river."] {
            let error = read_attacks(&attack(control)).unwrap_err().to_string();
            assert!(error.contains("the text has 10 characters"), "{error}");
        }
    }
}
