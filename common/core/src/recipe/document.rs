//! A recipe while it is still TOML: every key checked where it was written.

use super::Recipe;
use super::keys::{KEYS, Key, SECTIONS};
use super::parse::{Place, Places, Problem, RecipeError};
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// The table of a recipe, and where each of its keys was last written.
#[derive(Default)]
pub(super) struct Document {
    table: Table,
    places: Places,
}

impl Document {
    /// Parses a text and checks each key by itself, in the order of the text.
    pub(super) fn parse(text: &str) -> Result<Self, RecipeError> {
        let line = |offset: usize| Place::Line(text[..offset].matches('\n').count() + 1);
        let syntax = |error: &toml::de::Error, message: &str| {
            let Some(span) = error.span() else { return Place::Value.error(Problem::Syntax(message.to_owned())) };
            let start = text[..span.start].rfind('\n').map_or(0, |end| end + 1);
            let written = text[start..].lines().next().unwrap_or_default().trim();
            line(span.start).error(Problem::Syntax(format!("{message}: `{written}`")))
        };
        let spans = DeTable::parse(text).map_err(|error| syntax(&error, error.message()))?;
        // What is TOML but no value of ours can only be a number.
        let document = text.parse().map_err(|error| syntax(&error, "the number does not fit into 64 bits"))?;
        let document = Value::Table(document);
        let mut offsets = BTreeMap::new();
        list_offsets("", spans.get_ref(), &mut offsets);

        let mut entries = Vec::new();
        list_entries("", &document, &mut entries);
        entries.sort_by_key(|(path, _)| offsets.get(path));
        let mut places = Places::default();
        for (path, value) in entries {
            let place = offsets.get(&path).map_or(Place::Value, |offset| line(*offset));
            let path = without_indices(&path);
            check_entry(&path, value).map_err(|problem| place.clone().error(problem))?;
            places.0.entry(path).or_insert(place);
        }
        let Value::Table(table) = document else { unreachable!("it was made as a table above") };
        Ok(Self { table, places })
    }

    /// Applies one assignment.
    pub(super) fn set(&mut self, assignment: &str) -> Result<(), RecipeError> {
        let place = Place::Set(assignment.to_owned());
        let Some((path, text)) = assignment.split_once('=') else {
            return Err(place.error(Problem::NoAssignment));
        };
        let (path, text) = (path.trim(), text.trim());
        let parsed = text.parse::<Value>();
        let Some(key) = Key::find(path) else {
            let value = parsed.unwrap_or_else(|_| text.into());
            return Err(place.error(match is_section(path) {
                true => wrong(path, &value, "set key by key"),
                false => unknown(path, &value),
            }));
        };
        let value = match parsed {
            Ok(value) if value.is_str() || !key.form.is_textual() => value,
            _ => text.into(),
        };
        check_entries(path, &value).map_err(|problem| place.clone().error(problem))?;
        insert(&mut self.table, "", path, value);
        self.places.0.insert(path.to_owned(), place);
        Ok(())
    }

    /// Where each of its keys was last written.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// The same, without the document.
    pub(super) fn into_places(self) -> Places {
        self.places
    }

    /// The document over the default recipe.
    pub(super) fn to_value(&self) -> Value {
        let mut table = Table::try_from(Recipe::default()).expect("the default recipe can be written as TOML");
        overlay(&mut table, &self.table);
        Value::Table(table)
    }
}

/// Checks a value and, when it is a section, everything in it, each key by itself.
pub(super) fn check_entries(path: &str, value: &Value) -> Result<(), Problem> {
    let mut entries = Vec::new();
    list_entries(path, value, &mut entries);
    entries.iter().try_for_each(|(path, value)| check_entry(&without_indices(path), value))
}

fn check_entry(path: &str, value: &Value) -> Result<(), Problem> {
    match Key::find(path) {
        Some(key) if key.form.admits(value) => Ok(()),
        Some(key) if key.form.is_textual() => Err(wrong(path, value, &with_hint(key.values(), value))),
        Some(key) => Err(wrong(path, value, &key.values())),
        None if is_section(path) && value.is_table() => Ok(()),
        None if is_section(path) => Err(wrong(path, value, &format!("a section, headed `[{path}]`"))),
        None => Err(unknown(path, value)),
    }
}

/// What would be right, and which of its words a word is nearest to.
fn with_hint(values: String, value: &Value) -> String {
    let Some(given) = value.as_str() else { return values };
    let word = given.to_lowercase();
    let words = values.split([',', ' ']).filter(|known| known.len() > 2 && *known != given);
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&word, known);
    // A place such as idx:DIRECTORY is no word.
    let known = words.filter(|known| !known.contains(':')).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match known.filter(|known| likeness(known) >= MIN_LIKENESS) {
        Some(known) => format!("{values}; did you mean \"{known}\"?"),
        None => values,
    }
}

