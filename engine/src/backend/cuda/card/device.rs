// SPDX-License-Identifier: MPL-2.0
//! A card with its memory, its stream of work and its kernels: the safe layer over the driver.
//!
//! Kernels are trusted to stay inside the memory that they are given, as the sources in `engine/kernels` do.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaGraph, CudaStream, DriverError, result, sys};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::target::Target;
use crate::backend::cuda::sizes::{Block, Card};
use crate::backend::cuda::{failed, failed_as};
use crate::backend::{Memory, Precision};
use crate::error::{Error, Fault, Result};

/// Version of the oldest driver that has all functions which are called, as the driver writes it.
const OLDEST_DRIVER: i32 = 12_000;

/// Turns a driver's error into one that says what failed.
fn driver(what: &str) -> impl Fn(DriverError) -> Error + '_ {
    move |e| {
        let reason =
            e.error_string().map_or_else(|_| format!("{e:?}"), |text| text.to_string_lossy().into_owned());
        failed_as(kind_of(e.0), format!("{what}: {reason}"))
    }
}

/// What kind of failure a driver's status is.
fn kind_of(status: sys::CUresult) -> Fault {
    use sys::CUresult as Status;
    match status {
        Status::CUDA_ERROR_OUT_OF_MEMORY => Fault::OutOfMemory,
        // After these every call of the process fails (CUDA driver API, "Error handling").
        Status::CUDA_ERROR_ILLEGAL_ADDRESS
        | Status::CUDA_ERROR_LAUNCH_TIMEOUT
        | Status::CUDA_ERROR_ASSERT
        | Status::CUDA_ERROR_HARDWARE_STACK_ERROR
        | Status::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | Status::CUDA_ERROR_MISALIGNED_ADDRESS
        | Status::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | Status::CUDA_ERROR_INVALID_PC
        | Status::CUDA_ERROR_LAUNCH_FAILED
        | Status::CUDA_ERROR_ECC_UNCORRECTABLE
        | Status::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | Status::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | Status::CUDA_ERROR_DEINITIALIZED => Fault::DeviceLost,
        Status::CUDA_ERROR_NO_DEVICE
        | Status::CUDA_ERROR_INVALID_DEVICE
        | Status::CUDA_ERROR_DEVICE_UNAVAILABLE
        | Status::CUDA_ERROR_NO_BINARY_FOR_GPU
        | Status::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | Status::CUDA_ERROR_NOT_SUPPORTED
        | Status::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => Fault::Refused,
        _ => Fault::Internal,
    }
}

/// One card and the stream that everything of a backend runs on.
pub struct Device {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    index: usize,
    name: String,
    /// What it can do.
    pub card: Card,
    /// Streaming multiprocessors.
    pub processors: usize,
}

impl Device {
    /// How many cards the driver shows. Fails without one, or without a driver that is new enough, saying so.
    pub fn count() -> Result<usize> {
        // SAFETY: only tries to open the library.
        if !unsafe { sys::is_culib_present() } {
            let library = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
            let reason = format!("there is no NVIDIA driver on this machine ({library})");
            return Err(failed_as(Fault::Refused, reason));
        }
        let mut version = 0;
        // SAFETY: the pointer is to a live integer, and every driver has this function.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }
            .result()
            .map_err(driver("the NVIDIA driver doesn't tell its version"))?;
        // An older one lacks functions, and cudarc panics where one is missing.
        if version < OLDEST_DRIVER {
            let [major, minor] = [version / 1_000, version % 1_000 / 10];
            let reason =
                format!("the NVIDIA driver is of CUDA {major}.{minor}: install one of CUDA 12 or newer");
            return Err(failed_as(Fault::Refused, reason));
        }
        const NONE: &str = "the NVIDIA driver shows no card";
        match result::init().and_then(|()| result::device::get_count()).map_err(driver(NONE))? {
            count @ 1.. => Ok(count as usize),
            _ => Err(failed_as(Fault::Refused, NONE.into())),
        }
    }

