//! One request's questions and the answers to them. Scoring asks it; what it cannot answer, it notes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use super::inquiry::{AnswerForm, ChatRole, Inquiry, PromptMessage, ShorterPrompts};
use super::prompt::{self, PastMessage, Prompt, PromptError, PromptTemplate, PromptValues, Subject, task_of};
use super::verdict::labels_of;
use super::{Answers, Judges};
use crate::locks;
use crate::stages::{Judge, JudgeAnswer, JudgeMode, JudgeStage, Question, Unavailable, Verdict};
use crate::trajectory::{Message, Role};

/// How long judges may take where nobody set a limit.
const LONGEST: Duration = Duration::from_mins(10);

/// Compiled templates by their source, of all requests: compiling one tries it out, which costs more than filling it in.
type Templates = LazyLock<moka::sync::Cache<String, Arc<PromptTemplate>>>;

/// Those that are about one answer.
static OF_AN_ANSWER: Templates = LazyLock::new(|| moka::sync::Cache::new(MAX_TEMPLATES));

/// Those that are about the answers of a group.
static OF_CANDIDATES: Templates = LazyLock::new(|| moka::sync::Cache::new(MAX_TEMPLATES));

/// Most templates of each that are kept compiled: requests may bring their own.
const MAX_TEMPLATES: u64 = 256;

/// What tells two questions of a request apart.
pub(crate) type Key = [u8; 32];

/// The questions of a request.
#[derive(Debug, Default)]
pub struct Session {
    known: HashMap<Key, Result<Verdict, Unavailable>>,
    noted: Mutex<BTreeMap<Key, Noted>>,
    asked: BTreeMap<String, String>,
}

/// A question that waits for its answer.
#[derive(Debug, Clone)]
pub struct Noted {
    pub(super) key: Key,
    pub(super) stage: Arc<JudgeStage>,
    pub(super) asked: Result<Asked, Unavailable>,
}

/// A question's own matter.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    /// About one answer: the prompt, rendered.
    One(Prompt),
    /// About an answer among those of its group.
    Among(Candidate),
}

/// An answer that is to be put in order with others.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) group: String,
    pub(super) task: String,
    pub(super) references: Vec<Cow<'static, str>>,
    pub(super) answer: String,
    pub(super) template: Arc<PromptTemplate>,
}

impl Session {
    /// The questions that were noted since they were last taken, in an order that depends on nothing but them.
    fn take_noted(&self) -> Vec<Noted> {
        std::mem::take(&mut *locks::lock(&self.noted)).into_values().collect()
    }

    /// Takes the answers to `asked`. A question without one has failed.
    fn learn(&mut self, asked: &[Key], answers: Answers) {
        self.known.extend(answers);
        for key in asked {
            let message = "the judge failed on this question; the server's log says more";
            self.known.entry(*key).or_insert_with(|| Err(Unavailable::no_verdict(message)));
        }
    }

    /// Whether questions are noted that nobody has answered.
    pub fn has_questions(&self) -> bool {
        !locks::lock(&self.noted).is_empty()
    }

    /// The judges that were asked, by name, with their identities.
    pub fn judges_asked(&self) -> &BTreeMap<String, String> {
        &self.asked
    }

    /// Puts the questions that were noted to the judges, until `deadline`. False when there were none: what was scored
    /// holds.
    pub async fn put_to(&mut self, judges: &Judges, deadline: Option<Instant>) -> bool {
        let noted = self.take_noted();
        if noted.is_empty() {
            return false;
        }
        for name in noted.iter().flat_map(|noted| &noted.stage.judges) {
            if let Some(identity) = judges.identity_of(name).filter(|_| !self.asked.contains_key(name)) {
                self.asked.insert(name.clone(), identity.to_owned());
            }
        }
        let asked: Vec<Key> = noted.iter().map(|noted| noted.key).collect();
        let deadline = deadline.unwrap_or_else(|| Instant::now() + LONGEST);
        let answers = judges.answer(noted, deadline).await;
        self.learn(&asked, answers);
        true
    }

    /// The stage's template.
    fn template(stage: &JudgeStage) -> Result<Arc<PromptTemplate>, Unavailable> {
        let source = stage.prompt.as_deref().unwrap_or_else(|| default_template(&stage.mode));
        compiled(source, subject(&stage.mode)).map_err(|error| broken(&error))
    }
}

/// A template, compiled once for as long as it is in use.
pub(super) fn compiled(source: &str, subject: Subject) -> Result<Arc<PromptTemplate>, PromptError> {
    let templates = match subject {
        Subject::Answer => &OF_AN_ANSWER,
        Subject::Candidates => &OF_CANDIDATES,
    };
    if let Some(template) = templates.get(source) {
        return Ok(template);
    }
    let template = Arc::new(PromptTemplate::parse(source, subject)?);
    templates.insert(source.to_owned(), template.clone());
    Ok(template)
}

/// What the prompts of a mode are about.
pub(super) fn subject(mode: &JudgeMode) -> Subject {
    match mode {
        JudgeMode::Rank => Subject::Candidates,
        JudgeMode::LabelLogprob { .. }
        | JudgeMode::Match
        | JudgeMode::Generate { .. }
        | JudgeMode::RewardModel { .. } => Subject::Answer,
    }
}

