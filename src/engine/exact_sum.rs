//! Sums of f64 without rounding, so that no order of blocks, threads or ranks can matter.
//!
//! A fixed-point number wide enough for every f64, in limbs of 32 bits held in 64-bit integers
//! (Neal, arXiv:1505.05571). Adding a value touches three limbs; the carries wait in the upper
//! halves until they could overflow.

/// Bits of a limb's weight; the rest of its 64 hold carries and the sign.
const LIMB_BITS: u32 = 32;
/// The least bit of the smallest subnormal: limb 0 counts units of 2^-1074.
const MIN_EXPONENT: i32 = -1074;
/// 2098 bits for the range of f64, and room above for 2^31 carries.
const LIMBS: usize = 68;
/// A value adds less than 2^32 to each limb, so this many leave an i64 in range.
const MAX_ADDS: u32 = 1 << 30;

/// An exact sum of f64 values.
#[derive(Clone, Debug)]
pub(crate) struct ExactSum {
    limbs: [i64; LIMBS],
    /// Values added since carries were last propagated.
    pending: u32,
    nan: u64,
    positive_infinity: u64,
    negative_infinity: u64,
}

impl ExactSum {
    pub(crate) const ZERO: Self = ExactSum {
        limbs: [0; LIMBS],
        pending: 0,
        nan: 0,
        positive_infinity: 0,
        negative_infinity: 0,
    };

    /// Adds one value.
    pub(crate) fn add(&mut self, x: f64) {
        let bits = x.to_bits();
        let (negative, biased) = (bits >> 63 != 0, (bits >> 52 & 0x7ff) as usize);
        let fraction = bits & ((1 << 52) - 1);
        if biased == 0x7ff {
            let count = match (fraction, negative) {
                (0, false) => &mut self.positive_infinity,
                (0, true) => &mut self.negative_infinity,
                _ => &mut self.nan,
            };
            *count += 1;
            return;
        }
        // Subnormals have the exponent of the smallest normal and no hidden bit.
        let (mantissa, shift) =
            if biased == 0 { (fraction, 0) } else { (fraction | 1 << 52, biased - 1) };
        let (limb, offset) = (shift / LIMB_BITS as usize, shift as u32 % LIMB_BITS);
        let wide = u128::from(mantissa) << offset;
        for i in 0..3 {
            let part = i64::from((wide >> (LIMB_BITS * i)) as u32);
            self.limbs[limb + i as usize] += if negative { -part } else { part };
        }
        self.pending += 1;
        if self.pending == MAX_ADDS {
            self.carry();
        }
    }

    /// Adds all that `other` has added.
    pub(crate) fn merge(&mut self, other: &ExactSum) {
        let mut other = other.clone();
        other.carry();
        self.carry();
        for (limb, with) in self.limbs.iter_mut().zip(other.limbs) {
            *limb += with;
        }
        // Two carried numbers: each limb is below 2^33 in size, as after two values.
        self.pending = 2;
        self.nan += other.nan;
        self.positive_infinity += other.positive_infinity;
        self.negative_infinity += other.negative_infinity;
    }

    /// Brings every limb but the last, which keeps the sign, into 0..2^32.
    fn carry(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs[..LIMBS - 1] {
            let value = *limb + carry;
            *limb = value & ((1 << LIMB_BITS) - 1);
            carry = value >> LIMB_BITS;
        }
        self.limbs[LIMBS - 1] += carry;
        self.pending = 1;
    }

    /// The sum, rounded once to nearest even; +0 where it is 0.
    pub(crate) fn round(&self) -> f64 {
        if self.nan > 0 || (self.positive_infinity > 0 && self.negative_infinity > 0) {
            return f64::NAN;
        }
        if self.positive_infinity > 0 {
            return f64::INFINITY;
        }
        if self.negative_infinity > 0 {
            return f64::NEG_INFINITY;
        }
        let mut sum = self.clone();
        sum.carry();
        let negative = sum.limbs[LIMBS - 1] < 0;
        if negative {
            for limb in &mut sum.limbs {
                *limb = -*limb;
            }
            sum.carry();
        }
        let magnitude = sum.round_magnitude();
        if negative { -magnitude } else { magnitude }
    }

    /// Of a carried sum that is not negative.
    fn round_magnitude(&self) -> f64 {
        let Some(top) = self.limbs.iter().rposition(|limb| *limb != 0) else { return 0.0 };
        let top_bits = 64 - (self.limbs[top] as u64).leading_zeros();
        // The sum is below 2^length units; a f64 keeps 53 bits of it, less for subnormals.
        let length = top as u32 * LIMB_BITS + top_bits;
        let dropped = length.saturating_sub(53);
        let mut mantissa = self.bits(dropped, 53);
        if dropped > 0 {
            let half = self.bits(dropped - 1, 1) == 1;
            let rest =
                (0..dropped - 1).step_by(32).any(|at| self.bits(at, 32.min(dropped - 1 - at)) != 0);
            if half && (rest || mantissa & 1 == 1) {
                mantissa += 1; // to 2^53 at most, which is exact too
            }
        }
        // Units of 2^-1074: exact, or infinite where the sum is beyond the largest f64.
        let exponent = dropped as i32 + MIN_EXPONENT;
        libm::scalbn(mantissa as f64, exponent)
    }

    /// `count <= 53` bits from bit `at` on, of a carried sum that is not negative.
    fn bits(&self, at: u32, count: u32) -> u64 {
        let (limb, offset) = ((at / LIMB_BITS) as usize, at % LIMB_BITS);
        let mut window = 0u128;
        for i in (0..3).rev() {
            window = window << LIMB_BITS
                | self.limbs.get(limb + i).map_or(0, |limb| (*limb as u64).into());
        }
        (window >> offset) as u64 & ((1 << count) - 1)
    }
}
