//! The JSON of `POST /reward`: requests read, results written. In: bytes; out: trajectories, and back. The only place
//! with API field names.
//!
//! What is taken, and what is refused in which words, is written once, for serde: `request` (what stands around the items),
//! `item`, `message` and `rollout` (an item), `text` (the small things in both); `pointed` finds the place of what is wrong.
//! Start there.
//!
//! Most items never come that way: `split` goes over a body once, and has the items read in passing by `walk` (strings:
//! `escapes`; what came before: `familiar`; brackets: `apart`), field by field as serde does (`field`). That takes nothing that
//! serde refuses, and gives up without a word on whatever is unusual: that is read the first way then, which says what is wrong
//! if anything is.
//!
//! Out go `response` (results, and what stands around them) and `calls` (the calls in them), by `json`, which writes values.

mod apart;
mod calls;
mod escapes;
mod familiar;
mod field;
mod item;
mod json;
mod message;
mod pointed;
mod request;
mod response;
mod rollout;
mod split;
mod text;
mod walk;

pub(in crate::http) use apart::{MAX_NOTED, NotTaken, Noted, take_apart};
pub(in crate::http) use familiar::mix;
pub use item::{Given, Item, read_names};
pub(in crate::http) use item::{Kept, REFUSED, check_kept, list_of};
pub(in crate::http) use json::Put;
pub(in crate::http) use message::PromptMessage;
pub use pointed::{Pointed, Wrong, pointed, read_as};
pub(in crate::http) use pointed::{excerpt, without_place};
pub use request::{CurriculumWire, MAX_TRAJECTORIES, OnInvalid, RewardRequest, read_request};
pub(in crate::http) use request::{MAX_NAME_BYTES, MAX_STEP};
pub use response::{CacheWire, ErrorWire, GroupWire, Naming, ResultWire, error};
pub use split::{Split, early_deadline_ms};
pub use text::{Choice, Text};
pub(crate) use text::{Object, Whole};
pub(in crate::http) use text::{choice, object, objects, whole_number};
