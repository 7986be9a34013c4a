//! From what a judge said to a score: `s = sum_l P(l) value(l)` with P renormalised over the labels; a reward model's
//! `s = sigmoid((x - centre) / scale)`. Pure.

use std::borrow::Cow;

use super::inquiry::{BackendAnswer, Finding};
use crate::stages::{JudgeMode, JudgeStage, Label, Panel, Unavailable, UnitScore, Verdict};

/// What a judge of this mode may say; nothing where it says no label.
pub(super) fn labels_of(mode: &JudgeMode) -> Vec<Label> {
    let label = |name: &str, value| Label { name: name.to_owned(), value };
    match mode {
        JudgeMode::LabelLogprob { labels } | JudgeMode::Generate { labels, .. } => labels.clone(),
        JudgeMode::Match => vec![label("Match", UnitScore::ONE), label("Mismatch", UnitScore::ZERO)],
        JudgeMode::RewardModel { .. } | JudgeMode::Rank => Vec::new(),
    }
}

fn named(name: &'static str, number: f64) -> (Cow<'static, str>, f64) {
    (Cow::Borrowed(name), number)
}

/// The score of one judge's answer.
///
/// # Errors
/// When too much probability lies outside the labels, or the answer has another form than was wanted.
pub(super) fn score(finding: &Finding, stage: &JudgeStage, hit: bool) -> Result<Verdict, Unavailable> {
    let labels = labels_of(&stage.mode);
    let mut verdict = match (&finding.said, &stage.mode) {
        (BackendAnswer::Reward(raw), JudgeMode::RewardModel { centre, scale }) => reward(*raw, *centre, *scale)?,
        (BackendAnswer::Labels(logprobs) | BackendAnswer::Chosen { logprobs: Some(logprobs), .. }, _) => {
            distribution(logprobs, &labels, stage.max_outside)?
        }
        (BackendAnswer::Chosen { label, .. }, _) => match labels.get(*label) {
            Some(label) => Verdict { score: label.value, detail: Vec::new(), cached: false },
            None => return Err(Unavailable::no_verdict(format!("the judge chose label {label} of {}", labels.len()))),
        },
        _ => return Err(Unavailable::no_verdict("the judge's answer has another form than was asked for")),
    };
    verdict.cached = hit;
    Ok(verdict)
}

