//! Who may do what: an optional token for everything that costs work, and an admin token for changing rubrics.

use axum::http::{HeaderMap, header};

use super::error::Problem;
use super::kind::Kind;

/// The tokens; none means that the door is open (scoring) or shut (administration).
#[derive(Clone, Default)]
pub struct Tokens {
    /// Needed for scoring and reading scores, when set.
    pub api: Option<String>,
    /// Needed for changing rubrics; without one nobody can.
    pub admin: Option<String>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("api", &self.api.is_some()).field("admin", &self.admin.is_some()).finish()
    }
}

impl Tokens {
    /// Tokens as clients can send them.
    ///
    /// # Errors
    /// When one is empty, or has characters that no client can send.
    pub fn checked(self) -> Result<Self, String> {
        Ok(Self { api: sendable(self.api, "api")?, admin: sendable(self.admin, "admin")? })
    }

    /// Lets a scoring client in.
    ///
    /// # Errors
    /// 401 without a token, 403 with a wrong one.
    pub fn require_api(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match &self.api {
            None => Ok(()),
            Some(token) => compare(headers, &[Some(token), self.admin.as_ref()]),
        }
    }

    /// Lets an administrator in.
    ///
    /// # Errors
    /// 401 without a token, 403 with a wrong one or when the server has none.
    pub fn require_admin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.admin.is_none() {
            let detail = "changing rubrics is switched off; start the server with --admin-token";
            return Err(Problem::new(Kind::NoAdmin, detail));
        }
        compare(headers, &[self.admin.as_ref()]).map_err(|problem| match compare(headers, &[self.api.as_ref()]) {
            Ok(()) => {
                let detail = "this is the token for scoring; changing rubrics needs the one of --admin-token";
                Problem::new(Kind::WrongToken, detail)
            }
            Err(_) => problem,
        })
    }
}

/// The scheme's name is case-insensitive (RFC 9110).
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The token, without the newline in which secrets kept in files often end, and which is not theirs.
fn sendable(given: Option<String>, name: &str) -> Result<Option<String>, String> {
    let Some(token) = given else { return Ok(None) };
    let token = token.trim();
    if token.is_empty() {
        // A secret that somebody forgot to set, and no wish for an open server.
        return Err(format!("the {name} token is empty; set it, or leave it out"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "the {name} token has characters that clients cannot send; use visible ASCII characters without spaces"
        ));
    }
    Ok(Some(token.to_owned()))
}

fn compare(headers: &HeaderMap, accepted: &[Option<&String>]) -> Result<(), Problem> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    let Some(given) = bearer.and_then(bearer_token).or(key) else {
        let detail = "send the token as `Authorization: Bearer ..` or as `X-Api-Key`";
        return Err(Problem::new(Kind::NoToken, detail));
    };
    // Hashes of equal length: the comparison's time says nothing about the token.
    let given = blake3::hash(given.as_bytes());
    if accepted.iter().flatten().any(|token| blake3::hash(token.as_bytes()) == given) {
        return Ok(());
    }
    Err(Problem::new(Kind::WrongToken, "the token is not the one of this server"))
}
