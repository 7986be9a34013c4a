//! Measures a judge on labelled examples: how right it is, how well its probabilities are calibrated, and whether it
//! agrees with itself. In: the judges, the stage that asks them, examples. Out: a [`CheckReport`].
//!
//! An example without a verdict is counted with its reason and enters no other number.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde::Serialize;

use super::Judges;
use super::examples::{Example, ExampleLabel};
use super::metrics::{self, Judged, VERDICT_CUT, mean, share};
use super::poll::{Candidate, Polled, poll, reasons, score};
use super::session::default_template;
use super::verdict::labels_of;
use crate::stages::{JudgeMode, JudgeStage};

pub use super::metrics::Confusion;
pub use super::poll::{OnAnswered, Reason};

/// How good a judge is. A number is absent where there is nothing to compute it from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// What tells the judge apart from any other.
    pub judge: String,
    /// The mode in which it was asked, as in rubric files.
    pub mode: &'static str,
    /// Examples that were put to it.
    pub examples: usize,
    /// Those of them that got a verdict: all other numbers are over these.
    pub with_verdict: usize,
    /// Why the others got none, the most frequent reason first.
    pub without_verdict: Vec<Reason>,
    /// The verdicts by label; a score of one half or more is Match.
    pub confusion: Confusion,
    /// The share of right verdicts, 0 to 1.
    pub accuracy: Option<f64>,
    /// Its 95% interval (Wilson).
    pub accuracy_interval: Option<[f64; 2]>,
    /// Cohen's kappa, -1 to 1.
    pub kappa: Option<f64>,
    /// Expected calibration error of the score as the probability of Match, 0 to 1, ten equally wide bins.
    pub calibration_error: Option<f64>,
    /// Mean squared error of the score as the probability of Match, 0 to 1.
    pub brier: Option<f64>,
    /// Agreement with itself over examples that say the same.
    pub paraphrases: Agreement,
    /// Agreement with itself when the prompt lists the labels in reverse. Absent where the prompt lists none.
    pub label_order: Option<Agreement>,
    /// Why there was no verdict on some examples with the labels in reverse: a judge may know one order only.
    pub label_order_without_verdict: Vec<Reason>,
    /// Probability outside the labels. Absent where the judge gives none: a reward model, a panel, a reply in JSON.
    pub mass_outside: Option<MassOutside>,
    /// By the kind of the examples.
    pub by_kind: BTreeMap<String, KindReport>,
    /// Wall-clock time for the examples as they stand, in seconds.
    pub elapsed_s: f64,
    /// Verdicts per second of that time. Absent where a cache knew all of them.
    pub examples_per_s: Option<f64>,
}

/// How far two verdicts on the same thing agree.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Agreement {
    /// Pairs of which both have a verdict.
    pub pairs: usize,
    /// Pairs of which one has none.
    pub without_verdict: usize,
    /// The share of pairs with equal verdicts, 0 to 1.
    pub equal_verdicts: Option<f64>,
    /// The mean absolute difference of their scores, 0 to 1.
    pub mean_difference: Option<f64>,
}

/// Probability that went to something other than the labels. Where it is above the stage's `max_outside`, there is no
/// verdict, so that it is not in these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MassOutside {
    /// Its mean, 0 to 1.
    pub mean: f64,
    /// The largest.
    pub largest: f64,
}

/// The examples of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct KindReport {
    /// How many there are.
    pub examples: usize,
    /// How many got a verdict.
    pub with_verdict: usize,
    /// The share of right verdicts, 0 to 1.
    pub accuracy: Option<f64>,
}

/// Puts the examples to the judges of a stage, twice where the labels have an order, and measures the answers.
pub async fn check(
    judges: &Judges,
    stage: &JudgeStage,
    examples: &[Example],
    on_answered: &mut OnAnswered<'_>,
) -> CheckReport {
    let candidate = |example| Candidate { example, answer: example.answer.as_str().into() };
    let candidates: Vec<Candidate<'_>> = examples.iter().map(candidate).collect();
    let start = Instant::now();
    let polled = poll(judges, stage, &candidates, on_answered).await;
    let elapsed_s = start.elapsed().as_secs_f64();
    let reversed = match with_labels_reversed(stage) {
        None => None,
        Some(reversed) => Some(poll(judges, &reversed, &candidates, on_answered).await),
    };
    let judged = judged(examples, &polled);
    let confusion = Confusion::of(&judged);
    let asked = polled.iter().flatten().filter(|verdict| !verdict.cached).count();
    CheckReport {
        judge: judges.identity(&stage.judges),
        mode: stage.mode.as_str(),
        examples: examples.len(),
        with_verdict: judged.len(),
        without_verdict: reasons(&polled),
        confusion,
        accuracy: confusion.accuracy(),
        accuracy_interval: metrics::share_interval(confusion.right(), confusion.total()),
        kappa: confusion.kappa(),
        calibration_error: metrics::calibration_error(&judged),
        brier: metrics::brier(&judged),
        paraphrases: over_paraphrases(examples, &polled),
        label_order: reversed.as_ref().map(|reversed| agreement(polled.iter().zip(reversed))),
        label_order_without_verdict: reasons(reversed.iter().flatten()),
        mass_outside: mass_outside(&polled),
        by_kind: by_kind(examples, &polled),
        elapsed_s,
        examples_per_s: (asked > 0 && elapsed_s > 0.0).then(|| asked as f64 / elapsed_s),
    }
}

