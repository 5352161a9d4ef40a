//! Places in a codebook, and levels: bit by bit, each bit's probability mixed from three guesses.
//!
//! Weights that share a unit or an input have similar signs and sizes, and those of neighbouring pixels even more. So a
//! bit is foretold by how often it was set at its place in the binary tree of symbols: at all, after such a symbol
//! before it in its row, and under such a symbol in its column. The guesses are mixed as those for positions are.

use super::blend::Blend;
use crate::positions::mixed::Estimate;
use crate::range::RangeStream;

/// The symbols, each below `alphabet` ≤ 256, that stand at these rising positions of a matrix with rows of this length;
/// a reader fills `symbols`. What it reads from a stream that no writer wrote may be beyond the alphabet.
pub(super) fn code_symbols<S: RangeStream>(
    stream: &mut S,
    alphabet: usize,
    row: usize,
    positions: &[u32],
    symbols: &mut Vec<u32>,
) {
    symbols.resize(positions.len(), 0);
    let depth = usize::BITS - (alphabet - 1).leading_zeros();
    let nodes = 1 << depth;
    let mut alone = vec![Estimate::even(); nodes];
    let mut after = vec![Estimate::even(); AFTER * nodes];
    let mut under = vec![Estimate::even(); UNDER * nodes];
    let mut blends = vec![Blend::<3>::new(); nodes];
    let mut columns = vec![0u8; row];
    let (mut last, mut last_class) = (u32::MAX, 0);
    for (symbol, &position) in symbols.iter_mut().zip(positions) {
        let column = position as usize % row;
        let is_first = last == u32::MAX || (position - last) as usize > column;
        let context = match position.wrapping_sub(last) {
            _ if is_first => 0,
            1 => last_class,
            _ => last_class + CLASSES,
        };
        let after = &mut after[context * nodes..][..nodes];
        let under = &mut under[usize::from(columns[column]) * nodes..][..nodes];
        let mut node = 1;
        for level in (0..depth).rev() {
            let guesses = [alone[node], after[node], under[node]];
            let p = blends[node].mix(guesses);
            let bit = stream.choice(p, *symbol >> level & 1 != 0);
            blends[node].learn(bit);
            alone[node].learn(bit);
            after[node].learn(bit);
            under[node].learn(bit);
            node = node << 1 | usize::from(bit);
        }
        *symbol = (node & (nodes - 1)) as u32;
        last_class = 1 + (*symbol as usize).min(alphabet - 1) * CLASSES / alphabet;
        columns[column] = last_class as u8;
        last = position;
    }
}

/// Classes of a symbol that went before, by its size; 0 stands for none.
const CLASSES: usize = 8;
/// Nothing before in the row, a neighbour, or something farther back.
const AFTER: usize = 1 + 2 * CLASSES;
const UNDER: usize = 1 + CLASSES;
