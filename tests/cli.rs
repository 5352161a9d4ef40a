//! The command line as scripts see it: help, messages, files, JSON and exit codes.

use serde_json::Value;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

#[test]
fn help_and_messages_are_as_recorded() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd");
}

#[test]
fn a_simulation_prints_its_report_and_writes_its_results() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("results");
    let run = simulate(&["--json", "--seed", "3", "--threads", "2", "--out", out.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let report = json(&run.stdout);
    assert_eq!(report["rounds"], 3);
    assert_eq!(report["target"], Value::Null);
    for pointer in [
        "/accuracy",
        "/loss",
        "/params",
        "/nonzero",
        "/bytes/up",
        "/bytes/down",
        "/bytes/up_dense",
        "/bytes/down_dense",
        "/uplink/sparse",
        "/seconds",
    ] {
        assert!(report.pointer(pointer).and_then(Value::as_f64).is_some_and(|it| it > 0.0), "{pointer} of {report}");
    }
    assert_eq!(report["model_digest"].as_str().map(str::len), Some(64));

    let written = json(&std::fs::read(out.join("report.json")).unwrap());
    assert_eq!(written, report);
    let rounds = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    let rounds: Vec<_> = rounds.lines().map(|line| json(line.as_bytes())).collect();
    assert_eq!(rounds.iter().map(|round| round["round"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    let total: u64 = rounds.iter().map(|round| round["bytes"]["up"].as_u64().unwrap()).sum();
    assert_eq!(report["bytes"]["up"], total);

    let model = dir.path().join("model.safetensors");
    let export = dunlin(&["export", "--run", out.to_str().unwrap(), "--out", model.to_str().unwrap()]);
    assert!(export.status.success(), "{export:?}");
    assert_eq!(std::fs::read(model).unwrap(), std::fs::read(out.join("model.safetensors")).unwrap());
}

#[test]
fn the_model_of_a_smaller_client_is_shown_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let (out, small) = (dir.path().join("results"), dir.path().join("small.safetensors"));
    let sets = ["--set", "rounds.count=2", "--set", "size=[{width=1}, {width=0.25}]"];
    let run = dunlin(&[&["simulate", "--out", out.to_str().unwrap()], &sets[..]].concat());
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let table = text(&run.stdout);
    assert!(table.contains("width 0.25") && table.contains("6,310 parameters"), "{table}");
    let export = |width: &str, from: &[&str]| {
        dunlin(&[&["export", "--width", width, "--out", small.to_str().unwrap()], from].concat())
    };
    let exported = export("0.25", &["--run", out.to_str().unwrap()]);
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
    let file = std::fs::read(&small).unwrap();
    let header = json(&file[8..8 + u64::from_le_bytes(*file.first_chunk().unwrap()) as usize]);
    assert_eq!(header["fc2.weight"]["shape"], serde_json::json!([50, 50]));
    assert_eq!(header["__metadata__"]["model.channels"], "50, 50");
    let judged = dunlin(&["eval", small.to_str().unwrap(), "--data", "digits", "--json"]);
    assert_eq!(judged.status.code(), Some(0), "{judged:?}");
    let onnx = export("0.25", &["--run", out.to_str().unwrap(), "--to", "onnx"]);
    assert_eq!(onnx.status.code(), Some(0), "{onnx:?}");

    let whole = simulate(&["--out", out.to_str().unwrap()]);
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    let refused = export("0.25", &["--run", out.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(text(&refused.stderr).contains("a softmax has no parts for smaller clients"), "{refused:?}");
}

#[test]
fn without_json_a_table_comes_after_the_rounds() {
    let run = simulate(&[]);
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let (stdout, stderr) = (text(&run.stdout), text(&run.stderr));
    assert!(stderr.starts_with("round 1/3  accuracy "), "{stderr}");
    assert!(stderr.lines().last().unwrap().starts_with("round 3/3  accuracy "), "{stderr}");
    for part in ["accuracy", "parameters", "→ coded", "both ways", "model digest"] {
        assert!(stdout.contains(part), "{stdout} has no {part}");
    }
}

#[test]
fn the_exit_code_says_whether_a_required_target_was_reached() {
    let target = |accuracy: &str| {
        let accuracy = format!("rounds.target_accuracy={accuracy}");
        simulate(&["-q", "--set", &accuracy, "--set", "rounds.target_required=true"])
    };
    let missed = target("0.999");
    assert_eq!(missed.status.code(), Some(3), "{missed:?}");
    assert!(text(&missed.stdout).contains("target 99.90 % not reached"));
    assert_eq!(text(&missed.stderr), "");
    let reached = target("0.01");
    assert_eq!(reached.status.code(), Some(0), "{reached:?}");
    assert!(text(&reached.stdout).contains("reached in round 1"));
}

#[test]
fn a_recipe_that_does_not_fit_data_or_model_is_told_at_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.toml");
    let told = |subcommand: &str, recipe: &str, sets: &[&str]| {
        std::fs::write(&file, recipe).unwrap();
        let mut arguments: Vec<_> = subcommand.split(' ').chain(["r.toml"]).collect();
        arguments.extend(sets.iter().flat_map(|set| ["--set", set]));
        let run = command(&arguments).current_dir(dir.path()).output().unwrap();
        assert_eq!(run.status.code(), Some(2), "{run:?}");
        let told = text(&run.stderr);
        // What a server logs before it looks at its model.
        told.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or_else(|| panic!("{told}")).to_owned()
    };
    let clients = "seed = 3\n\n[data]\nclients = 9000";
    assert!(told("simulate", clients, &[]).starts_with("r.toml: line 4: data.clients = 9000: from 1 to 1438"));
    let set = told("data show", clients, &["data.clients=8000"]);
    assert!(set.starts_with("r.toml: --set data.clients=8000: data.clients = 8000: "), "{set}");
    let nobody = "[model]\nkind = \"own:nobody\"";
    let protected = "[pruning]\ndensity = 0.5\nprotected = \"fc9\"";
    for subcommand in ["simulate", "simulate --transport grpc", "server --listen 127.0.0.1:0 --data-dir data"] {
        let told = |recipe| told(subcommand, recipe, &[]);
        assert!(told(nobody).starts_with("r.toml: line 2: model.kind = \"own:nobody\": "), "{}", told(nobody));
        assert_eq!(
            told(protected),
            "r.toml: line 3: `pruning.protected` names \"fc9\", and no tensor's name begins so; there are fc1.weight, \
             fc1.bias, fc2.weight, fc2.bias, fc3.weight, fc3.bias"
        );
        let parameters = told("[pruning]\nparameters = 100");
        assert!(parameters.starts_with("r.toml: line 2: `pruning.parameters` is 100; at least 413 "), "{parameters}");
        let budget = told("[uplink]\nquantizer = \"rotated\"\ndensity = 1.0\n[limits]\nrun_bytes = 300000");
        assert!(budget.starts_with("r.toml: line 5: `limits.run_bytes` allows 375 bytes"), "{budget}");
        let file = told("seed = 1\n[data]\nsource = \"csv:nofile.csv\"");
        assert!(file.starts_with("r.toml: line 3: data.source = \"csv:nofile.csv\": nofile.csv: "), "{file}");
        let other = "[distillation]\nkind = \"ensemble\"\nsource = \"penguins\"";
        let other = told(other);
        assert!(other.starts_with("r.toml: line 3: distillation.source = \"penguins\": the model takes"), "{other}");
        let importance = told("[downlink]\n\nimportance = \"x=2\"");
        assert!(importance.starts_with("r.toml: line 3: `downlink.importance` names \"x\", and"), "{importance}");
    }
    let keys = "[data]\npartition = \"key\"\nkey_file = \"nofile\"";
    for subcommand in ["simulate", "data show"] {
        let told = told(subcommand, keys, &[]);
        assert!(told.starts_with("r.toml: line 3: data.key_file = \"nofile\": nofile: "), "{told}");
    }
    let frozen = told("simulate", "[training]\nfrozen = \"fc\"", &[]);
    assert_eq!(frozen, "r.toml: line 2: training.frozen = 2nn: every tensor of the model is frozen");
}

#[test]
fn init_leaves_a_file_that_exists_alone_and_its_recipe_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recipe.toml");
    let init = || dunlin(&["init", path.to_str().unwrap()]);
    assert_eq!(init().status.code(), Some(0));
    let written = std::fs::read_to_string(&path).unwrap();
    let again = init();
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), written);
    assert_eq!(text(&dunlin(&["init", "-"]).stdout), written);
    let show = dunlin(&["data", "show", path.to_str().unwrap()]);
    assert!(show.status.success(), "{show:?}");
    assert!(text(&show.stdout).starts_with("digits: "), "{show:?}");
}

#[test]
fn a_split_is_shown_as_a_table_a_drawing_json_and_svg() {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("split.svg");
    let arguments = ["data", "show", "--set", "data.clients=12", "--set", "data.partition=quantity"];
    let shown = dunlin(&arguments);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let shown = text(&shown.stdout);
    assert!(
        shown.starts_with("digits: 1,438 examples of 8×8 values, 10 labels for 12 clients, 359 to test on\n"),
        "{shown}"
    );
    assert_eq!(shown.lines().filter(|line| line.contains('▕')).count(), 12, "{shown}");

    let more = ["--json", "--svg", svg.to_str().unwrap()];
    let deal = json(&dunlin(&[arguments.as_slice(), &more].concat()).stdout);
    let clients = deal["clients"].as_array().unwrap();
    let examples: u64 = clients.iter().map(|client| client["examples"].as_u64().unwrap()).sum();
    assert_eq!((clients.len(), examples, &deal["train"], &deal["test"]), (12, 1438, &1438.into(), &359.into()));
    for client in clients {
        let labels: u64 = client["labels"].as_array().unwrap().iter().map(|label| label.as_u64().unwrap()).sum();
        assert_eq!(client["examples"], labels);
    }
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("digits: examples of 12 clients"), "{svg}");
    let nowhere = dunlin(&[arguments.as_slice(), &["--svg", "nowhere/split.svg"]].concat());
    assert_eq!(nowhere.status.code(), Some(2), "{nowhere:?}");
}

