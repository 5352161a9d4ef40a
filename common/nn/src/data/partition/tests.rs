//! Every split covers every row once.

use super::*;
use crate::data::load;
use crate::model::InputShape;
use proptest::prelude::*;

fn dataset(labels: Vec<u32>) -> Dataset {
    let input = InputShape::image(1, 1, 1, 10);
    Dataset::new("test", input, vec![0.0; labels.len()], labels).unwrap()
}

fn config(kind: Partition, clients: u32) -> DataConfig {
    DataConfig { source: "test".into(), partition: kind, clients, ..DataConfig::default() }
}

fn problem(config: &DataConfig, train: &Dataset) -> String {
    partition(config, train, &Seed::from_u64(1)).unwrap_err().to_string()
}

proptest! {
    #[test]
    fn every_row_belongs_to_exactly_one_client_and_nobody_is_empty(
        labels in proptest::collection::vec(0u32..10, 1..300),
        clients in 1u32..40,
        kind in prop_oneof![
            Just(Partition::Iid),
            Just(Partition::Shards),
            Just(Partition::Dirichlet),
            Just(Partition::Quantity),
        ],
        alpha in prop_oneof![Just(1e-6), Just(1e-3), 0.01..10.0, Just(1e6)],
        shards_per_client in 1u32..4,
        seed in any::<u64>(),
    ) {
        let train = dataset(labels);
        let config = DataConfig { alpha, shards_per_client, ..config(kind, clients) };
        let parts = partition(&config, &train, &Seed::from_u64(seed));
        let needed = clients * if kind == Partition::Shards { shards_per_client } else { 1 };
        prop_assert_eq!(parts.is_ok(), needed as usize <= train.len());
        let Ok(parts) = parts else { return Ok(()) };
        prop_assert_eq!(parts.len(), clients as usize);
        prop_assert!(parts.iter().all(|rows| !rows.is_empty() && rows.is_sorted()));
        let mut rows = parts.concat();
        rows.sort_unstable();
        prop_assert_eq!(rows, (0..train.len() as u32).collect::<Vec<_>>());
        prop_assert_eq!(parts, partition(&config, &train, &Seed::from_u64(seed)).unwrap());
    }

    #[test]
    fn by_key_each_client_has_all_rows_of_one_key_and_of_too_many_keys_some_are_drawn(
        keys in proptest::collection::vec(0u32..12, 1..100),
        clients in 1u32..16,
        seed in any::<u64>(),
    ) {
        let names: Vec<String> = (0..12).map(|key| key.to_string()).collect();
        let train = dataset(vec![0; keys.len()]).with_keys(names, keys.clone()).unwrap();
        let parts = partition(&config(Partition::Key, clients), &train, &Seed::from_u64(seed));
        let distinct: std::collections::BTreeSet<u32> = keys.iter().copied().collect();
        prop_assert_eq!(parts.is_ok(), clients as usize <= distinct.len());
        let Ok(parts) = parts else { return Ok(()) };
        prop_assert_eq!(parts.len(), clients as usize);
        let drawn: Vec<u32> = parts.iter().map(|rows| keys[rows[0] as usize]).collect();
        prop_assert!(drawn.is_sorted_by(|a, b| a < b));
        for (rows, key) in parts.iter().zip(drawn) {
            let of_key: Vec<u32> = (0..).zip(&keys).filter(|&(_, &other)| other == key).map(|(row, _)| row).collect();
            prop_assert_eq!(rows, &of_key);
        }
    }
}

#[test]
fn other_seeds_draw_other_keys() {
    let names: Vec<String> = (0..100).map(|key| key.to_string()).collect();
    let train = dataset(vec![0; 100]).with_keys(names, (0..100).collect()).unwrap();
    let of = |seed| partition(&config(Partition::Key, 10), &train, &Seed::from_u64(seed)).unwrap();
    assert_ne!(of(1), of(2));
    let all = DataConfig { clients: 100, ..config(Partition::Key, 0) };
    let all = partition(&all, &train, &Seed::from_u64(1)).unwrap();
    assert_eq!(all, (0..100).map(|row| vec![row]).collect::<Vec<_>>());
}

