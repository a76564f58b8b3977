//! A step allocates nothing on the calling thread once the first has been made.
//!
//! One test, in a program of its own: it counts what its global allocator is asked for.

use dadapt::{Algorithm, Config, GroupId, Key, NonFinite, Optimizer, TensorStep};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What an option of each algorithm that has it changes about a step's memory.
const KINDS: [(Key, f64); 4] = [
    (Key::WeightDecay, 0.1),
    // The slice's copies.
    (Key::SliceP, 3.0),
    // An estimate, and its jobs and plans, a group.
    (Key::DPerGroup, 1.0),
    // Prodigy: two sweeps in every step, where else a mend is planned or not.
    (Key::Beta1, 0.0),
];

#[test]
fn steps_after_the_first_do_not_allocate() {
    for &algorithm in Algorithm::ALL {
        for policy in [NonFinite::Reject, NonFinite::Skip, NonFinite::Propagate] {
            for (key, value) in KINDS {
                if algorithm.options().iter().any(|(k, _)| *k == key) {
                    let mut config = Config::new(algorithm);
                    config.set(Key::NumThreads, 1).unwrap().set(Key::NonFinite, policy).unwrap();
                    config.set(key, value).unwrap();
                    check(config, &format!("{algorithm} {policy:?} {key} {value}"));
                }
            }
        }
    }
}

fn check(mut config: Config, what: &str) {
    let second = config.add_group();
    let mut optimizer = Optimizer::new(&config).unwrap();
    let lens = [1, 17, 5000, 200_000];
    let mut p = lens.map(|len| vec![1.0f32; len]);
    let g = lens.map(|len| vec![0.5f32; len]);
    let groups = [GroupId::FIRST, second, second, GroupId::FIRST];
    let mut ids = Vec::new();
    for ((len, group), name) in lens.iter().zip(groups).zip(["a", "b", "c", "d"]) {
        ids.push(optimizer.add_tensor(group, name, dadapt::DType::F32, *len).unwrap());
    }
    for step in 0..6 {
        let mut at = ids.iter().zip(&mut p).zip(&g);
        let mut tensors: [TensorStep; 4] = std::array::from_fn(|_| {
            let ((id, p), g) = at.next().unwrap();
            TensorStep::new(*id, p, g)
        });
        match step {
            3 => optimizer.set_lr(second, 0.0).unwrap(),
            5 => optimizer.freeze().unwrap(),
            _ => {}
        }
        let before = COUNT.get();
        // The last steps name fewer tensors.
        let report = optimizer.step(&mut tensors[..if step >= 4 { 2 } else { 4 }]);
        let count = COUNT.get() - before;
        assert!(report.unwrap().applied);
        match step {
            0 => assert!(count > 0, "MISTRUSTED: {what}: the counter does not count"),
            _ => assert_eq!(count, 0, "{what} step {step}"),
        }
    }
}
