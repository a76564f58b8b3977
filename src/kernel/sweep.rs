//! The one pass over blocks: parameters and state updated, sums returned.

// Loops over registers index several arrays at once; an iterator over one of them hides that.
#![allow(clippy::needless_range_loop)]

use super::block::{Ahead, BLOCKS, Block, GroupPlan, Partial, Streams, ZEROS, most_blocks};
use super::coeffs::{Aligned, Coeffs, kept_coeffs};
use super::isa::Token;
use super::lanes::{LaneElement, Lanes, ROW};
use super::prefetch::prefetch_row;
use super::sums::{RUN, Wide, fold, widen};
use crate::algorithm::{Algorithm, Init, MAX_SUMS, Rule, Visitor, decay, knows, pass};
use crate::dtype::DType;
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;

/// Sweeps blocks, one at least and up to [`most_blocks`], and writes the sums of each, for which there is
/// room.
///
/// Where `first`, the state is set up before, whatever it holds.
///
/// # Safety
/// Every array of a block that the plan's pass reads holds `len` elements of the kernel's type;
/// those other than `g` and [`ZEROS`] are used by nobody else, and none of them overlaps another. State
/// may hold anything where `first`.
pub(crate) type SweepFn = unsafe fn(Token, &GroupPlan, &[Block<'_>], bool, &mut [Partial]);

/// The same of a single block.
///
/// # Safety
/// As [`SweepFn`].
pub(crate) unsafe fn sweep_block(
    sweep: SweepFn,
    (token, plan): (Token, &GroupPlan),
    (streams, len): (Streams, usize),
    first: bool,
) -> Partial {
    let mut sums = [[0.0; MAX_SUMS]; 1];
    let block = Block { streams, len, ahead: None };
    // SAFETY: this function's own contract.
    unsafe { sweep(token, plan, &[block], first, &mut sums) };
    sums[0]
}

/// The kernel of an algorithm and element type, f32 or f64, for every instruction set.
pub(crate) fn sweep_fn(algorithm: Algorithm, dtype: DType) -> SweepFn {
    algorithm.visit(Pick(dtype))
}

struct Pick(DType);

impl Visitor for Pick {
    type Output = SweepFn;
    fn visit<R, const C: usize, const N: usize, const M: usize>(self) -> SweepFn
    where
        R: Rule<C, N, M>,
    {
        match self.0 {
            DType::F64 => sweep::<f64, R, C, N, M>,
            _ => sweep::<f32, R, C, N, M>,
        }
    }
}

/// The same of single rows, of an algorithm that has them.
pub(crate) fn rows_sweep_fn(algorithm: Algorithm, dtype: DType) -> Option<SweepFn> {
    algorithm.visit_rows(Pick(dtype))
}

/// # Safety
/// As [`SweepFn`], with elements of type `E`.
unsafe fn sweep<E, R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>(
    token: Token,
    plan: &GroupPlan,
    blocks: &[Block<'_>],
    first: bool,
    sums: &mut [Partial],
) where
    E: LaneElement,
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    debug_assert!((1..=most_blocks(size_of::<E>())).contains(&blocks.len()));
    debug_assert!(sums.len() >= blocks.len());
    if first {
        for block in blocks {
            let arrays = Arrays::<E, SLOTS>::of(&block.streams);
            for (slot, to) in R::STATE.iter().zip(arrays.state) {
                if slot.is_read(plan.pass) && to.cast_const().cast() != ZEROS.as_ptr() {
                    // SAFETY: the slot and its source hold `len` elements each and do not overlap, by
                    // the caller's contract, and `ZEROS` is not written.
                    unsafe { set_up(slot.init, &arrays, to, block.len) };
                }
            }
        }
    }
    let mut coeffs = [E::ZERO; COEFFS];
    for (coeff, from) in coeffs.iter_mut().zip(plan.coeffs) {
        *coeff = E::from_f64(from);
    }
    // One kernel for each pass and kind of decay that the rule knows; the others are not compiled.
    macro_rules! dispatch {
        ($($pass:expr),+; $decays:tt) => { $(dispatch!(@ $pass; $decays);)+ };
        (@ $pass:expr; [$($decay:expr),+]) => { $(
            if const { has::<E, R, COEFFS, SLOTS, SUMS>($pass, $decay) }
                && (plan.pass, plan.decay) == ($pass, $decay)
            {
                // SAFETY: this function's own contract is the kernel's.
                let kernel = unsafe {
                    Kernel::<E, R, COEFFS, SLOTS, SUMS, { $decay }, { $pass }>::new(
                        coeffs, blocks, sums,
                    )
                };
                return token.dispatch(kernel);
            }
        )+ };
    }
    dispatch!(
        pass::ALL,
        pass::UPDATE,
        pass::ADVANCE,
        pass::STATE | pass::MOMENT,
        pass::MOVE,
        pass::MEND | pass::MOMENT,
        pass::SUMS | pass::STATE,
        pass::STATE,
        pass::PARAMETER,
        pass::STATE | pass::PARAMETER;
        [decay::NONE, decay::COUPLED, decay::DECOUPLED]
    );
    unreachable!("{} knows no pass {} with decay {}", R::NAME, plan.pass, plan.decay)
}

/// Whether there is a kernel: of what the rule knows, and in f32, which may be kept rounded, of the two
/// halves of a step that moves the parameter by state.
const fn has<E, R, const COEFFS: usize, const SLOTS: usize, const SUMS: usize>(
    pass: u8,
    decay: u8,
) -> bool
where
    E: LaneElement,
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    let splits = R::MOVES_BY_STATE && size_of::<E>() == size_of::<f32>();
    let advances = pass == pass::STATE | pass::MOMENT || pass == pass::ADVANCE && SUMS > 0;
    knows::<R, COEFFS, SLOTS, SUMS>(pass, decay)
        || splits && R::DECAY.has(decay) && (advances || pass == pass::MOVE)
}

/// # Safety
/// `to` and the arrays hold `len` elements; `to` overlaps neither `p` nor `g`, and nobody else uses
/// it.
unsafe fn set_up<E: LaneElement, const SLOTS: usize>(
    init: Init,
    arrays: &Arrays<E, SLOTS>,
    to: *mut E,
    len: usize,
) {
    // SAFETY: this function's own contract; what is written need not have been initialised.
    unsafe {
        match init {
            Init::Zero => ptr::write_bytes(to, 0, len),
            Init::Constant(value) => (0..len).for_each(|i| to.add(i).write(E::from_f64(value))),
            Init::Parameter => ptr::copy_nonoverlapping(arrays.p, to, len),
            Init::Gradient => ptr::copy_nonoverlapping(arrays.g, to, len),
        }
    }
}

#[derive(Clone, Copy)]
struct Arrays<E, const SLOTS: usize> {
    p: *mut E,
    g: *const E,
    state: [*mut E; SLOTS],
}

impl<E, const SLOTS: usize> Arrays<E, SLOTS> {
    #[inline(always)]
    fn of(streams: &Streams) -> Self {
        let mut state = [ptr::null_mut(); SLOTS];
        for (slot, from) in state.iter_mut().zip(streams.state) {
            *slot = from.cast();
        }
        Arrays { p: streams.p.cast(), g: streams.g.cast(), state }
    }
}

/// Whether the gradient is loaded two rows ahead, for which there are registers. A load waits for an
/// earlier store that lies as far into its page, and small arrays often lie so that a row of the gradient does
/// where the parameter's row before it or the one before that does.
const fn loads_ahead<S: Simd, E: LaneElement>() -> bool {
    S::REGISTER_COUNT > 16 && Lanes::<S, E>::PER_ROW == 1
}

/// Rows for which memory is asked at once: few enough that requests do not wait for one another.
const FEW: usize = 8;

/// Blocks of one algorithm, element type and kind of decay, yet to meet an instruction set.
struct Kernel<
    'a,
    E,
    R,
    const COEFFS: usize,
    const SLOTS: usize,
    const SUMS: usize,
    const DECAY: u8,
    const PASS: u8,
> {
    coeffs: [E; COEFFS],
    blocks: &'a [Block<'a>],
    out: &'a mut [Partial],
    rule: PhantomData<R>,
}