/// The same stage with the labels the other way round; none where the prompt does not list them.
fn with_labels_reversed(stage: &JudgeStage) -> Option<JudgeStage> {
    let template = stage.prompt.as_deref().unwrap_or_else(|| default_template(&stage.mode));
    if !template.contains("labels") {
        return None;
    }
    let labels = labels_of(&stage.mode).into_iter().rev().collect();
    let mode = match stage.mode {
        JudgeMode::LabelLogprob { .. } | JudgeMode::Match => JudgeMode::LabelLogprob { labels },
        JudgeMode::Generate { thinking_tokens, seed, .. } => JudgeMode::Generate { labels, thinking_tokens, seed },
        JudgeMode::RewardModel { .. } | JudgeMode::Rank => return None,
    };
    // The prompt by its text: the modes' own differ.
    Some(JudgeStage { mode, prompt: Some(template.to_owned()), ..stage.clone() })
}

fn judged(examples: &[Example], polled: &[Polled]) -> Vec<Judged> {
    let judged = |(example, polled): (&Example, &Polled)| {
        Some(Judged { score: score(polled)?, is_match: example.label == ExampleLabel::Match })
    };
    examples.iter().zip(polled).filter_map(judged).collect()
}

fn over_paraphrases(examples: &[Example], polled: &[Polled]) -> Agreement {
    let by_id: HashMap<&str, &Polled> = examples.iter().map(|example| example.id.as_str()).zip(polled).collect();
    // An original may be missing: a limit cuts the list.
    let original = |example: &Example| by_id.get(example.paraphrase_of.as_deref()?).copied();
    let pairs = examples.iter().zip(polled).filter_map(|(example, polled)| Some((polled, original(example)?)));
    agreement(pairs)
}

fn agreement<'a>(pairs: impl Iterator<Item = (&'a Polled, &'a Polled)>) -> Agreement {
    let (mut equal, mut differences, mut without_verdict) = (0, Vec::new(), 0);
    for (one, other) in pairs {
        let (Some(one), Some(other)) = (score(one), score(other)) else {
            without_verdict += 1;
            continue;
        };
        equal += usize::from((one >= VERDICT_CUT) == (other >= VERDICT_CUT));
        differences.push((one - other).abs());
    }
    Agreement {
        pairs: differences.len(),
        without_verdict,
        equal_verdicts: share(equal, differences.len()),
        mean_difference: mean(differences),
    }
}

fn mass_outside(polled: &[Polled]) -> Option<MassOutside> {
    let details = polled.iter().flatten().flat_map(|verdict| &verdict.detail);
    let masses: Vec<f64> = details.filter(|(name, _)| name == "outside").map(|(_, mass)| *mass).collect();
    let largest = masses.iter().copied().fold(0.0, f64::max);
    Some(MassOutside { mean: mean(masses)?, largest })
}

