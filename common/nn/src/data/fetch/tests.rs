//! Names, digests, and the way from what is delivered to what is stored.

use super::convert::{cifar_from_binary, cifar_from_png, copy, copy_scores};
use super::*;
use std::fs;

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let error = fetch("imagenet", Path::new("nowhere"), &mut |_| {}).unwrap_err();
    assert_eq!(
        error.to_string(),
        "data.source = \"imagenet\": what can be fetched is mnist, fashion-mnist, cifar10, shakespeare, heart, \
         spoken-digits, sentiment, minilm"
    );
}

#[test]
fn every_digest_is_one_and_every_set_has_a_source() {
    for recipe in KNOWN {
        assert!(!recipe.sources.is_empty() && !recipe.files.is_empty(), "{}", recipe.name);
        for (file, digest) in recipe.files {
            let is_hex = digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            assert!(digest.len() == 64 && is_hex && !file.contains('/'), "{file}");
        }
    }
}

#[test]
fn a_wrong_file_is_told_by_name_and_digest() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("train-images-idx3-ubyte"), b"").unwrap();
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let want = KNOWN[0].files[0].1;
    assert_eq!(KNOWN[0].verify(dir.path()), Err(format!("train-images-idx3-ubyte has SHA-256 {empty}, want {want}")));
}

#[test]
fn a_set_is_found_when_all_its_files_are_there_plain_or_compressed() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("mnist");
    fs::create_dir(&dir).unwrap();
    let files: Vec<&str> = KNOWN[0].files.iter().map(|(file, _)| *file).collect();
    for file in &files[1..] {
        fs::write(dir.join(file), b"").unwrap();
    }
    assert_eq!(find("mnist", root.path()), None);
    fs::write(dir.join(format!("{}.gz", files[0])), b"").unwrap();
    assert_eq!(find("mnist", root.path()), Some(dir));
    assert_eq!(find("digits", root.path()), None);
}

#[test]
fn files_are_found_plain_and_compressed_and_in_folders() {
    let recipe = Recipe { name: "x", files: &[("a", ""), ("b", ""), ("c", "")], sources: &[] };
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("a"), b"plain").unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, b"packed").unwrap();
    fs::write(from.path().join("b.gz"), gz.finish().unwrap()).unwrap();
    assert_eq!(copy(&recipe, from.path(), to.path()), Err("it holds no c".into()));
    fs::create_dir(from.path().join("folder")).unwrap();
    fs::write(from.path().join("folder/c"), b"below").unwrap();
    copy(&recipe, from.path(), to.path()).unwrap();
    let read = |name| fs::read_to_string(to.path().join(name)).unwrap();
    assert_eq!([read("a"), read("b"), read("c")], ["plain", "packed", "below"]);
}

#[test]
fn scores_are_stored_without_the_heading_that_one_source_gives_them() {
    let recipe = Recipe { name: "x", files: &[("a", ""), ("b", ""), ("c", "")], sources: &[] };
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("a"), b"id\tsentiment\ttext\r\n1\t2\tx\r\n").unwrap();
    fs::write(from.path().join("b"), b"1\t2\ta text that is longer\r\n").unwrap();
    fs::write(from.path().join("c"), b"1\t2").unwrap();
    copy_scores(&recipe, from.path(), to.path()).unwrap();
    let read = |name| fs::read_to_string(to.path().join(name)).unwrap();
    assert_eq!([read("a"), read("b"), read("c")], ["1\t2\tx\r\n", "1\t2\ta text that is longer\r\n", "1\t2"]);
}

#[test]
fn both_forms_of_cifar10_become_the_same_files() {
    let recipe = Recipe::find("cifar10").unwrap();
    let (binary, images) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let batches = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
    let mut labels = Vec::new();
    for (number, batch) in (0u8..).zip(batches) {
        let (mut records, mut pixels) = (Vec::new(), Vec::new());
        for image in 0..2u8 {
            let planes: Vec<u8> = (0..3072u32).map(|at| (at * 7 + u32::from(number * 3 + image)) as u8).collect();
            records.push(number);
            records.extend(&planes);
            pixels.extend((0..1024).flat_map(|pixel| [planes[pixel], planes[1024 + pixel], planes[2048 + pixel]]));
            labels.push(number);
        }
        fs::write(binary.path().join(format!("{batch}.bin")), records).unwrap();
        let file = fs::File::create(images.path().join(format!("{batch}.png"))).unwrap();
        let mut encoder = png::Encoder::new(file, 1024, 2);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    }
    fs::write(images.path().join("train_lables.json"), format!("{:?}", &labels[..10])).unwrap();
    fs::write(images.path().join("test_lables.json"), format!("{:?}", &labels[10..])).unwrap();
    let (to, also) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    cifar_from_binary(recipe, binary.path(), to.path()).unwrap();
    cifar_from_png(recipe, images.path(), also.path()).unwrap();
    for (file, _) in recipe.files {
        assert_eq!(fs::read(to.path().join(file)).unwrap(), fs::read(also.path().join(file)).unwrap(), "{file}");
    }
    let images = fs::read(to.path().join("train-images-idx4-ubyte")).unwrap();
    assert_eq!((images.len(), &images[..8]), (20 + 10 * 3072, [0, 0, 8, 4, 0, 0, 0, 10].as_slice()));

    fs::write(binary.path().join("test_batch.bin"), [0; 3000]).unwrap();
    assert_eq!(cifar_from_binary(recipe, binary.path(), to.path()), Err("an image is cut short".into()));
    fs::remove_file(binary.path().join("test_batch.bin")).unwrap();
    assert!(cifar_from_binary(recipe, binary.path(), to.path()).unwrap_err().contains("test_batch.bin"));
}

#[test]
fn a_folder_that_is_filled_is_watched_until_it_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let (more, is_wanted) = mpsc::channel();
    let mut seen = Vec::new();
    let folder = dir.path().join("part");
    let fill = move || {
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a"), [0; 700]).unwrap();
        // Only once somebody has looked.
        is_wanted.recv().unwrap();
        "full"
    };
    let mut look = |told: Fetching<'_>| {
        seen.push(match told {
            Fetching::Step(line) => panic!("{line}"),
            Fetching::Arrived(bytes) => bytes,
        });
        if told == Fetching::Arrived(700) {
            // It hears it once and is gone.
            let _ = more.send(());
        }
    };
    assert_eq!(watched(dir.path(), &mut look, fill), "full");
    assert_eq!(seen.last(), Some(&700));
}
