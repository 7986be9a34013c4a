//! Getting kernels, device pointers and outputs. Everything runs on the device's one stream, in order, so that a tensor
//! may be dropped as soon as the kernels that use it are queued.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, DevicePtr, DeviceRepr, LaunchArgs, LaunchConfig, PushKernelArg, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDType, CudaDevice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Device, Shape, Storage, Tensor};
use half::{bf16, f16};

use crate::lm::LmError;

/// Shared memory that a kernel may have without asking, in bytes.
const FREE_SHARED: u32 = 48 * 1024;

/// The first GPU, set up for one stream: no events are tracked, and freed memory is kept for the next allocation.
///
/// # Errors
/// [`LmError::Compute`] when there is none, or no driver.
pub fn cuda_device() -> Result<Device, LmError> {
    let device = Device::new_cuda(0)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: the one thread that owns a model does all work on the device's one stream, in order.
    unsafe { cuda.disable_event_tracking() };
    keep_freed_memory(cuda)?;
    Ok(device)
}

/// Without this, every synchronisation hands the pool's free memory back to the driver.
fn keep_freed_memory(device: &CudaDevice) -> Result<(), LmError> {
    let context = device.cuda_stream().context().clone();
    let mut pool = std::ptr::null_mut();
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: both pointers are to live variables of the types that the driver expects for this attribute.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()).result().w()?;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result().w()?;
    }
    Ok(())
}

/// A loaded file of kernels.
pub(super) struct Library(Arc<CudaModule>);

impl Library {
    pub(super) fn load(device: &CudaDevice, ptx: &str) -> Result<Self, LmError> {
        Ok(Self(device.cuda_stream().context().load_module(Ptx::from_src(ptx)).w()?))
    }

    pub(super) fn function(&self, name: &str, shared: u32) -> Result<CudaFunction, LmError> {
        let function = self.0.load_function(name).w()?;
        if shared > FREE_SHARED {
            let attribute = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, i32::try_from(shared).unwrap_or(i32::MAX)).w()?;
        }
        Ok(function)
    }
}

/// How many multiprocessors a device has.
pub(super) fn processors(device: &CudaDevice) -> Result<usize, LmError> {
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    let count = device.cuda_stream().context().attribute(attribute).w()?;
    Ok(usize::try_from(count).unwrap_or(1))
}

/// Shared memory that a block may have on a device, in bytes.
pub(super) fn shared_memory(device: &CudaDevice) -> Result<u32, LmError> {
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    let bytes = device.cuda_stream().context().attribute(attribute).w()?;
    Ok(u32::try_from(bytes).unwrap_or(0))
}

/// The device of a tensor.
pub(super) fn device(tensor: &Tensor) -> Result<CudaDevice, LmError> {
    Ok(tensor.device().as_cuda_device()?.clone())
}

/// Where a contiguous tensor's first element lies.
pub(super) fn pointer(tensor: &Tensor) -> Result<u64, LmError> {
    if !tensor.is_contiguous() {
        return Err(LmError::Unsupported("a kernel was given a tensor that is not contiguous".to_owned()));
    }
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        return Err(LmError::Unsupported("a kernel was given a tensor that is not on the GPU".to_owned()));
    };
    let start = layout.start_offset();
    match tensor.dtype() {
        DType::BF16 => first::<bf16>(storage, start),
        DType::F16 => first::<f16>(storage, start),
        DType::F32 => first::<f32>(storage, start),
        DType::I16 => first::<i16>(storage, start),
        DType::U32 => first::<u32>(storage, start),
        DType::F64 => first::<f64>(storage, start),
        other => Err(LmError::Unsupported(format!("a kernel was given a tensor of {other:?}"))),
    }
}

fn first<T: CudaDType + DeviceRepr>(storage: &CudaStorage, start: usize) -> Result<u64, LmError> {
    let stream = storage.device.cuda_stream();
    let slice: &CudaSlice<T> = storage.as_cuda_slice()?;
    Ok(slice.device_ptr(&stream).0 + (start * size_of::<T>()) as u64)
}

/// A tensor whose content is whatever lay there: the caller's kernel fills all of it.
pub(super) fn uninitialised<T: CudaDType + DeviceRepr>(
    device: &CudaDevice,
    shape: impl Into<Shape>,
) -> Result<Tensor, LmError> {
    let shape = shape.into();
    // SAFETY: any bit pattern is a value of the number types, and a kernel writes all of them before anything reads.
    let slice = unsafe { device.alloc::<T>(shape.elem_count())? };
    let storage = CudaStorage::wrap_cuda_slice(slice, device.clone());
    Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
}

/// Numbers from the host.
pub(super) fn upload<T: DeviceRepr + 'static>(device: &CudaDevice, values: &[T]) -> Result<CudaSlice<T>, LmError> {
    Ok(device.clone_htod(values)?)
}

/// Where numbers from the host lie.
pub(super) fn uploaded<T: DeviceRepr>(device: &CudaDevice, slice: &CudaSlice<T>) -> u64 {
    slice.device_ptr(&device.cuda_stream()).0
}

/// A kernel's arguments: pointers, whole numbers and fractions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    Pointer(u64),
    Int(i32),
    /// A number of elements that may be beyond 32 bits.
    Long(i64),
    Float(f32),
}

impl From<usize> for Argument {
    fn from(value: usize) -> Self {
        Self::Int(i32::try_from(value).unwrap_or(i32::MAX))
    }
}

impl From<f64> for Argument {
    fn from(value: f64) -> Self {
        Self::Float(value as f32)
    }
}

/// Blocks, threads a block, and dynamic shared memory in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub(super) blocks: (usize, usize, usize),
    pub(super) threads: usize,
    pub(super) shared: u32,
}

impl Grid {
    pub(super) fn new(blocks: (usize, usize, usize), threads: usize) -> Self {
        Self { blocks, threads, shared: 0 }
    }
}

/// Queues a kernel.
pub(super) fn launch(
    device: &CudaDevice,
    function: &CudaFunction,
    grid: Grid,
    arguments: &[Argument],
) -> Result<(), LmError> {
    let stream = device.cuda_stream();
    let mut launch: LaunchArgs<'_> = stream.launch_builder(function);
    for argument in arguments {
        match argument {
            Argument::Pointer(pointer) => launch.arg(pointer),
            Argument::Int(number) => launch.arg(number),
            Argument::Long(number) => launch.arg(number),
            Argument::Float(number) => launch.arg(number),
        };
    }
    let narrow = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let (x, y, z) = grid.blocks;
    let config = LaunchConfig {
        grid_dim: (narrow(x), narrow(y), narrow(z)),
        block_dim: (narrow(grid.threads), 1, 1),
        shared_mem_bytes: grid.shared,
    };
    // SAFETY: the arguments are those of the kernel's signature, the pointers are to tensors of the sizes that the caller
    // checked, and these live until the kernel is queued on the one stream that also frees them.
    unsafe { launch.launch(config).w()? };
    Ok(())
}
