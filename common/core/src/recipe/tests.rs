//! The recipe's text in and out, and every message with which one is refused.

mod rules;

use super::keys::SECTIONS;
use super::write::populated;
use super::*;
use dunlin_codec::{CommonGrid, Quantizer, Rate};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeSet;
use std::ops::Bound;

#[test]
fn the_table_of_keys_lists_exactly_the_keys_of_a_recipe() {
    let mut paths = BTreeSet::new();
    list_paths("", &serde_json::to_value(populated()).unwrap(), &mut paths);
    let listed: BTreeSet<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!((listed.len(), listed), (KEYS.len(), paths));
}

#[test]
fn the_table_of_sections_lists_exactly_the_sections_of_the_keys_in_their_order() {
    let mut sections: Vec<_> = KEYS.iter().map(Key::section).filter(|section| !section.is_empty()).collect();
    sections.dedup();
    assert_eq!(sections, SECTIONS.iter().map(|(section, _)| *section).collect::<Vec<_>>());
}

#[test]
fn the_words_of_every_choice_are_exactly_those_that_the_recipe_reads() {
    for key in KEYS {
        let Form::Choice(words) = key.form else { continue };
        let (section, name) = key.path.rsplit_once('.').unwrap();
        let text = format!("[{section}]\n{name} = \"no such word\"");
        let error = toml::from_str::<Recipe>(&text).unwrap_err().message().to_owned();
        let read: Vec<_> = error.split('`').skip(1).step_by(2).skip(1).collect();
        assert_eq!((key.path, read), (key.path, words.to_vec()));
    }
}

#[test]
fn every_default_has_the_form_of_its_key() {
    assert_eq!(populated().validate(), Ok(()));
}

#[test]
fn the_reference_in_docs_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/RECIPE.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == reference(), "docs/RECIPE.md is out of date; UPDATE_DOCS=1 cargo test -p dunlin-core writes it");
}

#[test]
fn the_example_in_the_reference_is_a_recipe() {
    let reference = reference();
    let example = reference.split("```toml").nth(1).unwrap().split("```").next().unwrap();
    let recipe = Recipe::from_toml(example).unwrap();
    assert_eq!((recipe.data.clients, recipe.network.class.len()), (100, 2));
}

#[test]
fn the_default_recipe_as_toml_is_golden() {
    insta::assert_snapshot!(Recipe::default().to_toml());
}

#[test]
fn the_commented_default_recipe_is_golden() {
    insta::assert_snapshot!(Recipe::default().commented_toml());
}

#[test]
fn what_is_written_is_read_back() {
    let mut unusual = populated();
    unusual.name = "a \"name\" = of # its own\n".into();
    unusual.seed = i64::MAX as u64;
    unusual.model.kind = ModelKind::ResNet8;
    unusual.training.optimizer = OptimizerKind::Adam;
    unusual.training.augment = Augment::CropFlip;
    unusual.strategy.kind = StrategyKind::FedYogi;
    unusual.limits.max_update_abs = 0.1;
    unusual.training.learning_rate = 1.0 / 3.0;
    unusual.network.class.push(ClientClass { name: "phone".into(), up_kbps: 512.5, ..ClientClass::default() });
    for recipe in [Recipe::default(), populated(), unusual] {
        assert_eq!(Recipe::from_toml(&recipe.to_toml()), Ok(recipe.clone()));
        assert_eq!(Recipe::from_toml(&recipe.commented_toml()), Ok(recipe.clone()));
    }
}

#[test]
fn the_commented_out_class_of_clients_is_one_that_can_be_used() {
    let text = Recipe::default().commented_toml();
    let (head, class) = text.split_once("# # One kind of client.").unwrap();
    let class: String = class.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
    let class: String =
        class.lines().filter(|line| line.contains(['=', '['])).map(|line| format!("{line}\n")).collect();
    assert_eq!(Recipe::from_toml(&format!("{head}{class}")), Ok(Recipe { size: Vec::new(), ..populated() }));
}

