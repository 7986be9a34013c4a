//! `gradus openapi`: prints the document that is committed under `openapi/`.

use std::process::ExitCode;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    say!("{}", crate::http::document().to_pretty_json()?);
    Ok(ExitCode::SUCCESS)
}
