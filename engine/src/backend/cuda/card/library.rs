// SPDX-License-Identifier: MPL-2.0
//! NVRTC and cuBLASLt, opened at run time: whichever of CUDA 12 and 13 is installed.
//!
//! cudarc opens libraries by the names of the version that it was built for, and panics where one is missing; these two
//! differ between installations, so the few functions that are called are looked up here. Statuses and handles are plain
//! numbers and pointers: a newer library may have values that an enumeration doesn't know.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use libloading::Library;

use super::target::Target;
use crate::backend::Precision;
use crate::backend::cuda::failed;
use crate::error::Result;

/// Where a toolkit that isn't on the loader's path usually is.
const TOOLKIT: &str = "/usr/local/cuda/lib64/";

/// Names of `library` from the newest known version to any, each as the loader finds it and in [`TOOLKIT`].
fn names(library: &str) -> Vec<String> {
    if cfg!(windows) {
        let numbers: &[&str] = if library == "nvrtc" { &["130_0", "120_0"] } else { &["13", "12"] };
        return numbers.iter().map(|number| format!("{library}64_{number}.dll")).collect();
    }
    let plain = [".so.13", ".so.12", ".so"].map(|ending| format!("lib{library}{ending}"));
    plain.iter().cloned().chain(plain.iter().map(|name| format!("{TOOLKIT}{name}"))).collect()
}

fn open(library: &str) -> Result<Library, String> {
    let names = names(library);
    // SAFETY: loading runs the initialisers of NVIDIA's libraries, which ask nothing of the caller.
    let found = names.iter().find_map(|name| unsafe { Library::new(name) }.ok());
    found.ok_or_else(|| format!("{} of CUDA 12 or 13 is not installed ({})", names[0], names.join(", ")))
}

