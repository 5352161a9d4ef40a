//! Short texts with a score of their mood, from four domains (Hutto and Gilbert 2014, VADER).

use super::set::Dataset;
use crate::Error;
use crate::model::InputShape;
use std::path::Path;

/// The domains, in the order of their names, with their files in the data set's folder.
pub(super) const FILES: [(&str, &str); 4] = [
    ("editorials", "nytEditorialSnippets_GroundTruth.txt"),
    ("films", "movieReviewSnippets_GroundTruth.txt"),
    ("products", "amazonReviewSnippets_GroundTruth.txt"),
    ("tweets", "tweets_GroundTruth.txt"),
];

/// Words of a row: nine of ten texts have no more, others lose their end.
const STEPS: usize = 32;

/// Tokens: 0 pads, and each word has one of the others by its hash (Weinberger et al. 2009,
/// <https://arxiv.org/abs/0902.2206>). A dictionary would have to be gathered from the clients, and would tell which
/// words they use; the hash is known to all beforehand. Of two words one in 4,095 falls together.
const VOCABULARY: usize = 4096;

/// Scores are means of twenty raters from −4 to 4. Below this magnitude the mean rounds to 0, neutral, and the text is
/// not used.
const MIN_SCORE: f64 = 0.5;

const LABELS: usize = 2;

/// Longest file that is read; the longest there is has 1.4 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The texts that `split` puts among the training and the test rows, given for each a number that is the same for those
/// of the same domain and label. The label is 1 for a positive score and 0 for a negative one; the natural key is the
/// domain.
pub(super) fn read(
    dir: &Path,
    split: impl Fn(&[u32]) -> Result<(Vec<u32>, Vec<u32>), Error>,
) -> Result<(Dataset, Dataset), Error> {
    let (mut features, mut labels, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for (key, (_, file)) in (0..).zip(FILES) {
        let path = dir.join(file);
        for (number, line) in (1..).zip(read_file(&path)?.lines()) {
            let malformed = |problem: &str| Error::malformed(format!("{}, line {number}", path.display()), problem);
            let mut fields = line.splitn(3, '\t');
            let (Some(_), Some(score), Some(text)) = (fields.next(), fields.next(), fields.next()) else {
                return Err(malformed("an id, a score and a text, with tabs between, are wanted"));
            };
            let score = score.parse::<f64>().ok().filter(|score| score.is_finite());
            let score = score.ok_or_else(|| malformed("the score is no finite number"))?;
            if score.abs() < MIN_SCORE {
                continue;
            }
            let start = features.len();
            features.extend(words(text).take(STEPS).map(|word| token(&word) as f32));
            features.resize(start + STEPS, 0.0);
            labels.push(u32::from(score > 0.0));
            keys.push(key);
        }
    }
    let groups: Vec<u32> = keys.iter().zip(&labels).map(|(key, label)| key * LABELS as u32 + label).collect();
    let (train, test) = split(&groups)?;
    let names: Vec<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let all = Dataset::new("sentiment", InputShape::tokens(STEPS, VOCABULARY, LABELS), features, labels)?;
    let all = all.with_keys(names, keys)?;
    Ok((all.select(&train), all.select(&test)))
}

fn read_file(path: &Path) -> Result<String, Error> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| Error::io(path, error))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|error| Error::io(path, error))?;
    // A character that is none costs a word and not the file.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The words of a text in small letters, and what stands between them without spaces: exclamation marks and faces tell
/// of mood, too.
fn words(text: &str) -> impl Iterator<Item = String> {
    let text = text.to_lowercase();
    let of_word = |character: char| character.is_alphanumeric() || character == '\'';
    let mut words = Vec::<String>::new();
    for part in text.split_whitespace() {
        let mut before = None;
        for character in part.chars() {
            let kind = Some(of_word(character));
            match words.last_mut() {
                Some(word) if before == kind => word.push(character),
                _ => words.push(character.to_string()),
            }
            before = kind;
        }
    }
    words.into_iter()
}

/// The token of a word: FNV-1a of its UTF-8 in 64 bits, written out so that it stays the same everywhere.
fn token(word: &str) -> u64 {
    let hash = word
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    1 + hash % (VOCABULARY as u64 - 1)
}

#[cfg(test)]
mod tests;
