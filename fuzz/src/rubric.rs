//! The laws of reading rubrics. In: the text of a rubric file; out: a panic if a rubric that was accepted cannot be
//! stored and read again, has weights or thresholds that cannot be, or gives a reward outside its range.

use std::borrow::Cow;
use std::sync::LazyLock;

use gradus::rubric::Rubric;
use gradus::score::{Context, Scorer, WANTED};
use gradus::shaping::Position;
use gradus::trajectory::{Content, Message, Role, Thinking, Trajectory, Turn};

use crate::no_judge::NoJudge;

static SCORER: LazyLock<Scorer> = LazyLock::new(|| Scorer::new(1 << 20));

const TURNS: [&str; 3] = [
    "<think>t</think><tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>",
    "<tool_call>{\"name\": \"g\"}</tool_call>",
    "The capital is <answer>Paris</answer> \\boxed{Paris}\n#### Paris",
];

/// A rubric file.
pub fn file(text: &str) {
    match Rubric::from_toml(text) {
        Ok(rubric) => accepted(&rubric),
        Err(error) => {
            let lines = text.split('\n').count();
            if let Some(at) = error.location {
                assert!((1..=lines + 1).contains(&at.line) && at.column >= 1, "{error} is a place in the file");
            }
            assert!(!error.to_string().is_empty(), "an error says what is wrong");
        }
    }
}

fn accepted(rubric: &Rubric) {
    let again = Rubric::from_json(&rubric.json).unwrap_or_else(|error| panic!("{}: {error}", rubric.json));
    assert_eq!(again.version, rubric.version, "the stored form is the same version");
    assert_eq!(again.json, rubric.json, "the stored form is stored as itself");
    for step in [None, Some(0), Some(7), Some(100), Some(u64::MAX)] {
        let mut position = Position { step, ..Position::default() };
        for (stage, mastery) in rubric.stages.iter().zip([0.0, 0.5, 1.0]) {
            position.mastery.insert(stage.name.to_string(), mastery);
        }
        plan(rubric, &position);
        reward(rubric, &position);
    }
}

fn plan(rubric: &Rubric, position: &Position) {
    let plan = rubric.plan(position);
    assert_eq!(plan.len(), rubric.stages.len(), "every stage has its plan");
    let sum: f64 = plan.iter().map(|stage| stage.weight).sum();
    assert!((sum - 1.0).abs() < 1e-9, "weights sum to 1, not to {sum}: {plan:?}");
    for stage in plan.iter() {
        assert!(stage.weight.is_finite() && stage.weight >= 0.0, "{stage:?}");
        assert!((0.0..=1.0).contains(&stage.threshold), "{stage:?}");
    }
}

fn reward(rubric: &Rubric, position: &Position) {
    let turn = |text: &'static str| {
        Message::Policy(Turn { text: Cow::Borrowed(text), offset: 0, reasoning: None, native_calls: None, thinking: Thinking::Outside })
    };
    let mut messages = vec![Message::Other { role: Role::User, content: Content::Text(Cow::Borrowed("q")) }];
    messages.extend(TURNS.map(turn));
    let trajectory = Trajectory {
        messages,
        tools: r#"[{"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}]"#,
        references: vec![Cow::Borrowed("Paris"), Cow::Borrowed("the city of Paris")],
        reference_calls: None,
        tool_format: None,
        truncated: false,
        response_tokens: Some(120),
    };
    let tools = SCORER.tools(trajectory.tools, rubric);
    if let Ok(reward) = SCORER
        .score(&trajectory, &tools, Context { rubric, position, judge: &NoJudge, group: None, unwanted: WANTED })
        .reward
    {
        let (low, high) = (rubric.range.min(), rubric.range.max());
        assert!((low..=high).contains(&reward.value), "{} is outside {low} to {high}", reward.value);
        assert!((0.0..=1.0).contains(&reward.shaped), "shaped is {}", reward.shaped);
    }
}