#[test]
fn a_recipe_keeps_the_default_of_what_it_leaves_out() {
    let recipe = Recipe::from_toml("[downlink]\ndensity = 0.5").unwrap();
    let expected = LinkConfig { density: 0.5, ..Recipe::default().downlink };
    assert_eq!(recipe, Recipe { downlink: expected, ..Recipe::default() });
}

#[test]
fn a_downlink_without_a_density_costs_a_client_as_much_as_its_uplink() {
    let density = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Recipe::load(None, &sets).unwrap().downlink.density
    };
    assert_eq!(density(&[]), 0.01);
    assert_eq!(density(&["data.clients=10", "rounds.cohort=10", "uplink.density=0.04"]), 0.04);
    assert_eq!(density(&["data.clients=100", "rounds.cohort=10", "uplink.density=0.04"]), 0.004);
    assert_eq!(density(&["data.clients=1000", "rounds.cohort=10"]), Recipe::LEAST_BALANCED);
    assert_eq!(density(&["uplink.density=1", "uplink.quantizer=rotated"]), 0.01);
    assert_eq!(density(&["uplink.density=0.04", "downlink.density=0.3"]), 0.3);
}

#[test]
fn no_text_and_an_empty_text_are_the_default_recipe() {
    assert_eq!(Recipe::load(None, &[]), Ok(Recipe::default()));
    assert_eq!(Recipe::from_toml(""), Ok(Recipe::default()));
}

#[test]
fn assignments_override_the_text_and_the_last_one_wins() {
    let sets = ["rounds.cohort=3", " rounds.cohort = 4 ", "data.source=csv:my file=1.csv", "name=2026", "seed=7"];
    let recipe = load("seed = 3\n[rounds]\ncohort = 2\ncount = 5", &sets).unwrap();
    let mut expected = Recipe { name: "2026".into(), seed: 7, ..Recipe::default() };
    expected.data.source = "csv:my file=1.csv".into();
    expected.rounds.cohort = 4;
    expected.rounds.count = 5;
    expected.downlink.density = expected.balanced_downlink_density();
    assert_eq!(recipe, expected);
}

#[test]
fn texts_in_assignments_need_no_quotes_but_may_have_them() {
    let recipe = load("", &["model.kind=\"2nn\"", "data.label='class'", "data.key_file=", "name=true"]).unwrap();
    let read = (recipe.model.kind, recipe.data.label, recipe.data.key_file, recipe.name);
    assert_eq!(read, (ModelKind::TwoNn, "class".into(), String::new(), "true".into()));
}

#[test]
fn an_assignment_to_a_class_key_reaches_every_class_or_makes_one() {
    let losses = |text, sets: &[&str]| -> Vec<f64> {
        load(text, sets).unwrap().network.class.iter().map(|class| class.loss).collect()
    };
    let two = "[[network.class]]\nname = \"a\"\nloss = 0.5\n[[network.class]]\nname = \"b\"";
    assert_eq!(losses(two, &["network.class.loss=0.25"]), [0.25, 0.25]);
    assert_eq!(losses("", &["network.class.loss=0.25"]), [0.25]);
    assert_eq!(losses(two, &["network.class=[]"]), Vec::<f64>::new());
    assert_eq!(losses(two, &["network.class=[{loss=0.125}]"]), [0.125]);
}

#[test]
fn a_whole_number_may_stand_where_any_number_may() {
    assert_eq!(Recipe::from_toml("rounds.deadline_s = 30").unwrap().rounds.deadline_s, 30.0);
}

