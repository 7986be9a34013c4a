//! Objects by their fields, each of which is taken for the same in either of two ways: exactly, by serde, which says what is
//! wrong and where, or in passing, by a walk, which gives up on whatever is unusual. In: the object; out: what [`Fields`] makes
//! of it. Knows no field.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::text::{PutReferences, References, Text};
use super::walk::{Walk, present};

/// An object, of which a field after the other is read.
pub(super) trait Fields<'a>: Default {
    /// What an error says that it is not.
    const EXPECTED: &'static str;

    /// Reads a field.
    ///
    /// # Errors
    /// Where its value is none of what it may be.
    fn read<V: Value<'a>>(&mut self, name: &str, value: V) -> Result<(), V::Error>;
}

/// Reads an object exactly.
///
/// # Errors
/// What is wrong with it.
pub(super) fn exactly<'a, D: Deserializer<'a>, F: Fields<'a>>(deserializer: D) -> Result<F, D::Error> {
    struct FieldsVisitor<F>(PhantomData<F>);
    impl<'a, F: Fields<'a>> Visitor<'a> for FieldsVisitor<F> {
        type Value = F;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(F::EXPECTED)
        }

        fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<F, M::Error> {
            let mut fields = F::default();
            while let Some(Text(name)) = map.next_key()? {
                fields.read(&name, Exact(&mut map))?;
            }
            Ok(fields)
        }
    }
    deserializer.deserialize_map(FieldsVisitor(PhantomData))
}

/// Reads an object in passing; `None` where it is unusual.
pub(super) fn in_passing<'a, F: Fields<'a>>(walk: &mut Walk<'a>) -> Option<F> {
    let mut fields = F::default();
    walk.object(|walk, name| fields.read(name, walk).ok())?;
    Some(fields)
}

/// The value of a field.
pub(super) trait Value<'a>: Sized {
    /// Why it cannot be read.
    type Error;

    /// Its text; nothing for `null`.
    fn raw(self) -> Result<Option<&'a str>, Self::Error>;

    /// The same of one that may have come before: the first of equal ones.
    fn familiar(self) -> Result<Option<&'a str>, Self::Error>;

    /// What it stands for.
    fn read<T: Passed<'a>>(self) -> Result<T, Self::Error>;

    /// Reads right answers, or `null`, into a place where others may stand.
    fn put_references(self, place: &mut Option<References<'a>>) -> Result<(), Self::Error>;
}

/// What can be read in passing, too.
pub(super) trait Passed<'a>: Deserialize<'a> {
    /// Reads one; `None` where it is unusual.
    fn pass(walk: &mut Walk<'a>) -> Option<Self> {
        serde_json::from_str(walk.value()?).ok()
    }
}

/// A value that serde is to read next.
struct Exact<'m, M>(&'m mut M);

impl<'a, M: MapAccess<'a>> Value<'a> for Exact<'_, M> {
    type Error = M::Error;

    fn raw(self) -> Result<Option<&'a str>, M::Error> {
        Ok(self.0.next_value::<Option<&RawValue>>()?.map(RawValue::get))
    }

    fn familiar(self) -> Result<Option<&'a str>, M::Error> {
        self.raw()
    }

    fn read<T: Passed<'a>>(self) -> Result<T, M::Error> {
        self.0.next_value()
    }

    fn put_references(self, place: &mut Option<References<'a>>) -> Result<(), M::Error> {
        self.0.next_value_seed(PutReferences(place))
    }
}

/// What a walk gives up on.
pub(super) struct Unusual;

impl<'a> Value<'a> for &mut Walk<'a> {
    type Error = Unusual;

    fn raw(self) -> Result<Option<&'a str>, Unusual> {
        self.value().map(present).ok_or(Unusual)
    }

    fn familiar(self) -> Result<Option<&'a str>, Unusual> {
        self.familiar_value().map(present).ok_or(Unusual)
    }

    fn read<T: Passed<'a>>(self) -> Result<T, Unusual> {
        T::pass(self).ok_or(Unusual)
    }

    fn put_references(self, place: &mut Option<References<'a>>) -> Result<(), Unusual> {
        References::walk(self, place).ok_or(Unusual)
    }
}
