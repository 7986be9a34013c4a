//! `POST /advantages`: rewards of groups in, advantages out, so that any trainer can run VSPO. The numbers are those of the
//! trainer's own module.

use std::borrow::Cow;
use std::collections::HashSet;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::advantage::{
    Deviation, EPSILON, Formula, GroupStatistics, Mode, Plan, PlanConfig, Sampling, group_advantages, plan,
    unit_from_seed,
};
use crate::http::app::App;
use crate::http::error::Problem;
use crate::http::handlers::{json, read_json};
use crate::http::scoring::on_work_threads;
use crate::http::wire::{choice, object, objects, read_as};
use crate::store::MAX_REWARD;

/// Most groups of a request.
const MAX_GROUPS: usize = 65_536;

/// Most rewards of a request.
const MAX_REWARDS: usize = 1 << 20;

/// Whose formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Algorithm, example = json!("vspo"))]
pub(crate) enum AlgorithmWire {
    /// VSPO: GRPO's advantages, and a plan that replaces groups without spread.
    Vspo,
    /// GRPO: `(r - mean) / (std + epsilon)`.
    Grpo,
    /// DAPO: GRPO's advantages; groups whose rewards deviate by less than 1e-6 are not kept, unless all do (dynamic sampling).
    Dapo,
    /// RLOO: the reward less the mean of the others.
    Rloo,
    /// Dr. GRPO: `r - mean`.
    DrGrpo,
}

impl From<AlgorithmWire> for Formula {
    fn from(wire: AlgorithmWire) -> Self {
        match wire {
            AlgorithmWire::Vspo | AlgorithmWire::Grpo | AlgorithmWire::Dapo => Self::Grpo,
            AlgorithmWire::Rloo => Self::Rloo,
            AlgorithmWire::DrGrpo => Self::DrGrpo,
        }
    }
}

/// What happens to a group that is drawn.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = VspoMode, example = json!("reuse"))]
pub(crate) enum ModeWire {
    /// Its rollouts enter the batch again, smoothed.
    #[default]
    Reuse,
    /// Fresh rollouts are sampled for it: `multiplicity - 1` more groups, nothing to smooth.
    Regenerate,
}

/// How prompts are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Sampling, example = json!("value"))]
pub(crate) enum SamplingWire {
    /// In proportion to the task value.
    #[default]
    Value,
    /// All alike.
    Uniform,
}

/// Settings of VSPO.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = VspoSettings, example = json!({"gamma": 0.5, "w_max": 2.0, "sigma_min": 1e-6, "mode": "reuse", "sampling": "value"}))]
pub(crate) struct VspoWire {
    /// What each further copy of a group counts in relation to the one before, from 0 to 1; 0.5 where absent.
    gamma: f64,
    /// Most that all copies of a group count together, above 0; null for no limit; 2 where absent.
    #[schema(required = false)]
    w_max: Option<f64>,
    /// Groups whose deviation is below this are replaced; 1e-6 where absent.
    sigma_min: f64,
    /// `reuse` or `regenerate`.
    #[serde(deserialize_with = "choice")]
    #[schema(inline = false)]
    mode: ModeWire,
    /// `value` or `uniform`.
    #[serde(deserialize_with = "choice")]
    #[schema(inline = false)]
    sampling: SamplingWire,
}

impl Default for VspoWire {
    fn default() -> Self {
        let PlanConfig { gamma, w_max, sigma_min, .. } = PlanConfig::default();
        let (mode, sampling) = (ModeWire::default(), SamplingWire::default());
        Self { gamma, w_max: Some(w_max), sigma_min, mode, sampling }
    }
}

impl From<&VspoWire> for PlanConfig {
    fn from(wire: &VspoWire) -> Self {
        Self {
            sigma_min: wire.sigma_min,
            gamma: wire.gamma,
            w_max: wire.w_max.unwrap_or(f64::INFINITY),
            mode: match wire.mode {
                ModeWire::Reuse => Mode::Reuse,
                ModeWire::Regenerate => Mode::Regenerate,
            },
            sampling: wire.sampling.into(),
        }
    }
}

impl From<SamplingWire> for Sampling {
    fn from(wire: SamplingWire) -> Self {
        match wire {
            SamplingWire::Value => Self::Value,
            SamplingWire::Uniform => Self::Uniform,
        }
    }
}

