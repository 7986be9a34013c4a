//! TensorBoard's records: `TFRecord` frames around `tensorflow.Event` messages (event.proto, summary.proto), of which
//! only the fields for scalars are written. In: a time, a step, numbers. Out: bytes.

use super::crc32c::masked_crc32c;
use super::step::StepMetrics;

/// Protobuf's wire types (its encoding guide).
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

/// What an event says.
#[derive(Debug, Clone, Copy)]
pub(super) enum EventKind<'a> {
    /// The first record of every file.
    FileVersion,
    /// Training (re)starts at the event's step: TensorBoard drops that step and later ones of earlier files.
    Start,
    /// The step's numbers.
    Scalars(&'a StepMetrics),
}

/// The framed record of an event. `wall_time_s` is in seconds since 1970.
pub(super) fn record(wall_time_s: f64, step: u64, what: EventKind<'_>) -> Vec<u8> {
    frame(&event(wall_time_s, step, what))
}

/// Length, its checksum, the data, their checksum; all little-endian.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let length_crc = masked_crc32c(&length).to_le_bytes();
    [&length[..], &length_crc, data, &masked_crc32c(data).to_le_bytes()].concat()
}

/// `Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; SessionLog session_log
/// = 7 }`
fn event(wall_time_s: f64, step: u64, what: EventKind<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    tag(&mut out, 1, FIXED64);
    out.extend(wall_time_s.to_le_bytes());
    // Protobuf leaves out what is 0.
    if step > 0 {
        tag(&mut out, 2, VARINT);
        varint(&mut out, step);
    }
    match what {
        EventKind::FileVersion => bytes(&mut out, 3, b"brain.Event:2"),
        EventKind::Start => {
            // SessionLog { SessionStatus status = 1 } with START = 1
            let mut log = Vec::new();
            tag(&mut log, 1, VARINT);
            varint(&mut log, 1);
            bytes(&mut out, 7, &log);
        }
        EventKind::Scalars(metrics) => bytes(&mut out, 5, &summary(metrics)),
    }
    out
}

/// `Summary { repeated Value value = 1 }` with `Value { string tag = 1; float simple_value = 2 }`
fn summary(metrics: &StepMetrics) -> Vec<u8> {
    let mut out = Vec::new();
    for (metric, value) in metrics.values() {
        let mut scalar = Vec::new();
        bytes(&mut scalar, 1, metric.to_string().as_bytes());
        tag(&mut scalar, 2, FIXED32);
        scalar.extend(single(value).to_le_bytes());
        bytes(&mut out, 1, &scalar);
    }
    out
}

/// The nearest number of TensorBoard's width. One beyond its range becomes the largest there is, since infinity would
/// stand as "not a number" in every chart.
#[expect(clippy::cast_possible_truncation, reason = "in range, and rounded to the nearest")]
fn single(value: f64) -> f32 {
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

fn tag(out: &mut Vec<u8>, field: u8, wire_type: u8) {
    out.push(field << 3 | wire_type);
}

fn bytes(out: &mut Vec<u8>, field: u8, data: &[u8]) {
    tag(out, field, LENGTH_DELIMITED);
    varint(out, data.len() as u64);
    out.extend(data);
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7F) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::metrics::Metric;

    fn hex(bytes: &[u8]) -> String {
        bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
    }

    // The bytes are those that the tensorboardX package (2.6.5) writes for the same event.

    #[test]
    fn the_first_record_of_a_file() {
        let record = record(1.5, 0, EventKind::FileVersion);
        assert_eq!(hex(&record), "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c");
    }

    #[test]
    fn a_step_with_two_scalars() {
        let mut metrics = StepMetrics::new(300, 2.0).unwrap();
        metrics.set(Metric::RewardMean, 0.25).unwrap();
        metrics.set(Metric::PolicyKl, -1.0).unwrap();
        let record = record(1.5, 300, EventKind::Scalars(&metrics));
        assert_eq!(
            hex(&record),
            "34000000000000005e33175c09000000000000f83f10ac022a260a120a0b7265776172642f6d65616e150000803e0a100a0970\
             6f6c6963792f6b6c15000080bf497ffc27"
        );
    }

    #[test]
    fn a_number_too_large_for_the_format_stays_finite() {
        assert_eq!((single(1e300), single(-1e300), single(0.5)), (f32::MAX, f32::MIN, 0.5));
    }

    #[test]
    fn a_number_takes_as_many_bytes_as_it_needs() {
        let encoded = |number| {
            let mut out = Vec::new();
            varint(&mut out, number);
            out
        };
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(127), [0x7F]);
        assert_eq!(encoded(300), [0xAC, 0x02]);
        assert_eq!(encoded(u64::MAX).len(), 10);
    }
}
