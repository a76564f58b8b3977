//! Steps of tensors that are given one by one, and of those of the step before.

use crate::errors::adam;
use crate::run::Run;
use dadapt::{Error, TensorStep};

/// Tensors that are made as they are asked for: what they are refused for is what a list is, and what
/// their maker fails with ends the step before anything is written.
#[test]
fn tensors_made_one_by_one_are_those_of_a_list() {
    #[derive(Debug, PartialEq)]
    enum Failed {
        Making,
        Step(Error),
    }
    impl From<Error> for Failed {
        fn from(error: Error) -> Self {
            Failed::Step(error)
        }
    }
    let (mut listed, mut made) = (Run::<f32>::new(&adam()), Run::<f32>::new(&adam()));
    for run in [&mut listed, &mut made] {
        run.add(0, vec![1.0, 2.0, 3.0]);
        run.add(0, vec![4.0; 2]);
    }
    let (first, second) = ([0.5f32, -1.0, 2.0], [1.0f32; 2]);
    let mut step = |len: usize, fails: bool| {
        let ids = &made.ids;
        let arrays = made.p.iter_mut().enumerate();
        let done = made.optimizer.step_each(|step| {
            for (i, p) in arrays {
                let g = if i == 0 { &first[..] } else { &second[..len] };
                // SAFETY: they are borrowed until the step has returned.
                unsafe { step.add(&TensorStep::new(ids[i], p, g))? };
            }
            if fails { Err(Failed::Making) } else { Ok(()) }
        });
        done.map(|_| made.bits())
    };
    let started = step(2, false).unwrap();
    listed.step(&[Some(&first), Some(&second)]).unwrap();
    assert_eq!(started, listed.bits());
    assert_eq!(step(2, true), Err(Failed::Making));
    assert!(matches!(step(1, false), Err(Failed::Step(Error::Length { given: 1, .. }))));
    let panics = std::panic::AssertUnwindSafe(|| step(3, false));
    assert!(std::panic::catch_unwind(panics).is_err(), "there are but 2");
    // None of them has left anything behind.
    listed.step(&[Some(&first), Some(&second)]).unwrap();
    assert_eq!(step(2, false), Ok(listed.bits()));
}

/// A step of the tensors of the one before is not had where that has set up state.
#[test]
fn what_was_given_before_need_not_be_given_again() {
    let (mut given, mut again) = (Run::<f32>::new(&adam()), Run::<f32>::new(&adam()));
    // SAFETY: there was no step.
    assert!(unsafe { again.optimizer.step_again() }.is_none());
    for run in [&mut given, &mut again] {
        run.add(0, vec![1.0, 2.0, 3.0]);
        run.add(0, vec![4.0; 2]);
    }
    let g = [&[0.5f32, -1.0, 2.0][..], &[1.0, 0.5][..]];
    let mut raw = Vec::new();
    for ((id, p), g) in again.ids.iter().zip(&mut again.p).zip(g) {
        let (len, p, g) = (g.len(), p.as_mut_ptr().cast(), g.as_ptr().cast());
        // SAFETY: so many elements are there for as long as the steps last.
        raw.push(unsafe { TensorStep::from_raw(*id, None, len, p, g, &[]) });
    }
    for i in 0..6 {
        given.step(&g.map(Some)).unwrap();
        if i < 2 {
            again.optimizer.step(&mut raw).unwrap();
            if i == 0 {
                // SAFETY: the step before succeeded, and its arrays are still there.
                assert!(unsafe { again.optimizer.step_again() }.is_none());
            }
        } else {
            // SAFETY: as above.
            unsafe { again.optimizer.step_again() }.unwrap().unwrap();
        }
        assert_eq!(again.bits(), given.bits());
    }
}

/// Whoever gives tensors one by one may go on without one that is refused.
#[test]
fn a_refused_tensor_takes_no_part() {
    let (mut listed, mut made) = (Run::<f32>::new(&adam()), Run::<f32>::new(&adam()));
    for run in [&mut listed, &mut made] {
        run.add(0, vec![1.0, 2.0, 3.0]);
        run.add(0, vec![4.0; 2]);
    }
    let g = [0.5f32, -1.0, 2.0];
    for _ in 0..3 {
        listed.step(&[Some(&g), None]).unwrap();
        let (ids, [p, q]) = (&made.ids, &mut made.p[..]) else { unreachable!() };
        let done = made.optimizer.step_each::<Error>(|step| {
            // SAFETY: they are borrowed until the step has returned.
            unsafe {
                let refused = step.add(&TensorStep::new(ids[1], q, &g));
                assert!(matches!(refused, Err(Error::Length { given: 3, .. })));
                let again = step.add(&TensorStep::new(ids[1], q, &g[..2]));
                assert!(matches!(again, Err(Error::TensorTwice { .. })));
                step.add(&TensorStep::new(ids[0], p, &g))
            }
        });
        done.unwrap();
        assert_eq!(made.bits(), listed.bits());
    }
}
