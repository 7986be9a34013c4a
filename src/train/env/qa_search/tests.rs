//! What a policy gets for its calls, and what a researcher gets for wrong data.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::config::SYSTEM;
use super::*;
use crate::train::env::MatchTerms;

fn passage(title: &str, text: &str) -> Passage {
    Passage { id: String::new(), title: title.to_owned(), text: text.to_owned() }
}

fn task(id: &str, answers: &[&str]) -> Task {
    let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
    Task { id: id.to_owned(), question: format!("question {id}?"), answers, hops: None }
}

fn data() -> QaData {
    QaData {
        passages: vec![
            passage("Paris", "the capital of France"),
            passage("Lyon", "a city in France"),
            passage("", "London is the capital of the United Kingdom"),
        ],
        train: vec![
            task("a", &["Paris", "Paname"]),
            task("b", &["the United Kingdom"]),
            task("c", &["Kingdom of France"]),
        ],
        held_out: vec![task("d", &["yes"])],
    }
}

fn config() -> QaSearchConfig {
    QaSearchConfig {
        unanswerable: Unanswerable::Ignore,
        ..QaSearchConfig::new("corpus.jsonl", "train.jsonl", "test.jsonl")
    }
}

fn environment(config: QaSearchConfig) -> QaSearch {
    QaSearch::new(config, data()).unwrap()
}

fn search(config: QaSearchConfig, query: &str) -> String {
    environment(config).call("search", &json!({ "query": query }))
}

#[test]
fn a_search_shows_passages_best_first() {
    assert_eq!(
        search(config(), "capital of France"),
        "[1] Paris: the capital of France\n[2] London is the capital of the United Kingdom\n[3] Lyon: a city in France"
    );
    let one = QaSearchConfig { top_k: 1, ..config() };
    assert_eq!(search(one.clone(), "capital of France"), "Paris: the capital of France");
    assert_eq!(search(QaSearchConfig { passage_form: PassageForm::Text, ..one }, "Lyon"), "a city in France");
    assert_eq!(search(config(), "xyzzy"), NOTHING_FOUND);
    let all = QaSearchConfig { match_terms: MatchTerms::All, ..config() };
    assert_eq!(search(all.clone(), "city of France"), NOTHING_FOUND);
    assert_eq!(search(all, "France city"), "[1] Lyon: a city in France");
}

#[test]
fn a_long_passage_is_cut_by_characters() {
    let short = QaSearchConfig { passage_chars: 9, top_k: 1, ..config() };
    let data = QaData { passages: vec![passage("", "ääää bbbb cccc")], ..data() };
    let environment = QaSearch::new(short, data).unwrap();
    assert_eq!(environment.call("search", &json!({"query": "bbbb"})), "ääää bbbb ..");
}

#[test]
fn what_a_policy_does_wrong_is_answered_with_a_text() {
    let environment = environment(config());
    for name in ["lookup", "", "Search", "search "] {
        assert_eq!(environment.call(name, &json!({"query": "Paris"})), UNKNOWN_TOOL, "{name:?}");
    }
    for arguments in [
        json!({}),
        json!({"query": ""}),
        json!({"query": 3}),
        json!({"query": null}),
        json!({"query": ["Paris"]}),
        json!({"q": "Paris"}),
        json!({"query": "Paris", "top_k": 9}),
        json!("Paris"),
        json!(null),
    ] {
        assert_eq!(environment.call("search", &arguments), WRONG_ARGUMENTS, "{arguments}");
    }
    assert_eq!(environment.call("search", &json!({"query": "((\" AND"})), NOTHING_FOUND);
}

#[test]
fn the_tools_are_what_call_accepts() {
    let environment = environment(config());
    let tools: Value = serde_json::from_str(environment.tools_json()).unwrap();
    let function = tools.pointer("/0/function").unwrap();
    assert_eq!(function["name"], "search");
    let query = json!({"type": "string", "minLength": 1, "description": "What to look for, as a few words."});
    assert_eq!(
        function["parameters"],
        json!({"type": "object", "properties": {"query": query}, "required": ["query"], "additionalProperties": false})
    );
}

#[test]
fn a_conversation_opens_with_the_system_message_and_the_question() {
    let opened = |system: Option<&str>| {
        let mut config = config();
        config.system = system.map_or(config.system, str::to_owned);
        let environment = environment(config);
        let task = environment.tasks(Split::Train).first().unwrap().clone();
        environment.messages(&task).into_iter().map(|message| (message.role, message.text)).collect::<Vec<_>>()
    };
    let question = (Role::User, "question a?".to_owned());
    assert_eq!(opened(None), [(Role::System, SYSTEM.to_owned()), question.clone()]);
    assert_eq!(opened(Some("Be brief.")), [(Role::System, "Be brief.".to_owned()), question.clone()]);
    assert_eq!(opened(Some("")), [question]);
}

