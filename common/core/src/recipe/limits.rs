//! Bounds on what clients may claim and send, and how budgets of bytes are shared out over the rounds.

use super::Recipe;
use super::check::LEAST_FRAME_BYTES;
use serde::{Deserialize, Serialize};

/// Bounds on what a client may claim or send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Most training examples that one update may stand for.
    pub max_examples: u32,
    /// Largest magnitude of one coordinate of an update.
    pub max_update_abs: f32,
    /// Most clients that may be registered.
    pub max_clients: u32,
    /// Packets kept for clients that missed rounds.
    pub packet_ring: u32,
    /// Longest frame of an update, in bytes, which the density is chosen for; 0 for the density of the recipe.
    pub update_bytes: u64,
    /// Bytes of all updates of the run together, shared out among those that are still to come; 0 for no such bound.
    pub run_bytes: u64,
    /// Bytes of all updates of one client in the run, of which it keeps account; 0 for no such bound.
    pub client_bytes: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_examples: 1_000_000,
            max_update_abs: 16.0,
            max_clients: 100_000,
            packet_ring: 64,
            update_bytes: 0,
            run_bytes: 0,
            client_bytes: 0,
        }
    }
}

impl Recipe {
    /// Longest frame of an update, in bytes, in a round (1-based) before which updates of `spent` bytes were accepted; 0
    /// when the recipe sets no bound.
    #[must_use]
    pub fn max_update_bytes(&self, round: u64, spent: u64) -> u64 {
        let LimitsConfig { update_bytes, run_bytes, .. } = self.limits;
        if self.pruning.statistic(round).is_some() {
            return 0;
        }
        if run_bytes == 0 {
            return update_bytes;
        }
        // All that are asked in this round may count, and of later ones as many as are wanted.
        let later = self.rounds.count.saturating_sub(round) * u64::from(self.rounds.cohort);
        let to_come = later + u64::from(self.cohort_size());
        // Never nothing: that would be no bound.
        let share = (run_bytes.saturating_sub(spent) / to_come).max(1);
        if update_bytes == 0 { share } else { share.min(update_bytes) }
    }

    /// Longest frame, in bytes, of an update in a round (from 1) by a client that has sent updates of `spent` bytes
    /// before, where the task allows `allowed`; 0 is no bound, of the task and of the result. `asks` is how often the
    /// client will be asked from now on, this time included, as far as the server can tell; 0 where it cannot.
    ///
    /// What is left of `limits.client_bytes` is shared out evenly over these times, or else over the rounds in which a
    /// client is asked on average. The draw may then fall on it more often, so the shortest frame stays in reserve for
    /// every round that may come.
    #[must_use]
    pub fn client_update_bytes(&self, round: u64, spent: u64, allowed: u64, asks: u32) -> u64 {
        if self.limits.client_bytes == 0 {
            return allowed;
        }
        let left = self.limits.client_bytes.saturating_sub(spent);
        let share = match u64::from(asks) {
            0 => {
                let to_come = (self.rounds.count + 1).saturating_sub(round).max(1);
                let asked = u128::from(to_come) * u128::from(self.cohort_size());
                let share = u128::from(left) * u128::from(self.data.clients) / asked;
                let reserve = LEAST_FRAME_BYTES.saturating_mul(to_come - 1);
                u64::try_from(share).unwrap_or(left).min(left.saturating_sub(reserve))
            }
            asks => left / asks,
        };
        // Whoever was told of fewer times than there are has no reserve left. Never nothing: that would be no bound.
        let share = share.max(LEAST_FRAME_BYTES).min(left).max(1);
        if allowed == 0 { share } else { share.min(allowed) }
    }

    /// Whether a client that has sent updates of `spent` bytes may send another one.
    #[must_use]
    pub fn has_client_bytes(&self, spent: u64) -> bool {
        let budget = self.limits.client_bytes;
        budget == 0 || budget.saturating_sub(spent) >= LEAST_FRAME_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngCore;

    fn recipe(sets: &[&str]) -> Recipe {
        let sets: Vec<String> = sets.iter().map(|&set| set.into()).collect();
        Recipe::load(None, &sets).unwrap()
    }

    #[test]
    fn a_client_that_is_asked_in_every_round_spends_all_of_it_evenly() {
        let recipe = recipe(&["limits.client_bytes=50000", "data.clients=10", "rounds.count=50"]);
        let mut spent = 0;
        for round in 1..=50 {
            let bytes = recipe.client_update_bytes(round, spent, 0, 0);
            assert!((990..=1060).contains(&bytes), "{bytes} in round {round}");
            // What a frame leaves of its share is there for the next ones.
            spent += bytes * 99 / 100;
        }
        assert!((49_900..=50_000).contains(&spent), "{spent}");
        assert_eq!(recipe.client_update_bytes(1, 0, 300, 0), 300, "the task allows less");
        assert_eq!(self::recipe(&[]).client_update_bytes(1, 0, 300, 0), 300, "there is no budget");
        assert_eq!(self::recipe(&[]).client_update_bytes(1, 0, 0, 0), 0);
    }

    #[test]
    fn whoever_is_drawn_however_often_never_sends_more_and_can_always_send_something() {
        let recipe = recipe(&["limits.client_bytes=6400", "data.clients=20", "rounds.cohort=2", "rounds.count=100"]);
        let mut rng = crate::Seed::from_u64(3).derive("budget").rng();
        for per_mille in [50, 100, 200, 500, 1000] {
            for _ in 0..50 {
                let mut spent = 0;
                for round in 1..=100 {
                    if rng.next_u32() % 1000 < per_mille {
                        let bytes = recipe.client_update_bytes(round, spent, 0, 0);
                        assert!(bytes >= LEAST_FRAME_BYTES, "{bytes} in round {round} after {spent}");
                        spent += bytes;
                    }
                }
                assert!(spent <= 6400, "{spent}");
            }
        }
    }

    #[test]
    fn a_client_that_is_told_how_often_it_will_be_asked_spends_all_of_it() {
        let recipe = recipe(&["limits.client_bytes=10000", "data.clients=100", "rounds.count=80"]);
        for asked in [1, 3, 8, 20] {
            let mut spent = 0;
            for asks in (1..=asked).rev() {
                let bytes = recipe.client_update_bytes(80 - 2 * u64::from(asks), spent, 0, asks);
                assert_eq!(bytes, (10_000 - spent) / u64::from(asks));
                assert!(recipe.has_client_bytes(spent), "{spent} before {asks}");
                spent += bytes * 99 / 100;
            }
            assert!((9_890..=10_000).contains(&spent), "{spent} in {asked}");
        }
        // Of what it was told too little, and then nothing.
        assert_eq!(recipe.client_update_bytes(40, 9_900, 0, 4), 64);
        assert_eq!(recipe.client_update_bytes(40, 9_900, 0, 0), 64);
        assert_eq!(recipe.client_update_bytes(40, 9_990, 0, 1), 10);
        assert!(!recipe.has_client_bytes(9_990) && self::recipe(&[]).has_client_bytes(u64::MAX));
    }
}
