//! Parts of a mask that two sides choose alike without telling each other.

use std::sync::Arc;

use super::{BITS, Mask};
use crate::{Error, whole::word};

impl Mask {
    /// `count` of the coordinates that are left (at least one, at most all), every such choice as likely as any other.
    ///
    /// A function of its arguments in integers only: one draw of SplitMix64 for each coordinate, of which the i-th is
    /// taken with the probability (still wanted) / (still to come), as in Algorithm S (Knuth, The Art of Computer
    /// Programming 2, §3.4.2).
    #[must_use]
    pub fn random_part(&self, count: usize, seed: u64) -> Self {
        self.selected(sample(self.len(), count.clamp(1, self.len()), seed).into_iter())
    }

    /// `count` of the coordinates that are left (at least one, at most all), others at each `turn` (from 0) until all had
    /// theirs: after ⌈len / count⌉ turns with one count.
    ///
    /// The coordinates stand in an order in which any that follow one another are spread evenly over the model (steps of
    /// the golden ratio; three-distance theorem, Sós 1958) and turns take them from there; the seed says where they begin.
    #[must_use]
    pub fn cyclic_part(&self, count: usize, seed: u64, turn: u64) -> Self {
        let (n, count) = (self.len() as u64, count.clamp(1, self.len()) as u64);
        let mut stride = (n * GOLDEN) >> 32;
        while gcd(stride, n) != 1 {
            stride += 1;
        }
        let first = (word(seed, 0) % n + (u128::from(turn) * u128::from(count) % u128::from(n)) as u64) % n;
        let mut places: Vec<u32> = (0..count).map(|i| ((first + i) % n * stride % n) as u32).collect();
        places.sort_unstable();
        self.selected(places.into_iter())
    }

    /// All of `chosen`, which are within this mask, and as many others at random as make `count` together.
    #[must_use]
    pub fn part_with(&self, chosen: &Self, count: usize, seed: u64) -> Self {
        let (others, wanted) = (self.len() - chosen.len(), count.min(self.len()).saturating_sub(chosen.len()));
        let mut drawn = sample(others, wanted, seed).into_iter().peekable();
        let mut other = 0;
        let places = (0..).zip(self.indices()).filter(|&(_, index)| {
            let is_drawn = !chosen.contains(index) && {
                other += 1;
                drawn.next_if_eq(&(other - 1)).is_some()
            };
            is_drawn || chosen.contains(index)
        });
        self.selected(places.map(|(place, _)| place))
    }

    /// Those of the coordinates that are left which stand at these rising places among them.
    ///
    /// # Errors
    /// [`Error::EmptyMask`] without any.
    pub fn part(&self, places: &[u32]) -> Result<Self, Error> {
        if places.is_empty() { Err(Error::EmptyMask) } else { Ok(self.selected(places.iter().copied())) }
    }

    /// Where the coordinates of a part of this mask stand in a vector within the mask, rising.
    pub fn places<'a>(&'a self, part: &'a Self) -> impl Iterator<Item = u32> + 'a {
        (0..).zip(self.indices()).filter(|&(_, index)| part.contains(index)).map(|(place, _)| place)
    }

    /// At least one place, rising and below the length.
    fn selected(&self, places: impl Iterator<Item = u32>) -> Self {
        let mut words = vec![0; self.whole.len().div_ceil(BITS)];
        let mut wanted = places.peekable();
        for (place, index) in (0..).zip(self.indices()) {
            if wanted.next_if_eq(&place).is_some() {
                words[index / BITS] |= 1 << (index % BITS);
            }
        }
        Self::from_words(Arc::clone(&self.whole), words).expect("a part has at least one coordinate")
    }
}

