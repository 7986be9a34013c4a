//! `POST /references`: what is right for prompts, for trainers whose requests carry no ground truth. Kept in the store, so
//! that a restart finds it again.

use std::borrow::Cow;

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::http::app::App;
use crate::http::error::Problem;
use crate::http::handlers::read_text_alone;
use crate::http::prompt::{PromptKey, key_and_turns, read_turns};
use crate::http::references::{Entry, References, TableFull};
use crate::http::schema::{JsonObject, PromptDoc, TextOrNumber};
use crate::http::scoring::on_work_threads;
use crate::http::wire::{Kept, check_kept, read_as};
use crate::store::{Store, StoredReference};

/// What an upload came to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReferencesLoaded, example = json!({"lines": 1000, "replaced": 0, "prompts": 1000}))]
pub(crate) struct Loaded {
    /// Lines that were read.
    lines: usize,
    /// Lines whose prompt was known before.
    replaced: usize,
    /// Prompts that are known now.
    prompts: usize,
}

/// One line of an upload.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = ReferenceLine, example = json!({"prompt": "What is the capital of France?", "references": ["Paris"]}))]
pub(crate) struct ReferenceLineDoc {
    /// The prompt: text, templated or not, or messages. Also taken as `messages`.
    prompt: PromptDoc,
    /// Acceptable answers.
    #[schema(required = false)]
    references: Option<Vec<TextOrNumber>>,
    /// Calls that a right trajectory makes.
    #[schema(required = false, value_type = Vec<JsonObject>)]
    reference_calls: Option<Vec<serde_json::Value>>,
    /// The tools that are offered.
    #[schema(required = false, value_type = Vec<JsonObject>)]
    tools: Option<Vec<serde_json::Value>>,
    /// The prompt's group.
    #[schema(required = false)]
    group: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, default)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "golds", alias = "ground_truth")]
    references: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reference_calls: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    group: Option<&'a RawValue>,
}

impl Line<'_> {
    fn read(text: &str) -> Result<(PromptKey, Entry), Cow<'static, str>> {
        let line: Line<'_> = read_as(text).map_err(|wrong| wrong.to_string())?;
        let prompt = line.prompt.or(line.messages).ok_or("it has neither `prompt` nor `messages`; add one")?;
        let (key, turns) = key_and_turns(prompt.get()).ok_or_else(|| unread(prompt))?;
        if line.references.is_none() && line.reference_calls.is_none() {
            return Err("it has neither `references` nor `reference_calls`; add what is right".into());
        }
        let own = |raw: Option<&RawValue>| raw.map(ToOwned::to_owned);
        let Line { references, reference_calls, tools, group, .. } = line;
        check_kept(&Kept { references, reference_calls, tools, group }).map_err(|wrong| wrong.to_string())?;
        let (references, reference_calls) = (own(line.references), own(line.reference_calls));
        Ok((key, Entry { references, reference_calls, tools: own(line.tools), group: own(line.group), turns }))
    }
}

/// Why a prompt is none.
fn unread(prompt: &RawValue) -> Cow<'static, str> {
    let messages: Vec<&RawValue> = serde_json::from_str(prompt.get()).unwrap_or_default();
    match messages.iter().position(|message| read_turns(&format!("[{message}]")).is_none()) {
        Some(index) => format!("message {index} of its prompt is none; give it a `role` and `content`").into(),
        None => "its prompt is neither a text nor messages with something to answer".into(),
    }
}

fn read(text: &str) -> Result<Vec<(PromptKey, Entry)>, Problem> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let entry = |(place, line): (usize, &str)| {
        Line::read(line).map_err(|wrong| {
            let detail = format!("line {}: {}", place + 1, wrong.trim());
            Problem::shape("", detail).on_line(place + 1)
        })
    };
    lines.map(entry).collect()
}

/// Load what is right for prompts.
///
/// Trainers that send whole texts without labels (LLaMA-Factory, reward-model servers) are scored by this table, and so is
/// every item of a dialect that brings no answer of its own; a trajectory of `POST /reward` brings its references along. Tools
/// and group of a line count for each item of its prompt that has none of its own, whether or not it brings an answer. A
/// prompt is known again in any template: system messages and the template's tokens do not count. A line of a known prompt
/// replaces what was known. A line that cannot be read refuses the upload.
#[utoipa::path(post, path = "/references", tag = "dialects", operation_id = "load_references",
    request_body(content = ReferenceLineDoc, content_type = "application/x-ndjson", description = "JSON lines, one prompt each"),
    responses(
        (status = 200, description = "All lines were taken", body = Loaded),
        (status = 400, description = "Not UTF-8, or parameters in the URL"),
        (status = 413, description = "The body, or the table, would be too large"),
        (status = 422, description = "A line cannot be read; nothing was taken")))]