fn distribution(logprobs: &[f64], labels: &[Label], max_outside: f64) -> Result<Verdict, Unavailable> {
    if logprobs.len() != labels.len() || logprobs.iter().any(|logprob| logprob.is_nan()) {
        return Err(Unavailable::no_verdict(format!(
            "the judge gave {} probabilities for {} labels",
            logprobs.len(),
            labels.len()
        )));
    }
    let inside: f64 = logprobs.iter().map(|logprob| logprob.exp()).sum();
    let outside = (1.0 - inside).clamp(0.0, 1.0);
    let names = || labels.iter().map(|label| label.name.as_str()).collect::<Vec<_>>().join(", ");
    if inside <= 0.0 {
        return Err(Unavailable::no_verdict(format!(
            "the judge gives no probability to any of {}. Labels that begin alike have none where they part: name them so that \
             their first tokens differ",
            names()
        )));
    }
    if outside > max_outside {
        let names = names();
        return Err(Unavailable::no_verdict(format!(
            "the judge gives {outside:.3} of its probability to something other than {names}; more than {max_outside} is no \
             verdict. Look at the prompt, or raise `max_outside`"
        )));
    }
    let share = |logprob: &f64| logprob.exp() / inside;
    let score: f64 = logprobs.iter().zip(labels).map(|(logprob, label)| share(logprob) * label.value.get()).sum();
    let mut detail: Vec<(Cow<'static, str>, f64)> = Vec::with_capacity(labels.len() + 2);
    for (logprob, label) in logprobs.iter().zip(labels) {
        detail.push((Cow::Owned(format!("p({})", label.name)), share(logprob)));
    }
    detail.push(named("outside", outside));
    Ok(Verdict { score: UnitScore::clamped(score), detail, cached: false })
}

fn reward(raw: f64, centre: f64, scale: f64) -> Result<Verdict, Unavailable> {
    if !raw.is_finite() {
        return Err(Unavailable::no_verdict("the reward model's output is not finite"));
    }
    let score = 1.0 / (1.0 + (-(raw - centre) / scale).exp());
    Ok(Verdict { score: UnitScore::clamped(score), detail: vec![named("raw", raw)], cached: false })
}

/// The verdict of a panel: the scores joined, and how far apart they lie. One judge's verdict stays as it is.
pub(super) fn panel(mut verdicts: Vec<Verdict>, how: Panel) -> Result<Verdict, Unavailable> {
    if verdicts.len() < 2 {
        return verdicts.pop().ok_or_else(|| Unavailable::no_verdict("the panel has no judge"));
    }
    let mut scores: Vec<f64> = verdicts.iter().map(|verdict| verdict.score.get()).collect();
    scores.sort_by(f64::total_cmp);
    let middle = scores.len() / 2;
    let at = |index: usize| scores.get(index).copied().unwrap_or_default();
    let (least, most) = (at(0), at(scores.len() - 1));
    let score = match how {
        Panel::Mean => scores.iter().sum::<f64>() / scores.len() as f64,
        Panel::Median if scores.len().is_multiple_of(2) => f64::midpoint(at(middle - 1), at(middle)),
        Panel::Median => at(middle),
        Panel::Min => least,
    };
    let cached = verdicts.iter().all(|verdict| verdict.cached);
    let each = verdicts.iter().enumerate();
    let mut detail: Vec<_> =
        each.map(|(index, verdict)| (Cow::Owned(format!("judge {}", index + 1)), verdict.score.get())).collect();
    detail.push(named("spread", most - least));
    Ok(Verdict { score: UnitScore::clamped(score), detail, cached })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::inquiry::Usage;
    use crate::stages::UnavailableCode;

    fn stage(mode: JudgeMode) -> JudgeStage {
        let judges = vec!["default".to_owned()];
        JudgeStage { criteria: String::new(), mode, prompt: None, judges, panel: Panel::Mean, max_outside: 0.5 }
    }

    fn said(said: BackendAnswer, mode: JudgeMode) -> Result<Verdict, Unavailable> {
        score(&Finding { said, usage: Usage::default() }, &stage(mode), false)
    }

    fn detail(verdict: &Verdict, name: &str) -> f64 {
        verdict.detail.iter().find(|(found, _)| found == name).unwrap().1
    }

    #[test]
    fn the_score_is_the_mean_value_under_the_renormalised_distribution() {
        let label = |name: &str, value| Label { name: name.to_owned(), value: UnitScore::new(value).unwrap() };
        let labels = (1..=5).map(|grade| label(&grade.to_string(), f64::from(grade - 1) / 4.0)).collect();
        let probabilities = [0.1, 0.1, 0.2, 0.2, 0.2];
        let logprobs = probabilities.iter().map(|p: &f64| p.ln()).collect();
        let verdict = said(BackendAnswer::Labels(logprobs), JudgeMode::LabelLogprob { labels }).unwrap();
        let wanted = (0.25 * 0.1 + 0.5 * 0.2 + 0.75 * 0.2 + 0.2) / 0.8;
        assert!((verdict.score.get() - wanted).abs() < 1e-12);
        assert!((detail(&verdict, "outside") - 0.2).abs() < 1e-12);
        assert!((detail(&verdict, "p(3)") - 0.25).abs() < 1e-12);
    }

    #[test]
    fn a_judge_that_says_something_else_gives_no_verdict() {
        let logprobs = vec![0.2f64.ln(), 0.1f64.ln()];
        let refused = said(BackendAnswer::Labels(logprobs), JudgeMode::Match).unwrap_err();
        assert_eq!(refused.code, UnavailableCode::NoVerdict);
        assert!(refused.message.contains("0.700"), "{}", refused.message);
        assert!(said(BackendAnswer::Labels(vec![f64::NEG_INFINITY; 2]), JudgeMode::Match).is_err());
        assert!(said(BackendAnswer::Labels(vec![f64::NAN, 0.0]), JudgeMode::Match).is_err());
        assert!(said(BackendAnswer::Labels(vec![0.0]), JudgeMode::Match).is_err());
    }

    #[test]
    fn a_reward_is_squashed_around_its_centre() {
        let mode = || JudgeMode::RewardModel { centre: 2.0, scale: 0.5 };
        assert_eq!(said(BackendAnswer::Reward(2.0), mode()).unwrap().score.get(), 0.5);
        let verdict = said(BackendAnswer::Reward(2.5), mode()).unwrap();
        assert!((verdict.score.get() - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-12);
        assert_eq!(detail(&verdict, "raw"), 2.5);
        assert!(said(BackendAnswer::Reward(f64::INFINITY), mode()).is_err());
        assert_eq!(said(BackendAnswer::Reward(-1e308), mode()).unwrap().score.get(), 0.0);
    }

    #[test]
    fn a_panel_joins_its_scores_and_tells_their_spread() {
        let verdict = |score: f64| Verdict { score: UnitScore::new(score).unwrap(), detail: Vec::new(), cached: true };
        let panel_of = |scores: &[f64], how| panel(scores.iter().map(|s| verdict(*s)).collect(), how).unwrap();
        for (how, wanted) in [(Panel::Mean, 0.55), (Panel::Median, 0.45), (Panel::Min, 0.3)] {
            let joined = panel_of(&[0.9, 0.3, 0.5, 0.5 - 0.1 + 0.1 * 0.0], how);
            assert!((joined.score.get() - if how == Panel::Mean { 0.525 } else { wanted }).abs() < 1e-12, "{how:?}");
            assert!((detail(&joined, "spread") - 0.6).abs() < 1e-12);
        }
        assert_eq!(panel_of(&[0.1, 0.9, 0.2], Panel::Median).score.get(), 0.2);
        assert_eq!(panel_of(&[0.4], Panel::Min), verdict(0.4));
    }
}
