//! Links and devices of simulated clients: how long things take, and what goes wrong.

use dunlin_core::recipe::{ClientClass, NetworkConfig};
use dunlin_core::{Rng, Seed};
use rand::Rng as _;
use rand::seq::SliceRandom;
use std::sync::Arc;

/// One client's link and device. Without a class everything takes no time and nothing goes wrong.
pub(super) struct Link {
    class: Option<Arc<ClientClass>>,
    /// The client's own stream, so that what happens to one does not depend on what happens to others.
    rng: Rng,
}

/// A message that has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Time from the first sending to the arrival.
    pub(super) ms: u64,
    /// Times that it was sent.
    pub(super) sendings: u64,
}

impl Link {
    /// The links of `clients` clients: each class gets its share of them, dealt at random.
    pub(super) fn deal(network: &NetworkConfig, clients: u32, seed: &Seed) -> Vec<Self> {
        let classes: Vec<_> = network.class.iter().cloned().map(Arc::new).collect();
        let total: f64 = classes.iter().map(|class| class.share).sum();
        let mut dealt = Vec::with_capacity(clients as usize);
        let mut share = 0.0;
        for class in &classes {
            share += class.share;
            let end = (share / total * f64::from(clients)).round() as usize;
            dealt.resize(end.max(dealt.len()), Some(Arc::clone(class)));
        }
        dealt.resize(clients as usize, classes.last().cloned());
        dealt.shuffle(&mut seed.derive("classes").rng());
        (0..).zip(dealt).map(|(i, class)| Self { class, rng: seed.derive_n("link", i).rng() }).collect()
    }

    /// The name of its class in the recipe.
    pub(super) fn class_name(&self) -> Option<&str> {
        self.class.as_ref().map(|class| class.name.as_str())
    }

    /// Brings a message of so many payload bytes to the server; a call without payload takes its latency alone.
    pub(super) fn up(&mut self, bytes: u64) -> Delivery {
        self.deliver(bytes, |class| class.up_kbps)
    }

    /// Brings the bytes that follow a header which was answered before they all were sent.
    pub(super) fn up_after_header(&mut self, bytes: u64) -> Delivery {
        let delivery = self.up(bytes);
        let latency_ms = self.class.as_ref().map_or(0.0, |class| class.latency_ms);
        Delivery { ms: delivery.ms.saturating_sub(latency_ms.round() as u64), ..delivery }
    }

    /// Brings a message to the client.
    pub(super) fn down(&mut self, bytes: u64) -> Delivery {
        self.deliver(bytes, |class| class.down_kbps)
    }

    fn deliver(&mut self, bytes: u64, kbps: fn(&ClientClass) -> f64) -> Delivery {
        let Some(class) = &self.class else { return Delivery { ms: 0, sendings: 1 } };
        let bits = bytes as f64 * 8.0;
        let transfer_ms = if kbps(class) > 0.0 { bits / kbps(class) } else { 0.0 };
        let mut ms = class.latency_ms + transfer_ms;
        let mut sendings = 1;
        let mut timeout_ms = RETRANSMISSION_MS;
        while sendings < MAX_SENDINGS && self.rng.random_bool(class.loss) {
            ms += transfer_ms + timeout_ms;
            timeout_ms *= 2.0;
            sendings += 1;
        }
        Delivery { ms: ms.round() as u64, sendings }
    }

    /// Time that the device takes for so many examples.
    pub(super) fn compute_ms(&self, examples: u64) -> u64 {
        match &self.class {
            Some(class) if class.examples_per_s > 0.0 => {
                (examples as f64 / class.examples_per_s * 1000.0).round() as u64
            }
            _ => 0,
        }
    }

    /// Whether the client leaves in the round that it was just asked for, and then for how long: until the server has
    /// surely missed it, and up to as long again.
    pub(super) fn leaves_for_ms(&mut self, idle_timeout_ms: u64) -> Option<u64> {
        let churn = self.class.as_ref().map_or(0.0, |class| class.churn);
        if churn == 0.0 || !self.rng.random_bool(churn) {
            return None;
        }
        Some(self.rng.random_range(idle_timeout_ms..=idle_timeout_ms.saturating_mul(2)))
    }
}

/// Time after which a lost message is sent again; it doubles with each loss (RFC 6298: one second at first).
const RETRANSMISSION_MS: f64 = 1000.0;

/// Sendings after which a message arrives in any case, so that a link which loses everything still ends.
const MAX_SENDINGS: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(classes: &[ClientClass]) -> NetworkConfig {
        NetworkConfig { class: classes.to_vec() }
    }

    fn class() -> ClientClass {
        ClientClass { up_kbps: 8.0, down_kbps: 80.0, latency_ms: 30.0, examples_per_s: 10.0, ..ClientClass::default() }
    }

    #[test]
    fn each_class_gets_its_share_of_the_clients() {
        let phones = ClientClass { name: "phone".into(), share: 3.0, ..class() };
        let links = Link::deal(&network(&[phones, class()]), 40, &Seed::from_u64(1));
        let phones = links.iter().filter(|link| link.class.as_ref().is_some_and(|class| class.name == "phone"));
        assert_eq!((phones.count(), links.len()), (30, 40));
    }

    #[test]
    fn bytes_take_time_by_bandwidth_and_latency() {
        let mut link = Link::deal(&network(&[class()]), 1, &Seed::from_u64(1)).remove(0);
        assert_eq!(link.up(1000), Delivery { ms: 1030, sendings: 1 });
        assert_eq!(link.down(1000), Delivery { ms: 130, sendings: 1 });
        assert_eq!(link.up(0), Delivery { ms: 30, sendings: 1 });
        assert_eq!(link.compute_ms(25), 2500);
    }

    #[test]
    fn without_a_class_nothing_takes_time() {
        let mut link = Link::deal(&network(&[]), 1, &Seed::from_u64(1)).remove(0);
        assert_eq!(link.up(1 << 40), Delivery { ms: 0, sendings: 1 });
        assert_eq!((link.compute_ms(1 << 40), link.leaves_for_ms(1000)), (0, None));
    }

    #[test]
    fn a_lost_message_is_sent_again_after_a_timeout() {
        let lossy = ClientClass { loss: 1.0, churn: 1.0, ..class() };
        let mut link = Link::deal(&network(&[lossy]), 1, &Seed::from_u64(1)).remove(0);
        let timeouts: u64 = (0..7).map(|loss| 1000 << loss).sum();
        assert_eq!(link.up(1000), Delivery { ms: 30 + 8 * 1000 + timeouts, sendings: 8 });
        let away = link.leaves_for_ms(500).unwrap();
        assert!((500..=1000).contains(&away), "{away}");
    }
}
