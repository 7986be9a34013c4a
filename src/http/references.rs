//! What right answers there are, by prompt: for trainers whose requests carry none. In: entries under the keys of
//! prompts. Out: an entry. Bounded in count and bytes. Knows no store: who fills it keeps it.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Mutex, MutexGuard};

use super::prompt::{KnownPrompts, PromptKey};
use crate::locks;

/// Most prompts of the table.
pub(super) const MAX_PROMPTS: usize = 4 << 20;
/// Most bytes of the table.
pub(super) const MAX_BYTES: usize = 1 << 30;
/// What a prompt takes beside its entry, about, in bytes.
const OVERHEAD: usize = 96;

/// What is known of a prompt; every field is raw JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Entry {
    /// Acceptable answers: a list, or one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<Box<RawValue>>,
    /// Calls that a right trajectory makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_calls: Option<Box<RawValue>>,
    /// The tools that are offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Box<RawValue>>,
    /// The group's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Box<RawValue>>,
    /// Turns of the prompt, system messages left out.
    pub turns: usize,
}

impl Entry {
    fn bytes(&self) -> usize {
        let parts = [&self.references, &self.reference_calls, &self.tools, &self.group];
        OVERHEAD + parts.into_iter().flatten().map(|raw| raw.get().len()).sum::<usize>()
    }
}

/// The table would grow too large; nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the table of references would hold {prompts} prompts in {bytes} bytes, more than the limit of {MAX_PROMPTS} prompts or {MAX_BYTES} bytes; load fewer, or use shorter tools"
)]
pub struct TableFull {
    /// Prompts that it would hold.
    pub prompts: usize,
    /// What they would take.
    pub bytes: usize,
}

/// The table.
#[derive(Debug, Default)]
pub struct References {
    table: RwLock<Table>,
    uploading: Mutex<()>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<PromptKey, Arc<Entry>>,
    bytes: usize,
    /// Of the longest prompt that was ever in it.
    most_turns: usize,
}

impl References {
    /// Whether there is nothing to look up.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many prompts it has.
    pub fn len(&self) -> usize {
        locks::read(&self.table).entries.len()
    }

    /// The entry of a prompt.
    pub fn find(&self, key: PromptKey) -> Option<Arc<Entry>> {
        locks::read(&self.table).entries.get(&key).cloned()
    }

    /// Waits until no other upload is under way, and keeps others from it while the guard lives: between the moment that an
    /// upload is known to fit and that in which it is taken, it is stored.
    pub(crate) async fn uploading(&self) -> MutexGuard<'_, ()> {
        self.uploading.lock().await
    }

    /// Whether entries fit.
    ///
    /// # Errors
    /// [`TableFull`].
    pub fn check(&self, entries: &[(PromptKey, Entry)]) -> Result<(), TableFull> {
        locks::read(&self.table).check(entries).map(|_known| ())
    }

    /// Adds entries; a later one of the same prompt replaces an earlier one. Gives how many prompts were known before.
    ///
    /// # Errors
    /// [`TableFull`]; nothing is taken then.
    pub fn insert(&self, entries: Vec<(PromptKey, Entry)>) -> Result<usize, TableFull> {
        let mut table = locks::write(&self.table);
        let known = table.check(&entries)?;
        table.add(entries);
        Ok(known)
    }

    /// Adds entries that were taken before, whether or not they fit: several processes may have stored more than one may
    /// take. Gives how full the table is, where that is more than an upload may make it.
    pub fn take_up(&self, entries: Vec<(PromptKey, Entry)>) -> Option<TableFull> {
        let mut table = locks::write(&self.table);
        table.add(entries);
        table.check(&[]).err()
    }
}

impl Table {
    fn add(&mut self, entries: Vec<(PromptKey, Entry)>) {
        for (key, entry) in entries {
            let bytes = entry.bytes();
            self.most_turns = self.most_turns.max(entry.turns);
            let old = self.entries.insert(key, Arc::new(entry));
            self.bytes = (self.bytes + bytes).saturating_sub(old.map_or(0, |old| old.bytes()));
        }
    }

    /// How many of the entries' prompts are known, where all fit.
    fn check(&self, entries: &[(PromptKey, Entry)]) -> Result<usize, TableFull> {
        let replaced = |key| self.entries.get(key).map_or(0, |old| old.bytes());
        let known = entries.iter().filter(|(key, _)| self.entries.contains_key(key)).count();
        let added: usize = entries.iter().map(|(_, entry)| entry.bytes()).sum();
        let freed: usize = entries.iter().map(|(key, _)| replaced(key)).sum();
        let bytes = (self.bytes + added).saturating_sub(freed);
        let prompts = self.entries.len() + entries.len() - known;
        if prompts > MAX_PROMPTS || bytes > MAX_BYTES {
            return Err(TableFull { prompts, bytes });
        }
        Ok(known)
    }
}

impl KnownPrompts for References {
    fn knows(&self, key: PromptKey) -> bool {
        self.find(key).is_some()
    }

    fn most_turns(&self) -> usize {
        locks::read(&self.table).most_turns
    }
}

#[cfg(test)]
impl References {
    /// A table that has no room for another prompt.
    pub(crate) fn full() -> Self {
        Self { table: RwLock::new(Table { bytes: MAX_BYTES, ..Table::default() }), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(references: &str) -> Entry {
        serde_json::from_str(&format!("{{\"turns\": 1, \"references\": {references}}}")).unwrap()
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one() {
        let table = References::default();
        let key = PromptKey([1; 16]);
        assert_eq!(table.insert(vec![(key, entry("[\"Lyon\"]"))]), Ok(0));
        assert_eq!(table.insert(vec![(key, entry("[\"Paris\"]")), (PromptKey([2; 16]), Entry::default())]), Ok(1));
        assert_eq!(table.len(), 2);
        assert_eq!(table.find(key).unwrap().references.as_ref().unwrap().get(), "[\"Paris\"]");
        assert!(table.find(PromptKey([3; 16])).is_none());
        let bytes = locks::read(&table.table).bytes;
        assert_eq!(bytes, 2 * OVERHEAD + "[\"Paris\"]".len());
    }

    #[test]
    fn too_much_is_refused_whole() {
        let table = References::default();
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        let entries = (0..1100_u32).map(|n| {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&n.to_le_bytes());
            (PromptKey(key), entry(&long))
        });
        let entries: Vec<_> = entries.collect();
        assert!(table.check(&entries).is_err() && table.check(&entries[..1000]).is_ok());
        assert!(table.insert(entries).is_err());
        assert!(table.is_empty());
    }
}
