//! What the store did so far, for Prometheus. In: its counters, read anew at every scrape; out: their families, all of them
//! zero where there is no store. Counts nothing itself.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::family::{Metric, counter, gauge};
use crate::store::{Counters, Store};

/// The store of a server, if it has one.
pub(super) struct StoreCollector(pub(super) Option<Store>);

impl fmt::Debug for StoreCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreCollector").finish_non_exhaustive()
    }
}

impl Collector for StoreCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode(&mut encoder, &self.0.as_ref().map(Store::counters).unwrap_or_default())
    }
}

type Value = fn(&Counters) -> u64;

const STORE: [(Metric, Value); 10] = [
    (gauge("store", "Bytes of the database's file and its log", Some(Unit::Bytes)), |store| store.file_bytes),
    (gauge("store_queue", "Bytes that wait for the store", Some(Unit::Bytes)), |store| store.queue_bytes),
    (counter("store_batches", "Batches stored", None), |store| store.batches),
    (counter("store_scores", "Scores stored", None), |store| store.scores),
    (counter("store_commits", "Transactions of the store", None), |store| store.transactions),
    (counter("store_failures", "Batches that the store could not write", None), |store| store.failures),
    (
        gauge(
            "store_held_batches",
            "Batches that were answered (durability `relaxed`) and wait until they can be stored",
            None,
        ),
        |store| store.held_batches,
    ),
    (counter("store_lost_batches", "Batches that were answered and could not be stored", None), |store| {
        store.lost_batches
    }),
    (counter("store_findings", "Judges' findings stored", None), |store| store.findings),
    (
        counter(
            "store_lost_findings",
            "Judges' findings that were not stored; they are asked again when they are needed",
            None,
        ),
        |store| store.lost_findings,
    ),
];

fn encode(encoder: &mut DescriptorEncoder<'_>, counters: &Counters) -> fmt::Result {
    STORE.into_iter().try_for_each(|(metric, value)| metric.single(encoder, value(counters) as f64))
}
