//! Drawing tokens on the GPU: only the drawn ones come back.

use candle_core::Tensor;

use super::Fused;
use super::launch::{Argument, Grid, device, launch, pointer, uninitialised, upload, uploaded};
use crate::lm::LmError;
use crate::lm::sample::{Choice, Drawn};

/// Logits that one block looks at.
const CHUNK: usize = 4096;
/// Numbers that a block leaves.
const PARTS: usize = 8;

impl Fused {
    /// A token for every row of `[rows, vocab]` float32 logits. A row without a choice gets none.
    pub(in crate::lm) fn draw(
        &self,
        logits: &Tensor,
        choices: &[Result<Choice, LmError>],
    ) -> Result<Vec<Result<Drawn, LmError>>, LmError> {
        let (rows, vocab) = logits.dims2()?;
        let device = device(logits)?;
        let chunks = vocab.div_ceil(CHUNK);
        let of = |part: fn(&Choice) -> f32| choices.iter().map(|c| c.as_ref().map_or(0.0, part)).collect::<Vec<f32>>();
        let temperatures = upload(&device, &of(|choice| choice.sampling.temperature as f32))?;
        let seeds: Vec<u64> = choices.iter().map(|c| c.as_ref().map_or(0, |choice| choice.sampling.seed)).collect();
        let seeds = upload(&device, &seeds)?;
        let step = |choice: &Choice| u32::try_from(choice.step).unwrap_or(u32::MAX);
        let steps: Vec<u32> = choices.iter().map(|c| c.as_ref().map_or(0, step)).collect();
        let steps = upload(&device, &steps)?;
        let masks = masks(choices, vocab).map(|masks| upload(&device, &masks)).transpose()?;
        let masks = masks.as_ref().map_or(0, |masks| uploaded(&device, masks));
        let partial = uninitialised::<f32>(&device, (rows, chunks, PARTS))?;
        let temperatures = Argument::Pointer(uploaded(&device, &temperatures));
        let partial = Argument::Pointer(pointer(&partial)?);
        let arguments = [
            Argument::Pointer(pointer(logits)?),
            temperatures,
            Argument::Pointer(uploaded(&device, &seeds)),
            Argument::Pointer(uploaded(&device, &steps)),
            Argument::Pointer(masks),
            partial,
            vocab.into(),
        ];
        launch(&device, &self.sample_chunks, Grid::new((chunks, rows, 1), 256), &arguments)?;
        let tokens = uninitialised::<u32>(&device, rows)?;
        let numbers = uninitialised::<f32>(&device, (3, rows))?;
        let [logprobs, tempered, lse] = [0, 1, 2].map(|row| numbers.get(row));
        let at = |tensor: &Tensor| pointer(tensor).map(Argument::Pointer);
        let arguments =
            [partial, temperatures, at(&tokens)?, at(&logprobs?)?, at(&tempered?)?, at(&lse?)?, chunks.into()];
        launch(&device, &self.sample_finish, Grid::new((rows, 1, 1), 32), &arguments)?;
        let (tokens, numbers) = (tokens.to_vec1::<u32>()?, numbers.to_vec2::<f32>()?);
        let [logprobs, _, lse] = numbers.as_slice() else { return Err(LmError::NotFinite("the drawn rows")) };
        let drawn = |((token, logprob), lse): ((&u32, &f32), &f32)| match *token {
            _ if !lse.is_finite() => Err(LmError::NotFinite("a logit")),
            u32::MAX => Err(LmError::Unsupported("the constraint allows no token at all".to_owned())),
            token => Ok(Drawn { token, logprob: f64::from(*logprob) }),
        };
        Ok(tokens.iter().zip(logprobs).zip(lse).map(drawn).collect())
    }
}

/// The allowed tokens of all rows, `[rows, words]`; `None` when no row is held to any.
fn masks(choices: &[Result<Choice, LmError>], vocab: usize) -> Option<Vec<u32>> {
    let mask = |choice: &Result<Choice, LmError>| choice.as_ref().ok().and_then(|choice| choice.mask.clone());
    let masks: Vec<Option<Vec<u32>>> = choices.iter().map(mask).collect();
    masks.iter().any(Option::is_some).then(|| {
        let words = vocab.div_ceil(32);
        let row = |mask: Option<Vec<u32>>| {
            let mut mask = mask.unwrap_or_else(|| vec![u32::MAX; words]);
            mask.resize(words, 0);
            mask
        };
        masks.into_iter().flat_map(row).collect()
    })
}
