//! Coordinates that all clients of a round send, in place of each its own.

use super::Recipe;
use crate::Seed;
use dunlin_codec::{Mask, MaskedGrid};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Which coordinates of an update are sent where all clients of a round send the same: then a frame has no positions,
/// and sums can be taken coordinate by coordinate by who sees no single update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommonConfig {
    /// Who chooses them.
    pub coordinates: Coordinates,
    /// Share of the coordinates of an announced round that are drawn at random instead.
    pub exploration: f64,
    /// Weight of what is known of a coordinate when its next mean arrives.
    pub memory: f64,
}

/// Who chooses the coordinates of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coordinates {
    /// Each client the largest of its own.
    Own,
    /// The seed and the round, at random.
    Random,
    /// The seed and the round, in turn.
    Cyclic,
    /// The server, by what the means of earlier rounds were; the rest at random.
    Announced,
}

impl CommonConfig {
    /// Whether all clients of a round send the same coordinates.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.coordinates != Coordinates::Own
    }

    /// Whether the server announces coordinates.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.coordinates == Coordinates::Announced
    }

    /// How many of `count` coordinates a server announces: all but those that are drawn at random, of which there is one
    /// at least, for else nothing would ever be learnt of the others.
    #[must_use]
    pub fn announced_of(&self, count: usize) -> usize {
        count - ((count as f64 * self.exploration).round() as usize).clamp(1, count)
    }
}

impl Default for CommonConfig {
    fn default() -> Self {
        Self { coordinates: Coordinates::Own, exploration: 0.5, memory: 0.5 }
    }
}

impl Recipe {
    /// Whether clients of a round (from 1) all send the same coordinates: where the recipe says so and they train.
    #[must_use]
    pub fn is_common(&self, round: u64) -> bool {
        self.common.is_on() && self.pruning.statistic(round).is_none()
    }

    /// How many coordinates all clients of a round (from 1) send of `len`: the uplink's density of them, at least one.
    #[must_use]
    pub fn common_count(&self, round: u64, len: usize) -> usize {
        ((Self::codec(&self.uplink, round).density * len as f64).round() as usize).clamp(1, len)
    }

    /// The coordinates that updates of a round (from 1) to the model `base` carry or choose from: with common coordinates
    /// those, which client and server find alike, and otherwise [`Self::update_mask`].
    #[must_use]
    pub fn sent_mask(&self, round: u64, base: &MaskedGrid) -> Arc<Mask> {
        let mask = base.mask();
        if !self.is_common(round) {
            return self.update_mask(round, mask);
        }
        let count = self.common_count(round, mask.len());
        let seed = |number| Seed::from_u64(self.seed).derive_n("common coordinates", number).word();
        Arc::new(match (self.common.coordinates, base.announced()) {
            (Coordinates::Cyclic, _) => mask.cyclic_part(count, seed(0), round.saturating_sub(1)),
            (Coordinates::Announced, Some(announced)) => mask.part_with(announced, count, seed(round)),
            // Before anything is known, and after what nobody was to send anything of.
            _ => mask.random_part(count, seed(round)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_codec::{EntropyCoder, Quantizer, Segment, Segments};

    fn recipe(sets: &[&str]) -> Recipe {
        let common = ["uplink.density=0.1", "uplink.quantizer=common"];
        let sets: Vec<String> = common.iter().chain(sets).map(|&set| set.into()).collect();
        Recipe::load(None, &sets).unwrap()
    }

    fn base() -> MaskedGrid {
        let whole =
            Arc::new(Segments::new(vec![Segment { len: 500, row: 20 }, Segment { len: 100, row: 100 }]).unwrap());
        let half = Mask::new(Arc::clone(&whole), |index| index % 2 == 0).unwrap();
        MaskedGrid::new(Arc::new(half), vec![0; 300]).unwrap()
    }

    #[test]
    fn what_is_sent_depends_on_seed_and_round_and_stays_within_what_is_left() {
        for way in ["random", "cyclic", "announced"] {
            let recipe = recipe(&[&format!("common.coordinates={way}")]);
            let base = base();
            let sent: Vec<_> = (1..=10).map(|round| recipe.sent_mask(round, &base)).collect();
            for (round, mask) in (1..).zip(&sent) {
                assert_eq!((mask.len(), recipe.common_count(round, 300)), (30, 30), "{way}");
                assert!(mask.indices().all(|index| base.mask().contains(index)), "{way}");
                assert_eq!(*mask, recipe.sent_mask(round, &base), "{way}");
                assert_eq!(recipe.update_codec(round).density, 1.0);
            }
            let other = Recipe { seed: 2, ..recipe.clone() };
            assert!(sent[0] != sent[1] && sent[0] != other.sent_mask(1, &base), "{way}");
            let mut seen = vec![false; 600];
            sent.iter().flat_map(|mask| mask.indices()).for_each(|index| seen[index] = true);
            let reached = seen.iter().filter(|&&seen| seen).count();
            // 1 − 0.9¹⁰ of them at random.
            assert!(if way == "cyclic" { reached == 300 } else { (150..240).contains(&reached) }, "{way}: {reached}");
        }
    }

    #[test]
    fn announced_coordinates_are_sent_with_random_ones() {
        let recipe = recipe(&["common.coordinates=announced", "common.exploration=0.2"]);
        assert_eq!([1, 2, 30, 1000].map(|count| recipe.common.announced_of(count)), [0, 1, 24, 800]);
        let mut base = base();
        let announced = Arc::new(base.mask().random_part(24, 5));
        base.announce(Some(Arc::clone(&announced))).unwrap();
        let sent: Vec<_> = (1..=3).map(|round| recipe.sent_mask(round, &base)).collect();
        for mask in &sent {
            assert!(mask.len() == 30 && announced.indices().all(|index| mask.contains(index)));
        }
        assert!(sent[0] != sent[1] && sent[1] != sent[2]);
    }

    #[test]
    fn clients_that_are_asked_for_something_else_or_choose_themselves_are_told_no_coordinates() {
        let base = base();
        let own = Recipe::default();
        assert!(!own.is_common(1) && Arc::ptr_eq(&own.sent_mask(1, &base), base.mask()));
        let pruning = ["pruning.density=0.5", "pruning.first_round=2", "pruning.steps=1", "pruning.importance=taylor"];
        let recipe = recipe(&[&["common.coordinates=random"], &pruning[..]].concat());
        assert_eq!([1, 2, 3].map(|round| recipe.is_common(round)), [true, false, true]);
        assert!(Arc::ptr_eq(&recipe.sent_mask(2, &base), base.mask()));
        let asked = recipe.update_codec(2);
        assert!(matches!(asked.quantizer, Quantizer::Rotated { .. }) && asked.coder == EntropyCoder::Auto);
    }
}
