//! Parameters and their gradients. A packed weight (q, k and v; gate and up) is one tensor here and several in a Hugging
//! Face file: a parameter knows the names of its parts.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::lm::LmError;

/// A parameter's place among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(pub(super) usize);

/// A tensor of the model.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// What a file calls it; for a packed one, its parts from top to bottom with their rows.
    pub parts: Vec<(String, usize)>,
    /// Its numbers: `[out, in]` or `[width]`.
    pub value: Tensor,
    /// Whether it is learnt.
    pub trainable: bool,
}

impl Parameter {
    /// One name for the whole of it.
    pub fn name(&self) -> String {
        self.parts.iter().map(|part| part.0.as_str()).collect::<Vec<_>>().join("+")
    }
}

/// All parameters of a model, in a fixed order.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    entries: Vec<Parameter>,
}

impl Parameters {
    pub(super) fn add(&mut self, parts: Vec<(String, usize)>, value: Tensor) -> Id {
        self.entries.push(Parameter { parts, value, trainable: true });
        Id(self.entries.len() - 1)
    }

    /// The value of a parameter. Ids are given out by [`Self::add`] alone.
    #[allow(clippy::indexing_slicing, reason = "an id is a place that `add` gave out")]
    pub(super) fn value(&self, id: Id) -> &Tensor {
        &self.entries[id.0].value
    }

    pub(super) fn freeze_all(&mut self) {
        self.entries.iter_mut().for_each(|parameter| parameter.trainable = false);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.entries.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        self.entries.iter_mut()
    }

    /// Whether no number of those that learn is infinite or none.
    ///
    /// # Errors
    /// [`LmError::Compute`].
    pub fn are_finite(&self) -> Result<bool, LmError> {
        for parameter in self.entries.iter().filter(|parameter| parameter.trainable) {
            // One number that is not finite makes a sum that is not, and no parameters are so large that their sum is none.
            let sum = parameter.value.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
            if !sum.is_finite() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Every part under the name that a file gives it, `[rows, in]` or `[rows]`.
    ///
    /// # Errors
    /// [`LmError::Compute`].
    pub fn by_file_name(&self) -> Result<BTreeMap<String, Tensor>, LmError> {
        split(self.entries.iter().map(|parameter| (parameter, &parameter.value)))
    }
}

/// The parts of packed tensors, by their names.
fn split<'t>(packed: impl Iterator<Item = (&'t Parameter, &'t Tensor)>) -> Result<BTreeMap<String, Tensor>, LmError> {
    let mut named = BTreeMap::new();
    for (parameter, tensor) in packed {
        let mut start = 0;
        for (name, rows) in &parameter.parts {
            named.insert(name.clone(), tensor.narrow(0, start, *rows)?.contiguous()?);
            start += rows;
        }
    }
    Ok(named)
}

/// What a batch says of every trainable parameter: sums over its tokens, in float32 (float64 for a float64 model).
#[derive(Debug)]
pub struct Gradients {
    totals: Vec<Option<Tensor>>,
}

impl Gradients {
    /// Zeros.
    ///
    /// # Errors
    /// [`LmError::Compute`] when the device's memory is too small.
    pub fn zeros(parameters: &Parameters) -> Result<Self, LmError> {
        let zero = |parameter: &Parameter| {
            let value = &parameter.value;
            let dtype = if value.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            parameter.trainable.then(|| Tensor::zeros(value.shape(), dtype, value.device())).transpose()
        };
        Ok(Self { totals: parameters.iter().map(zero).collect::<Result<_, _>>()? })
    }

    pub(super) fn total(&mut self, id: Id) -> Option<&mut Tensor> {
        self.totals.get_mut(id.0).and_then(Option::as_mut)
    }

    /// The totals, in the parameters' order; `None` for those that are not learnt.
    pub fn iter(&self) -> impl Iterator<Item = Option<&Tensor>> {
        self.totals.iter().map(Option::as_ref)
    }

    /// Those of every trainable part under the name that a file gives the parameter.
    ///
    /// # Errors
    /// [`LmError::Compute`].
    pub fn by_file_name(&self, parameters: &Parameters) -> Result<BTreeMap<String, Tensor>, LmError> {
        let found = parameters.iter().zip(&self.totals);
        split(found.filter_map(|(parameter, total)| Some((parameter, total.as_ref()?))))
    }

    /// The Euclidean norm over all of them.
    ///
    /// # Errors
    /// [`LmError::Compute`].
    pub(super) fn norm(&self, ops: &super::ops::Ops) -> Result<f64, LmError> {
        let totals: Vec<&Tensor> = self.totals.iter().flatten().collect();
        Ok(ops.sum_of_squares(&totals)?.sqrt())
    }
}
