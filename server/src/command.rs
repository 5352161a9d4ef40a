//! The `server` command, for the `dunlin` binary and for `dunlin-server`.

use crate::driver::RunEvent;
use crate::serve::{Options, ServeError, serve};
use clap::Args;
use dunlin_core::recipe::{Places, RecipeError};
use dunlin_core::report::write_line;
use dunlin_core::{Exit, Outcome, Recipe, Report};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Conduct a federation: serve a recipe to clients on other machines
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// The recipe; without one, the embedded digits
    pub recipe: Option<PathBuf>,

    /// Change one key of the recipe
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Where to listen for clients; beyond loopback, links are neither encrypted nor authenticated
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7700", value_parser = address)]
    pub listen: SocketAddr,

    /// Where the run is kept; a server started again with it goes on in the same round
    #[arg(long, value_name = "DIR", default_value = "dunlin-data")]
    pub data_dir: PathBuf,

    /// Answer GET /metrics here, in the Prometheus format
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub metrics: Option<SocketAddr>,

    /// Begin a new run although the directory holds one of this recipe
    #[arg(long)]
    pub new_run: bool,

    /// Keep answering after the run has ended
    #[arg(long)]
    pub stay: bool,

    /// Print each round's summary as a line of JSON, a corrected one again, and the report as the last line; after a
    /// restart the earlier rounds as well
    #[arg(long)]
    pub json: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write it as IP:PORT, such as 127.0.0.1:7700, or 0.0.0.0:7700 for all networks".to_owned())
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The recipe cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The recipe is wrong.
    #[error("{name}: {source}")]
    Recipe {
        /// The file, or how it was given.
        name: String,
        /// What is wrong with it.
        source: RecipeError,
    },
    /// The threads for calls cannot be had.
    #[error("cannot start the threads for calls: {0}")]
    Threads(std::io::Error),
    /// Serving failed.
    #[error("{place}{source}")]
    Serve {
        /// Where the key of the recipe that is to blame was written; empty where none is.
        place: String,
        /// What went wrong.
        source: Box<ServeError>,
    },
}

impl CommandError {
    /// What a script is told: recipes, and what the data make of them, are the user's to mend.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Read { .. } | Self::Recipe { .. } => Exit::Usage,
            Self::Serve { source, .. } if source.key().is_some() => Exit::Usage,
            Self::Threads(_) | Self::Serve { .. } => Exit::Failed,
        }
    }
}

/// A recipe as a command was given it.
#[derive(Clone, Debug)]
pub struct GivenRecipe {
    /// The recipe.
    pub recipe: Recipe,
    /// The file, or how it was given.
    name: String,
    places: Places,
}

impl GivenRecipe {
    /// What an error begins with when a key is to blame, as it does when that shows on reading: `r.toml: line 3: `, or
    /// the assignment. Empty for none, and for what is no key of a recipe.
    #[must_use]
    pub fn place_of(&self, key: Option<&str>) -> String {
        let place = key.and_then(|key| self.places.of(key));
        place.map_or_else(String::new, |place| format!("{}: {place}", self.name))
    }
}

/// Reads a recipe file, or the default one, with changes.
///
/// # Errors
/// When the file cannot be read or the recipe is wrong.
pub fn load_recipe(path: Option<&PathBuf>, set: &[String]) -> Result<GivenRecipe, CommandError> {
    let text = match path {
        Some(path) => {
            Some(std::fs::read_to_string(path).map_err(|source| CommandError::Read { path: path.clone(), source })?)
        }
        None => None,
    };
    let name = path.map_or_else(|| "recipe".to_owned(), |path| path.display().to_string());
    match Recipe::load_with_places(text.as_deref(), set) {
        Ok((recipe, places)) => Ok(GivenRecipe { recipe, name, places }),
        Err(source) => Err(CommandError::Recipe { name, source }),
    }
}

/// Runs the command with its recipe, and has `watch` see how the run goes; the report is absent when the process was told to
/// stop before the run had ended.
///
/// # Errors
/// When serving fails.
pub async fn run(
    args: ServerArgs,
    given: &GivenRecipe,
    watch: &(dyn Fn(&RunEvent) + Sync),
) -> Result<Option<Report>, CommandError> {
    let options = Options {
        recipe: given.recipe.clone(),
        listen: args.listen,
        metrics: args.metrics,
        data_dir: args.data_dir,
        new_run: args.new_run,
        stay: args.stay,
    };
    let tell: &(dyn Fn(&RunEvent) + Sync) =
        if args.json { &|event| write_line(std::io::stdout(), event) } else { watch };
    let served = serve(options, tell).await;
    served.map_err(|source| CommandError::Serve { place: given.place_of(source.key()), source: source.into() })
}

/// What a script is told of a run: whether it ended as its recipe asks, that is not stopped, not given up, and with its
/// target where that is required; or not at all.
#[must_use]
pub fn exit(recipe: &Recipe, report: Option<&Report>) -> Exit {
    let Some(report) = report else { return Exit::Interrupted };
    let as_asked = match report.outcome {
        Outcome::TargetReached => true,
        Outcome::Completed => {
            !recipe.rounds.target_required || report.target.is_some_and(|target| target.round.is_some())
        }
        Outcome::Stopped | Outcome::GaveUp => false,
    };
    if as_asked { Exit::Done } else { Exit::NotAsAsked }
}