fn by_kind(examples: &[Example], polled: &[Polled]) -> BTreeMap<String, KindReport> {
    let mut kinds: BTreeMap<&str, (usize, Vec<Judged>)> = BTreeMap::new();
    for (example, polled) in examples.iter().zip(polled) {
        let (examples, judged) = kinds.entry(&example.kind).or_default();
        *examples += 1;
        judged.extend(self::judged(std::slice::from_ref(example), std::slice::from_ref(polled)));
    }
    let report = |(kind, (examples, judged)): (&str, (usize, Vec<Judged>))| {
        let report = KindReport { examples, with_verdict: judged.len(), accuracy: Confusion::of(&judged).accuracy() };
        (kind.to_owned(), report)
    };
    kinds.into_iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::stages::{Label, Panel, Unavailable, UnavailableCode, UnitScore, Verdict};

    #[expect(clippy::unnecessary_wraps, reason = "it stands for what a judge said")]
    fn said(score: f64, outside: f64) -> Polled {
        let detail = vec![(Cow::Borrowed("outside"), outside)];
        Ok(Verdict { score: UnitScore::new(score).unwrap(), detail, cached: false })
    }

    fn silent() -> Polled {
        Err(Unavailable { code: UnavailableCode::Timeout, message: "late".to_owned() })
    }

    fn example(id: &str, label: ExampleLabel, paraphrase_of: Option<&str>) -> Example {
        Example {
            id: id.to_owned(),
            question: "q".to_owned(),
            references: vec!["r".to_owned()],
            answer: id.to_owned(),
            label,
            kind: if id.len() == 1 { "short" } else { "long" }.to_owned(),
            paraphrase_of: paraphrase_of.map(str::to_owned),
        }
    }

    fn stage(mode: JudgeMode, prompt: Option<&str>) -> JudgeStage {
        let (judges, prompt) = (vec!["default".to_owned()], prompt.map(str::to_owned));
        JudgeStage { criteria: "c".to_owned(), mode, prompt, judges, panel: Panel::Mean, max_outside: 0.5 }
    }

    #[test]
    fn an_example_without_a_verdict_is_neither_right_nor_wrong() {
        let examples = [
            example("a", ExampleLabel::Match, None),
            example("b", ExampleLabel::Match, None),
            example("cc", ExampleLabel::Mismatch, None),
        ];
        let polled = [said(0.9, 0.0), silent(), said(0.8, 0.0)];
        assert_eq!(Confusion::of(&judged(&examples, &polled)).accuracy(), Some(0.5));
        let kinds = by_kind(&examples, &polled);
        assert_eq!(kinds["short"], KindReport { examples: 2, with_verdict: 1, accuracy: Some(1.0) });
        assert_eq!(kinds["long"], KindReport { examples: 1, with_verdict: 1, accuracy: Some(0.0) });
    }

    #[test]
    fn paraphrases_agree_when_their_verdicts_are_equal() {
        let examples = [
            example("a", ExampleLabel::Match, None),
            example("b", ExampleLabel::Match, Some("a")),
            example("c", ExampleLabel::Match, Some("a")),
            example("d", ExampleLabel::Match, Some("b")),
            example("e", ExampleLabel::Match, Some("cut away")),
        ];
        let polled = [said(0.9, 0.0), said(0.5, 0.0), said(0.4, 0.0), silent(), said(0.0, 0.0)];
        let found = over_paraphrases(&examples, &polled);
        assert_eq!((found.pairs, found.without_verdict, found.equal_verdicts), (2, 1, Some(0.5)));
        assert!((found.mean_difference.unwrap() - 0.45).abs() < 1e-12);
        assert_eq!(over_paraphrases(&examples[..1], &polled[..1]), Agreement::default());
    }

    #[test]
    fn mass_outside_is_that_of_the_verdicts() {
        let found = mass_outside(&[said(0.9, 0.1), silent(), said(0.2, 0.3)]).unwrap();
        assert!((found.mean - 0.2).abs() < 1e-12 && found.largest == 0.3);
        assert_eq!(mass_outside(&[silent()]), None);
    }

    #[test]
    fn reversed_labels_keep_their_values_and_the_prompt() {
        let reversed = with_labels_reversed(&stage(JudgeMode::Match, None)).unwrap();
        let label = |name: &str, value| Label { name: name.to_owned(), value };
        let labels = vec![label("Mismatch", UnitScore::ZERO), label("Match", UnitScore::ONE)];
        assert_eq!(reversed.mode, JudgeMode::LabelLogprob { labels: labels.clone() });
        assert_eq!(reversed.prompt.as_deref(), Some(default_template(&JudgeMode::Match)));
        let mode = JudgeMode::Generate { labels, thinking_tokens: 7, seed: 3 };
        let JudgeMode::Generate { labels, thinking_tokens: 7, seed: 3 } =
            with_labels_reversed(&stage(mode, Some("{{ labels }}"))).unwrap().mode
        else {
            panic!("another mode")
        };
        assert_eq!(labels[0], label("Match", UnitScore::ONE));
    }

    #[test]
    fn a_prompt_that_lists_no_labels_has_no_order_of_them() {
        assert_eq!(with_labels_reversed(&stage(JudgeMode::Match, Some("Is {{ answer }} right?"))), None);
        assert_eq!(with_labels_reversed(&stage(JudgeMode::RewardModel { centre: 0.0, scale: 1.0 }, None)), None);
    }
}
