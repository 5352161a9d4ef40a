//! The embedded and the fetched data sets.

use super::*;
use crate::data::set::Features;

fn load_source(source: &str) -> Result<Split, Error> {
    load(&DataConfig { source: source.into(), ..DataConfig::default() }, &Seed::from_u64(1))
}

#[test]
fn the_digits_are_all_there_and_a_fifth_of_each_is_held_out() {
    let all = idx::digits().unwrap();
    let counts = |dataset: &Arc<Dataset>| Examples::all(dataset.clone()).label_histogram();
    assert_eq!(*all.input(), InputShape::image(1, 8, 8, 10));
    assert_eq!(counts(&Arc::new(all)), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    let split = load_source("digits").unwrap();
    assert_eq!(counts(&split.test), [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]);
    assert_eq!(split.train.len() + split.test.len(), 1797);
    let mut row = Vec::new();
    split.train.append_row(0, &mut row);
    assert_eq!(row.len(), 64);
    assert!(row.iter().all(|value| (0.0..=1.0).contains(value)) && row.contains(&(13.0 / 16.0)));
}

#[test]
fn the_held_out_rows_do_not_depend_on_the_runs_seed() {
    let of = |seed| load(&DataConfig::default(), &Seed::from_u64(seed)).unwrap().test;
    let (one, two) = (of(1), of(2));
    assert!((0..one.len()).all(|row| one.source_row(row) == two.source_row(row)));
}

#[test]
fn a_share_out_of_range_is_refused() {
    for share in [-0.1, 1.0, f64::NAN] {
        let config = DataConfig { test_share: share, ..DataConfig::default() };
        let error = load(&config, &Seed::from_u64(1)).unwrap_err();
        assert!(matches!(error, Error::Config { key: "data.test_share", .. }));
    }
}

#[test]
fn a_missing_set_is_answered_with_the_command_that_fetches_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = DataConfig { source: "mnist".into(), ..DataConfig::default() };
    let message = load_under(dir.path(), &config).unwrap_err().to_string();
    assert!(message.contains("`dunlin data fetch mnist`") && !message.contains('\n'), "{message}");
}

#[test]
fn an_unknown_source_is_answered_with_the_known_ones() {
    let message = load_source("cifar").unwrap_err().to_string();
    assert_eq!(message, r#"data.source = "cifar": known are digits, mnist, fashion-mnist, idx:DIR, csv:FILE and none"#);
}

#[test]
fn without_a_source_each_client_has_one_empty_row() {
    let config = DataConfig { source: "none".into(), clients: 3, features: 7, ..DataConfig::default() };
    let split = load(&config, &Seed::from_u64(1)).unwrap();
    assert_eq!((split.train.len(), split.test.len(), split.train.input().width), (3, 0, 7));
    let parts = partition(&config, &split.train, &Seed::from_u64(1)).unwrap();
    assert_eq!(parts, [[0], [1], [2]]);
}

#[test]
fn data_sets_whose_parts_do_not_fit_are_refused() {
    let input = InputShape::image(1, 1, 2, 2);
    assert!(Dataset::new("x", input, vec![0.0; 3], vec![0, 1]).is_err());
    assert!(Dataset::new("x", input, vec![0.0; 4], vec![0, 2]).is_err());
    let bytes = Features::Bytes { values: vec![0, 1, 3, 0], scale: 0.25 };
    let bytes = Dataset::with_features("x".into(), input, bytes, vec![0, 1]).unwrap();
    let mut row = Vec::new();
    bytes.select(&[1]).append_row(0, &mut row);
    assert_eq!(row, [0.75, 0.0]);
    assert!(Examples::new(Arc::new(bytes), vec![2]).is_err());
}

#[test]
fn mnist_has_its_known_shape() {
    let dir = root().join("mnist");
    if !idx::is_dataset(&dir) {
        #[allow(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: no MNIST in {}; run `dunlin data fetch mnist`", dir.display());
        }
        return;
    }
    let split = load_source("mnist").unwrap();
    assert_eq!((split.train.len(), split.test.len()), (60_000, 10_000));
    assert_eq!(*split.train.input(), InputShape::image(1, 28, 28, 10));
    let histogram = Examples::all(split.test).label_histogram();
    assert_eq!(histogram, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
}

/// Needs a network and 42 MB: `cargo test -p dunlin-nn -- --ignored --nocapture fetch`.
#[test]
#[ignore = "downloads both sets into $DUNLIN_DATA"]
#[allow(clippy::print_stderr, reason = "run by hand, to be watched")]
fn both_sets_can_be_fetched() {
    for name in ["mnist", "fashion-mnist"] {
        let dir = fetch(name, &root(), &mut |line| eprintln!("{line}")).unwrap();
        assert!(idx::is_dataset(&dir));
        let again = fetch(name, &root(), &mut |line| assert!(line.ends_with("is complete"), "{line}")).unwrap();
        assert_eq!(again, dir);
    }
}
