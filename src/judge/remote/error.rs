//! Why a remote judge could not be set up: the field, its value and the fix. What goes wrong later is a `Failure`.

/// A remote judge that cannot be built. No message holds a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// A field that must say something says nothing.
    #[error("`{field}` is empty, or a value in it is: name at least one, or leave the field out")]
    Empty {
        /// The field.
        field: String,
    },
    /// A number is out of its range.
    #[error("`{field}` is {value}: give a value from {range}")]
    Range {
        /// The field.
        field: String,
        /// The value as given.
        value: String,
        /// What it may be.
        range: String,
    },
    /// A url is none that may be asked. The url is not repeated: it may hold a password.
    #[error("`{field}` cannot be used: {reason}; give one like `http://127.0.0.1:8000/v1`")]
    Url {
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The variable of the key is not set.
    #[error("`{field}` names `{name}`, which is not set: set it to the endpoint's key, or remove the field")]
    MissingKey {
        /// The field.
        field: String,
        /// The variable.
        name: String,
    },
    /// The key cannot be sent.
    #[error("`{field}` names `{name}`, whose value cannot stand in a header: it must be one line of ASCII")]
    BadKey {
        /// The field.
        field: String,
        /// The variable.
        name: String,
    },
    /// The HTTP client does not start.
    #[error("the HTTP client cannot start: {reason}; check this machine's TLS certificates")]
    Client {
        /// What the library said.
        reason: String,
    },
}
