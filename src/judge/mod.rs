//! The judges: what fills the stages' port. In: the questions that scoring noted. Out: verdicts, or why there are none.
//!
//! Scoring never waits. It asks a [`Session`], which knows the answers it was given and notes the questions that it has
//! none for; [`Judges::answer`] puts those to the models, and scoring is done again. A question is rendered into a
//! prompt (`prompt`, `fence`), goes to one judge or a panel (`local`, `remote`) through a cache (`cache`), and what comes
//! back becomes a score (`verdict`, `rank`). Knows no request format.
//!
//! [`check`] and [`attack`] measure judges on examples, through the same questions.

pub mod attack;
pub mod bench;
mod cache;
pub mod check;
mod config;
mod deadline;
pub mod examples;
mod fence;
mod inquiry;
mod kept;
mod local;
mod metrics;
mod poll;
mod prompt;
mod rank;
mod remote;
pub mod rubric;
mod session;
mod shorten;
mod single_flight;
mod stated;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

pub use self::cache::CacheCounts;
pub use self::config::{Config, ConfigError, JudgeConfig};
pub use self::inquiry::{AnswerForm, BackendAnswer, ChatRole, Finding, Inquiry, PromptMessage, ShorterPrompts, Usage};
pub use self::kept::FindingStore;
pub use self::local::Local;
pub use self::prompt::{PromptError, PromptTemplate};
pub use self::rank::MAX_CANDIDATES;
pub use self::remote::{EndpointSnapshot, Health, Remote};
pub use self::session::{Noted, Session};

use self::cache::Cache;
use self::deadline::Deadline;
use self::inquiry::Form;
use self::session::Key;
use crate::lm::WorkerNumbers;
use crate::stages::{Unavailable, UnavailableCode, Verdict};

/// Answers to noted questions.
pub(crate) type Answers = Vec<(Key, Result<Verdict, Unavailable>)>;

/// All judges of a server by name.
#[derive(Debug, Clone)]
pub struct Judges {
    by_name: Arc<BTreeMap<String, Model>>,
    /// Judges of another time, by name and identity: what they said may be known, and no more can be asked of them.
    past: Arc<BTreeMap<String, String>>,
    cache: Arc<Cache>,
}

/// Where a judge's answers come from. Dropping the future of an answer frees its work.
#[derive(Debug)]
enum Model {
    /// A model on this machine.
    Local(Local),
    /// Endpoints elsewhere.
    Remote(Box<Remote>),
}

/// A model's answer, and whether it was known before.
struct Found {
    finding: Finding,
    hit: bool,
}

/// What a judge of this server is and does, for metrics and readiness.
#[derive(Debug, Clone)]
pub struct JudgeState {
    /// Whether it can answer.
    pub ready: bool,
    /// What tells it apart from any other.
    pub identity: String,
    /// Tokens that wait, of a local one.
    pub queued_tokens: u64,
    /// What a local one did so far.
    pub numbers: Option<WorkerNumbers>,
    /// What the endpoints of a remote one were asked so far.
    pub endpoints: Vec<remote::EndpointSnapshot>,
}

impl Judges {
    /// A server without any.
    pub fn none() -> Self {
        Self::with(BTreeMap::new(), 0, None)
    }

    /// Loads and connects all judges of a configuration. `key` finds the key that a name in `api_key_env` stands for;
    /// `store` keeps findings beyond this process.
    ///
    /// # Errors
    /// The first judge that cannot be had, and why.
    pub fn open(
        config: &Config,
        key: impl Fn(&str) -> Option<String>,
        store: Option<Arc<dyn FindingStore>>,
    ) -> Result<Self, ConfigError> {
        let open = |(name, judge): (&String, &JudgeConfig)| match judge.open(&key) {
            Ok(model) => Ok((name.clone(), model)),
            Err(reason) => Err(ConfigError { judge: name.clone(), reason }),
        };
        let by_name = config.judges.iter().map(open).collect::<Result<_, _>>()?;
        tell_apart(&by_name)?;
        Ok(Self::with(by_name, config.cache_bytes, store))
    }

