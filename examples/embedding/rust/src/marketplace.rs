//! A safe little wrapper over the C interface: handles that free themselves, slices, `Result`.
//! It has what the example needs; `marketplace.h` has the rest.
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::raw::c_char;
use std::ptr;

mod ffi {
    use super::*;

    #[repr(C)]
    pub struct Market {
        _private: [u8; 0],
    }
    #[repr(C)]
    pub struct Optimizer {
        _private: [u8; 0],
    }

    #[repr(C)]
    pub struct Tensor {
        pub data: *const std::ffi::c_void,
        pub device_type: i32,
        pub device_id: i32,
        pub ndim: i32,
        pub dtype_code: u8,
        pub dtype_bits: u8,
        pub dtype_lanes: u16,
        pub shape: *const i64,
        pub strides: *const i64,
        pub byte_offset: u64,
    }

    #[repr(C)]
    pub struct LinearOptions {
        pub size: usize,
        pub key: *const c_char,
        pub in_features: i64,
        pub out_features: i64,
        pub no_bias: i32,
        pub reserved: i32,
    }

    #[repr(C)]
    pub struct OptimizerOptions {
        pub size: usize,
        pub seed: u64,
        pub plan: i32,
        pub update: i32,
        pub shaping: i32,
        pub unit_vector_mode: i32,
        pub learning_rate: f32,
        pub probe_scale: f32,
        pub momentum: f32,
        pub antithetic: i32,
        pub control_variate: i32,
        pub use_ignore_index: i32,
        pub ignore_index: i32,
        pub reserved: i32,
    }

    #[link(name = "marketplace")]
    extern "C" {
        pub fn mp_last_error() -> *const c_char;
        pub fn mp_abi_version() -> i32;
        pub fn mp_market_create(market: *mut *mut Market) -> i32;
        pub fn mp_market_free(market: *mut Market) -> i32;
        pub fn mp_add_spec(market: *mut Market, vendors: i64, upstream_sampling: i64) -> i32;
        pub fn mp_linear(
            market: *mut Market,
            x: i32,
            options: *const LinearOptions,
            out: *mut i32,
        ) -> i32;
        pub fn mp_activation(market: *mut Market, x: i32, kind: i32, out: *mut i32) -> i32;
        pub fn mp_market_finish(market: *mut Market, options: *const std::ffi::c_void) -> i32;
        pub fn mp_market_initialize(market: *mut Market, seed: u64) -> i32;
        pub fn mp_market_save(market: *const Market, path: *const c_char, step: i64) -> i32;
        pub fn mp_infer(market: *mut Market, x: *const Tensor, out: *mut f32, count: i64) -> i32;
        pub fn mp_optimizer_create(
            market: *mut Market,
            options: *const OptimizerOptions,
            made: *mut *mut Optimizer,
        ) -> i32;
        pub fn mp_optimizer_free(optimizer: *mut Optimizer) -> i32;
        pub fn mp_path_count(optimizer: *mut Optimizer, batch: i64, count: *mut i64) -> i32;
        pub fn mp_probe(
            optimizer: *mut Optimizer,
            x: *const Tensor,
            labels: *const Tensor,
            losses: *mut f32,
            paths: *mut i32,
            count: *mut i64,
        ) -> i32;
        pub fn mp_step(
            optimizer: *mut Optimizer,
            losses: *const f32,
            paths: *const i32,
            count: i64,
            learning_rate: f32,
            degenerate: *mut i32,
        ) -> i32;
    }
}

/// The engine's own words: "op: expected ..., received ...".
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

type Result<T> = std::result::Result<T, Error>;

fn check(status: i32) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the text is the library's, ends in a zero and is copied before the next call.
    Err(Error(unsafe { CStr::from_ptr(ffi::mp_last_error()) }.to_string_lossy().into_owned()))
}

/// What elements a tensor may have: DLPack's code and bits.
pub trait Element {
    const CODE: u8;
    const BITS: u8;
}
impl Element for f32 {
    const CODE: u8 = 2;
    const BITS: u8 = 32;
}
impl Element for i32 {
    const CODE: u8 = 0;
    const BITS: u8 = 32;
}

fn tensor<T: Element>(data: &[T], shape: &[i64]) -> ffi::Tensor {
    assert_eq!(shape.iter().product::<i64>(), data.len() as i64, "a shape that fits the data");
    ffi::Tensor {
        data: data.as_ptr().cast(),
        device_type: 1,
        device_id: 0,
        ndim: shape.len() as i32,
        dtype_code: T::CODE,
        dtype_bits: T::BITS,
        dtype_lanes: 1,
        shape: shape.as_ptr(),
        strides: ptr::null(),
        byte_offset: 0,
    }
}

/// A market of dense layers, while it is being built.
pub struct Builder {
    handle: *mut ffi::Market,
    specs: usize,
}

