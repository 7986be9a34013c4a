//! The numbers of `advantage` against those that PyTorch computed.

use candle_core::{DType, Device};
use gradus::advantage::{Episode, GaeConfig, GroupStatistics, PlanConfig, gae, plan};
use serde::Deserialize;

use super::goldens::folder;

#[derive(Deserialize)]
struct Losses {
    vspo_plan: WorkedPlan,
}

#[derive(Deserialize)]
struct WorkedPlan {
    rewards: Vec<Vec<f64>>,
    r_max: f64,
    sigma_min: f64,
    u0: f64,
    gamma: f64,
    w_max: f64,
    value: Vec<f64>,
    multiplicity: Vec<u32>,
    factor: Vec<f64>,
}

#[test]
fn goldens_losses_vspo_plan() {
    let text = std::fs::read_to_string(folder().join("losses.json")).unwrap();
    let worked = serde_json::from_str::<Losses>(&text).unwrap().vspo_plan;
    let of = |rewards: &Vec<f64>| GroupStatistics::of(&mut rewards.clone(), worked.r_max);
    let groups: Vec<_> = worked.rewards.iter().map(of).collect();
    for (group, value) in groups.iter().zip(&worked.value) {
        assert!((group.value - value).abs() < 1e-12, "{} is not {value}", group.value);
    }
    let config =
        PlanConfig { sigma_min: worked.sigma_min, gamma: worked.gamma, w_max: worked.w_max, ..PlanConfig::default() };
    let found = plan(&groups, &config, worked.u0);
    assert_eq!(found.multiplicity, worked.multiplicity);
    assert_eq!(found.factor, worked.factor);
}

#[test]
fn goldens_losses_gae() {
    let tensors = candle_core::safetensors::load(folder().join("losses.safetensors"), &Device::Cpu).unwrap();
    let matrix = |name: &str| tensors[name].to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    let (rewards, values, wanted) = (matrix("gae_rewards"), matrix("gae_values"), matrix("gae_advantages"));
    assert_eq!((rewards.len(), wanted.len()), (3, 3));
    for ((rewards, values), wanted) in rewards.iter().zip(&values).zip(&wanted) {
        let (bootstrap, values) = values.split_last().unwrap();
        let episode = Episode { rewards, values, mask: &vec![true; rewards.len()], bootstrap: *bootstrap };
        let found = gae(episode, GaeConfig { gamma: 0.99, lambda: 0.95 });
        for (found, wanted) in found.advantages.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-5, "{found} is not {wanted}");
        }
    }
}
