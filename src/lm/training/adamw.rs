//! AdamW (arXiv:1711.05101) with clipping by the norm of all gradients. Moments are float32, and so are the weights: of a
//! bfloat16 model the optimiser keeps the 16 bits that rounding took off, which together with the weights are float32.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::decoder::TrainableDecoder;
use super::ops::Ops;
use super::parameters::{Gradients, Parameter};
use crate::lm::LmError;
use crate::lm::train_ops::{AdamwStep, AdamwTensors};

/// How parameters move.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of a matrix that a step at learning rate 1 would take away; norms and biases do not decay.
    pub weight_decay: f64,
    /// Norm that the gradients are scaled down to, over all parameters; 0 for none.
    pub max_grad_norm: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 }
    }
}

/// The moments of one parameter.
#[derive(Debug, Clone)]
pub struct Moments {
    first: Tensor,
    second: Tensor,
    /// Of a bfloat16 parameter: the lowest 16 bits of it in float32, as i16.
    low_bits: Option<Tensor>,
}

/// The optimiser and its state.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    steps: u64,
    moments: Vec<Option<Moments>>,
}

/// What a step multiplies and adds.
#[derive(Debug, Clone, Copy)]
struct StepSize {
    config: AdamWConfig,
    learning_rate: f64,
    /// This step's number, from 1.
    step: u64,
    /// What gradients are multiplied by.
    grad_scale: f64,
    weight_decay: f64,
}