/// Declares a library's functions and looks them all up at once.
macro_rules! library {
    ($(#[$doc:meta])* $type:ident, $name:literal, $($function:ident ($symbol:literal): fn($($argument:ty),*) -> $result:ty;)+) => {
        $(#[$doc])*
        pub struct $type {
            $($function: unsafe extern "C" fn($($argument),*) -> $result,)+
            _library: Library,
        }

        impl $type {
            /// The library, opened by the first who asks.
            pub fn get() -> Result<&'static Self> {
                static OPENED: OnceLock<Result<$type, String>> = OnceLock::new();
                OPENED.get_or_init(Self::open).as_ref().map_err(|reason| failed(reason.clone()))
            }

            fn open() -> Result<Self, String> {
                let library = open($name)?;
                // SAFETY: the types are those of the library's documentation.
                unsafe {
                    $(let $function = *library
                        .get::<unsafe extern "C" fn($($argument),*) -> $result>($symbol.as_bytes())
                        .map_err(|_| format!("{} lacks {}: it is too old", $name, $symbol))?;)+
                    Ok(Self { $($function,)+ _library: library })
                }
            }
        }
    };
}

library! {
    /// The run-time compiler (<https://docs.nvidia.com/cuda/nvrtc>).
    Nvrtc, "nvrtc",
    version("nvrtcVersion"): fn(*mut c_int, *mut c_int) -> c_int;
    create("nvrtcCreateProgram"): fn(*mut *mut c_void, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int;
    compile("nvrtcCompileProgram"): fn(*mut c_void, c_int, *const *const c_char) -> c_int;
    cubin_size("nvrtcGetCUBINSize"): fn(*mut c_void, *mut usize) -> c_int;
    cubin("nvrtcGetCUBIN"): fn(*mut c_void, *mut c_char) -> c_int;
    ptx_size("nvrtcGetPTXSize"): fn(*mut c_void, *mut usize) -> c_int;
    ptx("nvrtcGetPTX"): fn(*mut c_void, *mut c_char) -> c_int;
    architecture_count("nvrtcGetNumSupportedArchs"): fn(*mut c_int) -> c_int;
    all_architectures("nvrtcGetSupportedArchs"): fn(*mut c_int) -> c_int;
    log_size("nvrtcGetProgramLogSize"): fn(*mut c_void, *mut usize) -> c_int;
    log("nvrtcGetProgramLog"): fn(*mut c_void, *mut c_char) -> c_int;
    destroy("nvrtcDestroyProgram"): fn(*mut *mut c_void) -> c_int;
    describe("nvrtcGetErrorString"): fn(c_int) -> *const c_char;
}

library! {
    /// Matrix products (<https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api>).
    CublasLt, "cublasLt",
    create("cublasLtCreate"): fn(*mut *mut c_void) -> c_int;
    destroy("cublasLtDestroy"): fn(*mut c_void) -> c_int;
    description_create("cublasLtMatmulDescCreate"): fn(*mut *mut c_void, c_int, c_int) -> c_int;
    description_destroy("cublasLtMatmulDescDestroy"): fn(*mut c_void) -> c_int;
    description_set("cublasLtMatmulDescSetAttribute"): fn(*mut c_void, c_int, *const c_void, usize) -> c_int;
    layout_create("cublasLtMatrixLayoutCreate"): fn(*mut *mut c_void, c_int, u64, u64, i64) -> c_int;
    layout_destroy("cublasLtMatrixLayoutDestroy"): fn(*mut c_void) -> c_int;
    preference_create("cublasLtMatmulPreferenceCreate"): fn(*mut *mut c_void) -> c_int;
    preference_destroy("cublasLtMatmulPreferenceDestroy"): fn(*mut c_void) -> c_int;
    preference_set("cublasLtMatmulPreferenceSetAttribute"): fn(*mut c_void, c_int, *const c_void, usize) -> c_int;
    heuristic("cublasLtMatmulAlgoGetHeuristic"): fn(*mut c_void, *mut c_void, *mut c_void, *mut c_void, *mut c_void, *mut c_void, *mut c_void, c_int, *mut Found, *mut c_int) -> c_int;
    matmul("cublasLtMatmul"): fn(*mut c_void, *mut c_void, *const c_void, *const c_void, *mut c_void, *const c_void, *mut c_void, *const c_void, *const c_void, *mut c_void, *mut c_void, *mut c_void, *const Algorithm, *mut c_void, usize, *mut c_void) -> c_int;
}

impl Nvrtc {
    /// Major and minor version.
    pub fn version(&self) -> (i32, i32) {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are to live integers.
        unsafe { (self.version)(&mut major, &mut minor) };
        (major, minor)
    }

    /// Numbers of the architectures that it compiles for: 90 is that of compute capability 9.0.
    pub fn architectures(&self) -> Vec<i32> {
        let mut count = 0;
        // SAFETY: the pointer is to a live integer.
        unsafe { (self.architecture_count)(&mut count) };
        let mut known = vec![0; count.max(0) as usize];
        // SAFETY: there is room for as many as the compiler has just said.
        unsafe { (self.all_architectures)(known.as_mut_ptr()) };
        known
    }

    /// Machine code of `source`, called `name` in messages, or PTX that ends with a zero byte. Fails with the compiler's log.
    pub fn compile(&self, source: &str, name: &str, target: Target, options: &[String]) -> Result<Vec<u8>> {
        self.compile_with_log(source, name, target, options).map(|(code, _)| code)
    }

    /// As [`Nvrtc::compile`], with the compiler's log.
    pub fn compile_with_log(
        &self,
        source: &str,
        name: &str,
        target: Target,
        options: &[String],
    ) -> Result<(Vec<u8>, String)> {
        let text = |text: &str| CString::new(text).map_err(|_| failed(format!("{name} has a zero byte")));
        let (source, title) = (text(source)?, text(name)?);
        let own = target.option();
        let options =
            [&own].into_iter().chain(options).map(|option| text(option)).collect::<Result<Vec<_>>>()?;
        let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program = null_mut();
        let check = |status: c_int, what: &str| {
            if status == 0 {
                return Ok(());
            }
            // SAFETY: NVRTC gives a static string for any status.
            let reason = unsafe { CStr::from_ptr((self.describe)(status)) };
            Err(failed(format!("NVRTC cannot {what} {name}: {}", reason.to_string_lossy())))
        };
        // SAFETY: the strings outlive the call; there are no headers.
        let status = unsafe {
            (self.create)(&mut program, source.as_ptr(), title.as_ptr(), 0, null_mut(), null_mut())
        };
        check(status, "take")?;
        // SAFETY: `program` lives until it is destroyed below, buffers have the sizes that NVRTC gave.
        let result = unsafe {
            let status = (self.compile)(program, options.len() as c_int, options.as_ptr());
            let mut size = 0;
            (self.log_size)(program, &mut size);
            let mut log = vec![0_u8; size + 1];
            (self.log)(program, log.as_mut_ptr().cast());
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_end_matches('\0').trim();
            if status != 0 {
                Err(failed(format!("NVRTC cannot compile {name}: {log}")))
            } else {
                let (code_size, code) = match target {
                    Target::Code(_) => (self.cubin_size, self.cubin),
                    Target::Ptx(_) => (self.ptx_size, self.ptx),
                };
                let mut size = 0;
                check(code_size(program, &mut size), "give").and_then(|()| {
                    let mut bytes = vec![0_u8; size];
                    check(code(program, bytes.as_mut_ptr().cast()), "give").map(|()| (bytes, log.to_owned()))
                })
            }
        };
        // SAFETY: made above, destroyed once.
        unsafe { (self.destroy)(&mut program) };
        result
    }
}

/// `cublasLtMatmulAlgo_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Algorithm([u64; 8]);

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    algorithm: Algorithm,
    workspace: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

/// `cudaDataType_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    F32 = 0,
    F16 = 2,
    Bf16 = 14,
    /// 8 bits: 4 of exponent, 3 of mantissa.
    E4m3 = 28,
}

impl Type {
    /// Of values in this precision; products may be in fewer bits.
    pub fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Auto | Precision::F16 | Precision::F8 => Self::F16,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

/// What `y = epilogue(alpha x w^T + beta y + bias)` looks like in memory: `x` is `[rows, inputs]` with `x_stride` values a
/// row, `w` `[outputs, inputs]`, `y` `[rows, outputs]` with `y_stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    pub rows: usize,
    pub outputs: usize,
    pub inputs: usize,
    pub x_stride: usize,
    pub y_stride: usize,
    /// Of `x` and `w`; in 8 bits each row of either has a scale.
    pub operands: Type,
    /// Of `y` and the bias.
    pub result: Type,
    /// A bias is added, one value an output.
    pub bias: bool,
    /// Negative results become 0.
    pub relu: bool,
    /// `y` is added to.
    pub add: bool,
}

/// A product that cuBLASLt is ready to run.
pub struct Plan {
    library: &'static CublasLt,
    handle: *mut c_void,
    description: *mut c_void,
    /// The operands have scales.
    scaled: bool,
    layouts: [*mut c_void; 3],
    /// What the heuristic proposes.
    found: Found,
}

/// The library's context on one device. It must be used by one thread at a time.
pub struct Handle {
    library: &'static CublasLt,
    handle: *mut c_void,
}

// SAFETY: a cuBLASLt handle belongs to no thread; whoever owns it uses it alone.
unsafe impl Send for Handle {}
// SAFETY: as for `Handle`; descriptors and layouts are plain memory.
unsafe impl Send for Plan {}

const COMPUTE_F32: c_int = 68;
const SCALE_F32: c_int = 0;
const DESCRIPTION_TRANSPOSE_A: c_int = 3;
const DESCRIPTION_EPILOGUE: c_int = 7;
const DESCRIPTION_BIAS: c_int = 8;
const DESCRIPTION_SCALES: [c_int; 2] = [17, 18];
const DESCRIPTION_FAST_SUMS: c_int = 25;
const DESCRIPTION_BIAS_TYPE: c_int = 26;
const DESCRIPTION_SCALE_MODES: [c_int; 2] = [31, 32];
/// `CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F`: a float for each row of an operand as it lies in memory.
const SCALE_ROWS: c_int = 3;
const PREFERENCE_WORKSPACE: c_int = 1;
const PREFERENCE_REDUCTION: c_int = 3;
const EPILOGUE_PLAIN: c_int = 1;
const EPILOGUE_RELU: c_int = 2;
const EPILOGUE_BIAS: c_int = 4;
const EPILOGUE_RELU_BIAS: c_int = 6;

fn check(status: c_int, what: &str) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(failed(format!("cuBLASLt cannot {what}: status {status}"))) }
}

