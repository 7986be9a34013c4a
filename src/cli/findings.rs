//! The judges' cache in the store: what a judge said outlives the process. Only here do judges and store meet.

use std::fmt;

use crate::judge::FindingStore;
use crate::store::Store;

/// Findings, kept beside the scores.
pub(super) struct StoredFindings {
    pub(super) store: Store,
    /// Whether what is found out now is kept, too; not in a store that is only read.
    pub(super) keeps: bool,
}

impl fmt::Debug for StoredFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredFindings")
    }
}

impl FindingStore for StoredFindings {
    fn get(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        self.store.recall(key)
    }

    fn put(&self, key: &[u8; 32], value: &[u8]) {
        if self.keeps {
            self.store.remember(key, value);
        }
    }
}
