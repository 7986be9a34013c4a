//! The settings of a server that writes the rollouts.

use serde::{Deserialize, Serialize};

use crate::train::config::{Check, is_address};

/// A server that writes the rollouts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Its address, without `/v1`.
    pub url: String,
    /// Name under which it serves the policy.
    pub model: String,
    /// How it takes the policy's numbers.
    pub weights: WeightUpdate,
    /// Name of the environment variable with its bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// Most requests at a time.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// How long it is waited for while it cannot be reached, in seconds.
    #[serde(default = "patience_s")]
    pub patience_s: u64,
}

fn concurrency() -> usize {
    256
}

fn patience_s() -> u64 {
    600
}

impl ServerConfig {
    /// What it must not be.
    pub(in crate::train) fn checks(&self) -> Vec<Check> {
        vec![
            (
                !is_address(&self.url),
                "rollout_server.url",
                "is no address; write one such as \"http://127.0.0.1:8000\"",
            ),
            (self.concurrency == 0, "rollout_server.concurrency", "is 0; it must be 1 or more"),
        ]
    }
}

/// How a server takes new weights. It must see the run's folder under the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightUpdate {
    /// vLLM, started on the run's `serving` folder with `VLLM_SERVER_DEV_MODE=1`: it reads that folder again.
    VllmReload,
    /// vLLM, started on the base model with `--enable-lora`, `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1` and
    /// `VLLM_SERVER_DEV_MODE=1`: it loads the adapter.
    VllmLora,
    /// `SGLang`: it loads the run's `serving` folder.
    Sglang,
}
