//! Labelled images.

use crate::data;

/// Image i is `pixels[inputs * i..inputs * (i + 1)]`, each pixel in 0..=1.
pub struct Set {
    pub inputs: usize,
    pub pixels: Vec<f32>,
    pub labels: Vec<usize>,
}

impl Set {
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn image(&self, i: usize) -> &[f32] {
        &self.pixels[self.inputs * i..self.inputs * (i + 1)]
    }
}

impl From<data::Set> for Set {
    fn from(digits: data::Set) -> Self {
        Set {
            inputs: data::PIXELS,
            pixels: (0..digits.len()).flat_map(|i| digits.image(i)).copied().collect(),
            labels: (0..digits.len()).map(|i| digits.digit(i)).collect(),
        }
    }
}