impl Builder {
    pub fn new() -> Result<Self> {
        // SAFETY: the version tells whether the declarations above are the library's.
        assert_eq!(unsafe { ffi::mp_abi_version() }, 1, "version of the C interface");
        let mut market = ptr::null_mut();
        check(unsafe { ffi::mp_market_create(&mut market) })?;
        Ok(Builder { handle: market, specs: 0 })
    }

    pub fn spec(mut self, vendors: i64) -> Result<Self> {
        check(unsafe { ffi::mp_add_spec(self.handle, vendors, 0) })?;
        self.specs += 1;
        Ok(self)
    }

    pub fn linear(self, x: &mut i32, inputs: i64, outputs: i64) -> Result<Self> {
        let options = ffi::LinearOptions {
            size: std::mem::size_of::<ffi::LinearOptions>(),
            key: ptr::null(),
            in_features: inputs,
            out_features: outputs,
            no_bias: 0,
            reserved: 0,
        };
        check(unsafe { ffi::mp_linear(self.handle, *x, &options, x) })?;
        Ok(self)
    }

    pub fn relu(self, x: &mut i32) -> Result<Self> {
        check(unsafe { ffi::mp_activation(self.handle, *x, 0, x) })?;
        Ok(self)
    }

    pub fn finish(mut self, seed: u64) -> Result<Market> {
        check(unsafe { ffi::mp_market_finish(self.handle, ptr::null()) })?;
        check(unsafe { ffi::mp_market_initialize(self.handle, seed) })?;
        let handle = std::mem::replace(&mut self.handle, ptr::null_mut());
        Ok(Market { handle, specs: self.specs })
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        unsafe { ffi::mp_market_free(self.handle) };
    }
}

/// A finished market. Its raw handle keeps it from being shared among threads.
pub struct Market {
    handle: *mut ffi::Market,
    specs: usize,
}

impl Market {
    /// `x (B, inputs)` to `(B, outputs)`.
    pub fn infer(&mut self, x: &[f32], shape: &[i64], outputs: usize) -> Result<Vec<f32>> {
        let mut out = vec![0.0; shape[0] as usize * outputs];
        let x = tensor(x, shape);
        check(unsafe { ffi::mp_infer(self.handle, &x, out.as_mut_ptr(), out.len() as i64) })?;
        Ok(out)
    }

    pub fn save(&self, path: &str, step: i64) -> Result<()> {
        let path = CString::new(path).map_err(|error| Error(error.to_string()))?;
        check(unsafe { ffi::mp_market_save(self.handle, path.as_ptr(), step) })
    }

    /// Node perturbation with Adam, the plan's default.
    pub fn optimizer(&mut self, learning_rate: f32, seed: u64) -> Result<Optimizer<'_>> {
        let options = ffi::OptimizerOptions {
            size: std::mem::size_of::<ffi::OptimizerOptions>(),
            seed,
            plan: 3,
            update: 0,
            shaping: 0,
            unit_vector_mode: 0,
            learning_rate,
            probe_scale: 0.0,
            momentum: 0.0,
            antithetic: 0,
            control_variate: 0,
            use_ignore_index: 0,
            ignore_index: 0,
            reserved: 0,
        };
        let mut made = ptr::null_mut();
        check(unsafe { ffi::mp_optimizer_create(self.handle, &options, &mut made) })?;
        Ok(Optimizer { handle: made, market: self })
    }
}

impl Drop for Market {
    fn drop(&mut self) {
        unsafe { ffi::mp_market_free(self.handle) };
    }
}

/// Borrows the market that it trains, so nobody else can use it meanwhile.
pub struct Optimizer<'a> {
    handle: *mut ffi::Optimizer,
    market: &'a mut Market,
}

impl Optimizer<'_> {
    /// The market between two steps.
    pub fn market(&mut self) -> &mut Market {
        self.market
    }

    /// Probes a batch `x (B, inputs)` with labels `y (B,)`, then steps; gives the losses.
    pub fn train_step(
        &mut self,
        x: &[f32],
        shape: &[i64],
        y: &[i32],
        rate: f32,
    ) -> Result<Vec<f32>> {
        let labels_shape = [y.len() as i64];
        let (x, y) = (tensor(x, shape), tensor(y, &labels_shape));
        let mut count = 0;
        check(unsafe { ffi::mp_path_count(self.handle, labels_shape[0], &mut count) })?;
        let mut losses = vec![0.0; count as usize];
        let mut paths = vec![0; count as usize * self.market.specs];
        check(unsafe {
            ffi::mp_probe(self.handle, &x, &y, losses.as_mut_ptr(), paths.as_mut_ptr(), &mut count)
        })?;
        check(unsafe {
            ffi::mp_step(self.handle, losses.as_ptr(), paths.as_ptr(), count, rate, ptr::null_mut())
        })?;
        losses.truncate(count as usize);
        Ok(losses)
    }
}

impl Drop for Optimizer<'_> {
    fn drop(&mut self) {
        unsafe { ffi::mp_optimizer_free(self.handle) };
    }
}
