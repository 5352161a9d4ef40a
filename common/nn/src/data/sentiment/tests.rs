//! Scored texts, whole and malformed.

use super::*;

/// Reads four domains, all with this file, every text to train on.
fn parse(text: &[u8]) -> Result<Dataset, Error> {
    let dir = tempfile::tempdir().unwrap();
    for (_, file) in FILES {
        std::fs::write(dir.path().join(file), text).unwrap();
    }
    read(dir.path(), |groups| Ok(((0..groups.len() as u32).collect(), vec![]))).map(|(train, _)| train)
}

#[test]
fn words_are_small_and_what_stands_between_them_counts() {
    let of = |text| words(text).collect::<Vec<_>>();
    assert_eq!(of("Yay!!! I'm SO happy :)\tçava"), ["yay", "!!!", "i'm", "so", "happy", ":)", "çava"]);
    assert_eq!(of(" \r\n"), Vec::<String>::new());
}

#[test]
fn tokens_are_fnv_1a_and_never_the_padding() {
    // Hashes from the reference of Fowler, Noll and Vo.
    assert_eq!(token(""), 1 + 0xcbf2_9ce4_8422_2325 % 4095);
    assert_eq!(token("a"), 1 + 0xaf63_dc4c_8601_ec8c % 4095);
    assert_eq!(token("foobar"), 1 + 0x8594_4171_f739_67e8 % 4095);
}

#[test]
fn signs_are_labels_and_neutral_texts_are_left_out() {
    let train = parse(b"1\t0.5\tGood thing\r\n2\t-3.1\tbad\r\n3\t0.49\tso so\r\n4\t-0.2\tso\r\n").unwrap();
    assert_eq!(*train.input(), InputShape::tokens(32, 4096, 2));
    assert_eq!(train.labels(), [1, 0].repeat(4));
    assert_eq!(train.keys().unwrap(), [0, 0, 1, 1, 2, 2, 3, 3]);
    assert_eq!(train.key_names(), ["editorials", "films", "products", "tweets"]);
    let mut row = Vec::new();
    train.append_row(0, &mut row);
    let mut expected = vec![0.0; 32];
    expected[..2].copy_from_slice(&[token("good") as f32, token("thing") as f32]);
    assert_eq!(row, expected);
}

#[test]
fn lines_that_are_none_are_told_by_file_and_number() {
    let problem = |text: &[u8]| parse(text).map(|train| train.len()).unwrap_err().to_string();
    assert!(problem(b"1\t2\ta\nno tabs\n").ends_with(
        "nytEditorialSnippets_GroundTruth.txt, line 2: an id, a score and a text, with tabs between, are wanted"
    ));
    for score in ["x", "nan", "inf", ""] {
        let told = problem(format!("1\t{score}\ttext\n").as_bytes());
        assert!(told.ends_with("line 1: the score is no finite number"), "{told}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(read(dir.path(), |_| Ok((vec![], vec![]))), Err(Error::Io { .. })));
}

#[test]
fn a_long_text_is_cut_and_bytes_that_are_no_text_cost_a_word() {
    let train = parse(format!("1\t1\t{}\n", "word ".repeat(100)).as_bytes()).unwrap();
    assert_eq!(train.len(), 4);
    let train = parse(b"1\t1\tcaf\xe9 good\n").unwrap();
    let mut row = Vec::new();
    train.append_row(0, &mut row);
    assert!(row.contains(&(token("good") as f32)));
}
