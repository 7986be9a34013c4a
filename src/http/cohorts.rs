//! Members of a group that come in requests of their own: they wait for each other and are scored together.
//!
//! In: a member's items and what they are scored by. Out: the members' scores. A cohort is scored when it has its size,
//! when its time is over (with those that came), or when the server stops; a member whose client goes away leaves, but for
//! one with an idempotency key, which whoever repeats its request finds waiting. Only
//! for rubrics and policies that look at the group: everything else is scored at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::sleep_until;

use super::app::App;
use super::batch::{BatchError, Due, Scored};
use super::error::Problem;
use super::kind::Kind;
use super::limits::AbandonOnDrop;
use super::scoring::{self, Job, Storing, by_size, log_untold};
use super::wire::MAX_TRAJECTORIES;
use crate::locks;

/// Most members that wait at once.
const MAX_WAITING: usize = 1 << 16;
/// Most bytes of items that wait at once.
const MAX_BYTES: usize = 512 << 20;

/// What all members of a cohort share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CohortKey {
    /// The native request up to its items, JSON: the same settings.
    pub(crate) envelope: Arc<str>,
    /// The group.
    pub(crate) group: String,
}

/// What a member brings.
pub(crate) struct Joining {
    /// Its items, JSON, joined by commas.
    pub(crate) items: String,
    /// How many items.
    pub(crate) count: usize,
    /// Items that make the group complete.
    pub(crate) size: usize,
    /// How long the first member waits for the others, counted from when its request arrived.
    pub(crate) patience: Duration,
    /// The request that brings it.
    pub(crate) request: Coming,
}

/// A request that brings members.
#[derive(Clone)]
pub(crate) struct Coming {
    /// When it arrived.
    pub(crate) arrived: Instant,
    /// When its answer is due.
    pub(crate) due: Option<Due>,
    /// Its id.
    pub(crate) request_id: String,
    /// Whether it waits for what is being stored when that is late: its client has a key, and hears of the answer by it.
    pub(crate) patient: bool,
}

impl Joining {
    /// What it is told where nearly all of its time is over: those that are scored with it have no more than it has.
    fn too_late(&self) -> Option<Problem> {
        let due = self.request.due?;
        let left = due.at.saturating_duration_since(Instant::now());
        (left < Duration::from_millis(due.limit_ms / 20)).then(|| BatchError::Deadline(due).into())
    }
}

/// A member's scores.
pub(crate) struct MemberScores {
    /// Those of the whole cohort.
    pub(crate) scored: Arc<Scored>,
    /// Place of the member's first item among them.
    pub(crate) first: usize,
}

/// The cohorts that wait.
#[derive(Default)]
pub(crate) struct Cohorts(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    cohorts: HashMap<CohortKey, Cohort>,
    members: usize,
    bytes: usize,
    next: u64,
}

/// A group that is not complete.
struct Cohort {
    number: u64,
    members: Vec<Member>,
    /// Items that came: kept, since every request that joins asks for them while all others wait.
    items: usize,
    timer: AbortHandle,
}

impl Cohort {
    /// Takes a member in; whether the group has its size then, as the member knows it.
    fn add(&mut self, member: Member) -> bool {
        self.items += member.joining.count;
        let complete = self.items >= member.joining.size;
        self.members.push(member);
        complete
    }

    /// Takes a member out, if it is there.
    fn remove(&mut self, number: u64) -> Option<Joining> {
        let place = self.members.iter().position(|member| member.number == number)?;
        let gone = self.members.remove(place).joining;
        self.items = self.items.saturating_sub(gone.count);
        Some(gone)
    }
}

struct Member {
    number: u64,
    joining: Joining,
    /// Place of its first item among those of all, as soon as they are put together.
    first: usize,
    answer: oneshot::Sender<Result<MemberScores, Problem>>,
}

/// Takes the member out when its client goes away.
struct Membership<'a> {
    cohorts: &'a Cohorts,
    key: CohortKey,
    number: u64,
}

impl Membership<'_> {
    /// Whether the member was still waiting for the others.
    fn leave(&self) -> bool {
        self.cohorts.lock().leave(&self.key, self.number)
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Cohorts {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        locks::lock(&self.0)
    }
}

