//! Versions

use std::ffi::{c_char, c_int};

/// Version of the binary interface, and of the soname. Programs built against another number must
/// not be run with this library.
pub const DADAPT_ABI_VERSION: c_int = 0;

const fn number(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("cargo gives versions in digits"),
    }
}

const NUMBER: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) * 10000
    + number(env!("CARGO_PKG_VERSION_MINOR")) * 100
    + number(env!("CARGO_PKG_VERSION_PATCH"));

/// The library's version, "major.minor.patch". Never freed. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The library's version as DADAPT_VERSION_NUMBER has the header's. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_version_number() -> u32 {
    NUMBER
}

/// The library's DADAPT_ABI_VERSION, to be compared with the header's. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn dadapt_abi_version() -> c_int {
    DADAPT_ABI_VERSION
}
