//! The operations of a decoder layer for one batch. Shapes are those of `plain`, whose numbers these must give within
//! the rounding of the weights' number format, float16 or bfloat16.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{DType, Shape, Tensor};
use half::{bf16, f16};

use super::launch::{Argument, Grid, device, launch, pointer, uninitialised, upload, uploaded};
use super::product::product;
use super::{AttentionMemory, Fused};
use crate::lm::LmError;
use crate::lm::config::ModelConfig;
use crate::lm::cpu_product::Before;
use crate::lm::kv::LayerKv;
use crate::lm::ops::{Addition, HeadWeights};
use crate::lm::packed::{Packed, Segment};
use crate::lm::rope::RopeTable;

const NULL: Argument = Argument::Pointer(0);

/// A batch's numbers on the device.
pub(in crate::lm) struct FusedPlan<'p> {
    fused: &'p Fused,
    config: &'p ModelConfig,
    rope: &'p RopeTable,
    device: CudaDevice,
    rows: usize,
    positions: CudaSlice<u32>,
    slots: CudaSlice<u32>,
    /// `[segments, 6]`: first row, rows, first own slot, own slots, first prefix slot, prefix slots.
    sequences: CudaSlice<i32>,
    attention: Attention,
}

/// How the attention of a batch is split up.
enum Attention {
    /// `[items, 2]`: segment and tile.
    Prefill { work: CudaSlice<i32>, items: usize },
    /// One row a segment: each segment's keys in pieces of `split_keys`.
    Decode { segments: usize, splits: usize, split_keys: usize },
}

/// A block for every row, eight columns a thread.
fn row_grid(rows: usize, width: usize) -> Grid {
    Grid::new((rows, 1, 1), (width / 8).next_multiple_of(32))
}

