//! DLPack

use crate::algorithm::{
    DADAPT_DTYPE_BF16, DADAPT_DTYPE_F16, DADAPT_DTYPE_F32, DADAPT_DTYPE_F64, DADAPT_DTYPE_Q8,
    dadapt_dtype,
};
use crate::handle::{Outcome, guard, null, out};
use crate::status::{DADAPT_ERROR_RESERVED, DADAPT_ERROR_TOO_LONG, Failure, dadapt_status};
use dadapt::DType;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::slice;

/// DLPack's dltensor_from_py_object_no_sync: describes the array of an object in a DLTensor that
/// borrows from it, and returns 0; anything else where it cannot.
pub type dadapt_dlpack_from_object =
    Option<unsafe extern "C" fn(object: *mut c_void, tensor: *mut c_void) -> c_int>;

/// The object at an index of a list, borrowed: Python's PyList_GetItem. NULL where there is none.
pub type dadapt_dlpack_item =
    Option<unsafe extern "C" fn(list: *mut c_void, index: isize) -> *mut c_void>;

/// The object that a key has in an item of the list, borrowed: Python's PyDict_GetItemWithError.
/// NULL where there is none.
pub type dadapt_dlpack_value =
    Option<unsafe extern "C" fn(item: *mut c_void, key: *mut c_void) -> *mut c_void>;

/// What an array must be, and where its address goes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct dadapt_dlpack_array {
    /// Its elements.
    pub len: usize,
    /// Their type. DADAPT_DTYPE_Q8 stands for bytes, of which 8-bit state is made; len is then
    /// what dadapt_optimizer_state_bytes says.
    pub dtype: dadapt_dtype,
    /// 0.
    pub reserved: i32,
    /// Out: where it starts; NULL, it may be, where it has no elements.
    pub data: *mut *mut c_void,
}

/// DLPack's DLTensor.
#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *const i64,
    /// Null where the array is contiguous.
    strides: *const i64,
    byte_offset: u64,
}

/// DLPack's kDLCPU.
const CPU: i32 = 1;

impl dadapt_dlpack_array {
    /// DLPack's code and bits of the type.
    fn code_and_bits(&self) -> Option<(u8, u8)> {
        const UINT: u8 = 1;
        const FLOAT: u8 = 2;
        const BFLOAT: u8 = 4;
        match self.dtype {
            DADAPT_DTYPE_F32 => Some((FLOAT, 32)),
            DADAPT_DTYPE_F64 => Some((FLOAT, 64)),
            DADAPT_DTYPE_F16 => Some((FLOAT, 16)),
            DADAPT_DTYPE_BF16 => Some((BFLOAT, 16)),
            DADAPT_DTYPE_Q8 => Some((UINT, 8)),
            _ => None,
        }
    }

    fn check(&self, index: usize) -> Outcome {
        if self.code_and_bits().is_none() {
            DType::from_code(self.dtype)?;
        }
        if self.data.is_null() {
            return Err(null(&format!("arrays[{index}].data")));
        }
        if self.reserved != 0 {
            let detail = format!("arrays[{index}].reserved is {}, not 0", self.reserved);
            return Err(Failure::new(DADAPT_ERROR_RESERVED, detail));
        }
        Ok(())
    }
}

impl DlTensor {
    /// Where the elements are, if this is such an array, contiguous and on the CPU.
    fn address(&self, expected: &dadapt_dlpack_array) -> Option<*mut c_void> {
        let same = expected.code_and_bits() == Some((self.code, self.bits));
        if !same || self.lanes != 1 || self.device_type != CPU {
            return None;
        }
        let mut len: i64 = 1;
        for dim in (0..usize::try_from(self.ndim).ok()?).rev() {
            // SAFETY: DLPack has `ndim` sizes.
            let size = unsafe { *self.shape.add(dim) };
            let stride = match self.strides.is_null() {
                true => len,
                // SAFETY: and as many strides.
                false => unsafe { *self.strides.add(dim) },
            };
            // Strides of an array without elements do not matter, nor those of a single one.
            if size < 0 || (size > 1 && stride != len && expected.len > 0) {
                return None;
            }
            len = len.checked_mul(size)?;
        }
        let offset = usize::try_from(self.byte_offset).ok()?;
        let has_memory = !self.data.is_null() || len == 0;
        (has_memory && usize::try_from(len) == Ok(expected.len))
            .then(|| self.data.wrapping_byte_add(offset))
    }
}