#[test]
fn a_small_alpha_gives_clients_unlike_sizes_and_like_labels() {
    let train = dataset((0..5000).map(|row| row % 10).collect());
    let parts = |alpha| {
        let config = DataConfig { alpha, ..config(Partition::Quantity, 10) };
        partition(&config, &train, &Seed::from_u64(1)).unwrap()
    };
    let largest = |alpha| parts(alpha).iter().map(Vec::len).max().unwrap();
    assert!(largest(0.1) > 2000 && largest(10_000.0) < 520, "{} {}", largest(0.1), largest(10_000.0));
    for rows in parts(0.5).iter().filter(|rows| rows.len() > 300) {
        let of_label = rows.iter().filter(|&&row| train.labels()[row as usize] == 3).count() as f64;
        let share = of_label / rows.len() as f64;
        assert!((0.05..0.15).contains(&share), "{share}");
    }
}

#[test]
fn rows_with_several_labels_are_not_split_by_label() {
    let input = InputShape::text(2, 5);
    let train = Dataset::new("text", input, vec![1.0; 8], vec![1; 8]).unwrap();
    for (kind, word) in [(Partition::Shards, "shards"), (Partition::Dirichlet, "dirichlet")] {
        assert_eq!(
            problem(&config(kind, 2), &train),
            format!("data.partition = \"{word}\": rows of text have 2 labels each; use iid, quantity or key")
        );
    }
    let parts = partition(&config(Partition::Quantity, 2), &train, &Seed::from_u64(1)).unwrap();
    assert_eq!(parts.concat().len(), 4);
}

#[test]
fn a_source_without_keys_needs_a_file() {
    assert_eq!(
        problem(&config(Partition::Key, 1), &dataset(vec![0; 2])),
        "data.key_file = \"\": test says of no row whose it is; name a file with one client number per row"
    );
}

#[test]
fn equal_parts_differ_by_at_most_one_row() {
    let parts = partition(&config(Partition::Iid, 7), &dataset(vec![0; 100]), &Seed::from_u64(1)).unwrap();
    let mut sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [14, 14, 14, 14, 14, 15, 15]);
}

#[test]
fn two_shards_hold_few_labels() {
    let train = dataset((0..1000).map(|row| row % 10).collect());
    let parts = partition(&config(Partition::Shards, 50), &train, &Seed::from_u64(1)).unwrap();
    for rows in parts {
        let labels: std::collections::BTreeSet<u32> = rows.iter().map(|&row| train.labels()[row as usize]).collect();
        assert!(rows.len() == 20 && labels.len() <= 2, "{labels:?}");
    }
}

#[test]
fn a_small_alpha_concentrates_labels_and_a_large_one_spreads_them() {
    let train = dataset((0..2000).map(|row| row % 10).collect());
    let largest_share = |alpha| {
        let config = DataConfig { alpha, ..config(Partition::Dirichlet, 10) };
        let parts = partition(&config, &train, &Seed::from_u64(1)).unwrap();
        let shares = parts.iter().map(|rows| {
            let mut counts = [0usize; 10];
            for &row in rows {
                counts[train.labels()[row as usize] as usize] += 1;
            }
            counts.into_iter().max().unwrap() as f64 / rows.len() as f64
        });
        shares.sum::<f64>() / 10.0
    };
    assert!(largest_share(0.05) > 0.5 && largest_share(1000.0) < 0.13);
}

#[test]
fn more_clients_than_rows_and_wild_numbers_are_refused() {
    let train = dataset(vec![0; 5]);
    assert!(problem(&config(Partition::Iid, 6), &train).starts_with("data.clients = 6: from 1 to 5 clients"));
    assert!(problem(&config(Partition::Iid, 0), &train).starts_with("data.clients = 0"));
    let shards = DataConfig { shards_per_client: 3, ..config(Partition::Shards, 2) };
    assert_eq!(problem(&shards, &train), "data.shards_per_client = 3: from 1 to 2 shards fit 2 clients");
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let config = DataConfig { alpha, ..config(Partition::Dirichlet, 2) };
        assert!(problem(&config, &train).starts_with("data.alpha"));
    }
}

