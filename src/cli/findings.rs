//! The judges' cache in the store: what a judge said outlives the process. Only here do judges and store meet.

use std::fmt;

use crate::judge::Memory;
use crate::store::Store;

/// Findings, kept beside the scores.
pub(super) struct StoredFindings(pub(super) Store);

/// Findings of a store that is only read: what is found out now is forgotten.
pub(super) struct PastFindings(pub(super) Store);

impl fmt::Debug for StoredFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredFindings")
    }
}

impl Memory for StoredFindings {
    fn get(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        self.0.recall(key)
    }

    fn put(&self, key: &[u8; 32], value: &[u8]) {
        self.0.remember(key, value);
    }
}

impl fmt::Debug for PastFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PastFindings")
    }
}

impl Memory for PastFindings {
    fn get(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        self.0.recall(key)
    }

    fn put(&self, _: &[u8; 32], _: &[u8]) {}
}
