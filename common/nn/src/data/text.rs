//! Text by role: the speeches of plays in Markdown, or plain files of one writer each, as windows of characters.

use super::set::{Dataset, Features};
use crate::Error;
use crate::model::InputShape;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Characters in a row; each is labelled with the one that follows it.
pub(super) const STEPS: usize = 80;

/// The characters that have a token, in the order of TensorFlow Federated's Shakespeare: tokens 1 to 86.
///
/// It is fixed, so that clients need not tell each other which characters they have, and models have the sizes of Reddi
/// et al. 2021 (<https://arxiv.org/abs/2003.00295>).
const CHARACTERS: &str = "dhlptx@DHLPTX $(,048cgkoswCGKOSW[_#'/37;?bfjnrvzBFJNRVZ\"&*.26:\naeimquyAEIMQUY]!%)-159\r";

/// Token 0 pads: no row here needs it, but it has its place in the vocabulary.
const UNKNOWN: u8 = 87;
const BEGIN: u8 = 88;
const END: u8 = 89;

/// Tokens: padding, the 86 characters, the unknown one, begin and end.
pub(super) const VOCABULARY: usize = 90;

/// Fewest characters of a role that stays: enough for six rows.
const MIN_CHARACTERS: usize = 500;

/// Most bytes of all files together; the plays have 5 million.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// The training and test rows of a file, or of the `.md` and `.txt` files of a folder: of each role, the last
/// `test_share` of its rows are test rows. The natural key is the role.
pub(super) fn read(name: &str, path: &Path, test_share: f64) -> Result<(Dataset, Dataset), Error> {
    let mut roles = BTreeMap::new();
    let mut bytes = 0;
    for file in files(path)? {
        let text = read_file(&file, &mut bytes)?;
        collect(&file.file_stem().unwrap_or_default().to_string_lossy(), &text, &mut roles);
    }
    let found = roles.len();
    roles.retain(|_, text| text.chars().count() >= MIN_CHARACTERS);
    if roles.is_empty() {
        let problem =
            format!("none of its {found} roles has {MIN_CHARACTERS} characters, the least that is learnt from");
        return Err(Error::malformed(path.display(), problem));
    }
    let (mut tokens, mut labels, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (key, text) in (0..).zip(roles.values()) {
        let encoded = encode(text);
        // The last window would be cut short, so what is left over is not used.
        let rows = (encoded.len() - 1) / STEPS;
        tokens.extend_from_slice(&encoded[..rows * STEPS]);
        labels.extend(encoded[1..=rows * STEPS].iter().map(|&token| u32::from(token)));
        let first = keys.len() as u32;
        keys.resize(keys.len() + rows, key);
        let held_out = ((rows as f64 * test_share).round() as usize).min(rows - 1);
        let middle = first + (rows - held_out) as u32;
        train.extend(first..middle);
        test.extend(middle..first + rows as u32);
    }
    let names: Vec<String> = roles.into_keys().collect();
    let features = Features::Bytes { values: tokens, scale: 1.0 };
    let all = Dataset::with_features(name.to_owned(), InputShape::text(STEPS, VOCABULARY), features, labels)?;
    let all = all.with_keys(names, keys)?;
    Ok((all.select(&train), all.select(&test)))
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| Error::io(path, error))?;
    let is_text = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md" || extension == "txt");
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_text).collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::malformed(path.display(), "no .md or .txt file is there"));
    }
    Ok(files)
}

fn read_file(path: &Path, bytes: &mut u64) -> Result<String, Error> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let mut content = Vec::new();
    let limit = MAX_TEXT_BYTES - *bytes;
    *bytes += file.take(limit + 1).read_to_end(&mut content).map_err(|error| Error::io(path, error))? as u64;
    if *bytes > MAX_TEXT_BYTES {
        let problem = format!("with the files before it, it is beyond the limit of {MAX_TEXT_BYTES} bytes");
        return Err(Error::malformed(path.display(), problem));
    }
    String::from_utf8(content).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::malformed(path.display(), format!("byte {at} (from 0) is no UTF-8; convert the file"))
    })
}

/// Adds what each role of a file says, as `file: ROLE`; a file that names no role is one role of its own.
fn collect(file: &str, text: &str, roles: &mut BTreeMap<String, String>) {
    let role_of = |line: &str| {
        let name = line.trim().strip_prefix("**")?.strip_suffix("**")?;
        (!name.is_empty()).then(|| format!("{file}: {name}"))
    };
    if !text.lines().any(|line| role_of(line).is_some()) {
        roles.entry(file.to_owned()).or_default().push_str(&to_ascii(text));
        return;
    }
    let mut role = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = role_of(line) {
            // A role stays one even if its speeches are all directions.
            roles.entry(name.clone()).or_default();
            role = Some(name);
        } else if line.starts_with('#') {
            role = None;
        } else if let Some(role) = &role
            && !line.is_empty()
            && !is_direction(line)
        {
            let speech = roles.entry(role.clone()).or_default();
            if !speech.is_empty() {
                speech.push('\n');
            }
            speech.push_str(&to_ascii(&unescape(line)));
        }
    }
}

/// Whether a line of a play is a stage direction, which is set in italics.
fn is_direction(line: &str) -> bool {
    line.len() > 1 && line.starts_with('_') && line.ends_with('_')
}

/// Markdown without the backslashes before its punctuation.
fn unescape(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match characters.peek() {
            Some(next) if character == '\\' && next.is_ascii_punctuation() => {}
            _ => plain.push(character),
        }
    }
    plain
}

/// Typographic quotes, dashes and spaces as a typewriter has them.
fn to_ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '‘' | '’' | '‚' | '‛' => ascii.push('\''),
            '“' | '”' | '„' | '‟' => ascii.push('"'),
            '—' | '―' => ascii.push_str("--"),
            '‐' | '‑' | '‒' | '–' | '−' => ascii.push('-'),
            '…' => ascii.push_str("..."),
            '\u{a0}' | '\t' => ascii.push(' '),
            other => ascii.push(other),
        }
    }
    ascii
}

/// The tokens of a role's text, between begin and end.
fn encode(text: &str) -> Vec<u8> {
    let mut token_of = [UNKNOWN; 128];
    for (token, character) in (1..).zip(CHARACTERS.bytes()) {
        token_of[usize::from(character)] = token;
    }
    let token = |character: char| token_of.get(character as usize).copied().unwrap_or(UNKNOWN);
    std::iter::once(BEGIN).chain(text.chars().map(token)).chain([END]).collect()
}

#[cfg(test)]
mod tests;
