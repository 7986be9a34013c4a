//! Tool lists and compiled schemas by their text. In: the raw JSON of a `tools` value; out: the shared tool set.
//! Two levels: a list that was seen before costs a hash and a comparison of its text, and a schema that stands in
//! several lists is compiled once. Knows no request and no trajectory.

use std::sync::Arc;

use moka::sync::Cache;

use super::{Formats, Schema, text_hash::TextHash};
use crate::toolcall::tools::{MAX_LIST_BYTES, ToolSet};

type TextCache<V> = Cache<String, Arc<V>, TextHash>;

/// Compiled tool lists; cheap to clone and safe to share between threads.
#[derive(Debug, Clone)]
pub struct SchemaCache {
    annotating: Level,
    asserting: Level,
}

/// The lists and schemas of one meaning of `format`.
#[derive(Debug, Clone)]
struct Level {
    formats: Formats,
    lists: TextCache<ToolSet>,
    schemas: TextCache<Schema>,
}

impl SchemaCache {
    /// A cache that holds about `capacity_bytes` for each meaning of `format` that is in use.
    pub fn new(capacity_bytes: u64) -> Self {
        let level = |formats| Level::new(formats, capacity_bytes);
        Self { annotating: level(Formats::Annotate), asserting: level(Formats::Assert) }
    }

    /// The tools in `raw`, the JSON text of a `tools` value. A malformed list is a tool set with a
    /// [`problem`](ToolSet::problem), kept like any other.
    pub fn tools(&self, raw: &str, assert_format: bool) -> Arc<ToolSet> {
        let level = if assert_format { &self.asserting } else { &self.annotating };
        if raw.len() > MAX_LIST_BYTES {
            return Arc::new(level.read(raw));
        }
        level.lists.get_with_by_ref(raw, || Arc::new(level.read(raw)))
    }
}

impl Level {
    fn new(formats: Formats, capacity_bytes: u64) -> Self {
        Self {
            formats,
            lists: cache(capacity_bytes / 2, ToolSet::weight_bytes),
            schemas: cache(capacity_bytes / 2, Schema::weight_bytes),
        }
    }

    fn read(&self, raw: &str) -> ToolSet {
        ToolSet::read(raw, |schema| {
            self.schemas.get_with_by_ref(schema, || Arc::new(Schema::new(schema, self.formats)))
        })
    }
}

fn cache<V: Send + Sync + 'static>(capacity_bytes: u64, weight_bytes: fn(&V) -> usize) -> TextCache<V> {
    Cache::builder()
        .max_capacity(capacity_bytes)
        .weigher(move |key: &String, value: &Arc<V>| {
            u32::try_from(key.len().saturating_add(weight_bytes(value))).unwrap_or(u32::MAX)
        })
        .build_with_hasher(TextHash::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_shared_by_text_and_schemas_across_lists() {
        let cache = SchemaCache::new(64 << 20);
        let one = r#"[{"name":"f","parameters":{"type":"object"}}]"#;
        let two = r#"[{"name":"g","parameters":{"type":"object"}},{"name":"h"}]"#;
        let first = cache.tools(one, false);
        assert!(Arc::ptr_eq(&first, &cache.tools(one, false)));
        assert!(!Arc::ptr_eq(&first, &cache.tools(one, true)));
        let second = cache.tools(two, false);
        let schema = |tools: &ToolSet, name: &str| tools.get(name).and_then(|tool| tool.schema().cloned());
        let (f, g) = (schema(&first, "f").expect("f"), schema(&second, "g").expect("g"));
        assert!(Arc::ptr_eq(&f, &g));
        assert!(schema(&second, "h").is_none());
    }

    #[test]
    fn the_cache_stays_within_its_bounds() {
        let cache = SchemaCache::new(1 << 20);
        for number in 0..2000 {
            let list = format!(r#"[{{"name":"f","parameters":{{"title":"{number}"}}}}]"#);
            assert!(cache.tools(&list, false).get("f").is_some());
        }
        cache.annotating.schemas.run_pending_tasks();
        assert!(cache.annotating.schemas.weighted_size() <= 1 << 19);
        let huge = format!("[{}", " ".repeat(MAX_LIST_BYTES));
        assert!(cache.tools(&huge, false).problem().is_some());
    }
}
