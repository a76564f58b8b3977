//! A sum of f64 that carries what rounding lost.

/// Neumaier's variant of Kahan's summation.
#[derive(Default)]
pub struct Sum {
    total: f64,
    lost: f64,
}

impl Sum {
    pub fn add(&mut self, term: f64) {
        let next = self.total + term;
        self.lost += if self.total.abs() >= term.abs() {
            (self.total - next) + term
        } else {
            (term - next) + self.total
        };
        self.total = next;
    }

    pub fn value(&self) -> f64 {
        self.total + self.lost
    }
}
