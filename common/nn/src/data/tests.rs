//! The embedded and the fetched data sets.

use super::*;
use crate::data::set::Features;
use crate::model::InputShape;

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
    let known = "digits, penguins, mnist, fashion-mnist, cifar10, shakespeare, heart, spoken-digits, sentiment, idx:DIR, png:DIR, \
                 csv:FILE, npz:FILE, safetensors:FILE, text:FILE or DIR, and none";
    assert_eq!(message, format!("data.source = \"cifar\": known are {known}"));
    assert_eq!(load_source("tar:x").unwrap_err().to_string(), format!("data.source = \"tar:x\": known are {known}"));
}

#[test]
fn every_named_set_but_the_embedded_ones_can_be_fetched_and_stand_in_a_recipe() {
    for name in NAMED {
        assert_eq!(fetchable().any(|known| known == name), !["digits", "penguins"].contains(&name), "{name}");
        dunlin_core::Recipe::load(None, &[format!("data.source={name}")]).unwrap();
    }
}

#[test]
fn sets_with_keys_hold_out_a_share_of_each_key_and_label() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let x: Vec<u8> = (0..40).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let y: Vec<u8> = (0..40).map(|row| row % 2).collect();
    let key: Vec<u8> = (0..40).map(|row| row / 10).collect();
    let view =
        |kind, shape: &[usize], bytes| safetensors::tensor::TensorView::new(kind, shape.to_vec(), bytes).unwrap();
    let views = [
        ("x", view(safetensors::Dtype::F32, &[40, 1], &x)),
        ("y", view(safetensors::Dtype::U8, &[40], &y)),
        ("key", view(safetensors::Dtype::U8, &[40], &key)),
    ];
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let split = load_source(&format!("safetensors:{}", path.display())).unwrap();
    assert_eq!((split.train.len(), split.test.len()), (32, 8));
    let pairs = split.test.keys().unwrap().iter().zip(split.test.labels());
    assert_eq!(pairs.collect::<std::collections::BTreeSet<_>>().len(), 8);
    let config = DataConfig { partition: dunlin_core::recipe::Partition::Key, clients: 4, ..DataConfig::default() };
    let parts = partition(&config, &split.train, &Seed::from_u64(1)).unwrap();
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [8; 4]);
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
fn rows_may_have_several_labels_and_keys() {
    let input = InputShape::text(2, 4);
    let all = Dataset::new("x", input, vec![0.0, 1.0, 2.0, 3.0], vec![1, 2, 3, 0]).unwrap();
    let all = all.with_keys(["a".to_owned(), "b".to_owned()], vec![1, 0]).unwrap();
    assert_eq!((all.len(), all.row_labels(1), all.keys()), (2, [3, 0].as_slice(), Some([1, 0].as_slice())));
    let second = all.select(&[1]);
    assert_eq!((second.len(), second.labels(), second.keys()), (1, [3, 0].as_slice(), Some([0].as_slice())));
    assert_eq!(Examples::all(Arc::new(second)).label_histogram(), [1, 0, 0, 1]);
    assert!(all.clone().with_keys(["a".to_owned()], vec![0, 1]).is_err());
    assert!(all.with_keys(["a".to_owned()], vec![0]).is_err());
    for (values, labels) in [
        (vec![0.0, 1.0, 2.0], vec![1, 2, 3, 0]),
        (vec![0.0, 1.0, 2.0, 3.0], vec![1, 2, 3]),
        (vec![0.0, 1.0, 2.0, 4.0], vec![1, 2, 3, 0]),
        (vec![0.0, 1.0, 2.0, 0.5], vec![1, 2, 3, 0]),
        (vec![0.0, 1.0, 2.0, -1.0], vec![1, 2, 3, 0]),
        (vec![0.0, 1.0, 2.0, f32::NAN], vec![1, 2, 3, 0]),
        (vec![0.0, 1.0, 2.0, 3.0], vec![1, 2, 3, 4]),
    ] {
        assert!(Dataset::new("x", input, values, labels).is_err());
    }
    let message = Dataset::new("x", input, vec![0.0, 1.0, 2.0, 4.0], vec![0; 4]).unwrap_err().to_string();
    assert_eq!(message, "x: row 1 has the token 4; whole numbers from 0 to 3 are right");
}

/// A fetched set, or a line that says why the test is skipped.
fn fetched(name: &str) -> Option<Split> {
    let root = root();
    if find(name, &root).is_none() {
        #[allow(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: {} does not hold {name}; run `dunlin data fetch {name}`", root.display());
        }
        return None;
    }
    Some(load_source(name).unwrap())
}

fn histogram(dataset: &Arc<Dataset>) -> Vec<u64> {
    Examples::all(dataset.clone()).label_histogram()
}

