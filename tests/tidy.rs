//! The house rules that no compiler holds: who depends on whom, which modules stay pure, and how files are laid out.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository, with its path from the root.
struct File {
    path: String,
    text: String,
}

/// A rule: finds the lines of a file that break it.
struct Rule {
    /// Whether the rule speaks about the file of this path.
    covers: fn(&str) -> bool,
    /// The lines that break it, counted from 1, each with what is wrong.
    find: fn(&File) -> Vec<(usize, String)>,
    /// What to do instead.
    remedy: &'static str,
}

#[test]
fn crates_depend_on_each_other_only_along_the_arrows() {
    hold(&ARROWS);
}

#[test]
fn deciding_modules_have_no_clock_no_threads_no_sockets_and_no_random_order() {
    hold(&PURITY);
}

#[test]
fn generated_protobuf_types_are_named_only_at_the_edge() {
    hold(&PROTO_TYPES);
}

#[test]
fn modules_are_files_named_after_them() {
    hold(&NO_MOD_RS);
}

#[test]
fn no_source_file_is_too_long() {
    hold(&LENGTH);
}

#[test]
fn every_source_file_begins_by_saying_what_it_is() {
    hold(&MODULE_SENTENCE);
}

#[test]
fn every_crate_obeys_the_lints_of_the_workspace() {
    hold(&LINTS);
}

#[test]
fn documents_mention_no_path_of_somebodys_machine() {
    hold(&MACHINE_PATHS);
}

#[test]
fn documents_and_protocol_tell_the_version_that_is_spoken() {
    use dunlin::core::message::{PROTOCOL, PROTOCOL_OLDEST};
    let (wire, proto) = ("docs/WIRE.md", "proto/dunlin/v1/dunlin.proto");
    for (path, sentence) in [
        (wire, format!("**Join** {{protocol = {PROTOCOL}, ")),
        (wire, format!("the oldest and newest that it speaks, now {PROTOCOL_OLDEST} and {PROTOCOL}")),
        (proto, format!("// The wire protocol of Dunlin, version {PROTOCOL}.")),
        (proto, format!("// The protocol version that the client speaks: {PROTOCOL}.")),
    ] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        assert!(text.contains(&sentence), "{path} does not say {sentence:?}");
    }
}

/// A rule that finds nothing anywhere would pass for the wrong reason.
#[test]
fn each_rule_finds_what_it_forbids() {
    for (rule, path, text, lines) in [
        (
            &ARROWS,
            "server/Cargo.toml",
            "[dependencies]\ndunlin-core.workspace = true\ndunlin-client.workspace = true",
            &[3][..],
        ),
        (&ARROWS, "common/codec/Cargo.toml", "[dev-dependencies]\ndunlin-nn = { path = \"../nn\" }", &[2]),
        (&ARROWS, "common/core/Cargo.toml", "[target.'cfg(unix)'.dependencies]\ndunlin-nn.workspace = true", &[2]),
        (
            &ARROWS,
            "Cargo.toml",
            "[workspace.dependencies]\ndunlin-proto = { path = \"proto\" }\n[dependencies]\nanyhow = \"1\"",
            &[],
        ),
        (
            &PURITY,
            "server/src/coordinator.rs",
            "//! Pure: no tokio.\nlet now = Instant::now(); // Instant::now\nuse std::net::IpAddr;",
            &[2, 3],
        ),
        (
            &PURITY,
            "client/src/participant/residual.rs",
            "use tokio::sync;\nasync fn f() {}\nlet m: HashMap<u8, u8>;",
            &[1, 2, 3],
        ),
        (
            &PURITY,
            "common/codec/src/lib.rs",
            "let mytokio = 1;\nrand::rng();\nthread_rng();\nSystemTime::now();\nHashSet::new();",
            &[2, 3, 4, 5],
        ),
        (&PROTO_TYPES, "server/src/driver.rs", "// dunlin_proto\nuse dunlin_proto::v1;", &[2]),
        (&NO_MOD_RS, "common/nn/src/models/mod.rs", "", &[1]),
        (&LENGTH, "src/lib.rs", &"\n".repeat(801), &[801]),
        (&MODULE_SENTENCE, "src/lib.rs", "use std::fmt;\n//! Late.", &[1]),
        (&MODULE_SENTENCE, "src/empty.rs", "", &[1]),
        (&LINTS, "server/Cargo.toml", "[package]\nname = \"x\"", &[1]),
        (&MACHINE_PATHS, "docs/A.md", "`/etc/dunlin/x`, and/or 1/2/3, https://a.b/c/d\nsee (/home/me/x)\n", &[2]),
    ] {
        assert!((rule.covers)(path), "{path}");
        let file = File { path: path.to_owned(), text: text.to_owned() };
        let found: Vec<_> = (rule.find)(&file).into_iter().map(|(line, _)| line).collect();
        assert_eq!((path, text, found.as_slice()), (path, text, lines));
    }
    for (rule, path) in [
        (&PURITY, "server/src/driver.rs"),
        (&PURITY, "common/codec/benches/encode.rs"),
        (&PROTO_TYPES, "common/core/src/wire.rs"),
        (&PROTO_TYPES, "common/core/src/wire/update.rs"),
        (&PROTO_TYPES, "server/src/service.rs"),
        (&PROTO_TYPES, "client/src/transport.rs"),
        (&PROTO_TYPES, "proto/src/lib.rs"),
    ] {
        assert!(!(rule.covers)(path), "{path}");
    }
}

