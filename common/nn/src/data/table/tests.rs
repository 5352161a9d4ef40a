//! CSV files, whole and malformed.

use super::*;

/// Writes a table and reads it with the last row held out.
fn parse(text: &str, config: &DataConfig) -> Result<(Dataset, Dataset), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    std::fs::write(&path, text).unwrap();
    let last_out = |labels: &[u32]| {
        let last = labels.len() as u32 - 1;
        Ok(((0..last).collect(), vec![last]))
    };
    read(&path, config, last_out)
}

fn problem(text: &str) -> String {
    parse(text, &DataConfig::default()).map(|(train, _)| train.len()).unwrap_err().to_string()
}

fn row(dataset: &Dataset, row: u32) -> Vec<f32> {
    let mut values = Vec::new();
    dataset.append_row(row, &mut values);
    values
}

#[test]
fn features_are_standardised_with_the_training_rows_alone() {
    let (train, test) = parse("a,label,b\n1,x,5\n3,y,5\n5,x,6\n", &DataConfig::default()).unwrap();
    assert_eq!(*train.input(), InputShape::image(1, 1, 2, 2));
    assert_eq!((row(&train, 0), row(&train, 1)), (vec![-1.0, 0.0], vec![1.0, 0.0]));
    assert_eq!((row(&test, 0), test.labels()), (vec![3.0, 0.0], [0].as_slice()));
}

#[test]
fn labels_are_numbered_as_numbers_when_all_are() {
    assert_eq!(enumerate(&["10", "9", "-1", "9"]), (vec![2, 1, 0, 1], 3));
    assert_eq!(enumerate(&["b", "a", "10"]), (vec![2, 1, 0], 3));
    assert_eq!(enumerate::<&str>(&[]), (vec![], 0));
}

#[test]
fn errors_name_the_line_and_the_column() {
    assert!(
        problem("a,label\n1,0\n,1\n")
            .ends_with(r#"t.csv, line 3, column "a": the value is missing; fill it in or drop the row"#)
    );
    assert!(problem("a,label\nred,0\n2,1\n").contains(r#"line 2, column "a": "red" is not a finite number"#));
    assert!(problem("a,label\ninf,0\n2,1\n").contains("not a finite number"));
    assert!(problem("a,label\n1,0\n2,\n").ends_with(r#"line 3, column "label": the label is missing"#));
    assert!(problem("a,label\n1,0\n2\n").ends_with("line 3 has 1 fields and the header 2"));
    assert!(problem("a,b\n1,0\n").starts_with(r#"data.label = "label": "#));
    assert!(problem("label\n1\n").contains("one feature column"));
    assert!(problem("a,label\n").contains("one row"));
    assert!(problem("").starts_with("data.label"));
}

#[test]
fn a_column_of_measurements_is_no_label() {
    let mut text = "a,label\n".to_owned();
    for number in 0..=MAX_CLASSES {
        text += &format!("1,{number}.5\n");
    }
    assert!(problem(&text).starts_with("data.label"));
}

#[test]
fn the_key_column_of_the_same_file_is_no_feature() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.csv");
    std::fs::write(&path, "a,island,label\n1,x,0\n2,y,1\n").unwrap();
    let key_file = format!("{}:island", path.display());
    let config = DataConfig { partition: Partition::Key, key_file, ..DataConfig::default() };
    let (train, _) = read(&path, &config, |_| Ok((vec![0, 1], vec![]))).unwrap();
    assert_eq!(train.input().width, 1);
    assert_eq!(read_column(&path, "island").unwrap(), ["x", "y"]);
    assert!(matches!(read_column(&path, "sea"), Err(Error::Config { key: "data.key_file", .. })));
}