#[test]
fn mnist_has_its_known_shape() {
    let Some(split) = fetched("mnist") else { return };
    assert_eq!((split.train.len(), split.test.len()), (60_000, 10_000));
    assert_eq!(*split.train.input(), InputShape::image(1, 28, 28, 10));
    assert_eq!(histogram(&split.test), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
}

#[test]
fn cifar10_has_its_known_order_and_mean() {
    let Some(split) = fetched("cifar10") else { return };
    assert_eq!((split.train.len(), split.test.len()), (50_000, 10_000));
    assert_eq!(*split.train.input(), InputShape::image(3, 32, 32, 10));
    assert_eq!(split.train.labels()[..10], [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]);
    assert_eq!(split.test.labels()[..10], [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]);
    assert_eq!(histogram(&split.train), [5000; 10]);
    let (mut sums, mut row) = ([0.0f64; 3], Vec::new());
    for index in 0..50_000 {
        row.clear();
        split.train.append_row(index, &mut row);
        for (sum, plane) in sums.iter_mut().zip(row.chunks(1024)) {
            *sum += plane.iter().map(|&value| f64::from(value)).sum::<f64>() / (1024.0 * 50_000.0);
        }
    }
    // The means that the literature subtracts.
    for (mean, known) in sums.iter().zip([0.491_400, 0.482_158, 0.446_531]) {
        assert!((mean - known).abs() < 1e-5, "{sums:?}");
    }
}

#[test]
fn shakespeare_has_848_roles_and_4_million_characters() {
    let Some(split) = fetched("shakespeare") else { return };
    assert_eq!(*split.train.input(), InputShape::text(80, 90));
    assert_eq!(split.train.key_names().len(), 848);
    assert!(split.train.key_names().contains(&"hamlet: HAMLET".to_owned()));
    let rows = split.train.len() + split.test.len();
    assert!((53_000..55_000).contains(&rows), "{rows}");
    // Hardly a character is unknown.
    let unknown = histogram(&split.train)[87];
    assert!(unknown < 100, "{unknown}");
}

#[test]
fn the_penguins_live_on_three_islands_none_of_which_has_all_species() {
    let split = load_source("penguins").unwrap();
    assert_eq!((split.train.len() + split.test.len(), *split.train.input()), (344, InputShape::table(5, 3)));
    assert_eq!(split.train.key_names(), ["Biscoe", "Dream", "Torgersen"]);
    let mut birds = [[0; 3]; 3];
    for set in [&split.train, &split.test] {
        for (&key, &label) in set.keys().unwrap().iter().zip(set.labels()) {
            birds[key as usize][label as usize] += 1;
        }
    }
    assert_eq!(birds, [[44, 0, 124], [56, 68, 0], [52, 0, 0]]);
}

#[test]
fn heart_has_its_920_patients_of_four_hospitals() {
    let Some(split) = fetched("heart") else { return };
    assert_eq!((split.train.len() + split.test.len(), *split.train.input()), (920, InputShape::table(15, 2)));
    assert_eq!(split.train.key_names(), ["Cleveland", "Hungary", "Switzerland", "VA Long Beach"]);
    let mut patients = [0; 4];
    for &key in split.train.keys().unwrap().iter().chain(split.test.keys().unwrap()) {
        patients[key as usize] += 1;
    }
    assert_eq!(patients, [304, 293, 123, 200]);
}

#[test]
fn the_spoken_digits_are_three_hundred_of_each() {
    let Some(split) = fetched("spoken-digits") else { return };
    assert_eq!(*split.train.input(), InputShape::sequence(40, 13, 10));
    assert_eq!((histogram(&split.train), histogram(&split.test)), (vec![240; 10], vec![60; 10]));
}

#[test]
fn the_scored_texts_are_of_four_domains_and_two_moods() {
    let Some(split) = fetched("sentiment") else { return };
    assert_eq!(*split.train.input(), InputShape::tokens(32, 4096, 2));
    assert_eq!(split.train.len() + split.test.len(), 19_459);
    assert_eq!(split.train.key_names(), ["editorials", "films", "products", "tweets"]);
}

/// Needs a network and 400 MB: `cargo test -p dunlin-nn -- --ignored --nocapture fetched`.
#[test]
#[ignore = "downloads everything into $DUNLIN_DATA"]
#[allow(clippy::print_stderr, reason = "run by hand, to be watched")]
fn everything_can_be_fetched() {
    for name in fetchable() {
        let dir = fetch(name, &root(), &mut |told| eprintln!("{told:?}")).unwrap();
        assert_eq!(find(name, &root()), Some(dir.clone()));
        let again = fetch(name, &root(), &mut |told| {
            assert!(matches!(told, Fetching::Step(line) if line.ends_with("is complete")), "{told:?}");
        })
        .unwrap();
        assert_eq!(again, dir);
    }
}
