//! Fashion-MNIST as Debian packages it: gzipped IDX files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::set::Set;

/// Where Debian's package puts it.
pub const DIR: &str = "/usr/share/datasets/fashion-mnist";
pub const INPUTS: usize = 28 * 28;
const CLASSES: u8 = 10;

/// (training set, test set)
pub fn load(dir: &Path) -> Result<(Set, Set), String> {
    Ok((part(dir, "train", 60_000)?, part(dir, "t10k", 10_000)?))
}

fn part(dir: &Path, name: &str, count: usize) -> Result<Set, String> {
    let pixels = items(dir, &format!("{name}-images-idx3-ubyte.gz"), &[count, 28, 28])?;
    let labels = items(dir, &format!("{name}-labels-idx1-ubyte.gz"), &[count])?;
    if let Some(label) = labels.iter().find(|label| **label >= CLASSES) {
        return Err(format!("{}: a label is {label}", dir.display()));
    }
    Ok(Set {
        inputs: INPUTS,
        pixels: pixels.iter().map(|pixel| f32::from(*pixel) / 255.0).collect(),
        labels: labels.iter().map(|label| usize::from(*label)).collect(),
    })
}

/// The bytes of a file of these dimensions. Its header is 0, 0, 8 (bytes), how many dimensions, and
/// each as a big-endian u32.
fn items(dir: &Path, file: &str, dimensions: &[usize]) -> Result<Vec<u8>, String> {
    let path = dir.join(file);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let packed = File::open(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "{} is not there: `apt-get install dataset-fashion-mnist` brings it, --data DIR names \
             another folder with the four files",
            path.display()
        ),
        _ => failed(error),
    })?;
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).map_err(failed)?;

    let mut header = vec![0, 0, 8, dimensions.len() as u8];
    header.extend(dimensions.iter().flat_map(|n| (*n as u32).to_be_bytes()));
    let items = bytes.strip_prefix(header.as_slice()).map(<[u8]>::to_vec);
    items.filter(|items| items.len() == dimensions.iter().product::<usize>()).ok_or_else(|| {
        format!("{}: not an IDX file of bytes of dimensions {dimensions:?}", path.display())
    })
}
