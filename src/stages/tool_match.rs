//! `tool_match`: the policy's calls against reference calls, by the best one-to-one assignment.
//!
//! All formulas here are this project's own. Similarity of a call and a reference is 0 if their names differ, else
//! `(1 + equal arguments) / (1 + arguments of either)`, from 0 to 1; values are equal as JSON Schema has it, so
//! that 1 equals 1.0. A call that its tool refuses counts [`ToolMatch::invalid_credit`] of its similarity.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::equal::{identity, json_equal};
use super::{CallVerdict, Evidence, Field, NoScore, NoScoreCode, Outcome, UnitScore};
use crate::toolcall::{Call, reference_arguments};

/// Most policy calls that take part in the assignment, which is cubic; later ones count as surplus.
pub(crate) const MAX_MATCHED_CALLS: usize = 256;

named! {
    /// How matches become a score.
    pub enum MatchMode {
        /// 1 if every reference call is made exactly and no other call is, else 0.
        Strict = "strict",
        /// Sum of similarities over the number of references: surplus calls cost nothing.
        Fractional = "fractional",
        /// Twice the sum of similarities over calls plus references: surplus calls cost.
        F1 = "f1",
        /// The sum of similarities over calls plus references less that sum: surplus calls cost so much that to make several for
        /// one reference earns what it earns on average to make any one of them, and less where the wrong ones are similar, too. Of
        /// equal calls no more match than there are equal references, and one at least: a repeat is no near miss of other references.
        Jaccard = "jaccard",
    }
}

/// Configuration of the stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToolMatch {
    /// How matches become a score.
    pub mode: MatchMode,
    /// Whether the calls must come in the order of the references.
    pub ordered: bool,
    /// What the similarity of a call is multiplied by if its tool is not offered or its arguments break the schema, from 0 to 1.
    pub invalid_credit: f64,
}

impl ToolMatch {
    /// Scores the calls. One that does not parse is made and matches nothing: to break one never pays. Degenerate case: no
    /// reference call and no call scores 1.
    pub(super) fn score(self, evidence: &Evidence<'_>) -> Result<Outcome, NoScore> {
        let Some(given) = &evidence.trajectory.reference_calls else {
            return Err(NoScore {
                code: NoScoreCode::ReferencesMissing,
                message: "`tool_match` compares with `reference_calls`, and the trajectory has none; add the list, which may be empty"
                    .to_owned(),
                field: Some(Field::Trajectory("/reference_calls".to_owned())),
            });
        };
        let references: Vec<_> = given.iter().map(|call| (&*call.name, reference_arguments(call))).collect();
        let attempts = evidence.turns.iter().flat_map(|turn| turn.parsed.attempts.iter().zip(&turn.verdicts));
        let mut calls: Vec<_> = attempts
            .filter_map(|(attempt, verdict)| Some((attempt.result.as_ref().ok()?, self.credit(verdict))))
            .take(MAX_MATCHED_CALLS)
            .collect();
        if self.mode == MatchMode::Jaccard {
            leave_out_repeats(&mut calls, &references);
        }
        let table = self.table(&calls, &references);
        let matched = if self.ordered { best_in_order(&table) } else { best_assignment(&table) };
        let made = evidence.verdicts().count();
        let exact = made == references.len();
        let (made, wanted) = (made as f64, references.len() as f64);
        let score = match self.mode {
            _ if made == 0.0 && references.is_empty() => 1.0,
            MatchMode::Strict => f64::from(exact && matched >= wanted),
            // Nothing was wanted: any call is surplus.
            MatchMode::Fractional if references.is_empty() => 1.0,
            MatchMode::Fractional => matched / wanted,
            MatchMode::F1 => 2.0 * matched / (made + wanted),
            MatchMode::Jaccard => matched / (made + wanted - matched),
        };
        Ok(Outcome {
            score: UnitScore::clamped(score),
            detail: super::named([("matched", matched), ("calls", made), ("references", wanted)]),
            cached: None,
        })
    }

