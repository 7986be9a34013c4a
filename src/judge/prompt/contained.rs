//! A prompt's values as a template sees them. In: untrusted texts. Out: variables with a fence around a placeholder for each,
//! and which placeholders stand for what is to be judged.

use std::borrow::Cow;
use std::collections::BTreeSet;

use minijinja::Value;

use super::{PromptValues, Subject};
use crate::judge::fence::Fence;
use crate::lm::untrusted::{Placeholders, UntrustedError};
use crate::trajectory::Role;

/// The untrusted values as they may stand inside their fences.
pub(super) struct Contained<'a> {
    question: Cow<'a, str>,
    answer: Cow<'a, str>,
    conversation: Vec<Cow<'a, str>>,
    references: Vec<Cow<'a, str>>,
    candidates: Vec<Cow<'a, str>>,
}

impl<'a> Contained<'a> {
    pub(super) fn new(values: &PromptValues<'a>, fence: &Fence) -> Self {
        let contain_all = |texts: &'a [Cow<'a, str>]| texts.iter().map(|text| fence.contain(text)).collect();
        Self {
            question: fence.contain(values.question),
            answer: fence.contain(values.answer),
            conversation: values.conversation.iter().map(|message| fence.contain(&message.text)).collect(),
            references: contain_all(values.references),
            candidates: contain_all(values.candidates),
        }
    }

    /// What the template sees: trusted text, and fences around placeholders; and which of those stand for what is judged.
    pub(super) fn variables<'s>(
        &'s self,
        values: &PromptValues<'_>,
        fence: &Fence,
        placeholders: &mut Placeholders<'s>,
    ) -> Result<(Value, Hidden), UntrustedError> {
        let mut fenced = |what: &str, text: &'s str| -> Result<(Value, char), UntrustedError> {
            let placeholder = placeholders.stand_in(text)?;
            let block = format!("{}{placeholder}{}", fence.open(what), fence.close(what));
            Ok((Value::from(block), placeholder))
        };
        let mut numbered = |what: &str, texts: &'s [Cow<'a, str>]| -> Result<(Vec<Value>, Vec<char>), UntrustedError> {
            let blocks = texts.iter().enumerate().map(|(index, text)| fenced(&format!("{what} {}", index + 1), text));
            blocks.collect()
        };
        let (references, _) = numbered("reference", &self.references)?;
        let (candidates, hidden_candidates) = numbered("candidate", &self.candidates)?;
        let (question, _) = fenced("question", &self.question)?;
        let (answer, hidden_answer) = fenced("answer", &self.answer)?;
        let mut hidden =
            Hidden { judged: vec![hidden_answer], candidates: hidden_candidates, conversation: Vec::new() };
        let mut conversation = Vec::with_capacity(self.conversation.len());
        for (message, text) in values.conversation.iter().zip(&self.conversation) {
            let role = message.role.as_str();
            let (text, placeholder) = fenced(role, text)?;
            conversation.push(Value::from_pairs([("role", Value::from(role)), ("text", text)]));
            hidden.conversation.push(placeholder);
            if message.role == Role::Assistant {
                hidden.judged.push(placeholder);
            }
        }
        let variables = Value::from_pairs([
            ("criteria", Value::from(values.criteria)),
            ("question", question),
            ("conversation", Value::from(conversation)),
            ("references", Value::from(references)),
            ("answer", answer),
            ("labels", values.labels.iter().map(Value::from).collect::<Value>()),
            ("candidates", Value::from(candidates)),
            ("fence", Value::from(fence.nonce())),
        ]);
        Ok((variables, hidden))
    }
}

/// The placeholders of texts that a prompt may have to show.
pub(super) struct Hidden {
    /// Of the answer, and of what the policy said in the conversation.
    judged: Vec<char>,
    candidates: Vec<char>,
    conversation: Vec<char>,
}

impl Hidden {
    /// Whether some of the conversation was shown.
    pub(super) fn shows_conversation(&self, shown: &BTreeSet<char>) -> bool {
        self.conversation.iter().any(|placeholder| shown.contains(placeholder))
    }

    /// Whether what a prompt is about was shown.
    pub(super) fn shows(&self, subject: Subject, shown: &BTreeSet<char>) -> bool {
        match subject {
            Subject::Answer => self.judged.iter().any(|placeholder| shown.contains(placeholder)),
            Subject::Candidates => self.candidates.iter().all(|placeholder| shown.contains(placeholder)),
        }
    }
}
