//! The fused kernels and how they are launched: what `plain` computes, in 16 bits on an NVIDIA GPU.
//!
//! In: tensors of one device. Out: tensors of the same device, work queued on its one stream. The kernels are CUDA C++
//! beside this file, compiled to PTX by `build.rs`. Knows no model; the only unsafe code of the program is here.
#![expect(unsafe_code, reason = "launching kernels on device pointers")]

mod launch;
mod plan;
mod product;
mod sampling;
mod training;

use candle_core::cuda_backend::cudarc::driver::CudaFunction;
use candle_core::{DType, Device};

use self::launch::Library;
pub use self::launch::cuda_device;
pub(super) use self::plan::FusedPlan;
pub(crate) use self::training::{AttentionSegments, TrainKernels};
use super::LmError;
use super::config::{Activation, ModelConfig};
use super::packed::Packed;
use super::rope::RopeTable;

const NORM: &str = include_str!(concat!(env!("OUT_DIR"), "/norm.ptx"));
const ROPE: &str = include_str!(concat!(env!("OUT_DIR"), "/rope.ptx"));
const ACTIVATION: &str = include_str!(concat!(env!("OUT_DIR"), "/activation.ptx"));
const PREFILL: &str = include_str!(concat!(env!("OUT_DIR"), "/attention_prefill.ptx"));
const DECODE: &str = include_str!(concat!(env!("OUT_DIR"), "/attention_decode.ptx"));
const SAMPLE: &str = include_str!(concat!(env!("OUT_DIR"), "/sample.ptx"));

/// The kernels that a model needs, loaded: those of its number format, float16 or bfloat16.
#[derive(Debug)]
pub(super) struct Fused {
    dtype: DType,
    rms_norm: CudaFunction,
    add_normed: CudaFunction,
    rope_store: CudaFunction,
    gated: CudaFunction,
    prefill: CudaFunction,
    decode: CudaFunction,
    decode_reduce: CudaFunction,
    sample_chunks: CudaFunction,
    sample_finish: CudaFunction,
    /// Multiprocessors of the device.
    processors: usize,
}

/// Dynamic shared memory of the attention kernels, in bytes.
#[derive(Debug, Clone, Copy)]
struct AttentionMemory {
    prefill: u32,
    decode: u32,
    /// Rows of a prefill tile.
    tile: usize,
}

impl AttentionMemory {
    fn of(head_dim: usize) -> Option<Self> {
        match head_dim {
            64 => Some(Self { prefill: 55_296, decode: 55_296, tile: 128 }),
            96 => Some(Self { prefill: 79_872, decode: 79_872, tile: 128 }),
            128 => Some(Self { prefill: 104_448, decode: 104_448, tile: 128 }),
            256 => Some(Self { prefill: 101_376, decode: 135_168, tile: 64 }),
            _ => None,
        }
    }
}

impl Fused {
    /// The kernels for a model whose weights are of type `dtype`, on a GPU; `None` on the CPU.
    ///
    /// # Errors
    /// [`LmError::Unsupported`] for head widths and number formats that there is no kernel for.
    pub(super) fn for_device(device: &Device, config: &ModelConfig, dtype: DType) -> Result<Option<Self>, LmError> {
        let Device::Cuda(device) = device else { return Ok(None) };
        // Training's attention has the name without an ending.
        let (ending, of) = match dtype {
            DType::F16 => ("_f16", "f16"),
            DType::BF16 => ("", "bf16"),
            other => return Err(LmError::Unsupported(format!("the CUDA kernels know F16 and BF16, not {other:?}"))),
        };
        let dim = config.head_dim;
        let groups = config.heads / config.kv_heads;
        let Some(memory) = AttentionMemory::of(dim).filter(|_| groups <= 16) else {
            return Err(LmError::Unsupported(format!(
                "heads of width {dim} with {groups} queries a key have no CUDA kernel; there are 64, 96, 128 and 256, up to 16. \
                 Use device `cpu`"
            )));
        };
        if !config.hidden.is_multiple_of(8) || config.hidden > 8192 || !config.intermediate.is_multiple_of(8) {
            return Err(LmError::Unsupported("the CUDA kernels need widths that 8 divides, up to 8192".to_owned()));
        }
        let gated = match config.activation {
            Activation::Silu => "swiglu",
            Activation::GeluTanh => "geglu",
        };
        let [norm, rope, activation, prefill, decode, sample] =
            [NORM, ROPE, ACTIVATION, PREFILL, DECODE, SAMPLE].map(|ptx| Library::load(device, ptx));
        let (norm, decode, sample) = (norm?, decode?, sample?);
        Ok(Some(Self {
            dtype,
            rms_norm: norm.function(&format!("rms_norm_wide_{of}"), 0)?,
            add_normed: norm.function(&format!("add_normed_wide_{of}"), 0)?,
            rope_store: rope?.function(&format!("qk_norm_rope_store_{of}"), 0)?,
            gated: activation?.function(&format!("{gated}_{of}"), 0)?,
            prefill: prefill?.function(&format!("attention_prefill_d{dim}{ending}"), memory.prefill)?,
            decode: decode.function(&format!("attention_decode_d{dim}{ending}"), memory.decode)?,
            decode_reduce: decode.function(&format!("attention_decode_reduce{ending}"), 0)?,
            sample_chunks: sample.function("sample_chunks_f32", 0)?,
            sample_finish: sample.function("sample_finish", 0)?,
            processors: launch::processors(device)?,
        }))
    }

    /// What a batch's kernels need to know.
    pub(super) fn plan<'p>(
        &'p self,
        packed: &'p Packed,
        config: &'p ModelConfig,
        rope: &'p RopeTable,
    ) -> Result<FusedPlan<'p>, LmError> {
        FusedPlan::new(self, packed, config, rope)
    }
}
