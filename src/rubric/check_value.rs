//! What checks of a rubric file share: single values and options. In: a value and where it stands. Out: the value, or an
//! error at that place. Knows no stage.

use super::error::RubricError;
use super::file::StageFile;

/// A value, or what is wrong with a rubric and where.
pub(super) type Result<T> = std::result::Result<T, RubricError>;

/// A word out of a closed list, as what it names.
pub(super) fn word<T: Copy>(value: &str, pointer: &str, choices: &[T], name: fn(T) -> &'static str) -> Result<T> {
    choices.iter().copied().find(|choice| name(*choice) == value).ok_or_else(|| {
        let choices: Vec<&str> = choices.iter().copied().map(name).collect();
        RubricError::at(pointer, format!("{value:?} is not known; one of: {}", choices.join(", ")))
    })
}

/// A number from 0 to 1.
pub(super) fn unit(value: f64, pointer: &str) -> Result<f64> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(RubricError::at(pointer, format!("{} is out of range; it must be from 0 to 1", shown(value))))
}

/// A number as somebody would write it, also one of three hundred digits.
pub(super) fn shown(value: f64) -> String {
    let text = format!("{value:?}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// Refuses options that the kind does not have: a silently ignored option is a wrong rubric.
pub(super) fn only(options: &StageFile, allowed: &[&str], kind: &str, at: &str) -> Result<()> {
    let Some(extra) = options.given().into_iter().find(|option| !allowed.contains(&option.as_str())) else {
        return Ok(());
    };
    let has = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
    Err(RubricError::at(format!("{at}/{extra}"), format!("`{kind}` has no option `{extra}`; its options: {has}")))
}
