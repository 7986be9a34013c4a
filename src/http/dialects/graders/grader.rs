//! The graders that are known, and what each makes of a sample. In: a grader's JSON, a sample and an item. Out: a score and
//! those of its parts. Pure: nothing is run and nobody is asked.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::formula::{FormulaError, evaluate};
use super::template::{FillError, Variables, fill};
use crate::text::{Bleu, LaBleu, exact_match, f1};

/// A grader.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Grader {
    /// Compares two texts.
    StringCheck { name: String, input: String, reference: String, operation: Operation },
    /// Measures how near two texts are.
    TextSimilarity { name: String, input: String, reference: String, evaluation_metric: Metric },
    /// Several graders, put together by a formula.
    Multi { name: String, graders: BTreeMap<String, Part>, calculate_output: String },
}

/// A grader inside another one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub(super) struct Part(Grader);

/// How two texts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Operation {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// The input has the reference in it.
    Like,
    /// The same, whatever the case.
    Ilike,
}

/// How near two texts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Metric {
    /// sacreBLEU's sentence score.
    Bleu,
    /// Length-aware BLEU, not of `OpenAI`.
    LaBleu,
    /// `SQuAD` token F1, not of `OpenAI`.
    F1,
    /// `SQuAD` exact match, not of `OpenAI`.
    ExactMatch,
}

/// Why a grader has no score.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum GradeError {
    /// A template cannot be filled in.
    #[error(transparent)]
    Template(#[from] FillError),
    /// The formula is none.
    #[error(transparent)]
    Formula(#[from] FormulaError),
}

/// Why a JSON value is no grader that can be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    /// It runs code.
    #[error("python graders run code and are refused; express it with string_check, text_similarity or multi")]
    Python,
    /// It asks a model.
    #[error("{0} graders ask a model; use a rubric with a `judge` stage by POST /reward instead")]
    Model(String),
    /// It has the wrong shape.
    #[error("{0}; known types: string_check, text_similarity (bleu, la_bleu, f1, exact_match), multi")]
    Shape(String),
}

/// A score and what it is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grade {
    /// The score.
    pub(super) score: f64,
    /// Scores of the parts, by name.
    pub(super) parts: BTreeMap<String, f64>,
}

impl Grader {
    /// Reads a grader.
    pub(super) fn read(json: &Value) -> Result<Self, Refusal> {
        refused(json)?;
        serde_json::from_value(json.clone()).map_err(|error| Refusal::Shape(error.to_string()))
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        let (Self::StringCheck { name, .. } | Self::TextSimilarity { name, .. } | Self::Multi { name, .. }) = self;
        name
    }

    /// Its type, as in JSON.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::StringCheck { .. } => "string_check",
            Self::TextSimilarity { .. } => "text_similarity",
            Self::Multi { .. } => "multi",
        }
    }

    /// Scores a sample.
    pub(super) fn grade(&self, variables: &Variables<'_>) -> Result<Grade, GradeError> {
        let plain = |score: f64| Grade { score, parts: BTreeMap::new() };
        match self {
            Self::StringCheck { input, reference, operation, .. } => {
                let (input, reference) = (fill(input, variables)?, fill(reference, variables)?);
                Ok(plain(f64::from(u8::from(operation.holds(&input, &reference)))))
            }
            Self::TextSimilarity { input, reference, evaluation_metric, .. } => {
                let (input, reference) = (fill(input, variables)?, fill(reference, variables)?);
                Ok(plain(evaluation_metric.of(&input, &reference)))
            }
            Self::Multi { graders, calculate_output, .. } => {
                let grade = |(name, part): (&String, &Part)| Ok((name.clone(), part.0.grade(variables)?.score));
                let parts: BTreeMap<String, f64> = graders.iter().map(grade).collect::<Result<_, GradeError>>()?;
                let score = evaluate(calculate_output, &|name| parts.get(name).copied())?;
                Ok(Grade { score, parts })
            }
        }
    }
}

/// Refuses what this server does not run, wherever it stands.
fn refused(json: &Value) -> Result<(), Refusal> {
    match json.get("type").and_then(Value::as_str) {
        Some("python") => Err(Refusal::Python),
        Some(kind @ ("score_model" | "label_model" | "endpoint")) => Err(Refusal::Model(kind.to_owned())),
        _ => {
            json.get("graders").and_then(Value::as_object).into_iter().flatten().try_for_each(|(_, part)| refused(part))
        }
    }
}

impl Operation {
    fn holds(self, input: &str, reference: &str) -> bool {
        match self {
            Self::Eq => input == reference,
            Self::Ne => input != reference,
            Self::Like => input.contains(reference),
            Self::Ilike => input.to_lowercase().contains(&reference.to_lowercase()),
        }
    }
}

impl Metric {
    fn of(self, input: &str, reference: &str) -> f64 {
        let references = [reference];
        match self {
            Self::Bleu => Bleu::default().sentence(input, &references),
            Self::LaBleu => LaBleu::default().similarity(input, &references),
            Self::F1 => f1(input, &references),
            Self::ExactMatch => f64::from(u8::from(exact_match(input, &references))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn grade(grader: &Value, sample: &str) -> Result<Grade, GradeError> {
        let item = json!({"ref": "Paris"});
        Grader::read(grader).unwrap().grade(&Variables::new(sample, &item))
    }

    fn check(operation: &str) -> Value {
        json!({"type": "string_check", "name": "c", "input": "{{sample.output_text}}", "reference": "{{item.ref}}", "operation": operation})
    }

    #[test]
    fn strings_are_compared() {
        let score = |operation: &str, sample: &str| grade(&check(operation), sample).unwrap().score;
        assert_eq!((score("eq", "Paris"), score("eq", "paris")), (1.0, 0.0));
        assert_eq!((score("ne", "Paris"), score("ne", "Lyon")), (0.0, 1.0));
        assert_eq!((score("like", "In Paris."), score("like", "in paris.")), (1.0, 0.0));
        assert_eq!(score("ilike", "in paris."), 1.0);
    }

    #[test]
    fn several_are_put_together() {
        let multi = json!({"type": "multi", "name": "m", "graders": {"a": check("eq"), "b": check("like")}, "calculate_output": "0.25 * a + 0.5 * b"});
        let found = grade(&multi, "In Paris.").unwrap();
        assert_eq!((found.score, found.parts["a"], found.parts["b"]), (0.5, 0.0, 1.0));
    }

    #[test]
    fn what_runs_code_or_asks_a_model_is_refused_wherever_it_stands() {
        let python = json!({"type": "python", "name": "p", "source": "def grade(sample, item): ..."});
        assert_eq!(Grader::read(&python), Err(Refusal::Python));
        let multi = json!({"type": "multi", "name": "m", "graders": {"p": python}, "calculate_output": "p"});
        assert_eq!(Grader::read(&multi), Err(Refusal::Python));
        assert_eq!(Grader::read(&json!({"type": "score_model"})), Err(Refusal::Model("score_model".to_owned())));
        assert!(matches!(Grader::read(&json!({"type": "haruspex"})), Err(Refusal::Shape(_))));
    }
}