/// Rewards of the groups of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AdvantagesRequest, example = json!({"algorithm": "vspo", "seed": 7, "groups": [{"group": "q1", "rewards": [0.0, 1.0, 0.5]}, {"group": "q2", "rewards": [1.0, 1.0, 1.0]}]}))]
pub(crate) struct AdvantagesRequest {
    /// Whose formula.
    #[serde(deserialize_with = "choice")]
    algorithm: AlgorithmWire,
    /// The groups, in batch order.
    #[serde(deserialize_with = "objects")]
    #[schema(inline = false)]
    groups: Vec<GroupRewards>,
    /// Where the draw of VSPO starts: the same seed draws the same; 0 where absent.
    #[serde(default)]
    #[schema(required = false)]
    seed: u64,
    /// The start itself, from 0 to below 1, instead of a seed.
    #[serde(default)]
    #[schema(required = false)]
    u0: Option<f64>,
    /// The largest reward that there can be; 1 where absent.
    #[serde(default = "one")]
    #[schema(required = false)]
    max_reward: f64,
    /// Whether deviations divide by n - 1 instead of n.
    #[serde(default)]
    #[schema(required = false)]
    unbiased: bool,
    /// Added to the deviation that GRPO divides by; 1e-6 where absent.
    #[serde(default = "epsilon")]
    #[schema(required = false)]
    epsilon: f64,
    /// Settings of VSPO.
    #[serde(default, deserialize_with = "object")]
    #[schema(required = false, inline = false)]
    vspo: VspoWire,
}

fn one() -> f64 {
    1.0
}

fn epsilon() -> f64 {
    EPSILON
}

/// Rewards of one group.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GroupRewards, example = json!({"group": "q1", "rewards": [0.0, 1.0, null]}))]
pub(crate) struct GroupRewards {
    /// The group's name.
    #[schema(value_type = crate::http::schema::TextOrNumber)]
    group: Box<RawValue>,
    /// The rewards; null for a rollout that could not be scored, which counts nowhere.
    rewards: Vec<Option<f64>>,
}

/// Advantages of the groups of a batch, in its order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdvantagesResponse, example = json!({"algorithm": "grpo", "u0": 0.25, "groups": [{"group": "q1", "n": 2, "mean": 0.5, "std": 0.5, "value": 0.25,
    "multiplicity": 1, "factor": 1.0, "kept": true, "advantages": [-1.0, 1.0]}]}))]
pub(crate) struct AdvantagesResponse {
    /// Whose formula.
    algorithm: AlgorithmWire,
    /// Where the draw started.
    u0: f64,
    /// The groups.
    groups: Vec<GroupAdvantages>,
}

/// Advantages of one group.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GroupAdvantages, example = json!({"group": "q1", "n": 2, "mean": 0.5, "std": 0.5, "value": 0.25, "multiplicity": 1, "factor": 1.0, "kept": true, "advantages": [-1.0, 1.0]}))]
pub(crate) struct GroupAdvantages {
    /// As sent.
    #[schema(value_type = crate::http::schema::TextOrNumber)]
    group: Box<RawValue>,
    /// How many rewards counted.
    n: usize,
    /// Their mean; null where none counted, as the other two.
    #[schema(required = true)]
    mean: Option<f64>,
    /// Their standard deviation.
    #[schema(required = true)]
    std: Option<f64>,
    /// The task value: `(max_reward - mean) * std`.
    #[schema(required = true)]
    value: Option<f64>,
    /// How often the group is in the batch: 0 when it left it.
    multiplicity: u32,
    /// What the advantages are multiplied by when the group is computed once for all its copies; they are not yet.
    factor: f64,
    /// Whether the group stays in the batch; one with less than two rewards stays only with VSPO, where no group has spread.
    kept: bool,
    /// One per reward; null where that is.
    advantages: Vec<Option<f64>>,
}

fn check(request: &AdvantagesRequest) -> Result<PlanConfig, Problem> {
    if request.groups.len() > MAX_GROUPS {
        let found = request.groups.len();
        return Err(Problem::shape(
            "/groups",
            format!("{found} groups are more than the limit of {MAX_GROUPS}; send fewer"),
        ));
    }
    if let Some(u0) = request.u0.filter(|u0| !(0.0..1.0).contains(u0)) {
        return Err(Problem::shape("/u0", format!("{u0} is out of range; it must be from 0 to below 1")));
    }
    if !(0.0..=1.0).contains(&request.epsilon) {
        return Err(Problem::shape("/epsilon", format!("{} is out of range; it must be from 0 to 1", request.epsilon)));
    }
    if request.groups.iter().map(|group| group.rewards.len()).sum::<usize>() > MAX_REWARDS {
        return Err(too_many_rewards());
    }
    let limit = request.max_reward;
    if !(-MAX_REWARD..=MAX_REWARD).contains(&limit) {
        return Err(Problem::shape(
            "/max_reward",
            format!("{limit:e} is out of range; it must be within {MAX_REWARD:e}"),
        ));
    }
    let mut names = HashSet::with_capacity(request.groups.len());
    for (place, group) in request.groups.iter().enumerate() {
        if !group.group.get().starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit()) {
            return Err(Problem::shape(format!("/groups/{place}/group"), "a group's name is a text or a number"));
        }
        if !names.insert(name_of(&group.group)) {
            let message =
                format!("an earlier group has the name {} too; send all rewards of a group together", group.group);
            return Err(Problem::shape(format!("/groups/{place}/group"), message));
        }
        let wrong = group.rewards.iter().enumerate().find_map(|(index, reward)| {
            Some((index, (*reward)?)).filter(|(_, reward)| *reward > request.max_reward || *reward < -MAX_REWARD)
        });
        if let Some((index, reward)) = wrong {
            let message = format!(
                "{reward} is more than max_reward = {} or less than {:e}; send the largest reward that there can be as `max_reward`",
                request.max_reward, -MAX_REWARD
            );
            return Err(Problem::shape(format!("/groups/{place}/rewards/{index}"), message));
        }
    }
    Ok(PlanConfig::from(&request.vspo).checked()?)
}

