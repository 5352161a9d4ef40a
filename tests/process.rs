//! Real processes, killed without warning: the run ends with the model of an undisturbed one.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const CLIENTS: usize = 10;

/// Everybody takes part in every round.
const ALL: &[&str] = &["rounds.count=12", "data.clients=10", "rounds.cohort=10"];

/// Four of ten are drawn for each round.
const DRAWN: &[&str] = &["rounds.count=12", "data.clients=10", "rounds.cohort=4"];

/// The model is made small on the way, in all ways that go together, and rounds go on beside its distillations.
const SMALL: &[&str] = &[
    "rounds.count=12",
    "data.clients=10",
    "rounds.cohort=10",
    "data.server_share=0.2",
    "model.weights=int8",
    "pruning.density=0.1",
    "pruning.first_round=2",
    "pruning.every=2",
    "pruning.steps=4",
    "pruning.regrow=0.2",
    "distillation.kind=ensemble",
    "distillation.every=3",
    "distillation.overlap=0.5",
    "uplink.density=0.1",
    "downlink.density=0.1",
];

/// Whole units go, so that the layout of the model changes while it is trained.
const CHANNELS: &[&str] = &[
    "rounds.count=12",
    "data.clients=10",
    "rounds.cohort=10",
    "pruning.density=0.1",
    "pruning.pattern=channels",
    "pruning.first_round=2",
    "pruning.every=2",
    "pruning.steps=4",
    "uplink.density=0.1",
    "downlink.density=0.1",
];

/// All clients of a round send the coordinates that the server announces, of a model that loses weights meanwhile.
const COMMON: &[&str] = &[
    "rounds.count=12",
    "data.clients=10",
    "rounds.cohort=4",
    "common.coordinates=announced",
    "uplink.quantizer=common",
    "uplink.bits=6",
    "uplink.density=0.1",
    "pruning.density=0.3",
    "pruning.first_round=3",
    "pruning.every=2",
    "pruning.steps=4",
];

/// Clients of three sizes, who learn from each other also by distillation.
const SIZED: &[&str] = &[
    "rounds.count=12",
    "data.clients=10",
    "rounds.cohort=6",
    "data.server_share=0.2",
    "distillation.kind=ensemble",
    "distillation.every=4",
    "size=[{width=1}, {width=0.5}, {width=0.25}]",
];

fn dunlin(subcommand: &str) -> Command {
    let mut command = Command::new(DUNLIN);
    command.arg(subcommand).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn with_recipe(mut command: Command, recipe: &[&str]) -> Command {
    for set in recipe {
        command.args(["--set", set]);
    }
    command
}

fn digest(report: &[u8]) -> String {
    let report: serde_json::Value = serde_json::from_slice(report).expect("the report is JSON");
    assert_eq!((report["rounds"].as_u64(), report["abandoned"].as_u64()), (Some(12), Some(0)), "{report}");
    report["model_digest"].as_str().expect("the report names the model").to_owned()
}

fn simulated(recipe: &[&str], transport: &str) -> String {
    let output = with_recipe(dunlin("simulate"), recipe).args(["--json", "--transport", transport]).output().unwrap();
    assert!(output.status.success());
    digest(&output.stdout)
}

/// Which programs a federation is made of.
#[derive(Clone, Copy, PartialEq)]
enum Programs {
    /// `dunlin server` and `dunlin client`.
    Whole,
    /// `dunlin-server` and `dunlin-client`.
    Slim,
}

impl Programs {
    fn command(self, role: &str) -> Command {
        match self {
            Self::Whole => dunlin(role),
            Self::Slim => {
                // Another package's, so Cargo does not name it; tests of the whole workspace build it.
                let program =
                    Path::new(DUNLIN).with_file_name(format!("dunlin-{role}{}", std::env::consts::EXE_SUFFIX));
                assert!(program.exists(), "no {}: run the tests with --workspace", program.display());
                let mut command = Command::new(program);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
                command
            }
        }
    }
}

/// A federation of processes in `dir`; everything is killed when it goes.
struct Federation<'a> {
    programs: Programs,
    recipe: &'a [&'a str],
    dir: &'a Path,
    port: u16,
    server: Child,
    /// What the server logs, line by line.
    log: Receiver<String>,
    clients: Vec<Child>,
}

/// How far a server gets before it is killed while it starts.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// It was called into being just now.
    Spawned,
    /// Its directory has a database.
    Database,
    /// So many calls were made to it, answered or not.
    Called(u32),
    /// It has read its run, and is about to make its start durable.
    Opened,
    /// It answers.
    Listening,
}

