//! Curriculum: weights and thresholds that move with the trainer's step or with mastery (this project's own).
//!
//! In: a schedule's points and the position that the client sends. Out: a number. Keeps no state: the position
//! comes with the request and is returned with every reward.

use std::collections::BTreeMap;

/// Where a run stands; sent by the client.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Position {
    /// The trainer's step.
    pub step: Option<u64>,
    /// Pass rate per stage, from 0 to 1.
    pub mastery: BTreeMap<String, f64>,
}

/// What a schedule runs over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// The trainer's step.
    Step,
    /// The pass rate of this stage.
    Mastery(String),
}

/// A piecewise-linear function, constant outside its points.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    over: Over,
    points: Vec<(f64, f64)>,
}

/// Why points are no schedule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// None at all.
    #[error("a schedule needs at least one point [position, value]")]
    Empty,
    /// Positions do not grow.
    #[error("point {0} does not lie after the one before it; positions must be finite and grow")]
    Order(usize),
    /// A position that is never reached.
    #[error("point {index} lies at {at}, where nothing ever is: a step is 0 or more, mastery is a share from 0 to 1")]
    Unreachable {
        /// Which point.
        index: usize,
        /// Its position.
        at: f64,
    },
}

impl Schedule {
    /// A schedule through these points of (position, value).
    ///
    /// # Errors
    /// When there is no point, positions are not finite and growing, or one is never reached.
    pub fn new(over: Over, points: Vec<(f64, f64)>) -> Result<Self, ScheduleError> {
        if points.is_empty() {
            return Err(ScheduleError::Empty);
        }
        let finite = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        if let Some(index) = points.iter().position(|point| !finite(point)) {
            return Err(ScheduleError::Order(index));
        }
        if let Some(index) = points.windows(2).position(|pair| pair[0].0 >= pair[1].0) {
            return Err(ScheduleError::Order(index + 1));
        }
        let most = if over == Over::Step { f64::MAX } else { 1.0 };
        match points.iter().enumerate().find(|(_, point)| !(0.0..=most).contains(&point.0)) {
            Some((index, &(at, _))) => Err(ScheduleError::Unreachable { index, at }),
            None => Ok(Self { over, points }),
        }
    }

    /// What the schedule runs over.
    pub fn over(&self) -> &Over {
        &self.over
    }

    /// Its points of (position, value).
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// The value at a position. Degenerate case: where the position is not known, the first point's value.
    pub fn at(&self, position: &Position) -> f64 {
        let here = match &self.over {
            Over::Step => position.step.map(|step| step as f64),
            Over::Mastery(stage) => position.mastery.get(stage).copied(),
        };
        let first = self.points.first().map_or(0.0, |point| point.1);
        let Some(here) = here else { return first };
        let after = self.points.partition_point(|point| point.0 <= here);
        match (after.checked_sub(1).and_then(|before| self.points.get(before)), self.points.get(after)) {
            (None, _) => first,
            (Some(last), None) => last.1,
            (Some(left), Some(right)) => {
                let between = left.1 + (right.1 - left.1) * (here - left.0) / (right.0 - left.0);
                // Rounding may lead past the end: to a weight of 0, where the points' weights are far apart.
                between.clamp(left.1.min(right.1), left.1.max(right.1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Position {
        Position { step: Some(step), ..Position::default() }
    }

    #[test]
    fn values_are_linear_between_points_and_constant_outside() {
        let schedule = Schedule::new(Over::Step, vec![(100.0, 1.0), (200.0, 0.0), (201.0, 0.5)]).unwrap();
        for (at, value) in [(0, 1.0), (100, 1.0), (150, 0.5), (200, 0.0), (201, 0.5), (9999, 0.5)] {
            assert_eq!(schedule.at(&step(at)), value, "step {at}");
        }
        assert_eq!(schedule.at(&Position::default()), 1.0);
    }

    #[test]
    fn mastery_is_looked_up_by_stage() {
        let schedule = Schedule::new(Over::Mastery("tool_parse".into()), vec![(0.5, 1.0), (1.0, 0.0)]).unwrap();
        let position = Position { step: None, mastery: [("tool_parse".to_owned(), 0.75)].into() };
        assert_eq!(schedule.at(&position), 0.5);
        assert_eq!(schedule.at(&step(7)), 1.0);
    }

    #[test]
    fn rounding_leads_past_no_point() {
        let end = 0.891_752_336_851_316_4_f64;
        let position = Position { step: None, mastery: [("f1".to_owned(), end.next_down())].into() };
        for values in [[1e9, 1e-9], [1e-9, 1e9]] {
            let schedule = Schedule::new(Over::Mastery("f1".into()), vec![(0.0, values[0]), (end, values[1])]).unwrap();
            let value = schedule.at(&position);
            assert!((1e-9..=1e9).contains(&value), "{value}");
        }
    }

    #[test]
    fn points_must_grow() {
        assert_eq!(Schedule::new(Over::Step, vec![]), Err(ScheduleError::Empty));
        assert_eq!(Schedule::new(Over::Step, vec![(1.0, 0.0), (1.0, 1.0)]), Err(ScheduleError::Order(1)));
        assert_eq!(Schedule::new(Over::Step, vec![(f64::NAN, 0.0)]), Err(ScheduleError::Order(0)));
    }

    #[test]
    fn points_lie_where_a_run_can_be() {
        let mastery = |points| Schedule::new(Over::Mastery("tool_parse".into()), points);
        let percent = mastery(vec![(0.5, 0.5), (95.0, 0.01)]);
        assert_eq!(percent, Err(ScheduleError::Unreachable { index: 1, at: 95.0 }));
        assert_eq!(mastery(vec![(-0.1, 0.5)]), Err(ScheduleError::Unreachable { index: 0, at: -0.1 }));
        assert!(mastery(vec![(0.0, 0.5), (1.0, 0.1)]).is_ok());
        assert_eq!(
            Schedule::new(Over::Step, vec![(-5.0, 0.5)]),
            Err(ScheduleError::Unreachable { index: 0, at: -5.0 })
        );
    }
}
