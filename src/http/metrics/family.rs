//! Families of samples that are read anew at every scrape, for collectors. In: what a family is called and its values. Out: its
//! lines. Counts nothing.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// A metric's name, without the prefix and what its kind and unit add.
pub(super) struct Metric {
    name: &'static str,
    /// Without a full stop at its end, as the registry wants it.
    help: &'static str,
    kind: MetricType,
    unit: Option<Unit>,
}

/// What only grows, from 0 at the start.
pub(super) const fn counter(name: &'static str, help: &'static str, unit: Option<Unit>) -> Metric {
    Metric { name, help, kind: MetricType::Counter, unit }
}

/// What is so now.
pub(super) const fn gauge(name: &'static str, help: &'static str, unit: Option<Unit>) -> Metric {
    Metric { name, help, kind: MetricType::Gauge, unit }
}

impl Metric {
    /// A family of one sample without labels.
    pub(super) fn single(&self, encoder: &mut DescriptorEncoder<'_>, value: f64) -> fmt::Result {
        self.sample(self.describe(encoder)?, value)
    }

    /// One family; nothing at all where it has no sample.
    pub(super) fn family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.describe(encoder)?;
        samples.try_for_each(|(labels, value)| self.sample(family.encode_family(&labels)?, value))
    }

    fn describe<'e>(&'e self, encoder: &'e mut DescriptorEncoder<'_>) -> Result<MetricEncoder<'e>, fmt::Error> {
        // The registry ends what it registers so, but not what collectors describe.
        encoder.encode_descriptor(self.name, &format!("{}.", self.help), self.unit.as_ref(), self.kind)
    }

    fn sample(&self, encoder: MetricEncoder<'_>, value: f64) -> fmt::Result {
        match self.kind {
            MetricType::Counter => ConstCounter::new(value).encode(encoder),
            _ => ConstGauge::new(value).encode(encoder),
        }
    }
}

/// Names and values.
pub(super) type Labels = Vec<(&'static str, String)>;