/// Finds where the arrays of objects lie, for bindings of languages whose frameworks share arrays by
/// DLPack's C exchange API, as PyTorch does from 2.10 on: one call for all parameters, gradients and
/// state of a step, into the descriptors.
///
/// from_object, item, value: the framework's and the language's functions. Where one of them fails it
///     may have left an exception, which is the caller's to look at: in Python, hold the GIL.
/// lists, keys: columns of them. The objects are the first n items of each list or, where its key is
///     not NULL, what that key has in them. value may be NULL if all keys are.
/// arrays: n of the first list, n of the second, and so on. The places in data may be anywhere else,
///     each its own.
/// found: out; columns*n, or how many came before the first object whose array could not be had, or is
///     not as arrays says, contiguous, on the CPU and with memory. The addresses of those are
///     written, others not.
///
/// Any thread that the functions may run on.
/// Errors: DADAPT_ERROR_UNKNOWN_DTYPE, _RESERVED, _TOO_LONG, _NULL_POINTER.
///
/// # Safety
/// The functions are what they are said to be, of such lists. lists and keys have as many elements as
/// columns says, and arrays n times as many; or there are none. Places in data are aligned and can be
/// written, as can found.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dadapt_dlpack_data(
    from_object: dadapt_dlpack_from_object,
    item: dadapt_dlpack_item,
    value: dadapt_dlpack_value,
    lists: *const *mut c_void,
    keys: *const *mut c_void,
    columns: usize,
    n: usize,
    arrays: *const dadapt_dlpack_array,
    found: *mut usize,
) -> dadapt_status {
    guard(|| {
        let from_object = from_object.ok_or_else(|| null("from_object"))?;
        let item = item.ok_or_else(|| null("item"))?;
        // SAFETY: this function's contract.
        let found = unsafe { out(found, "found")? };
        let all = columns.checked_mul(n).ok_or_else(|| {
            let detail = format!("{columns} columns of {n} arrays are more than memory can have");
            Failure::new(DADAPT_ERROR_TOO_LONG, detail)
        })?;
        // SAFETY: this function's contract.
        let (lists, keys, arrays) = unsafe {
            (
                given(lists, columns, "lists")?,
                given(keys, columns, "keys")?,
                given(arrays, all, "arrays")?,
            )
        };
        if value.is_none() && keys.iter().any(|key| !key.is_null()) {
            return Err(null("value"));
        }
        arrays.iter().enumerate().try_for_each(|(index, array)| array.check(index))?;
        let read = |list: *mut c_void,
                    key: *mut c_void,
                    row: usize,
                    array: &dadapt_dlpack_array| {
            // SAFETY: this function's contract: `item` takes the list.
            let mut object = unsafe { item(list, row.cast_signed()) };
            if let Some(value) = value.filter(|_| !object.is_null() && !key.is_null()) {
                // SAFETY: this function's contract: `value` takes the list's items and this key.
                object = unsafe { value(object, key) };
            }
            let mut tensor = MaybeUninit::<DlTensor>::uninit();
            // SAFETY: this function's contract: `from_object` takes such objects, and writes a tensor.
            if object.is_null() || unsafe { from_object(object, tensor.as_mut_ptr().cast()) } != 0 {
                return None;
            }
            // SAFETY: it was written, since the call did not fail.
            unsafe { tensor.assume_init_ref() }.address(array)
        };
        let mut count = 0;
        'all: for ((list, key), arrays) in lists.iter().zip(keys).zip(arrays.chunks(n.max(1))) {
            for (row, array) in arrays.iter().enumerate() {
                let Some(address) = read(*list, *key, row, array) else { break 'all };
                // SAFETY: this function's contract, and not null: `check`.
                unsafe { array.data.write(address) };
                count += 1;
            }
        }
        found.write(count);
        Ok(())
    })
}

/// An array of the caller's; one without elements may be null.
///
/// # Safety
/// `start` is null or has `len` elements, which nobody changes for `'a`.
unsafe fn given<'a, T>(start: *const T, len: usize, argument: &str) -> Outcome<&'a [T]> {
    match len {
        0 => Ok(&[]),
        _ if start.is_null() => Err(null(argument)),
        // SAFETY: this function's contract.
        _ => Ok(unsafe { slice::from_raw_parts(start, len) }),
    }
}
