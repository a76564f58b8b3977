//! What no golden file says: plain Lion and Adan worked out by hand, a d that is capped, and one
//! that is frozen. A module of `oracle_vs_golden`, not of the oracle.

use crate::oracle::{ALGORITHMS, Algorithm, Oracle};
use crate::{adapts, distance, small};

/// A decay of 0.02 a step and a step of 0.2, then: u is 1, -1, 0; m is a hundredth of g. Of the
/// second step, 0.9 * m + 0.1 * g is 0.009 - 0.008, -0.027 + 0.040 and 0: the first against its g.
#[test]
fn plain_lion_by_hand() {
    let mut oracle = Oracle::new(Algorithm::named("plain_lion"), 1);
    for (option, value) in [("lr", 0.1), ("weight_decay", 0.2), ("layer_scale", 2.0)] {
        oracle.set(None, option, value);
    }
    oracle.add(0, vec![0.5, -1.0, 1.0]);
    oracle.step(&[Some(&[1.0, -3.0, 0.0])]);
    close(&oracle.tensors[0].p, &[0.49 - 0.2, -0.98 + 0.2, 0.98]);
    close(&oracle.tensors[0].m, &[0.01, -0.03, 0.0]);
    oracle.step(&[Some(&[-0.08, 0.4, 0.0])]);
    close(&oracle.tensors[0].p, &[0.29 * 0.98 - 0.2, -0.78 * 0.98 - 0.2, 0.98 * 0.98]);
    close(&oracle.tensors[0].m, &[0.0099 - 0.0008, -0.0297 + 0.004, 0.0]);
    assert_eq!((oracle.k, oracle.d), (2, 1.0));
}

/// Gradients 4 and 8. In a first step the corrections undo the means, so q is g / (|g| + eps). In
/// the second, m is 1/2 * 2 + 1/2 * 8 = 5, of which 3/4 are in; e is 3/4 * (8 - 4) = 3, of which
/// 15/16 are in; v is 3/4 * 4 + 1/4 * (8 + 1/4 * 4)^2 = 93/4, of which 7/16 are in.
#[test]
fn plain_adan_by_hand() {
    let first_q = |g: f64| g / (g + 1.0);
    let second_q = (20.0 / 3.0 + 0.25 * 3.2) / ((372.0_f64 / 7.0).sqrt() + 1.0);
    for no_prox in [0.0, 1.0] {
        let mut oracle = Oracle::new(Algorithm::named("plain_adan"), 1);
        for (option, value) in [
            ("beta1", 0.5),
            ("beta2", 0.25),
            ("beta3", 0.75),
            ("eps", 1.0),
            ("lr", 0.1),
            ("weight_decay", 0.5),
            ("layer_scale", 2.0),
            ("no_prox", no_prox),
        ] {
            oracle.set(None, option, value);
        }
        let moved = |p: f64, q: f64| {
            if no_prox == 1.0 { 0.95 * p - 0.2 * q } else { (p - 0.2 * q) / 1.05 }
        };
        oracle.add(0, vec![1.0]);
        oracle.add(0, vec![3.0]); // starts a step later
        oracle.step(&[Some(&[4.0]), None]);
        let first = moved(1.0, first_q(4.0));
        close(&oracle.tensors[0].p, &[first]);
        oracle.step(&[Some(&[8.0]), Some(&[8.0])]);
        close(&oracle.tensors[0].p, &[moved(first, second_q)]);
        close(&oracle.tensors[1].p, &[moved(3.0, first_q(8.0))]);
        let late = &oracle.tensors[1];
        assert_eq!((late.steps, &late.e[..], &late.h[..]), (1, &[0.0][..], &[8.0][..]));
    }
}

/// A capped d is the other one until that exceeds the cap, at which it stays.
#[test]
fn d_grows_to_its_cap() {
    for algorithm in ALGORITHMS.iter().filter(|algorithm| adapts(**algorithm)) {
        let mut free = small(*algorithm);
        let mut capped = free.clone();
        let mut above = free.clone();
        let cap = 1.4 * free.d;
        capped.set(None, "d_cap", cap);
        above.set(None, "d_cap", 0.5 * free.d);
        while free.d <= cap {
            assert!(free.k < 1000, "MISTRUSTED: {}: d did not grow", algorithm.name);
            let gradients = gradients(free.k);
            free.step(&gradients.each_ref().map(|g| Some(&g[..])));
            let d = capped.step(&gradients.each_ref().map(|g| Some(&g[..])));
            assert_eq!(d, free.d.min(cap), "{}", algorithm.name);
            let d = above.step(&gradients.each_ref().map(|g| Some(&g[..])));
            assert_eq!(d, above.shared.d0, "{}: d falls to no cap", algorithm.name);
        }
        assert!(capped.d_hat > cap, "{}: the estimate has no cap", algorithm.name);
        capped.set(None, "d_cap", f64::INFINITY);
        for turn in 0..1000 {
            capped.step(&gradients(capped.k + turn).each_ref().map(|g| Some(&g[..])));
        }
        assert!(capped.d > cap, "{}: lifted", algorithm.name);
    }
}

