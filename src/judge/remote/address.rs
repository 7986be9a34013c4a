//! The address of an endpoint, checked once. In: the text of a configuration; out: urls that may be asked. Everything
//! that is ever connected to comes from here: replies cannot name another place, since redirects are not followed.

use reqwest::Url;

/// The root of an API: http or https, a host, a path, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    url: Url,
}

impl Address {
    /// Checks a url.
    ///
    /// # Errors
    /// What is wrong, in words that do not repeat the url.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("it is no url ({error})"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("its scheme is `{}`, not http or https", url.scheme()));
        }
        // The parser refuses http and https without a host; this says so should it ever change.
        if url.host_str().is_none_or(str::is_empty) {
            return Err("it has no host".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it holds a user or a password, which belong into `api_key_env`".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("it has a query or a fragment".to_owned());
        }
        Ok(Self { url })
    }

    /// The root without a slash at the end: paths that start with one are appended.
    pub(super) fn root(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Where vLLM and `SGLang` answer for classifiers and reward models: beside `/v1`, not below it.
    pub(super) fn classify(&self) -> String {
        let root = self.root();
        format!("{}/classify", root.strip_suffix("/v1").unwrap_or(root))
    }
}
