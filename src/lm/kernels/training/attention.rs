//! Causal attention of training and its backward: packed sequences without padding, each for itself.

use std::ops::Range;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaSlice};
use candle_core::{DType, Tensor};
use half::bf16;

use super::{TrainKernels, at, bf16_at};
use crate::lm::LmError;
use crate::lm::kernels::launch::{Argument, Grid, Library, pointer, shared_memory, upload, uploaded};
use crate::lm::kernels::{AttentionMemory, PREFILL};
use crate::lm::train_ops::{Attended, HeadShape, Heads};

const BACKWARD_QUERIES: &str = include_str!(concat!(env!("OUT_DIR"), "/attention_backward_queries.ptx"));
const BACKWARD_KEYS: &str = include_str!(concat!(env!("OUT_DIR"), "/attention_backward_keys.ptx"));

/// Rows of a tile of queries, and keys of a tile of keys.
const TILE: usize = 128;
/// Most shares that a tile of keys is split into.
const MOST_PARTS: usize = 8;

/// The functions of each width of heads.
#[derive(Debug)]
pub(super) struct AttentionKernels {
    widths: Vec<WidthKernels>,
    stats: CudaFunction,
    keys_sum: CudaFunction,
}

/// The functions of one width of heads, and what they need.
#[derive(Debug)]
struct WidthKernels {
    head_dim: usize,
    /// Threads of a block of `keys`, and how many such blocks a multiprocessor holds.
    keys_threads: usize,
    keys_blocks: usize,
    /// Dynamic shared memory, in bytes.
    forward_shared: u32,
    queries_shared: u32,
    keys_shared: u32,
    forward: CudaFunction,
    queries: CudaFunction,
    keys: CudaFunction,
}

impl AttentionKernels {
    pub(super) fn load(device: &CudaDevice) -> Result<Self, LmError> {
        let [forward, queries, keys] = [PREFILL, BACKWARD_QUERIES, BACKWARD_KEYS].map(|ptx| Library::load(device, ptx));
        let (forward, queries, keys) = (forward?, queries?, keys?);
        let width = |(head_dim, queries_shared, keys_shared, keys_threads, keys_blocks)| {
            let forward_shared = AttentionMemory::of(head_dim).map_or(0, |memory| memory.prefill);
            Ok::<_, LmError>(WidthKernels {
                forward: forward.function(&format!("attention_prefill_d{head_dim}"), forward_shared)?,
                queries: queries.function(&format!("attention_backward_queries_d{head_dim}"), queries_shared)?,
                keys: keys.function(&format!("attention_backward_keys_d{head_dim}"), keys_shared)?,
                head_dim,
                keys_threads,
                keys_blocks,
                forward_shared,
                queries_shared,
                keys_shared,
            })
        };
        // Smaller GPUs have no room for the wider heads' tiles.
        let limit = shared_memory(device)?;
        let widths = [(64, 73_728, 55_808, 128, 2), (96, 79_872, 107_520, 256, 1), (128, 104_448, 140_288, 256, 1)];
        Ok(Self {
            widths: widths
                .into_iter()
                .filter(|sizes| sizes.1.max(sizes.2) <= limit)
                .map(width)
                .collect::<Result<_, _>>()?,
            stats: queries.function("attention_backward_stats", 0)?,
            keys_sum: keys.function("attention_backward_keys_sum", 0)?,
        })
    }

    fn of(&self, head_dim: usize) -> Result<&WidthKernels, LmError> {
        self.widths.iter().find(|width| width.head_dim == head_dim).ok_or_else(|| {
            LmError::Unsupported(format!(
                "training heads of width {head_dim} has no CUDA kernel on this GPU; there are {:?}. Use device `cpu`",
                self.widths.iter().map(|width| width.head_dim).collect::<Vec<_>>()
            ))
        })
    }
}

/// The sequences of a batch on the device, and the order in which their tiles are worked on. Made once for all layers.
#[derive(Debug)]
pub(crate) struct AttentionSegments {
    shape: HeadShape,
    rows: usize,
    /// `[sequences, 6]`, as the inference kernels have them.
    sequences: CudaSlice<i32>,
    /// `[items, 2]`: sequence and tile of rows.
    query_work: CudaSlice<i32>,
    query_items: usize,
    /// `[items, 2]`: sequence and tile of keys.
    key_work: CudaSlice<i32>,
    key_items: usize,
    /// Blocks that share a tile of keys.
    parts: usize,
}

