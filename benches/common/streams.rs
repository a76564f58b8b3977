//! What a step is measured against, over the same arrays: the memory alone, and plain kernels.
//!
//! Plain loops that the compiler vectorises, for AVX2 where the machine has it, like a C loop at
//! `-O3 -march=native`. The coefficients come in at run time, so nothing is folded away.

/// The arrays of a step in f32: parameter, gradient, state.
pub struct Arrays<'a, const STATES: usize> {
    pub p: &'a mut [f32],
    pub g: &'a [f32],
    pub state: [&'a mut [f32]; STATES],
}

macro_rules! multiversioned {
    ($(#[doc = $doc:literal])+ $name:ident, $portable:ident, $states:literal, |$arrays:ident, $c:ident| $body:block) => {
        $(#[doc = $doc])+
        pub fn $name(arrays: Arrays<'_, $states>, c: &[f32; 8]) {
            #[inline(always)]
            fn $portable($arrays: Arrays<'_, $states>, $c: &[f32; 8]) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2(arrays: Arrays<'_, $states>, c: &[f32; 8]) {
                    $portable(arrays, c)
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: both features were detected just now.
                    return unsafe { avx2(arrays, c) };
                }
            }
            $portable(arrays, c)
        }
    };
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

multiversioned! {
    /// D-Adapt Adam as one would write it: the same streams, two square roots, one division, and
    /// its two sums in f32 lanes, with no care for order, subnormals or other instruction sets.
    adam_plain, adam_plain_loop, 3, |a, c| {
        const LANES: usize = 16;
        let [m, v, s] = a.state;
        let [beta1, m_g, beta2, v_g, sqrt_beta2, s_g, eps, _] = *c;
        let (mut numerator, mut s_l1) = ([0.0f32; LANES], [0.0f32; LANES]);
        let rows = a.p.chunks_exact_mut(LANES).zip(a.g.chunks_exact(LANES));
        let state = m.chunks_exact_mut(LANES).zip(v.chunks_exact_mut(LANES));
        for (((p, g), (m, v)), s) in rows.zip(state).zip(s.chunks_exact_mut(LANES)) {
            for i in 0..LANES {
                let old = v[i].sqrt() + eps;
                let next_m = beta1.mul_add(m[i], m_g * g[i]);
                let next_v = beta2.mul_add(v[i], v_g * g[i] * g[i]);
                let next_s = sqrt_beta2.mul_add(s[i], s_g * g[i]);
                let next = next_v.sqrt() + eps;
                let inverse = 1.0 / (old * next);
                numerator[i] += g[i] * (s[i] * (inverse * next));
                s_l1[i] += next_s.abs();
                p[i] -= next_m * (inverse * old);
                m[i] = next_m;
                v[i] = next_v;
                s[i] = next_s;
            }
        }
        std::hint::black_box((numerator, s_l1));
    }
}

multiversioned! {
    /// The same without its sums.
    adam_sumless, adam_sumless_loop, 3, |a, c| {
        let [m, v, s] = a.state;
        let n = a.p.len();
        let (p, g, m, v, s) = (&mut a.p[..n], &a.g[..n], &mut m[..n], &mut v[..n], &mut s[..n]);
        let [beta1, m_g, beta2, v_g, sqrt_beta2, s_g, eps, _] = *c;
        for i in 0..n {
            let old = v[i].sqrt() + eps;
            let next_m = beta1.mul_add(m[i], m_g * g[i]);
            let next_v = beta2.mul_add(v[i], v_g * g[i] * g[i]);
            let next_s = sqrt_beta2.mul_add(s[i], s_g * g[i]);
            let inverse = 1.0 / (old * (next_v.sqrt() + eps));
            p[i] -= next_m * (inverse * old);
            m[i] = next_m;
            v[i] = next_v;
            s[i] = next_s;
        }
    }
}

multiversioned! {
    /// One read of the gradient: what a check of it must cost, 4 bytes.
    read_gradient, read_gradient_loop, 0, |a, c| {
        let mut bits = c[7].to_bits();
        for g in a.g {
            bits |= g.to_bits();
        }
        std::hint::black_box(bits);
    }
}
