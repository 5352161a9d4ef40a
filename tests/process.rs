//! Real processes, killed without warning: the run ends with the model of an undisturbed one.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");
const CLIENTS: usize = 10;
const RECIPE: [&str; 3] = ["rounds.count=12", "data.clients=10", "rounds.cohort=10"];

fn dunlin(subcommand: &str) -> Command {
    let mut command = Command::new(DUNLIN);
    command.arg(subcommand).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn with_recipe(mut command: Command) -> Command {
    for set in RECIPE {
        command.args(["--set", set]);
    }
    command
}

fn digest(report: &[u8]) -> String {
    let report: serde_json::Value = serde_json::from_slice(report).expect("the report is JSON");
    assert_eq!((report["rounds"].as_u64(), report["abandoned"].as_u64()), (Some(12), Some(0)), "{report}");
    report["model_digest"].as_str().expect("the report names the model").to_owned()
}

fn simulated(transport: &str) -> String {
    let output = with_recipe(dunlin("simulate")).args(["--json", "--transport", transport]).output().unwrap();
    assert!(output.status.success());
    digest(&output.stdout)
}

/// A federation of processes in `dir`; everything is killed when it goes.
struct Federation<'a> {
    dir: &'a Path,
    port: u16,
    server: Child,
    clients: Vec<Child>,
}

impl<'a> Federation<'a> {
    fn start(dir: &'a Path) -> Self {
        // Free a moment ago; the restarts need a port that stays.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self::server(dir, port);
        let clients = (0..CLIENTS).map(|number| Self::client(dir, port, number)).collect();
        Self { dir, port, server, clients }
    }

    fn server(dir: &Path, port: u16) -> Child {
        let mut command = with_recipe(dunlin("server"));
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(dir.join("data"));
        command.stdout(Stdio::null()).spawn().unwrap()
    }

    fn client(dir: &Path, port: u16, number: usize) -> Child {
        let mut command = dunlin("client");
        command.args(["--server", &format!("http://127.0.0.1:{port}"), "--data", &format!("recipe:{number}")]);
        command.args(["--id", &format!("client-{number:05}"), "--state-dir"]).arg(dir.join(format!("state-{number}")));
        command.stdout(Stdio::null()).spawn().unwrap()
    }

    fn kill_server(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        self.server = Self::server(self.dir, self.port);
    }

    fn kill_client(&mut self, number: usize) {
        self.clients[number].kill().unwrap();
        self.clients[number].wait().unwrap();
        self.clients[number] = Self::client(self.dir, self.port, number);
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
    let dir = tempfile::tempdir().unwrap();
    let expected = simulated("in-process");
    assert_eq!(simulated("grpc"), expected);
    assert_eq!(Federation::start(dir.path()).finish(), expected);
}

#[test]
fn a_federation_whose_processes_are_killed_makes_the_model_of_an_undisturbed_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut federation = Federation::start(dir.path());
    // Uneven pauses, so that the kills fall on joins, training, uploads, disk syncs and publications.
    for (step, pause_ms) in [130, 310, 90, 470, 50, 230, 610, 170, 390, 70].into_iter().enumerate() {
        std::thread::sleep(Duration::from_millis(pause_ms));
        if federation.server.try_wait().unwrap().is_some() {
            break;
        }
        if step % 2 == 0 {
            federation.kill_server();
        } else {
            federation.kill_client(step * 7 % CLIENTS);
            federation.kill_client((step * 3 + 1) % CLIENTS);
        }
    }
    assert_eq!(federation.finish(), simulated("in-process"));
}