    /// Opens card `index`.
    pub fn open(index: usize) -> Result<Arc<Self>> {
        let count = Self::count()?;
        if index >= count {
            let reason = format!("there is no card {index}; the driver shows {count}, counted from 0");
            return Err(failed_as(Fault::Refused, reason));
        }
        let fail = driver("cannot open the card");
        let context = CudaContext::new(index).map_err(&fail)?;
        // SAFETY: no memory is used on two streams but what was written and waited for before the second was made, so there is
        // nothing to order by events.
        unsafe { context.disable_event_tracking() };
        // What is enqueued here goes before what another stream of this process has.
        let (_, first) = priorities(&context)?;
        let attribute = |which| context.attribute(which).map_err(&fail);
        use sys::CUdevice_attribute_enum as Attribute;
        Ok(Arc::new(Self {
            stream: context.new_stream_with_priority(first).map_err(&fail)?,
            index,
            name: context.name().map_err(&fail)?,
            card: Card {
                capability: context.compute_capability().map_err(&fail)?,
                shared_memory: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?
                    as usize,
            },
            processors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
            context,
        }))
    }

    /// The same card with a stream of its own for work that goes behind what the first enqueues.
    pub fn beside(&self) -> Result<Arc<Self>> {
        let (last, _) = priorities(&self.context)?;
        let stream = self.context.new_stream_with_priority(last);
        Ok(Arc::new(Self {
            stream: stream.map_err(driver("cannot use the card a second time"))?,
            context: self.context.clone(),
            name: self.name.clone(),
            ..*self
        }))
    }

    /// Its name and number.
    pub fn describe(&self) -> String {
        format!("{} ({})", self.name, self.index)
    }