#[test]
fn a_text_that_is_not_a_recipe_is_refused_with_its_line() {
    for (text, message) in [
        // Not TOML.
        ("seed = 1\n[rounds\n", "line 2: unclosed table, expected `]`: `[rounds`"),
        ("seed = 1\nseed = 2\n", "line 2: duplicate key: `seed = 2`"),
        ("seed = 99999999999999999999", "line 1: the number does not fit into 64 bits: `seed = 99999999999999999999`"),
        // Names.
        (
            "# one\n\n[data]\nclients = 9\n\n[rounds]\ncohrt = 5",
            "line 7: unknown key `rounds.cohrt`; did you mean `rounds.cohort`?",
        ),
        ("[rounds]\ndeadline = 5", "line 2: unknown key `rounds.deadline`; did you mean `rounds.deadline_s`?"),
        ("clients = 5", "line 1: unknown key `clients`; did you mean `data.clients`?"),
        ("density = 0.5", "line 1: unknown key `density`; did you mean `uplink.density`?"),
        ("[round]\ncohort = 5", "line 1: unknown section `round`; did you mean `rounds`?"),
        ("round.cohort = 5", "line 1: unknown section `round`; did you mean `rounds`?"),
        (
            "[[network.class]]\nname = \"a\"\n[[network.class]]\ncolour = 1",
            "line 4: unknown key `network.class.colour`; the keys of `network.class` are name, share, up_kbps, \
             down_kbps, latency_ms, loss, churn, examples_per_s",
        ),
        (
            "[x]",
            "line 1: unknown section `x`; the sections are model, data, rounds, training, strategy, uplink, common, downlink, \
             pruning, distillation, limits, size, network, network.class",
        ),
        ("\"rounds.cohort\" = 5", "line 1: unknown key `\"rounds.cohort\"`; did you mean `rounds.cohort`?"),
        // Types.
        ("rounds = 5", "line 1: `rounds` is 5; it must be a section, headed `[rounds]`"),
        ("[[rounds]]\ncohort = 5", "line 1: `rounds` is a list of sections; it must be a section, headed `[rounds]`"),
        (
            "[network.class]\nloss = 0.5",
            "line 1: `network.class` is a section; it must be a list of sections, each headed `[[network.class]]`",
        ),
        ("[name]", "line 1: `name` is a section; it must be a text that is not empty"),
        ("\n\nname = 5", "line 3: `name` is 5; it must be a text that is not empty"),
        ("rounds.target_required = 1", "line 1: `rounds.target_required` is 1; it must be true or false"),
        (
            "rounds.cohort = 5.0",
            "line 1: `rounds.cohort` is 5.0; it must be a whole number from 1 to 1000000000 (updates)",
        ),
        ("uplink.density = \"1%\"", "line 1: `uplink.density` is \"1%\"; it must be a number above 0 and at most 1"),
        (
            "training.batch = 2020-01-01",
            "line 1: `training.batch` is 2020-01-01; it must be a whole number from 0 to 1000000000 (examples)",
        ),
        (
            "uplink.coder = \"Adaptive\"",
            "line 1: `uplink.coder` is \"Adaptive\"; it must be auto, raw, rice, enumerative or adaptive; did you mean \
             \"adaptive\"?",
        ),
        (
            "strategy.kind = \"fedyog\"",
            "line 1: `strategy.kind` is \"fedyog\"; it must be fedavg, fedavgm, fedadagrad, fedadam or fedyogi; did you mean \
             \"fedyogi\"?",
        ),
        // Two problems: the first in the text is told.
        (
            "[uplink]\ndensity = 0\n[data]\nclients = 0",
            "line 2: `uplink.density` is 0; it must be a number above 0 and at most 1",
        ),
    ] {
        let error = Recipe::from_toml(text).unwrap_err().to_string();
        assert_eq!((text, error.as_str()), (text, message));
    }
}

#[test]
fn a_long_value_is_cut_in_the_message() {
    let error = Recipe::from_toml(&format!("seed = \"{}\"", "ä".repeat(500))).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("line 1: `seed` is \"{}…; it must be a whole number from 0 to 9223372036854775807", "ä".repeat(59))
    );
}