/// `count` of the numbers below `n`, rising.
fn sample(n: usize, count: usize, seed: u64) -> Vec<u32> {
    let mut taken = Vec::with_capacity(count);
    for i in 0..n {
        let (wanted, to_come) = (count - taken.len(), n - i);
        if wanted == 0 {
            break;
        }
        if (u128::from(word(seed, i as u64)) * to_come as u128) >> 64 < wanted as u128 {
            taken.push(i as u32);
        }
    }
    taken
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// (√5 − 1) / 2 in units of 2⁻³².
const GOLDEN: u64 = 2_654_435_769;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Segment, Segments};

    fn all(n: usize) -> Mask {
        Mask::all(Arc::new(Segments::new(vec![Segment { len: n, row: n }]).unwrap()))
    }

    fn indices(mask: &Mask) -> Vec<usize> {
        mask.indices().collect()
    }

    #[test]
    fn every_way_chooses_as_many_as_wanted_from_what_is_left() {
        let half = Mask::new(Arc::clone(all(1000).whole()), |index| index % 2 == 1).unwrap();
        for mask in [all(1000), half] {
            for count in [1, 2, 7, 100, 499, 500, 1000, 5000] {
                let wanted = count.min(mask.len());
                let chosen = mask.random_part(wanted.div_ceil(2), 9);
                for part in
                    [mask.random_part(count, 3), mask.cyclic_part(count, 3, 12), mask.part_with(&chosen, count, 3)]
                {
                    assert_eq!(part.len(), wanted);
                    assert!(part.indices().all(|index| mask.contains(index)));
                    let places: Vec<u32> = mask.places(&part).collect();
                    assert_eq!(mask.part(&places).unwrap(), part);
                }
                assert!(chosen.indices().all(|index| mask.part_with(&chosen, count, 3).contains(index)));
            }
        }
        assert_eq!(all(10).part(&[]), Err(Error::EmptyMask));
    }

    #[test]
    fn more_than_wanted_that_are_chosen_already_stay() {
        let mask = all(100);
        let chosen = mask.random_part(30, 1);
        assert_eq!(mask.part_with(&chosen, 10, 5), chosen);
    }

    #[test]
    fn every_coordinate_is_drawn_as_often_as_any_other() {
        let mask = all(50);
        let mut counts = [0u32; 50];
        for seed in 0..4000 {
            mask.random_part(5, word(1, seed)).indices().for_each(|index| counts[index] += 1);
        }
        // 400 are expected, with a standard deviation of 19; of the others 800, with 25.
        assert!(counts.iter().all(|count| (310..490).contains(count)), "{counts:?}");
        let chosen = mask.part(&[0, 1, 2, 3, 4]).unwrap();
        let mut counts = [0u32; 50];
        for seed in 0..4000 {
            mask.part_with(&chosen, 14, word(2, seed)).indices().for_each(|index| counts[index] += 1);
        }
        assert!(counts[..5].iter().all(|&count| count == 4000));
        assert!(counts[5..].iter().all(|count| (680..920).contains(count)), "{counts:?}");
    }

    #[test]
    fn turns_reach_every_coordinate_once_before_any_twice() {
        for (n, count) in [(1000, 50), (997, 31), (64, 64), (5, 2), (1, 1)] {
            let mut seen = vec![0; n];
            let turns = n.div_ceil(count);
            for turn in 0..turns as u64 {
                let part = all(n).cyclic_part(count, 8, turn);
                part.indices().for_each(|index| seen[index] += 1);
                // No stretch of the model has much more or less than its share.
                let (third, share) = (part.indices().filter(|&index| index < n / 3).count(), count as f64 / 3.0);
                assert!((third as f64 - share).abs() <= 3.0, "{third} of {count} in a third of {n}");
            }
            assert!(seen.iter().all(|&times| times >= 1), "{n} {count}");
            assert_eq!(seen.iter().sum::<usize>(), turns * count);
            assert!(seen.iter().all(|&times| times <= 2));
        }
    }

    #[test]
    fn choices_are_golden() {
        // As docs/WIRE.md has them; a change here is a change of the protocol.
        let mask = Mask::new(Arc::clone(all(60).whole()), |index| index % 3 > 0).unwrap();
        let chosen = mask.part(&[3, 4, 17]).unwrap();
        assert_eq!(indices(&chosen), [5, 7, 26]);
        assert_eq!(indices(&mask.random_part(6, 7)), [2, 13, 16, 32, 40, 47]);
        assert_eq!(indices(&mask.cyclic_part(6, 7, 4)), [17, 19, 37, 38, 56, 58]);
        assert_eq!(indices(&mask.part_with(&chosen, 6, 7)), [2, 5, 7, 26, 37, 44]);
    }
}
