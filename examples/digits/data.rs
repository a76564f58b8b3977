//! The digits: read, scaled, shuffled and split.

use std::fs;
use std::path::Path;

use crate::rng::Rng;

pub const PIXELS: usize = 64;
pub const CLASSES: usize = 10;
const LINES: usize = 1797;
/// Lines kept for training; the other 360 are the test set.
const TRAIN: usize = 1437;

/// Images and their digits: image i is `pixels[64 * i..64 * (i + 1)]`, each pixel in 0..=1.
#[derive(Default)]
pub struct Set {
    pixels: Vec<f32>,
    digits: Vec<usize>,
}

impl Set {
    pub fn len(&self) -> usize {
        self.digits.len()
    }

    pub fn image(&self, i: usize) -> &[f32] {
        &self.pixels[PIXELS * i..PIXELS * (i + 1)]
    }

    pub fn digit(&self, i: usize) -> usize {
        self.digits[i]
    }

    fn push(&mut self, image: &[f32], digit: usize) {
        self.pixels.extend_from_slice(image);
        self.digits.push(digit);
    }
}

/// Reads the file and deals its lines, in random order, to (training set, test set).
pub fn load(path: &Path, rng: &mut Rng) -> Result<(Set, Set), String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut all = Set::default();
    for (i, line) in text.lines().enumerate() {
        let (image, digit) =
            parse(line).map_err(|e| format!("{}:{}: {e}", path.display(), i + 1))?;
        all.push(&image, digit);
    }
    if all.len() != LINES {
        return Err(format!("{}: {} lines, {LINES} expected", path.display(), all.len()));
    }

    let mut order: Vec<usize> = (0..all.len()).collect();
    rng.shuffle(&mut order);
    let (mut train, mut test) = (Set::default(), Set::default());
    for (place, &i) in order.iter().enumerate() {
        let set = if place < TRAIN { &mut train } else { &mut test };
        set.push(all.image(i), all.digit(i));
    }
    Ok((train, test))
}

/// One line: 64 pixels in 0..=16, then the digit. Sixteenths are exact in f32.
fn parse(line: &str) -> Result<(Vec<f32>, usize), String> {
    let fields: Vec<&str> = line.split(',').collect();
    if fields.len() != PIXELS + 1 {
        return Err(format!("{} fields, {} expected", fields.len(), PIXELS + 1));
    }
    let number = |field: &str, max: usize| match field.parse::<usize>() {
        Ok(value) if value <= max => Ok(value),
        _ => Err(format!("'{field}' is not an integer from 0 to {max}")),
    };
    let mut image = Vec::with_capacity(PIXELS);
    for field in &fields[..PIXELS] {
        image.push(number(field, 16)? as f32 / 16.0);
    }
    Ok((image, number(fields[PIXELS], CLASSES - 1)?))
}