/// A run whose d is frozen is the one that is capped at the same d, but for what d follows from.
#[test]
fn frozen_d_is_a_capped_one_without_statistics() {
    for algorithm in ALGORITHMS {
        for first in [0, 12] {
            let mut frozen = small(*algorithm);
            frozen.set(None, "weight_decay", 0.1);
            for _ in 0..first {
                frozen.step(&gradients(frozen.k).each_ref().map(|g| Some(&g[..])));
            }
            let mut capped = frozen.clone();
            capped.set(None, "d_cap", capped.d);
            frozen.set(None, "freeze", 1.0);
            let before = frozen.clone();
            for _ in 0..20 {
                let [left, right] = gradients(frozen.k);
                // The second tensor pauses, and starts late in a run that starts frozen.
                let given = [Some(&left[..]), Some(&right[..]).filter(|_| frozen.k % 3 == 2)];
                assert_eq!(frozen.step(&given), capped.step(&given), "{}", algorithm.name);
                assert!(frozen.d_hat.is_nan());
            }
            let name = algorithm.name;
            assert_eq!((frozen.k, frozen.d), (capped.k, before.d), "{name}");
            assert_eq!(frozen.k, first + 20, "{name}");
            let statistics = |it: &Oracle| [it.numerator, it.denominator, it.gsq, it.sk_sq];
            assert_eq!(statistics(&frozen), statistics(&before), "{name}");
            for (i, (new, other)) in frozen.tensors.iter().zip(&capped.tensors).enumerate() {
                let moving = [(&new.p, &other.p), (&new.m, &other.m), (&new.v, &other.v)];
                assert!(moving.into_iter().all(|(left, right)| left == right), "{name}");
                assert_eq!((&new.e, &new.h), (&other.e, &other.h), "{name}");
                assert_ne!(new.p, before.tensors[i].p, "MISTRUSTED: {name}: nothing moved");
                let moves_p = ["sgd", "adagrad"].contains(&name);
                let s = if moves_p { &other.s } else { &before.tensors[i].s };
                assert_eq!(&new.s, s, "{name}");
            }
        }
    }
}

/// Nothing divides by a sum any more, but for SGD by the norm of the first gradient.
#[test]
fn frozen_step_needs_a_tensor_alone() {
    for algorithm in ALGORITHMS {
        let mut oracle = small(*algorithm);
        oracle.set(None, "freeze", 1.0);
        oracle.step(&[None, None]);
        assert_eq!(oracle.k, 0, "{}", algorithm.name);
        oracle.step(&[Some(&[0.0, 0.0]), None]);
        assert_eq!(oracle.k, u64::from(algorithm.name != "sgd"), "{}", algorithm.name);
        let old = oracle.clone();
        oracle.step(&[Some(&[3.0, 4.0]), None]);
        assert_eq!(oracle.k, old.k + 1, "{}", algorithm.name);
        assert_ne!(oracle.tensors[0].p, old.tensors[0].p, "{}", algorithm.name);
        oracle.step(&[Some(&[0.0, 0.0]), None]);
        assert_eq!(oracle.k, old.k + 2, "{}", algorithm.name);
        oracle.set(Some(0), "lr", 0.0);
        oracle.step(&[Some(&[3.0, 4.0]), None]);
        assert_eq!(oracle.k, old.k + 2, "{}: a group at lr 0 takes no part", algorithm.name);
    }
}

/// Of one direction, so that every d grows.
fn gradients(step: u64) -> [[f64; 2]; 2] {
    let turn = step as f64;
    [[1.5 + turn.sin(), -2.0], [0.3 * turn.cos() + 1.0, 0.5]]
}

fn close(values: &[f64], expected: &[f64]) {
    assert!(distance(values, expected) < 1e-15, "{values:?}, not {expected:?}");
}