impl<
    'a,
    E,
    R,
    const COEFFS: usize,
    const SLOTS: usize,
    const SUMS: usize,
    const DECAY: u8,
    const PASS: u8,
> Kernel<'a, E, R, COEFFS, SLOTS, SUMS, DECAY, PASS>
where
    E: LaneElement,
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    /// # Safety
    /// Until the kernel has run, the arrays of each block hold its elements, none overlaps another, and
    /// nobody else writes them or, but for `g`, reads them.
    unsafe fn new(coeffs: [E; COEFFS], blocks: &'a [Block<'a>], out: &'a mut [Partial]) -> Self {
        Kernel { coeffs, blocks, out, rule: PhantomData }
    }

    /// Asks for rows of what the pass will read there.
    #[inline(always)]
    fn ask(arrays: &Arrays<E, SLOTS>, rows: Range<usize>) {
        for row in rows {
            let at = row * ROW;
            prefetch_row(arrays.p.wrapping_add(at));
            // A parameter that moves by its state alone needs no gradient.
            if PASS & pass::MEND == 0 && PASS != pass::MOVE {
                prefetch_row(arrays.g.wrapping_add(at));
            }
            for slot in 0..SLOTS {
                if R::STATE[slot].is_read(PASS) {
                    prefetch_row(arrays.state[slot].wrapping_add(at));
                }
            }
        }
    }

    /// One register: its elements from `at` on, or those of them that a mask has. Their gradient is
    /// loaded, or has been.
    ///
    /// # Safety
    /// `arrays` hold these elements, as [`new`](Kernel::new) says of them.
    #[inline(always)]
    unsafe fn register<S: Simd>(
        lanes: Lanes<S, E>,
        coeffs: &Coeffs<E::Reg<S>, COEFFS>,
        arrays: &Arrays<E, SLOTS>,
        at: usize,
        mask: Option<E::Mask<S>>,
        g: Option<E::Reg<S>>,
        (run, register): (&mut [[E::Reg<S>; ROW]; SUMS], usize),
    ) {
        let load = |from: *const E| {
            let from = from.wrapping_add(at);
            // SAFETY: these elements are the caller's promise.
            unsafe { mask.map_or_else(|| lanes.load(from), |mask| lanes.load_some(mask, from)) }
        };
        let store = |to: *mut E, x| {
            let to = to.wrapping_add(at);
            // SAFETY: as above.
            unsafe { mask.map_or_else(|| lanes.store(to, x), |mask| lanes.store_some(mask, to, x)) }
        };
        let (p, g) = (load(arrays.p), g.unwrap_or_else(|| load(arrays.g)));
        let (mut state, mut sums) = ([p; SLOTS], [p; SUMS]);
        for slot in 0..SLOTS {
            if R::STATE[slot].is_read(PASS) {
                state[slot] = load(arrays.state[slot]);
            }
        }
        for sum in 0..SUMS {
            sums[sum] = run[sum][register];
        }
        let ((p, state), sums) =
            R::lane::<S, E, DECAY, PASS>(lanes, &coeffs.get(), g, (p, state), sums);
        if PASS & (pass::PARAMETER | pass::MEND) != 0 {
            store(arrays.p, p);
        }
        for slot in 0..SLOTS {
            if R::STATE[slot].is_written(PASS) {
                store(arrays.state[slot], state[slot]);
            }
        }
        for sum in 0..SUMS {
            run[sum][register] = sums[sum];
        }
    }

    /// Adds a run's sums to a block's.
    #[inline(always)]
    fn widen_all<S: Simd>(run: &[[E::Reg<S>; ROW]; SUMS], wide: &mut [Wide; SUMS]) {
        if PASS & pass::SUMS != 0 {
            for sum in 0..SUMS {
                widen::<S, E>(&run[sum], &mut wide[sum]);
            }
        }
    }

    /// One row: 16 elements from `at` on, in as many registers as they take.
    ///
    /// # Safety
    /// `arrays` hold 16 elements from `at` on, as [`new`](Kernel::new) says of them.
    #[inline(always)]
    unsafe fn row<S: Simd>(
        lanes: Lanes<S, E>,
        coeffs: &Coeffs<E::Reg<S>, COEFFS>,
        arrays: &Arrays<E, SLOTS>,
        at: usize,
        run: &mut [[E::Reg<S>; ROW]; SUMS],
    ) {
        for register in 0..Lanes::<S, E>::PER_ROW {
            let at = at + register * Lanes::<S, E>::LEN;
            // SAFETY: `register` counts the registers of the row, which the arrays hold.
            unsafe { Self::register(lanes, coeffs, arrays, at, None, None, (run, register)) };
        }
    }

    /// The last, shorter row. What its registers lack are zeros, which add nothing to a sum.
    ///
    /// # Safety
    /// `arrays` hold `len < 16` elements from `at` on, as [`new`](Kernel::new) says of them.
    #[inline(always)]
    unsafe fn tail<S: Simd>(
        lanes: Lanes<S, E>,
        coeffs: &Coeffs<E::Reg<S>, COEFFS>,
        arrays: &Arrays<E, SLOTS>,
        (at, len): (usize, usize),
        run: &mut [[E::Reg<S>; ROW]; SUMS],
    ) {
        if cfg!(not(target_arch = "x86_64")) {
            // SAFETY: this function's own contract.
            return unsafe { Self::tail_by_copies(lanes, coeffs, arrays, (at, len), run) };
        }
        for register in 0..len.div_ceil(Lanes::<S, E>::LEN) {
            let skipped = register * Lanes::<S, E>::LEN;
            let mask = lanes.first(Lanes::<S, E>::LEN.min(len - skipped));
            // SAFETY: the arrays hold `len` elements, and the mask has none beyond.
            unsafe {
                let at = at + skipped;
                Self::register(lanes, coeffs, arrays, at, Some(mask), None, (run, register));
            }
        }
    }

    /// The same where there are no masks, in arrays of its own. (Where there are, it is slower: the
    /// copies are written in pieces and read whole, which waits for the memory.)
    ///
    /// # Safety
    /// As [`tail`](Self::tail).
    #[inline(always)]
    unsafe fn tail_by_copies<S: Simd>(
        lanes: Lanes<S, E>,
        coeffs: &Coeffs<E::Reg<S>, COEFFS>,
        arrays: &Arrays<E, SLOTS>,
        (at, len): (usize, usize),
        run: &mut [[E::Reg<S>; ROW]; SUMS],
    ) {
        let (mut p, mut g, mut state) = ([E::ZERO; ROW], [E::ZERO; ROW], [[E::ZERO; ROW]; SLOTS]);
        // SAFETY: `len` elements from `at` on are the caller's promise; the copies hold 16.
        unsafe {
            ptr::copy_nonoverlapping(arrays.p.add(at), p.as_mut_ptr(), len);
            ptr::copy_nonoverlapping(arrays.g.add(at), g.as_mut_ptr(), len);
            for (slot, copy) in state.iter_mut().enumerate() {
                if R::STATE[slot].is_read(PASS) {
                    ptr::copy_nonoverlapping(arrays.state[slot].add(at), copy.as_mut_ptr(), len);
                }
            }
        }
        let mut pointers = [ptr::null_mut(); SLOTS];
        for (pointer, copy) in pointers.iter_mut().zip(&mut state) {
            *pointer = copy.as_mut_ptr();
        }
        let copies = Arrays { p: p.as_mut_ptr(), g: g.as_mut_ptr().cast_const(), state: pointers };
        // SAFETY: the copies hold 16 elements and are this function's own.
        unsafe { Self::row(lanes, coeffs, &copies, 0, run) };
        // SAFETY: as for the copies in; a parameter that is only read is written back unchanged.
        unsafe {
            ptr::copy_nonoverlapping(copies.p, arrays.p.add(at), len);
            for slot in 0..SLOTS {
                if R::STATE[slot].is_written(PASS) {
                    ptr::copy_nonoverlapping(copies.state[slot], arrays.state[slot].add(at), len);
                }
            }
        }
    }
}

