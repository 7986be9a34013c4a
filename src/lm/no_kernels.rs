//! The place of the fused kernels in a build without CUDA: there are none, and nothing can make one.

#[path = "no_training.rs"]
mod training;

use std::convert::Infallible;
use std::marker::PhantomData;

use candle_core::{DType, Device, Tensor};

use super::LmError;
use super::config::ModelConfig;
use super::kv::LayerKv;
use super::ops::{Addition, HeadWeights};
use super::packed::Packed;
use super::rope::RopeTable;
use super::sample::{Choice, Drawn};

pub(super) use self::training::{AttentionSegments, TrainKernels};

/// The first GPU.
///
/// # Errors
/// Always: this build has no CUDA.
pub fn cuda_device() -> Result<Device, LmError> {
    Err(LmError::Unsupported("this program was built without CUDA; build it with `--features cuda`".to_owned()))
}

/// No kernels.
#[derive(Debug)]
pub(super) struct Fused(Infallible);

/// No plan.
pub(super) struct FusedPlan<'p>(Infallible, PhantomData<&'p Fused>);

impl Fused {
    #[expect(clippy::unnecessary_wraps, reason = "the kernels may fail to load")]
    pub(super) fn for_device(_: &Device, _: &ModelConfig, _: DType) -> Result<Option<Self>, LmError> {
        Ok(None)
    }

    pub(super) fn plan<'p>(
        &'p self,
        _: &'p Packed,
        _: &'p ModelConfig,
        _: &'p RopeTable,
    ) -> Result<FusedPlan<'p>, LmError> {
        match self.0 {}
    }

    pub(super) fn draw(
        &self,
        _: &Tensor,
        _: &[Result<Choice, LmError>],
    ) -> Result<Vec<Result<Drawn, LmError>>, LmError> {
        match self.0 {}
    }
}

impl FusedPlan<'_> {
    pub(super) fn norm(&self, _: &Tensor, _: &Tensor, _: f64) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    pub(super) fn add_linear(&self, _: &Tensor, _: &Tensor, _: &Addition<'_>) -> Result<(), LmError> {
        match self.0 {}
    }

    pub(super) fn rotate_and_store(&self, _: &Tensor, _: &HeadWeights<'_>, _: &LayerKv) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    pub(super) fn attention(&self, _: &Tensor, _: &LayerKv, _: Option<usize>) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    pub(super) fn gated(&self, _: &Tensor) -> Result<Tensor, LmError> {
        match self.0 {}
    }
}
