//! The kinds of problems that a whole request can have: a closed list, which `docs/errors.md` shows. In: a kind; out: its name,
//! its status and its title.

use axum::http::StatusCode;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $status:ident, $name:literal, $title:literal;)*) => {
        /// What kind of problem a request has.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The name by which clients tell it, as in `urn:gradus:problem:NAME`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// The HTTP status of its answer.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)* }
            }

            /// The kind in words.
            pub fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }
        }
    };
}

impl Kind {
    /// After how many seconds the same may succeed, where it may.
    pub fn retry_after_s(self) -> Option<u32> {
        match self {
            Self::Busy => Some(1),
            Self::Draining | Self::Store | Self::Judge | Self::NotScored => Some(5),
            Self::RubricsDirectory => Some(60),
            _ => None,
        }
    }
}

kinds! {
    /// The body is no JSON.
    BadJson = BAD_REQUEST, "bad-json", "The body is not JSON";
    /// The body is no UTF-8, or its encoding is broken.
    BadBody = BAD_REQUEST, "bad-body", "The body cannot be read";
    /// The idempotency key is none.
    BadKey = BAD_REQUEST, "bad-key", "Bad idempotency key";
    /// A parameter of the URL is wrong.
    BadQuery = BAD_REQUEST, "bad-query", "Bad query parameter";
    /// The cursor is none that a page gave.
    BadCursor = BAD_REQUEST, "bad-cursor", "No such cursor";
    /// Anything else that cannot be read, such as a part of the path.
    BadRequest = BAD_REQUEST, "bad-request", "Bad request";
    /// A grader of a type, or of a setting, that is not known here.
    UnsupportedGrader = BAD_REQUEST, "unsupported-grader", "The grader cannot be run";
    /// The server wants a token.
    NoToken = UNAUTHORIZED, "no-token", "Unauthorized";
    /// The token is another one.
    WrongToken = FORBIDDEN, "wrong-token", "Forbidden";
    /// The server has no administrator.
    NoAdmin = FORBIDDEN, "no-admin", "Forbidden";
    /// Rubrics in requests are switched off.
    InlineRubric = FORBIDDEN, "inline-rubric", "Inline rubrics are off";
    /// No rubric has this name or version.
    UnknownRubric = NOT_FOUND, "unknown-rubric", "Not found";
    /// No run has this name.
    UnknownRun = NOT_FOUND, "unknown-run", "Not found";
    /// No score has this id.
    UnknownScore = NOT_FOUND, "unknown-score", "Not found";
    /// The run has no prompts to draw from.
    NoPrompts = NOT_FOUND, "no-prompts", "Not found";
    /// The server keeps no scores.
    NoStore = NOT_FOUND, "no-store", "Not found";
    /// Nothing is at this path.
    NoRoute = NOT_FOUND, "no-route", "Not found";
    /// The path has other methods.
    Method = METHOD_NOT_ALLOWED, "method", "Method not allowed";
    /// The body did not come in time.
    SlowBody = REQUEST_TIMEOUT, "slow-body", "The body came too slowly";
    /// The client left; nobody receives this.
    Abandoned = REQUEST_TIMEOUT, "abandoned", "The client went away";
    /// The key was used for another body.
    IdempotencyConflict = CONFLICT, "idempotency-conflict", "The key was used for another request";
    /// There is no room for another rubric.
    TooManyRubrics = CONFLICT, "too-many-rubrics", "Too many rubrics";
    /// The body is larger than the server takes.
    TooLarge = PAYLOAD_TOO_LARGE, "too-large", "The body is too large";
    /// The table of references is full.
    TooManyReferences = PAYLOAD_TOO_LARGE, "too-many-references", "Too many references";
    /// The content type is another one.
    NotJson = UNSUPPORTED_MEDIA_TYPE, "not-json", "Unsupported media type";
    /// The content encoding is not known.
    Encoding = UNSUPPORTED_MEDIA_TYPE, "encoding", "Unsupported encoding";
    /// A field is missing, unknown or of another type.
    WrongShape = UNPROCESSABLE_ENTITY, "wrong-shape", "The request has the wrong shape";
    /// A rubric breaks its rules.
    BadRubric = UNPROCESSABLE_ENTITY, "bad-rubric", "The rubric has an error";
    /// Too much is in flight.
    Busy = TOO_MANY_REQUESTS, "busy", "The server is busy";
    /// A fault of ours.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Internal error";
    /// The server is stopping.
    Draining = SERVICE_UNAVAILABLE, "draining", "Unavailable";
    /// The store refused, or is closed.
    Store = SERVICE_UNAVAILABLE, "store", "Unavailable";
    /// A judge is not there.
    Judge = SERVICE_UNAVAILABLE, "judge", "Unavailable";
    /// An item could not be scored for now, and `on_invalid` is `error`.
    NotScored = SERVICE_UNAVAILABLE, "not-scored", "Unavailable";
    /// The directory of rubrics cannot be read or written.
    RubricsDirectory = SERVICE_UNAVAILABLE, "rubrics-directory", "Unavailable";
    /// Not scored, or not stored, within the request's time.
    Deadline = GATEWAY_TIMEOUT, "deadline", "The deadline passed";
}