    /// Similarities, one row per reference, one column per call.
    fn table(self, calls: &[(&Call<'_>, f64)], references: &[Reference<'_>]) -> Vec<Vec<f64>> {
        let exact = self.mode == MatchMode::Strict;
        let cell = |reference: &Reference<'_>, (call, credit): &(&Call<'_>, f64)| {
            let similarity = similarity(reference, call) * credit;
            if exact && similarity < 1.0 { 0.0 } else { similarity }
        };
        references.iter().map(|r| calls.iter().map(|call| cell(r, call)).collect()).collect()
    }

    /// What a call counts of its similarity. Degenerate case: where the schema itself is at fault, all.
    fn credit(self, verdict: &CallVerdict) -> f64 {
        match verdict {
            CallVerdict::Valid | CallVerdict::Problem { .. } => 1.0,
            CallVerdict::Malformed
            | CallVerdict::UnknownTool
            | CallVerdict::Violations(_)
            | CallVerdict::TooCostly(_) => self.invalid_credit,
        }
    }
}

/// Leaves so many of equal calls as there are equal references, and one at least.
fn leave_out_repeats(calls: &mut Vec<(&Call<'_>, f64)>, references: &[Reference<'_>]) {
    if calls.len() < 2 {
        return;
    }
    let mut seen: HashMap<(&str, String), usize> = HashMap::new();
    calls.retain(|(call, _)| {
        let times = seen.entry(identity(call)).or_insert(0);
        *times += 1;
        *times == 1 || *times <= references.iter().filter(|reference| similarity(reference, call) == 1.0).count()
    });
}

/// A reference call's name and arguments.
type Reference<'t> = (&'t str, Map<String, Value>);

fn similarity((name, wanted): &Reference<'_>, call: &Call<'_>) -> f64 {
    if *name != call.name {
        return 0.0;
    }
    let none = Map::new();
    let given = call.arguments.as_object().unwrap_or(&none);
    overlap(wanted, given)
}

/// `(1 + equal) / (1 + either)`. Looks at the arguments of the smaller side only: a call with very many must not cost them
/// once for each reference.
fn overlap(wanted: &Map<String, Value>, given: &Map<String, Value>) -> f64 {
    let (fewer, more) = if wanted.len() <= given.len() { (wanted, given) } else { (given, wanted) };
    let (mut both, mut equal) = (0, 0);
    for (key, value) in fewer {
        if let Some(other) = more.get(key) {
            both += 1;
            equal += usize::from(json_equal(value, other));
        }
    }
    (1 + equal) as f64 / (1 + wanted.len() + given.len() - both) as f64
}

/// Largest sum of similarities when pairs must not cross: an alignment in O(rows * columns).
fn best_in_order(table: &[Vec<f64>]) -> f64 {
    let columns = table.first().map_or(0, Vec::len);
    let mut above = vec![0.0_f64; columns + 1];
    for row in table {
        let mut here = vec![0.0_f64; columns + 1];
        for (column, similarity) in row.iter().enumerate() {
            here[column + 1] = (above[column] + similarity).max(above[column + 1]).max(here[column]);
        }
        above = here;
    }
    above[columns]
}

/// Largest sum of similarities over one-to-one assignments: the Hungarian method with potentials
/// (Kuhn 1955, Munkres 1957), O(rows^2 * columns) with the shorter side as rows.
fn best_assignment(table: &[Vec<f64>]) -> f64 {
    let (rows, columns) = (table.len(), table.first().map_or(0, Vec::len));
    if rows == 0 || columns == 0 {
        return 0.0;
    }
    if rows > columns {
        let turned: Vec<Vec<f64>> = (0..columns).map(|c| table.iter().map(|row| row[c]).collect()).collect();
        return best_assignment(&turned);
    }
    // 1-based; column 0 holds the row that is being placed. Costs are 1 - similarity.
    let (mut row_potential, mut column_potential) = (vec![0.0; rows + 1], vec![0.0; columns + 1]);
    let mut row_of = vec![0_usize; columns + 1];
    for row in 1..=rows {
        row_of[0] = row;
        let way = place(table, &mut row_potential, &mut column_potential, &mut row_of);
        let mut column = way.last_column;
        while column != 0 {
            let previous = way.previous[column];
            row_of[column] = row_of[previous];
            column = previous;
        }
    }
    (1..=columns).filter(|&column| row_of[column] != 0).map(|column| table[row_of[column] - 1][column - 1]).sum()
}