/// A group's name as text: `7` and `"7"` are one, as in `POST /reward`.
fn name_of(raw: &RawValue) -> Cow<'_, str> {
    serde_json::from_str::<String>(raw.get()).map_or(Cow::Borrowed(raw.get()), Cow::Owned)
}

fn answer(request: AdvantagesRequest) -> Result<AdvantagesResponse, Problem> {
    let config = check(&request)?;
    let deviation = if request.unbiased { Deviation::Unbiased } else { Deviation::Population };
    let of = |group: &GroupRewards| {
        let mut rewards: Vec<f64> = group.rewards.iter().copied().flatten().collect();
        GroupStatistics::with(deviation, &mut rewards, request.max_reward)
    };
    let statistics: Vec<GroupStatistics> = request.groups.iter().map(of).collect();
    let u0 = request.u0.unwrap_or_else(|| unit_from_seed(request.seed));
    let plan = match request.algorithm {
        AlgorithmWire::Vspo => plan(&statistics, &config, u0),
        AlgorithmWire::Dapo => Plan::sampled_dynamically(&statistics),
        AlgorithmWire::Grpo | AlgorithmWire::Rloo | AlgorithmWire::DrGrpo => Plan::compared(&statistics),
    };
    let (algorithm, epsilon) = (request.algorithm, request.epsilon);
    let parts = request.groups.into_iter().zip(&statistics).zip(plan.multiplicity.iter().zip(&plan.factor));
    let groups = parts.map(|((group, statistics), (&multiplicity, &factor))| GroupAdvantages {
        advantages: advantages(algorithm.into(), &group.rewards, statistics, epsilon),
        group: group.group,
        n: statistics.n,
        mean: statistics.known().map(|known| known.mean),
        std: statistics.known().map(|known| known.std),
        value: statistics.known().map(|known| known.value),
        multiplicity,
        factor,
        kept: multiplicity > 0,
    });
    Ok(AdvantagesResponse { algorithm, u0, groups: groups.collect() })
}

fn advantages(
    formula: Formula,
    rewards: &[Option<f64>],
    statistics: &GroupStatistics,
    epsilon: f64,
) -> Vec<Option<f64>> {
    let valid: Vec<f64> = rewards.iter().copied().flatten().collect();
    let mut found = group_advantages(formula, &valid, statistics, epsilon).into_iter();
    rewards.iter().map(|reward| reward.and_then(|_| found.next())).collect()
}

/// Turn rewards into advantages.
///
/// For VSPO, groups without spread give their place to prompts that are drawn by their value: compute each group once,
/// with its advantages times `factor`, and weigh its tokens with `multiplicity`; or, with `regenerate`, sample
/// `multiplicity - 1` more groups for it.
#[utoipa::path(post, path = "/advantages", tag = "vspo", operation_id = "compute_advantages",
    request_body(content = AdvantagesRequest, description = "Rewards of the groups of a batch"),
    responses(
        (status = 200, description = "Advantages in batch order", body = AdvantagesResponse),
        (status = 400, description = "Not JSON, or parameters in the URL"),
        (status = 422, description = "The request has the wrong shape, or a number is out of its range")))]
pub(crate) async fn compute_advantages(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (_admission, text) = read_json(&app, request).await?;
    let answer = on_work_threads(move || {
        // Before they take sixteen bytes each: as many commas stand between them, and some around the groups.
        if commas(&text) > MAX_REWARDS + 16 * MAX_GROUPS {
            return Err(too_many_rewards());
        }
        serde_json::to_vec(&answer(read_as(&text)?)?).map_err(Problem::internal)
    });
    answer.await.map(json)
}

/// Commas outside of strings.
fn commas(json: &str) -> usize {
    let (mut count, mut inside, mut escaped) = (0, false, None);
    for at in memchr::memchr3_iter(b',', b'"', b'\\', json.as_bytes()) {
        match json.as_bytes().get(at) {
            _ if escaped == Some(at) => {}
            Some(b'\\') => escaped = Some(at + 1),
            Some(b'"') => inside = !inside,
            _ => count += usize::from(!inside),
        }
    }
    count
}

fn too_many_rewards() -> Problem {
    Problem::shape("/groups", format!("more rewards than the limit of {MAX_REWARDS}; send fewer groups at a time"))
}
