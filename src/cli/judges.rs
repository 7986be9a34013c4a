//! The judges of a command, opened where the first question is asked: who asks none needs no key of theirs, and does not
//! wait until a model is loaded. In: settings, requests. Out: what was scored, every question answered.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Scoring;
use crate::http::batch::{BatchError, Engine, Overrides, Scored, Stop};
use crate::judge::{self, ConfigError, FindingStore, Judges, Session};

/// Judges that are opened once, when they are needed.
pub(super) struct LazyJudges {
    settings: judge::Config,
    memory: Option<Arc<dyn FindingStore>>,
    opened: OnceCell<Judges>,
}

impl LazyJudges {
    pub(super) fn new(scoring: &Scoring, memory: Option<Arc<dyn FindingStore>>) -> Self {
        Self { settings: scoring.judges.clone(), memory, opened: OnceCell::new() }
    }

    /// The judges.
    ///
    /// # Errors
    /// The first that cannot be had, and why.
    pub(super) fn get(&self) -> Result<&Judges, ConfigError> {
        if let Some(judges) = self.opened.get() {
            return Ok(judges);
        }
        // Loading a model blocks, and whoever needs one may be awaiting its answer already.
        let judges = tokio::task::block_in_place(|| super::open_judges(&self.settings, self.memory.clone()))?;
        Ok(self.opened.get_or_init(|| judges))
    }

    /// Puts a session's questions to the judges, and to those of another time where none of theirs has that name. False
    /// when there were no questions.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) async fn answer(
        &self,
        session: &mut Session,
        past: Option<&BTreeMap<String, String>>,
    ) -> Result<bool, ConfigError> {
        if !session.has_questions() {
            return Ok(false);
        }
        let judges = self.get()?;
        Ok(match past {
            Some(past) => session.put_to(&judges.with_past(past.clone()), None).await,
            None => session.put_to(judges, None).await,
        })
    }

    /// Scores a request, and again whenever its judge stages have questions, which the judges are asked in between.
    /// Blocks while it scores.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) async fn score(
        &self,
        engine: &Engine,
        body: &str,
        overrides: &Overrides<'_>,
        past: Option<&BTreeMap<String, String>>,
    ) -> Result<Result<Scored, BatchError>, ConfigError> {
        let mut session = Session::default();
        loop {
            let scored = engine.score(body, overrides, &Stop::default(), &session);
            if !self.answer(&mut session, past).await? {
                return Ok(scored);
            }
        }
    }
}