impl<'a> Federation<'a> {
    fn start(recipe: &'a [&'a str], dir: &'a Path) -> Self {
        Self::start_of(Programs::Whole, recipe, dir)
    }

    fn start_of(programs: Programs, recipe: &'a [&'a str], dir: &'a Path) -> Self {
        // Free a moment ago; the restarts need a port that stays.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (server, log) = Self::server(programs, recipe, dir, port);
        let clients = (0..CLIENTS).map(|number| Self::client(programs, dir, port, number)).collect();
        Self { programs, recipe, dir, port, server, log, clients }
    }

    fn server(programs: Programs, recipe: &[&str], dir: &Path, port: u16) -> (Child, Receiver<String>) {
        let mut command = with_recipe(programs.command("server"), recipe);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(dir.join("data"));
        command.env("RUST_LOG", "info").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut server = command.spawn().unwrap();
        let (sender, log) = channel();
        let lines = BufReader::new(server.stderr.take().unwrap()).lines();
        // Read to its end, so that the server never waits for its reader.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        (server, log)
    }

    fn client(programs: Programs, dir: &Path, port: u16, number: usize) -> Child {
        let mut command = programs.command("client");
        command.args(["--server", &format!("http://127.0.0.1:{port}"), "--data", &format!("recipe:{number}")]);
        command.arg("--state-dir").arg(dir.join(format!("state-{number}")));
        command.stdout(Stdio::null()).spawn().unwrap()
    }

    fn kill_server(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        (self.server, self.log) = Self::server(self.programs, self.recipe, self.dir, self.port);
    }

    /// Waits until a server that was just started has come so far.
    fn come_to(&mut self, start: Start) {
        let begun = Instant::now();
        match start {
            Start::Spawned => {}
            Start::Database => {
                while !self.dir.join("data/dunlin.db").exists() {
                    assert!(begun.elapsed() < PATIENCE, "no database is made");
                    std::thread::yield_now();
                }
            }
            Start::Called(calls) => (0..calls).for_each(|_| drop(self.status())),
            Start::Opened => self.hear(|line| line.contains("run opened")),
            Start::Listening => self.hear(|line| line.contains("listening")),
        }
    }

    /// Waits until the server logs such a line.
    fn hear(&self, is_wanted: impl Fn(&str) -> bool) {
        loop {
            let line = self.log.recv_timeout(PATIENCE).expect("the server says nothing more");
            if is_wanted(&line) {
                return;
            }
        }
    }

    /// Waits until the server says that this round has ended, or a later one.
    fn hear_the_end_of(&self, round: u64) {
        self.hear(|line| {
            let number = line.split_once("round ended").and_then(|(_, fields)| fields.split_once("round="));
            let number = number.and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
            number.is_some_and(|number| number >= round)
        });
    }

    /// Waits until so many changes of this directory were seen, or the run is over.
    fn see_changes(&mut self, directory: &str, changes: u32) {
        let begun = Instant::now();
        let mut known = contents(&self.dir.join(directory));
        for _ in 0..changes {
            loop {
                let now = contents(&self.dir.join(directory));
                if now != known {
                    known = now;
                    break;
                }
                if self.server.try_wait().unwrap().is_some() {
                    return;
                }
                assert!(begun.elapsed() < PATIENCE, "nothing is written any more");
            }
        }
    }

    fn kill_client(&mut self, number: usize) {
        self.clients[number].kill().unwrap();
        self.clients[number].wait().unwrap();
        self.clients[number] = Self::client(self.programs, self.dir, self.port, number);
    }

    /// Waits until the server is in this round and has so many of its updates, or is further; what it then says of
    /// itself.
    fn reach(&mut self, round: u64, reported: u64) -> serde_json::Value {
        let started = Instant::now();
        loop {
            // A server that has just been killed does not answer yet.
            if let Some(status) = self.status() {
                let number = |key: &str| status[key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"));
                if (number("round"), number("reported")) >= (round, reported) {
                    return status;
                }
            }
            assert!(started.elapsed() < PATIENCE, "round {round} does not come");
            assert!(self.server.try_wait().unwrap().is_none(), "the run was over before round {round} was seen");
        }
    }

    /// What the server says of itself, if it does.
    fn status(&self) -> Option<serde_json::Value> {
        let server = format!("http://127.0.0.1:{}", self.port);
        let output = dunlin("status").args(["--server", &server, "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits for the server to end well, and reads the digest from its results.
    fn finish(&mut self) -> String {
        let started = Instant::now();
        while self.server.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(120), "the run does not come to an end");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(self.server.wait().unwrap().success());
        let run = std::fs::read_dir(self.dir.join("data/runs")).unwrap().next().unwrap().unwrap();
        digest(&std::fs::read(run.path().join("report.json")).unwrap())
    }
}

impl Drop for Federation<'_> {
    fn drop(&mut self) {
        for child in self.clients.iter_mut().chain([&mut self.server]) {
            // Most have ended by themselves.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn simulation_grpc_and_processes_make_one_model() {
    for recipe in [ALL, DRAWN, SMALL, CHANNELS, COMMON, SIZED] {
        let dir = tempfile::tempdir().unwrap();
        let expected = simulated(recipe, "in-process");
        assert_eq!(simulated(recipe, "grpc"), expected);
        assert_eq!(Federation::start(recipe, dir.path()).finish(), expected);
    }
}

#[test]
fn a_federation_whose_processes_are_killed_makes_the_model_of_an_undisturbed_one() {
    killed_all_the_time(Programs::Whole, ALL);
}

#[test]
fn so_does_one_whose_model_is_made_small_meanwhile() {
    killed_all_the_time(Programs::Whole, SMALL);
}

#[test]
fn so_does_one_whose_model_loses_whole_units() {
    killed_all_the_time(Programs::Whole, CHANNELS);
}

#[test]
fn so_does_one_whose_clients_all_send_the_same_coordinates() {
    killed_all_the_time(Programs::Whole, COMMON);
}

#[test]
fn so_does_one_with_clients_of_several_sizes() {
    killed_all_the_time(Programs::Whole, &[SIZED, &["rounds.cohort=10"]].concat());
}

#[test]
fn so_does_one_of_the_slim_programs() {
    killed_all_the_time(Programs::Slim, ALL);
}

fn killed_all_the_time(programs: Programs, recipe: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let mut federation = Federation::start_of(programs, recipe, dir.path());
    let mut term = 0;
    for kill in 0..10 {
        // Each time in a later round, and with more of its updates received.
        let status = federation.reach(kill + 1, kill % 5 * 2);
        term = status["term"].as_u64().unwrap();
        if kill % 2 == 0 {
            federation.kill_server();
        } else {
            federation.kill_client(kill as usize * 7 % CLIENTS);
            federation.kill_client((kill as usize * 3 + 1) % CLIENTS);
        }
    }
    assert_eq!(term, 6, "the server was killed five times before the last look");
    assert_eq!(federation.finish(), simulated(recipe, "in-process"));
}

#[test]
fn a_server_that_is_killed_while_it_starts_goes_on_as_if_it_had_started_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut federation = Federation::start(DRAWN, dir.path());
    // With nothing in its directory, and in the middle of a round.
    for round in [0, 6] {
        if round > 0 {
            federation.reach(round, 2);
            federation.kill_server();
        }
        for start in [
            Start::Spawned,
            Start::Database,
            Start::Opened,
            Start::Called(1),
            Start::Spawned,
            Start::Called(3),
            Start::Listening,
        ] {
            federation.come_to(start);
            federation.kill_server();
        }
    }
    assert_eq!(federation.finish(), simulated(DRAWN, "in-process"));
}

#[test]
fn a_server_that_is_killed_around_a_publication_publishes_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut federation = Federation::start(ALL, dir.path());
    for (kill, round) in (1..=11).step_by(2).enumerate() {
        match kill % 3 {
            // It has told of the new version, and the next round is open.
            0 => federation.hear_the_end_of(round),
            // The last update is written, or the version is.
            changes => {
                federation.reach(round, 9);
                federation.see_changes("data", changes as u32);
            }
        }
        federation.kill_server();
    }
    assert_eq!(federation.finish(), simulated(ALL, "in-process"));
}

#[test]
fn a_client_that_is_killed_around_its_update_makes_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut federation = Federation::start(ALL, dir.path());
    for round in 1..=9 {
        federation.reach(round, 0);
        // Its model, its update, its residual or its account has just been written, or is being replaced.
        let number = round as usize * 3 % CLIENTS;
        federation.see_changes(&format!("state-{number}"), 1 + round as u32 % 4);
        federation.kill_client(number);
    }
    assert_eq!(federation.finish(), simulated(ALL, "in-process"));
}

/// Every file below a folder with its length and when it was written last; those that go meanwhile are left out.
fn contents(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => folders.push(entry.path()),
                Ok(about) => drop(found.insert(entry.path(), (about.len(), about.modified().unwrap()))),
                Err(_) => {}
            }
        }
    }
    found
}

/// Longest time that anything but a whole run takes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
