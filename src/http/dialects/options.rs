//! What a trainer that can only set a URL chooses by query parameters. In: a URL. Out: options, the same for every
//! dialect. Knows no body.

use std::fmt::Write;
use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::http::batch::Due;
use crate::http::error::Problem;
use crate::http::kind::Kind;
use crate::http::schema::ToolFormatDoc;
use crate::http::wire::{MAX_NAME_BYTES, MAX_STEP, MAX_TRAJECTORIES, OnInvalid};
use crate::trajectory::ToolFormat;

/// Longest that a group waits for its members where the query does not say, in milliseconds.
const LONGEST_WAIT_MS: u64 = 60_000;

/// How a dialect that has both forms answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = json!("number"))]
pub(crate) enum Format {
    /// A bare number.
    #[default]
    Number,
    /// An object with the reward and every metric.
    Dict,
}

/// The query parameters of every dialect.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// A rubric's name, or `name@version`. Wins over one in the body; the server's default where neither is.
    pub(super) rubric: Option<String>,
    /// The training run that the scores are kept under.
    #[param(min_length = 1, max_length = 256)]
    pub(super) run_id: Option<String>,
    /// The trainer's step.
    pub(super) step: Option<u64>,
    /// How calls are written in the policy's text; the rubric's where absent.
    #[param(value_type = Option<ToolFormatDoc>)]
    pub(super) tool_format: Option<String>,
    /// What the reward is of an item that could not be scored. Where absent: what the trainer's client can take.
    pub(super) on_invalid: Option<OnInvalid>,
    /// `number` or `dict`, for dialects that have both.
    pub(super) format: Option<Format>,
    /// Milliseconds from the request's arrival after which the answer is 504. Where absent: less than the trainer's
    /// client waits.
    pub(super) deadline_ms: Option<u64>,
    /// How many rollouts a group has. Needed where the group counts (a rubric that ranks, `on_invalid=mean`) and its
    /// members come in requests of their own: they wait for each other.
    #[param(minimum = 1, maximum = 4096)]
    pub(super) group_size: Option<usize>,
    /// How long the first member of a group waits for the others, in milliseconds, nine tenths of the deadline at most: half
    /// of it, 60000 at most, where absent. Then the group is scored with those that came.
    pub(super) group_wait_ms: Option<u64>,
}

/// The header that makes a request repeatable.
#[allow(dead_code, reason = "exists for the document")]
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct Repeatable {
    /// A repeat with the same key gets the same answer without being scored or counted again, as long as this server runs and
    /// has it in memory: for a day, or until more than 64 MiB of such answers came, of which some are then forgotten. Later it
    /// is scored again, and neither stored nor counted where the scores are in a database, but for members of a group that came
    /// in requests of their own.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 256)]
    idempotency_key: Option<String>,
}

