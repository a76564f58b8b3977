//! The types that parameters and state are rounded to, by their definitions: sets of numbers, in f64,
//! and nothing of how `src/` gets there.
//!
//! bf16 has 7 bits of fraction and f32's exponents; f16 has 10 and exponents from -14 to 15. Both have
//! equally spaced numbers below their smallest normal one. 8-bit state has 3 bits of fraction and, for
//! 256 elements in common, the exponent of their largest numbers. With a sign a magnitude is a number of 16
//! exponents from there down, less the smallest of them; without one there are 32, and no number below, but where
//! all 256 are 0.

/// Elements whose exponents are kept together.
pub const BLOCK: usize = 4096;
/// Elements that share an exponent.
pub const GROUP: usize = 256;

/// The magnitudes that a type can hold.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    fraction: i32,
    /// The exponent of the smallest normal number.
    least: i32,
    largest: f64,
    /// What magnitudes are less than the numbers of that fraction and these exponents.
    less: f64,
    /// What all that is smaller is rounded to.
    smallest: f64,
    /// Whether it has infinities.
    infinite: bool,
    signed: bool,
}

pub const BF16: Grid = wide(7, -126, 127);
pub const F16: Grid = wide(10, -14, 15);

const fn wide(fraction: i32, least: i32, top: i32) -> Grid {
    Grid {
        fraction,
        least,
        largest: (2.0 - power(-fraction)) * power(top),
        less: 0.0,
        smallest: 0.0,
        infinite: true,
        signed: true,
    }
}

/// The exponent, less 127, of numbers without a sign that are all 0.
const ZERO: i32 = -127;

/// 8-bit numbers whose largest have that exponent.
pub const fn q8(signed: bool, top: i32) -> Grid {
    let least = if signed { top - 15 } else { top - 31 };
    let less = if signed { power(least) } else { 0.0 };
    let zero = !signed && top == ZERO;
    Grid {
        fraction: 3,
        least,
        largest: if zero { 0.0 } else { 1.875 * power(top) - less },
        less,
        smallest: if signed || zero { 0.0 } else { power(least) },
        infinite: false,
        signed,
    }
}

/// The exponent of 8-bit numbers among which this is the largest: whatever it is rounded to exists.
pub fn top(largest: f64) -> i32 {
    let exponent = exponent(largest);
    exponent + i32::from(largest >= (1.875 - power(-15)) * power(exponent))
}

/// 2^exponent, of a normal f64.
pub const fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// That of a normal f64; -1023 of 0.
fn exponent(x: f64) -> i32 {
    ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

impl Grid {
    fn spacing(&self, magnitude: f64) -> f64 {
        power(exponent(magnitude + self.less).max(self.least) - self.fraction)
    }

    /// The largest of its numbers that is not above a magnitude, or the smallest.
    fn floor(&self, magnitude: f64) -> f64 {
        let unit = self.spacing(magnitude);
        let down = ((magnitude + self.less) / unit).floor() * unit - self.less;
        down.min(self.largest).max(self.smallest)
    }

    fn ceil(&self, magnitude: f64) -> f64 {
        let unit = self.spacing(magnitude);
        let up = ((magnitude + self.less) / unit).ceil() * unit - self.less;
        match up > self.largest {
            true if self.infinite => f64::INFINITY,
            true => self.largest,
            false => up.max(self.smallest),
        }
    }

    /// What numbers are rounded to that are no less than `x`, at the least.
    pub fn down(&self, x: f64) -> f64 {
        if x < 0.0 { -self.ceil(-x) } else { self.floor(x) }
    }

    /// What numbers are rounded to that are no more than `x`, at the most.
    pub fn up(&self, x: f64) -> f64 {
        if x < 0.0 { -self.floor(-x) } else { self.ceil(x) }
    }

    pub fn holds(&self, x: f64) -> bool {
        (self.signed || x.is_sign_positive()) && (self.down(x), self.up(x)) == (x, x)
    }

    /// Of bf16 and f16: to nearest, ties to the one whose last bit is 0.
    pub fn nearest(&self, x: f64) -> f64 {
        let magnitude = x.abs();
        let unit = self.spacing(magnitude);
        let near = (magnitude / unit).round_ties_even() * unit;
        (if near > self.largest { f64::INFINITY } else { near }).copysign(x)
    }
}

/// 8-bit state as it is kept: a byte an element, and then, block by block, an exponent for each group.
pub struct Packed {
    pub values: Vec<f64>,
    /// By element: which group it belongs to, of those of all blocks.
    pub groups: Vec<usize>,
    /// By group: the exponent of its largest numbers.
    pub tops: Vec<i32>,
}

/// Reads it. `counts` says how many elements each block has.
pub fn unpack(bytes: &[u8], signed: bool, counts: &[usize]) -> Packed {
    let len = counts.iter().sum();
    let a_block = counts.first().map_or(0, |most| most.div_ceil(GROUP));
    let (codes, exponents) = bytes.split_at(len);
    let (mut groups, mut values) = (Vec::new(), Vec::new());
    for (block, count) in counts.iter().enumerate() {
        groups.extend((0..*count).map(|i| block * a_block + i / GROUP));
    }
    let tops: Vec<_> = exponents.iter().map(|byte| i32::from(*byte) - 127).collect();
    for (code, group) in codes.iter().zip(&groups) {
        values.push(unpack_one(*code, signed, tops[*group]));
    }
    Packed { values, groups, tops }
}

fn unpack_one(code: u8, signed: bool, top: i32) -> f64 {
    let magnitude = if signed { code & 0x7f } else { code };
    let (exponent, fraction) = (i32::from(magnitude >> 3), f64::from(magnitude & 7) / 8.0);
    if !signed {
        return if top == ZERO { 0.0 } else { (1.0 + fraction) * power(top - 31 + exponent) };
    }
    let size = (1.0 + fraction) * power(top - 15 + exponent) - power(top - 15);
    if code & 0x80 != 0 { -size } else { size }
}
