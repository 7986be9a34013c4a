//! Reading `POST /reward`: bytes to a request whose items are still raw. Knows nothing of what stands in an item.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::pointed::{Pointed, read_as};
use super::text::{Bounded, Choice, Object, Text, whole};
use crate::rubric::escape_pointer;

/// What `reward` holds for an item that could not be scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(example = json!("null"))]
pub enum OnInvalid {
    /// `null`.
    #[default]
    Null,
    /// The rubric's lowest reward.
    Zero,
    /// The mean of the group's valid rewards; `null` where there is none.
    Mean,
    /// Nothing: the whole request fails.
    Error,
}

/// The curriculum position, as clients send it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CurriculumWire {
    /// The trainer's step.
    #[serde(deserialize_with = "whole")]
    pub step: Option<u64>,
    /// Pass rate per stage, from 0 to 1.
    #[serde(deserialize_with = "few")]
    pub mastery: BTreeMap<String, f64>,
}

/// A number, which may be no pass rate.
struct Rate(f64);

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;
        impl Visitor<'_> for RateVisitor {
            type Value = Rate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 1")
            }

            fn visit_f64<E>(self, number: f64) -> Result<Rate, E> {
                Ok(Rate(number))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Rate, E> {
                Ok(Rate(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Rate, E> {
                Ok(Rate(number as f64))
            }
        }
        deserializer.deserialize_f64(RateVisitor)
    }
}

/// Reads pass rates, and keeps no more of them than tells that there are too many.
fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    struct Few;
    impl<'de> Visitor<'de> for Few {
        type Value = BTreeMap<String, f64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut kept = BTreeMap::new();
            while kept.len() <= MAX_MASTERY
                && let Some((stage, Rate(value))) = map.next_entry()?
            {
                kept.insert(stage, value);
            }
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(kept)
        }
    }
    deserializer.deserialize_map(Few)
}

/// A request with its items still raw.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardRequest<'a> {
    /// A rubric's name, `name@version`, or a whole rubric.
    #[serde(borrow, default)]
    pub rubric: Option<&'a RawValue>,
    /// The training run.
    #[serde(borrow, default)]
    pub run_id: Option<Text<'a>>,
    /// The trainer's step.
    #[serde(default, deserialize_with = "whole")]
    pub step: Option<u64>,
    /// Its step may stand instead of `step`.
    #[serde(default)]
    pub curriculum: Option<Object<CurriculumWire>>,
    /// Milliseconds from the request's arrival.
    #[serde(default, deserialize_with = "whole")]
    pub deadline_ms: Option<u64>,
    /// What to do about items that cannot be scored.
    #[serde(default)]
    pub on_invalid: Option<Choice<OnInvalid>>,
    /// Tools of all trajectories that bring none of their own.
    #[serde(borrow, default)]
    pub tools: Option<&'a RawValue>,
    /// The items.
    #[serde(borrow, deserialize_with = "items")]
    pub trajectories: Vec<&'a RawValue>,
}

impl RewardRequest<'_> {
    /// Whether `step` and `curriculum` say the same step, where both say one: a trainer that moves one of them only would be
    /// scored at the other one.
    ///
    /// # Errors
    /// With both numbers.
    pub fn check_one_step(&self) -> Result<(), Pointed> {
        let replaced = self.curriculum.as_ref().and_then(|Object(curriculum)| curriculum.step);
        match (self.step, replaced) {
            (Some(step), Some(replaced)) if step != replaced => {
                let message =
                    format!("the step is {replaced} here and {step} in `step`; send one of them, or the same");
                Err(Pointed::shape("/curriculum/step", message))
            }
            _ => Ok(()),
        }
    }
}

/// Most trajectories of a request.
pub const MAX_TRAJECTORIES: usize = 4096;
/// Longest id, group, run or stage, in bytes.
pub(in crate::http) const MAX_NAME_BYTES: usize = 256;
/// Most pass rates of a request; twice as many as a rubric has stages.
const MAX_MASTERY: usize = 64;
/// Largest step: what a database keeps.
pub(in crate::http) const MAX_STEP: u64 = i64::MAX.unsigned_abs();

fn items<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'a RawValue>, D::Error> {
    Bounded::<&'de RawValue, MAX_TRAJECTORIES>::deserialize(deserializer).map(|list| list.0)
}

/// Refuses names that nobody could use in a URL or a table.
pub(super) fn check_name(name: &str, pointer: &str) -> Result<(), Pointed> {
    if name.len() > MAX_NAME_BYTES {
        let message = format!("a name of {} bytes is longer than the limit of {MAX_NAME_BYTES}", name.len());
        return Err(Pointed::shape(pointer, message));
    }
    Ok(())
}

/// Reads a request.
///
/// # Errors
/// With a JSON pointer, and whether it is the syntax or the shape that is wrong.
pub fn read_request(body: &str) -> Result<RewardRequest<'_>, Pointed> {
    let request: RewardRequest<'_> = read_as(body)?;
    if let Some(Text(run_id)) = &request.run_id {
        check_name(run_id, "/run_id")?;
        if run_id.is_empty() {
            return Err(Pointed::shape("/run_id", "the name of a run must not be empty; leave the field out for none"));
        }
    }
    check_step(request.step, "/step")?;
    if let Some(Object(curriculum)) = &request.curriculum {
        check_step(curriculum.step, "/curriculum/step")?;
        check_mastery(&curriculum.mastery)?;
    }
    Ok(request)
}

fn check_step(step: Option<u64>, pointer: &str) -> Result<(), Pointed> {
    match step.filter(|step| *step > MAX_STEP) {
        Some(step) => Err(Pointed::shape(pointer, format!("{step} is out of range; a step is at most {MAX_STEP}"))),
        None => Ok(()),
    }
}

fn check_mastery(mastery: &BTreeMap<String, f64>) -> Result<(), Pointed> {
    const PLACE: &str = "/curriculum/mastery";
    if mastery.len() > MAX_MASTERY {
        return Err(Pointed::shape(PLACE, format!("more pass rates than the limit of {MAX_MASTERY}")));
    }
    for (stage, value) in mastery {
        let pointer = || format!("{PLACE}/{}", escape_pointer(stage));
        check_name(stage, &pointer())?;
        if !(0.0..=1.0).contains(value) {
            return Err(Pointed::shape(pointer(), format!("{value} is no pass rate; it must be from 0 to 1")));
        }
    }
    Ok(())
}
