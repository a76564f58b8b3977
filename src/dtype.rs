//! Element types of parameters, gradients and state.

pub use half::{bf16, f16};

/// The type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum DType {
    /// 32-bit IEEE 754 floating point.
    F32 = 1,
    /// 64-bit IEEE 754 floating point.
    F64 = 2,
    /// The upper half of a 32-bit number: 8 bits of exponent, 7 of fraction.
    Bf16 = 3,
    /// 16-bit IEEE 754 floating point: 5 bits of exponent, 10 of fraction.
    F16 = 4,
    /// State only: 8 bits an element, floating point, and a common exponent for 256 of them.
    Q8 = 5,
}

impl DType {
    /// Every element type.
    pub const ALL: [DType; 5] = [DType::F32, DType::F64, DType::Bf16, DType::F16, DType::Q8];

    /// Bytes of one element, which is also its alignment.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F64 => 8,
            DType::Bf16 | DType::F16 => 2,
            DType::Q8 => 1,
        }
    }

    /// Lower-case name: `f32`, `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::Q8 => "q8",
        }
    }

    /// The type of that code.
    ///
    /// # Errors
    /// [`Error::UnknownDType`](crate::Error::UnknownDType), which lists what there is.
    pub fn from_code(code: i32) -> Result<DType, crate::Error> {
        let found = DType::ALL.into_iter().find(|dtype| *dtype as i32 == code);
        found.ok_or(crate::Error::UnknownDType { dtype: code })
    }

    /// The type that lane functions compute in for parameters of this one.
    pub(crate) const fn working(self) -> DType {
        match self {
            DType::F64 => DType::F64,
            _ => DType::F32,
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}

/// A Rust type that a tensor can hold: `f32`, `f64`, [`bf16`] or [`f16`].
///
/// Every bit pattern is a value and zero is all bits 0, which state memory relies on.
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The type's name among [`DType`]s.
    const DTYPE: DType;
    /// Rounded once, to nearest, from `f64`.
    fn from_f64(x: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
}

macro_rules! element {
    ($ty:ty, $dtype:ident, $from:expr, $to:expr) => {
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                $from(x)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                $to(self)
            }
        }
    };
}

element!(f32, F32, |x| x as f32, |x| x as f64);
element!(f64, F64, |x| x, |x| x);
element!(bf16, Bf16, bf16::from_f64, bf16::to_f64);
element!(f16, F16, f16::from_f64, f16::to_f64);
