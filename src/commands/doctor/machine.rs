//! What can be told without a server.

use super::Check;
use crate::commands::output::{bytes, count};
use dunlin::core::Recipe;
use dunlin::nn::model::Model;
use dunlin::nn::{Error, data};
use dunlin::server::global::GlobalModel;
use std::path::Path;

/// Tells where a key of the recipe was written.
type PlaceOf<'a> = dyn Fn(Option<&str>) -> String + 'a;

/// Looks at processors, memory, data and disk.
pub(super) fn look(recipe: &Recipe, place: &PlaceOf<'_>, data_dir: &Path, checks: &mut Vec<Check>) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    checks.push(Check::ok("cores", format!("{cores}, so up to {cores} clients train at once")));
    let params = data_set(recipe, place, checks);
    if let Some(params) = params {
        checks.push(memory(params, cores as u64));
    }
    checks.push(writable(data_dir));
}

/// Loads the recipe's data, and tells the size of its model.
fn data_set(recipe: &Recipe, place: &PlaceOf<'_>, checks: &mut Vec<Check>) -> Option<u64> {
    let source = &recipe.data.source;
    let split = match data::load(&recipe.data, &recipe.data_seed()) {
        Ok(split) => split,
        Err(Error::Missing { name, dir, .. }) => {
            let remedy = format!("dunlin data fetch {name}, or give the client data of its own with --data");
            checks.push(Check::problem("data", format!("{source} is not in {}", dir.display()), remedy));
            return None;
        }
        Err(error) => {
            let remedy = "mend data.source, or the files that it names";
            checks.push(Check::problem(
                "data",
                format!("{source} cannot be used: {}{error}", place(error.key())),
                remedy,
            ));
            return None;
        }
    };
    let (train, test) = (count(split.train.len() as u64), count(split.test.len() as u64));
    checks.push(Check::ok("data", format!("{source}: {train} examples to train on, {test} to test")));
    match data::partition(&recipe.data, &split.train, &recipe.data_seed()) {
        Ok(parts) => {
            let sizes = parts.iter().map(Vec::len);
            let (least, most) = (sizes.clone().min().unwrap_or(0), sizes.max().unwrap_or(0));
            let found = format!("{} clients, with {least} to {most} examples each", count(parts.len() as u64));
            checks.push(Check::ok("split", found));
        }
        Err(error) => {
            let remedy = "change how the data are split, or the number of clients";
            checks.push(Check::problem("split", format!("{}{error}", place(error.key())), remedy));
        }
    }
    match Model::new(&recipe.model, split.train.input()) {
        Ok(model) => {
            let params = model.layout().len() as u64;
            // What a server makes before its first round.
            match GlobalModel::new(recipe, model.layout(), &model.init(&recipe.model_seed())) {
                Ok(_) => checks.push(Check::ok("model", format!("{} parameters", count(params)))),
                Err(error) => {
                    let remedy = "mend the recipe: it does not fit this model";
                    checks.push(Check::problem("model", format!("{}{error}", place(error.key())), remedy));
                }
            }
            Some(params)
        }
        Err(error) => {
            checks.push(Check::problem("model", format!("{}{error}", place(error.key())), "choose another model.kind"));
            None
        }
    }
}

/// Whether the model's states fit.
fn memory(params: u64, threads: u64) -> Check {
    let needed = SERVER_BYTES * params + threads * CLIENT_BYTES * params;
    let needed_text = format!("about {} for the states of the model in a simulation", bytes(needed));
    match available() {
        None => Check::note("memory", needed_text, "how much is free is not known on this system"),
        Some(free) if free < needed => {
            let remedy = "train fewer clients at once with --threads, or take a smaller model";
            Check::problem("memory", format!("{} free, {needed_text}", bytes(free)), remedy)
        }
        Some(free) => Check::ok("memory", format!("{} free, {needed_text}", bytes(free))),
    }
}

/// Memory that programs can still get, where the system tells.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(1024 * kib)
}

/// Whether a server could keep its run in `dir`, or make it.
fn writable(dir: &Path) -> Check {
    let place = dir.display();
    let Some(existing) = dir.ancestors().find(|dir| dir.as_os_str().is_empty() || dir.exists()) else {
        return Check::problem("disk", format!("{place} has no folder above it"), "choose another --data-dir");
    };
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    match tempfile::tempfile_in(existing) {
        Ok(_) if dir.exists() => Check::ok("disk", format!("{place} can be written")),
        Ok(_) => Check::ok("disk", format!("{place} can be made")),
        Err(error) => {
            let remedy = "change its permissions, or choose another --data-dir";
            Check::problem("disk", format!("{} cannot be written: {error}", existing.display()), remedy)
        }
    }
}

/// Bytes a parameter that the server holds: two models, a sum of 64-bit integers, a packet's scratch, a checkpoint.
const SERVER_BYTES: u64 = 36;

/// Bytes a parameter that a client holds while it trains: its start, its parameters, gradients, update and residual,
/// and the encoder's selection.
const CLIENT_BYTES: u64 = 28;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::State;

    #[test]
    fn a_folder_that_does_not_exist_is_made_below_one_that_does() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(writable(dir.path()).state, State::Ok);
        assert_eq!(writable(&dir.path().join("a/b")).state, State::Ok);
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(writable(&file.join("below")).state, State::Problem);
        assert!(!file.join("below").exists());
    }
}