pub(crate) async fn load_references(State(app): State<App>, request: Request) -> Result<Json<Loaded>, Problem> {
    let (_admission, text) = read_text_alone(&app, request).await?;
    let stored = app.store.is_some();
    let (entries, rows) = on_work_threads(move || {
        let entries = read(&text)?;
        let rows = if stored { rows(&entries)? } else { Vec::new() };
        Ok((entries, rows))
    })
    .await?;
    // On a task of its own: what was stored is taken up, also where the client goes away in between.
    let work = app.clone();
    let taken = tokio::spawn(async move { take(&work, entries, rows).await });
    taken.await.map_err(Problem::internal)?.map(Json)
}

/// Entries as they are stored, by key: the database keeps them in that order, and one that came in any other would have it
/// look for a page for nearly every row, which kept its one writer from all else for many times as long. Of equal keys the
/// last one stays the last.
fn rows(entries: &[(PromptKey, Entry)]) -> Result<Vec<StoredReference>, Problem> {
    let row = |(key, entry): &(PromptKey, Entry)| {
        let value = serde_json::to_string(entry).map_err(Problem::internal)?;
        Ok(StoredReference { key: key.0, value })
    };
    let mut rows = entries.iter().map(row).collect::<Result<Vec<_>, Problem>>()?;
    rows.sort_by_key(|row| row.key);
    Ok(rows)
}

/// Takes an upload: all of it into the store and then into the table, or nothing into either.
async fn take(app: &App, entries: Vec<(PromptKey, Entry)>, rows: Vec<StoredReference>) -> Result<Loaded, Problem> {
    let lines = entries.len();
    let _uploading = app.references.uploading().await;
    let work = app.clone();
    let entries = on_work_threads(move || Ok(work.references.check(&entries).map(|()| entries)?)).await?;
    if let Some(store) = app.store.as_ref().filter(|_| !rows.is_empty()) {
        store.keep_references(rows).await?;
    }
    let work = app.clone();
    let replaced = on_work_threads(move || Ok(work.references.insert(entries)?)).await?;
    Ok(Loaded { lines, replaced, prompts: app.references.len() })
}

/// Rows that are taken up at a time: what was read of them is gone before the next ones are.
const SLICE: usize = 1 << 16;

/// Takes up what the store keeps, also where it is more than an upload may come to: with an empty table every prompt would
/// be one without an answer. A row that cannot be read is left out, and said.
pub(crate) fn restore(store: &Store, references: &References) {
    let stored = store.references().unwrap_or_else(|error| {
        tracing::error!(%error, "the references by prompt cannot be read; load them again with POST /references");
        Vec::new()
    });
    let entry = |row: StoredReference| Some((PromptKey(row.key), serde_json::from_str(&row.value).ok()?));
    let (found, mut taken, mut full) = (stored.len(), 0, None::<TableFull>);
    let mut rows = stored.into_iter();
    while rows.len() > 0 {
        let entries: Vec<_> = rows.by_ref().take(SLICE).filter_map(entry).collect();
        taken += entries.len();
        full = references.take_up(entries);
    }
    if taken < found {
        tracing::error!(lost = found - taken, "references by prompt are damaged; load them again");
    }
    if let Some(full) = full {
        let (prompts, bytes) = (full.prompts, full.bytes);
        tracing::warn!(
            prompts,
            bytes,
            "the database has more references by prompt than a table is to have; all are taken up, and further uploads are refused"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_database_has_is_taken_up_though_the_table_is_full() {
        let store = Store::in_memory();
        let row =
            |key: u8| StoredReference { key: [key; 16], value: "{\"references\":[\"Paris\"],\"turns\":1}".to_owned() };
        store.keep_references(vec![row(1), row(2)]).await.unwrap();
        let references = References::full();
        restore(&store, &references);
        assert!(references.find(PromptKey([1; 16])).is_some() && references.find(PromptKey([2; 16])).is_some());
        assert!(references.check(&[(PromptKey([3; 16]), Entry::default())]).is_err(), "an upload must fit");
    }

    #[test]
    fn rows_come_by_key_and_the_last_of_equal_keys_stays_the_last() {
        let entry = |group: &str| Entry { group: RawValue::from_string(group.to_owned()).ok(), ..Entry::default() };
        let entries = [(9, "1"), (4, "2"), (200, "3"), (4, "4"), (1, "5")];
        let entries = entries.map(|(key, group)| (PromptKey([key; 16]), entry(group)));
        let rows = rows(&entries).unwrap();
        let told = rows.iter().map(|row| (row.key[0], row.value.chars().find(char::is_ascii_digit).unwrap()));
        assert_eq!(told.collect::<Vec<_>>(), [(1, '5'), (4, '2'), (4, '4'), (9, '1'), (200, '3')]);
    }
}