#[test]
fn an_assignment_that_is_wrong_is_refused_in_its_own_words() {
    for (set, message) in [
        ("rounds.cohort", "--set rounds.cohort: an assignment must be `key=value`, such as `rounds.cohort=10`"),
        ("rounds.cohrt=5", "--set rounds.cohrt=5: unknown key `rounds.cohrt`; did you mean `rounds.cohort`?"),
        ("round.cohort=5", "--set round.cohort=5: unknown key `round.cohort`; did you mean `rounds.cohort`?"),
        (
            "=5",
            "--set =5: unknown key ``; the sections are model, data, rounds, training, strategy, uplink, common, downlink, pruning, distillation, limits, size, network, network.class",
        ),
        ("rounds={cohort=5}", "--set rounds={cohort=5}: `rounds` is a section; it must be set key by key"),
        (
            "network.class[0].loss=0",
            "--set network.class[0].loss=0: unknown key `network.class[0].loss`; did you mean `network.class.loss`?",
        ),
        (
            "network.class=[{los=0}]",
            "--set network.class=[{los=0}]: unknown key `network.class.los`; did you mean `network.class.loss`?",
        ),
        (
            "network.class=0",
            "--set network.class=0: `network.class` is 0; it must be a list of sections, each headed `[[network.class]]`",
        ),
        (
            "model.kind=3nn",
            "--set model.kind=3nn: `model.kind` is \"3nn\"; it must be softmax, 2nn, mcmahan-cnn, textbook-cnn, lenet-300-100, lenet-5, \
             simple-cnn, mlp, vgg9, vgg11s, resnet8, resnet20, mobilenet, efficientnet, char-lstm, char-gru, \
             transformer, trivial or own:NAME; did you mean \"2nn\"?",
        ),
        (
            "rounds.cohort=ten",
            "--set rounds.cohort=ten: `rounds.cohort` is \"ten\"; it must be a whole number from 1 to 1000000000 (updates)",
        ),
        (
            "training.nesterov=true",
            "--set training.nesterov=true: `training.nesterov` is true; it must be false, unless `training.optimizer` is \"sgd\" and `training.momentum` above 0",
        ),
        ("seed=-1", "--set seed=-1: `seed` is -1; it must be a whole number from 0 to 9223372036854775807"),
        ("seed=", "--set seed=: `seed` is \"\"; it must be a whole number from 0 to 9223372036854775807"),
    ] {
        let error = load("", &[set]).unwrap_err().to_string();
        assert_eq!((set, error.as_str()), (set, message));
    }
}

