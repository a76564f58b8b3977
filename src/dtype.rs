//! Element types of parameters, gradients and state.

pub use half::{bf16, f16};

/// The type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)] // of which steps copy many
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
    #[inline]
    pub fn from_code(code: i32) -> Result<DType, crate::Error> {
        let found = DType::ALL.into_iter().find(|dtype| *dtype as i32 == code);
        // Not `ok_or`: a step asks this of every tensor, and making and dropping the error takes longer.
        let Some(dtype) = found else {
            return Err(crate::Error::UnknownDType { dtype: code });
        };
        Ok(dtype)
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

/// A Rust type that a tensor can hold: `f32`, `f64`, [`bf16`] or [`f16`](struct@f16).
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
element!(bf16, Bf16, |x| bf16::from_f32_const(to_odd(x)), bf16::to_f64);
element!(f16, F16, |x| f16::from_f32_const(to_odd(x)), f16::to_f64);

/// Rounded to odd: what is lost stays visible in the last bit, so that rounding once more, to a shorter
/// type, is as rounding once. (The `from_f64` of `half` rounds twice on some processors and not on
/// others.)
fn to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    let back = f64::from(nearest);
    if back == x || !nearest.is_finite() {
        return nearest;
    }
    let towards_zero = nearest.to_bits() - u32::from(back.abs() > x.abs());
    f32::from_bits(towards_zero | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_round_once() {
        // Just beside the middle of two neighbours, which f32 cannot tell from the middle.
        for (middle, below, above) in [
            (1.0 + 0.5f64.powi(11), 1.0, 1.0 + 0.5f64.powi(10)),
            (1.0 + 3.0 * 0.5f64.powi(11), 1.0 + 0.5f64.powi(10), 1.0 + 0.5f64.powi(9)),
        ] {
            for sign in [1.0, -1.0] {
                let beside = |x: f64| <f16 as Element>::from_f64(sign * x).to_f64();
                assert_eq!(beside(middle * (1.0 - f64::EPSILON)), sign * below);
                assert_eq!(beside(middle * (1.0 + f64::EPSILON)), sign * above);
            }
        }
        let middle = 1.0 + 0.5f64.powi(8);
        let beside = |x: f64| <bf16 as Element>::from_f64(x).to_f64();
        assert_eq!(beside(middle), 1.0);
        assert_eq!(beside(middle * (1.0 + f64::EPSILON)), 1.0 + 0.5f64.powi(7));
        assert!(<f16 as Element>::from_f64(f64::NAN).is_nan());
        assert_eq!(<bf16 as Element>::from_f64(f64::MAX), bf16::INFINITY);
    }
}
