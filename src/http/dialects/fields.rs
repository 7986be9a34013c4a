//! A body taken apart: the fields of its objects and the elements of its lists, each as the bytes that were sent. In: JSON
//! text. Out: raw JSON. Values are only passed over, not read: whoever gets them reads them, and says what is wrong with them.

use std::borrow::Cow;
use std::fmt;

use serde::de::IgnoredAny;

use crate::http::wire::{MAX_NOTED, NotTaken, Noted, Pointed, Text, Whole, pointed, take_apart, without_place};

/// Where the values of a text stand.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<Noted>);

/// A value of a text that was taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'t, 'b> {
    text: &'b str,
    /// Itself, then everything inside it.
    noted: &'t [Noted],
}

/// How many elements the list has that stands under this name in a text's object; 0 where there is none.
pub(super) fn length_of(text: &str, name: &str) -> usize {
    let Ok(parts) = Parts::read(text, 2) else { return 0 };
    let list = parts.object(text).ok().and_then(|object| object.get(name)?.list("").ok());
    list.map_or(0, |list| list.inside().count())
}

impl Parts {
    /// Takes a text apart down to `depth` levels: 1 for the fields of an object or the elements of a list, 2 for those inside
    /// them, and so on. What lies deeper is there, too, but seems empty.
    ///
    /// # Errors
    /// When it is no JSON, or has too many values.
    pub(super) fn read(text: &str, depth: usize) -> Result<Self, Pointed> {
        let checked = || serde_json::from_str::<IgnoredAny>(text).map_err(|error| pointed::<IgnoredAny>(text, &error));
        match take_apart(text, depth) {
            Ok(noted) => {
                let parts = Self(noted);
                // Of what has nothing inside nobody reads more.
                if !parts.value(text).raw().starts_with(['{', '[']) {
                    checked()?;
                }
                Ok(parts)
            }
            Err(NotTaken::TooMany) => {
                let message = format!("there are more than the limit of {MAX_NOTED} values; send smaller batches");
                Err(Pointed::shape("", message))
            }
            Err(NotTaken::Odd) => {
                checked()?;
                Err(Pointed::shape("", "this cannot be taken apart; please report it with the request"))
            }
        }
    }

    /// The whole value.
    ///
    /// # Errors
    /// When it is no object.
    pub(super) fn object<'t, 'b>(&'t self, text: &'b str) -> Result<Value<'t, 'b>, Pointed> {
        self.value(text).object("")
    }

    /// The whole value; `text` is what was taken apart.
    pub(super) fn value<'t, 'b>(&'t self, text: &'b str) -> Value<'t, 'b> {
        Value { text, noted: &self.0 }
    }
}

impl<'t, 'b> Value<'t, 'b> {
    /// As it was sent.
    pub(super) fn raw(self) -> &'b str {
        self.noted.first().and_then(|this| self.text.get(this.value.0..this.value.1)).unwrap_or_default()
    }

    /// The key as it was sent, without its quotes; empty where it is no field.
    pub(super) fn raw_key(self) -> &'b str {
        self.noted.first().and_then(|this| self.text.get(this.key.0..this.key.1)).unwrap_or_default()
    }

    /// The key.
    pub(super) fn key(self) -> Cow<'b, str> {
        let raw = self.raw_key();
        let decoded = || serde_json::from_str(&["\"", raw, "\""].concat()).ok().map(Cow::Owned);
        Some(raw).filter(|raw| raw.contains('\\')).and_then(|_| decoded()).unwrap_or(Cow::Borrowed(raw))
    }

    /// Whether it is `null`.
    pub(super) fn is_null(self) -> bool {
        self.raw() == "null"
    }

    /// Whether it is a list of nothing.
    fn is_empty_list(self) -> bool {
        self.raw().strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(']'))
    }

    /// The fields of an object, or the elements of a list, in order.
    pub(super) fn inside(self) -> impl Iterator<Item = Value<'t, 'b>> {
        let mut rest = self.noted.get(1..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (noted, later) = rest.split_at_checked(rest.first()?.span)?;
            rest = later;
            Some(Value { text: self.text, noted })
        })
    }

    /// This, if it is an object.
    ///
    /// # Errors
    /// Where it is none; `pointer` says where it stands.
    pub(super) fn object(self, pointer: impl fmt::Display) -> Result<Self, Pointed> {
        self.of_kind('{', pointer, "an object is expected")
    }

    /// This, if it is a list.
    ///
    /// # Errors
    /// Where it is none; `pointer` says where it stands.
    pub(super) fn list(self, pointer: impl fmt::Display) -> Result<Self, Pointed> {
        self.of_kind('[', pointer, "a list is expected")
    }

    fn of_kind(self, opening: char, pointer: impl fmt::Display, message: &str) -> Result<Self, Pointed> {
        if self.raw().starts_with(opening) { Ok(self) } else { Err(Pointed::shape(pointer.to_string(), message)) }
    }

    /// The elements of a list, raw.
    pub(super) fn raws(self) -> Vec<&'b str> {
        self.inside().map(Value::raw).collect()
    }

    /// The first of these fields that is there and not null, an empty list only where no other is; of several of one name the
    /// last, as every reader of JSON into a map has it.
    pub(super) fn first(self, names: &[&str]) -> Option<Value<'t, 'b>> {
        let is = |field: &Value<'_, '_>, name: &str| {
            let raw = field.raw_key();
            raw == name || raw.contains('\\') && field.key() == name
        };
        let find = |wanted: fn(&Self) -> bool| {
            names.iter().find_map(|name| self.inside().filter(|field| is(field, name)).last().filter(wanted))
        };
        find(|field| !field.is_null() && !field.is_empty_list()).or_else(|| find(|field| !field.is_null()))
    }

    /// A field, if it is there and not null.
    pub(super) fn get(self, name: &str) -> Option<Value<'t, 'b>> {
        self.first(&[name])
    }

    /// The same, raw.
    pub(super) fn raw_of(self, name: &str) -> Option<&'b str> {
        self.get(name).map(Value::raw)
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// Names it.
    pub(super) fn needed(self, name: &str) -> Result<Value<'t, 'b>, Pointed> {
        self.get(name).ok_or_else(|| Pointed::shape("", format!("the field `{name}` is missing; add it")))
    }

    /// A list's elements; none where the field is not there.
    ///
    /// # Errors
    /// When it is no list.
    pub(super) fn values_of(self, name: &str) -> Result<Vec<Value<'t, 'b>>, Pointed> {
        let list = self.get(name).map(|field| field.list(format_args!("/{name}"))).transpose()?;
        Ok(list.map_or_else(Vec::new, |list| list.inside().collect()))
    }

    /// A text, if the field is there.
    ///
    /// # Errors
    /// When it is no text.
    pub(super) fn text_of(self, name: &str) -> Result<Option<Cow<'b, str>>, Pointed> {
        let read = |raw: &'b str| serde_json::from_str::<Text<'b>>(raw).map(|text| text.0);
        self.raw_of(name).map(read).transpose().map_err(|error| wrong_field(name, &error))
    }

    /// A whole number, if the field is there.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn count_of(self, name: &str) -> Result<Option<u64>, Pointed> {
        let read = |raw: &'b str| serde_json::from_str::<Whole>(raw).map(|Whole(number)| number);
        self.raw_of(name).map(read).transpose().map_err(|error| wrong_field(name, &error))
    }
}

