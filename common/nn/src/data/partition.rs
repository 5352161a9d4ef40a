//! How training rows are dealt to clients.

mod key;

use super::{Dataset, rows_by_label};
use crate::Error;
use crate::train::shuffle;
use dunlin_core::recipe::{DataConfig, Partition};
use dunlin_core::{Rng, Seed};
use rand::Rng as _;
use rand_distr::{Distribution, Gamma};

/// The rows of each client, ascending: no row belongs to two clients, every client has a row, and but for keys that are
/// not drawn every row belongs to a client.
///
/// - `iid`: shuffled and cut into parts whose sizes differ by at most one.
/// - `shards`: sorted by label and cut into `clients · shards_per_client` shards, which are dealt at random (McMahan
///   et al. 2017, <https://arxiv.org/abs/1602.05629>).
/// - `dirichlet`: the rows of each label are dealt in proportions drawn from Dir(α) over the clients (Yurochkin et al.
///   2019, <https://arxiv.org/abs/1905.12022>); a client left with nothing gets a row of the largest one.
/// - `quantity`: shuffled and cut into parts whose sizes are drawn from Dir(α) (Li et al. 2022, NIID-Bench,
///   <https://arxiv.org/abs/2102.02079>); a client left with nothing gets a row of the largest one.
/// - `key`: by whom the rows belong to, in the order of the keys; of more keys than clients as many are drawn, and the
///   other rows stay unused. Without a `key_file` the source's own keys count. The file is one value per line,
///   `FILE.csv:COLUMN`, or an IDX matrix of 32-bit integers (`*idx2-int`, `.gz` or not) whose column 2 counts, as in
///   QMNIST's label files where it is the writer. It has one value for each training row, or for each row before any
///   were held out.
///
/// Without features (`data.source = "none"`) each client has one row.
///
/// # Errors
/// When there are fewer rows, shards or keys than clients, when a split by label is asked of rows with several labels,
/// or a key of the recipe is out of range.
pub fn partition(config: &DataConfig, train: &Dataset, seed: &Seed) -> Result<Vec<Vec<u32>>, Error> {
    if config.server_share > 0.0 && config.source != "none" {
        let (rest, _) = server_rows(config, train, seed);
        let dealt = partition(&DataConfig { server_share: 0.0, ..config.clone() }, &train.select(&rest), seed)?;
        return Ok(dealt.into_iter().map(|rows| rows.iter().map(|&row| rest[row as usize]).collect()).collect());
    }
    let clients = config.clients as usize;
    if clients == 0 || clients > train.len() {
        let remedy = format!("from 1 to {} clients can each have a row of {}", train.len(), train.name());
        return Err(Error::config("data.clients", clients, remedy));
    }
    if config.source == "none" {
        return Ok((0..config.clients).map(|client| vec![client]).collect());
    }
    if matches!(config.partition, Partition::Shards | Partition::Dirichlet) && train.input().targets != 1 {
        let value = if config.partition == Partition::Shards { "\"shards\"" } else { "\"dirichlet\"" };
        let remedy =
            format!("rows of {} have {} labels each; use iid, quantity or key", train.name(), train.input().targets);
        return Err(Error::config("data.partition", value, remedy));
    }
    let mut rng = seed.derive("partition").rng();
    let mut parts = match config.partition {
        Partition::Iid => cut(&shuffled(train.len(), &mut rng), clients).map(<[u32]>::to_vec).collect(),
        Partition::Shards => shards(config, train.labels(), &mut rng)?,
        Partition::Dirichlet => dirichlet(config, rows_by_label(train.labels()), &mut rng)?,
        // One draw of proportions for all rows.
        Partition::Quantity => dirichlet(config, vec![(0..train.len() as u32).collect()], &mut rng)?,
        Partition::Key => key::split(config, train, &mut rng)?,
    };
    for rows in &mut parts {
        rows.sort_unstable();
    }
    Ok(parts)
}

/// The rows of the training set that clients have, and those that `server_share` holds back for the server, both
/// ascending: drawn at random, whatever their label.
#[must_use]
pub fn server_rows(config: &DataConfig, train: &Dataset, seed: &Seed) -> (Vec<u32>, Vec<u32>) {
    let mut rows = shuffled(train.len(), &mut seed.derive("server").rng());
    let held_back = ((train.len() as f64 * config.server_share).round() as usize).min(train.len());
    let mut rest = rows.split_off(held_back);
    rows.sort_unstable();
    rest.sort_unstable();
    (rest, rows)
}

fn shuffled(len: usize, rng: &mut Rng) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..len as u32).collect();
    shuffle(&mut rows, rng);
    rows
}

/// Cuts into `parts` runs whose lengths differ by at most one.
fn cut(rows: &[u32], parts: usize) -> impl Iterator<Item = &[u32]> {
    (0..parts).map(move |part| &rows[part * rows.len() / parts..(part + 1) * rows.len() / parts])
}

fn shards(config: &DataConfig, labels: &[u32], rng: &mut Rng) -> Result<Vec<Vec<u32>>, Error> {
    let (clients, per_client) = (config.clients as usize, config.shards_per_client as usize);
    let count = clients.saturating_mul(per_client);
    if per_client == 0 || count > labels.len() {
        let remedy = format!("from 1 to {} shards fit {clients} clients", labels.len() / clients);
        return Err(Error::config("data.shards_per_client", per_client, remedy));
    }
    let mut rows = shuffled(labels.len(), rng);
    rows.sort_by_key(|&row| labels[row as usize]);
    let mut shards: Vec<&[u32]> = cut(&rows, count).collect();
    shuffle(&mut shards, rng);
    Ok(shards.chunks_exact(per_client).map(<[_]>::concat).collect())
}

/// Deals each of `groups` to the clients in proportions drawn from Dir(α).
fn dirichlet(config: &DataConfig, groups: Vec<Vec<u32>>, rng: &mut Rng) -> Result<Vec<Vec<u32>>, Error> {
    let out_of_range = || Error::config("data.alpha", config.alpha, "a positive number is right, such as 0.5");
    if !config.alpha.is_finite() {
        return Err(out_of_range());
    }
    let gamma = Gamma::new(config.alpha, 1.0).map_err(|_| out_of_range())?;
    let mut parts = vec![Vec::new(); config.clients as usize];
    for mut rows in groups {
        shuffle(&mut rows, rng);
        // A Dirichlet vector is independent gamma variables over their sum.
        let mut weights: Vec<f64> = parts.iter().map(|_| gamma.sample(rng)).collect();
        if weights.iter().all(|&weight| weight == 0.0) {
            // With a tiny α all of them may be too small for a float. In the limit one client has all, each as likely.
            let owner = rng.random_range(0..weights.len());
            weights[owner] = 1.0;
        }
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let mut start = 0;
        let last = parts.len() - 1;
        for (client, (part, weight)) in parts.iter_mut().zip(weights).enumerate() {
            sum += weight;
            let end = if client == last { rows.len() } else { (rows.len() as f64 * sum / total).round() as usize };
            let end = end.clamp(start, rows.len());
            part.extend_from_slice(&rows[start..end]);
            start = end;
        }
    }
    for client in 0..parts.len() {
        if parts[client].is_empty() {
            // Among equally large ones the first; there are at least as many rows as clients, so it has two.
            let largest = (0..parts.len()).rev().max_by_key(|&other| parts[other].len()).unwrap_or(0);
            if let Some(row) = parts[largest].pop() {
                parts[client].push(row);
            }
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests;