impl Handle {
    /// On the current context.
    pub fn new() -> Result<Self> {
        let library = CublasLt::get()?;
        let mut handle = null_mut();
        // SAFETY: writes the handle.
        check(unsafe { (library.create)(&mut handle) }, "start")?;
        Ok(Self { library, handle })
    }

    /// Asks for the best algorithm within a workspace of `workspace` bytes; without `split` only among those that add up
    /// each value in one place, so that a result doesn't depend on how the work was cut. The library only looks at how the
    /// operands are aligned.
    pub fn plan(&self, product: &Product, operands: Operands, workspace: usize, split: bool) -> Result<Plan> {
        let library = self.library;
        let mut plan = Plan {
            library,
            handle: self.handle,
            description: null_mut(),
            scaled: false,
            layouts: [null_mut(); 3],
            found: Found::default(),
        };
        let (rows, outputs, inputs) = (product.rows as u64, product.outputs as u64, product.inputs as u64);
        let epilogue = match (product.bias, product.relu) {
            (false, false) => EPILOGUE_PLAIN,
            (false, true) => EPILOGUE_RELU,
            (true, false) => EPILOGUE_BIAS,
            (true, true) => EPILOGUE_RELU_BIAS,
        };
        let (transpose, reduction, mut count) = (1_i32, if split { 7_u32 } else { 0 }, 0);
        let (bias_type, by_row, fast) = (product.result as c_int, SCALE_ROWS, 1_i8);
        // Row-major operands are their transposes to the library: it computes y^T = w x^T.
        // SAFETY: each call writes or reads live values of the size given; what it makes is destroyed with the plan, and
        // the preference here.
        unsafe {
            check((library.description_create)(&mut plan.description, COMPUTE_F32, SCALE_F32), "describe")?;
            let set = |attribute, value: *const c_void, size| {
                check(
                    (library.description_set)(plan.description, attribute, value, size),
                    "describe a product",
                )
            };
            set(DESCRIPTION_TRANSPOSE_A, (&raw const transpose).cast(), 4)?;
            set(DESCRIPTION_EPILOGUE, (&raw const epilogue).cast(), 4)?;
            if product.bias {
                set(DESCRIPTION_BIAS_TYPE, (&raw const bias_type).cast(), 4)?;
            }
            if product.operands == Type::E4m3 {
                for mode in DESCRIPTION_SCALE_MODES {
                    set(mode, (&raw const by_row).cast(), 4)?;
                }
                set(DESCRIPTION_FAST_SUMS, (&raw const fast).cast(), 1)?;
                plan.scaled = true;
            }
            plan.bind(&operands);
            let shapes = [
                (product.operands, inputs, outputs, product.inputs),
                (product.operands, inputs, rows, product.x_stride),
                (product.result, outputs, rows, product.y_stride),
            ];
            for (layout, (kind, height, width, stride)) in plan.layouts.iter_mut().zip(shapes) {
                let status = (library.layout_create)(layout, kind as c_int, height, width, stride as i64);
                check(status, "lay out a matrix")?;
            }
            let mut preference = null_mut();
            check((library.preference_create)(&mut preference), "prefer")?;
            let prefer = |attribute, value: *const c_void, size| {
                (library.preference_set)(preference, attribute, value, size);
            };
            prefer(PREFERENCE_WORKSPACE, (&raw const workspace).cast(), 8);
            prefer(PREFERENCE_REDUCTION, (&raw const reduction).cast(), 4);
            let [a, b, c] = plan.layouts;
            let status = (library.heuristic)(
                self.handle,
                plan.description,
                a,
                b,
                c,
                c,
                preference,
                1,
                &raw mut plan.found,
                &mut count,
            );
            (library.preference_destroy)(preference);
            check(status, &format!("find a way for {product:?}"))?;
        }
        if count == 0 || plan.found.state != 0 {
            return Err(failed(format!("cuBLASLt has no way for {product:?}")));
        }
        Ok(plan)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once; plans that outlive it only free their own memory.
        unsafe { (self.library.destroy)(self.handle) };
    }
}

