//! The small things of a request: borrowed strings, strings that may be numbers, lists with a limit, names that are one of
//! a few.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::field::{Passed, Unusual};
use super::pointed::without_place;
use super::walk::{Walk, present};
pub(crate) use crate::rubric::{Object, object, objects};
use crate::trajectory::MAX_REFERENCES;

/// A JSON string, borrowed where it has no escapes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text<'a>(pub Cow<'a, str>);

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'a> Passed<'a> for Text<'a> {
    fn pass(walk: &mut Walk<'a>) -> Option<Self> {
        walk.string().map(Self)
    }
}

impl<'a> Passed<'a> for Option<Text<'a>> {
    fn pass(walk: &mut Walk<'a>) -> Option<Self> {
        if walk.is_string() { Text::pass(walk).map(Some) } else { serde_json::from_str(walk.value()?).ok() }
    }
}

impl Passed<'_> for Option<bool> {}

impl Passed<'_> for Option<Whole> {}

/// A whole number from 0, however it is written: `120.0` is 120.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole(pub(crate) u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;
        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Whole, E> {
                // Up to here a double is the number that was written.
                const EXACT: f64 = 9_007_199_254_740_992.0;
                if number.fract() == 0.0 && (0.0..=EXACT).contains(&number) {
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and in range")]
                    return Ok(Whole(number as u64));
                }
                Err(E::invalid_value(de::Unexpected::Float(number), &self))
            }
        }
        deserializer.deserialize_u64(WholeVisitor)
    }
}

/// Reads a whole number, or `null`.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Option::<Whole>::deserialize(deserializer).map(|found| found.map(|Whole(number)| number))
}

/// Reads a whole number.
pub(crate) fn whole_number<'de, D: Deserializer<'de>, T: TryFrom<u64, Error: fmt::Display>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let Whole(number) = Whole::deserialize(deserializer)?;
    T::try_from(number).map_err(de::Error::custom)
}

/// A string, or a number or boolean that stands for its text as sent: ids and reference answers come as each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scalar<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
        scalar(raw.get()).map(Self).map_err(de::Error::custom)
    }
}

impl<'a> Passed<'a> for Option<Scalar<'a>> {
    fn pass(walk: &mut Walk<'a>) -> Option<Self> {
        passed(walk, scalar).ok().map(|found| found.map(Scalar))
    }
}

/// Reads a string in passing, or what `read` makes of another value; nothing for `null`.
fn passed<'a>(
    walk: &mut Walk<'a>,
    read: impl Fn(&'a str) -> Result<Cow<'a, str>, String>,
) -> Result<Option<Cow<'a, str>>, Unusual> {
    if walk.is_string() {
        return walk.string().map(Some).ok_or(Unusual);
    }
    let value = walk.value().ok_or(Unusual)?;
    present(value).map(read).transpose().map_err(|_| Unusual)
}

fn scalar(raw: &str) -> Result<Cow<'_, str>, String> {
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<Text<'_>>(raw).map(|text| text.0).map_err(|error| without_place(&error)),
        Some(b'-' | b'0'..=b'9' | b't' | b'f') => Ok(Cow::Borrowed(raw)),
        first => {
            let found = match first {
                Some(b'[') => "a list",
                Some(b'{') => "an object",
                _ => "null",
            };
            Err(format!("a string or a number is expected, not {found}"))
        }
    }
}

/// A reference answer: as a [`Scalar`], and a whole number without its fraction, however it is written. A column of whole
/// numbers of which one is missing comes as 42.0.
fn reference(raw: &str) -> Result<Cow<'_, str>, String> {
    let whole = raw.split_once('.').filter(|(_, fraction)| fraction.bytes().all(|digit| digit == b'0'));
    match whole {
        Some((whole, _)) if !raw.starts_with('"') => Ok(Cow::Borrowed(whole)),
        _ => scalar(raw),
    }
}

/// One of a few names, read through a string: serde would take an object for it, too, and `serde_json` calls a value of
/// another type no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Choice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        choice(deserializer).map(Self)
    }
}

/// The same for a field that is no [`Choice`].
pub(in crate::http) fn choice<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    let Text(name) = Text::deserialize(deserializer)?;
    T::deserialize(name.into_deserializer())
}

/// A list that stops being read where it is longer than it may be.
#[derive(Debug)]
pub(super) struct Bounded<T, const MAX: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const MAX: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
            type Value = Bounded<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    if elements.len() == MAX {
                        return Err(de::Error::custom(format!("more elements than the limit of {MAX}; send fewer")));
                    }
                    elements.push(element);
                }
                Ok(Bounded(elements))
            }
        }
        deserializer.deserialize_seq(ListVisitor(std::marker::PhantomData))
    }
}

/// A list of answers, or a single one.
#[derive(Debug, Default, PartialEq)]
pub(super) struct References<'a>(pub(super) Vec<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for References<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
        Self::from_raw(raw.get()).map_err(de::Error::custom)
    }
}

impl<'a> References<'a> {
    /// Reads them in passing, or `null`, into their place; `None` where they are unusual.
    pub(super) fn walk(walk: &mut Walk<'a>, place: &mut Option<Self>) -> Option<()> {
        if !walk.is_list() {
            let single = passed(walk, reference).ok()?.map(|single| Self(vec![single]));
            return single.map_or(Some(()), |single| single.put(place).ok());
        }
        let mut references = Vec::new();
        walk.list(|walk| {
            references.push(passed(walk, reference).ok()??);
            (references.len() <= MAX_REFERENCES).then_some(())
        })?;
        Self(references).put(place).ok()
    }

    /// Puts them in their place, where others may stand that came under another name. An empty list says no more there than
    /// null does.
    fn put(self, place: &mut Option<Self>) -> Result<(), &'static str> {
        match place {
            Some(known) if self.0.is_empty() || self.same_answers(known) => Ok(()),
            Some(known) if !known.0.is_empty() => {
                Err("other references came before; send them in one field, `references`")
            }
            _ => {
                *place = Some(self);
                Ok(())
            }
        }
    }

    /// Whether these are the same answers, in whatever order: one of them is enough.
    fn same_answers(&self, others: &Self) -> bool {
        let sorted = |references: &Self| {
            let mut sorted: Vec<String> = references.0.iter().map(ToString::to_string).collect();
            sorted.sort_unstable();
            sorted.dedup();
            sorted
        };
        self == others || sorted(self) == sorted(others)
    }

    fn from_raw(raw: &'a str) -> Result<Self, String> {
        if raw.starts_with('[') {
            let list: Bounded<&'a RawValue, MAX_REFERENCES> =
                serde_json::from_str(raw).map_err(|error| without_place(&error))?;
            let answer = |(index, raw): (usize, &'a RawValue)| {
                reference(raw.get()).map_err(|why| format!("element {index}: {why}"))
            };
            return list.0.into_iter().enumerate().map(answer).collect::<Result<_, _>>().map(Self);
        }
        reference(raw).map(|single| Self(vec![single]))
    }
}

/// Reads answers, or null, into a place where others may stand.
pub(super) struct PutReferences<'p, 'a>(pub(super) &'p mut Option<References<'a>>);

impl<'de> DeserializeSeed<'de> for PutReferences<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let read = Option::<References<'de>>::deserialize(deserializer)?;
        read.map_or(Ok(()), |read| read.put(self.0).map_err(de::Error::custom))
    }
}
