//! The pipeline: a trajectory, a rubric, a curriculum position and a judge give a [`Report`].
//!
//! There is no other way to a score: the trainer and `explain` come through [`Scorer::score`], the server and the commands
//! that read requests, which take many trajectories step by step, through what it calls, [`Scorer::report`]. Closed stages
//! are not evaluated. Knows no request format; does no IO of its own (a judge may).

mod reason;

use std::sync::Arc;

use crate::rubric::Rubric;
use crate::shaping::{Position, Reward, StagePlan, shape};
use crate::stages::{Evidence, Judge, JudgeAnswer, Measure, NoScore, Outcome, ParsedTurn, Question, UnitScore};
use crate::toolcall::schema::SchemaCache;
use crate::toolcall::tools::ToolSet;
use crate::trajectory::Trajectory;

/// Memory for compiled tool schemas where nothing else is asked for, in bytes.
pub const SCHEMA_CACHE_BYTES: u64 = 16 << 20;

/// Scores trajectories; shared by all threads.
pub struct Scorer {
    schemas: SchemaCache,
    no_tools: Arc<ToolSet>,
}

/// What a trajectory is scored by.
#[derive(Clone, Copy)]
pub struct Context<'c> {
    /// The rubric.
    pub rubric: &'c Rubric,
    /// The curriculum position.
    pub position: &'c Position,
    /// Who answers the questions of judge stages.
    pub judge: &'c dyn Judge,
    /// The group of rollouts that the trajectory belongs to.
    pub group: Option<&'c str>,
    /// Whether nobody wants the result any more; asked before every fourth stage. The others are left out then.
    pub unwanted: &'c (dyn Fn() -> bool + Sync),
}

/// For [`Context::unwanted`]: the result is wanted however long it takes.
pub const WANTED: &(dyn Fn() -> bool + Sync) = &|| false;

/// A judge, asked on behalf of a group.
struct InGroup<'c>(Context<'c>);

impl Judge for InGroup<'_> {
    fn ask(&self, question: &Question<'_>) -> JudgeAnswer {
        self.0.judge.ask(&Question { group: self.0.group, ..*question })
    }
}

/// Why a trajectory has no reward, and in which stage that came up.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Index of the stage; `None` before the first one, or in a penalty.
    pub stage: Option<usize>,
    /// What is at fault.
    pub cause: NoScore,
}

/// What a policy turn earned of the shaped reward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReward {
    /// Index of its message.
    pub message: usize,
    /// Its share; the shares of a trajectory sum to the shaped reward.
    pub reward: f64,
}

/// Everything there is to say about one trajectory.
#[derive(Debug)]
pub struct Report<'t> {
    /// What was read from it; `None` when it could not be read.
    pub evidence: Option<Evidence<'t>>,
    /// Weights and thresholds at the position, one per stage of the rubric.
    pub plan: Vec<StagePlan>,
    /// The stages that opened and were scored, in order.
    pub outcomes: Vec<Outcome>,
    /// The reward, or why there is none.
    pub reward: Result<Reward, Fault>,
    /// The reported measures that weigh nothing, one per entry of the rubric's `report`.
    pub extra: Vec<f64>,
    /// What each policy turn earned; empty without a reward.
    pub steps: Vec<StepReward>,
}

impl Scorer {
    /// A scorer with its own schema cache of about this many bytes.
    pub fn new(schema_cache_bytes: u64) -> Self {
        Self { schemas: SchemaCache::new(schema_cache_bytes), no_tools: Arc::new(ToolSet::empty()) }
    }

    /// The compiled tools of a raw list; none for an empty text.
    pub fn tools(&self, raw: &str, rubric: &Rubric) -> Arc<ToolSet> {
        match raw {
            "" => self.no_tools.clone(),
            raw => self.schemas.tools(raw, rubric.reading.assert_format),
        }
    }

    /// Scores one trajectory. `tools` are those of its `tools` text.
    pub fn score<'t>(&self, trajectory: &'t Trajectory<'t>, tools: &ToolSet, context: Context<'_>) -> Report<'t> {
        self.report(Evidence::read(trajectory, tools, &context.rubric.reading), context)
    }

    /// The second half of [`Self::score`], for callers that read several trajectories before they score them.
    pub fn report<'t>(&self, evidence: Result<Evidence<'t>, NoScore>, context: Context<'_>) -> Report<'t> {
        let rubric = context.rubric;
        let plan = rubric.plan(context.position).into_owned();
        match evidence {
            Ok(evidence) => run(evidence, context, plan),
            Err(cause) => Report::without_evidence(plan, rubric, cause),
        }
    }
}

