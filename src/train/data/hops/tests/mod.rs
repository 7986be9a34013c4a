//! The world, its questions and its demonstrations hold what they promise.

mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::*;
use crate::train::env::{MALFORMED_CALL, NOTHING_FOUND, Split, Task, UNKNOWN_TOOL};

/// The default world.
static HOPS: LazyLock<Hops> = LazyLock::new(|| Hops::generate(HopsConfig::default()).unwrap());

fn small() -> HopsConfig {
    HopsConfig { people: 20, train: 40, held_out: 20, demonstrations: 50, ..HopsConfig::default() }
}

fn files(config: HopsConfig) -> BTreeMap<&'static str, String> {
    Hops::generate(config).unwrap().files().unwrap().into_iter().collect()
}

/// The person that a question is about.
fn person(task: &Task) -> &str {
    task.question.strip_suffix('?').unwrap().rsplit(' ').next().unwrap()
}

#[test]
fn a_search_finds_the_passage_of_every_fact() {
    let environment = HOPS.environment();
    let mut relations = BTreeSet::new();
    for passage in environment.passages() {
        let (query, _) = passage.text.split_once(" is ").unwrap();
        assert_eq!(environment.call("search", &json!({ "query": query })), passage.text);
        relations.insert(query.split(' ').next().unwrap());
    }
    assert_eq!(relations.len(), world::Relation::ALL.len());
    assert_eq!(environment.call("search", &json!({"query": "employer of Nobody"})), NOTHING_FOUND);
}

#[test]
fn every_question_has_the_answer_that_its_hops_lead_to() {
    let environment = HOPS.environment();
    for task in environment.tasks(Split::Train).iter().chain(environment.tasks(Split::HeldOut)) {
        let asked = task.question.strip_prefix("What is the ").unwrap().strip_suffix('?').unwrap();
        let (relations, name) = asked.rsplit_once(" of ").unwrap();
        let relations: Vec<&str> = relations.split(" of the ").collect();
        let mut at = name.to_owned();
        for relation in relations.iter().rev() {
            let found = environment.call("search", &json!({ "query": format!("{relation} of {at}") }));
            found.rsplit(' ').next().unwrap().clone_into(&mut at);
        }
        assert_eq!(task.answers, [at], "{}", task.question);
        assert_eq!(usize::from(task.hops.unwrap()), relations.len());
    }
}

#[test]
fn held_out_people_are_never_asked_about_in_training() {
    let tasks = |split| HOPS.environment().tasks(split).iter();
    let people = |split| tasks(split).map(person).collect::<BTreeSet<_>>();
    assert!(people(Split::Train).is_disjoint(&people(Split::HeldOut)));
    assert!(people(Split::HeldOut).len() > 90, "nearly all of the hundred");
    for (split, count) in [(Split::Train, 2_000), (Split::HeldOut, 384)] {
        let questions: BTreeSet<&str> = tasks(split).map(|task| task.question.as_str()).collect();
        assert_eq!(questions.len(), count, "no question twice");
    }
}

#[test]
fn most_questions_take_several_hops() {
    let share = |hops| {
        let tasks = HOPS.environment().tasks(Split::HeldOut);
        tasks.iter().filter(|task| task.hops == Some(hops)).count() as f64 / tasks.len() as f64
    };
    // By weight 2, 10 and 11 of 23; drawing without replacement evens them a little.
    assert!((share(1) - 0.09).abs() < 0.06 && (share(2) - 0.43).abs() < 0.08 && (share(3) - 0.48).abs() < 0.08);
}

#[test]
fn exactly_the_asked_share_of_demonstrations_is_flawed() {
    for (flawed, count) in [(0.0, 0), (0.3, 15), (0.85, 43), (1.0, 50)] {
        let hops = Hops::generate(HopsConfig { flawed, ..small() }).unwrap();
        let found = hops.demonstrations().iter().filter(|demonstration| !demonstration.flaws.is_empty()).count();
        assert_eq!((hops.demonstrations().len(), found), (50, count), "{flawed}");
    }
    let flaws: BTreeSet<Flaw> = HOPS.demonstrations().iter().flat_map(|found| found.flaws.iter().copied()).collect();
    assert_eq!(flaws.len(), Flaw::ALL.len(), "every flaw occurs");
}