    /// Makes the card the calling thread's current one.
    pub fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(driver("cannot use the card"))
    }

    /// Free and total memory.
    pub fn memory(&self) -> Option<Memory> {
        self.context.mem_get_info().ok().map(|(free, total)| Memory { free, total })
    }

    /// The driver's handle of the stream.
    pub fn stream(&self) -> *mut c_void {
        self.stream.cu_stream().cast()
    }

    /// Waits until everything enqueued is done.
    pub fn wait(&self) -> Result<()> {
        self.stream.synchronize().map_err(driver("a kernel failed"))
    }

    /// Memory that holds anything.
    pub fn buffer(self: &Arc<Self>, bytes: usize) -> Result<Buffer> {
        self.bind()?;
        // SAFETY: nobody reads the memory before a kernel or a copy wrote it.
        let address = unsafe { result::malloc_sync(bytes.max(1)) };
        let address = address.map_err(|e| {
            let free = self.memory().map_or(0, |memory| memory.free);
            let megabytes = |bytes: usize| bytes as f64 / 1e6;
            let what = format!(
                "no {:.1} MB of memory on the card ({:.1} MB are free)",
                megabytes(bytes),
                megabytes(free)
            );
            driver(&what)(e)
        })?;
        Ok(Buffer { device: self.clone(), address, bytes })
    }

    /// Memory that holds zeros.
    pub fn zeros(self: &Arc<Self>, bytes: usize) -> Result<Buffer> {
        let buffer = self.buffer(bytes)?;
        self.clear(&buffer)?;
        Ok(buffer)
    }

    /// Memory that holds `values`, once this returns.
    pub fn upload<T: bytemuck::NoUninit>(self: &Arc<Self>, values: &[T]) -> Result<Buffer> {
        let buffer = self.buffer(size_of_val(values))?;
        self.write(&buffer, values)?;
        Ok(buffer)
    }

    /// Copies `values` to the beginning of `to`, after everything enqueued; the copy is over when this returns.
    pub fn write<'a, T: bytemuck::NoUninit>(&self, to: impl Into<Part<'a>>, values: &[T]) -> Result<()> {
        let to = to.into().first(size_of_val(values))?;
        // A copy outside the stream may still be under way when its call returns, and kernels don't wait for it.
        // SAFETY: the part holds as many bytes, and `values` outlives the copy that is waited for.
        unsafe { result::memcpy_htod_async(to.address, values, self.stream.cu_stream()) }
            .map_err(driver("cannot copy to the card"))?;
        self.wait()
    }

    /// Copies the first `count` values of `from`, after everything enqueued.
    #[cfg(test)]
    pub fn read<'a, T: bytemuck::Pod>(&self, from: impl Into<Part<'a>>, count: usize) -> Result<Vec<T>> {
        let from = from.into().first(count * size_of::<T>())?;
        self.wait()?;
        let mut values = vec![T::zeroed(); count];
        // SAFETY: the part holds as many bytes, and the copy is over when the call returns.
        unsafe { result::memcpy_dtoh_sync(&mut values, from.address) }
            .map_err(driver("cannot copy from the card"))?;
        Ok(values)
    }

    /// Enqueues zeroing of a part.
    pub fn clear<'a>(&self, part: impl Into<Part<'a>>) -> Result<()> {
        let Part { address, bytes, .. } = part.into();
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the part holds as many bytes.
        unsafe { result::memset_d8_async(address, 0, bytes, self.stream.cu_stream()) }
            .map_err(driver("cannot clear memory"))
    }

    /// Enqueues a copy of the first bytes of `from` to all of `to`; `from` must stay as it is until [`Device::wait`].
    pub fn send(&self, from: &Pinned, to: Part<'_>) -> Result<()> {
        let values = from.bytes().get(..to.bytes).ok_or_else(|| beyond(to.bytes, from.bytes))?;
        // SAFETY: `Pinned` outlives the step that sends it, and the part holds as many bytes.
        unsafe { result::memcpy_htod_async(to.address, values, self.stream.cu_stream()) }
            .map_err(driver("cannot copy to the card"))
    }

    /// Copies all of `from` to the first bytes of `to`, after everything enqueued.
    pub fn fetch(&self, from: Part<'_>, to: &mut Pinned) -> Result<()> {
        let held = to.bytes;
        let values = to.bytes_mut().get_mut(..from.bytes).ok_or_else(|| beyond(from.bytes, held))?;
        // SAFETY: waiting below ends the copy before anybody reads `to`; the part holds as many bytes.
        unsafe { result::memcpy_dtoh_async(values, from.address, self.stream.cu_stream()) }
            .map_err(driver("cannot copy from the card"))?;
        self.wait()
    }

    /// Enqueues a copy of all of `from` to the beginning of `to`, inside the card's memory.
    pub fn copy<'a, 'b>(&self, from: impl Into<Part<'a>>, to: impl Into<Part<'b>>) -> Result<()> {
        let from = from.into();
        let to = to.into().first(from.bytes)?;
        // SAFETY: both parts hold as many bytes.
        unsafe { result::memcpy_dtod_async(to.address, from.address, from.bytes, self.stream.cu_stream()) }
            .map_err(driver("cannot copy on the card"))
    }

    /// Host memory that copies quickly, of zeros.
    pub fn pinned(self: &Arc<Self>, bytes: usize) -> Result<Pinned> {
        self.bind()?;
        // SAFETY: freed by `Pinned`, and filled before anybody reads it.
        let memory =
            unsafe { result::malloc_host(bytes.max(1), 0) }.map_err(driver("no memory to copy through"))?;
        // SAFETY: just allocated with this size.
        unsafe { memory.cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned { _device: self.clone(), memory: memory.cast(), bytes })
    }

    /// Loads machine code, or PTX with a zero byte at its end, which the driver compiles.
    pub fn module(self: &Arc<Self>, code: &[u8], target: Target) -> Result<Module> {
        self.bind()?;
        // SAFETY: `code` is what NVRTC made for this card, whole; of PTX the zero byte is its end.
        let module = unsafe { result::module::load_data(code.as_ptr().cast()) };
        let module = module.map_err(driver("the card refuses a kernel"))?;
        Ok(Module { device: self.clone(), module, early: target.starts_early() })
    }

    /// Enqueues a kernel over `grid` of its blocks.
    pub fn launch(&self, kernel: &Kernel, grid: [usize; 2], arguments: &[Argument]) -> Result<()> {
        self.launch_as(kernel, grid, arguments, false)
    }

    /// As [`Device::launch`]; `early` is for a kernel that waits for the one ahead by itself (programmatic dependent
    /// launch): it may start before that one is through, if it was compiled for cards that can.
    pub fn launch_as(
        &self,
        kernel: &Kernel,
        grid: [usize; 2],
        arguments: &[Argument],
        early: bool,
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(Argument::pointer).collect();
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: grid[0] as u32,
            gridDimY: grid[1] as u32,
            gridDimZ: 1,
            blockDimX: kernel.threads as u32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: kernel.shared as u32,
            hStream: self.stream.cu_stream(),
            attrs: &raw mut attribute,
            numAttrs: u32::from(early && kernel.module.early),
        };
        // SAFETY: callers pass the arguments of the kernel's signature in their order; pointers and attribute live as long
        // as the call.
        let launched =
            unsafe { sys::cuLaunchKernelEx(&config, kernel.function, pointers.as_mut_ptr(), null_mut()) };
        launched.result().map_err(driver(&kernel.name))
    }

    /// Captures what `enqueue` enqueues instead of running it.
    pub fn capture(&self, enqueue: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let fail = driver("cannot capture a step");
        self.stream
            .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(&fail)?;
        let enqueued = enqueue();
        // Capturing must end whatever happened, or the stream stays unusable.
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0)).map_err(&fail);
        enqueued?;
        let graph = graph?.ok_or_else(|| failed("a step enqueues nothing".into()))?;
        graph.upload().map_err(&fail)?;
        Ok(Graph(graph))
    }

    /// Enqueues a mark in time.
    pub fn mark(&self) -> Result<Mark> {
        let event = self.stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT));
        event.map(Mark).map_err(driver("cannot take the time"))
    }
}