/// Waits for the rest of the group and is scored with it.
///
/// # Errors
/// 429 when too many wait, 504 when its own time is over, and whatever scoring the group gives.
pub(crate) async fn join(app: &App, key: CohortKey, joining: Joining) -> Result<MemberScores, Problem> {
    if let Some(problem) = joining.too_late() {
        return Err(problem);
    }
    let due = joining.request.due;
    let (answer, mut wait) = oneshot::channel();
    let (number, settled) = {
        let mut waiting = app.cohorts.lock();
        waiting.take_in(app, &key, joining, answer)?
    };
    let membership = Membership { cohorts: &app.cohorts, key: key.clone(), number };
    for cohort in settled {
        tokio::spawn(settle(app.clone(), key.clone(), cohort));
    }
    if app.is_draining() {
        // It came in between the signal to stop and the end of all waiting.
        settle_all(app);
    }
    let scores = match due {
        Some(due) => tokio::select! {
            scores = &mut wait => scores,
            // A member that is being scored has no later deadline than this, and hears more of it.
            () = sleep_until(due.at.into()) => {
                if membership.leave() { Ok(Err(BatchError::Deadline(due).into())) } else { wait.await }
            }
        },
        None => wait.await,
    };
    scores.unwrap_or_else(|_| Err(Problem::internal("the group could not be scored; please report this")))
}

/// Scores every cohort with those that came: nobody else will.
pub(crate) fn settle_all(app: &App) {
    let cohorts: Vec<_> = app.cohorts.lock().take_all();
    for (key, cohort) in cohorts {
        tokio::spawn(settle(app.clone(), key, cohort));
    }
}

impl Waiting {
    /// Adds a member; gives its number, and what is to be scored now: the cohort when that is complete, and one before it where
    /// they would be more together than a request may have.
    fn take_in(
        &mut self,
        app: &App,
        key: &CohortKey,
        joining: Joining,
        answer: oneshot::Sender<Result<MemberScores, Problem>>,
    ) -> Result<(u64, Vec<Cohort>), Problem> {
        self.room_for(joining.items.len())?;
        let number = self.next;
        self.next += 1;
        let crowded = self.cohorts.get(key).is_some_and(|cohort| cohort.items + joining.count > MAX_TRAJECTORIES);
        let before = if crowded { self.take_out(key) } else { None };
        let patience = joining.patience.saturating_sub(joining.request.arrived.elapsed());
        self.members += 1;
        self.bytes += joining.items.len();
        let cohort = self.cohorts.entry(key.clone()).or_insert_with(|| Cohort {
            number,
            members: Vec::with_capacity(joining.size.min(64)),
            items: 0,
            timer: tokio::spawn(give_up(app.clone(), key.clone(), number, patience)).abort_handle(),
        });
        let complete = if cohort.add(Member { number, joining, first: 0, answer }) { self.take_out(key) } else { None };
        Ok((number, before.into_iter().chain(complete).collect()))
    }

    fn room_for(&self, bytes: usize) -> Result<(), Problem> {
        if self.members < MAX_WAITING && self.bytes + bytes <= MAX_BYTES {
            return Ok(());
        }
        let detail = format!(
            "{} members of groups in {} bytes wait for the rest of theirs; try again later, or use a shorter `group_wait_ms`",
            self.members, self.bytes
        );
        Err(Problem::new(Kind::Busy, detail))
    }

    fn take_out(&mut self, key: &CohortKey) -> Option<Cohort> {
        let cohort = self.cohorts.remove(key)?;
        cohort.timer.abort();
        self.members = self.members.saturating_sub(cohort.members.len());
        let bytes: usize = cohort.members.iter().map(|member| member.joining.items.len()).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(cohort)
    }

    fn take_all(&mut self) -> Vec<(CohortKey, Cohort)> {
        let keys: Vec<CohortKey> = self.cohorts.keys().cloned().collect();
        keys.into_iter().filter_map(|key| Some((key.clone(), self.take_out(&key)?))).collect()
    }

    /// Takes a member out; false where it is no longer there, since the group was complete.
    fn leave(&mut self, key: &CohortKey, number: u64) -> bool {
        let Some(cohort) = self.cohorts.get_mut(key) else { return false };
        let Some(gone) = cohort.remove(number) else { return false };
        self.members = self.members.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(gone.items.len());
        if cohort.members.is_empty() {
            self.take_out(key);
        }
        true
    }
}

