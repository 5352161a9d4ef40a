//! NPZ and safetensors files, whole and malformed.

use super::*;
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use std::io::Write;
use std::path::PathBuf;
use zip::write::SimpleFileOptions;

/// An NPY file with this header and these values.
fn npy(header: &str, values: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    bytes
}

fn array(kind: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    npy(&format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}  \n"), values)
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn integers(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An archive of these files in a folder of its own, stored and compressed by turns.
fn npz(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npz");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, bytes) in files {
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
    (dir, path)
}

fn read(files: &[(&str, Vec<u8>)]) -> Result<(Dataset, Option<Dataset>), Error> {
    let (_dir, path) = npz(files);
    Archive::npz(&path)?.read("npz:a", &path)
}

/// What is wrong, without the folder.
fn problem(files: &[(&str, Vec<u8>)]) -> String {
    let message = read(files).map(|(train, _)| train.len()).unwrap_err().to_string();
    message.split_once("a.npz").map_or(message.clone(), |(_, rest)| rest.to_owned())
}

fn row(dataset: &Dataset, row: u32) -> Vec<f32> {
    let mut values = Vec::new();
    dataset.append_row(row, &mut values);
    values
}

#[test]
fn tables_images_and_planes_are_told_apart_by_their_extents() {
    let y = || ("y", array("|u1", "(2,)", &[0, 1]));
    for (shape, values, input) in [
        ("(2, 4)", 8, InputShape::table(4, 2)),
        ("(2, 3, 4)", 24, InputShape::image(1, 3, 4, 2)),
        ("(2, 3, 2, 1)", 12, InputShape::image(3, 2, 1, 2)),
    ] {
        let (train, test) = read(&[("x", array("<f4", shape, &floats(&vec![0.5; values]))), y()]).unwrap();
        assert_eq!((*train.input(), train.labels(), test.is_none()), (input, [0, 1].as_slice(), true));
    }
}

#[test]
fn bytes_are_pixels_and_other_numbers_are_themselves() {
    let y = || ("y", array("<i8", "(2,)", &integers(&[3, 0])));
    for (kind, values, expected) in [
        ("|u1", vec![0, 255], [0.0, 1.0]),
        ("|i1", vec![0, 255], [0.0, -1.0]),
        ("<i2", vec![1, 1, 255, 255], [257.0, -1.0]),
        ("<u2", vec![1, 1, 255, 255], [257.0, 65535.0]),
        ("<i4", vec![1, 0, 0, 0, 255, 255, 255, 255], [1.0, -1.0]),
        ("<f4", floats(&[0.25, -8.0]), [0.25, -8.0]),
        ("<f8", [0.25f64, -8.0].iter().flat_map(|value| value.to_le_bytes()).collect(), [0.25, -8.0]),
    ] {
        let (train, _) = read(&[("x", array(kind, "(2, 1)", &values)), y()]).unwrap();
        assert_eq!([row(&train, 0)[0], row(&train, 1)[0]], expected, "{kind}");
        assert_eq!(train.input().classes, 4);
    }
}

#[test]
fn test_rows_and_keys_are_taken_where_they_are() {
    let (train, test) = read(&[
        ("x", array("<f4", "(3, 1)", &floats(&[1.0, 2.0, 3.0]))),
        ("y", array("<i8", "(3,)", &integers(&[0, 1, 0]))),
        ("key", array("<i8", "(3,)", &integers(&[70, 8, 70]))),
        ("x_test", array("<f4", "(1, 1)", &floats(&[9.0]))),
        ("y_test", array("<i8", "(1,)", &integers(&[4]))),
    ])
    .unwrap();
    let test = test.unwrap();
    assert_eq!((train.keys(), train.key_names()), (Some([1, 0, 1].as_slice()), ["8".into(), "70".into()].as_slice()));
    assert_eq!((row(&test, 0), test.labels(), train.input().classes), (vec![9.0], [4].as_slice(), 5));
}

#[test]
fn what_does_not_fit_is_told_with_its_array() {
    let x = || ("x", array("<f4", "(2, 1)", &floats(&[1.0, 2.0])));
    let y = || ("y", array("|u1", "(2,)", &[0, 1]));
    for (files, message) in [
        (vec![y()], r#": no array "x" is there; found y"#),
        (vec![x()], r#": no array "y" is there; found x"#),
        (vec![x(), ("y", array("|u1", "(1,)", &[0]))], r#", array "x": 2 rows do not go with 1 labels"#),
        (
            vec![x(), ("y", array("<f4", "(2,)", &floats(&[0.0, 1.0])))],
            r#", array "y": it holds floats; whole numbers are wanted"#,
        ),
        (
            vec![x(), ("y", array("<i8", "(2,)", &integers(&[0, -1])))],
            r#", array "y": -1 is no label; they are numbers from 0 to 999"#,
        ),
        (
            vec![x(), ("y", array("<i8", "(2,)", &integers(&[0, 1 << 40])))],
            r#", array "y": 1099511627776 is no label; they are numbers from 0 to 999"#,
        ),
        (
            vec![x(), ("y", array("<i8", "(2,)", &integers(&[0, 1000])))],
            r#", array "y": label 1000 is no label; they are numbers from 0 to 999"#,
        ),
        (vec![x(), ("y", array("|u1", "(2, 1)", &[0, 1]))], r#", array "y": it is [2, 1]; a vector [n] is wanted"#),
        (
            vec![("x", array("<f4", "(2,)", &floats(&[1.0, 2.0]))), y()],
            r#", array "x": it is [2]; [n, features], [n, height, width] or [n, channels, height, width]"#,
        ),
        (
            vec![x(), y(), ("x_test", array("<f4", "(1, 2)", &floats(&[1.0, 2.0])))],
            r#": no array "y_test" is there; found x, y, x_test"#,
        ),
    ] {
        assert_eq!(problem(&files), message);
    }
    let nan = [("x", array("<f4", "(2, 1)", &floats(&[1.0, f32::NAN]))), y()];
    assert_eq!(read(&nan).unwrap_err().to_string(), "npz:a: row 1 has the value NaN; finite ones are right");
    let too_large = [("x", array("<f8", "(2, 1)", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0, 0x7f])), y()];
    assert_eq!(read(&too_large).unwrap_err().to_string(), "npz:a: row 1 has the value inf; finite ones are right");
    let other_test =
        [x(), y(), ("x_test", array("<f4", "(1, 2)", &floats(&[1.0, 2.0]))), ("y_test", array("|u1", "(1,)", &[0]))];
    assert!(problem(&other_test).starts_with(r#", array "x_test": its rows are "#));
    let few_keys = [x(), y(), ("key", array("|u1", "(1,)", &[0]))];
    assert_eq!(read(&few_keys).unwrap_err().to_string(), "npz:a: 1 keys do not go with 2 rows");
}

#[test]
fn malformed_arrays_are_told_apart_before_memory_is_taken_for_them() {
    let with = |x: Vec<u8>| problem(&[("x", x), ("y", array("|u1", "(1,)", &[0]))]);
    for (x, message) in [
        (b"\x93NUM".to_vec(), "the header ends early"),
        (b"PK\x03\x04PK\x03\x04".to_vec(), "starts with"),
        (npy("", &[]), "has no \"descr\""),
        (array("<f4", "(1, 2)", &[0; 7]), "promise 8 bytes and 7 follow"),
        (array("<f4", "(1, 1)", &[0; 5]), "promise 4 bytes and more follow"),
        (array("<f4", "(1, 999999999999)", &[0; 4]), "beyond the limit"),
        (array("<f4", "(18446744073709551615, 18446744073709551615)", &[]), "beyond the limit"),
        (array("<f4", "(99999999999999999999,)", &[]), "has no shape"),
        (array("<f4", "(-1, 2)", &[]), "has no shape"),
        (array("<f4", "3", &[]), "has no shape"),
        (array(">f4", "(1, 1)", &[0; 4]), "numbers of type \">f4\" are not read"),
        (array("<f2", "(1, 2)", &[0; 4]), "numbers of type \"<f2\" are not read"),
        (npy("{'descr': [('a', '<f4')], 'shape': (1, 1), 'fortran_order': False}", &[0; 4]), "are not read"),
        (npy("{'descr': '<f4', 'shape': (1, 1), 'fortran_order': True}", &[0; 4]), "column by column"),
        ([b"\x93NUMPY\x02\x00".as_slice(), &u32::MAX.to_le_bytes()].concat(), "a header of 4294967295 bytes"),
        ([b"\x93NUMPY\x01\x00".as_slice(), &[9, 0, b'{']].concat(), "the header ends early"),
    ] {
        let told = with(x);
        assert!(told.starts_with(r#", array "x": "#) && told.contains(message), "{told} lacks {message}");
    }
}

#[test]
fn files_that_are_no_archives_or_missing_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    assert!(matches!(Archive::npz(&path), Err(Error::Io { .. })));
    assert!(matches!(Archive::safetensors(&path), Err(Error::Io { .. })));
    std::fs::write(&path, "no archive").unwrap();
    let message = |archive: Result<Archive, Error>| archive.map(drop).unwrap_err().to_string();
    assert!(message(Archive::npz(&path)).contains("it is no archive of numpy"));
    assert!(message(Archive::safetensors(&path)).contains("it is no safetensors file"));
    let (_dir, whole) = npz(&[("x", array("|u1", "(1, 1)", &[0])), ("y", array("|u1", "(1,)", &[0]))]);
    let bytes = std::fs::read(&whole).unwrap();
    for len in 0..bytes.len() {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(Archive::npz(&path).and_then(|archive| archive.read("a", &path)).is_err(), "{len} bytes");
    }
}

#[test]
fn safetensors_are_read_as_arrays_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let (x, y, key) = (floats(&[1.0, -2.0, 3.0, 4.0]), integers(&[1, 0]), [7u8, 7]);
    let views = [
        ("x", TensorView::new(Dtype::F32, vec![2, 2], &x).unwrap()),
        ("y", TensorView::new(Dtype::I64, vec![2], &y).unwrap()),
        ("key", TensorView::new(Dtype::U8, vec![2], &key).unwrap()),
    ];
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let (train, test) = Archive::safetensors(&path).unwrap().read("s", &path).unwrap();
    assert_eq!(
        (row(&train, 0), train.labels(), train.key_names()),
        (vec![1.0, -2.0], [1, 0].as_slice(), ["7".into()].as_slice())
    );
    assert!(test.is_none());
    for len in 0..bytes.len() {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(Archive::safetensors(&path).is_err(), "{len} bytes");
    }
    let half =
        safetensors::serialize([("x", TensorView::new(Dtype::F16, vec![1, 1], &[0, 0]).unwrap())], None).unwrap();
    std::fs::write(&path, half).unwrap();
    let message = Archive::safetensors(&path).unwrap().read("s", &path).unwrap_err().to_string();
    assert!(message.ends_with(r#"array "x": numbers of type F16 are not read; use F32, I64 or U8"#), "{message}");
}

proptest! {
    #[test]
    fn arbitrary_arrays_never_panic(
        header in "[{}'<|a-z0-9_:(), ]{0,80}", shape in "\\([0-9]{0,3}(, [0-9]{0,2}){0,3}\\)", values in proptest::collection::vec(any::<u8>(), 0..64)
    ) {
        let y = array("|u1", "(2,)", &[0, 1]);
        let _ = read(&[("x", npy(&header, &values)), ("y", y.clone())]);
        let _ = read(&[("x", array("|u1", &shape, &values)), ("y", y)]);
    }
}
