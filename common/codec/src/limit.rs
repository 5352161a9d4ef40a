//! What coding could cost at best: the yardsticks of the tests and benches, in bits.

/// Entropy of a coin that shows heads with probability `p`: h(p) = −p·log2 p − (1−p)·log2(1−p).
pub fn binary_entropy(p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return 0.0;
    }
    -p * p.log2() - (1.0 - p) * (-p).ln_1p() / std::f64::consts::LN_2
}

/// Bits without which symbols that were counted so often cannot be told in any order: Σ c·log2(Σ c / c).
pub fn bits_of_symbols(counts: impl IntoIterator<Item = u64>) -> f64 {
    let counts: Vec<f64> = counts.into_iter().filter(|&count| count > 0).map(|count| count as f64).collect();
    let all: f64 = counts.iter().sum();
    counts.iter().map(|count| count * (all / count).log2()).sum()
}

/// Bits without which `n` independent normal variables cannot be told with this squared error, relative to their
/// squares: −n/2·log2(error) (Cover and Thomas, theorem 10.3.2); 0 where the error is no less than telling nothing has.
pub fn bits_of_normals(n: usize, error: f64) -> f64 {
    if error >= 1.0 { 0.0 } else { -0.5 * error.log2() * n as f64 }
}

/// Entropy of independent coordinates that are non-zero with probability `p` and then ±1, per non-zero:
/// L(p) = h(p)/p + 1.
pub fn bits_per_nonzero(p: f64) -> f64 {
    binary_entropy(p) / p + 1.0
}

/// Expected bits per non-zero, sign included, of a Rice code with parameter `b` on gaps − 1:
/// b + 1/(1 − (1−p)^(2^b)) + 1.
pub fn rice_bits_per_nonzero(p: f64, b: u32) -> f64 {
    let bucket = f64::from(b).exp2();
    f64::from(b) + 1.0 / (1.0 - (bucket * (-p).ln_1p()).exp()) + 1.0
}

/// The parameter with the fewest expected bits (Kiely 2004, "Selecting the Golomb parameter in Rice coding"):
/// b* = max(0, 1 + ⌊log2(ln(φ−1) / ln(1−p))⌋), φ the golden ratio. Floor, not ceil.
pub fn best_rice_parameter(p: f64) -> u32 {
    let golden = f64::midpoint(1.0, 5f64.sqrt());
    let b = 1.0 + ((golden - 1.0).ln() / (-p).ln_1p()).log2().floor();
    b.clamp(0.0, 31.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_entropies_come_out() {
        assert_eq!(bits_of_symbols([1, 1, 1, 1]), 8.0);
        assert_eq!(bits_of_symbols([0, 7]), 0.0);
        let coin = bits_of_symbols([30, 70]);
        assert!((coin - 100.0 * binary_entropy(0.3)).abs() < 1e-9, "{coin}");
        assert_eq!((bits_of_normals(10, 0.25), bits_of_normals(10, 1.5)), (10.0, 0.0));
    }
}
