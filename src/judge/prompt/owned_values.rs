//! What a prompt was made of, for whoever may need to make a shorter one. In: values that are lent. Out: the same, owned.

use std::borrow::Cow;

use super::{PastMessage, PromptValues};

/// Values that outlive whom they were taken from.
pub(super) struct OwnedValues {
    criteria: String,
    question: String,
    conversation: Vec<PastMessage<'static>>,
    references: Vec<Cow<'static, str>>,
    answer: String,
    labels: Vec<String>,
}

impl OwnedValues {
    /// A copy of values about one answer.
    pub(super) fn of(values: &PromptValues<'_>) -> Self {
        let owned = |text: &Cow<'_, str>| Cow::Owned(text.clone().into_owned());
        let past = |message: &PastMessage<'_>| PastMessage { role: message.role, text: owned(&message.text) };
        Self {
            criteria: values.criteria.to_owned(),
            question: values.question.to_owned(),
            conversation: values.conversation.iter().map(past).collect(),
            references: values.references.iter().map(owned).collect(),
            answer: values.answer.to_owned(),
            labels: values.labels.to_vec(),
        }
    }

    /// The same, lent.
    pub(super) fn values(&self) -> PromptValues<'_> {
        PromptValues {
            criteria: &self.criteria,
            question: &self.question,
            conversation: &self.conversation,
            references: &self.references,
            answer: &self.answer,
            labels: &self.labels,
            candidates: &[],
        }
    }
}
