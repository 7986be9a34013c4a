//! The scores of a batch as a database keeps them: one JSON array with one array per trajectory. In: rows; out: their text
//! and what is counted over them, or the rows again. Runs on the caller's thread. Knows no database.

use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::id::{ContentHash, MAX_SCORES};
use super::record::{MAX_REWARD, in_range};
use super::{BatchId, MAX_BYTES, StoreError};

/// One trajectory's score; `T` is a text, borrowed to be written and owned when it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRow<T> {
    /// The client's id of the trajectory.
    pub trajectory_id: Option<T>,
    /// The group (prompt) it belongs to.
    pub group: Option<T>,
    /// The reward as it was sent, within [`MAX_REWARD`]. Always there when `valid`.
    pub reward: Option<f64>,
    /// Whether it could be scored.
    pub valid: bool,
    /// The last stage that was reached.
    pub stage_reached: Option<T>,
    /// The first stage that failed.
    pub failed_stage: Option<T>,
    /// Hash of the trajectory.
    pub content_hash: ContentHash,
    /// Where its result stands in the response, in bytes before packing.
    pub result: Range<u32>,
}

/// The scores of one batch, in request order, packed.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRows {
    json: String,
    counts: Counts,
}

/// What is counted over the scores of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Counts {
    /// Scores.
    pub(super) n: usize,
    /// Valid scores.
    pub(super) valid: usize,
    /// Sum of the valid scores' rewards.
    pub(super) reward_sum: f64,
    /// The smallest and the largest reward of a valid score.
    pub(super) rewards: Option<(f64, f64)>,
    /// Length that the response must have at least, in bytes.
    pub(super) response_bytes: u32,
}

/// A row as it stands in the text.
type Columns<T> = (Option<T>, Option<T>, Option<f64>, bool, Option<T>, Option<T>, ContentHash, u32, u32);

impl ScoreRows {
    /// Packs the rows of a batch on the calling thread.
    ///
    /// # Errors
    /// [`StoreError::Batch`] where a row breaks its promises, or there are more than [`MAX_SCORES`].
    pub fn new<'a>(batch: BatchId, rows: impl IntoIterator<Item = ScoreRow<&'a str>>) -> Result<Self, StoreError> {
        let fail = |reason: String| StoreError::Batch { batch, reason };
        let mut counts = Counts::default();
        let mut json = b"[".to_vec();
        for row in rows {
            row.check().map_err(|reason| fail(format!("score {} {reason}", counts.n)))?;
            if counts.n > 0 {
                json.push(b',');
            }
            serde_json::to_writer(&mut json, &row).map_err(|error| fail(format!("score {}: {error}", counts.n)))?;
            counts.add(&row);
            if counts.n > MAX_SCORES || json.len() >= MAX_BYTES {
                return Err(fail(format!("it has more than {MAX_SCORES} scores, or they take {MAX_BYTES} bytes")));
            }
        }
        json.push(b']');
        let json = String::from_utf8(json).map_err(|error| fail(error.to_string()))?;
        Ok(Self { json, counts })
    }

    /// The packed rows, JSON.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.counts.n
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.counts.n == 0
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The rows again, or `None` where the text is damaged.
    pub fn unpack(json: &str) -> Option<Vec<ScoreRow<String>>> {
        serde_json::from_str(json).ok()
    }
}

impl Counts {
    fn add<T>(&mut self, row: &ScoreRow<T>) {
        self.n += 1;
        self.response_bytes = self.response_bytes.max(row.result.end);
        if let Some(reward) = row.reward.filter(|_| row.valid) {
            self.valid += 1;
            self.reward_sum += reward;
            let (least, most) = self.rewards.unwrap_or((reward, reward));
            self.rewards = Some((least.min(reward), most.max(reward)));
        }
    }
}

