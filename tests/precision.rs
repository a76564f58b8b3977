//! What shorter types do to training: the digits, by D-Adapt Adam, as `examples/fashion` trains them.

#[path = "../examples/digits/data.rs"]
mod data;
#[allow(dead_code)] // what only the example's command line and tables use
#[path = "../examples/fashion/mlp.rs"]
mod mlp;
#[allow(dead_code)] // as above
#[path = "../examples/fashion/modes.rs"]
mod modes;
#[path = "../examples/digits/rng.rs"]
mod rng;
#[path = "../examples/fashion/set.rs"]
mod set;
#[allow(dead_code)] // as above
#[path = "../examples/fashion/train.rs"]
mod train;

use mlp::Shape;
use modes::Mode;
use rng::Rng;
use set::Set;
use train::{Task, deviation};

const SEEDS: u64 = 4;
const D0: f64 = 1e-6;

/// Test accuracy over four seeds, 1440 images in all, is within 1.5 points of f32's: single seeds differ by
/// up to one either way in all modes.
///
/// `d` is within 5 % of f32's on the same gradients: what state alone does. Where a mode makes its own
/// gradients, paths part, and `d` stops its growth a few steps of 2 % earlier or later. It does so with
/// state in f32 too, where parameters are rounded and have a master copy (`master`): of these two
/// paths without rounded state, `d` is within 5 % of one, and within 10 % of f32's (9.4 % is what
/// `master` is off in 50 seeds).
#[test]
fn shorter_types_train_as_f32_does() {
    let names = ["f32", "compact", "bf16", "q8", "master", "rounded", "least"];
    let modes = names.map(|name| Mode::parse(name).unwrap());
    let mut accuracy = [0.0; 7];
    for seed in 1..=SEEDS {
        let mut rng = Rng::new(seed);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv");
        let (train, test) = data::load(path.as_ref(), &mut rng).unwrap();
        let (train, test) = (Set::from(train), Set::from(test));
        let shape = Shape { inputs: data::PIXELS, hidden: 32, classes: data::CLASSES };
        let initial = shape.initial(&mut rng);
        let (train, test) = (&train, &test);
        let task = Task {
            train,
            test,
            shape,
            initial,
            rng,
            epochs: 32,
            batch: 32,
            growth_rate: 1.02,
            seed,
        };

        let base = task.run(&modes[0], &modes, || {}).unwrap();
        let master = modes.iter().find(|mode| mode.name == "master").unwrap();
        let rounded = task.run(master, &[], || {}).unwrap();
        assert!(
            base.train_loss < 0.05 && base.d.last().unwrap() / D0 > 1000.0,
            "MISTRUSTED: no training"
        );
        for (i, mode) in modes.iter().enumerate() {
            let run = task.run(mode, &[], || {}).unwrap();
            accuracy[i] += run.test_accuracy / SEEDS as f64;
            let same_gradients = deviation(&base.shadows[i].d, &base.d, D0);
            let own = deviation(&run.d, &base.d, D0);
            println!(
                "{seed} {:<8} loss {:.4}, accuracy {:.4}, d off by {same_gradients:.4} and {own:.4}",
                mode.name, run.train_loss, run.test_accuracy
            );
            assert!(same_gradients <= 0.05, "{}, seed {seed}: {same_gradients}", mode.name);
            let of_either = own.min(deviation(&run.d, &rounded.d, D0));
            assert!(own <= 0.10 && of_either <= 0.05, "{}, seed {seed}: {own}", mode.name);
        }
    }
    for (name, accuracy_of) in names.iter().zip(accuracy) {
        let loss = accuracy[0] - accuracy_of;
        assert!(loss <= 0.015, "{name}: accuracy {accuracy_of} and not {}", accuracy[0]);
    }
}