#[test]
fn splits_keep_the_order_of_their_files() {
    let environment = environment(config());
    let ids = |split| environment.tasks(split).iter().map(|task| task.id.as_str()).collect::<Vec<_>>();
    assert_eq!((ids(Split::Train), ids(Split::HeldOut)), (vec!["a", "b", "c"], vec!["d"]));
    assert_eq!(environment.budgets(), Budgets { turns: 5, calls_per_turn: 1 });
}

#[test]
fn questions_without_an_answer_in_the_corpus_are_named_or_refused() {
    assert!(environment(config()).without_answer.is_empty(), "not looked for");
    let warned = environment(QaSearchConfig { unanswerable: Unanswerable::Warn, ..config() });
    assert_eq!(warned.without_answer, ["c", "d"]);
    let refused = QaSearch::new(QaSearchConfig { unanswerable: Unanswerable::Refuse, ..config() }, data());
    assert_eq!(
        refused.err().unwrap().to_string(),
        "2 of 4 questions have no answer in corpus.jsonl, the first c, d; take the corpus that belongs to the questions, \
         leave them out, or set `unanswerable` to \"warn\""
    );
}

#[test]
fn questions_that_are_learnt_and_held_out_are_counted() {
    assert_eq!(environment(config()).questions_in_both(), 0);
    let mut leaking = data();
    leaking.held_out.extend([task("a", &["yes"]), task("c", &["yes"])]);
    assert_eq!(QaSearch::new(config(), leaking).unwrap().questions_in_both(), 2);
}

#[test]
fn settings_out_of_range_are_refused() {
    let message = |config| QaSearch::new(config, data()).err().unwrap().to_string();
    let zero = QaSearchConfig { top_k: 0, ..config() };
    assert_eq!(message(zero), "qa_search: `top_k` is 0, but must be from 1 to 100");
    let many = QaSearchConfig { top_k: 101, ..config() };
    assert_eq!(message(many), "qa_search: `top_k` is 101, but must be from 1 to 100");
    let zero = QaSearchConfig { max_turns: 0, ..config() };
    assert_eq!(message(zero), "qa_search: `max_turns` is 0, but must be at least 1");
}

#[test]
fn a_configuration_file_has_the_stated_defaults_and_no_other_keys() {
    let files = json!({"corpus": "corpus.jsonl", "train": "train.jsonl", "held_out": "test.jsonl"});
    let read: QaSearchConfig = serde_json::from_value(files.clone()).unwrap();
    assert_eq!(read, QaSearchConfig::new("corpus.jsonl", "train.jsonl", "test.jsonl"));
    let mut unknown = files;
    unknown["topk"] = json!(3);
    let message = serde_json::from_value::<QaSearchConfig>(unknown).unwrap_err().to_string();
    assert!(message.starts_with("unknown field `topk`"), "{message}");
}

#[test]
fn the_files_of_a_configuration_are_read_and_a_bad_line_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let corpus = write("corpus.jsonl", "{\"id\": 1, \"title\": \"Paris\", \"text\": \"capital of France\"}\n");
    let train = write("train.jsonl", "{\"question\": \"q?\", \"answer\": \"Paris\"}\n");
    let good = QaSearchConfig::new(corpus.clone(), train.clone(), train.clone());
    let environment = QaSearch::open(good).unwrap();
    assert_eq!(environment.call("search", &json!({"query": "capital"})), "[1] Paris: capital of France");
    assert_eq!(environment.tasks(Split::Train).first().unwrap().id, "train:1");
    let bad =
        write("bad.jsonl", "{\"question\": \"q?\", \"answer\": \"Paris\"}\n{\"question\": 3, \"answer\": \"x\"}\n");
    let message = QaSearch::open(QaSearchConfig::new(corpus, train, bad)).err().unwrap().to_string();
    assert!(message.ends_with("bad.jsonl:2: `question` must be a string, not 3"), "{message}");
}

proptest! {
    #[test]
    fn no_call_fails_and_the_same_call_gets_the_same_text(name in "search|[a-z]{0,6}", query in any::<String>()) {
        static ENVIRONMENT: LazyLock<QaSearch> = LazyLock::new(|| environment(config()));
        let arguments = json!({ "query": query });
        let answer = ENVIRONMENT.call(&name, &arguments);
        prop_assert!(!answer.is_empty());
        prop_assert_eq!(answer, ENVIRONMENT.call(&name, &arguments));
    }
}