impl<
    E,
    R,
    const COEFFS: usize,
    const SLOTS: usize,
    const SUMS: usize,
    const DECAY: u8,
    const PASS: u8,
> WithSimd for Kernel<'_, E, R, COEFFS, SLOTS, SUMS, DECAY, PASS>
where
    E: LaneElement,
    R: Rule<COEFFS, SLOTS, SUMS>,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Kernel { coeffs: scalars, blocks, out, .. } = self;
        let lanes = Lanes::<S, E>::new(simd);
        let zero = lanes.splat(E::ZERO);
        let mut coeffs = Aligned([zero; COEFFS]);
        for i in 0..COEFFS {
            coeffs.0[i] = lanes.splat(scalars[i]);
        }
        let coeffs = Coeffs::new(&coeffs, kept_coeffs::<S, E>(COEFFS, SUMS));
        let mut wide = [const { MaybeUninit::<[Wide; SUMS]>::uninit() }; BLOCKS];
        let most = const { most_blocks(size_of::<E>()) };
        // Where there can be but one, no loop.
        let blocks = &blocks[..if most == 1 { 1 } else { blocks.len().min(most) }];
        for (block, wide) in blocks.iter().zip(&mut wide) {
            let wide = wide.write([[0.0; ROW]; SUMS]);
            let arrays = Arrays::<E, SLOTS>::of(&block.streams);
            let ahead = block.ahead.unwrap_or(Ahead { streams: &block.streams, len: 0 });
            let (ahead, rows_ahead) = (Arrays::of(ahead.streams), ahead.len.div_ceil(ROW));
            let at_once = if rows_ahead == 0 { RUN } else { FEW };
            let (rows, rest) = (block.len / ROW, block.len % ROW);
            let mut row = 0;
            while row < rows {
                let end = rows.min(row + RUN);
                let mut run = [[zero; ROW]; SUMS];
                while row < end {
                    let few = end.min(row + at_once);
                    Self::ask(&ahead, row..few.min(rows_ahead));
                    if loads_ahead::<S, E>() {
                        // SAFETY: there is a row `few - 1`, as `row < few`.
                        let g = |row: usize| unsafe {
                            lanes.load(arrays.g.wrapping_add(row.min(few - 1) * ROW))
                        };
                        let (mut this, mut next) = (g(row), g(row + 1));
                        while row < few {
                            let then = g(row + 2);
                            let (at, given, to) = (row * ROW, Some(this), (&mut run, 0));
                            // SAFETY: as below, a register to a row.
                            unsafe { Self::register(lanes, &coeffs, &arrays, at, None, given, to) };
                            (this, next) = (next, then);
                            row += 1;
                        }
                    } else {
                        while row < few {
                            // SAFETY: `row < len/16`, so 16 elements from there on lie within the
                            // arrays that `new`'s caller vouched for.
                            unsafe { Self::row(lanes, &coeffs, &arrays, row * ROW, &mut run) };
                            row += 1;
                        }
                    }
                }
                Self::widen_all(&run, wide);
            }
            if rest > 0 {
                let mut run = [[zero; ROW]; SUMS];
                // SAFETY: what is left after whole rows, within the arrays that `new`'s caller
                // vouched for.
                unsafe { Self::tail(lanes, &coeffs, &arrays, (rows * ROW, rest), &mut run) };
                Self::widen_all(&run, wide);
            }
        }
        // At the end, since what folds them takes the registers.
        for (out, wide) in out.iter_mut().zip(&wide[..blocks.len()]) {
            // SAFETY: the loop above wrote so many.
            let wide = unsafe { wide.assume_init_ref() };
            for sum in 0..SUMS {
                out[sum] = fold(&wide[sum]);
            }
        }
    }
}
