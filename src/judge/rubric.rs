//! Rubrics whose judge prompts are checked, too. In: a rubric's text. Out: the rubric, or what is wrong and where.
//! `rubric` knows no templates; whoever takes a rubric from a person reads it here.

use super::session::{compiled, subject};
use crate::rubric::{Rubric, RubricError};

/// Reads a rubric file.
///
/// # Errors
/// With line and column: what [`Rubric::from_toml`] finds, or a judge's prompt that is no template.
pub fn read_toml(text: &str) -> Result<Rubric, RubricError> {
    let rubric = Rubric::from_toml(text)?;
    check_prompts(&rubric).map_err(|error| error.located_in(text))?;
    Ok(rubric)
}

/// Reads the JSON form.
///
/// # Errors
/// With a JSON pointer, line and column: what [`Rubric::from_json`] finds, or a judge's prompt that is no template.
pub fn read_json(text: &str) -> Result<Rubric, RubricError> {
    read_inline(text).map_err(|error| error.located_in_json(text))
}

/// Reads the JSON form as it stands in a request, whose sender does not count lines from where the rubric begins.
///
/// # Errors
/// As [`read_json`], but with a JSON pointer alone.
pub fn read_inline(text: &str) -> Result<Rubric, RubricError> {
    let rubric = Rubric::from_json(text)?;
    check_prompts(&rubric)?;
    Ok(rubric)
}

fn check_prompts(rubric: &Rubric) -> Result<(), RubricError> {
    for (index, stage) in rubric.stages.iter().enumerate() {
        if let Some((judge, prompt)) = stage.stage.judge().and_then(|judge| Some((judge, judge.prompt.as_deref()?))) {
            let wrong = |error| RubricError::at(format!("/stages/{index}/prompt"), format!("{error}"));
            compiled(prompt, subject(&judge.mode)).map_err(wrong)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rubric(kind: &str, prompt: &str) -> String {
        format!("name = \"r\"\n\n[[stages]]\n{kind}\nweight = 1.0\nmode = \"match\"\nprompt = \"{prompt}\"\n")
    }

    #[test]
    fn a_broken_prompt_is_found_with_its_line() {
        for kind in ["kind = \"judge\"", "kind = \"binary\"\nof = \"judge\""] {
            let text = rubric(kind, "{{ anwser }}");
            let error = read_toml(&text).unwrap_err();
            let line = text.lines().position(|line| line.starts_with("prompt")).unwrap() + 1;
            assert_eq!(error.location.map(|at| at.line), Some(line), "{error}");
            assert!(error.message.contains("there is no variable `anwser`"), "{error}");
            assert!(Rubric::from_toml(&text).is_ok(), "nothing else is wrong");
        }
    }

    #[test]
    fn a_prompt_must_show_what_its_mode_is_about() {
        let each = "Grade.{% for c in candidates %}{{ c }}{% endfor %}";
        let in_mode = |mode: &str, prompt| {
            read_toml(&rubric("kind = \"judge\"", prompt).replace("\"match\"", &format!("\"{mode}\""))).map(|_| ())
        };
        assert_eq!((in_mode("match", "{{ answer }}"), in_mode("rank", each)), (Ok(()), Ok(())));
        for (mode, prompt, says) in
            [("match", each, "nothing of the trajectory"), ("rank", "{{ answer }}", "not every answer")]
        {
            let error = in_mode(mode, prompt).unwrap_err();
            assert!(error.message.contains(says) && error.pointer == "/stages/0/prompt", "{error}");
        }
    }

    #[test]
    fn a_prompt_that_is_a_template_is_fine_and_json_has_a_pointer() {
        let rubric = read_toml(&rubric("kind = \"judge\"", "{{ answer }}")).unwrap();
        assert!(read_json(&rubric.json).is_ok());
        let broken = rubric.json.replace("{{ answer }}", "{{ answer");
        assert_eq!(read_json(&broken).unwrap_err().pointer, "/stages/0/prompt");
        let inline = read_inline(&broken).unwrap_err();
        assert_eq!((&*inline.pointer, inline.location), ("/stages/0/prompt", None));
    }
}