fn wrong(path: &str, value: &Value, right: &str) -> Problem {
    let value = match value {
        Value::Table(_) => "a section".to_owned(),
        Value::Array(items) if items.iter().any(Value::is_table) => "a list of sections".to_owned(),
        value => value.to_string(),
    };
    let value = match value.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value,
    };
    Problem::Wrong { key: path.to_owned(), value, right: right.to_owned() }
}

fn unknown(path: &str, value: &Value) -> Problem {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let what = if value.is_table() { "section" } else { "key" };
    let sections = SECTIONS.iter().map(|(section, _)| *section);
    let candidates: Vec<_> =
        if value.is_table() { sections.clone().collect() } else { KEYS.iter().map(|key| key.path).collect() };
    let likeness = |candidate: &str| {
        let (its_section, its_name) = candidate.rsplit_once('.').unwrap_or(("", candidate));
        if section == its_section && its_name.starts_with(&format!("{name}_")) {
            0.9
        } else if section == its_section {
            strsim::normalized_damerau_levenshtein(name, its_name)
        } else if name == its_name {
            0.8
        } else {
            0.9 * strsim::normalized_damerau_levenshtein(path, candidate)
        }
    };
    // The first of equals, so that `density` suggests the uplink's.
    let best =
        candidates.iter().rev().map(|candidate| (likeness(candidate), candidate)).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match best {
        Some((likeness, candidate)) if likeness >= MIN_LIKENESS => format!("did you mean `{candidate}`?"),
        _ if is_section(section) => {
            let names: Vec<_> = KEYS.iter().filter(|key| key.section() == section).map(Key::name).collect();
            format!("the keys of `{section}` are {}", names.join(", "))
        }
        _ => format!("the sections are {}", sections.collect::<Vec<_>>().join(", ")),
    };
    Problem::Unknown { what, path: path.to_owned(), hint }
}

/// Puts a value where a path below the section `above` points; inside a list of sections, in each of them.
fn insert(table: &mut Table, above: &str, path: &str, value: Value) {
    let Some((section, rest)) = path.split_once('.') else {
        table.insert(path.to_owned(), value);
        return;
    };
    let above = join(above, section);
    let empty = match Key::find(&above) {
        Some(_) => Value::Array(Vec::new()),
        None => Value::Table(Table::new()),
    };
    match table.entry(section).or_insert(empty) {
        Value::Table(inner) => insert(inner, &above, rest, value),
        Value::Array(items) => {
            if items.is_empty() {
                items.push(Value::Table(Table::new()));
            }
            for inner in items.iter_mut().filter_map(Value::as_table_mut) {
                insert(inner, &above, rest, value.clone());
            }
        }
        _ => unreachable!("every section of a document has been checked"),
    }
}

/// Replaces in `base` what `over` has; sections are merged, lists of sections are not.
fn overlay(base: &mut Table, over: &Table) {
    for (name, value) in over {
        match (base.get_mut(name), value) {
            (Some(Value::Table(base)), Value::Table(over)) => overlay(base, over),
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Lists a value and, when it is a section or a list of them, everything in it; a parent comes before its children.
fn list_entries<'a>(path: &str, value: &'a Value, entries: &mut Vec<(String, &'a Value)>) {
    if !path.is_empty() {
        entries.push((path.to_owned(), value));
    }
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                list_entries(&join(path, name), value, entries);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate().filter(|(_, item)| item.is_table()) {
                for (name, value) in item.as_table().into_iter().flatten() {
                    list_entries(&join(&format!("{path}[{i}]"), name), value, entries);
                }
            }
        }
        _ => {}
    }
}

/// The byte offset of every key in the text, under the paths that [`list_entries`] gives them.
fn list_offsets(path: &str, table: &DeTable<'_>, offsets: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let path = join(path, name.get_ref());
        offsets.insert(path.clone(), name.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => list_offsets(&path, inner, offsets),
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    if let DeValue::Table(inner) = item.get_ref() {
                        list_offsets(&format!("{path}[{i}]"), inner, offsets);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The path of a name inside a section; a name that is no bare key is quoted, so that it matches no path by accident.
fn join(section: &str, name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let dot = if section.is_empty() { "" } else { "." };
    if is_bare { format!("{section}{dot}{name}") } else { format!("{section}{dot}{name:?}") }
}

fn without_indices(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

fn is_section(path: &str) -> bool {
    SECTIONS.iter().any(|(section, _)| *section == path)
}

/// Characters of a value that an error repeats.
const MAX_SHOWN: usize = 60;

/// Similarity, from 0 to 1, from which a name is taken for a misspelling of another.
const MIN_LIKENESS: f64 = 0.6;