#[test]
fn data_of_a_natural_key_are_shown_by_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let roles =
        [("ANN", "a rose "), ("BEN", "no thorn ")].map(|(role, words)| format!("**{role}**\n{}\n", words.repeat(90)));
    std::fs::write(dir.path().join("play.md"), roles.concat()).unwrap();
    let source = format!("data.source=text:{}", dir.path().display());
    let sets = ["data.partition=key", "data.clients=2", "rounds.cohort=2", &source].map(|set| ["--set", set]).concat();
    let shown = dunlin(&[&["data", "show"], sets.as_slice()].concat());
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let shown = text(&shown.stdout);
    assert!(shown.contains("0 play: ANN") && shown.contains("1 play: BEN") && shown.contains("characters"), "{shown}");
}

#[test]
fn codecs_are_compared_on_a_file_as_a_table_and_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("update.safetensors");
    let header = r#"{"w":{"dtype":"F32","shape":[40,50],"data_offsets":[0,8000]}}"#;
    let values = (0..2000).flat_map(|i| ((i * i % 997) as f32 * 1e-3 - 0.5).powi(3).to_le_bytes());
    let bytes: Vec<u8> = (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(values).collect();
    std::fs::write(&file, bytes).unwrap();
    let arguments = ["codec", file.to_str().unwrap(), "--density", "0.05", "--repeat", "1"];
    let shown = dunlin(&arguments);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let shown = text(&shown.stdout);
    assert!(shown.contains("2,000 coordinates in 1 tensors") && shown.contains("rotated 1 b, unbiased"), "{shown}");

    let compared = json(&dunlin(&[arguments.as_slice(), &["--json"]].concat()).stdout);
    for codec in compared["codecs"].as_array().unwrap() {
        for pointer in ["/stages/dense", "/stages/sparse", "/stages/quantized", "/stages/coded", "/bits_per_coordinate"]
        {
            assert!(codec.pointer(pointer).and_then(Value::as_f64).is_some_and(|it| it > 0.0), "{pointer} of {codec}");
        }
        assert!(codec["of_limit"].as_f64() > Some(0.0), "{codec}");
    }
    let ternary = compared["codecs"].as_array().unwrap().iter().find(|codec| codec["codec"] == "top-k ternary, auto");
    assert_eq!(ternary.unwrap()["nonzeros"], 100);

    let nothing = dunlin(&["codec"]);
    assert!(text(&nothing.stderr).contains("<FILE.safetensors|--synthetic>"), "{nothing:?}");
    let nowhere = dunlin(&["codec", "nowhere.safetensors"]);
    assert_eq!(nowhere.status.code(), Some(2), "{nowhere:?}");
}