const ARROWS: Rule = Rule {
    covers: |path| path.ends_with("Cargo.toml"),
    find: |file| {
        let allowed: &[&str] = match file.path.as_str() {
            "proto/Cargo.toml" | "common/codec/Cargo.toml" => &[],
            "common/core/Cargo.toml" => &["proto", "codec"],
            "common/nn/Cargo.toml" => &["core", "codec"],
            "server/Cargo.toml" | "client/Cargo.toml" => &["proto", "core", "codec", "nn"],
            "Cargo.toml" => &["core", "codec", "nn", "server", "client"],
            "fuzz/Cargo.toml" => &["proto", "core", "codec"],
            _ => return vec![(1, "a crate that the arrows do not know".to_owned())],
        };
        let mut section = "";
        let mut found = Vec::new();
        for (i, line) in file.text.lines().enumerate() {
            section = line.strip_prefix('[').map_or(section, |head| head.trim_end_matches(']'));
            let Some(name) = line.strip_prefix("dunlin-") else { continue };
            let name = name.split(['.', ' ', '=']).next().unwrap_or_default();
            // The service tests forge messages that no client would send.
            let forges = file.path == "Cargo.toml" && section == "dev-dependencies" && name == "proto";
            if section != "workspace.dependencies" && !forges && !allowed.contains(&name) {
                found.push((i + 1, format!("depends on dunlin-{name}")));
            }
        }
        found
    },
    remedy: "the arrows are dunlin → {server, client} → nn → {codec, core}, core → {proto, codec}; move what is shared \
             down, or pass it in from above",
};

const PURITY: Rule = Rule {
    covers: |path| {
        path.ends_with(".rs")
            && !path.ends_with("/tests.rs")
            && ["server/src/coordinator", "client/src/participant", "common/core/src/", "common/codec/src/"]
                .iter()
                .any(|pure| path.starts_with(pure))
    },
    find: |file| {
        let impure = [
            "Instant::now",
            "SystemTime::now",
            "tokio",
            "async fn",
            "HashMap",
            "HashSet",
            "std::net",
            "std::fs",
            "std::thread",
            "Mutex",
            "RwLock",
            "Condvar",
            "thread_rng",
            "rand::rng",
            "rand::random",
        ];
        code_lines(file)
            .flat_map(|(line, code)| {
                impure.iter().filter(move |word| has_word(code, word)).map(move |word| (line, format!("uses {word}")))
            })
            .collect()
    },
    remedy: "this module decides and does not act: take the time, the seed and the message as arguments, return the \
             effect as a value, and keep order with BTreeMap or Vec",
};

