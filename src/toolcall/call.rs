//! The call object `{"name": .., "arguments": ..}` (rules J5, J6, J8). In: JSON at an offset; out: a [`Call`], or what
//! is wrong with the object. Only the arguments are built; other keys are checked and dropped. Knows no markers.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::budget::{Budget, too_many};
use super::codes::Fault;
use super::json::{self, Checked, Strict};
use super::lenient::Found;
use super::scan::Scan;
use super::{Call, ErrorCode, Malformed, Repair, lenient};

/// What was read where a call should stand, and where that ends.
pub(super) struct Reading<'t> {
    pub(super) call: Result<Call<'t>, Malformed>,
    pub(super) end: usize,
    pub(super) repairs: Vec<Repair>,
}

/// A reading, or what keeps a call from being read, and the name that it had by then.
pub(super) type Read<'t> = Result<Reading<'t>, (Fault, Option<&'t str>)>;

/// Reads the call object at `at`. Fails where there is no JSON; an object that is no call is a [`Reading`].
pub(super) fn read<'t>(scan: &Scan<'t, '_>, at: usize) -> Result<Reading<'t>, Fault> {
    let rules = Rules::new(scan, Blank::Fault);
    let mut repairs = Vec::new();
    let room = scan.budget.room();
    let strict = json::read(scan.text, at, ReadObject(&scan.budget)).map(|(object, end)| {
        let call = object.call(rules, at, &mut repairs);
        Reading { call, end, repairs }
    });
    if strict.as_ref().is_ok_and(|reading| reading.call.is_ok()) {
        return strict;
    }
    // Nothing of it is kept.
    scan.budget.rewind(room);
    if let Err(fault) = &strict
        && let Some(end) = json::end_of_too_many(scan.text, at, fault)
    {
        return Ok(Reading { call: Err(fault.clone().named(None)), end, repairs: Vec::new() });
    }
    if !scan.tolerant() {
        return strict;
    }
    let found = match lenient::read(scan.text, at, &scan.budget) {
        Some(found) => found,
        None if scan.budget.take_exceeded() => return Err(too_many(at)),
        None => return strict,
    };
    let mut repairs = found.repairs;
    let call = CallObject::from_aliases(found.value, &mut repairs).call(rules, at, &mut repairs);
    if call.is_err() {
        scan.budget.rewind(room);
        if strict.is_ok() {
            return strict;
        }
    }
    Ok(Reading { call, end: found.end, repairs })
}

/// Reads the arguments at `at` of the tool that was named before them.
pub(super) fn read_named<'t>(scan: &Scan<'t, '_>, name: &'t str, at: usize) -> Read<'t> {
    let Found { value: arguments, end, repairs } = read_arguments(scan, at).map_err(|fault| (fault, Some(name)))?;
    Ok(Reading { call: Ok(Call { name: Cow::Borrowed(name), arguments }), end, repairs })
}

/// Reads arguments that stand by themselves: always an object.
pub(super) fn read_arguments(scan: &Scan<'_, '_>, at: usize) -> Result<Found, Fault> {
    let room = scan.budget.room();
    let strict = scan.budget.if_kept(|| {
        let (value, end) = json::read(scan.text, at, Strict(&scan.budget))?;
        if value.is_object() {
            return Ok(Found { value, end, repairs: Vec::new() });
        }
        Err(Fault::new(ErrorCode::NotAnObject, at, "the arguments are no JSON object"))
    });
    if strict.is_ok() || !scan.tolerant() {
        return strict;
    }
    match lenient::read(scan.text, at, &scan.budget) {
        Some(found) if found.value.is_object() => Ok(found),
        None if scan.budget.take_exceeded() => Err(too_many(at)),
        _ => {
            scan.budget.rewind(room);
            strict
        }
    }
}

/// What arguments given as an empty or blank string mean (J6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blank {
    /// `{}`: in `openai`.
    NoArguments,
    /// A fault: in every other format with call objects.
    Fault,
}

/// How the parts of a call object are judged.
#[derive(Clone, Copy)]
pub(super) struct Rules<'s> {
    blank: Blank,
    budget: &'s Budget,
    tolerant: bool,
}

impl<'s> Rules<'s> {
    pub(super) fn new(scan: &'s Scan<'_, '_>, blank: Blank) -> Self {
        Self { blank, budget: &scan.budget, tolerant: scan.tolerant() }
    }
}

const MISSING_ARGUMENTS: &str = "the call object has neither `arguments` nor `parameters`";

/// What was read where a call object should stand.
pub(super) enum CallObject<'t> {
    Fields(Fields<'t>),
    /// JSON, but no object.
    Other,
}

/// The keys of a call object that mean something; the last one of duplicates.
#[derive(Default)]
pub(super) struct Fields<'t> {
    name: Name<'t>,
    arguments: Option<Value>,
    parameters: Option<Value>,
}

#[derive(Default)]
enum Name<'t> {
    #[default]
    Missing,
    Text(Cow<'t, str>),
    NoString,
}

impl<'t> CallObject<'t> {
    /// The object `value`, where other keys that policies use may stand for `name` and `arguments`.
    pub(super) fn from_aliases(value: Value, repairs: &mut Vec<Repair>) -> Self {
        let Value::Object(mut object) = value else { return Self::Other };
        let arguments = object.remove("arguments");
        let parameters = object.remove("parameters");
        let mut alias = |names: &[&str], object: &mut Map<String, Value>| {
            let found = names.iter().find_map(|name| object.remove(*name))?;
            lenient::note(repairs, Repair::AliasKey);
            Some(found)
        };
        let name = object.remove("name");
        let name = name.or_else(|| alias(&["tool_name", "function_name", "function", "tool"], &mut object));
        let arguments = match (arguments, &parameters) {
            (None, None) => alias(&["args", "params", "input", "tool_input", "action_input"], &mut object),
            (arguments, _) => arguments,
        };
        let name = match name {
            None => Name::Missing,
            Some(Value::String(name)) => Name::Text(Cow::Owned(name)),
            Some(_) => Name::NoString,
        };
        Self::Fields(Fields { name, arguments, parameters })
    }

