//! Data: the set, and how it is split among clients.

use serde::{Deserialize, Serialize};

/// The data set and its split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A named set (`digits` is embedded, the others are fetched), a form with a path such as `csv:FILE`, or `none` with
    /// a trivial model.
    pub source: String,
    /// Number of clients among which the training set is split.
    pub clients: u32,
    /// How it is split.
    pub partition: Partition,
    /// Concentration of the Dirichlet and the quantity split; small means that clients differ much.
    pub alpha: f64,
    /// Label-sorted shards dealt to each client by the shard split.
    pub shards_per_client: u32,
    /// File with one client number per training row, for the split by key; empty for the source's own natural key.
    pub key_file: String,
    /// Column of a CSV file that holds the label.
    pub label: String,
    /// Share of a source without a test set of its own that is held out for the server's evaluation.
    pub test_share: f64,
    /// Share of the training set that no client has but the server, which looks at no label of it.
    pub server_share: f64,
    /// Size of the trivial model, in parameters.
    pub features: u64,
}

/// How a data set is split among clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partition {
    /// Shuffled, equal parts.
    Iid,
    /// Sorted by label, cut into shards, `shards_per_client` of them each (McMahan et al. 2017).
    Shards,
    /// Each label dealt to the clients in proportions drawn from a Dirichlet distribution (Yurochkin et al. 2019).
    Dirichlet,
    /// Sizes drawn from a Dirichlet distribution, labels alike (Li et al. 2022).
    Quantity,
    /// By the client number that `key_file` gives for each row, or by the source's natural key.
    Key,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: "digits".into(),
            clients: 20,
            partition: Partition::Dirichlet,
            alpha: 0.5,
            shards_per_client: 2,
            key_file: String::new(),
            label: "label".into(),
            test_share: 0.2,
            server_share: 0.0,
            features: 1_663_370,
        }
    }
}
