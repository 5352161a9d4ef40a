//! Plays and plain texts, and the windows on them.

use super::*;

const PLAY: &str = "# A Play\n\n## ACT I\n\n**HAMLET**  \nWho's there?  \n_Exit_\n\nNay, an\\-swer me.\n\n**OPHELIA**  \nBy “me”—now…\n\n### SCENE II\n\nNobody says this.\n\n**HAMLET**  \nYes.\n";

fn roles(file: &str, text: &str) -> Vec<(String, String)> {
    let mut roles = BTreeMap::new();
    collect(file, text, &mut roles);
    roles.into_iter().collect()
}

/// The text of tokens.
fn decode(tokens: impl IntoIterator<Item = u32>) -> String {
    let letter = |token| match token {
        0 => '␀',
        87 => '�',
        88 => '⊢',
        89 => '⊣',
        token => char::from(CHARACTERS.as_bytes()[token as usize - 1]),
    };
    tokens.into_iter().map(letter).collect()
}

fn row_text(dataset: &Dataset, row: u32) -> String {
    let mut values = Vec::new();
    dataset.append_row(row, &mut values);
    decode(values.iter().map(|value| *value as u32))
}

#[test]
fn the_vocabulary_has_the_ninety_tokens_of_the_literature() {
    let distinct: std::collections::BTreeSet<_> = CHARACTERS.bytes().collect();
    assert_eq!((CHARACTERS.len(), distinct.len(), CHARACTERS.is_ascii()), (86, 86, true));
    assert_eq!([UNKNOWN, BEGIN, END].map(usize::from), [VOCABULARY - 3, VOCABULARY - 2, VOCABULARY - 1]);
}

#[test]
fn a_play_is_the_speeches_of_its_roles_without_directions_and_headings() {
    assert_eq!(
        roles("hamlet", PLAY),
        [
            ("hamlet: HAMLET".into(), "Who's there?\nNay, an-swer me.\nYes.".into()),
            ("hamlet: OPHELIA".into(), "By \"me\"--now...".into()),
        ]
    );
}

#[test]
fn a_text_without_roles_is_one_role() {
    assert_eq!(roles("notes", "One.\n\n_Two._ ‘3’\n"), [("notes".into(), "One.\n\n_Two._ '3'\n".into())]);
}

#[test]
fn each_character_is_labelled_with_the_next_one() {
    let tokens = encode("dé~!");
    assert_eq!(decode(tokens.iter().map(|&token| u32::from(token))), "⊢d��!⊣");
    let dir = tempfile::tempdir().unwrap();
    let text: String = ('a'..='z').cycle().take(800).collect();
    std::fs::write(dir.path().join("b.txt"), &text).unwrap();
    std::fs::write(dir.path().join("a.txt"), text.to_uppercase()).unwrap();
    std::fs::write(dir.path().join("short.txt"), "short").unwrap();
    std::fs::write(dir.path().join("no-text.csv"), "a,b").unwrap();
    let (train, test) = read("text:x", dir.path(), 0.2).unwrap();
    assert_eq!(*train.input(), InputShape::text(80, 90));
    assert_eq!((train.len(), test.len()), (16, 4));
    assert_eq!(train.key_names(), ["a", "b"]);
    assert_eq!(train.keys().unwrap(), [[0; 8], [1; 8]].concat());
    assert_eq!(test.keys().unwrap(), [0, 0, 1, 1]);
    let whole = format!("⊢{text}⊣");
    for row in 0..8 {
        let part = |from: usize| whole.chars().skip(80 * row + from).take(80).collect::<String>();
        assert_eq!(row_text(&train, 8 + row as u32), part(0));
        assert_eq!(decode(train.row_labels(8 + row as u32).iter().copied()), part(1));
    }
    // What is held out is the end of the text.
    assert_eq!(row_text(&test, 3), whole.chars().skip(720).take(80).collect::<String>());
}

#[test]
fn texts_that_cannot_be_read_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.txt");
    let problem = |path: &Path| {
        let message = read("x", path, 0.2).map(|(train, _)| train.len()).unwrap_err().to_string();
        message.replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(problem(dir.path()), "DIR: no .md or .txt file is there");
    assert!(matches!(read("x", &file, 0.2), Err(Error::Io { .. })));
    std::fs::write(&file, PLAY).unwrap();
    assert_eq!(problem(&file), "DIR/a.txt: none of its 2 roles has 500 characters, the least that is learnt from");
    std::fs::write(&file, b"abc\xff").unwrap();
    assert_eq!(problem(&file), "DIR/a.txt: byte 3 (from 0) is no UTF-8; convert the file");
    std::fs::write(&file, b"").unwrap();
    assert!(problem(&file).contains("none of its 1 roles has 500 characters"));
}

#[test]
fn a_role_keeps_a_row_to_train_on_whatever_is_held_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.txt");
    std::fs::write(&file, "a".repeat(500)).unwrap();
    let (train, test) = read("x", &file, 0.99).unwrap();
    assert_eq!((train.len(), test.len()), (1, 5));
    let (train, test) = read("x", &file, 0.0).unwrap();
    assert_eq!((train.len(), test.len()), (6, 0));
}