const PROTO_TYPES: Rule = Rule {
    covers: |path| {
        let edge = [
            "common/core/src/wire",
            "server/src/service",
            "client/src/transport",
            "proto/",
            // What arrives in these messages is what is fuzzed.
            "fuzz/",
            "tests/corpus.rs",
            "tests/service",
            "tests/tidy.rs",
        ];
        path.ends_with(".rs") && !edge.iter().any(|edge| path.starts_with(edge))
    },
    find: |file| {
        code_lines(file)
            .filter(|(_, code)| has_word(code, "dunlin_proto"))
            .map(|(line, _)| (line, "names the generated types".to_owned()))
            .collect()
    },
    remedy: "use the domain types of dunlin-core; only its wire module, the server's service and the client's transport \
             see protobuf",
};

const NO_MOD_RS: Rule = Rule {
    covers: |path| path.ends_with("/mod.rs"),
    find: |_| vec![(1, "is a mod.rs".to_owned())],
    remedy: "name the file after the module, beside the folder: foo.rs and foo/",
};

/// Lines that a source file may have.
const MAX_LINES: usize = 800;

const LENGTH: Rule = Rule {
    covers: |path| path.ends_with(".rs"),
    find: |file| match file.text.lines().count() {
        0..=MAX_LINES => Vec::new(),
        lines => vec![(lines, format!("has {lines} lines, more than {MAX_LINES}"))],
    },
    remedy: "split it where the reader would pause; tests go to a tests.rs beside it",
};

const MODULE_SENTENCE: Rule = Rule {
    covers: |path| path.ends_with(".rs"),
    find: |file| match file.text.starts_with("//! ") {
        true => Vec::new(),
        false => vec![(1, "does not begin with a `//!` sentence".to_owned())],
    },
    remedy: "say in the first line what the module is for",
};

const LINTS: Rule = Rule {
    // The fuzzer's crate is not a member of the workspace, and is linted as a part of `tests/corpus.rs`.
    covers: |path| path.ends_with("Cargo.toml") && path != "fuzz/Cargo.toml",
    find: |file| match file.text.contains("[lints]\nworkspace = true\n") {
        true => Vec::new(),
        false => vec![(1, "does not take over the lints of the workspace".to_owned())],
    },
    remedy: "add `[lints]` with `workspace = true`",
};

const MACHINE_PATHS: Rule = Rule {
    covers: |path| path.ends_with(".md"),
    find: |file| {
        let shared = ["bin", "dev", "etc", "opt", "proc", "run", "srv", "sys", "usr", "var"];
        let mut found = Vec::new();
        for (i, line) in file.text.lines().enumerate() {
            for token in line.split(|c: char| c.is_whitespace() || "`\"'()[]<>=,;|".contains(c)) {
                let mut parts = token.strip_prefix('/').unwrap_or_default().split('/');
                let first = parts.next().unwrap_or_default();
                if !first.is_empty() && parts.next().is_some() && !shared.contains(&first) {
                    found.push((i + 1, format!("mentions {token}")));
                }
            }
        }
        found
    },
    remedy: "write the path from the root of the repository, or a variable such as $DUNLIN_DATA",
};

/// Fails with every place in the repository that breaks the rule, and with what to do.
fn hold(rule: &Rule) {
    let mut report = String::new();
    for file in files().iter().filter(|file| (rule.covers)(&file.path)) {
        for (line, what) in (rule.find)(file) {
            let _ = writeln!(report, "{}:{line}: {what}", file.path);
        }
    }
    assert!(report.is_empty(), "\n{report}{}\n", rule.remedy);
}

/// Every text file of the repository, in a fixed order.
fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap().to_string_lossy();
            let is_ours = !NOT_OURS.iter().any(|folder| path == root.join(folder));
            if path.is_symlink() || name.starts_with('.') || !is_ours {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if ["rs", "toml", "md"].iter().any(|kind| path.extension().is_some_and(|its| its == *kind)) {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                files.push(File { path, text });
            }
        }
    }
    assert!(files.len() > 20, "the repository was not found at {}", root.display());
    files
}

/// Folders that hold what was built, fetched or run.
const NOT_OURS: &[&str] = &["target", "data", "runs", "fuzz/target"];

/// The lines of a source file, counted from 1, without their comments.
fn code_lines(file: &File) -> impl Iterator<Item = (usize, &str)> {
    file.text.lines().enumerate().map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
}

/// Whether `word` stands in `text` and is not a part of a longer name.
fn has_word(text: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(start, _)| !text[..start].ends_with(is_name) && !text[start + word.len()..].starts_with(is_name))
}
