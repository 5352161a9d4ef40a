//! The sample recipes in `deploy/recipes` are ones that this version reads.

use dunlin_core::Recipe;
use std::path::Path;

fn samples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/recipes");
    let mut samples: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    samples.sort();
    samples
}

#[test]
fn every_sample_recipe_can_be_read() {
    let names: Vec<_> = samples()
        .iter()
        .map(|(name, text)| match Recipe::from_toml(text) {
            Ok(_) => name.clone(),
            Err(error) => panic!("deploy/recipes/{name}: {error}"),
        })
        .collect();
    assert_eq!(
        names,
        [
            "cifar10-cnn.toml",
            "digits.toml",
            "fashion-cnn.toml",
            "heart-hospitals.toml",
            "mnist-2nn-dirichlet.toml",
            "mnist-2nn-iid.toml",
            "mnist-2nn-shards.toml",
            "mnist-cnn-iid.toml",
        ]
    );
}

#[test]
fn the_digits_sample_is_the_default_recipe_with_every_key_explained() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/recipes/digits.toml");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, Recipe::default().commented_toml()).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == Recipe::default().commented_toml(),
        "deploy/recipes/digits.toml is out of date; UPDATE_DOCS=1 cargo test -p dunlin-core writes it"
    );
}