/// A tile of a sequence, and about how long it takes.
struct Item {
    sequence: usize,
    tile: usize,
    cost: usize,
}

impl TrainKernels {
    /// Prepares the attention of a batch: `ranges` are the rows of its sequences, which must follow one another from 0.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] for ranges with gaps, and for heads that there is no kernel for.
    pub(crate) fn segments(&self, ranges: &[Range<usize>], shape: HeadShape) -> Result<AttentionSegments, LmError> {
        let kernels = self.attention.of(shape.head_dim)?;
        if shape.kv_heads == 0 || !shape.heads.is_multiple_of(shape.kv_heads) {
            return Err(LmError::Unsupported(format!(
                "{} heads cannot share {} heads of keys evenly",
                shape.heads, shape.kv_heads
            )));
        }
        let mut rows = 0;
        for range in ranges {
            if range.start != rows || range.is_empty() {
                return Err(LmError::Unsupported(format!(
                    "a sequence has the rows {range:?}; sequences must follow one another from row 0, none empty, and \
                     this one start at {rows}"
                )));
            }
            rows = range.end;
        }
        let group = shape.heads / shape.kv_heads;
        let lengths = || ranges.iter().map(Range::len).enumerate();
        let tiles = |(sequence, length): (usize, usize)| {
            let of = move |tile: usize| Item { sequence, tile, cost: (tile + 1) * TILE };
            (0..(length * group).div_ceil(TILE)).map(of)
        };
        let key_tiles = |(sequence, length): (usize, usize)| {
            let of = move |tile: usize| Item { sequence, tile, cost: length - tile * TILE };
            (0..length.div_ceil(TILE)).map(of)
        };
        let queries: Vec<Item> = lengths().flat_map(tiles).collect();
        let keys: Vec<Item> = lengths().flat_map(key_tiles).collect();
        // Up to two rounds of blocks, so that short ones fill the gaps that long ones leave: more parts cost more sums.
        let wanted = 2 * kernels.keys_blocks * self.processors;
        let parts = (wanted / (keys.len() * shape.kv_heads).max(1)).clamp(1, MOST_PARTS);
        let table: Vec<i32> = ranges
            .iter()
            .flat_map(|range| [range.start, range.len(), range.start, range.len(), 0, 0].map(int))
            .collect();
        Ok(AttentionSegments {
            shape,
            rows,
            sequences: upload(&self.device, &table)?,
            query_items: queries.len(),
            query_work: upload(&self.device, &longest_first(queries))?,
            key_items: keys.len(),
            key_work: upload(&self.device, &longest_first(keys))?,
            parts,
        })
    }

    /// Causal attention, every sequence for itself, with scores over `sqrt(head_dim)`.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape.
    pub(crate) fn attention(&self, heads: &Heads, segments: &AttentionSegments) -> Result<Attended, LmError> {
        let kernels = self.attention.of(segments.shape.head_dim)?;
        let output = self.new_tensor::<bf16>((segments.rows, segments.shape.heads * segments.shape.head_dim))?;
        let lse = self.new_tensor::<f32>((segments.rows, segments.shape.heads))?;
        let [q, k, v] = segments.heads_at(heads)?;
        let ends = [bf16_at("the output", &output)?, Argument::Pointer(pointer(&lse)?)];
        let plain = [Argument::Float(0.0), Argument::Int(0)]; // neither softcap nor window
        let arguments = [&[q, k, v], ends.as_slice(), &self.query_arguments(segments), &plain].concat();
        self.launch(&kernels.forward, segments.query_grid(kernels.forward_shared), &arguments)?;
        Ok(Attended { output, lse })
    }