    fn with(by_name: BTreeMap<String, Model>, cache_bytes: u64, store: Option<Arc<dyn FindingStore>>) -> Self {
        Self { by_name: Arc::new(by_name), past: Arc::default(), cache: Arc::new(Cache::new(cache_bytes, store)) }
    }

    /// The same judges, and for names that none of them has, those of another time by their identities: their answers
    /// come from what is remembered of them.
    #[must_use]
    pub fn with_past(&self, identities: BTreeMap<String, String>) -> Self {
        Self { past: Arc::new(identities), ..self.clone() }
    }

    /// What tells a judge apart from any other that could give another answer; `None` where there is none of that name.
    pub fn identity_of(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(Model::identity)
    }

    /// Whether there is no judge at all.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Every judge's state, by name.
    pub fn states(&self) -> BTreeMap<String, JudgeState> {
        self.by_name.iter().map(|(name, model)| (name.clone(), model.state())).collect()
    }

    /// How often the cache knew an answer.
    pub fn cache_counts(&self) -> CacheCounts {
        self.cache.counts()
    }

    /// What identifies the judges that a rubric's stage asks, for the record of a score.
    pub fn identity(&self, names: &[String]) -> String {
        let of = |name: &String| self.by_name.get(name).map_or("none", |model| model.identity()).to_owned();
        names.iter().map(of).collect::<Vec<_>>().join("+")
    }

    /// Puts noted questions to their judges, all at once. Dropping the future frees the work.
    pub async fn answer(&self, noted: Vec<Noted>, deadline: Instant) -> Answers {
        let mut asking = JoinSet::new();
        let (ranked, single): (Vec<Noted>, Vec<Noted>) = noted.into_iter().partition(Noted::is_ranked);
        for question in single {
            let judges = self.clone();
            asking.spawn(async move { vec![(question.key, judges.judge(&question, deadline).await)] });
        }
        for group in rank::groups(ranked) {
            let judges = self.clone();
            asking.spawn(async move { judges.rank(group, deadline).await });
        }
        let mut answers = Vec::new();
        while let Some(done) = asking.join_next().await {
            // A task that panicked leaves its questions unanswered; the session says so.
            answers.extend(done.unwrap_or_default());
        }
        answers
    }

    /// One question to all judges of its panel.
    async fn judge(&self, question: &Noted, deadline: Instant) -> Result<Verdict, Unavailable> {
        let mut scores = Vec::with_capacity(question.stage.judges.len());
        for found in self.panel(&question.stage.judges, &question.inquiry()?, deadline).await {
            let found = found?;
            scores.push(verdict::score(&found.finding, &question.stage, found.hit)?);
        }
        verdict::panel(scores, question.stage.panel)
    }

    async fn rank(&self, group: rank::Group, deadline: Instant) -> Answers {
        let stage = group.stage.clone();
        let mut orders = Vec::new();
        let placed = async {
            for inquiry in group.inquiries()? {
                for found in self.panel(&stage.judges, &inquiry, deadline).await {
                    let found = found?;
                    orders.push((rank::order(&found.finding)?, found.hit));
                }
            }
            Ok(())
        };
        let placed: Result<(), Unavailable> = placed.await;
        group.verdicts(placed.map(|()| orders))
    }

    /// One inquiry to several judges, at once, in their order.
    async fn panel(&self, names: &[String], inquiry: &Inquiry, deadline: Instant) -> Vec<Result<Found, Unavailable>> {
        let mut asking = JoinSet::new();
        for (place, name) in names.iter().enumerate() {
            let (judges, name, inquiry) = (self.clone(), name.clone(), inquiry.clone());
            asking.spawn(async move { (place, judges.ask(&name, &inquiry, deadline).await) });
        }
        let mut found = asking.join_all().await;
        found.sort_by_key(|(place, _)| *place);
        found.into_iter().map(|(_, found)| found).collect()
    }

