//! The estimate `d`: a few f64 scalars, brought up to date by the sums of a step.

use super::report::{Movement, StepReport, Sweeps};
use crate::algorithm::{Descriptor, Estimate, MAX_SUMS, Scalars, Target, Totals};
use crate::key::{Key, Options};

/// One estimate `d`, of all groups or of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimator {
    pub(super) d: f64,
    /// Steps that made progress.
    pub(super) k: u64,
    pub(super) totals: Totals,
    /// Norm of the first gradients, where the algorithm needs it.
    pub(super) g0_norm: f64,
    /// Whether the last step changed `d`.
    pub(super) d_moved: bool,
    /// Of the last step.
    pub(super) report: StepReport,
}

impl Estimator {
    pub(super) fn new(d0: f64) -> Self {
        let report = StepReport {
            k: 0,
            d: d0,
            d_hat: d0,
            dlr: 0.0,
            numerator: 0.0,
            denominator: 0.0,
            grad_norm: f64::NAN,
            applied: false,
            movement: Movement::NoProgress,
            sweeps: Sweeps::None,
            overflows: 0,
        };
        Estimator { d: d0, k: 0, totals: Totals::default(), g0_norm: 0.0, d_moved: false, report }
    }

    pub(super) fn scalars<'a>(&self, lr: f64, options: &'a Options) -> Scalars<'a> {
        let Estimator { d, k, g0_norm, .. } = *self;
        Scalars { d, next_d: d, k, steps: 0, lr, g0_norm, options }
    }

    /// Reports a step that changed nothing.
    pub(super) fn stay(&mut self, movement: Movement) {
        self.report = StepReport { k: self.k, d: self.d, ..Estimator::new(self.d).report };
        self.report.movement = movement;
    }

    /// Reports a step of an algorithm or optimizer that estimates nothing.
    pub(super) fn count(&mut self, dlr: f64, grad_norm: f64) {
        self.stay(Movement::Fixed);
        self.k += 1;
        self.d_moved = false;
        self.report = StepReport {
            k: self.k,
            dlr,
            grad_norm,
            applied: true,
            sweeps: Sweeps::One,
            ..self.report
        };
    }

    /// Brings `d` up to date by the sums of a step; it never falls.
    pub(super) fn update(
        &mut self,
        descriptor: &Descriptor,
        scalars: &Scalars,
        grad_norm: f64,
        sums: &[f64; MAX_SUMS],
    ) {
        self.stay(Movement::NoProgress);
        self.d_moved = false;
        self.report.dlr = (descriptor.gamma)(scalars);
        self.report.grad_norm = grad_norm;
        self.report.applied = true;
        self.report.sweeps = Sweeps::One;
        let mut totals = self.totals;
        let estimate = (descriptor.estimate)(scalars, &mut totals, sums);
        let Some(Estimate { numerator, denominator, d_hat }) = estimate else { return };
        self.report = StepReport { numerator, denominator, d_hat, ..self.report };
        self.report.movement = if d_hat.is_finite() && totals.iter().all(|x| x.is_finite()) {
            let target = (descriptor.target)(scalars, &mut totals, d_hat);
            self.totals = totals;
            self.advance(target, scalars.options.get(Key::DCap))
        } else {
            Movement::NonFinite
        };
        self.k += 1;
        self.report.k = self.k;
        self.report.d = self.d;
    }

    /// Adds the sums of a step that was aborted to totals over all steps, which go with the state that
    /// it has left. Means over steps know nothing of such a step.
    pub(super) fn keep_totals(
        &mut self,
        descriptor: &Descriptor,
        scalars: &Scalars,
        sums: &[f64; MAX_SUMS],
    ) {
        let mut totals = self.totals;
        if descriptor.accumulates
            && (descriptor.estimate)(scalars, &mut totals, sums).is_some()
            && totals.iter().all(|x| x.is_finite())
        {
            self.totals = totals;
        }
    }

    /// `d <- max(d, min(target, limit, cap))`
    fn advance(&mut self, target: Target, cap: f64) -> Movement {
        if target.d <= self.d {
            return Movement::NotAbove;
        }
        let before = self.d;
        self.d = target.d.min(target.limit).min(cap).max(self.d);
        self.d_moved = self.d > before;
        match (target.d > target.limit.min(cap), target.limit <= cap) {
            (false, _) => Movement::Grew,
            (true, true) => Movement::GrowthLimited,
            (true, false) => Movement::Capped,
        }
    }

    /// Takes back what the last step did to `d`, which the tensors' type cannot hold.
    pub(super) fn take_back(&mut self, d: f64) {
        self.d = d;
        self.d_moved = false;
        self.report.d = d;
        self.report.movement = Movement::NonFinite;
    }
}
