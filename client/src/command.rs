//! The `client` command, for the `dunlin` binary and for `dunlin-client`.

use crate::data::{DataSpec, DataWorkplace, MissingData};
use crate::driver::{self, ClientError, Shared, Tell, Workplace};
use crate::participant::End;
use crate::state::{ClientState, DirectoryState, MemoryState, ModelCache, StateError};
use crate::transport::{BadUrl, Transport};
use clap::Args;
use dunlin_core::id::BadClientId;
use dunlin_core::recipe::Width;
use dunlin_core::report::write_line;
use dunlin_core::{ClientId, Exit};
use dunlin_nn::Threads;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Take part in a federation: train on data that stays on this machine
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7700")]
    pub server: String,

    /// The data: recipe:N for part N of the recipe's data set; for your own, idx:DIR, png:DIR, csv:FILE, npz:FILE,
    /// safetensors:FILE, text:FILE or text:DIR
    #[arg(long, value_name = "SPEC")]
    pub data: DataSpec,

    /// This client's name, unique in the federation; with --virtual, the prefix of all names [default: with --data
    /// recipe:N the name that part N has in a simulation, so that both compute the same model]
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,

    /// Run so many clients in this process; with --data recipe:N they take the parts from N on. Each keeps two bytes a
    /// parameter between rounds, in memory or in the --state-dir
    #[arg(long = "virtual", value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub virtual_clients: Option<u32>,

    /// How much of each hidden layer this client has, such as 0.5: one of the recipe's size.width [default: 1, with --data
    /// recipe:N what part N has in a simulation]
    #[arg(long, value_name = "WIDTH")]
    pub width: Option<Width>,

    /// Keep name, residual and unsent update here, so that nothing is lost when the client is stopped
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Threads to compute with [default: 1, with --virtual: as many as there are processors]. A client alone splits its
    /// batches among them, which sums in another order than one thread; with --virtual each of them serves one client
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Where the models compute: cpu, or cuda or cuda:N in a program that was built with --features cuda
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,

    /// Longest time that the server may hold a check-in, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20_000)]
    pub wait_ms: u64,

    /// Print what happens as lines of JSON: joined, training, accepted, refused and ended, each with the client's name
    #[arg(long)]
    pub json: bool,
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The server's address is wrong.
    #[error(transparent)]
    Url(#[from] BadUrl),
    /// The data are not there.
    #[error(transparent)]
    Data(#[from] MissingData),
    /// The name is wrong.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The threads or the device cannot be had.
    #[error(transparent)]
    Threads(#[from] dunlin_nn::Error),
    /// The thread for calls cannot be had.
    #[error("cannot start the thread for calls: {0}")]
    Runtime(std::io::Error),
    /// A client failed.
    #[error("{client}: {source}")]
    Client {
        /// Which one.
        client: ClientId,
        /// How.
        source: ClientError,
    },
}

impl CommandError {
    /// What a script is told: address, name, data, threads and device stand on the command line.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Url(_) | Self::Name(_) | Self::Data(_) | Self::Threads(_) => Exit::Usage,
            Self::Client { source, .. } if source.key().is_some() => Exit::Usage,
            Self::Runtime(_) | Self::State(_) | Self::Client { .. } => Exit::Failed,
        }
    }
}

/// Why clients have no names.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The name is no client id.
    #[error("--id: {0}")]
    Bad(#[from] BadClientId),
    /// There are no parts of such numbers.
    #[error("--virtual {count}: from part {first} on there are not so many")]
    TooMany {
        /// The first part.
        first: u32,
        /// Clients wanted.
        count: u32,
    },
    /// Own data have no name of their own.
    #[error("--id is missing: a client with data of its own needs a name, such as --id ward-7")]
    Missing,
}

/// The names of a command's clients.
///
/// # Errors
/// When the name or prefix is no client id, or there is none where one is needed.
pub fn names(args: &ClientArgs) -> Result<Vec<ClientId>, NameError> {
    let prefix = args.id.as_deref().unwrap_or(SIMULATED);
    match (args.virtual_clients, &args.id, &args.data) {
        (None, None, DataSpec::Recipe(part)) => Ok(vec![ClientId::numbered(SIMULATED, *part)]),
        (_, None, DataSpec::Own(_)) => Err(NameError::Missing),
        (None, Some(id), _) => Ok(vec![ClientId::new(id)?]),
        (Some(count), ..) => {
            // The longest name decides whether the prefix fits.
            ClientId::new(&format!("{prefix}-00000"))?;
            let first = match &args.data {
                DataSpec::Recipe(first) => *first,
                DataSpec::Own(_) => 0,
            };
            let end = first.checked_add(count).ok_or(NameError::TooMany { first, count })?;
            Ok((first..end).map(|part| ClientId::numbered(prefix, part)).collect())
        }
    }
}