#[test]
fn rounds_are_timed_of_one_federation_or_of_those_that_are_published() {
    let all = dunlin(&["bench", "round", "--rounds", "1", "--params", "500", "--json"]);
    assert!(all.status.success(), "{}", text(&all.stderr));
    let all = json(&all.stdout);
    let told = |key: &str| -> Vec<Value> { all.as_array().unwrap().iter().map(|one| one[key].clone()).collect() };
    assert_eq!(told("clients"), [10, 1000, 1000, 1000]);
    assert_eq!(told("cohort"), [10, 1000, 100, 100]);
    assert_eq!(told("transport"), ["processes", "processes", "in-process", "in-process"]);
    assert!(told("seconds_median").iter().all(|seconds| seconds.as_f64() > Some(0.0)), "{all}");
    for key in ["disk sync", "codec, checking", "codec, adding up"] {
        assert!(all[0]["server_seconds"][key].as_f64() > Some(0.0), "{key} in {all}");
    }
    // What is left of a round, which may be nothing that a clock sees.
    assert!(all[0]["server_seconds"]["coordinator"].as_f64() >= Some(0.0), "{all}");

    let command = told("command")[2].as_str().unwrap().to_owned();
    let one = dunlin(&command.split(' ').skip(1).chain(["--json"]).collect::<Vec<_>>());
    assert_eq!(json(&one.stdout)["up_bytes_per_update"], all[2]["up_bytes_per_update"]);
}

