//! The numbers of verify responses, gathered while they are read: a response may have megabytes beside its numbers. In: JSON.
//! Out: numbers by task and name.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::store::MAX_REWARD;

/// The field that names a task.
pub(super) const TASK: &str = "_ng_task_index";
/// The field that says that a sample counts nowhere.
const MASK: &str = "mask_sample";
/// Fields that are numbers and no measures.
const NAMES: [&str; 3] = [TASK, "_ng_rollout_index", MASK];

/// Most measures, those of each task counted by themselves: each has four numbers in the answer.
const MAX_MEASURES: usize = 1 << 20;

/// Most tasks: each has a table of its own.
const MAX_TASKS: usize = 65_536;

/// The numbers of all responses, of all tasks together and of each.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) all: Measures,
    pub(super) tasks: BTreeMap<i64, Measures>,
    measures: usize,
}

/// Numbers by their names.
pub(super) type Measures = BTreeMap<String, Vec<f64>>;

impl Columns {
    fn add(&mut self, response: &Response<'_>) -> Result<(), Unfit> {
        if response.fields.get(MASK).is_some_and(|mask| matches!(mask, Field::Bit(true))) {
            return Ok(());
        }
        // A task without a number has no statistics, and is told nevertheless.
        let task = match response.fields.get(TASK) {
            Some(Field::Integer(task)) if self.tasks.len() < MAX_TASKS || self.tasks.contains_key(task) => {
                Some(self.tasks.entry(*task).or_default())
            }
            Some(Field::Integer(_)) => return Err(Unfit::Tasks),
            _ => None,
        };
        for measures in [Some(&mut self.all), task].into_iter().flatten() {
            for (name, field) in response.fields.iter().filter(|(name, _)| !NAMES.contains(&name.as_ref())) {
                let Some(number) = field.number() else { continue };
                if number.abs() > MAX_REWARD {
                    return Err(Unfit::Large { name: name.chars().take(64).collect(), number });
                }
                match measures.get_mut(&**name) {
                    Some(numbers) => numbers.push(number),
                    None if self.measures == MAX_MEASURES => return Err(Unfit::Measures),
                    None => {
                        self.measures += 1;
                        measures.insert(name.to_string(), vec![number]);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Why numbers have no statistics.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error(
        "more than {MAX_MEASURES} numbers under different names, those of each task counted by themselves; send fewer tasks at once"
    )]
    Measures,
    #[error("more than {MAX_TASKS} tasks; send fewer at once")]
    Tasks,
    #[error("{name:?} is {number:e}; numbers are within {MAX_REWARD:e}, so that their sums are finite")]
    Large { name: String, number: f64 },
}

/// The numbers of one response; of those with one name the last.
#[derive(Default)]
struct Response<'b> {
    fields: HashMap<Cow<'b, str>, Field>,
}

/// As much of a field as counts.
#[derive(Debug, Clone, Copy)]
enum Field {
    Integer(i64),
    Float(f64),
    Bit(bool),
    Other,
}

impl Field {
    #[expect(clippy::cast_precision_loss, reason = "as every JSON reader that knows one kind of number")]
    fn number(self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(number as f64),
            Self::Float(number) => Some(number),
            Self::Bit(bit) => Some(f64::from(u8::from(bit))),
            Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Responses;

        impl<'de> Visitor<'de> for Responses {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of verify responses")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Columns, A::Error> {
                let mut columns = Columns::default();
                while let Some(response) = seq.next_element::<Response<'de>>()? {
                    columns.add(&response).map_err(A::Error::custom)?;
                }
                Ok(columns)
            }
        }

        deserializer.deserialize_seq(Responses)
    }
}

impl<'de> Deserialize<'de> for Response<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Response<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a verify response")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Response<'de>, A::Error> {
                let mut response = Response::default();
                while let Some(Name(name)) = map.next_key()? {
                    match map.next_value()? {
                        Field::Other => _ = response.fields.remove(&name),
                        _ if response.fields.len() > MAX_MEASURES => return Err(A::Error::custom(Unfit::Measures)),
                        field => _ = response.fields.insert(name, field),
                    }
                }
                Ok(response)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'b>(#[serde(borrow)] Cow<'b, str>);

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kind;

        impl<'de> Visitor<'de> for Kind {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_bool<E>(self, bit: bool) -> Result<Field, E> {
                Ok(Field::Bit(bit))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Field, E> {
                Ok(Field::Integer(number))
            }

            #[expect(clippy::cast_precision_loss, reason = "as every JSON reader that knows one kind of number")]
            fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
                Ok(i64::try_from(number).map_or(Field::Float(number as f64), Field::Integer))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Field, E> {
                Ok(Field::Float(number))
            }

            fn visit_str<E>(self, _: &str) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_unit<E>(self) -> Result<Field, E> {
                Ok(Field::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Field::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Field::Other)
            }
        }

        deserializer.deserialize_any(Kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measures_are_counted() {
        let mut columns = Columns { measures: MAX_MEASURES - 2, ..Columns::default() };
        let read = |json: &'static str| serde_json::from_str::<Response<'_>>(json).unwrap();
        assert!(columns.add(&read(r#"{"_ng_task_index": 0, "reward": 1}"#)).is_ok());
        assert!(columns.add(&read(r#"{"_ng_task_index": 0, "reward": 1}"#)).is_ok());
        assert!(columns.add(&read(r#"{"_ng_task_index": 1, "reward": 1}"#)).is_err());
    }

    #[test]
    fn the_tasks_are_counted() {
        let mut columns = Columns::default();
        let of = |task: usize| format!("{{\"_ng_task_index\": {task}}}");
        for task in 0..MAX_TASKS {
            assert!(columns.add(&serde_json::from_str(&of(task)).unwrap()).is_ok());
        }
        assert!(columns.add(&serde_json::from_str(&of(7)).unwrap()).is_ok());
        let one_more = columns.add(&serde_json::from_str(&of(MAX_TASKS)).unwrap());
        assert!(one_more.is_err_and(|unfit| unfit.to_string().contains("more than 65536 tasks")));
    }
}
