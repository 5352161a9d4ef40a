//! Recordings of different lengths, from an archive made here.

use super::*;
use std::io::Write;
use zip::write::SimpleFileOptions;

fn archive(path: &Path, steps: &[[f32; 2]], lengths: &[u8], digits: &[u8]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let mut add = |name: &str, kind: &str, shape: String, values: Vec<u8>| {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
        archive.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
        archive.write_all(header.as_bytes()).unwrap();
        archive.write_all(&values).unwrap();
    };
    let values = steps.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    add("X", "<f4", format!("({}, 2)", steps.len()), values);
    add("y", "|u1", format!("({},)", digits.len()), digits.to_vec());
    add("lengths", "|u1", format!("({},)", lengths.len()), lengths.to_vec());
    archive.finish().unwrap();
}

#[test]
fn recordings_are_standardised_over_the_training_steps_padded_and_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let mut steps = vec![[1.0, 7.0], [3.0, 7.0]];
    steps.extend((0..50).map(|step| [step as f32, 8.0]));
    archive(&path, &steps, &[2, 50], &[4, 9]);
    let (train, test) = read(&path, |_| Ok((vec![0], vec![1]))).unwrap();
    assert_eq!(
        (*train.input(), train.labels(), test.labels()),
        (InputShape::sequence(40, 2, 10), [4].as_slice(), [9].as_slice())
    );
    let mut row = Vec::new();
    train.append_row(0, &mut row);
    assert_eq!((&row[..4], row[4..].iter().all(|value| *value == 0.0)), ([-1.0, 0.0, 1.0, 0.0].as_slice(), true));
    row.clear();
    test.append_row(0, &mut row);
    let expected: Vec<f32> = (0..40).flat_map(|step| [step as f32 - 2.0, 0.0]).collect();
    assert_eq!(row, expected);
}

#[test]
fn lengths_that_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let steps = [[1.0, 2.0]; 3];
    for (lengths, digits) in [(&[1, 1][..], &[0, 1][..]), (&[2, 2], &[0, 1]), (&[3], &[0, 1]), (&[255], &[1])] {
        archive(&path, &steps, lengths, digits);
        let message = read(&path, |_| Ok((vec![0], vec![]))).unwrap_err().to_string();
        assert!(message.contains("do not go with"), "{message}");
    }
    archive(&path, &steps, &[1, 2], &[0, 10]);
    let message = read(&path, |_| Ok((vec![0], vec![]))).unwrap_err().to_string();
    assert_eq!(message, "spoken-digits: row 1 has label 10 where 10 classes are known");
}
