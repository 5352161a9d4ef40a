//! The rules that tie keys together.

use super::*;

#[test]
fn keys_that_do_not_fit_each_other_are_refused() {
    for (sets, message) in [
        (
            &["data.source=mnsit"][..],
            "--set data.source=mnsit: `data.source` is \"mnsit\"; it must be digits, penguins, mnist, fashion-mnist, \
             cifar10, shakespeare, heart, spoken-digits, sentiment, none, idx:DIRECTORY, png:DIRECTORY, csv:FILE, \
             npz:FILE, safetensors:FILE or text:FILE_OR_DIRECTORY; did you mean \"mnist\"?",
        ),
        (
            &["data.source=idx:"],
            "--set data.source=idx:: `data.source` is \"idx:\"; it must be digits, penguins, mnist, fashion-mnist, \
             cifar10, shakespeare, heart, spoken-digits, sentiment, none, idx:DIRECTORY, png:DIRECTORY, csv:FILE, \
             npz:FILE, safetensors:FILE or text:FILE_OR_DIRECTORY",
        ),
        (
            &["data.source=none"],
            "--set data.source=none: `data.source` is \"none\"; it must be a data set, because only a trivial \
             `model.kind` trains without one",
        ),
        (
            &["data.partition=key"],
            "--set data.partition=key: `data.key_file` is \"\"; it must be the path of a file, because \
             `data.partition` is \"key\" and digits says of no row whose it is",
        ),
        (
            &["data.source=heart", "training.augment=flip"],
            "--set training.augment=flip: `training.augment` is \"flip\"; it must be \"none\", because heart holds no \
             images",
        ),
        (
            &["rounds.cohort=21"],
            "--set rounds.cohort=21: `rounds.cohort` is 21; it must be at most `data.clients`, which is 20",
        ),
        (
            &["data.clients=9"],
            "--set data.clients=9: `rounds.cohort` is 10; it must be at most `data.clients`, which is 9",
        ),
        (
            &["rounds.over_selection=2.5"],
            "--set rounds.over_selection=2.5: `rounds.over_selection` is 2.5; it must be at most 2, because \
             `rounds.cohort` is 10 and `data.clients` is 20",
        ),
        (
            &["rounds.min_clients=21"],
            "--set rounds.min_clients=21: `rounds.min_clients` is 21; it must be at most `data.clients`, which is 20",
        ),
        (
            &["limits.max_clients=19"],
            "--set limits.max_clients=19: `limits.max_clients` is 19; it must be at least 20, the number of clients \
             that the first round waits for",
        ),
        (
            &["rounds.target_required=true"],
            "--set rounds.target_required=true: `rounds.target_accuracy` is 0; it must be above 0, because \
             `rounds.target_required` is true",
        ),
        (&["downlink.feedback=0.9"], "--set downlink.feedback=0.9: `downlink.feedback` is 0.9; it must be 0 or 1"),
        (
            &["uplink.density=0.5", "uplink.warmup_rounds=3"],
            "--set uplink.density=0.5: `uplink.warmup_density` is 0.1; it must be at least `uplink.density`, which is \
             0.5",
        ),
        (
            &["downlink.warmup_density=0.001", "downlink.warmup_rounds=3"],
            "--set downlink.warmup_density=0.001: `downlink.warmup_density` is 0.001; it must be at least \
             `downlink.density`, which is 0.01",
        ),
        (
            &["uplink.quantizer=rotated"],
            "--set uplink.quantizer=rotated: `uplink.density` is 0.02; it must be 1, because `uplink.quantizer` is \
             \"rotated\", which sends every coordinate",
        ),
        (
            &["uplink.density=1", "uplink.quantizer=rotated", "uplink.fit=unbiased"],
            "--set uplink.fit=unbiased: `uplink.feedback` is 0.9; it must be 0, because \"rotated\" is unbiased, and \
             errors that are tried again would grow; with feedback `uplink.fit` must be \"least-error\"",
        ),
        (
            &["uplink.density=1", "uplink.quantizer=eden", "uplink.feedback=0"],
            "--set uplink.feedback=0: `uplink.feedback` is 0; it must be above 0, because \"eden\" is biased, and its \
             errors would add up; without feedback `uplink.fit` must be \"unbiased\"",
        ),
        (
            &["uplink.density=1", "uplink.quantizer=sign", "uplink.feedback=0"],
            "--set uplink.feedback=0: `uplink.feedback` is 0; it must be above 0, because \"sign\" is biased, and its \
             errors would add up",
        ),
        (
            &["downlink.density=1", "downlink.quantizer=qsgd"],
            "--set downlink.quantizer=qsgd: `downlink.feedback` is 1; it must be 0, because \"qsgd\" is unbiased, and \
             errors that are tried again would grow",
        ),
        (
            &["uplink.density=1", "uplink.quantizer=eden", "uplink.bits=2.5"],
            "--set uplink.bits=2.5: `uplink.bits` is 2.5; it must be a whole number from 1 to 4, because \
             `uplink.quantizer` is \"eden\"",
        ),
        (
            &["uplink.density=1", "uplink.quantizer=low-rank", "uplink.warmup_density=1", "uplink.warmup_rounds=2"],
            "--set uplink.warmup_rounds=2: `uplink.warmup_rounds` is 2; it must be 0, because `uplink.quantizer` is \
             \"low-rank\", which sends every coordinate in every round",
        ),
        (
            &["uplink.quantizer=common"],
            "--set uplink.quantizer=common: `uplink.density` is 0.02; it must be 1, because `uplink.quantizer` is \
             \"common\", which sends every coordinate",
        ),
        (
            &["common.coordinates=random", "uplink.quantizer=common", "uplink.clip=17"],
            "--set uplink.clip=17: `uplink.clip` is 17; it must be at most `limits.max_update_abs`, which is 16",
        ),
        (
            &["common.coordinates=random", "uplink.quantizer=common", "uplink.fit=unbiased"],
            "--set uplink.fit=unbiased: `uplink.feedback` is 0.9; it must be 0, because \"common\" is unbiased, and \
             errors that are tried again would grow; with feedback `uplink.fit` must be \"least-error\"",
        ),
        (
            &["common.coordinates=random", "uplink.quantizer=common", "uplink.feedback=0"],
            "--set uplink.feedback=0: `uplink.feedback` is 0; it must be above 0, because \"common\" is biased, and \
             its errors would add up; without feedback `uplink.fit` must be \"unbiased\"",
        ),
        (
            &["common.coordinates=random", "uplink.quantizer=common", "uplink.bits=0.5"],
            "--set uplink.bits=0.5: `uplink.bits` is 0.5; it must be a whole number from 2 to 8, because \
             `uplink.quantizer` is \"common\"",
        ),
        (
            &["uplink.quantizer=codebook", "uplink.bits=5"],
            "--set uplink.bits=5: `uplink.bits` is 5; it must be a whole number from 2 to 4, because `uplink.quantizer` is \
             \"codebook\"",
        ),
        (
            &["uplink.importance=fc3=2, fc1"],
            "--set uplink.importance=fc3=2, fc1: `uplink.importance` is \"fc1\"; it must be how names of tensors begin, = \
             and a factor from 0.001 to 1000, such as \"fc3=4\", with commas between",
        ),
        (
            &["downlink.importance=fc3=0"],
            "--set downlink.importance=fc3=0: `downlink.importance` is \"fc3=0\"; it must be how names of tensors begin, = \
             and a factor from 0.001 to 1000, such as \"fc3=4\", with commas between",
        ),
        (
            &["common.coordinates=cyclic", "uplink.importance=fc3=2"],
            "--set uplink.importance=fc3=2: `uplink.importance` is \"fc3=2\"; it must be \"\", because coordinates are not \
             chosen by magnitude here; leave out either",
        ),
        (
            &["common.coordinates=cyclic", "limits.update_bytes=900"],
            "--set limits.update_bytes=900: `limits.update_bytes` is 900; it must be 0, because `common.coordinates` is \
             not \"own\": how many there are is the same for all clients",
        ),
        (
            &["limits.run_bytes=900000", "common.coordinates=announced"],
            "--set limits.run_bytes=900000: `limits.run_bytes` is 900000; it must be 0, because `common.coordinates` is \
             not \"own\": how many there are is the same for all clients",
        ),
        (
            &["limits.client_bytes=5000"],
            "--set limits.client_bytes=5000: `limits.client_bytes` is 5000; it must be 0 or at least 5120, which is 64 \
             bytes for each of 80 update(s)",
        ),
        (
            &["limits.run_bytes=50000000", "pruning.density=0.5", "pruning.importance=votes"],
            "--set limits.run_bytes=50000000: `limits.run_bytes` is 50000000; it must be 0, because what \
             `pruning.importance` or `pruning.regrow` asks clients for has a length of its own",
        ),
        (
            &["limits.client_bytes=50000", "pruning.density=0.5", "pruning.importance=votes"],
            "--set limits.client_bytes=50000: `limits.client_bytes` is 50000; it must be 0, because what \
             `pruning.importance` or `pruning.regrow` asks clients for has a length of its own",
        ),
        (
            &["network.class=[{name='a'}, {name='a'}]"],
            "--set network.class=[{name='a'}, {name='a'}]: `network.class.name` is \"a\"; it must be different in \
             each class",
        ),
    ] {
        let error = load("", sets).unwrap_err().to_string();
        assert_eq!((sets, error.as_str()), (sets, message));
    }
}