#[test]
fn each_key_refuses_what_is_out_of_its_range() {
    let mut refusals = String::new();
    for key in KEYS {
        let wrong: &[&str] = match key.form {
            Form::Text => &["5"],
            Form::Name => &["''"],
            Form::Flag => &["'yes'"],
            Form::Choice(_) => &["'none of them'"],
            Form::Whole(0, _) => &["-1", "0.5"],
            Form::Whole(..) => &["0"],
            Form::ZeroOrOne => &["0.5"],
            Form::Model => &["'none of them'", "'own:'"],
            Form::Source => &["'x'", "'tar:x'", "'csv:'"],
            Form::Real(Bound::Included(min), _) if min < 0.0 => &["-100", "inf", "nan"],
            Form::Real(..) | Form::Rate => &["-0.5", "inf", "nan"],
            Form::Pattern => &["'4:2'", "'dense'"],
            Form::Examples => &["'none'", "'x'"],
            Form::Sections => &["{}"],
        };
        let (section, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        for value in wrong {
            let text = match section {
                "" => format!("{name} = {value}"),
                "network.class" | "size" => format!("[[{section}]]\n{name} = {value}"),
                section => format!("[{section}]\n{name} = {value}"),
            };
            let error = Recipe::from_toml(&text).unwrap_err();
            refusals.push_str(&format!("{error}\n"));
        }
    }
    insta::assert_snapshot!(refusals);
}

#[test]
fn the_bounds_of_a_range_belong_to_it_or_not_as_the_message_says() {
    for (set, is_valid) in [
        ("uplink.density=0", false),
        ("uplink.density=0.0", false),
        ("uplink.density=1", true),
        ("uplink.density=1.0001", false),
        ("rounds.quorum=0", false),
        ("rounds.quorum=1", true),
        ("rounds.over_selection=0.999", false),
        ("rounds.over_selection=1", true),
        ("rounds.deadline_s=0", false),
        ("rounds.deadline_s=31536000", true),
        ("rounds.deadline_s=31536001", false),
        ("rounds.cohort=0", false),
        ("rounds.cohort=1", true),
        ("rounds.cohort=1000000001", false),
        ("data.test_share=1", false),
        ("data.test_share=0", false),
        ("data.alpha=0", false),
        ("network.class.loss=0", true),
        ("network.class.loss=1", false),
        ("network.class.churn=1", false),
        ("network.class.up_kbps=0", true),
        ("network.class.up_kbps=0.0001", false),
        ("network.class.up_kbps=0.001", true),
        ("network.class.examples_per_s=1000000001", false),
        ("limits.max_update_abs=65504", true),
        ("limits.max_update_abs=65505", false),
        ("limits.max_examples=0", false),
        ("training.momentum=1", false),
        ("training.clip_norm=0", true),
        ("strategy.tau=0", false),
        ("uplink.feedback=0", true),
        ("uplink.feedback=1", true),
        ("uplink.feedback=1.1", false),
        ("downlink.feedback=0", true),
        ("seed=9223372036854775807", true),
        ("seed=9223372036854775808", false),
    ] {
        let result = load("", &[set]);
        assert_eq!((set, is_valid), (set, result.is_ok()), "{result:?}");
    }
}

#[test]
fn a_recipe_made_by_code_is_checked_like_one_that_was_read() {
    let refusal = |change: fn(&mut Recipe)| {
        let mut recipe = Recipe::default();
        change(&mut recipe);
        recipe.validate().unwrap_err().to_string()
    };
    assert_eq!(
        [
            refusal(|recipe| recipe.uplink.density = f64::NAN),
            refusal(|recipe| recipe.rounds.cohort = 30),
            refusal(|recipe| recipe.network.class.push(ClientClass { loss: 1.0, ..ClientClass::default() })),
            refusal(|recipe| recipe.seed = u64::MAX),
        ],
        [
            "`uplink.density` is nan; it must be a number above 0 and at most 1",
            "`rounds.cohort` is 30; it must be at most `data.clients`, which is 20",
            "`network.class.loss` is 1.0; it must be a number of at least 0 and below 1",
            "whole numbers must be at most 9223372036854775807",
        ]
    );
}

#[test]
fn a_few_refusals_are_golden() {
    let texts = [
        "[rounds]\ncohrt = 5",
        "[model]\nkind = \"resnet50\"",
        "[rounds]\nquorum = 1.5",
        "[data]\nclients = 4\n\n[rounds]\ncohort = 5",
        "[uplink]\nquantizer = \"int4\"",
    ];
    let refusals: Vec<_> = texts.iter().map(|text| Recipe::from_toml(text).unwrap_err().to_string()).collect();
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn every_quantizer_has_a_recipe_and_gets_its_numbers() {
    let quantizer = |word: &str, others: &[&str]| {
        let named = format!("uplink.quantizer={word}");
        let sets = [&[named.as_str(), "uplink.density=1"], others].concat();
        let recipe = load("", &sets).unwrap();
        assert_eq!(recipe.uplink.quantizer.word(), word);
        Recipe::codec(&recipe.uplink, 1).quantizer
    };
    let common = |bits, clip, fit| Quantizer::Common { grid: CommonGrid::new(bits, clip).unwrap(), fit };
    let (unbiased, none) = (Fit::Unbiased, "uplink.feedback=0");
    for (word, others, expected) in [
        ("f32", &[][..], Quantizer::F32),
        ("f16", &[], Quantizer::F16),
        ("int8", &[], Quantizer::Int8),
        ("ternary", &[], Quantizer::Ternary),
        ("codebook", &["uplink.bits=3"], Quantizer::Codebook { bits: 3 }),
        ("rotated", &["uplink.bits=0.7"], Quantizer::Rotated { rate: Rate::nearest(0.7), fit: Fit::LeastError }),
        ("eden", &["uplink.bits=1", none, "uplink.fit=unbiased"], Quantizer::Eden { bits: 1, fit: unbiased }),
        ("qsgd", &["uplink.bits=4", none], Quantizer::Qsgd { levels: 7 }),
        ("qsgd", &["uplink.bits=8", none], Quantizer::Qsgd { levels: 127 }),
        ("terngrad", &[none], Quantizer::Terngrad),
        ("sign", &[], Quantizer::Sign),
        ("low-rank", &["uplink.rank=3"], Quantizer::LowRank { rank: 3 }),
        ("common", &["uplink.bits=6", "uplink.clip=2"], common(6, 2.0, Fit::LeastError)),
        ("common", &["uplink.bits=8", none, "uplink.fit=unbiased"], common(8, 0.25, unbiased)),
    ] {
        assert_eq!(quantizer(word, others), expected);
        assert_eq!(Codec { density: 1.0, quantizer: expected, coder: EntropyCoder::Auto }.validate(), Ok(()));
    }
}

#[test]
fn the_density_falls_geometrically_over_the_warm_up() {
    let link = LinkConfig { density: 0.01, warmup_density: 0.16, warmup_rounds: 4, ..LinkConfig::default() };
    let densities: Vec<_> = (1..=6).map(|round| (Recipe::codec(&link, round).density * 1e6).round() / 1e6).collect();
    assert_eq!(densities, [0.16, 0.08, 0.04, 0.02, 0.01, 0.01]);
}

#[test]
fn the_digest_tells_recipes_apart_and_survives_writing() {
    let recipe = Recipe::default();
    let read = Recipe::from_toml(&recipe.commented_toml()).unwrap();
    assert_eq!(recipe.digest(), read.digest());
    assert_ne!(recipe.digest(), Recipe { seed: 2, ..recipe }.digest());
}

proptest! {
    #[test]
    fn no_text_and_no_assignment_makes_the_parser_panic(
        at in any::<Index>(),
        lost in 0_usize..40,
        typed in "[a-zé\\[\\]{}=.\"'0-9#\\n -]{0,12}",
        path in "[a-z_.\\[\\]=\" ]{0,20}",
        key in any::<Index>(),
        value in "[a-z0-9{}\\[\\]=.,'\"é\\n-]{0,16}",
    ) {
        let mut text: Vec<char> = populated().to_toml().chars().collect();
        let at = at.index(text.len());
        let end = (at + lost).min(text.len());
        text.splice(at..end, typed.chars());
        let text: String = text.into_iter().collect();
        let key = KEYS[key.index(KEYS.len())].path;
        let results = [
            Recipe::from_toml(&text),
            Recipe::load(None, &[format!("{path}={value}")]),
            Recipe::load(Some(&text), &[format!("{key}={value}")]),
            Recipe::load(None, &[format!("{key}={value}")]),
        ];
        for recipe in results.into_iter().flatten() {
            prop_assert_eq!(recipe.validate(), Ok(()));
            prop_assert_eq!(Recipe::from_toml(&recipe.to_toml()), Ok(recipe));
        }
    }
}

fn load(text: &str, sets: &[&str]) -> Result<Recipe, RecipeError> {
    let sets: Vec<_> = sets.iter().map(|set| (*set).to_owned()).collect();
    Recipe::load(Some(text), &sets)
}

fn list_paths(path: &str, value: &serde_json::Value, paths: &mut BTreeSet<String>) {
    let children = match value {
        serde_json::Value::Object(children) => children,
        serde_json::Value::Array(items) => {
            paths.insert(path.to_owned());
            items[0].as_object().unwrap()
        }
        _ => {
            paths.insert(path.to_owned());
            return;
        }
    };
    for (name, value) in children {
        list_paths(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value, paths);
    }
}

#[test]
fn every_model_goes_by_its_name() {
    for kind in ModelKind::BUILT_IN.into_iter().chain([ModelKind::Own("mine".into())]) {
        // Only the trivial model goes without data.
        let source = if kind == ModelKind::Trivial { "none" } else { "digits" };
        let sets = [format!("model.kind={kind}"), format!("data.source={source}")];
        assert_eq!(Recipe::load(None, &sets).unwrap().model.kind, kind);
    }
}

#[test]
fn what_is_left_of_a_budget_is_shared_out_among_the_updates_to_come() {
    let of = |sets: &[&str]| Recipe::load(None, &sets.iter().map(|&set| set.into()).collect::<Vec<_>>()).unwrap();
    let none = of(&[]);
    assert_eq!(none.max_update_bytes(1, 0), 0);
    let run = ["rounds.count=10", "rounds.cohort=5", "limits.run_bytes=50000"];
    let (even, bounded) = (of(&run), of(&[&run[..], &["limits.update_bytes=1200"]].concat()));
    // Nothing was spent in nine rounds; then all of it, and more than that.
    for (round, spent, each) in [(1, 0, 1000), (6, 25_000, 1000), (6, 20_000, 1200), (10, 0, 10_000), (10, 50_000, 1)] {
        assert_eq!(even.max_update_bytes(round, spent), each);
        assert_eq!(bounded.max_update_bytes(round, spent), each.min(1200));
    }
    // Ten are asked in a round, and five of them count.
    let asked = of(&[&run[..], &["rounds.over_selection=2"]].concat());
    for (round, spent, each) in [(1, 0, 50_000 / 55), (6, 25_000, 25_000 / 30), (10, 45_000, 500)] {
        assert_eq!(asked.max_update_bytes(round, spent), each);
    }
    for (sets, message) in [
        (&["limits.update_bytes=63"][..], "`limits.update_bytes` is 63; it must be 0 or at least 64"),
        (&["limits.run_bytes=1000"], "`limits.run_bytes` is 1000; it must be 0 or at least "),
        (
            &["limits.update_bytes=1000", "uplink.quantizer=sign", "uplink.density=1.0"],
            "must be 0, because frames of `uplink.quantizer` \"sign\" have one length",
        ),
    ] {
        let sets: Vec<String> = sets.iter().map(|&set| set.into()).collect();
        let error = Recipe::load(None, &sets).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_key_is_found_where_it_was_last_written() {
    let text = "seed = 4\n[[size]]\nwidth = 1\n[[size]]\nwidth = 0.5\n[model]\nkind = \"2nn\"";
    let place = |sets: &[&str], key: &str| {
        let sets: Vec<_> = sets.iter().map(|&set| set.to_owned()).collect();
        Recipe::load_with_places(Some(text), &sets).unwrap().1.of(key)
    };
    assert_eq!(place(&[], "seed"), Some(Place::Line(1)));
    assert_eq!(place(&[], "size.width"), Some(Place::Line(3)));
    assert_eq!(place(&[], "model.width"), Some(Place::Value), "the section's line says nothing of a default");
    assert_eq!((place(&[], "model"), place(&[], "--threads")), (None, None));
    let seed = ["seed=5", "seed=6"];
    assert_eq!(place(&seed, "seed"), Some(Place::Set("seed=6".into())));
    let list = "size=[{width=1}, {width=0.25}]";
    assert_eq!(place(&[list], "size.width"), Some(Place::Set(list.into())));
}