impl AdamW {
    /// Moments of zero.
    ///
    /// # Errors
    /// [`LmError::Compute`] when the device's memory is too small.
    pub fn new(decoder: &TrainableDecoder, config: AdamWConfig) -> Result<Self, LmError> {
        let moments = decoder.parameters().iter().map(|parameter| {
            let zeros = || Tensor::zeros(parameter.value.shape(), DType::F32, parameter.value.device());
            let held_in_less = parameter.value.dtype() != DType::F32;
            let no_bits = || Tensor::zeros(parameter.value.shape(), DType::I16, parameter.value.device());
            let moments = || {
                let low_bits = held_in_less.then(no_bits).transpose()?;
                Ok(Moments { first: zeros()?, second: zeros()?, low_bits })
            };
            parameter.trainable.then(moments).transpose()
        });
        Ok(Self { config, steps: 0, moments: moments.collect::<Result<_, LmError>>()? })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Moves every trainable parameter. Gives the norm of the gradients before clipping.
    ///
    /// # Errors
    /// [`LmError::NotFinite`] when the norm is no number: nothing has moved then.
    pub fn step(
        &mut self,
        decoder: &mut TrainableDecoder,
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<f64, LmError> {
        let norm = decoder.gradient_norm(gradients)?;
        if !norm.is_finite() {
            return Err(LmError::NotFinite("the norm of the gradients"));
        }
        let limit = self.config.max_grad_norm;
        let grad_scale = if limit > 0.0 && norm > limit { limit / norm } else { 1.0 };
        self.steps += 1;
        let size = StepSize { config: self.config, learning_rate, step: self.steps, grad_scale, weight_decay: 0.0 };
        let (ops, parameters) = decoder.parts_mut();
        for ((parameter, moments), gradient) in parameters.iter_mut().zip(&mut self.moments).zip(gradients.iter()) {
            if let (Some(moments), Some(gradient)) = (moments, gradient) {
                let is_matrix = parameter.value.rank() > 1;
                let weight_decay = if is_matrix { self.config.weight_decay } else { 0.0 };
                let size = StepSize { weight_decay, ..size };
                match &moments.low_bits {
                    Some(low_bits) => size.move_in_place(ops, parameter, (low_bits, moments), gradient)?,
                    None => move_on_cpu(parameter, moments, gradient, size)?,
                }
            }
        }
        Ok(norm)
    }

    /// Everything that a checkpoint needs, by the parameters' names.
    pub fn state(&self, decoder: &TrainableDecoder) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for (parameter, moments) in decoder.parameters().iter().zip(&self.moments) {
            let (Some(moments), name) = (moments, parameter.name()) else { continue };
            state.insert(format!("first/{name}"), moments.first.clone());
            state.insert(format!("second/{name}"), moments.second.clone());
            if let Some(low_bits) = &moments.low_bits {
                state.insert(format!("low_bits/{name}"), low_bits.clone());
            }
        }
        state
    }

    /// Takes a checkpoint's state.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] when a tensor is missing or has another shape.
    pub fn restore(
        &mut self,
        decoder: &TrainableDecoder,
        state: &BTreeMap<String, Tensor>,
        steps: u64,
    ) -> Result<(), LmError> {
        for (parameter, moments) in decoder.parameters().iter().zip(&mut self.moments) {
            let (Some(moments), name) = (moments, parameter.name()) else { continue };
            let find = |kind: &str| match state.get(&format!("{kind}/{name}")) {
                Some(found) if found.shape() == parameter.value.shape() => {
                    Ok(found.to_device(parameter.value.device())?)
                }
                _ => Err(LmError::Unsupported(format!(
                    "the optimiser's state lacks `{kind}/{name}` or has another shape"
                ))),
            };
            (moments.first, moments.second) = (find("first")?, find("second")?);
            if moments.low_bits.is_some() {
                moments.low_bits = Some(find("low_bits")?);
            }
        }
        self.steps = steps;
        Ok(())
    }
}

impl StepSize {
    /// Where the kernels are: everything is updated where it lies.
    fn move_in_place(
        &self,
        ops: &Ops,
        parameter: &Parameter,
        (low_bits, moments): (&Tensor, &Moments),
        gradient: &Tensor,
    ) -> Result<(), LmError> {
        let tensors = AdamwTensors {
            low_bits,
            first_moment: &moments.first,
            second_moment: &moments.second,
            gradient,
            weight: &parameter.value,
        };
        let step = AdamwStep {
            learning_rate: self.learning_rate,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            eps: self.config.eps,
            weight_decay: self.weight_decay,
            step: u32::try_from(self.step).unwrap_or(u32::MAX),
            gradient_scale: self.grad_scale,
        };
        if ops.adamw(&tensors, &step)? {
            return Ok(());
        }
        Err(LmError::Unsupported("a model below float32 is trained on a GPU only; load it in float32".to_owned()))
    }
}

fn move_on_cpu(
    parameter: &mut Parameter,
    moments: &mut Moments,
    gradient: &Tensor,
    size: StepSize,
) -> Result<(), LmError> {
    let numbers = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    let shape = parameter.value.shape().clone();
    let (mut values, gradient) = (numbers(&parameter.value)?, numbers(gradient)?);
    let (mut first, mut second) = (numbers(&moments.first)?, numbers(&moments.second)?);
    let rule = Rule::new(size);
    values
        .par_iter_mut()
        .zip(first.par_iter_mut().zip(second.par_iter_mut()))
        .zip(gradient.par_iter())
        .with_min_len(1 << 14)
        .for_each(|((value, (first, second)), gradient)| rule.apply(value, first, second, *gradient));
    let device = parameter.value.device().clone();
    parameter.value = Tensor::from_vec(values, shape.clone(), &device)?;
    moments.first = Tensor::from_vec(first, shape.clone(), &device)?;
    moments.second = Tensor::from_vec(second, shape, &device)?;
    Ok(())
}

/// The step's constants, in float32 as the kernel has them.
#[derive(Debug, Clone, Copy)]
struct Rule {
    beta1: f32,
    beta2: f32,
    eps: f32,
    /// Learning rate over the first moment's bias correction.
    rate: f32,
    /// Root of the second moment's bias correction.
    correction: f32,
    keep: f32,
    grad_scale: f32,
}

impl Rule {
    fn new(size: StepSize) -> Self {
        let AdamWConfig { beta1, beta2, eps, .. } = size.config;
        let powered = |beta: f64| 1.0 - beta.powf(size.step as f64);
        Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            eps: eps as f32,
            rate: (size.learning_rate / powered(beta1)) as f32,
            correction: powered(beta2).sqrt() as f32,
            keep: (1.0 - size.learning_rate * size.weight_decay) as f32,
            grad_scale: size.grad_scale as f32,
        }
    }

    fn apply(self, value: &mut f32, first: &mut f32, second: &mut f32, gradient: f32) {
        let gradient = gradient * self.grad_scale;
        *first = self.beta1 * *first + (1.0 - self.beta1) * gradient;
        *second = self.beta2 * *second + (1.0 - self.beta2) * gradient * gradient;
        *value = *value * self.keep - self.rate * *first / (second.sqrt() / self.correction + self.eps);
    }
}
