//! Sums of f64 without rounding, so that no order of blocks, threads or ranks can matter.
//!
//! A fixed-point number wide enough for every f64, in limbs of 32 bits held in 64-bit integers
//! (Neal, arXiv:1505.05571). Adding a value touches two limbs; the carries wait in the upper
//! halves until they could overflow.

/// Bits of a limb's weight; the rest of its 64 hold carries and the sign.
const LIMB_BITS: u32 = 32;
/// The least bit of the smallest subnormal: limb 0 counts units of 2^-1074.
const MIN_EXPONENT: i32 = -1074;
/// 2098 bits for the range of f64, and room above for 2^78 values.
const LIMBS: usize = 68;
/// A value adds 2^52 to a limb at most, so this many leave an i64 in range.
const MAX_ADDS: u32 = 1 << 10;

/// An exact sum of f64 values.
#[derive(Clone, Debug)]
pub(crate) struct ExactSum {
    limbs: [i64; LIMBS],
    /// Limbs outside of `low..high` are 0. (A step's sums are a few limbs wide.)
    low: usize,
    high: usize,
    /// Values added since carries were last propagated.
    pending: u32,
    nan: u64,
    positive_infinity: u64,
    negative_infinity: u64,
}

impl ExactSum {
    pub(crate) const ZERO: Self = ExactSum {
        limbs: [0; LIMBS],
        low: LIMBS,
        high: 0,
        pending: 0,
        nan: 0,
        positive_infinity: 0,
        negative_infinity: 0,
    };

    /// Adds one value.
    pub(crate) fn add(&mut self, x: f64) {
        self.add_all([x]);
    }

    /// Adds values.
    #[inline]
    pub(crate) fn add_all(&mut self, values: impl IntoIterator<Item = f64>) {
        // In registers, as values often come one after the other.
        let (mut low, mut high, mut pending) = (self.low, self.high, self.pending);
        for x in values {
            let bits = x.to_bits();
            let biased = (bits >> 52) as u32 & 0x7ff;
            if biased == 0x7ff {
                self.add_special(x);
                continue;
            }
            // Subnormals have the exponent of the smallest normal and no hidden bit.
            let hidden = u64::from(biased != 0) << 52;
            let magnitude = (bits & ((1 << 52) - 1) | hidden) as i64;
            let sign = bits as i64 >> 63;
            let mantissa = (magnitude ^ sign) - sign;
            let shift = biased.saturating_sub(1);
            let (limb, offset) = ((shift / LIMB_BITS) as usize, shift % LIMB_BITS);
            // In two's complement: its low bits, and with the sign those above them.
            self.limbs[limb] += i64::from((mantissa << offset) as u32);
            self.limbs[limb + 1] += mantissa >> (LIMB_BITS - offset);
            (low, high) = (low.min(limb), high.max(limb + 2));
            pending += 1;
            if pending == MAX_ADDS {
                (self.low, self.high) = (low, high);
                self.carry();
                (low, high, pending) = (self.low, self.high, self.pending);
            }
        }
        (self.low, self.high, self.pending) = (low, high, pending);
    }

    #[cold]
    fn add_special(&mut self, x: f64) {
        let count = match x {
            f64::INFINITY => &mut self.positive_infinity,
            f64::NEG_INFINITY => &mut self.negative_infinity,
            _ => &mut self.nan,
        };
        *count += 1;
    }

    /// Adds all that `other` has added.
    pub(crate) fn merge(&mut self, other: &ExactSum) {
        if self.is_empty() {
            *self = other.clone();
            return;
        }
        let mut other = other.clone();
        other.carry();
        self.carry();
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
        for i in other.low..other.high {
            self.limbs[i] += other.limbs[i];
        }
        // Two carried numbers: each limb is below 2^33 in size, which is less than a value may add.
        self.pending = 1;
        self.nan += other.nan;
        self.positive_infinity += other.positive_infinity;
        self.negative_infinity += other.negative_infinity;
    }

    /// Whether nothing was added yet.
    fn is_empty(&self) -> bool {
        self.pending == 0 && self.nan + self.positive_infinity + self.negative_infinity == 0
    }

    /// Brings every limb but the highest, which keeps the sign, into 0..2^32, and that one below 2^32
    /// in size.
    fn carry(&mut self) {
        let Some(highest) = self.high.checked_sub(1) else { return };
        let mut carry = 0;
        for limb in &mut self.limbs[self.low..highest] {
            let value = *limb + carry;
            *limb = value & ((1 << LIMB_BITS) - 1);
            carry = value >> LIMB_BITS;
        }
        let value = self.limbs[highest] + carry;
        self.limbs[highest] = value;
        if value >> LIMB_BITS != value >> 63 && self.high < LIMBS {
            self.limbs[highest] = value & ((1 << LIMB_BITS) - 1);
            self.limbs[self.high] = value >> LIMB_BITS;
            self.high += 1;
        }
        self.pending = 1;
    }