    /// The gradients of queries, keys and values from that of the output, `[rows, heads * head_dim]`.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] names the tensor of a wrong type or shape.
    pub(crate) fn attention_backward(
        &self,
        heads: &Heads,
        attended: &Attended,
        d_output: &Tensor,
        segments: &AttentionSegments,
    ) -> Result<Heads, LmError> {
        let HeadShape { heads: query_heads, kv_heads, head_dim } = segments.shape;
        let (kernels, rows, parts) = (self.attention.of(head_dim)?, segments.rows, segments.parts);
        let [q, k, v] = segments.heads_at(heads)?;
        let like_q = |name, tensor| at(name, tensor, DType::BF16, &[rows, query_heads * head_dim]);
        let (output, d_output) = (like_q("the output", &attended.output)?, like_q("d_output", d_output)?);
        let lse = at("lse", &attended.lse, DType::F32, &[rows, query_heads])?;

        // The tensors behind these pointers live to the end of the function, when all that uses them is queued.
        let stats = self.new_tensor::<f32>((rows, query_heads, 2))?;
        let stats = Argument::Pointer(pointer(&stats)?);
        let threads = rows * query_heads * (head_dim / 8).next_power_of_two();
        let arguments = [output, d_output, lse, stats, (rows * query_heads).into(), head_dim.into()];
        self.launch(&self.attention.stats, Grid::new((threads.div_ceil(256), 1, 1), 256), &arguments)?;

        let d_q = self.new_tensor::<bf16>((rows, query_heads * head_dim))?;
        let inputs = [q, k, v, d_output, stats];
        let to = [bf16_at("d_q", &d_q)?];
        let arguments = [&inputs, to.as_slice(), &self.query_arguments(segments)].concat();
        self.launch(&kernels.queries, segments.query_grid(kernels.queries_shared), &arguments)?;

        let size = rows * kv_heads * head_dim;
        let partial = self.new_tensor::<f32>((2, parts, size))?;
        let to = [Argument::Pointer(pointer(&partial.get(0)?)?), Argument::Pointer(pointer(&partial.get(1)?)?)];
        let work = [&segments.sequences, &segments.key_work].map(|s| Argument::Pointer(uploaded(&self.device, s)));
        let numbers = segments.numbers();
        let last = [rows.into(), parts.into()];
        let arguments = [&inputs, to.as_slice(), &work, &numbers, &last].concat();
        let blocks = segments.key_items * kv_heads * parts;
        let grid = Grid { shared: kernels.keys_shared, ..Grid::new((blocks, 1, 1), kernels.keys_threads) };
        self.launch(&kernels.keys, grid, &arguments)?;

        let both = self.new_tensor::<bf16>((2, rows, kv_heads * head_dim))?;
        let long = Argument::Long(i64::try_from(size).unwrap_or(i64::MAX));
        let arguments = [to[0], bf16_at("d_k and d_v", &both)?, parts.into(), long, segments.scale()];
        self.launch(&self.attention.keys_sum, Grid::new((size.div_ceil(2048), 2, 1), 256), &arguments)?;
        Ok(Heads { q: d_q, k: both.get(0)?, v: both.get(1)? })
    }

    /// The last arguments of the kernels over tiles of queries.
    fn query_arguments(&self, segments: &AttentionSegments) -> [Argument; 5] {
        let [sequences, work] =
            [&segments.sequences, &segments.query_work].map(|s| Argument::Pointer(uploaded(&self.device, s)));
        let [heads, kv_heads, scale] = segments.numbers();
        [sequences, work, heads, kv_heads, scale]
    }
}

impl AttentionSegments {
    fn scale(&self) -> Argument {
        (self.shape.head_dim as f64).sqrt().recip().into()
    }

    fn numbers(&self) -> [Argument; 3] {
        [self.shape.heads.into(), self.shape.kv_heads.into(), self.scale()]
    }

    fn query_grid(&self, shared: u32) -> Grid {
        Grid { shared, ..Grid::new((self.query_items * self.shape.kv_heads, 1, 1), 128) }
    }

    fn heads_at(&self, heads: &Heads) -> Result<[Argument; 3], LmError> {
        let HeadShape { heads: query_heads, kv_heads, head_dim } = self.shape;
        let part = |name, tensor, heads: usize| at(name, tensor, DType::BF16, &[self.rows, heads * head_dim]);
        Ok([part("q", &heads.q, query_heads)?, part("k", &heads.k, kv_heads)?, part("v", &heads.v, kv_heads)?])
    }
}

/// Items by falling cost, so that no long one starts late.
fn longest_first(mut items: Vec<Item>) -> Vec<i32> {
    items.sort_by_key(|item| std::cmp::Reverse(item.cost));
    items.iter().flat_map(|item| [int(item.sequence), int(item.tile)]).collect()
}

fn int(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
