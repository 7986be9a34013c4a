//! Runs put together over seeds. In: runs. Out: groups, each with its runs by seed.

use std::collections::{BTreeMap, BTreeSet};

use super::options::GroupBy;
use super::run::Run;

/// Runs that are one curve and one row.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// What they share.
    pub name: String,
    /// The runs of each seed: one, unless runs of several kinds are put together.
    pub seeds: BTreeMap<u64, Vec<Run>>,
}

impl Group {
    /// One number per seed: the mean over the seed's runs. A seed counts once, however many runs it has, since runs
    /// that share a seed are not independent; and only if all of them have the number.
    pub(super) fn per_seed(&self, number: impl Fn(&Run) -> Option<f64>) -> BTreeMap<u64, f64> {
        let mean = |(seed, runs): (&u64, &Vec<Run>)| {
            let found: Option<Vec<f64>> = runs.iter().map(&number).collect();
            found.map(|found| (*seed, found.iter().sum::<f64>() / found.len() as f64))
        };
        self.seeds.iter().filter_map(mean).collect()
    }

    /// All runs, by seed.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.seeds.values().flatten()
    }
}

/// The groups of these runs, by name.
pub(super) fn group(runs: Vec<Run>, by: GroupBy) -> Vec<Group> {
    let mut groups: BTreeMap<String, BTreeMap<u64, Vec<Run>>> = BTreeMap::new();
    for run in runs {
        let name = match by {
            GroupBy::Group => &run.info.group,
            GroupBy::Name => &run.info.name,
            GroupBy::Algorithm => &run.info.algorithm,
            GroupBy::Reward => &run.info.reward,
        };
        groups.entry(name.clone()).or_default().entry(run.info.seed).or_default().push(run);
    }
    groups.into_iter().map(|(name, seeds)| Group { name, seeds }).collect()
}

/// What a reader of the numbers should know: seeds with several runs, runs that differ in more than the seed, and runs
/// that ended before others.
pub(super) fn remarks(groups: &[Group]) -> Vec<String> {
    let mut remarks = Vec::new();
    let longest = groups.iter().flat_map(Group::runs).map(Run::last_step).max().unwrap_or(0);
    for Group { name, seeds } in groups {
        let several: Vec<String> = seeds
            .iter()
            .filter(|(_, runs)| runs.len() > 1)
            .map(|(seed, runs)| format!("{seed} ({} runs)", runs.len()))
            .collect();
        if !several.is_empty() {
            remarks.push(format!("{name}: the mean of several runs stands for the seeds {}", several.join(", ")));
        }
        let hashes: BTreeSet<&str> = seeds.values().flatten().map(|run| run.info.config_hash.as_str()).collect();
        if hashes.len() > 1 {
            remarks.push(format!("{name}: its runs have {} different configurations", hashes.len()));
        }
        for run in seeds.values().flatten().filter(|run| run.last_step() < longest) {
            remarks.push(format!("{}: ends at step {} of {longest}", run.folder.display(), run.last_step()));
        }
    }
    remarks
}