/// Device addresses of a product's operands.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    pub x: u64,
    pub w: u64,
    /// Of the rows of `w` and of those of `x`, ignored by a plan without.
    pub scales: [u64; 2],
    /// Ignored by a plan without bias.
    pub bias: u64,
    pub y: u64,
}

impl Plan {
    /// Says where bias and scales are.
    fn bind(&self, operands: &Operands) {
        let set = |attribute, address: &u64| {
            // SAFETY: reads 8 bytes of a live value; the descriptor is the plan's own.
            unsafe {
                (self.library.description_set)(self.description, attribute, (&raw const *address).cast(), 8)
            };
        };
        set(DESCRIPTION_BIAS, &operands.bias);
        if self.scaled {
            for (attribute, address) in DESCRIPTION_SCALES.into_iter().zip(&operands.scales) {
                set(attribute, address);
            }
        }
    }

    /// Enqueues `y = epilogue(alpha x w^T + beta y + bias)` on `stream`. The operands must have the plan's sizes.
    pub fn run(
        &self,
        operands: Operands,
        [alpha, beta]: [f32; 2],
        workspace: (u64, usize),
        stream: *mut c_void,
    ) -> Result<()> {
        let Operands { x, w, y, .. } = operands;
        self.bind(&operands);
        let [a, b, c] = self.layouts;
        // SAFETY: descriptor, layouts and algorithm are the plan's own; the addresses are of device memory that the
        // caller sized for the plan; `stream` belongs to the handle's context.
        let status = unsafe {
            (self.library.matmul)(
                self.handle,
                self.description,
                (&raw const alpha).cast(),
                w as *const c_void,
                a,
                x as *const c_void,
                b,
                (&raw const beta).cast(),
                y as *const c_void,
                c,
                y as *mut c_void,
                c,
                &raw const self.found.algorithm,
                workspace.0 as *mut c_void,
                workspace.1,
                stream,
            )
        };
        check(status, "multiply")
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: made by `Handle::plan`, destroyed once; null where that failed half way, which these ignore.
        unsafe {
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                (self.library.layout_destroy)(layout);
            }
            if !self.description.is_null() {
                (self.library.description_destroy)(self.description);
            }
        }
    }
}