    async fn ask(&self, name: &str, inquiry: &Inquiry, deadline: Instant) -> Result<Found, Unavailable> {
        let (model, past) = (self.by_name.get(name), self.past.get(name));
        if let (None, Some(identity)) = (model, past) {
            let (gone, late) = (gone(name), || Err(late(name)));
            let found = self.cache.get(identity, inquiry, None, deadline.into(), |_, _| async { Err(gone) }).await;
            return found.unwrap_or_else(late);
        }
        let Some(model) = model else {
            let known = self.by_name.keys().cloned().collect::<Vec<_>>().join(", ");
            let known =
                if known.is_empty() { "no judge; start it with `--judge MODEL_DIRECTORY`".to_owned() } else { known };
            let message = format!("the rubric asks the judge {name:?}, and this server has {known}");
            return Err(Unavailable { code: UnavailableCode::NotConfigured, message });
        };
        let (form, identity) = (model.form(&inquiry.want), model.identity());
        let (judges, asked) = (self.clone(), name.to_owned());
        let ask = |inquiry: Arc<Inquiry>, until: Deadline| async move {
            match judges.by_name.get(&asked) {
                Some(model) => model.answer(&inquiry, &until).await.unwrap_or_else(|| Err(late(&asked))),
                None => Err(gone(&asked)),
            }
        };
        let found = self.cache.get(identity, inquiry, form, deadline.into(), ask).await;
        found.unwrap_or_else(|| Err(late(name)))
    }
}

/// The request's time is up.
fn late(name: &str) -> Unavailable {
    Unavailable {
        code: UnavailableCode::Timeout,
        message: format!("the judge {name:?} did not answer before the request's deadline"),
    }
}

/// Judges share what they said by their identity, so none may stand for two models.
fn tell_apart(judges: &BTreeMap<String, Model>) -> Result<(), ConfigError> {
    let mut known: BTreeMap<&str, (&String, Vec<&str>)> = BTreeMap::new();
    for (name, model) in judges {
        let Model::Remote(remote) = model else { continue };
        let (other, urls) = known.entry(remote.identity()).or_insert_with(|| (name, remote.urls()));
        if *urls != remote.urls() {
            let reason = format!(
                "the same model as judge {other:?} at other endpoints: give both in one judge where they serve the same \
                 weights, or each its own `revision` where they do not"
            );
            return Err(ConfigError { judge: name.clone(), reason });
        }
    }
    Ok(())
}

/// A judge of another time that is to answer something new.
fn gone(name: &str) -> Unavailable {
    let message = format!(
        "what the judge {name:?} said to this is not known any more; give it with `--judge`, or as a [judges] table"
    );
    Unavailable { code: UnavailableCode::NotConfigured, message }
}

impl Model {
    fn identity(&self) -> &str {
        match self {
            Self::Local(local) => local.identity(),
            Self::Remote(remote) => remote.identity(),
        }
    }

    /// The form in which it answers; none while that is not known.
    fn form(&self, want: &AnswerForm) -> Option<Form> {
        match self {
            Self::Local(_) => Some(Form::AsWanted),
            Self::Remote(remote) => remote.form(want),
        }
    }

    /// The answer; none where it is not there by the deadline and no more can be said.
    async fn answer(&self, inquiry: &Inquiry, deadline: &Deadline) -> Option<Result<Finding, Unavailable>> {
        match self {
            Self::Local(local) => deadline.timeout(local.answer(inquiry)).await,
            Self::Remote(remote) => Some(remote.answer(inquiry, deadline).await),
        }
    }

    fn state(&self) -> JudgeState {
        let identity = self.identity().to_owned();
        match self {
            Self::Local(local) => JudgeState {
                ready: local.worker().alive(),
                identity,
                queued_tokens: local.worker().queued_tokens(),
                numbers: Some(local.worker().numbers()),
                endpoints: Vec::new(),
            },
            // Endpoints come and go; a server is ready to ask them at any time.
            Self::Remote(remote) => {
                JudgeState { ready: true, identity, queued_tokens: 0, numbers: None, endpoints: remote.snapshot() }
            }
        }
    }
}