#[test]
fn a_demonstration_is_right_where_it_is_not_flawed() {
    let tasks: BTreeMap<&str, &Task> =
        HOPS.environment().tasks(Split::Train).iter().map(|task| (task.id.as_str(), task)).collect();
    for demonstration in HOPS.demonstrations() {
        let task = tasks[demonstration.question_id.as_str()];
        let messages = &demonstration.messages;
        assert_eq!(messages.first().unwrap().content, task.question);
        let answer =
            messages.last().unwrap().content.strip_prefix("<answer>").unwrap().strip_suffix("</answer>").unwrap();
        let spoilt = demonstration.flaws.iter().any(|flaw| matches!(flaw, Flaw::StoppedEarly | Flaw::WrongAnswer));
        assert_eq!(task.answers == [answer], !spoilt, "{demonstration:?}");
        if demonstration.flaws.is_empty() {
            assert_eq!(messages.len(), 2 + 2 * usize::from(task.hops.unwrap()));
        }
        for pair in messages.get(1..messages.len() - 1).unwrap().chunks(2) {
            assert_eq!((pair[0].role, pair[1].role), ("assistant", "tool"));
            let call = pair[0].content.strip_prefix("<tool_call>").and_then(|call| call.strip_suffix("</tool_call>"));
            let call = call.and_then(|call| serde_json::from_str::<Value>(call).ok());
            let response = call.map_or_else(
                || MALFORMED_CALL.to_owned(),
                |call| HOPS.environment().call(call["name"].as_str().unwrap(), &call["arguments"]),
            );
            assert_eq!(pair[1].content, response, "the environment would say the same");
        }
    }
}

#[test]
fn every_flaw_is_what_its_name_says() {
    let mut seen: BTreeMap<Flaw, usize> = BTreeMap::new();
    for demonstration in HOPS.demonstrations() {
        let &[flaw] = demonstration.flaws.as_slice() else { continue };
        *seen.entry(flaw).or_default() += 1;
        let calls: Vec<&str> = demonstration.messages.iter().map(|message| message.content.as_str()).collect();
        let count = |part: &str| calls.iter().filter(|content| content.contains(part)).count();
        let (opened, closed) = (count("<tool_call>"), count("</tool_call>"));
        match flaw {
            Flaw::WrongTool => assert_eq!((count("\"lookup\""), count(UNKNOWN_TOOL)), (1, 1)),
            Flaw::MalformedJson => assert_eq!((count("\"}</tool_call>"), count("\"}}</tool_call>")), (1, opened - 1)),
            Flaw::MissingCloser => assert_eq!((opened, count(MALFORMED_CALL)), (closed + 1, 1)),
            Flaw::GarbledEntity => assert_eq!(count(NOTHING_FOUND), 1),
            Flaw::WrongRelation => assert!(count(NOTHING_FOUND) <= 1 && count("error") == 0),
            Flaw::StoppedEarly => assert!(opened < calls[0].matches(" of ").count()),
            Flaw::WrongAnswer => assert_eq!(count("error") + count(NOTHING_FOUND), 0),
        }
    }
    assert_eq!(seen.len(), Flaw::ALL.len(), "{seen:?}");
}

#[test]
fn the_same_settings_give_the_same_bytes() {
    assert_eq!(files(small()), files(small()));
    let other = files(HopsConfig { seed: 8, ..small() });
    for (name, content) in files(small()) {
        assert_eq!(content == other[name], name.starts_with("tokenizer/"), "{name}");
    }
    // More demonstrations change neither the world nor the questions.
    let more = files(HopsConfig { demonstrations: 60, ..small() });
    for name in ["corpus.jsonl", "train.jsonl", "heldout.jsonl"] {
        assert_eq!(files(small())[name], more[name]);
    }
}

