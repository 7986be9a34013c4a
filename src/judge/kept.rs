//! Findings that are kept, by the hash of all that they depend on: in memory up to a size, and, if there is one, in a [`FindingStore`]
//! that outlives the process. In: an inquiry's keys, and findings. Out: findings. Asks nobody.

use std::sync::Arc;

use serde_json::{Value, json};

use super::inquiry::{AnswerForm, BackendAnswer, Finding, Form, Inquiry, Usage};
use super::stated::{list, text};

type Key = [u8; 32];

/// Keeps findings beyond this process.
pub trait FindingStore: std::fmt::Debug + Send + Sync {
    /// What was kept under a key. Blocks.
    fn get(&self, key: &[u8; 32]) -> Option<Vec<u8>>;

    /// Keeps a finding, or fails silently: then it is asked again one day. Returns at once, so that a finding is on its way
    /// before anything that was made of it.
    fn put(&self, key: &[u8; 32], value: &[u8]);
}

/// What is known.
#[derive(Clone)]
pub(super) struct Kept {
    findings: moka::future::Cache<Key, Arc<Finding>>,
    store: Option<Arc<dyn FindingStore>>,
}

impl Kept {
    /// About this many bytes here, and what `store` has.
    pub(super) fn new(bytes: u64, store: Option<Arc<dyn FindingStore>>) -> Self {
        let weigh = |_: &Key, finding: &Arc<Finding>| u32::try_from(weight(finding)).unwrap_or(u32::MAX);
        Self { findings: moka::future::Cache::builder().weigher(weigh).max_capacity(bytes).build(), store }
    }

    /// What is kept here under a key.
    pub(super) async fn at_hand(&self, key: &Key) -> Option<Arc<Finding>> {
        self.findings.get(key).await
    }

    /// What is kept beyond this process of an inquiry in this form, or in any; from now on it is kept here, too.
    pub(super) async fn recall(&self, keys: &Keys, want: &AnswerForm, form: Option<Form>) -> Option<Arc<Finding>> {
        for kept_as in [Form::AsWanted, Form::LabelAlone] {
            if form.is_none_or(|form| form == kept_as)
                && let Some(known) = self.read(keys.of(kept_as)).await
                && form.is_none_or(|form| form == known.form(want))
            {
                let known = Arc::new(known);
                self.findings.insert(keys.of(known.form(want)), known.clone()).await;
                return Some(known);
            }
        }
        None
    }

    /// Keeps a finding here and beyond, by the form that it has, which need not be the one that was likely.
    pub(super) async fn keep(&self, keys: &Keys, want: &AnswerForm, finding: &Arc<Finding>) {
        let key = keys.of(finding.form(want));
        if let Some(store) = &self.store {
            store.put(&key, &to_bytes(finding));
        }
        self.findings.insert(key, finding.clone()).await;
    }

    async fn read(&self, key: Key) -> Option<Finding> {
        let store = self.store.clone()?;
        let kept = tokio::task::spawn_blocking(move || store.get(&key)).await.ok()??;
        from_bytes(&kept)
    }
}

fn weight(finding: &Finding) -> usize {
    let said = match &finding.said {
        BackendAnswer::Labels(logprobs) => 8 * logprobs.len(),
        BackendAnswer::Chosen { reasoning, logprobs, .. } => {
            reasoning.len() + 8 * logprobs.as_ref().map_or(0, Vec::len)
        }
        BackendAnswer::Reward(_) => 0,
        BackendAnswer::Order(order) => 8 * order.len(),
    };
    256 + said
}

/// What an inquiry's answers are kept under: the hash of all that they depend on. Prompts may be long, so that one is hashed
/// once for all forms.
#[derive(Clone)]
pub(super) struct Keys(blake3::Hasher);

impl Keys {
    /// Of an inquiry to the judge of this identity.
    pub(super) fn new(identity: &str, inquiry: &Inquiry) -> Self {
        let mut keys = Self(blake3::Hasher::new());
        keys.part(identity);
        keys.part(&written(&inquiry.want));
        for message in &inquiry.messages {
            keys.part(message.role.as_str());
            keys.part(&message.text);
            keys.part(&list(message.untrusted.iter().map(|range| format!("{}..{}", range.start, range.end))));
        }
        keys
    }