#[test]
fn doctor_tells_what_is_missing_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let doctor = |source: &str| {
        let args = ["doctor", "--json", "--set", source];
        command(&args).env("DUNLIN_DATA", dir.path()).current_dir(dir.path()).output().unwrap()
    };
    let fine = doctor("data.source=digits");
    assert_eq!(fine.status.code(), Some(0), "{fine:?}");
    assert_eq!(json(&fine.stdout)["ok"], true);
    let missing = doctor("data.source=mnist");
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    let findings = json(&missing.stdout);
    let data = findings["checks"].as_array().unwrap().iter().find(|check| check["name"] == "data").unwrap();
    assert_eq!(data["state"], "problem");
    assert!(data["remedy"].as_str().unwrap().starts_with("dunlin data fetch mnist"), "{data}");
}

#[test]
fn a_served_run_is_watched_listed_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let data_dir = dir.path().join("run");
    let data_dir = data_dir.to_str().unwrap();
    let listen = address.to_string();
    let mut arguments = vec!["server", "--listen", &listen, "--data-dir", data_dir];
    arguments.extend(TINY);
    let server = Process::start(&arguments);
    let until_it_listens = || loop {
        let status = dunlin(&["status", "--server", &url, "--json"]);
        if status.status.success() {
            return json(&status.stdout);
        }
    };
    let status = until_it_listens();
    assert_eq!((&status["phase"], &status["params"]), (&"gathering".into(), &650.into()));
    let locked = dunlin(&["runs", "--data-dir", data_dir]);
    assert_eq!(locked.status.code(), Some(1), "{locked:?}");
    assert!(text(&locked.stderr).contains("another server uses it"), "{locked:?}");
    let doctor = dunlin(&["doctor", "--server", &url, "--json"]);
    assert!(json(&doctor.stdout)["round"]["up_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{doctor:?}");

    let client = ["client", "--server", &url, "--data", "recipe:0", "--id", "client", "--virtual", "4"];
    let client = Process::start(&client);
    let watch = dunlin(&["watch", "--server", &url, "--json"]);
    assert_eq!(watch.status.code(), Some(0), "{watch:?}");
    let events: Vec<_> = text(&watch.stdout).lines().map(|line| json(line.as_bytes())).collect();
    assert_eq!(events.len(), 4, "{events:?}");
    let report = &events[3];
    assert_eq!((&report["outcome"], &report["rounds"]), (&"completed".into(), &3.into()));
    assert_eq!(client.wait(), Some(0));
    assert_eq!(server.wait(), Some(0));

    let runs = json(&dunlin(&["runs", "--data-dir", data_dir, "--json"]).stdout);
    assert_eq!((&runs[0]["outcome"], &runs[0]["rounds"]), (&"completed".into(), &3.into()));
    let exported = dir.path().join("exported.safetensors");
    let made = json(&dunlin(&["report", data_dir, "--json", "--no-sensitivity"]).stdout);
    assert_eq!((&made["report"], &made["id"]), (report, &runs[0]["id"]));
    let page = Path::new(data_dir).join("runs").join(runs[0]["id"].as_str().unwrap()).join("report.html");
    assert!(std::fs::read_to_string(page).unwrap().starts_with("<!DOCTYPE html>"));
    let unknown = dunlin(&["report", data_dir, "--run-id", "0123456789abcdef"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    let known = format!("holds no run 0123456789abcdef; it holds {}\n", runs[0]["id"].as_str().unwrap());
    assert!(text(&unknown.stderr).ends_with(&known), "{unknown:?}");
    let export = dunlin(&["export", "--data-dir", data_dir, "--out", exported.to_str().unwrap()]);
    assert!(export.status.success(), "{export:?}");
    let exported = std::fs::read(exported).unwrap();
    let written = Path::new(data_dir).join("runs").join(runs[0]["id"].as_str().unwrap()).join("model.safetensors");
    assert_eq!(tensors(&exported), tensors(&std::fs::read(written).unwrap()));
    let digest = report["model_digest"].as_str().unwrap();
    assert!(text(&exported[..2000]).contains(digest), "the file tells the digest of its model");
}

#[test]
fn a_report_shows_the_numbers_of_its_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let run = simulate(&["-q", "--json", "--out", &path("run"), "--set", "name=a <run> & more"]);
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let report = json(&run.stdout);

    let made = dunlin(&["report", &path("run"), "--json", "--density", "0.5"]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    let made = json(&made.stdout);
    assert_eq!(made["report"], report);
    let lines = |name: &str| -> Vec<Value> {
        let file = std::fs::read_to_string(dir.path().join("run").join(name)).unwrap();
        file.lines().map(|line| json(line.as_bytes())).collect()
    };
    assert_eq!((&made["rounds"], &made["clients"]), (&lines("rounds.jsonl").into(), &lines("clients.jsonl").into()));
    let sum = |list: &Value, of: &str| -> u64 {
        list.as_array().unwrap().iter().map(|it| it.pointer(of).and_then(Value::as_u64).unwrap()).sum()
    };
    assert_eq!(sum(&made["rounds"], "/bytes/up"), report["bytes"]["up"].as_u64().unwrap());
    assert_eq!(sum(&made["clients"], "/down"), report["bytes"]["down"].as_u64().unwrap());
    let layers = &made["model"]["layers"];
    assert_eq!(sum(layers, "/params"), report["params"].as_u64().unwrap());
    assert_eq!(sum(layers, "/nonzero"), report["nonzero"].as_u64().unwrap());
    assert_eq!(made["model"]["sensitivity"]["measured"]["accuracy"], report["accuracy"]);

    // What the report says of a file is what compress makes.
    let compress =
        ["compress", &path("run/model.safetensors"), "--density", "0.5", "--to", &path("small.dnl"), "--json"];
    let small = json(&dunlin(&compress).stdout);
    let shared = &made["model"]["sizes"]["files"][0];
    for stage in ["dense", "pruned", "stored", "coded"] {
        assert_eq!(shared[stage], small[stage], "{stage}");
    }

    let page = std::fs::read_to_string(path("run/report.html")).unwrap();
    let accuracy = format!("<b>{:.2} %</b>", 100.0 * report["accuracy"].as_f64().unwrap());
    for part in [
        accuracy.as_str(),
        "<h1>a &lt;run&gt; &amp; more</h1>",
        "client-00003",
        report["model_digest"].as_str().unwrap(),
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));

    let shown = dunlin(&["report", &path("run"), "--no-sensitivity", "--out", &path("else.html")]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    for part in ["an update up", "shared error", "stored as", "both ways"] {
        assert!(text(&shown.stdout).contains(part), "{shown:?} has no {part}");
    }
    assert!(text(&shown.stderr).starts_with(&format!("wrote {}, ", path("else.html"))), "{shown:?}");
    assert!(std::fs::read_to_string(path("else.html")).unwrap().contains("was not measured"));

    let other = simulate(&["-q", "--seed", "2", "--out", &path("control")]);
    assert_eq!(other.status.code(), Some(0), "{other:?}");
    let compared =
        ["report", &path("run"), "--no-sensitivity", "--beside", &path("control"), "--out", &path("both.html")];
    let shown = dunlin(&compared);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    assert!(text(&shown.stdout).contains("control") && text(&shown.stdout).contains("best"), "{shown:?}");
    let page = std::fs::read_to_string(path("both.html")).unwrap();
    assert!(page.contains("Beside other runs") && page.contains("<th>control</th>"), "{page}");
    let beside = &json(&dunlin(&[compared.as_slice(), &["--json"]].concat()).stdout)["beside"];
    assert_eq!((&beside[0]["name"], &beside[1]["name"]), (&"run".into(), &"control".into()));
    assert_eq!(beside[0]["report"], report);
    let run = path("run");
    let refused = dunlin(&[&["report", &run], ["--beside", &run].repeat(5).as_slice()].concat());
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");

    std::fs::write(path("run/rounds.jsonl"), "{\"round\": 1}\n{\"round\": tw").unwrap();
    let damaged = dunlin(&["report", &path("run")]);
    assert_eq!(damaged.status.code(), Some(2), "{damaged:?}");
    let told = format!("error: {} is damaged: line 2: ", path("run/rounds.jsonl"));
    assert!(text(&damaged.stderr).starts_with(&told) && text(&damaged.stderr).lines().count() == 1, "{damaged:?}");
}

#[test]
fn a_model_is_made_small_judged_exported_and_made_large_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let trained = ["model.kind=2nn", "training.epochs=4", "training.learning_rate=0.3", "downlink.density=0.01"]
        .map(|set| ["--set", set])
        .concat();
    let run = simulate(&[&["-q", "--out", &path("run")], trained.as_slice()].concat());
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let model = path("run/model.safetensors");

    let compress = |more: &[&str]| {
        let run = dunlin(&[&["compress", &model, "--json"], more].concat());
        assert_eq!(run.status.code(), Some(0), "{run:?}");
        json(&run.stdout)
    };
    let sizes = compress(&["--density", "0.3", "--bits", "4", "--to", &path("small.dnl")]);
    let stages = ["dense", "pruned", "stored", "coded"].map(|stage| sizes[stage].as_u64().unwrap());
    assert!(stages.windows(2).all(|pair| pair[1] < pair[0]) && stages[0] > 12 * stages[3], "{sizes}");
    assert_eq!(std::fs::metadata(path("small.dnl")).unwrap().len(), stages[3]);
    assert_eq!(sizes["tensors"].as_array().unwrap().len(), 6);
    compress(&["--values", "int8", "--calibrate", "digits", "--to", &path("int8.dnl")]);

    let judge = |file: &str, more: &[&str]| {
        let run = dunlin(&[&["eval", file, "--data", "digits", "--json"], more].concat());
        assert_eq!(run.status.code(), Some(0), "{run:?}");
        let judgement = json(&run.stdout);
        assert_eq!(judgement["examples"], 359);
        (judgement["correct"].as_u64().unwrap(), judgement["kernels"].as_str().unwrap().to_owned())
    };
    let (whole, kernels) = judge(&model, &["--kernels", "training"]);
    assert_eq!((judge(&model, &[]), kernels.as_str()), ((whole, kernels.clone()), "dense, as in training"));
    assert_eq!(judge(&model, &["--batch", "1"]), (whole, "dense".to_owned()));
    let (sparse, kernels) = judge(&path("small.dnl"), &[]);
    assert!(kernels.contains("sparse") && sparse + 60 > whole, "{sparse} of {whole} with {kernels}");
    let (int8, kernels) = judge(&path("int8.dnl"), &[]);
    assert!(kernels == "int8" && int8.abs_diff(whole) < 8, "{int8} and {whole} with {kernels}");

    let trained = compress(&["--density", "0.1", "--bits", "2", "--train", "digits", "--to", &path("trained.dnl")]);
    let (untrained, trained_bytes) = (path("untrained.dnl"), trained["coded"].as_u64().unwrap());
    let bytes = compress(&["--density", "0.1", "--bits", "2", "--to", &untrained])["coded"].as_u64().unwrap();
    assert!(trained_bytes.abs_diff(bytes) < 40, "{trained_bytes} and {bytes}");
    assert!(judge(&path("trained.dnl"), &[]).0 > judge(&untrained, &[]).0, "training codebooks helps");

    let distill = |more: &[&str]| {
        dunlin(
            &[&["distill", &model, "--data", "digits", "--to", &path("student.safetensors"), "--json"], more].concat(),
        )
    };
    let more = ["--student", "2nn", "--channels", "20, 20", "--epochs", "60", "--learning-rate", "0.005"];
    let student = distill(&more);
    assert_eq!(student.status.code(), Some(0), "{student:?}");
    let student = json(&student.stdout);
    assert_eq!(student["student"]["parameters"], 64 * 20 + 20 + 20 * 20 + 20 + 20 * 10 + 10);
    assert!(student["agreement"].as_f64().unwrap() > 0.95, "{student}");
    let judged = judge(&path("student.safetensors"), &[]).0;
    assert!(judged + 30 > whole, "run from its file alone it gets {judged} right, the teacher {whole}");
    let refused = distill(&["--student", "resnet8", "--channels", "20"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(text(&refused.stderr).contains("model.channels"), "{refused:?}");

    let large = dunlin(&["decompress", &path("small.dnl"), "--to", &path("large.safetensors")]);
    assert!(large.status.success(), "{large:?}");
    assert_eq!(judge(&path("large.safetensors"), &["--kernels", "sparse"]).0, sparse);
    let predicted = dunlin(&["predict", &path("small.dnl"), "--data", "digits", "--rows", "3", "--json"]);
    let predicted: Vec<_> = text(&predicted.stdout).lines().map(|line| json(line.as_bytes())).collect();
    assert_eq!(predicted.iter().map(|row| row["row"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);

    let export = |more: &[&str]| dunlin(&[&["export", "--out", &path("model.onnx")], more].concat());
    let exported = export(&["--run", &path("run"), "--to", "onnx"]);
    assert!(exported.status.success(), "{exported:?}");
    assert!(text(&std::fs::read(path("model.onnx")).unwrap()).contains("Gemm"));
    let exported = export(&["--model", &path("int8.dnl"), "--to", "onnx-int8"]);
    assert!(exported.status.success(), "{exported:?}");
    assert!(text(&std::fs::read(path("model.onnx")).unwrap()).contains("QuantizeLinear"));
    compress(&["--bits", "3", "--to", &path("compressed.dnl")]);
    let exported =
        dunlin(&["export", "--run", &path("run"), "--to", "container", "--bits", "3", "--out", &path("exported.dnl")]);
    assert!(exported.status.success(), "{exported:?}");
    assert!(std::fs::read(path("exported.dnl")).unwrap() == std::fs::read(path("compressed.dnl")).unwrap());
    std::fs::write(path("notes.txt"), "no model").unwrap();
    let refused = export(&["--model", &path("notes.txt"), "--to", "onnx"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("notes.txt: neither a container nor a safetensors file"), "{refused:?}");
    // What does not fit is one line, whoever reads it.
    let told = |arguments: &[&str], expected: &str| {
        let refused = dunlin(arguments);
        let error = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    };
    let other = "the model takes 1 × 8 × 8 values in 10 classes, and the data set \"penguins\" has";
    told(&["compress", &model, "--values", "int8", "--calibrate", "penguins", "--to", &path("x.dnl")], other);
    told(&["compress", &model, "--train", "penguins", "--to", &path("x.dnl")], other);
    told(&["export", "--run", &path("run"), "--to", "onnx-int8", "--data", "penguins", "--out", &path("x")], other);
    told(&["compress", &model, "--parameters", "10", "--to", &path("x.dnl")], "--parameters 10: at least 413 are left");
    let classes = ["--classes", "5", "--to", &path("x.safetensors")];
    told(
        &[&["distill", &model, "--data", "digits", "--student", "2nn"], &classes[..]].concat(),
        "--classes 5: the file tells a model of",
    );
    let mut damaged = std::fs::read(path("small.dnl")).unwrap();
    damaged[100] ^= 1;
    std::fs::write(path("damaged.dnl"), damaged).unwrap();
    told(&["eval", &path("damaged.dnl"), "--data", "digits"], "damaged.dnl: the file is damaged or cut short");
    let refused = export(&["--model", &path("small.dnl"), "--to", "onnx-int8"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(text(&refused.stderr).contains("say --data SPEC"), "{refused:?}");
}

#[test]
fn a_distillation_that_is_killed_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    assert!(simulate(&["--set", "rounds.count=3", "--out", &path("run")]).status.success());
    let (model, kept) = (path("run/model.safetensors"), path("student.safetensors.distillation"));
    let distill = |to: &str, seed: &str| {
        let student = ["--student", "2nn", "--channels", "20, 20", "--epochs", "150", "--seed", seed];
        command(&[&["distill", &model, "--data", "digits", "--to", &path(to), "--json"], &student[..]].concat())
    };
    let whole = distill("whole.safetensors", "1").output().unwrap();
    assert!(whole.status.success(), "{whole:?}");
    let mut killed = distill("student.safetensors", "1").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !Path::new(&kept).exists() {
        assert!(killed.try_wait().unwrap().is_none(), "it is kept before it ends");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let left = std::fs::read(&kept).unwrap();

    let again = distill("student.safetensors", "1").output().unwrap();
    assert!(text(&again.stderr).contains("going on from"), "{again:?}");
    assert!(!Path::new(&kept).exists(), "nothing is left of it");
    let student = |name: &str| std::fs::read(path(name)).unwrap();
    assert!(student("student.safetensors") == student("whole.safetensors"), "it ends as one that was never left");
    // What was kept of another one is no beginning.
    std::fs::write(&kept, left).unwrap();
    let other = distill("student.safetensors", "2").output().unwrap();
    assert!(other.status.success() && !text(&other.stderr).contains("going on from"), "{other:?}");
    assert!(student("student.safetensors") != student("whole.safetensors"));
}

#[test]
fn a_recipe_may_end_with_a_student_of_another_architecture() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let sets = ["distillation.student=2nn", "distillation.student_channels=12, 12", "data.server_share=0.3"];
    let sets = sets.map(|set| ["--set", set]).concat();
    let run = simulate(&[&["-q", "--json", "--out", &path("run")], sets.as_slice()].concat());
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let student = &json(&run.stdout)["student"];
    assert_eq!(
        (&student["kind"], &student["params"]),
        (&"2nn".into(), &(64 * 12 + 12 + 12 * 13 + 12 * 10 + 10).into())
    );
    let judged = dunlin(&["eval", &path("run/student.safetensors"), "--data", "digits", "--json"]);
    assert_eq!(json(&judged.stdout)["accuracy"], student["accuracy"], "{judged:?}");

    let table = simulate(&[&["-q"], sets.as_slice()].concat());
    assert!(text(&table.stdout).contains("a 2nn of 1,066 parameters, which agrees in"), "{table:?}");
    let refused = dunlin(&["simulate", "--set", "distillation.student=3nn", "--set", "data.server_share=0.3"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(text(&refused.stderr).contains("`distillation.student` is \"3nn\"; it must be empty, or"), "{refused:?}");
}

#[test]
fn a_model_from_elsewhere_is_made_small_and_a_broken_file_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let header = br#"{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
    let values: Vec<u8> = [0.5f32, 0.0, -0.25, 0.5, 0.0, 0.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let file = [(header.len() as u64).to_le_bytes().as_slice(), header, &values].concat();
    std::fs::write(path("model.safetensors"), &file).unwrap();
    let compressed = dunlin(&["compress", &path("model.safetensors")]);
    assert_eq!(compressed.status.code(), Some(0), "{compressed:?}");
    assert!(text(&compressed.stdout).contains("50.00 %"), "{compressed:?}");
    let back = dunlin(&["decompress", &path("model.dnl"), "--to", &path("back.safetensors")]);
    assert!(back.status.success(), "{back:?}");
    assert_eq!(tensors(&std::fs::read(path("back.safetensors")).unwrap()), tensors(&file));
    let unknown = dunlin(&["eval", &path("model.dnl"), "--data", "digits"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    assert!(text(&unknown.stderr).contains("does not tell its architecture"), "{unknown:?}");

    let mut broken = std::fs::read(path("model.dnl")).unwrap();
    broken[20] ^= 1;
    std::fs::write(path("broken.dnl"), broken).unwrap();
    let told = dunlin(&["decompress", &path("broken.dnl")]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(text(&told.stderr).contains("checksum"), "{told:?}");
}

#[test]
fn a_client_that_is_given_what_the_run_does_not_have_says_which_option_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let (listen, url) = (address.to_string(), format!("http://{address}"));
    let mut server = command(&["server", "--listen", &listen, "--data-dir", dir.path().to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = dir.path().join("own.csv");
    std::fs::write(&file, "a,label\n1,0\n2,1\n3,0\n").unwrap();
    let own = format!("csv:{}", file.display());
    for (arguments, expected) in [
        (&["--data", "recipe:99"][..], "--data = recipe:99: 1 client(s) need parts up to 99"),
        (&["--data", "recipe:0", "--width", "0.5"], "--width is 0.5; the recipe has clients of width 1"),
        (&["--data", &own, "--id", "ward"], "check that shapes and classes agree with the recipe"),
        (&["--data", "recipe:4294967295", "--virtual", "2"], "--virtual 2: from part 4294967295 on"),
        (&["--data", "recipe:0", "--virtual", "0"], "0 is not in 1.."),
    ] {
        let refused = dunlin(&[&["client", "--server", &url], arguments].concat());
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(text(&refused.stderr).contains(expected), "{refused:?}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn server_and_client_tell_a_script_what_happens() {
    let dir = tempfile::tempdir().unwrap();
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let (listen, url) = (address.to_string(), format!("http://{address}"));
    let mut arguments = vec!["server", "--json", "--listen", &listen, "--data-dir", dir.path().to_str().unwrap()];
    arguments.extend(TINY);
    let server = command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let client = dunlin(&["client", "--json", "--server", &url, "--data", "recipe:0", "--virtual", "4"]);
    let server = server.wait_with_output().unwrap();
    assert_eq!((client.status.code(), server.status.code()), (Some(0), Some(0)), "{client:?}");
    let lines =
        |output: &Output| -> Vec<Value> { text(&output.stdout).lines().map(|line| json(line.as_bytes())).collect() };

    let told = lines(&server);
    assert_eq!(told.iter().map(|it| it["round"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2), Some(3), None]);
    assert_eq!((&told[0]["choice"], &told[0]["needed"]), (&"all-eligible".into(), &4.into()), "{told:?}");
    assert_eq!((&told[3]["outcome"], &told[3]["rounds"]), (&"completed".into(), &3.into()));

    let told: Vec<_> = lines(&client).into_iter().filter(|it| it["client"] == "client-00002").collect();
    let events: Vec<_> = told.iter().map(|it| (it["event"].as_str().unwrap(), it["round"].as_u64())).collect();
    let rounds: Vec<_> = (1..=3).flat_map(|round| [("training", Some(round)), ("accepted", Some(round))]).collect();
    assert_eq!(events, [&[("joined", None)], &rounds[..], &[("ended", None)]].concat());
    assert_eq!(told[7]["outcome"], "completed");
    assert!(told[0]["examples"].as_u64().is_some_and(|examples| examples > 0) && told[2]["bytes"].as_u64() > Some(0));
}

#[test]
fn a_server_that_is_told_to_stop_before_the_end_does_not_say_that_the_run_ended() {
    let dir = tempfile::tempdir().unwrap();
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let (listen, url) = (address.to_string(), format!("http://{address}"));
    let data_dir = dir.path().to_str().unwrap();
    let arguments = ["server", "--listen", &listen, "--data-dir", data_dir];
    let server = command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Once it answers it also listens to signals.
    while !dunlin(&["status", "--server", &url]).status.success() {}
    let kill = Command::new("sh").args(["-c", &format!("kill -TERM {}", server.id())]).status().unwrap();
    assert!(kill.success());
    let server = server.wait_with_output().unwrap();
    assert_eq!(server.status.code(), Some(130));
    let told = format!(
        "interrupted after 0 rounds, while it waited for clients; the run goes on when the server is started again with \
         --data-dir {data_dir}\n"
    );
    assert!(text(&server.stderr).contains(&told), "{server:?}");
}

/// A federation of a few milliseconds.
const TINY: [&str; 12] = [
    "--set",
    "model.kind=softmax",
    "--set",
    "data.clients=4",
    "--set",
    "rounds.cohort=4",
    "--set",
    "rounds.count=3",
    "--set",
    "training.epochs=1",
    "--set",
    "rounds.quorum=1",
];

fn simulate(more: &[&str]) -> Output {
    let mut arguments = vec!["simulate"];
    arguments.extend(TINY);
    arguments.extend(more);
    dunlin(&arguments)
}

fn dunlin(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error} in {:?}", text(bytes)))
}

/// The tensors of a safetensors file, without what it tells about itself.
fn tensors(file: &[u8]) -> (Value, Vec<u8>) {
    let (len, rest) = file.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let mut header = json(header);
    header.as_object_mut().unwrap().remove("__metadata__");
    (header, data.to_vec())
}

/// A process that does not outlive its test.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str]) -> Self {
        Self(command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn wait(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already when the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