#[test]
fn the_bytes_stay_those_of_earlier_versions() {
    let files = files(small());
    let first = |name: &str| files[name].lines().next().unwrap().to_owned();
    assert_eq!(first("corpus.jsonl"), r#"{"id":"f0","title":"Narinu","text":"employer of Narinu is Tebuke"}"#);
    assert_eq!(
        first("train.jsonl"),
        r#"{"id":"train-0","question":"What is the country of the seat of the employer of Dodipa?","answers":["Marobo"],"hops":3}"#
    );
    assert_eq!(
        first("heldout.jsonl"),
        r#"{"id":"heldout-0","question":"What is the birthplace of the spouse of Lerona?","answers":["Nagopo"],"hops":2}"#
    );
    let line: Value = serde_json::from_str(&first("demonstrations.jsonl")).unwrap();
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["messages", "question_id", "flaws", "tools"]);
    assert_eq!(
        line["messages"][1]["content"],
        r#"<tool_call>{"name": "search", "arguments": {"query": "spouse of Genepi"}}</tool_call>"#
    );
    assert_eq!(line["tools"][0]["function"]["name"], "search");
}

#[test]
fn the_files_open_as_the_readme_says() {
    let hops = Hops::generate(small()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    hops.write(folder.path()).unwrap();
    hops.write(folder.path()).unwrap();
    let readme = std::fs::read_to_string(folder.path().join("README.md")).unwrap();
    let settings = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let settings = settings.replace("DIR", folder.path().to_str().unwrap());
    let opened = QaSearch::open(toml::from_str(&settings).unwrap()).unwrap();
    for split in [Split::Train, Split::HeldOut] {
        assert_eq!(opened.tasks(split), hops.environment().tasks(split));
    }
    assert_eq!(opened.passages(), hops.environment().passages());
    for part in ["20 people (4 of them held out)", "50 conversations, 25 of them flawed", "| `wrong_tool` | "] {
        assert!(readme.contains(part), "{part}: {readme}");
    }
    let gaps =
        ["world", "passages", "questions", "demonstrations", "flawed", "flaws", "vocabulary", "end", "pad", "settings"];
    assert!(gaps.iter().all(|gap| !readme.contains(&format!("{{{gap}}}"))), "{readme}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let message = Hops::generate(small()).unwrap().write(&file).unwrap_err().to_string();
    assert!(message.contains("file/tokenizer: cannot be written"), "{message}");
}

#[test]
fn numbers_out_of_range_are_refused() {
    let message = |config: HopsConfig| Hops::generate(config).err().unwrap().to_string();
    for (config, expected) in [
        (HopsConfig { people: 501, ..small() }, "`people` is 501, but must be even, since people marry in pairs"),
        (HopsConfig { people: 8, ..small() }, "`people` is 8, but must be from 10 to 20000"),
        (HopsConfig { towns: 0, ..small() }, "`towns` is 0, but must be from 2 to 20000"),
        (HopsConfig { train: 209, ..small() }, "`train` is 209, but must be from 1 to 208"),
        (HopsConfig { held_out: 53, ..small() }, "`held_out` is 53, but must be from 1 to 52"),
        (HopsConfig { flawed: 1.5, ..small() }, "`flawed` is 1.5, but must be from 0 to 1"),
        (HopsConfig { flaws_per_call: f64::NAN, ..small() }, "`flaws_per_call` is NaN, but must be from 0 to 1"),
    ] {
        assert_eq!(message(config), format!("hops: {expected}"));
    }
    assert!(Hops::generate(HopsConfig { train: 208, held_out: 52, demonstrations: 0, ..small() }).is_ok());
}

#[test]
fn a_folder_with_another_world_is_told_from_one_with_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let hops = Hops::generate(small()).unwrap();
    assert_eq!(hops.other_file(folder.path()), Ok(None));
    hops.write(folder.path()).unwrap();
    assert_eq!(hops.other_file(folder.path()), Ok(None));
    // The same questions, and another flaw here and there.
    let other = Hops::generate(HopsConfig { flawed: 0.9, ..small() }).unwrap();
    assert_eq!(other.other_file(folder.path()), Ok(Some("demonstrations.jsonl")));
    // What is left of a folder may be somebody's own.
    let own = tempfile::tempdir().unwrap();
    std::fs::write(own.path().join("corpus.jsonl"), "mine").unwrap();
    assert_eq!(hops.other_file(own.path()), Ok(Some("corpus.jsonl")));
}
