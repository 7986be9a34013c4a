//! Jinja's tests where Python's differ from the engine's, as templates of models rely on.
//!
//! In: a template's value. Out: what Jinja2 says of it.

use minijinja::Value;
use minijinja::value::ValueKind;

/// What can be walked over. The engine walks over nothing, too: `tools is iterable` would hold where there are none.
pub(super) fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// What has a length and places: texts and mappings, too.
pub(super) fn is_sequence(value: &Value) -> bool {
    value.is_undefined()
        || matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Bytes | ValueKind::Map)
}
