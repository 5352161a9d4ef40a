//! From a recipe to text: the plain file, the file that explains every key, and the reference of all keys.

use super::form::Form;
use super::keys::{KEYS, Key, SECTIONS};
use super::{ClientClass, NetworkConfig, Recipe, SizeConfig};
use std::fmt::Write as _;
use std::iter::once;
use toml::{Table, Value};

impl Recipe {
    /// The recipe as TOML, with every key and no comments; [`Recipe::from_toml`] reads it back.
    ///
    /// # Panics
    ///
    /// If a whole number is above 2⁶³ − 1, which [`Recipe::validate`] refuses.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a valid recipe can be written as TOML")
    }

    /// The recipe as TOML in which a comment explains every key; [`Recipe::from_toml`] reads it back.
    ///
    /// # Panics
    ///
    /// As [`Recipe::to_toml`] does.
    #[must_use]
    pub fn commented_toml(&self) -> String {
        let (values, defaults) = (to_table(self), to_table(&populated()));
        let mut text = String::from(TOML_HEAD);
        for (section, about) in once(("", "")).chain(SECTIONS.iter().copied()) {
            let tables = tables_at(&values, section);
            let default = tables_at(&defaults, section)[0];
            let is_list = Key::find(section).is_some();
            for table in &tables {
                text.push_str(&section_toml(section, about, table, default, is_list));
            }
            if tables.is_empty() {
                for line in section_toml(section, about, default, default, is_list).lines() {
                    let _ = if line.is_empty() { writeln!(text) } else { writeln!(text, "# {line}") };
                }
            }
        }
        text
    }
}

/// The reference of all keys, in Markdown.
#[must_use]
pub fn reference() -> String {
    let defaults = to_table(&populated());
    let mut text = String::from(REFERENCE_HEAD);
    for (section, about) in once(("", "At the top of the file.")).chain(SECTIONS.iter().copied()) {
        let title = match section {
            "" => "Top".to_owned(),
            list if Key::find(list).is_some() => format!("`[[{list}]]`"),
            section => format!("`[{section}]`"),
        };
        let _ = write!(text, "\n## {title}\n\n{about}\n\n| key | values | default | meaning |\n|---|---|---|---|\n");
        for key in keys_of(section) {
            let default = &tables_at(&defaults, section)[0].get(key.name());
            let default = match (key.form, default) {
                (Form::Sections, _) | (_, None) => "none".to_owned(),
                (_, Some(value)) => format!("`{value}`"),
            };
            let _ = writeln!(text, "| `{}` | {} | {default} | {} |", key.path, key.values(), key.doc);
        }
    }
    text
}

/// A recipe with a value for every key: the default, and a default size and class of clients.
pub(super) fn populated() -> Recipe {
    let network = NetworkConfig { class: vec![ClientClass::default()] };
    Recipe { size: vec![SizeConfig::default()], network, ..Recipe::default() }
}

fn to_table(recipe: &Recipe) -> Table {
    Table::try_from(recipe).expect("a valid recipe can be written as TOML")
}

/// The tables of a section: one, or as many as a list of sections has.
fn tables_at<'a>(root: &'a Table, section: &str) -> Vec<&'a Table> {
    let mut tables = vec![root];
    for name in section.split('.').filter(|name| !name.is_empty()) {
        tables = tables
            .into_iter()
            .filter_map(|table| table.get(name))
            .flat_map(|value| match value {
                Value::Array(items) => items.iter().filter_map(Value::as_table).collect(),
                value => Vec::from_iter(value.as_table()),
            })
            .collect();
    }
    tables
}

fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section() == section)
}

fn section_toml(section: &str, about: &str, values: &Table, defaults: &Table, is_list: bool) -> String {
    let mut text = String::new();
    if !section.is_empty() {
        let head = if is_list { format!("[[{section}]]") } else { format!("[{section}]") };
        let _ = write!(text, "\n# {about}\n{head}\n");
    }
    for key in keys_of(section).filter(|key| !matches!(key.form, Form::Sections)) {
        let name = key.name();
        let range = format!("Value: {}; default {}.", key.values(), defaults[name]);
        for line in wrapped(key.doc).iter().chain(&wrapped(&range)) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "{name} = {}", values[name]);
    }
    text
}

/// Breaks a text between words into lines of at most [`COMMENT_WIDTH`] characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= COMMENT_WIDTH {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Characters in a line of a comment, which makes it 100 with the `# ` before it.
const COMMENT_WIDTH: usize = 98;

const TOML_HEAD: &str = "\
# A Dunlin recipe: everything that decides the result of a federation. Every key may be left out; it then
# has its default. `--set section.key=value` overrides a key for one run.

";

const REFERENCE_HEAD: &str = "\
# The recipe

A recipe is one TOML file that describes a federation: the model, the data, the rounds, the training, the strategy and
how updates and models travel. The same file runs as a simulation in one process and as a server with clients on
separate machines; who holds the same recipe and the same data computes the same model.

Every key has a default, and the defaults as a whole are the embedded digits federation that `dunlin simulate` runs
without a recipe. So a recipe needs only what differs:

```toml
name = \"mnist in pathological shards\"

[model]
kind = \"mcmahan-cnn\"

[data]
source = \"mnist\"
clients = 100
partition = \"shards\"

[rounds]
count = 200
cohort = 10
target_accuracy = 0.99

[uplink]
density = 0.01
quantizer = \"ternary\"

# Two thirds of the clients are phones.
[[network.class]]
name = \"phone\"
share = 2
up_kbps = 5000
down_kbps = 20000
churn = 0.1

[[network.class]]
name = \"desk\"
```

`dunlin init` writes a recipe in which every key stands with its meaning, values and default.

A key that is misspelt, a value of the wrong type or out of range, and values that do not fit each other are refused
before anything runs; the error names the line, the key, the value and what would be right.

## Overriding keys for one run

`--set key=value` sets one key by the dotted path that the tables below give; it may be repeated, and the last one wins:

```console
$ dunlin simulate recipe.toml --set rounds.cohort=20 --set uplink.quantizer=f16
```

The value is what would stand in the file, but texts need no quotes. A key of `network.class` is set in every class that
the recipe has, or in a first one when it has none; `--set 'network.class=[]'` removes all classes. So it is with `size`.
";