/// The last and the first priority that streams of work can have.
fn priorities(context: &CudaContext) -> Result<(i32, i32)> {
    let fail = driver("cannot use the card");
    context.bind_to_thread().map_err(&fail)?;
    result::stream::get_priority_range().map_err(&fail)
}

/// Brings `values` to the card in this precision.
pub fn upload(device: &Arc<Device>, precision: Precision, values: &[f32]) -> Result<Buffer> {
    match precision {
        Precision::F32 => device.upload(values),
        Precision::Auto | Precision::F16 | Precision::F8 => {
            let mut narrow = vec![f16::ZERO; values.len()];
            narrow.convert_from_f32_slice(values);
            device.upload(&narrow)
        }
        Precision::Bf16 => {
            let mut narrow = vec![bf16::ZERO; values.len()];
            narrow.convert_from_f32_slice(values);
            device.upload(&narrow)
        }
    }
}

/// A captured series of kernels.
pub struct Graph(CudaGraph);

// SAFETY: the backend that owns it uses it alone.
unsafe impl Send for Graph {}

impl Graph {
    /// Enqueues the whole series.
    pub fn launch(&self) -> Result<()> {
        self.0.launch().map_err(driver("cannot replay a step"))
    }
}

/// A moment in the stream of work.
pub struct Mark(CudaEvent);

impl Mark {
    /// Seconds up to a later mark; waits for it.
    pub fn until(&self, later: &Self) -> Result<f64> {
        self.0.elapsed_ms(&later.0).map(|ms| f64::from(ms) / 1e3).map_err(driver("cannot take the time"))
    }
}

/// Memory on a card.
pub struct Buffer {
    device: Arc<Device>,
    /// Address of its first byte on the card.
    pub address: u64,
    /// How many there are.
    pub bytes: usize,
}

/// Some bytes of a buffer that follow each other; what is copied or cleared stays inside it.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    address: u64,
    bytes: usize,
    buffer: PhantomData<&'a Buffer>,
}

impl Buffer {
    /// `bytes` bytes from `offset` on. Fails if the buffer doesn't hold them.
    pub fn part(&self, offset: usize, bytes: usize) -> Result<Part<'_>> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => {
                Ok(Part { address: self.address + offset as u64, bytes, buffer: PhantomData })
            }
            _ => Err(beyond(offset.saturating_add(bytes), self.bytes)),
        }
    }
}

impl<'a> From<&'a Buffer> for Part<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        Self { address: buffer.address, bytes: buffer.bytes, buffer: PhantomData }
    }
}

