//! The second loop over a group: rounds what has been computed, and moves the parameter by it where that waits.

// As in the first.
#![allow(clippy::needless_range_loop)]

use super::{CodedKernel, Group};
use crate::algorithm::{Cell, MAX_SLOTS, Rule, pass};
use crate::kernel::bits::Bits;
use crate::kernel::codec::{GROUP, Rounding, Scale, short};
use crate::kernel::coeffs::Coeffs;
use crate::kernel::lanes::{Lanes, ROW};
use crate::kernel::mode::{self, pair};
use crate::kernel::rounding::{Key, Noise};
use pulp::Simd;
use std::slice;

/// Does something for the first numbers from 0 on, known when it is compiled: of `registers` that are packed together, and of
/// `arrays`. A loop would be one for LLVM to unroll, which it leaves where that is long, and has registers in memory.
macro_rules! unrolled {
    (registers $count:expr, |$i:ident| $then:block) => {
        unrolled!(@ $count, |$i| $then, 0, 1, 2, 3)
    };
    (arrays $count:expr, |$i:ident| $then:block) => {
        unrolled!(@ $count, |$i| $then, 0, 1, 2, 3, 4, 5)
    };
    (@ $count:expr, |$i:ident| $then:block, $($number:literal),+) => { $(
        if $number < $count {
            let $i: usize = $number;
            $then
        }
    )+ };
}

/// Of the arrays that `unrolled` knows.
const _: () = assert!(MAX_SLOTS <= 6);

impl<
    R,
    const COEFFS: usize,
    const SLOTS: usize,
    const SUMS: usize,
    const DECAY: u8,
    const PASS: u8,
    const MODE: u8,
    const PAIR: u8,
> CodedKernel<'_, R, COEFFS, SLOTS, SUMS, DECAY, PASS, MODE, PAIR>
where
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    /// Whether the second loop gives lanes the roots of state without a sign.
    #[inline(always)]
    fn by_roots() -> bool {
        Self::waits() && MODE == mode::Q8
    }

    /// Moves a parameter that waits.
    #[inline(always)]
    fn step<S: Simd>(
        lanes: Lanes<S, f32>,
        coeffs: &Coeffs<S::f32s, COEFFS>,
        g: S::f32s,
        cell: Cell<f32, S, SLOTS>,
    ) -> S::f32s {
        let (coeffs, sums) = (&coeffs.get(), [lanes.splat(0.0); SUMS]);
        let ((x, _), _) = if Self::by_roots() {
            const MOVE: u8 = pass::MOVE | pass::ROOTS;
            R::lane::<S, f32, DECAY, MOVE>(lanes, coeffs, g, cell, sums)
        } else {
            R::lane::<S, f32, DECAY, { pass::MOVE }>(lanes, coeffs, g, cell, sums)
        };
        x
    }

    /// Elements that the second loop rounds at once, and so whole rows.
    #[inline(always)]
    pub(super) fn packed<S: Simd>() -> usize {
        Bits::<S>::PACKED * Bits::<S>::LEN
    }

    /// Clears what follows a group's rows and is packed with the last.
    ///
    /// # Safety
    /// As [`open`](Self::open), and `to` is no more than a whole group.
    #[inline(always)]
    pub(super) unsafe fn clear(group: &Group<SLOTS>, to: usize) {
        if group.len == to {
            return;
        }
        // SAFETY: what is rounded here is in `Scratch`, which has room for whole groups.
        let clear = |x: *mut f32| unsafe { x.add(group.len).write_bytes(0, to - group.len) };
        for slot in 0..SLOTS {
            if Self::rounds(slot) {
                clear(group.computed[slot]);
            }
        }
        if Self::rounds_parameter() {
            clear(group.p);
        }
    }

    /// The second loop: rounds what has been computed, and moves the parameter by it where that waits.
    ///
    /// # Safety
    /// As [`open`](Self::open), of as many elements as are [`packed`](Self::packed) together, which all have a value.
    #[inline(always)]
    pub(super) unsafe fn round<S: Simd>(
        &self,
        lanes: Lanes<S, f32>,
        bits: Bits<S>,
        coeffs: &Coeffs<S::f32s, COEFFS>,
        group: &Group<SLOTS>,
        (largest, special): ([S::u32s; SLOTS], &mut S::u32s),
    ) {
        let Group { start, len, key, p, short: [short_p, _], computed, codes, mut scales, .. } =
            *group;
        let mut not_finite = false;
        for slot in 0..SLOTS {
            if !Self::rounds(slot) {
                continue;
            }
            let format = Self::format(slot);
            if format.is_grouped() {
                let largest = bits.largest(largest[slot]);
                let to = self.arrays.state[slot].place.exponents.wrapping_add(start / GROUP);
                // SAFETY: this function's own contract: each group has an exponent.
                let scale = unsafe { format.set_exponent(largest, (computed[slot], len), to) };
                not_finite |= scale.is_none() && R::STATE[slot].is_read(pass::MOVE);
                scales[slot] = scale.unwrap_or(Scale::NONE);
            }
        }
        let packed = Self::packed::<S>();
        let arrays = SLOTS + usize::from(Self::rounds_parameter());
        let mut rows = Rows::new(bits, key, arrays);
        // Packed last, while quotients are on their way, where registers are wide, and so few.
        let late = Bits::<S>::PACKED < 4;
        for start in (0..len).step_by(packed) {
            rows.advance(start / ROW, arrays);
            let place = |i: usize| start + i * Bits::<S>::LEN;
            if Self::waits() {
                for row in (start..start + packed).step_by(ROW) {
                    Self::ask_ahead(group, row, true);
                }
            }
            // SAFETY: this function's own contract.
            unsafe {
                let mut state = [[lanes.splat(0.0); SLOTS]; 4];
                let mut words = [[bits.splat(0); 4]; SLOTS];
                unrolled!(arrays SLOTS, |slot| {
                    let (format, kind) = (Self::format(slot), R::STATE[slot].kept);
                    let needed =
                        Self::waits() && Self::reads(slot) && R::STATE[slot].is_read(pass::MOVE);
                    unrolled!(registers Bits::<S>::PACKED, |i| {
                        if Self::rounds(slot) || needed {
                            state[i][slot] = lanes.load(computed[slot].wrapping_add(place(i)));
                        }
                        if Self::rounds(slot) {
                            let how = (scales[slot], Rounding::Stochastic(rows.of(slot, i)));
                            let kept = format.encode(bits, kind, state[i][slot], how);
                            (words[slot][i], state[i][slot]) = kept;
                            if Self::by_roots() && format.unsigned {
                                state[i][slot] = format.roots(bits, kept, scales[slot]);
                            }
                        }
                    });
                    if Self::rounds(slot) && !late {
                        let to = (codes[slot], start);
                        format.store_packed(bits, kind, to, &words[slot], scales[slot]);
                    }
                });
                unrolled!(registers Bits::<S>::PACKED, |i| {
                    let at = place(i);
                    if Self::waits() {
                        let x = lanes.load(p.wrapping_add(at));
                        let gradient = Self::gradient(lanes, bits, group, at);
                        let x = Self::step(lanes, coeffs, gradient, (x, state[i]));
                        lanes.store(p.wrapping_add(at), x);
                        if PAIR == pair::MASTER {
                            let size = short::round(bits, x, (short_p, at));
                            *special = bits.max_of(*special, size);
                        }
                    }
                    if Self::rounds_parameter() {
                        let x = lanes.load(p.wrapping_add(at));
                        let rounding = Rounding::Stochastic(rows.of(SLOTS, i));
                        let size = short::round_by(bits, x, (short_p, at), rounding);
                        *special = bits.max_of(*special, size);
                    }
                });
                unrolled!(arrays SLOTS, |slot| {
                    if Self::rounds(slot) && late {
                        let (format, kind) = (Self::format(slot), R::STATE[slot].kept);
                        let to = (codes[slot], start);
                        format.store_packed(bits, kind, to, &words[slot], scales[slot]);
                    }
                });
            }
        }
        if Self::waits() && not_finite {
            // By state that says NaN of all.
            // SAFETY: this function's own contract.
            let p = unsafe { slice::from_raw_parts_mut(p, len) };
            p.fill(f32::NAN);
            // What it is rounded to would have to be made again.
            const { assert!(PAIR == pair::NONE || MODE == mode::FULL || MODE == mode::BF16) };
        }
    }
}