impl Options {
    /// Reads a URL's query.
    ///
    /// # Errors
    /// 400 for a parameter that is unknown or has no such value.
    pub(super) fn read(uri: &Uri) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(Kind::BadQuery, detail);
        let options = Query::<Self>::try_from_uri(uri)
            .map_err(|error| bad(format!("{}; GET /openapi.json has this path's parameters", error.body_text())))?
            .0;
        if let Some(format) = &options.tool_format {
            format.parse::<ToolFormat>().map_err(|error| bad(format!("tool_format: {error}")))?;
        }
        match options.run_id.as_deref().map(str::len) {
            Some(0) => return Err(bad("the name of a run must not be empty; leave `run_id` out for none".to_owned())),
            Some(length) if length > MAX_NAME_BYTES => {
                return Err(bad(format!(
                    "run_id: a name of {length} bytes is longer than the limit of {MAX_NAME_BYTES}"
                )));
            }
            _ => {}
        }
        if let Some(step) = options.step.filter(|step| *step > MAX_STEP) {
            return Err(bad(format!("step = {step} is out of range; a step is at most {MAX_STEP}")));
        }
        match options.group_size {
            Some(size) if !(1..=MAX_TRAJECTORIES).contains(&size) => {
                Err(bad(format!("group_size = {size} is out of range; it must be from 1 to {MAX_TRAJECTORIES}")))
            }
            _ => Ok(options),
        }
    }

    /// What an answer without scores depends on, of a query that may have something else in it that cannot be read. Of
    /// two parameters of one name the first counts.
    pub(super) fn readable(uri: &Uri) -> Self {
        let read = |pair: &str| Query::<Self>::try_from_uri(&format!("/?{pair}").parse::<Uri>().ok()?).ok();
        let parameters = uri.query().unwrap_or_default().split('&').filter_map(read);
        parameters.fold(Self::default(), |found, Query(one)| Self {
            rubric: found.rubric.or(one.rubric),
            on_invalid: found.on_invalid.or(one.on_invalid),
            format: found.format.or(one.format),
            ..found
        })
    }

    /// Fills in what the dialect does where nothing was asked for.
    pub(super) fn settle(&mut self, on_invalid: OnInvalid, deadline_ms: Option<u64>) {
        self.on_invalid.get_or_insert(on_invalid);
        self.deadline_ms = self.deadline_ms.or(deadline_ms);
    }

    /// What becomes of an item that could not be scored.
    pub(super) fn on_invalid(&self) -> OnInvalid {
        self.on_invalid.unwrap_or_default()
    }

    /// Whether an object is wanted rather than a number.
    pub(super) fn wants_dict(&self) -> bool {
        self.format == Some(Format::Dict)
    }

    /// How long the first member of a group waits, counted from when its request arrived, whose answer is due then.
    pub(super) fn patience(&self, due: Option<Due>) -> Duration {
        let deadline = due.map_or(u64::MAX, |due| due.limit_ms);
        // The rest is for scoring.
        let longest = deadline - deadline / 10;
        Duration::from_millis(self.group_wait_ms.unwrap_or((deadline / 2).min(LONGEST_WAIT_MS)).min(longest))
    }

    /// The native request up to its items, JSON.
    pub(super) fn envelope(&self, rubric: Option<&str>) -> String {
        let mut out = String::from("{");
        for (name, value) in [("rubric", rubric), ("run_id", self.run_id.as_deref())] {
            if let Some(value) = value {
                // Writing a string to a String cannot fail.
                let _ = write!(out, "\"{name}\":{},", serde_json::Value::from(value));
            }
        }
        for (name, value) in [("step", self.step), ("deadline_ms", self.deadline_ms)] {
            if let Some(value) = value {
                let _ = write!(out, "\"{name}\":{value},");
            }
        }
        // `error` is the dialect's to answer: one request of a group must not fail the others.
        let on_invalid = match self.on_invalid() {
            OnInvalid::Null | OnInvalid::Error => "null",
            OnInvalid::Zero => "zero",
            OnInvalid::Mean => "mean",
        };
        let _ = write!(out, "\"on_invalid\":\"{on_invalid}\",\"trajectories\":[");
        out
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn read(query: &str) -> Result<Options, Problem> {
        Options::read(&format!("/get_reward?{query}").parse().unwrap())
    }

    #[test]
    fn every_parameter_is_read() {
        let options = read(
            "rubric=short_form_qa%40b3-1&run_id=a&step=3&tool_format=hermes&on_invalid=mean&format=dict&deadline_ms=5&group_size=4&group_wait_ms=2",
        );
        let options = options.unwrap();
        assert_eq!(options.rubric.as_deref(), Some("short_form_qa@b3-1"));
        assert_eq!((options.step, options.deadline_ms, options.group_size), (Some(3), Some(5), Some(4)));
        assert_eq!((options.on_invalid(), options.wants_dict()), (OnInvalid::Mean, true));
        assert_eq!(options.patience(None), Duration::from_millis(2));
        let envelope = options.envelope(options.rubric.as_deref());
        assert_eq!(
            envelope,
            r#"{"rubric":"short_form_qa@b3-1","run_id":"a","step":3,"deadline_ms":5,"on_invalid":"mean","trajectories":["#
        );
    }

    #[test]
    fn a_typo_is_an_error() {
        for query in [
            "rubrik=x",
            "on_invalid=guess",
            "tool_format=morse",
            "group_size=0",
            "group_size=4097",
            "step=x",
            "step=9223372036854775808",
            "run_id=",
            &format!("run_id={}", "r".repeat(257)),
            "format=xml",
        ] {
            assert_eq!(read(query).unwrap_err().status(), axum::http::StatusCode::BAD_REQUEST, "{query}");
        }
    }

    #[test]
    fn what_can_be_read_of_a_bad_query_is_read() {
        let readable = |query: &str| Options::readable(&format!("/slime?{query}").parse().unwrap());
        let options = readable("bogus=1&rubric=a%40b3-1&&step=x&format=dict&tool_format=morse&on_invalid=error");
        assert_eq!(options.rubric.as_deref(), Some("a@b3-1"));
        assert_eq!((options.on_invalid(), options.wants_dict()), (OnInvalid::Error, true));
        assert_eq!(readable("on_invalid=guess&on_invalid=zero&on_invalid=mean").on_invalid(), OnInvalid::Zero);
        assert_eq!(Options::readable(&"/slime".parse().unwrap()), Options::default());
    }

    #[test]
    fn a_group_waits_for_half_of_the_deadline() {
        let patience = |options: &Options, longest_ms| {
            options.patience(Due::of(Instant::now(), options.deadline_ms, longest_ms)).as_millis()
        };
        let mut options = read("").unwrap();
        options.settle(OnInvalid::Zero, Some(15_000));
        assert_eq!(patience(&options, 300_000), 7500);
        assert_eq!(options.on_invalid(), OnInvalid::Zero);
        options.group_wait_ms = Some(15_000);
        assert_eq!(patience(&options, 300_000), 13_500, "the rest is for scoring");
        assert_eq!(patience(&Options::default(), 300_000), 60_000);
        options.group_wait_ms = None;
        assert_eq!(patience(&options, 1000), 500, "the server's longest deadline is a deadline");
    }
}
