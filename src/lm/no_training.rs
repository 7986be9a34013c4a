//! The place of training's kernels in a build without CUDA. What each function computes stands with the kernels.

use std::convert::Infallible;
use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::lm::LmError;
use crate::lm::train_ops::{
    AdamwStep, AdamwTensors, Angles, Attended, HeadShape, Heads, NormInput, Rotation, TokenScores,
};

/// No kernels.
#[derive(Debug)]
pub(crate) struct TrainKernels(Infallible);

/// No sequences of a batch.
#[derive(Debug)]
pub(crate) struct AttentionSegments(Infallible);

impl TrainKernels {
    /// None on any device.
    #[expect(clippy::unnecessary_wraps, reason = "the kernels may fail to load")]
    pub(crate) fn for_device(_: &Device) -> Result<Option<Self>, LmError> {
        Ok(None)
    }

    pub(crate) fn rms_norm(&self, _: &NormInput<'_>) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    pub(crate) fn add_rms_norm(&self, _: &NormInput<'_>, _: &Tensor) -> Result<(Tensor, Tensor), LmError> {
        match self.0 {}
    }

    pub(crate) fn rms_norm_backward(
        &self,
        _: &NormInput<'_>,
        _: &Tensor,
        _: Option<&Tensor>,
        _: &Tensor,
    ) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    pub(crate) fn bias_backward(&self, _: &Tensor, _: &Tensor) -> Result<(), LmError> {
        match self.0 {}
    }

    pub(crate) fn rotate(&self, _: &Tensor, _: &Angles<'_>, _: Rotation) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    pub(crate) fn split_heads(
        &self,
        _: &Tensor,
        _: Option<&Tensor>,
        _: Option<&Angles<'_>>,
        _: HeadShape,
    ) -> Result<Heads, LmError> {
        match self.0 {}
    }

    pub(crate) fn join_heads(&self, _: &Heads, _: Option<&Angles<'_>>, _: HeadShape) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    pub(crate) fn gated(&self, _: &Tensor) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    pub(crate) fn gated_backward(&self, _: &Tensor, _: &Tensor) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    pub(crate) fn segments(&self, _: &[Range<usize>], _: HeadShape) -> Result<AttentionSegments, LmError> {
        match self.0 {}
    }

    pub(crate) fn attention(&self, _: &Heads, _: &AttentionSegments) -> Result<Attended, LmError> {
        match self.0 {}
    }

    pub(crate) fn attention_backward(
        &self,
        _: &Heads,
        _: &Attended,
        _: &Tensor,
        _: &AttentionSegments,
    ) -> Result<Heads, LmError> {
        match self.0 {}
    }

    pub(crate) fn token_logprobs(&self, _: &Tensor, _: &Tensor, _: f64) -> Result<TokenScores, LmError> {
        match self.0 {}
    }

    pub(crate) fn logits_backward(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: f64,
    ) -> Result<(), LmError> {
        match self.0 {}
    }

    pub(crate) fn weight_gradient(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<(), LmError> {
        match self.0 {}
    }

    pub(crate) fn embedding_backward(&self, _: &Tensor, _: &[u32], _: &Tensor) -> Result<(), LmError> {
        match self.0 {}
    }

    pub(crate) fn sum_of_squares(&self, _: &[&Tensor]) -> Result<f64, LmError> {
        match self.0 {}
    }

    pub(crate) fn adamw(&self, _: &AdamwTensors<'_>, _: &AdamwStep) -> Result<(), LmError> {
        match self.0 {}
    }
}