/// A shortest augmenting path: its free end, and for each column the one before it.
struct AugmentingPath {
    last_column: usize,
    previous: Vec<usize>,
}

fn place(
    table: &[Vec<f64>],
    row_potential: &mut [f64],
    column_potential: &mut [f64],
    row_of: &mut [usize],
) -> AugmentingPath {
    let columns = column_potential.len();
    let (mut distance, mut used) = (vec![f64::INFINITY; columns], vec![false; columns]);
    let (mut previous, mut column) = (vec![0; columns], 0);
    while row_of[column] != 0 {
        used[column] = true;
        let row = row_of[column];
        let (mut step, mut next) = (f64::INFINITY, 0);
        for candidate in (1..columns).filter(|&c| !used[c]) {
            let cost = 1.0 - table[row - 1][candidate - 1];
            let reduced = cost - row_potential[row] - column_potential[candidate];
            if reduced < distance[candidate] {
                (distance[candidate], previous[candidate]) = (reduced, column);
            }
            if distance[candidate] < step {
                (step, next) = (distance[candidate], candidate);
            }
        }
        for c in 0..columns {
            if used[c] {
                row_potential[row_of[c]] += step;
                column_potential[c] -= step;
            } else {
                distance[c] -= step;
            }
        }
        column = next;
    }
    AugmentingPath { last_column: column, previous }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Every way to assign, by brute force.
    fn brute(table: &[Vec<f64>], row: usize, taken: u32) -> f64 {
        if row == table.len() {
            return 0.0;
        }
        let skip = brute(table, row + 1, taken);
        (0..table[row].len())
            .filter(|c| taken & (1 << c) == 0)
            .map(|c| table[row][c] + brute(table, row + 1, taken | (1 << c)))
            .fold(skip, f64::max)
    }

    fn tables() -> impl Strategy<Value = Vec<Vec<f64>>> {
        (1_usize..5, 1_usize..5)
            .prop_flat_map(|(r, c)| prop::collection::vec(prop::collection::vec(0.0..=1.0_f64, c), r))
    }

    fn arguments() -> impl Strategy<Value = Map<String, Value>> {
        let value = prop_oneof![Just(json!(1)), Just(json!(1.0)), Just(json!(true)), Just(json!({"a": [1]}))];
        prop::collection::btree_map("[a-f]", value, 0..6).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_overlap_is_that_of_its_definition(wanted in arguments(), given in arguments()) {
            let same = |(key, value): &(&String, &Value)| given.get(*key).is_some_and(|v| json_equal(v, value));
            let equal = wanted.iter().filter(same).count();
            let either = wanted.len() + given.keys().filter(|key| !wanted.contains_key(*key)).count();
            prop_assert_eq!(overlap(&wanted, &given), (1 + equal) as f64 / (1 + either) as f64);
            prop_assert_eq!(overlap(&wanted, &given), overlap(&given, &wanted));
        }

        #[test]
        fn the_assignment_is_the_best_one(table in tables()) {
            prop_assert!((best_assignment(&table) - brute(&table, 0, 0)).abs() < 1e-9);
        }

        #[test]
        fn order_can_only_cost(table in tables()) {
            prop_assert!(best_in_order(&table) <= best_assignment(&table) + 1e-9);
        }
    }
}