/// Checks that a column, which stands at `pointer`, has as many entries as there are of what is scored.
///
/// # Errors
/// When it has more or fewer.
pub(super) fn one_for_each(
    entries: usize,
    wanted: usize,
    scored: &str,
    pointer: impl fmt::Display,
) -> Result<(), Pointed> {
    if entries == wanted {
        return Ok(());
    }
    let message = format!("{entries} entries for {wanted} {scored}; send one for each");
    Err(Pointed::shape(pointer.to_string(), message))
}

/// A field that was read by itself: its lines and columns are none of the body's.
fn wrong_field(name: &str, error: &serde_json::Error) -> Pointed {
    Pointed::shape(format!("/{name}"), without_place(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::Wrong;

    #[test]
    fn fields_are_found_by_name_as_they_were_sent() {
        let text = r#"{"\u0061": 1.50, "b": null, "b": 3, "b": 2, "c": 4, "\u0063": null, "list": [{"x": [7]}, "y"]}"#;
        let parts = Parts::read(text, 3).unwrap();
        let body = parts.object(text).unwrap();
        assert_eq!((body.raw_of("a"), body.raw_of("b"), body.raw_of("c")), (Some("1.50"), Some("2"), None));
        assert_eq!(body.inside().next().unwrap().raw_key(), r"\u0061");
        let list = body.needed("list").unwrap().list("/list").unwrap();
        assert_eq!(list.raws(), [r#"{"x": [7]}"#, "\"y\""]);
        let first = list.inside().next().unwrap().object("/list/0").unwrap();
        assert_eq!(first.raw_of("x"), Some("[7]"));
        assert_eq!(first.get("x").unwrap().raws(), Vec::<&str>::new(), "deeper than was asked for");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for text in ["{", "nope", "", "\"a\nb\""] {
            assert_eq!(Parts::read(text, 1).unwrap_err().wrong, Wrong::Syntax, "{text}");
        }
        assert_eq!(Parts::read("7", 1).unwrap().object("7").unwrap_err().wrong, Wrong::Shape);
        assert_eq!(Parts::read("[]", 1).unwrap().object("[]").unwrap_err().wrong, Wrong::Shape);
        let text = r#"{"list": 3, "text": 3, "count": "x"}"#;
        let parts = Parts::read(text, 1).unwrap();
        let body = parts.object(text).unwrap();
        assert_eq!(body.values_of("list").unwrap_err().pointer, "/list");
        assert_eq!(body.text_of("text").unwrap_err().pointer, "/text");
        let wrong = body.count_of("count").unwrap_err();
        assert_eq!(wrong.pointer, "/count");
        assert!(!wrong.message.contains("column"), "the body has it elsewhere: {}", wrong.message);
        assert_eq!(body.needed("nothing").unwrap_err().wrong, Wrong::Shape);
    }
}
