//! Where a model computes. In: a choice, as configurations say it. Out: a device.

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::LmError;
use super::kernels::cuda_device;

/// Where a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// The first GPU if this build has CUDA and there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first GPU.
    Cuda,
}

impl DeviceChoice {
    /// The device of the choice.
    ///
    /// # Errors
    /// When a GPU is asked for and there is none.
    pub fn open(self) -> Result<Device, LmError> {
        match self {
            Self::Auto => Ok(cuda_device().unwrap_or(Device::Cpu)),
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => cuda_device(),
        }
    }
}
