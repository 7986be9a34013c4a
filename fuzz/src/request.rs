//! The laws of a whole request. In: the body of `POST /reward`; out: a panic if the answer is no JSON, a reward leaves
//! its rubric's range, the parts of a reward do not sum to it, or an item's score depends on its neighbours.

use std::sync::{LazyLock, Once};

use gradus::http::batch::{Engine, Overrides, Scored, Stop};
use gradus::rubric::Catalog;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::no_judge::NoJudge;

const MAX_ALONE: usize = 4;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    Engine::new(Catalog::open(None).unwrap_or_else(|error| panic!("{error}")), 1 << 20)
});

#[derive(Deserialize)]
struct Items<'a> {
    #[serde(borrow)]
    trajectories: Vec<&'a RawValue>,
}

/// A body.
pub fn body(text: &str) {
    single_thread();
    let Some(scored) = score(text) else { return };
    sound(&scored);
    let again = score(text).unwrap_or_else(|| panic!("what was scored once is scored twice"));
    assert_eq!(rewards(&scored), rewards(&again), "the same request has the same rewards");
    if let Ok(Items { trajectories }) = serde_json::from_str(text) {
        alone(&trajectories);
    }
}

/// A trajectory's reward is the same in any order and in any company.
fn alone(items: &[&RawValue]) {
    let batch = |items: &[&RawValue]| {
        let items: Vec<&str> = items.iter().map(|item| item.get()).collect();
        score(&format!("{{\"trajectories\":[{}]}}", items.join(",")))
    };
    let Some(together) = batch(items) else { return };
    let together = rewards(&together);
    let reversed: Vec<&RawValue> = items.iter().rev().copied().collect();
    let mut turned = rewards(&batch(&reversed).unwrap_or_else(|| panic!("the order makes no request wrong")));
    turned.reverse();
    assert_eq!(together, turned, "the order changes nothing");
    for (item, reward) in items.iter().zip(&together).take(MAX_ALONE) {
        let single = batch(std::slice::from_ref(item)).unwrap_or_else(|| panic!("an item is a request by itself"));
        assert_eq!(rewards(&single), [*reward], "the batch changes nothing");
    }
}

fn score(text: &str) -> Option<Scored> {
    // With a name for the batch, as when scores are stored.
    let overrides = Overrides { batch_id: Some("fuzz"), ..Overrides::default() };
    ENGINE.score(text, &overrides, &Stop::default(), &NoJudge).ok()
}

/// Bit for bit.
fn rewards(scored: &Scored) -> Vec<Option<u64>> {
    scored.rows.iter().map(|row| row.reward.map(f64::to_bits)).collect()
}

fn sound(scored: &Scored) {
    let body: Value = serde_json::from_slice(&scored.body).unwrap_or_else(|error| panic!("the answer: {error}"));
    let results = body["results"].as_array().unwrap_or_else(|| panic!("there are results"));
    assert_eq!(results.len(), scored.rows.len(), "one result per item");
    assert_eq!(body["rewards"].as_array().map(Vec::len), Some(results.len()), "one reward per item");
    let range = scored.settings.rubric.range;
    for (result, row) in results.iter().zip(&scored.rows) {
        let written = scored.body.get(row.result.clone()).unwrap_or_default();
        assert!(serde_json::from_slice::<Value>(written).is_ok_and(|value| value == *result), "a row knows its result");
        assert_eq!(result["valid"].as_bool(), Some(row.valid));
        let Some(reward) = row.reward else { continue };
        assert!((range.min()..=range.max()).contains(&reward), "{reward} is outside the rubric's range");
        if row.valid {
            let parts: f64 =
                result["components"].as_object().into_iter().flatten().filter_map(|part| part.1.as_f64()).sum();
            let size: f64 = reward.abs().max(range.min().abs()).max(range.max().abs());
            assert!((parts - reward).abs() <= 1e-9 * size.max(1e-3), "{parts} is not the reward {reward}: {result}");
        } else {
            assert!(result["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "no score has a reason");
        }
    }
}

/// One worker, as large as a server's, so that a run can be repeated.
fn single_thread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let built = rayon::ThreadPoolBuilder::new().num_threads(1).build_global();
        built.unwrap_or_else(|error| panic!("{error}"));
    });
}
