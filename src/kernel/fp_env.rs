//! The floating-point environment of a step: round to nearest, no flushing, traps masked.
//!
//! A program linked with `-ffast-math` starts with subnormals flushed to zero, and one may round
//! upwards or unmask traps. The promised bits must not depend on that, and Rust assumes the
//! default environment, so a step sets it and puts the caller's back.

use std::marker::PhantomData;

/// The caller's environment, put back on drop (which also hides the flags that a step raises).
///
/// Stays on its thread, whose environment it holds.
#[doc(hidden)] // for the C ABI, whose other calls compare floats too
pub struct FpEnv {
    thread: PhantomData<*const ()>,
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    saved: Control,
}

#[cfg(target_arch = "x86_64")]
type Control = u32;
#[cfg(target_arch = "aarch64")]
type Control = (u64, u64);

impl FpEnv {
    /// Saves the environment and sets the default one.
    #[inline]
    pub fn set_default() -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        {
            let saved = read();
            write(DEFAULT);
            FpEnv { thread: PhantomData, saved }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        FpEnv { thread: PhantomData }
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl Drop for FpEnv {
    #[inline]
    fn drop(&mut self) {
        write(self.saved);
    }
}

/// All traps masked, round to nearest, no FTZ, no DAZ, no flags.
#[cfg(target_arch = "x86_64")]
const DEFAULT: Control = 0x1f80;
/// FPCR and FPSR as Linux and the AAPCS start them.
#[cfg(target_arch = "aarch64")]
const DEFAULT: Control = (0, 0);

#[cfg(target_arch = "x86_64")]
#[inline]
fn read() -> Control {
    let mut mxcsr = 0u32;
    // SAFETY: stmxcsr writes four bytes to the address given; SSE is in x86-64's baseline.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &mut mxcsr, options(nostack, preserves_flags));
    }
    mxcsr
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn write(mxcsr: Control) {
    // SAFETY: ldmxcsr reads four bytes; the value is the default or one that the processor gave,
    // so no reserved bit is set. The block clobbers memory, so no float work moves across it.
    unsafe {
        std::arch::asm!("ldmxcsr [{}]", in(reg) &mxcsr, options(nostack, preserves_flags));
    }
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn read() -> Control {
    let (fpcr, fpsr): (u64, u64);
    // SAFETY: both registers are readable in user mode.
    unsafe {
        std::arch::asm!("mrs {}, fpcr", "mrs {}, fpsr", out(reg) fpcr, out(reg) fpsr,
            options(nostack, preserves_flags));
    }
    (fpcr, fpsr)
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn write((fpcr, fpsr): Control) {
    // SAFETY: both registers are writable in user mode; the values are the default or ones that
    // the processor gave.
    unsafe {
        std::arch::asm!("msr fpcr, {}", "msr fpsr, {}", in(reg) fpcr, in(reg) fpsr,
            options(nostack, preserves_flags));
    }
}