/// The rows of noise of what is rounded at once. As arrays have them one after the other, each is made once, but
/// where they would take more registers than there are.
struct Rows<S: Simd> {
    noise: Noise<S>,
    first: usize,
    /// Those of the first array and what follows.
    rows: [[S::u32s; 4]; MAX_SLOTS + 2],
}

impl<S: Simd> Rows<S> {
    /// Rows that are rounded at once.
    const AT_ONCE: usize = Bits::<S>::PACKED * Bits::<S>::LEN / ROW;
    /// Registers of a row.
    const REGISTERS: usize = ROW / Bits::<S>::LEN;
    /// Whether rows stay in registers.
    const KEPT: bool = Self::REGISTERS < 4;

    #[inline(always)]
    fn new(bits: Bits<S>, key: Key, arrays: usize) -> Self {
        let noise = Noise::new(bits, key);
        let mut rows = [[bits.splat(0); 4]; MAX_SLOTS + 2];
        unrolled!(arrays arrays - 1, |row| {
            unrolled!(registers Self::REGISTERS, |register| {
                rows[row + Self::AT_ONCE][register] = noise.row(row, register);
            });
        });
        Rows { noise, first: 0, rows }
    }

    /// On to those of so many arrays from a row on, which follow those before.
    #[inline(always)]
    fn advance(&mut self, first: usize, arrays: usize) {
        self.first = first;
        unrolled!(arrays arrays - 1, |row| {
            self.rows[row] = self.rows[row + Self::AT_ONCE];
        });
        unrolled!(registers Self::AT_ONCE, |row| {
            let row = row + arrays - 1;
            unrolled!(registers Self::REGISTERS, |register| {
                self.rows[row][register] = self.noise.row(first + row, register);
            });
        });
    }

    /// A register of an array.
    #[inline(always)]
    fn of(&self, array: usize, register: usize) -> S::u32s {
        let (row, register) = (array + register / Self::REGISTERS, register % Self::REGISTERS);
        if Self::KEPT {
            self.rows[row][register]
        } else {
            self.noise.row(self.first + row, register)
        }
    }
}