/// The template of a stage that brings none.
pub(super) fn default_template(mode: &JudgeMode) -> &'static str {
    match mode {
        JudgeMode::Match => prompt::MATCH,
        JudgeMode::Generate { .. } => prompt::GENERATE,
        JudgeMode::Rank => prompt::RANK,
        JudgeMode::LabelLogprob { .. } | JudgeMode::RewardModel { .. } => prompt::LABEL,
    }
}

fn broken(error: &PromptError) -> Unavailable {
    Unavailable::no_verdict(error.to_string())
}

impl Judge for Session {
    fn ask(&self, question: &Question<'_>) -> JudgeAnswer {
        let key = key(question);
        match self.known.get(&key) {
            Some(Ok(verdict)) => return JudgeAnswer::Verdict(verdict.clone()),
            Some(Err(unavailable)) => return JudgeAnswer::Unavailable(unavailable.clone()),
            None => {}
        }
        let note = || Noted { key, stage: Arc::new(question.stage.clone()), asked: Self::asked(question) };
        let mut noted = locks::lock(&self.noted);
        if !noted.contains_key(&key) {
            // Rendering takes its time: not under the lock.
            drop(noted);
            let note = note();
            noted = locks::lock(&self.noted);
            noted.insert(key, note);
        }
        JudgeAnswer::Pending
    }
}

impl Session {
    fn asked(question: &Question<'_>) -> Result<Asked, Unavailable> {
        let stage = question.stage;
        if matches!(stage.mode, JudgeMode::RewardModel { .. }) && stage.prompt.is_none() {
            return Ok(Asked::One(Prompt { messages: conversation_as_is(question), fewer: ShorterPrompts::default() }));
        }
        let template = Self::template(stage)?;
        let conversation = conversation(question.messages);
        if matches!(stage.mode, JudgeMode::Rank) {
            let Some(group) = question.group else {
                let message = "mode `rank` puts the answers of a group in order, and this trajectory has no `group`";
                return Err(Unavailable::no_verdict(message));
            };
            return Ok(Asked::Among(Candidate {
                group: group.to_owned(),
                task: task_of(&conversation).to_owned(),
                references: question.references.iter().map(|r| Cow::Owned(r.to_string())).collect(),
                answer: question.answer.to_owned(),
                template,
            }));
        }
        let labels: Vec<String> = labels_of(&stage.mode).into_iter().map(|label| label.name).collect();
        let values = PromptValues {
            criteria: &stage.criteria,
            question: task_of(&conversation),
            conversation: &conversation,
            references: question.references,
            answer: question.answer,
            labels: &labels,
            candidates: &[],
        };
        template.prompt(&values).map(Asked::One).map_err(|error| broken(&error))
    }
}

impl Noted {
    pub(super) fn is_ranked(&self) -> bool {
        matches!(self.asked, Ok(Asked::Among(_)))
    }

    /// What a single question asks of a backend.
    pub(super) fn inquiry(&self) -> Result<Inquiry, Unavailable> {
        let Prompt { messages, fewer } = match &self.asked {
            Ok(Asked::One(prompt)) => prompt.clone(),
            Ok(Asked::Among(_)) => Prompt { messages: Vec::new(), fewer: ShorterPrompts::default() },
            Err(unavailable) => return Err(unavailable.clone()),
        };
        let labels = || labels_of(&self.stage.mode).into_iter().map(|label| label.name).collect();
        let want = match &self.stage.mode {
            JudgeMode::LabelLogprob { .. } | JudgeMode::Match | JudgeMode::Rank => AnswerForm::Labels(labels()),
            JudgeMode::Generate { thinking_tokens, seed, .. } => AnswerForm::ReasonedLabel {
                labels: labels(),
                thinking_tokens: *thinking_tokens,
                seed: u64::from(*seed),
            },
            JudgeMode::RewardModel { .. } => AnswerForm::Reward,
        };
        Ok(Inquiry { messages, want, fewer })
    }
}

/// The hash of all that the answer may depend on.
fn key(question: &Question<'_>) -> Key {
    let mut hasher = blake3::Hasher::new();
    let mut part = |kind: &str, text: &str| {
        hasher.update(kind.as_bytes()).update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    };
    part("stage", &format!("{:?}", question.stage));
    for message in conversation(question.messages) {
        part(message.role.as_str(), &message.text);
    }
    question.references.iter().for_each(|reference| part("reference", reference));
    part("answer", question.answer);
    if matches!(question.stage.mode, JudgeMode::Rank) {
        part("group", question.group.unwrap_or_default());
    }
    *hasher.finalize().as_bytes()
}

/// The conversation as templates see it.
fn conversation<'m>(messages: &'m [Message<'_>]) -> Vec<PastMessage<'m>> {
    let past = |message: &'m Message<'_>| match message {
        Message::Policy(turn) => PastMessage { role: Role::Assistant, text: turn.text_with_calls() },
        Message::Other { role, content } => PastMessage { role: *role, text: content.text() },
    };
    messages.iter().map(past).collect()
}

/// What a reward model reads: the task, and the answer as the assistant's.
fn conversation_as_is(question: &Question<'_>) -> Vec<PromptMessage> {
    let conversation = conversation(question.messages);
    let message = |role, text: &str| PromptMessage {
        role,
        text: text.to_owned(),
        untrusted: std::iter::once(0..text.len()).filter(|range| !range.is_empty()).collect(),
    };
    vec![message(ChatRole::User, task_of(&conversation)), message(ChatRole::Assistant, question.answer)]
}
