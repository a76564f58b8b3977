//! What a step is measured against, over the same arrays: the memory alone.
//!
//! A plain loop that the compiler vectorises, for AVX2 where the machine has it, like a C loop at
//! `-O3 -march=native`. Its factor comes in at run time, so nothing is folded away.

/// The arrays of a step in f32: parameter, gradient, state.
pub struct Arrays<'a, const STATES: usize> {
    pub p: &'a mut [f32],
    pub g: &'a [f32],
    pub state: [&'a mut [f32]; STATES],
}

/// The streams of a step with the least arithmetic: parameter and the state of `written` read and
/// written, the rest of the state and the gradient read.
pub fn ceiling<const STATES: usize>(arrays: Arrays<'_, STATES>, written: usize, zero: f32) {
    const LANES: usize = 16;
    #[inline(always)]
    fn portable<const STATES: usize>(mut arrays: Arrays<'_, STATES>, written: usize, zero: f32) {
        let len = arrays.p.len();
        let state = arrays.state.each_mut().map(|slot| {
            assert_eq!(slot.len(), len);
            slot.as_mut_ptr()
        });
        let (p, g) = (arrays.p.as_mut_ptr(), arrays.g.as_ptr());
        assert_eq!(arrays.g.len(), len);
        for at in (0..len - len % LANES).step_by(LANES) {
            // SAFETY: each array has `len` elements, and 16 from `at` on lie within.
            unsafe {
                let mut sum = p.add(at).cast::<[f32; LANES]>().read();
                let g = g.add(at).cast::<[f32; LANES]>().read();
                let mut slots = [g; STATES];
                for slot in 0..STATES {
                    slots[slot] = state[slot].add(at).cast::<[f32; LANES]>().read();
                }
                for i in 0..LANES {
                    let x = zero * g[i];
                    for slot in &mut slots {
                        sum[i] += zero * slot[i];
                        slot[i] += x;
                    }
                    sum[i] += x;
                }
                p.add(at).cast::<[f32; LANES]>().write(sum);
                for slot in 0..STATES {
                    if written >> slot & 1 == 1 {
                        state[slot].add(at).cast::<[f32; LANES]>().write(slots[slot]);
                    }
                }
            }
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn avx2<const STATES: usize>(arrays: Arrays<'_, STATES>, written: usize, zero: f32) {
            portable(arrays, written, zero)
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: both features were detected just now.
            return unsafe { avx2(arrays, written, zero) };
        }
    }
    portable(arrays, written, zero)
}