/// Scores a cohort whose time is over with those that came.
async fn give_up(app: App, key: CohortKey, number: u64, patience: Duration) {
    tokio::time::sleep(patience).await;
    let cohort = {
        let mut waiting = app.cohorts.lock();
        let ours = waiting.cohorts.get(&key).is_some_and(|cohort| cohort.number == number);
        // Taking it out ends this very task at its next pause: the scoring is another one's.
        if ours { waiting.take_out(&key) } else { None }
    };
    if let Some(cohort) = cohort {
        tokio::spawn(settle(app, key, cohort));
    }
}

/// Scores the members together and gives each its share. Ends early when nobody waits any more, and asks no judge then.
async fn settle(app: App, key: CohortKey, cohort: Cohort) {
    let members = without_late(cohort.members);
    let bytes = members.iter().map(|member| member.joining.items.len()).sum();
    let Ok((mut members, body)) = by_size(bytes, move || Ok(together(&key, members))).await else { return };
    let Some(first) = members.iter().min_by_key(|member| member.joining.request.arrived) else { return };
    let Coming { arrived, due, request_id, .. } = first.joining.request.clone();
    // Whoever repeats a request with a key has more time than its first client.
    let all_patient = members.iter().all(|member| member.joining.request.patient);
    let due = if all_patient { app.limits.due(arrived, None) } else { due };
    let gone = AbandonOnDrop::default();
    let id = request_id.clone();
    // It is of several requests, and stored under the key of none of them.
    let job = Job { body, due, request_id, facts: true, abandoned: gone.0.clone(), ..Job::default() };
    let all_gone = async {
        for member in &mut members {
            member.answer.closed().await;
        }
    };
    let begun = tokio::select! {
        begun = scoring::begin(&app, job) => begun,
        () = all_gone => return,
    };
    match begun {
        Ok(storing) => tell_when_stored(storing, members, &id).await,
        Err(problem) => _ = tell(members, &Err(problem)),
    }
}

/// Tells the members when their scores are stored; those that are not patient when that is late.
async fn tell_when_stored(mut storing: Storing, members: Vec<Member>, request_id: &str) {
    let mut stored = storing.in_time().await;
    let members = match stored {
        Err(late) if late.kind() == Kind::Deadline => {
            let (patient, others) = members.into_iter().partition(|member| member.joining.request.patient);
            let _ = tell(others, &Err(late));
            stored = storing.stored().await;
            patient
        }
        _ => members,
    };
    let scored = stored.map(|()| Arc::new(storing.scored));
    if let (false, Err(problem)) = (tell(members, &scored), &scored) {
        log_untold(request_id, problem);
    }
}

/// Gives each member what is its own; one whose client went away meanwhile needs nothing. Whether any was there.
fn tell(members: Vec<Member>, scored: &Result<Arc<Scored>, Problem>) -> bool {
    let told = members.into_iter().map(|Member { answer, first, .. }| {
        answer.send(scored.clone().map(|scored| MemberScores { scored, first })).is_ok()
    });
    told.fold(false, |any, one| any | one)
}

/// Those that have time left; the others are told.
fn without_late(members: Vec<Member>) -> Vec<Member> {
    let in_time = |member: Member| match member.joining.too_late() {
        None => Some(member),
        Some(problem) => {
            let _ = member.answer.send(Err(problem));
            None
        }
    };
    members.into_iter().filter_map(in_time).collect()
}

/// One native request of all members, and these in the order of their items.
fn together(key: &CohortKey, mut members: Vec<Member>) -> (Vec<Member>, String) {
    // The order of arrival says nothing; a group's report should not depend on it.
    members.sort_by(|a, b| a.joining.items.cmp(&b.joining.items));
    let mut first = 0;
    for member in &mut members {
        member.first = first;
        first += member.joining.count;
    }
    let items: Vec<&str> = members.iter().map(|member| member.joining.items.as_str()).collect();
    let body = [&*key.envelope, &items.join(","), "]}"].concat();
    (members, body)
}

#[cfg(test)]
mod tests;