impl<T> ScoreRow<T> {
    /// What is wrong with it, to be read after its name.
    fn check(&self) -> Result<(), String> {
        let Range { start, end } = self.result;
        match self.reward {
            Some(reward) if !in_range(reward) => {
                Err(format!("has the reward {reward}: it must be within {MAX_REWARD:e}"))
            }
            None if self.valid => Err("is valid but has no reward".to_owned()),
            _ if start > end => Err(format!("has its result at {start}..{end}")),
            _ => Ok(()),
        }
    }
}

impl Serialize for ScoreRow<&str> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { trajectory_id, group, reward, valid, stage_reached, failed_stage, content_hash, result } = self;
        let columns: Columns<&str> = (
            *trajectory_id,
            *group,
            *reward,
            *valid,
            *stage_reached,
            *failed_stage,
            *content_hash,
            result.start,
            result.end,
        );
        columns.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ScoreRow<String> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (trajectory_id, group, reward, valid, stage_reached, failed_stage, content_hash, start, end) =
            Columns::deserialize(deserializer)?;
        let result = start..end;
        Ok(Self { trajectory_id, group, reward, valid, stage_reached, failed_stage, content_hash, result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::BatchIds;

    fn row(reward: Option<f64>) -> ScoreRow<&'static str> {
        ScoreRow {
            trajectory_id: Some("t\"0\n"),
            group: None,
            reward,
            valid: reward.is_some(),
            stage_reached: Some("la_bleu"),
            failed_stage: None,
            content_hash: ContentHash(0x0001_0203_0405_0607_0809_0a0b_0c0d_0eff),
            result: 12..345,
        }
    }

    fn pack(rows: Vec<ScoreRow<&'static str>>) -> Result<ScoreRows, StoreError> {
        ScoreRows::new(BatchIds::new(None, 0).next(1), rows)
    }

    #[test]
    fn rows_are_an_array_each() {
        let rows = pack(vec![row(Some(-0.0)), row(None)]).unwrap();
        let columns = r#""la_bleu",null,"000102030405060708090a0b0c0d0eff",12,345]"#;
        assert_eq!(rows.json(), format!(r#"[["t\"0\n",null,-0.0,true,{columns},["t\"0\n",null,null,false,{columns}]"#));
        let counts = Counts { n: 2, valid: 1, reward_sum: 0.0, rewards: Some((0.0, 0.0)), response_bytes: 345 };
        assert_eq!(rows.counts(), &counts);
        let again = ScoreRows::unpack(rows.json()).unwrap();
        assert_eq!(again.len(), 2);
        assert_eq!(
            (again[0].trajectory_id.as_deref(), again[0].content_hash),
            (Some("t\"0\n"), row(None).content_hash)
        );
        assert!(again[0].reward.unwrap().is_sign_negative() && again[1].reward.is_none());
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn a_row_that_breaks_a_promise_is_refused_and_named() {
        let good = || row(Some(0.5));
        for (bad, words) in [
            (row(Some(f64::NAN)), "score 1 has the reward NaN: it must be within 1e100"),
            (row(Some(f64::INFINITY)), "score 1 has the reward inf: it must be within 1e100"),
            (row(Some(-1e101)), "it must be within 1e100"),
            (ScoreRow { valid: true, ..row(None) }, "score 1 is valid but has no reward"),
            (ScoreRow { result: 5..4, ..good() }, "score 1 has its result at 5..4"),
        ] {
            let refused = pack(vec![good(), bad]).unwrap_err();
            assert!(refused.to_string().contains(words), "{refused}");
        }
    }

    #[test]
    fn damaged_rows_are_not_read() {
        let json = pack(vec![row(Some(1.0))]).unwrap().json().to_owned();
        for (old, new) in [("000102", "0001"), ("000102", "00zz02"), ("345", "-1"), ("true", "1"), (",12", "")] {
            assert_eq!(ScoreRows::unpack(&json.replacen(old, new, 1)), None, "{old} {new}");
        }
        assert_eq!(ScoreRows::unpack("[]"), Some(Vec::new()));
        assert_eq!(ScoreRows::unpack("{}"), None);
    }
}