    /// Whether this is an object with a `name` and with `arguments` or `parameters`, whatever they are.
    pub(super) fn is_named_with_arguments(&self) -> bool {
        match self {
            Self::Fields(Fields { name: Name::Missing, .. }) | Self::Other => false,
            Self::Fields(fields) => fields.arguments.is_some() || fields.parameters.is_some(),
        }
    }

    /// The call that the object is; `at` is where it stands.
    pub(super) fn call(self, rules: Rules<'_>, at: usize, repairs: &mut Vec<Repair>) -> Result<Call<'t>, Malformed> {
        let Self::Fields(Fields { name, arguments, parameters }) = self else {
            let what = "JSON, but no object with `name` and `arguments`";
            return Err(Fault::new(ErrorCode::NotAnObject, at, what).named(None));
        };
        let fault = |code, what: &'static str, name| Err(Fault::new(code, at, what).named(name));
        let missing_arguments = arguments.is_none() && parameters.is_none();
        let name = match name {
            Name::Missing => return fault(ErrorCode::MissingName, "the call object has no `name`", None),
            // What lacks both parts of a call may be meant as none; a name that is none says less.
            Name::NoString if missing_arguments => {
                return fault(ErrorCode::MissingArguments, MISSING_ARGUMENTS, None);
            }
            Name::NoString => return fault(ErrorCode::BadName, "`name` is no string", None),
            Name::Text(name) if name.is_empty() && !missing_arguments => {
                return fault(ErrorCode::BadName, "`name` is empty", None);
            }
            Name::Text(name) => name,
        };
        let arguments = match (arguments, parameters) {
            (Some(_), Some(_)) => {
                let what = "the call object has both `arguments` and `parameters`; give one";
                return fault(ErrorCode::AmbiguousArguments, what, Some(&name));
            }
            (None, None) => {
                return fault(ErrorCode::MissingArguments, MISSING_ARGUMENTS, Some(&name));
            }
            (Some(arguments), None) | (None, Some(arguments)) => arguments,
        };
        match decode(arguments, rules, at, repairs) {
            Ok(arguments) => Ok(Call { name, arguments }),
            Err(fault) => Err(fault.named(Some(&name))),
        }
    }
}

/// The object that `arguments` are, or that the string in them holds.
fn decode(arguments: Value, rules: Rules<'_>, at: usize, repairs: &mut Vec<Repair>) -> Result<Value, Fault> {
    let text = match arguments {
        Value::Object(_) => return Ok(arguments),
        Value::String(text) => text,
        _ => return Err(Fault::new(ErrorCode::BadArguments, at, "the arguments are neither an object nor a string")),
    };
    if text.trim().is_empty() {
        return match rules.blank {
            Blank::NoArguments => Ok(Value::Object(Map::new())),
            Blank::Fault => Err(Fault::new(ErrorCode::BadArguments, at, "the arguments are a blank string")),
        };
    }
    let room = rules.budget.room();
    let strict = json::read_whole(&text, rules.budget);
    if let Ok(value @ Value::Object(_)) = strict {
        return Ok(value);
    }
    rules.budget.rewind(room);
    if rules.tolerant {
        match lenient::read_whole(&text, rules.budget) {
            Some(found) if found.value.is_object() => {
                found.repairs.into_iter().for_each(|repair| lenient::note(repairs, repair));
                return Ok(found.value);
            }
            None if rules.budget.take_exceeded() => return Err(too_many(at)),
            _ => rules.budget.rewind(room),
        }
    }
    let Err(fault) = strict else {
        return Err(Fault::new(ErrorCode::BadArguments, at, "the string in the arguments holds no object"));
    };
    let code = match fault.code {
        code @ (ErrorCode::JsonNumber | ErrorCode::JsonSurrogate | ErrorCode::TooDeep | ErrorCode::TooManyValues) => {
            code
        }
        _ => ErrorCode::BadArguments,
    };
    Err(Fault::new(code, at, format!("the string in the arguments holds no object: {}", fault.what)))
}

/// Reads a call object, as far as its arguments fit in the budget.
#[derive(Clone, Copy)]
pub(super) struct ReadObject<'b>(pub(super) &'b Budget);

impl<'de> DeserializeSeed<'de> for ReadObject<'_> {
    type Value = CallObject<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<CallObject<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ReadObject<'_> {
    type Value = CallObject<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a call object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Name => fields.name = map.next_value()?,
                Key::Arguments => fields.arguments = Some(map.next_value_seed(Strict(self.0))?),
                Key::Parameters => fields.parameters = Some(map.next_value_seed(Strict(self.0))?),
                Key::Other => {
                    map.next_value::<Checked>()?;
                }
            }
        }
        Ok(CallObject::Fields(fields))
    }

    json::visit_scalars_and_lists!(CallObject::Other);

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(CallObject::Other)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Name,
    Arguments,
    Parameters,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name::Text(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name::Text(Cow::Owned(name.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<Checked, Checked>()?.is_some() {}
                Ok(Name::NoString)
            }

            json::visit_scalars_and_lists!(Name::NoString);
        }

        deserializer.deserialize_any(NameVisitor)
    }
}