/// Runs the command's clients until their run ends, and has `watch` see what happens to them unless that is printed;
/// returns how it ended.
///
/// # Errors
/// The first client's failure; the others are stopped.
pub async fn run(args: ClientArgs, watch: Box<Tell>) -> Result<End, CommandError> {
    let clients = names(&args)?;
    args.data.find()?;
    let transport = Transport::new(&args.server)?;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or(if clients.len() > 1 { processors } else { 1 });
    let is_alone = clients.len() == 1;
    let training = Arc::new(Threads::new(if is_alone { threads } else { 1 })?);
    let device = dunlin_nn::model::device(&args.device)?;
    let models = ModelCache::new(args.state_dir.as_ref().map(|dir| dir.join("models")));
    let prepare = {
        let (spec, clients, width) = (args.data.clone(), clients.clone(), args.width);
        move |recipe: &dunlin_core::Recipe| {
            let mut workplace = DataWorkplace::for_clients(recipe, &spec, &clients)?;
            if let Some(width) = width {
                workplace = workplace.with_width(width);
            }
            let workplace = workplace.with_threads(Arc::clone(&training)).with_device(device.clone());
            Ok(Arc::new(workplace) as Arc<dyn Workplace>)
        }
    };
    let tell: Box<Tell> = if args.json { Box::new(|told| write_line(std::io::stdout(), told)) } else { watch };
    let shared = Shared::telling(tell, Box::new(prepare), models, if is_alone { 1 } else { threads });
    let mut running = JoinSet::new();
    for client in clients {
        let state: Box<dyn ClientState> = match &args.state_dir {
            Some(dir) => Box::new(DirectoryState::open(&dir.join(client.as_str()))?),
            None => Box::new(MemoryState::default()),
        };
        let (transport, shared, wait_ms) = (transport.clone(), Arc::clone(&shared), args.wait_ms);
        running.spawn(async move {
            let result = driver::run(client.clone(), state, transport, shared, wait_ms).await;
            result.map_err(|source| CommandError::Client { client, source })
        });
    }
    let mut end = None;
    while let Some(result) = running.join_next().await {
        match result {
            Ok(result) => end = Some(result?),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    Ok(end.expect("a command has at least one client"))
}

/// What a simulation calls its clients, before their numbers.
const SIMULATED: &str = "client";

#[cfg(test)]
mod tests {
    use super::*;

    fn args<'a>(id: impl Into<Option<&'a str>>, data: &str, virtual_clients: Option<u32>) -> ClientArgs {
        let id = id.into().map(String::from);
        let data = data.parse().unwrap();
        let (server, state_dir, threads) = ("http://127.0.0.1:1".into(), None, None);
        let (device, json) = ("cpu".into(), false);
        ClientArgs { server, data, id, virtual_clients, width: None, state_dir, threads, device, wait_ms: 0, json }
    }

    #[test]
    fn virtual_clients_are_named_after_their_parts() {
        let text = |args: ClientArgs| names(&args).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(args("ward", "recipe:3", None)), ["ward"]);
        assert_eq!(text(args("client", "recipe:3", Some(2))), ["client-00003", "client-00004"]);
        assert!(names(&args("a b", "recipe:3", Some(2))).is_err());
        assert_eq!(text(args(None, "recipe:3", None)), ["client-00003"]);
        assert_eq!(text(args(None, "recipe:3", Some(2))), ["client-00003", "client-00004"]);
        assert!(matches!(names(&args(None, "recipe:4294967295", Some(2))), Err(NameError::TooMany { .. })));
        assert!(matches!(names(&args(None, "csv:a", None)), Err(NameError::Missing)));
        assert!(matches!(names(&args(None, "csv:a", Some(2))), Err(NameError::Missing)));
    }
}
