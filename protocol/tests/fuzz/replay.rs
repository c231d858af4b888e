//! What a fuzzer found to lead to different places, replayed and varied a little.

use std::fs;
use std::path::{Path, PathBuf};

/// Variations of each input of a corpus.
const VARIATIONS: usize = 40;

/// The inputs in a folder, and an empty one.
pub(crate) fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder).expect("each target has a corpus");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|path| fs::read(path).expect("a file of the corpus")).chain([Vec::new()]).collect()
}

/// Feeds a target with its corpus, and with up to so many variations of that.
pub(crate) fn replay(target: fn(&[u8]), corpus: &[Vec<u8>], variations: usize) {
    let mut random = 1;
    for (index, input) in corpus.iter().enumerate() {
        target(input);
        for _ in 0..VARIATIONS.min(variations / corpus.len()) {
            let other = &corpus[(index + usize::try_from(next(&mut random) % 1_000).expect("small")) % corpus.len()];
            target(&vary(input, other, &mut random));
        }
    }
}

/// The next number after `state`: the sequence of splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Changes a byte or a few, cuts, or puts the end of another input behind the beginning of this.
fn vary(input: &[u8], other: &[u8], random: &mut u64) -> Vec<u8> {
    let mut varied = input.to_vec();
    let mut place = |length: usize| usize::try_from(next(random) % (length as u64 + 1)).expect("within a length");
    match place(3) {
        0 => varied.truncate(place(varied.len())),
        1 => {
            varied.truncate(place(varied.len()));
            varied.extend_from_slice(&other[place(other.len())..]);
        }
        _ => {
            for _ in 0..=place(3) {
                let at = place(varied.len());
                let byte = [0, 1, 0x7f, 0x80, 0xff][place(4)];
                match varied.get_mut(at) {
                    Some(changed) => *changed = byte,
                    None => varied.push(byte),
                }
            }
        }
    }
    varied
}
