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

    /// Root-mean-square norm.
    pub(crate) fn rms_norm(&self, _: &NormInput<'_>) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    /// A sum and its norm.
    pub(crate) fn add_rms_norm(&self, _: &NormInput<'_>, _: &Tensor) -> Result<(Tensor, Tensor), LmError> {
        match self.0 {}
    }

    /// The gradients of a norm.
    pub(crate) fn rms_norm_backward(
        &self,
        _: &NormInput<'_>,
        _: &Tensor,
        _: Option<&Tensor>,
        _: &Tensor,
    ) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    /// The gradient of a bias.
    pub(crate) fn bias_backward(&self, _: &Tensor, _: &Tensor) -> Result<(), LmError> {
        match self.0 {}
    }

    /// Rotary embedding.
    pub(crate) fn rotate(&self, _: &Tensor, _: &Angles<'_>, _: Rotation) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    /// A packed projection to heads.
    pub(crate) fn split_heads(
        &self,
        _: &Tensor,
        _: Option<&Tensor>,
        _: Option<&Angles<'_>>,
        _: HeadShape,
    ) -> Result<Heads, LmError> {
        match self.0 {}
    }

    /// The gradients of heads to that of the packed projection.
    pub(crate) fn join_heads(&self, _: &Heads, _: Option<&Angles<'_>>, _: HeadShape) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    /// The gated activation.
    pub(crate) fn gated(&self, _: &Tensor) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    /// Its gradient.
    pub(crate) fn gated_backward(&self, _: &Tensor, _: &Tensor) -> Result<Tensor, LmError> {
        match self.0 {}
    }

    /// The sequences of a batch.
    pub(crate) fn segments(&self, _: &[Range<usize>], _: HeadShape) -> Result<AttentionSegments, LmError> {
        match self.0 {}
    }

    /// Causal attention.
    pub(crate) fn attention(&self, _: &Heads, _: &AttentionSegments) -> Result<Attended, LmError> {
        match self.0 {}
    }

    /// Its gradients.
    pub(crate) fn attention_backward(
        &self,
        _: &Heads,
        _: &Attended,
        _: &Tensor,
        _: &AttentionSegments,
    ) -> Result<Heads, LmError> {
        match self.0 {}
    }

    /// Log-probabilities of targets.
    pub(crate) fn token_logprobs(&self, _: &Tensor, _: &Tensor, _: f64) -> Result<TokenScores, LmError> {
        match self.0 {}
    }

    /// The gradient of logits, in place.
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

    /// A weight's gradient.
    pub(crate) fn weight_gradient(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<(), LmError> {
        match self.0 {}
    }

    /// The embedding's gradient.
    pub(crate) fn embedding_backward(&self, _: &Tensor, _: &[u32], _: &Tensor) -> Result<(), LmError> {
        match self.0 {}
    }

    /// The sum of squares of tensors.
    pub(crate) fn sum_of_squares(&self, _: &[&Tensor]) -> Result<f64, LmError> {
        match self.0 {}
    }

    /// One step of AdamW.
    pub(crate) fn adamw(&self, _: &AdamwTensors<'_>, _: &AdamwStep) -> Result<(), LmError> {
        match self.0 {}
    }
}
