//! Instruction sets: detected once, named, and carried as proof that they are there.

use crate::error::Error;
use pulp::{Simd, WithSimd};

/// An instruction set that the kernels are compiled for.
///
/// All of them compute the same bits; they differ in speed only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Isa {
    /// Plain Rust. Slow where the target has no fused multiply-add in its baseline.
    Scalar = 1,
    /// x86-64 AVX2 with FMA.
    Avx2 = 2,
    /// x86-64 AVX-512 F, BW, CD, DQ, VL.
    Avx512 = 3,
    /// AArch64 NEON.
    Neon = 4,
}

/// Environment variable that forces an instruction set by its [`Isa::name`].
pub const ISA_ENV: &str = "DADAPT_ISA";

impl Isa {
    /// Every instruction set, on this machine or not.
    pub const ALL: [Isa; 4] = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Neon];

    /// `scalar`, `avx2`, `avx512` or `neon`.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
        }
    }

    /// The instruction set of that [`name`](Isa::name).
    ///
    /// # Errors
    /// [`Error::UnknownIsa`], which lists the names there are.
    pub fn from_name(name: &str) -> Result<Isa, Error> {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| Error::UnknownIsa { name: name.into() })
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        self.token().is_some()
    }

    /// The widest that this machine has.
    pub fn detect() -> Isa {
        match pulp::Arch::new() {
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V4(_) => Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V3(_) => Isa::Avx2,
            #[cfg(target_arch = "aarch64")]
            pulp::Arch::Neon(_) => Isa::Neon,
            _ => Isa::Scalar,
        }
    }

    /// The one that `DADAPT_ISA` names, else the widest that this machine has.
    ///
    /// # Errors
    /// [`Error::UnknownIsa`] or [`Error::IsaUnavailable`]: a forced instruction set is never
    /// replaced by another.
    pub fn from_env() -> Result<Isa, Error> {
        match std::env::var_os(ISA_ENV) {
            Some(name) if !name.is_empty() => {
                let isa = Isa::from_name(&name.to_string_lossy())?;
                isa.require()?;
                Ok(isa)
            }
            _ => Ok(Isa::detect()),
        }
    }

    pub(crate) fn require(self) -> Result<Token, Error> {
        self.token().ok_or(Error::IsaUnavailable { isa: self, best: Isa::detect() })
    }

    fn token(self) -> Option<Token> {
        match self {
            Isa::Scalar => Some(Token::Scalar(pulp::Scalar::new())),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => pulp::x86::V3::try_new().map(Token::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => pulp::x86::V4::try_new().map(Token::Avx512),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => pulp::aarch64::Neon::try_new().map(Token::Neon),
            #[allow(unreachable_patterns)] // which arms are left depends on the target
            _ => None,
        }
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// pulp's proof that the instruction set was detected on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token {
    Scalar(pulp::Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
}

impl Token {
    pub(crate) fn isa(self) -> Isa {
        match self {
            Token::Scalar(_) => Isa::Scalar,
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(_) => Isa::Avx512,
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => Isa::Neon,
        }
    }

    /// Runs `op` compiled for this instruction set, which is not the scalar one.
    #[inline(always)]
    #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(unused_variables))]
    pub(crate) fn dispatch_wide<Op: WithSimd>(self, op: Op) -> Op::Output {
        match self {
            Token::Scalar(_) => unreachable!("what is compiled for registers of many elements"),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(simd) => Simd::vectorize(simd, op),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(simd) => Simd::vectorize(simd, op),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(simd) => Simd::vectorize(simd, op),
        }
    }

    /// Runs `op` compiled for this instruction set.
    #[inline(always)]
    pub(crate) fn dispatch<Op: WithSimd>(self, op: Op) -> Op::Output {
        match self {
            Token::Scalar(simd) => Simd::vectorize(simd, op),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(simd) => Simd::vectorize(simd, op),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(simd) => Simd::vectorize(simd, op),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(simd) => Simd::vectorize(simd, op),
        }
    }
}