    /// The key of an answer in this form. Before a judge has answered anything, it is likely to answer as it is asked to.
    pub(super) fn likely(&self, form: Option<Form>) -> Key {
        self.of(form.unwrap_or(Form::AsWanted))
    }

    /// The key of an answer in this form.
    fn of(&self, form: Form) -> Key {
        let mut keys = self.clone();
        if form == Form::LabelAlone {
            keys.part("label alone");
        }
        *keys.0.finalize().as_bytes()
    }

    fn part(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
}

/// The form of an answer, as keys have it.
fn written(want: &AnswerForm) -> String {
    let all = |labels: &[String]| list(labels.iter().map(|label| text(label)));
    match want {
        AnswerForm::Labels(labels) => format!("Labels({})", all(labels)),
        AnswerForm::ReasonedLabel { labels, thinking_tokens, seed } => {
            format!("ReasonedLabel {{ labels: {}, thinking_tokens: {thinking_tokens}, seed: {seed} }}", all(labels))
        }
        AnswerForm::Reward => "Reward".to_owned(),
        AnswerForm::Order { candidates } => format!("Order {{ candidates: {candidates} }}"),
    }
}

/// JSON has no infinity: a label that was not offered is null.
fn to_bytes(finding: &Finding) -> Vec<u8> {
    let numbers = |logprobs: &[f64]| -> Value { logprobs.iter().map(|lp| lp.is_finite().then_some(*lp)).collect() };
    let said = match &finding.said {
        BackendAnswer::Labels(logprobs) => json!({"labels": numbers(logprobs)}),
        BackendAnswer::Chosen { label, reasoning, logprobs } => {
            json!({"chosen": label, "reasoning": reasoning, "logprobs": logprobs.as_deref().map(numbers)})
        }
        BackendAnswer::Reward(raw) => json!({"reward": raw}),
        BackendAnswer::Order(order) => json!({"order": order}),
    };
    said.to_string().into_bytes()
}

fn from_bytes(bytes: &[u8]) -> Option<Finding> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let numbers = |value: &Value| -> Option<Vec<f64>> {
        let number = |value: &Value| if value.is_null() { Some(f64::NEG_INFINITY) } else { value.as_f64() };
        value.as_array()?.iter().map(number).collect()
    };
    let index = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let said = if let Some(labels) = value.get("labels") {
        BackendAnswer::Labels(numbers(labels)?)
    } else if let Some(chosen) = value.get("chosen") {
        BackendAnswer::Chosen {
            label: index(chosen)?,
            reasoning: value.get("reasoning")?.as_str()?.to_owned(),
            logprobs: match value.get("logprobs")? {
                Value::Null => None,
                logprobs => Some(numbers(logprobs)?),
            },
        }
    } else if let Some(raw) = value.get("reward") {
        BackendAnswer::Reward(raw.as_f64()?)
    } else {
        BackendAnswer::Order(value.get("order")?.as_array()?.iter().map(index).collect::<Option<_>>()?)
    };
    Some(Finding { said, usage: Usage::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::inquiry::{ChatRole, PromptMessage};

    #[test]
    fn the_form_of_an_answer_is_written_as_it_always_was() {
        let labels: Arc<[String]> = ["Yes".to_owned(), "\"No\"".to_owned()].into();
        let reasoned = AnswerForm::ReasonedLabel { labels: labels.clone(), thinking_tokens: 9, seed: 3 };
        for (want, form) in [
            (AnswerForm::Labels(labels), r#"Labels(["Yes", "\"No\""])"#),
            (reasoned, r#"ReasonedLabel { labels: ["Yes", "\"No\""], thinking_tokens: 9, seed: 3 }"#),
            (AnswerForm::Reward, "Reward"),
            (AnswerForm::Order { candidates: 4 }, "Order { candidates: 4 }"),
        ] {
            assert_eq!(written(&want), form);
        }
    }

    #[test]
    fn a_key_is_the_hash_of_all_that_an_answer_depends_on() {
        let said = PromptMessage { role: ChatRole::User, text: "a b c".to_owned(), untrusted: vec![0..1, 4..5] };
        let inquiry = Inquiry { messages: vec![said], want: AnswerForm::Reward, fewer: [].into() };
        let mut hasher = blake3::Hasher::new();
        for part in ["judge", "Reward", "user", "a b c", "[0..1, 4..5]"] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        assert_eq!(Keys::new("judge", &inquiry).of(Form::AsWanted), *hasher.finalize().as_bytes());
    }
}