    /// Whether [`round`](Self::round) is finite.
    pub(crate) fn is_finite(&self) -> bool {
        // Limbs below the 64th make less than 2^1005, whatever carries wait in them.
        let specials = self.nan + self.positive_infinity + self.negative_infinity;
        specials == 0 && (self.high <= 64 || self.round().is_finite())
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
        if self.high == 0 {
            return 0.0;
        }
        let mut sum = self.clone();
        sum.carry();
        let negative = sum.limbs[..sum.high].last().is_some_and(|highest| *highest < 0);
        if negative {
            for limb in &mut sum.limbs[sum.low..sum.high] {
                *limb = -*limb;
            }
            sum.carry();
        }
        let magnitude = sum.round_magnitude();
        if negative { -magnitude } else { magnitude }
    }

    /// Of a carried sum that is not negative.
    fn round_magnitude(&self) -> f64 {
        let touched = &self.limbs[..self.high];
        let Some(top) = touched.iter().rposition(|limb| *limb != 0) else { return 0.0 };
        let top_bits = 64 - (self.limbs[top] as u64).leading_zeros();
        // The sum is below 2^length units; a f64 keeps 53 bits of it, less for subnormals.
        let length = top as u32 * LIMB_BITS + top_bits;
        let dropped = length.saturating_sub(53);
        let mut mantissa = self.bits(dropped, 53);
        if dropped > 0 {
            let half = self.bits(dropped - 1, 1) == 1;
            let rest = (self.low as u32 * LIMB_BITS..dropped - 1)
                .step_by(32)
                .any(|at| self.bits(at, 32.min(dropped - 1 - at)) != 0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::BigInt;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    fn sum(values: &[f64]) -> ExactSum {
        let (mut sum, mut at_once) = (ExactSum::ZERO, ExactSum::ZERO);
        values.iter().for_each(|x| sum.add(*x));
        at_once.add_all(values.iter().copied());
        assert_eq!(format!("{sum:?}"), format!("{at_once:?}"));
        sum
    }

    /// The sum in units of 2^-1074, written as an exact decimal and read by the standard library,
    /// which rounds decimals of any length correctly.
    fn truth(values: &[f64]) -> f64 {
        let finite = values.iter().filter(|x| x.is_finite());
        let specials: f64 = values.iter().filter(|x| !x.is_finite()).sum();
        if specials != 0.0 {
            return specials;
        }
        let mut units = BigInt::ZERO;
        for x in finite {
            let bits = x.abs().to_bits();
            let (exponent, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
            let mantissa = if exponent == 0 { fraction } else { fraction | 1 << 52 };
            let size = BigInt::from(mantissa) << exponent.saturating_sub(1);
            if *x < 0.0 { units -= size } else { units += size }
        }
        let decimal = units * BigInt::from(5).pow(1074);
        let value = format!("{decimal}e-1074").parse::<f64>().unwrap();
        value + 0.0
    }

    #[track_caller]
    fn check(values: &[f64]) {
        let (found, expected) = (sum(values).round(), truth(values));
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert_eq!(sum(values).is_finite(), expected.is_finite(), "{values:?}");
        assert!(same, "{values:?}: {found:e}, not {expected:e}");
    }

    /// Every exponent is as likely as any other; many values nearly cancel.
    fn wild() -> impl Strategy<Value = f64> {
        let some = any::<u64>().prop_map(f64::from_bits).prop_filter("NaN", |x| !x.is_nan());
        let subnormal = any::<u64>().prop_map(|bits| f64::from_bits(bits & !(0x7ff << 52)));
        let near_one = (-8i64..8).prop_map(|n| 1.0 + n as f64 * f64::EPSILON / 2.0);
        let power = (-1074i32..1024, any::<bool>())
            .prop_map(|(n, negative)| libm::scalbn(if negative { -1.0 } else { 1.0 }, n));
        let edge = prop_oneof![
            Just(f64::MAX),
            Just(f64::MIN),
            Just(f64::MIN_POSITIVE),
            Just(-f64::MIN_POSITIVE),
            Just(5e-324),
            Just(-5e-324),
            Just(0.0),
            Just(-0.0),
        ];
        prop_oneof![4 => some, 1 => subnormal, 2 => near_one, 3 => power, 1 => edge]
    }

    fn run<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
        let config = Config { cases: 1500, failure_persistence: None, ..Config::default() };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        TestRunner::new_with_rng(config, rng)
            .run(&strategy, test)
            .unwrap_or_else(|e| panic!("{e}"));
    }

    #[test]
    fn sums_are_correctly_rounded() {
        run(vec(wild(), 0..40), |values| {
            check(&values);
            Ok(())
        });
    }

    #[test]
    fn sums_that_cancel_are_correctly_rounded() {
        run((vec(wild(), 1..20), vec(wild(), 0..3)), |(values, rest)| {
            let mut all: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
            all.extend(rest);
            all.extend(values.iter().filter(|x| x.is_finite()).map(|x| -x));
            check(&all);
            Ok(())
        });
    }

    /// Numbers with a 53-bit mantissa, half a unit of their last place, and perhaps a little more.
    #[test]
    fn halves_round_to_even() {
        let mantissa = 1u64 << 52..1 << 53;
        let rest = prop_oneof![Just(0.0), Just(5e-324), Just(-5e-324), Just(1e-300), Just(-1.0)];
        run((mantissa, -1000i32..900, any::<bool>(), rest), |(mantissa, n, negative, rest)| {
            let sign = if negative { -1.0 } else { 1.0 };
            let x = sign * libm::scalbn(mantissa as f64, n);
            let half = sign * libm::scalbn(0.5, n);
            check(&[x, half]);
            check(&[x, half, rest]);
            check(&[half, x, -half, half, half, rest]);
            Ok(())
        });
    }

    #[test]
    fn grouping_and_order_do_not_matter() {
        let order = any::<u64>();
        run((vec(wild(), 0..60), vec(0usize..60, 0..6), order), |(values, cuts, order)| {
            let expected = sum(&values).round().to_bits();
            let mut shuffled = values.clone();
            let mut state = order | 1;
            for i in (1..shuffled.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                shuffled.swap(i, (state >> 33) as usize % (i + 1));
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (values.len() + 1)).collect();
            cuts.extend([0, values.len()]);
            cuts.sort_unstable();
            let mut parts: Vec<ExactSum> =
                cuts.windows(2).map(|ends| sum(&shuffled[ends[0]..ends[1]])).collect();
            // A tree of merges, and a merged sum that goes on adding.
            while parts.len() > 1 {
                let last = parts.pop().unwrap();
                let into = order as usize % parts.len();
                parts[into].merge(&last);
            }
            parts[0].add(-0.0);
            let found = parts[0].round().to_bits();
            let nan = f64::from_bits(found).is_nan() && f64::from_bits(expected).is_nan();
            prop_assert!(nan || found == expected);
            Ok(())
        });
    }

    #[test]
    fn edges_are_exact() {
        let (most, least) = (f64::MAX, 5e-324);
        let half_ulp = libm::scalbn(1.0, 970);
        check(&[]);
        check(&[-0.0]);
        check(&[-0.0, -0.0]);
        check(&[most, most]);
        check(&[most, most, -most]);
        check(&[-most, -most, most, least]);
        check(&[most, half_ulp]); // the tie beyond the largest number rounds to infinity
        check(&[most, half_ulp.next_down()]);
        check(&[-most, -half_ulp]);
        check(&[most, half_ulp, -least]);
        check(&[least, -least]);
        check(&[f64::MIN_POSITIVE, -least]);
        check(&[1.0, -1.0]);
        check(&[1e308, 1.0, -1e308]);
        check(&[f64::INFINITY, most]);
        check(&[f64::NEG_INFINITY, most, f64::NEG_INFINITY]);
        check(&[f64::INFINITY, f64::NEG_INFINITY]);
        check(&[f64::NAN, 1.0]);
        assert_eq!(sum(&[-0.0]).round().to_bits(), 0);
        assert_eq!(sum(&[most, most]).round(), f64::INFINITY);
    }

    /// Carries run through every limb, up and down, in sums of either sign.
    #[test]
    fn long_carries_propagate() {
        for sign in [1.0, -1.0] {
            let powers: Vec<f64> = (-1074..1024).map(|n| sign * libm::scalbn(1.0, n)).collect();
            check(&powers);
            let mut all = powers.clone();
            all.push(sign * 5e-324); // 2^1024 exactly, before rounding
            check(&all);
            all.push(sign * -f64::MAX);
            check(&all);
            let alternating: Vec<f64> =
                powers.iter().enumerate().map(|(i, x)| if i % 3 == 0 { -x } else { *x }).collect();
            check(&alternating);
        }
    }

    #[test]
    fn carries_wait_for_a_million_values() {
        let mut values = vec![f64::from_bits(0x7fdf_ffff_ffff_ffff); 3];
        values.extend(vec![-1.0 + f64::EPSILON; 1_000_000]);
        values.extend(vec![0.1; 300_000]);
        let expected = truth(&values);
        assert_eq!(sum(&values).round().to_bits(), expected.to_bits());
        let mut merged = ExactSum::ZERO;
        for part in values.chunks(997) {
            merged.merge(&sum(part));
        }
        assert_eq!(merged.round().to_bits(), expected.to_bits());
    }

    /// Carries are propagated in time: the most that values can add, over and over.
    #[test]
    fn carries_do_not_overflow() {
        let most = 4.0f64.next_down(); // at the highest offset in its limb
        for sign in [1.0, -1.0] {
            check(&vec![sign * most; 5 * MAX_ADDS as usize]);
        }
    }
}