#[test]
fn keys_become_clients_in_the_order_of_their_values() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.txt");
    let key_file = path.display().to_string();
    let train = dataset(vec![0; 5]);
    let config = |clients| DataConfig { key_file: key_file.clone(), ..config(Partition::Key, clients) };
    std::fs::write(&path, "30\n4\n30\n 5 \n4\n").unwrap();
    let parts = partition(&config(3), &train, &Seed::from_u64(1)).unwrap();
    assert_eq!(parts, [vec![1, 4], vec![3], vec![0, 2]]);
    let told = problem(&config(4), &train);
    assert!(
        told.starts_with("data.clients = 4: ")
            && told.ends_with("has rows of 3 keys; set data.clients to at most that")
    );
    let drawn = partition(&config(2), &train, &Seed::from_u64(1)).unwrap();
    assert!(drawn.len() == 2 && drawn.iter().all(|rows| parts.contains(rows)), "{drawn:?}");
    std::fs::write(&path, "1\n2\n").unwrap();
    assert!(problem(&config(2), &train).ends_with("it has 2 rows and the training set 5"));
    std::fs::write(&path, "1\n2\n\n1\n2\n").unwrap();
    assert!(problem(&config(2), &train).ends_with("row 2 (from 0) has no key"));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        partition(&config(2), &train, &Seed::from_u64(1)),
        Err(Error::Config { key: "data.key_file", .. })
    ));
}

#[test]
fn keys_of_a_whole_source_follow_its_rows_through_the_held_out_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.txt");
    // The client of each of the 1,797 digits is its row modulo 3.
    let keys: Vec<String> = (0..1797).map(|row| (row % 3).to_string()).collect();
    std::fs::write(&path, keys.join("\n")).unwrap();
    let config = DataConfig {
        partition: Partition::Key,
        clients: 3,
        key_file: path.display().to_string(),
        ..DataConfig::default()
    };
    let train = load(&config, &Seed::from_u64(1)).unwrap().train;
    let parts = partition(&config, &train, &Seed::from_u64(1)).unwrap();
    for (client, rows) in parts.iter().enumerate() {
        assert!(rows.iter().all(|&row| train.source_row(row as usize) % 3 == client));
    }
}

#[test]
fn writers_are_read_from_the_third_column_and_rows_beyond_the_training_set_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train-labels-idx2-int");
    let mut bytes = vec![0, 0, 0x0c, 2, 0, 0, 0, 4, 0, 0, 0, 3];
    for writer in [8i32, 3, 8, 99] {
        for cell in [0, 0, writer] {
            bytes.extend_from_slice(&cell.to_be_bytes());
        }
    }
    std::fs::write(&path, bytes).unwrap();
    let config = DataConfig { key_file: path.display().to_string(), ..config(Partition::Key, 2) };
    let parts = partition(&config, &dataset(vec![0; 3]), &Seed::from_u64(1)).unwrap();
    assert_eq!(parts, [vec![1], vec![0, 2]]);
}

#[test]
fn with_a_tiny_alpha_each_label_belongs_to_one_client_and_all_labels_to_several() {
    let train = dataset((0..500).map(|row| row % 10).collect());
    for alpha in [1e-9, 1e-5] {
        let config = DataConfig { alpha, ..config(Partition::Dirichlet, 5) };
        let parts = partition(&config, &train, &Seed::from_u64(1)).unwrap();
        let owners: Vec<usize> = (0..10)
            .map(|label| {
                let of = |rows: &Vec<u32>| rows.iter().filter(|&&row| train.labels()[row as usize] == label).count();
                // But for a row that a client with nothing has got.
                (0..5).find(|&client| of(&parts[client]) >= 45).expect("somebody has nearly all of a label")
            })
            .collect();
        let distinct: std::collections::BTreeSet<_> = owners.iter().collect();
        assert!(distinct.len() >= 3, "{alpha}: {owners:?}");
    }
}
