//! What stands on the last layer's states: log-probabilities of tokens and values, forward and backward. Logits are
//! computed in chunks of rows and never held for all tokens.

use candle_core::{DType, Tensor};

use super::batch::Predictions;
use super::ops::Ops;
use super::parameters::{Gradients, Id, Parameters};
use crate::lm::LmError;
use crate::lm::train_ops::NormInput;

/// Logits that are held at a time, in numbers: 2^29 take 1 GiB in bfloat16 and stay far below 2^32, where the kernels'
/// 32-bit indices end.
const LOGITS: usize = 1 << 29;
/// The same on the CPU.
const LOGITS_ON_CPU: usize = 1 << 22;
/// Rows of logits at a time, whatever the vocabulary: a kernel's grid has no more.
const ROWS: usize = 1 << 15;
/// Rows whose numbers begin at a place that kernels can read from.
const ALIGNED: usize = 64;

/// Where the numbers of the last norm and of the heads are.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) norm: Id,
    /// `[vocab, hidden]`; the embedding when they are tied.
    pub(super) vocabulary: Id,
    /// `[1, hidden]`, for algorithms with a critic.
    pub(super) value: Option<Id>,
    /// What logits are divided by.
    pub(super) temperature: f64,
    pub(super) eps: f64,
}

/// What the head says of some rows.
pub(super) struct HeadOutputs {
    /// The states before the last norm, `[predictions, hidden]`.
    states: Tensor,
    /// After it.
    normed: Tensor,
    /// `[predictions]`, float32.
    pub(super) logprobs: Tensor,
    pub(super) entropies: Tensor,
    totals: Tensor,
    pub(super) values: Option<Tensor>,
}

impl Head {
    pub(super) fn forward(
        &self,
        ops: &Ops,
        parameters: &Parameters,
        states: &Tensor,
        predictions: &Predictions,
    ) -> Result<HeadOutputs, LmError> {
        let states = states.index_select(&Tensor::new(predictions.rows.as_slice(), states.device())?, 0)?;
        let normed = ops.rms_norm(&states, parameters.value(self.norm), self.eps)?;
        let mut columns: [Vec<Tensor>; 3] = Default::default();
        for (start, len) in self.chunks(parameters, predictions) {
            let (_, targets, logits) = self.chunk(parameters, &normed, predictions, (start, len))?;
            let found = ops.token_logprobs(&logits, &targets, self.temperature)?;
            columns.iter_mut().zip(found).for_each(|(column, part)| column.push(part));
        }
        let [logprobs, entropies, totals] = columns;
        let values = match self.value {
            Some(value) => Some(normed.matmul(&parameters.value(value).t()?)?.squeeze(1)?),
            None => None,
        };
        let [logprobs, entropies, totals] =
            [Tensor::cat(&logprobs, 0)?, Tensor::cat(&entropies, 0)?, Tensor::cat(&totals, 0)?];
        Ok(HeadOutputs { states, normed, logprobs, entropies, totals, values })
    }

    /// The derivative by all states, `[rows, hidden]`, from those by the log-probabilities and the values.
    pub(super) fn backward(
        &self,
        ops: &Ops,
        parameters: &Parameters,
        (said, predictions, rows): (&HeadOutputs, &Predictions, usize),
        (d_logprobs, d_values): (&Tensor, Option<&Tensor>),
        to: &mut Gradients,
    ) -> Result<Tensor, LmError> {
        let mut d_normed = Vec::new();
        let weight = parameters.value(self.vocabulary);
        for (start, len) in self.chunks(parameters, predictions) {
            let (normed, targets, logits) = self.chunk(parameters, &said.normed, predictions, (start, len))?;
            let (totals, d_logprobs) = (said.totals.narrow(0, start, len)?, d_logprobs.narrow(0, start, len)?);
            let d_logits = ops.logits_backward(logits, &targets, &totals, &d_logprobs, self.temperature)?;
            d_normed.push(d_logits.matmul(weight)?);
            if let Some(total) = to.total(self.vocabulary) {
                ops.weight_gradient(&d_logits, &normed, total)?;
            }
        }
        let mut d_normed = Tensor::cat(&d_normed, 0)?;
        if let (Some(value), Some(d_values)) = (self.value, d_values) {
            let d_values = d_values.to_dtype(d_normed.dtype())?.unsqueeze(1)?;
            d_normed = (d_normed + d_values.matmul(parameters.value(value))?)?;
            if let Some(total) = to.total(value) {
                ops.weight_gradient(&d_values, &said.normed, total)?;
            }
        }
        let input = NormInput { x: &said.states, weight: parameters.value(self.norm), eps: self.eps };
        let d_states = ops.rms_norm_backward(&input, &d_normed, None, to.total(self.norm))?;
        let at = Tensor::new(predictions.rows.as_slice(), d_states.device())?;
        // Rows are distinct: nothing is summed in a lower precision, and the order changes nothing.
        let none = Tensor::zeros((rows, d_states.dim(1)?), d_states.dtype(), d_states.device())?;
        Ok(none.index_add(&at, &d_states, 0)?)
    }

    /// Normed states, targets and logits of some predictions.
    fn chunk(
        &self,
        parameters: &Parameters,
        normed: &Tensor,
        predictions: &Predictions,
        (start, len): (usize, usize),
    ) -> Result<(Tensor, Tensor, Tensor), LmError> {
        let normed = normed.narrow(0, start, len)?;
        let targets = Tensor::new(predictions.targets.get(start..start + len).unwrap_or_default(), normed.device())?;
        let logits = normed.matmul(&parameters.value(self.vocabulary).t()?)?;
        Ok((normed, targets, logits))
    }

    fn chunks(&self, parameters: &Parameters, predictions: &Predictions) -> Vec<(usize, usize)> {
        let weight = parameters.value(self.vocabulary);
        let held = if weight.device().is_cpu() { LOGITS_ON_CPU } else { LOGITS };
        let rows = (held / weight.dims().first().copied().unwrap_or(1).max(1)).clamp(1, ROWS);
        // Kernels read sixteen bytes at a time: every chunk begins at a place that they can read from.
        let rows = if rows > ALIGNED { rows - rows % ALIGNED } else { rows };
        (0..predictions.len()).step_by(rows).map(|start| (start, rows.min(predictions.len() - start))).collect()
    }
}

/// A column of numbers on the host.
pub(super) fn column(x: &Tensor) -> Result<Vec<f64>, LmError> {
    Ok(x.to_dtype(DType::F64)?.to_vec1()?)
}