fn run<'t>(evidence: Evidence<'t>, context: Context<'_>, plan: Vec<StagePlan>) -> Report<'t> {
    let rubric = context.rubric;
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(plan.len());
    let fault = run_stages(&evidence, context, &plan, &mut outcomes).err();
    let reward = fault.map_or_else(|| reward(&evidence, rubric, &plan, &outcomes), Err);
    let steps = match &reward {
        Ok(_) => steps(&evidence, rubric, &plan, &outcomes),
        Err(_) => Vec::new(),
    };
    // A measure without its references is not a fault here: it weighs nothing.
    let extra = |measure: &Measure| measure.score(&evidence).map_or(0.0, |outcome| outcome.score.get());
    let extra = rubric.report.iter().map(|(_, measure)| extra(measure)).collect();
    Report { evidence: Some(evidence), plan, outcomes, reward, extra, steps }
}

fn run_stages(
    evidence: &Evidence<'_>,
    context: Context<'_>,
    plan: &[StagePlan],
    outcomes: &mut Vec<Outcome>,
) -> Result<(), Fault> {
    for (index, (stage, plan)) in context.rubric.stages.iter().zip(plan).enumerate() {
        // The clock takes as long as a short stage.
        if index % 4 == 3 && (context.unwanted)() {
            break;
        }
        let earlier = |stage: usize| outcomes.get(stage).map_or(UnitScore::ZERO, |outcome: &Outcome| outcome.score);
        let outcome = stage
            .stage
            .score(evidence, &earlier, &InGroup(context))
            .map_err(|cause| Fault { stage: Some(index), cause })?;
        let passed = plan.passed_by(outcome.score);
        outcomes.push(outcome);
        if !passed {
            break;
        }
    }
    Ok(())
}

fn reward(evidence: &Evidence<'_>, rubric: &Rubric, plan: &[StagePlan], outcomes: &[Outcome]) -> Result<Reward, Fault> {
    let amounts: Result<Vec<f64>, NoScore> = rubric.penalties.iter().map(|(_, p)| p.amount(evidence)).collect();
    let penalties = amounts.map_err(|cause| Fault { stage: None, cause })?;
    Ok(shape(rubric.range, plan, outcomes.iter().map(|outcome| outcome.score), penalties))
}

/// Shares the shaped reward out: a stage about calls to the turns whose calls earned it, every other to the last turn.
fn steps(evidence: &Evidence<'_>, rubric: &Rubric, plan: &[StagePlan], outcomes: &[Outcome]) -> Vec<StepReward> {
    let mut steps: Vec<_> =
        evidence.turns.iter().map(|turn| StepReward { message: turn.message, reward: 0.0 }).collect();
    for ((stage, plan), outcome) in rubric.stages.iter().zip(plan).zip(outcomes) {
        let earned = plan.weight * outcome.score.get();
        let measure = stage.stage.measure();
        let credit = |turn: &ParsedTurn<'_>| match measure {
            Some(Measure::ToolParse { repaired_credit }) => turn.parse_credit(*repaired_credit),
            Some(Measure::ToolSchema) => turn.valid_calls() as f64,
            _ => 0.0,
        };
        let total: f64 = evidence.turns.iter().map(credit).sum();
        if total > 0.0 {
            for (step, turn) in steps.iter_mut().zip(&evidence.turns) {
                step.reward += earned * credit(turn) / total;
            }
        } else if let Some(last) = steps.last_mut() {
            last.reward += earned;
        }
    }
    steps
}

impl Report<'_> {
    /// The report on an item that could not be read.
    pub fn without_evidence(plan: Vec<StagePlan>, rubric: &Rubric, cause: NoScore) -> Self {
        Self {
            evidence: None,
            plan,
            outcomes: Vec::new(),
            reward: Err(Fault { stage: None, cause }),
            extra: vec![0.0; rubric.report.len()],
            steps: Vec::new(),
        }
    }

    /// Whether the judges' verdicts were all known before; `None` when no judge was asked.
    pub fn cached(&self) -> Option<bool> {
        self.outcomes.iter().filter_map(|outcome| outcome.cached).reduce(|all, cached| all && cached)
    }

    /// Whether a stage was scored and reached its threshold.
    pub fn passed(&self, stage: usize) -> bool {
        self.outcomes.get(stage).zip(self.plan.get(stage)).is_some_and(|(outcome, plan)| plan.passed_by(outcome.score))
    }

    /// Index of the last stage that opened, scored or not.
    pub fn stage_reached(&self) -> Option<usize> {
        match &self.reward {
            Err(Fault { stage: Some(stage), .. }) => Some(*stage),
            _ => self.outcomes.len().checked_sub(1),
        }
    }

    /// Index of the stage that was scored below its threshold.
    pub fn failed_stage(&self) -> Option<usize> {
        self.outcomes.len().checked_sub(1).filter(|last| !self.passed(*last))
    }
}