#[test]
fn whole_filters_need_layers_that_may_lose_them() {
    let refusal = |sets: &[&str]| {
        let sets = [&["pruning.density=0.5", "pruning.pattern=channels", "rounds.count=60"], sets].concat();
        load("", &sets).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(refusal(&["model.kind=vgg9"]), Ok(()));
    assert_eq!(refusal(&["model.kind=resnet20", "pruning.importance=scale"]), Ok(()));
    for (sets, message) in [
        (&["model.kind=mobilenet"][..], "another, because mobilenet has no layers that may lose filters or units"),
        (&["model.kind=own:mine"], "another, because own:mine has no layers that may lose filters or units"),
        (&["pruning.importance=scale"], "another, because only with `pruning.pattern` \"channels\" and resnet8 or"),
        (
            &["model.kind=resnet8", "distillation.kind=ensemble", "distillation.source=noise"],
            "`distillation.kind` is \"ensemble\"; it must be \"none\", because resnet8 with fewer channels",
        ),
    ] {
        let error = refusal(sets).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn sizes_need_a_whole_one_and_a_model_that_has_parts() {
    let refusal = |sets: &[&str]| load("", sets).map(|_| ()).map_err(|error| error.to_string());
    let two = "size=[{width=1}, {width=0.5, share=2}]";
    for fine in
        [&[two][..], &[two, "model.kind=own:mine"], &["size=[{}]", "model.kind=resnet8"], &[two, "model.kind=vgg9"]]
    {
        assert_eq!(refusal(fine), Ok(()), "{fine:?}");
    }
    for (sets, message) in [
        (
            &["size=[{width=0.5}, {width=0.25}]"][..],
            "`size.width` is 0.5; it must be 1 in one size, because nobody would",
        ),
        (&["size=[{}, {width=0.5}, {width=0.5}]"], "`size.width` is 0.5; it must be different in each size"),
        (&["size=[{width=0}]"], "`size.width` is 0; it must be a number of at least 0.001 and at most 1"),
        (&["size=[{width=0.5, share=0}]"], "`size.share` is 0; it must be a finite number above 0"),
        (&[two, "model.kind=resnet8"], "`size.width` is 0.5; it must be 1, because resnet8 is no chain of layers"),
        (&[two, "model.kind=softmax"], "`size.width` is 0.5; it must be 1, because softmax is no chain of layers"),
        (&[two, "pruning.density=0.5"], "`size.width` is 0.5; it must be 1, because `pruning` is on (weights)"),
        (&[two, "common.coordinates=random"], "`size.width` is 0.5; it must be 1, because `common.coordinates` is not"),
        (
            &[two, "downlink.density=1", "downlink.quantizer=rotated"],
            "`downlink.quantizer` is \"rotated\"; it must be f32, f16, int8 or ternary, because of a whole vector",
        ),
    ] {
        let error = refusal(sets).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    let many: Vec<String> = (1..=17).map(|part| format!("{{width={}}}", f64::from(part) / 17.0)).collect();
    let error = refusal(&[&format!("size=[{}]", many.join(", "))]).unwrap_err();
    assert!(error.contains("`size` is a list of 17 sections; it must be at most 16 of them"), "{error}");
}

#[test]
fn learned_steps_need_levels_and_a_model_that_stays_whole() {
    let refusal = |sets: &[&str]| {
        load("", &[&["model.steps=learned"], sets].concat()).map(|_| ()).map_err(|error| error.to_string())
    };
    let int4 = "model.weights=int4";
    for fine in [
        &[int4][..],
        &["model.weights=int8", "model.kind=own:mine"],
        &["model.weights=ternary", "pruning.density=0.5", "common.coordinates=random"],
        &[int4, "size=[{}]"],
    ] {
        assert_eq!(refusal(fine), Ok(()), "{fine:?}");
    }
    let levels = "which has no levels; those of int8, int4 and ternary are multiples of a step";
    for (sets, reason) in [
        (&[][..], format!("`model.weights` is \"f32\", {levels}")),
        (&["model.weights=binary"], format!("`model.weights` is \"binary\", {levels}")),
        (
            &[int4, "pruning.density=0.5", "pruning.pattern=channels"],
            "`pruning.pattern` is \"channels\", which takes filters and units away and would leave their steps".into(),
        ),
        (
            &[int4, "size=[{}, {width=0.5}]"],
            "`size.width` is 0.5 for some clients, whose slices have no steps".to_owned(),
        ),
    ] {
        let error = refusal(sets).unwrap_err();
        let message = format!("`model.steps` is \"learned\"; it must be \"fitted\", because {reason}");
        assert!(error.ends_with(&message), "{error}");
    }
}

#[test]
fn a_split_by_key_needs_no_file_where_rows_say_whose_they_are() {
    for source in ["shakespeare", "heart", "sentiment", "text:plays", "npz:a.npz", "safetensors:a.safetensors"] {
        let sets = [format!("data.source={source}"), "data.partition=key".to_owned()];
        assert!(Recipe::load(None, &sets).is_ok(), "{source}");
    }
}

#[test]
fn a_conflict_between_the_text_and_a_default_names_the_line() {
    let error = Recipe::from_toml("[data]\nclients = 5").unwrap_err().to_string();
    assert_eq!(error, "line 2: `rounds.cohort` is 10; it must be at most `data.clients`, which is 5");
}

#[test]
fn what_was_learned_beside_a_round_is_of_no_use_to_weights_that_go_back() {
    let overlap = ["distillation.kind=ensemble", "distillation.overlap=0.5", "data.server_share=0.1"];
    let with = |sets: &[&str]| load("", &[&overlap, sets].concat()).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(with(&["pruning.density=0.5"]), Ok(()));
    let error = with(&["pruning.density=0.5", "pruning.rewind=ticket"]).unwrap_err();
    assert!(error.contains("`distillation.overlap` is 0.5; it must be 0"), "{error}");
}