impl Part<'_> {
    /// Its first bytes. Fails if there are fewer.
    fn first(self, bytes: usize) -> Result<Self> {
        if bytes > self.bytes { Err(beyond(bytes, self.bytes)) } else { Ok(Self { bytes, ..self }) }
    }
}

/// The error of a copy that memory of `held` bytes doesn't hold.
fn beyond(bytes: usize, held: usize) -> Error {
    failed(format!("a copy reaches to byte {bytes} of memory that has {held}"))
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A kernel may still use it; freeing waits for the card.
        if self.device.bind().is_ok() {
            // SAFETY: allocated by `Device::buffer`, freed once.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// Host memory that the card copies without help.
pub struct Pinned {
    _device: Arc<Device>,
    memory: *mut u8,
    bytes: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: allocated with this size and initialised; nobody writes to it while it is borrowed.
        unsafe { std::slice::from_raw_parts(self.memory, self.bytes) }
    }

    /// Its bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated by `Device::pinned`, freed once.
        let _ = unsafe { result::free_host(self.memory.cast()) };
    }
}

/// Loaded machine code.
pub struct Module {
    device: Arc<Device>,
    module: sys::CUmodule,
    /// Its kernels wait for the one ahead by themselves where they are to.
    early: bool,
}

// SAFETY: a module's handle belongs to no thread.
unsafe impl Send for Module {}
// SAFETY: as above, and nothing changes it.
unsafe impl Sync for Module {}

impl Module {
    /// The kernel `name`, which runs in such blocks.
    pub fn kernel(self: &Arc<Self>, name: &str, block: Block) -> Result<Kernel> {
        let Block { threads, shared } = block;
        self.device.bind()?;
        let fail = driver(name);
        let title = CString::new(name).map_err(|_| failed(format!("{name:?} is no name")))?;
        // SAFETY: the module is loaded for as long as the kernel lives.
        let function = unsafe { result::module::get_function(self.module, title) }.map_err(&fail)?;
        if shared > 48 << 10 {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just found.
            unsafe { result::function::set_function_attribute(function, attribute, shared as i32) }
                .map_err(&fail)?;
        }
        Ok(Kernel { module: self.clone(), function, threads, shared, name: name.to_owned() })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: loaded by `Device::module`, unloaded once; its kernels hold on to it.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

/// A kernel that can be launched, and the blocks that it runs in.
pub struct Kernel {
    module: Arc<Module>,
    function: sys::CUfunction,
    threads: usize,
    shared: usize,
    name: String,
}

// SAFETY: a function's handle belongs to no thread.
unsafe impl Send for Kernel {}
// SAFETY: as above, and nothing changes it once it is made.
unsafe impl Sync for Kernel {}

impl Kernel {
    /// The same as one of a row of kernels that start early.
    pub fn early(self) -> Result<Self> {
        // Until the kernel ahead has the same split of its memory, none starts early.
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        let most = sys::CUshared_carveout_enum::CU_SHAREDMEM_CARVEOUT_MAX_SHARED as i32;
        // SAFETY: the module that the function is of is loaded for as long as this lives.
        unsafe { result::function::set_function_attribute(self.function, attribute, most) }
            .map_err(driver(&self.name))?;
        Ok(self)
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// An address on the card.
    Address(u64),
    /// An `int`.
    Int(i32),
    /// A `float`.
    Float(f32),
}

impl Argument {
    fn pointer(&self) -> *mut c_void {
        match self {
            Self::Address(address) => (&raw const *address).cast_mut().cast(),
            Self::Int(value) => (&raw const *value).cast_mut().cast(),
            Self::Float(value) => (&raw const *value).cast_mut().cast(),
        }
    }
}

impl From<&Buffer> for Argument {
    fn from(buffer: &Buffer) -> Self {
        Self::Address(buffer.address)
    }
}

impl From<u64> for Argument {
    fn from(address: u64) -> Self {
        Self::Address(address)
    }
}

impl From<usize> for Argument {
    fn from(value: usize) -> Self {
        Self::Int(value as i32)
    }
}