fn int(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

impl<'p> FusedPlan<'p> {
    pub(super) fn new(
        fused: &'p Fused,
        packed: &'p Packed,
        config: &'p ModelConfig,
        rope: &'p RopeTable,
    ) -> Result<Self, LmError> {
        let device = device(&rope.cos)?;
        let sequence = |segment: &Segment| {
            let (own, prefix) = (segment.own, segment.prefix);
            let (start, len) = prefix.map_or((0, 0), |prefix| (prefix.start, prefix.len));
            [segment.rows.start, segment.rows.len(), own.start, own.len, start, len].map(int)
        };
        let sequences: Vec<i32> = packed.segments.iter().flat_map(sequence).collect();
        Ok(Self {
            rows: packed.tokens.len(),
            positions: upload(&device, &packed.positions())?,
            slots: upload(&device, &packed.slots())?,
            sequences: upload(&device, &sequences)?,
            attention: Attention::of(fused, packed, config, &device)?,
            fused,
            config,
            rope,
            device,
        })
    }

    /// A tensor of the weights' format for a kernel to fill.
    fn new_tensor(&self, shape: impl Into<Shape>) -> Result<Tensor, LmError> {
        match self.fused.dtype {
            DType::F16 => uninitialised::<f16>(&self.device, shape),
            _ => uninitialised::<bf16>(&self.device, shape),
        }
    }

    /// A float32 state's norm, in the weights' format.
    pub(in crate::lm) fn norm(&self, state: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, LmError> {
        let (rows, width) = state.dims2()?;
        let out = self.new_tensor((rows, width))?;
        let at = |tensor: &Tensor| pointer(tensor).map(Argument::Pointer);
        let arguments = [at(state)?, at(weight)?, at(&out)?, width.into(), eps.into(), Argument::Int(0)];
        launch(&self.device, &self.fused.rms_norm, row_grid(rows, width), &arguments)?;
        Ok(out)
    }

    /// Adds to a float32 state, in place.
    pub(in crate::lm) fn add_linear(&self, state: &Tensor, x: &Tensor, addition: &Addition<'_>) -> Result<(), LmError> {
        let Some(norm) = addition.norm else {
            return product(&self.device, x, addition.weight, state, Before::Kept);
        };
        let (rows, width) = state.dims2()?;
        let delta = uninitialised::<f32>(&self.device, (rows, width))?;
        product(&self.device, x, addition.weight, &delta, Before::Overwritten)?;
        let at = |tensor: &Tensor| pointer(tensor).map(Argument::Pointer);
        let arguments = [at(&delta)?, at(norm)?, at(state)?, width.into(), addition.eps.into()];
        launch(&self.device, &self.fused.add_normed, row_grid(rows, width), &arguments)
    }

    pub(in crate::lm) fn rotate_and_store(
        &self,
        qkv: &Tensor,
        weights: &HeadWeights<'_>,
        kv: &LayerKv,
    ) -> Result<Tensor, LmError> {
        let ModelConfig { heads, kv_heads, head_dim, .. } = *self.config;
        let q = self.new_tensor((self.rows, heads * head_dim))?;
        let at = |tensor: &Tensor| pointer(tensor).map(Argument::Pointer);
        let maybe = |tensor: Option<&Tensor>| tensor.map_or(Ok(NULL), at);
        let arguments = [
            at(qkv)?,
            maybe(weights.bias)?,
            maybe(weights.norms.map(|(q, _)| q))?,
            maybe(weights.norms.map(|(_, k)| k))?,
            at(&self.rope.cos)?,
            at(&self.rope.sin)?,
            Argument::Pointer(uploaded(&self.device, &self.positions)),
            Argument::Pointer(uploaded(&self.device, &self.slots)),
            at(&q)?,
            at(&kv.k)?,
            at(&kv.v)?,
            self.rows.into(),
            heads.into(),
            kv_heads.into(),
            head_dim.into(),
            self.config.norm_eps.into(),
        ];
        // A head is worked on by a power of two of threads.
        let lanes = (head_dim / 16).next_power_of_two();
        let threads = self.rows * (heads + 2 * kv_heads) * lanes;
        launch(&self.device, &self.fused.rope_store, Grid::new((threads.div_ceil(256), 1, 1), 256), &arguments)?;
        Ok(q)
    }

    pub(in crate::lm) fn attention(&self, q: &Tensor, kv: &LayerKv, window: Option<usize>) -> Result<Tensor, LmError> {
        let ModelConfig { heads, kv_heads, head_dim, .. } = *self.config;
        let out = self.new_tensor((self.rows, heads * head_dim))?;
        let Some(memory) = AttentionMemory::of(head_dim) else {
            return Err(LmError::Unsupported(format!("heads of width {head_dim} have no CUDA kernel")));
        };
        let at = |tensor: &Tensor| pointer(tensor).map(Argument::Pointer);
        let ends: [Argument; 5] = [
            heads.into(),
            kv_heads.into(),
            self.config.attention_scale.into(),
            self.config.attention_softcap.unwrap_or(0.0).into(),
            window.unwrap_or(0).into(),
        ];
        let starts = [at(q)?, at(&kv.k)?, at(&kv.v)?, at(&out)?];
        let sequences = Argument::Pointer(uploaded(&self.device, &self.sequences));
        match &self.attention {
            Attention::Prefill { work, items } => {
                let work = Argument::Pointer(uploaded(&self.device, work));
                let arguments = [&starts, [NULL, sequences, work].as_slice(), &ends].concat();
                let grid = Grid { shared: memory.prefill, ..Grid::new((items * kv_heads, 1, 1), 128) };
                launch(&self.device, &self.fused.prefill, grid, &arguments)?;
            }
            Attention::Decode { segments, splits, split_keys } => {
                let partial = uninitialised::<f32>(&self.device, (*segments, heads, *splits, head_dim))?;
                let lse = uninitialised::<f32>(&self.device, (*segments, heads, *splits))?;
                let (partial, lse) = (at(&partial)?, at(&lse)?);
                let split: Argument = (*split_keys).into();
                let arguments = [&starts, [partial, lse, sequences].as_slice(), &ends, &[split]].concat();
                let grid = Grid { shared: memory.decode, ..Grid::new((*splits, kv_heads, *segments), 128) };
                launch(&self.device, &self.fused.decode, grid, &arguments)?;
                if *splits > 1 {
                    let window = window.unwrap_or(0).into();
                    let arguments = [partial, lse, at(&out)?, sequences, (*splits).into(), window, split];
                    let grid = Grid::new((heads, *segments, 1), head_dim);
                    launch(&self.device, &self.fused.decode_reduce, grid, &arguments)?;
                }
            }
        }
        Ok(out)
    }

    pub(in crate::lm) fn gated(&self, gate_up: &Tensor) -> Result<Tensor, LmError> {
        let (rows, width) = gate_up.dims2()?;
        let inner = width / 2;
        let out = self.new_tensor((rows, inner))?;
        let arguments = [Argument::Pointer(pointer(gate_up)?), Argument::Pointer(pointer(&out)?), inner.into()];
        launch(&self.device, &self.fused.gated, Grid::new((rows, inner.div_ceil(2048), 1), 256), &arguments)?;
        Ok(out)
    }
}

impl Attention {
    fn of(fused: &Fused, packed: &Packed, config: &ModelConfig, device: &CudaDevice) -> Result<Self, LmError> {
        let segments = &packed.segments;
        if segments.iter().all(|segment| segment.rows.len() == 1) {
            let longest = segments.iter().map(Segment::total).max().unwrap_or(1);
            let keys: usize = segments.iter().map(|segment| segment.total() * config.kv_heads).sum();
            // About four blocks for every multiprocessor, each with a whole number of the kernel's steps.
            let split_keys = keys.div_ceil(4 * fused.processors).next_multiple_of(64).max(64);
            let splits = longest.div_ceil(split_keys);
            return Ok(Self::Decode { segments: segments.len(), splits, split_keys });
        }
        let tile = AttentionMemory::of(config.head_dim).map_or(64, |memory| memory.tile);
        let groups = config.heads / config.kv_heads;
        let tiles = |(index, segment): (usize, &Segment)| {
            let count = (segment.rows.len() * groups).div_ceil(tile);
            // The keys that a tile's last row sees: the longest go first, so that none starts late.
            let keys = move |at: usize, segment: &Segment| segment.before() + ((at + 1) * tile / groups);
            (0..count).map(|at| (keys(at, segment), index, at)).collect::<Vec<_>>()
        };
        let mut work: Vec<(usize, usize, usize)> = segments.iter().enumerate().flat_map(tiles).collect();
        work.sort_by_key(|(keys, ..)| std::cmp::Reverse(*keys));
        let flat: Vec<i32> = work.iter().flat_map(|(_, segment, tile)| [int(*segment), int(*tile)]).collect();
        Ok(Self::Prefill { work: upload(device, &flat)?, items: work.len() })
    }
}
