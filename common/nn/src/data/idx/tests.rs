//! IDX files, whole and malformed.

use super::*;
use proptest::prelude::*;
use std::io::Write;

/// An IDX file of this type with these extents and bytes.
fn file(kind: u8, extents: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, kind, extents.len() as u8];
    for extent in extents {
        bytes.extend_from_slice(&extent.to_be_bytes());
    }
    bytes.extend_from_slice(values);
    bytes
}

fn problem(bytes: &[u8]) -> String {
    read(bytes, "f").map(|idx| idx.extents).unwrap_err().to_string()
}

#[test]
fn malformed_files_are_told_apart() {
    assert!(problem(&[0, 0, 8]).starts_with("f: the header ends early"));
    assert!(problem(&file(0x08, &[1, 2], &[])).starts_with("f: extents [1, 2] promise 2 bytes and 0 follow"));
    assert!(problem(&file(0x08, &[2], &[1])).ends_with("promise 2 bytes and 1 follow"));
    assert!(problem(&file(0x08, &[1], &[1, 2])).ends_with("promise 1 bytes and more follow"));
    assert!(problem(&file(0x0d, &[1], &[1])).contains("no IDX file of bytes or 32-bit integers"));
    assert!(problem(&file(0x08, &[], &[])).contains("no IDX file"));
    assert!(problem(b"PK\x03\x04 some zip").contains("no IDX file"));
}

#[test]
fn sizes_that_lie_are_refused_before_memory_is_taken_for_them() {
    assert!(problem(&file(0x08, &[u32::MAX, u32::MAX, 2], &[0; 8])).contains("beyond the limit"));
    assert!(problem(&file(0x08, &[u32::MAX; 4], &[0; 8])).contains("beyond the limit"));
    // Within the limit: what is allocated follows the 8 bytes that are there.
    assert!(problem(&file(0x08, &[1 << 30], &[0; 8])).ends_with("promise 1073741824 bytes and 8 follow"));
}

#[test]
fn a_folder_is_read_with_files_plain_or_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let missing = read_dir("x", dir.path()).unwrap_err().to_string();
    assert!(missing.ends_with("neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz is there"), "{missing}");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&file(0x08, &[2, 1, 2], &[0, 255, 51, 0])).unwrap();
    write("train-images-idx3-ubyte.gz", &gz.finish().unwrap());
    write("train-labels-idx1-ubyte", &file(0x08, &[2], &[0, 2]));
    let (train, test) = read_dir("x", dir.path()).unwrap();
    assert!(test.is_none());
    assert_eq!(*train.input(), InputShape::image(1, 1, 2, 3));
    let mut row = Vec::new();
    train.append_row(0, &mut row);
    assert_eq!((row.as_slice(), train.labels()), ([0.0, 1.0].as_slice(), [0, 2].as_slice()));

    write("t10k-images-idx3-ubyte", &file(0x08, &[1, 2, 2], &[0; 4]));
    write("t10k-labels-idx1-ubyte", &file(0x08, &[1], &[1]));
    assert!(read_dir("x", dir.path()).unwrap_err().to_string().contains("test images are"));
    write("t10k-images-idx3-ubyte", &file(0x08, &[1, 1, 2], &[0; 2]));
    assert_eq!(read_dir("x", dir.path()).unwrap().1.unwrap().len(), 1);
    write("t10k-labels-idx1-ubyte", &file(0x08, &[2], &[1, 1]));
    assert!(read_dir("x", dir.path()).is_err());
}

#[test]
fn images_of_several_planes_have_a_name_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = (0..12).collect();
    let images = [header(&[1, 3, 2, 2]), pixels].concat();
    assert_eq!(images[..4], [0, 0, 8, 4]);
    std::fs::write(dir.path().join("train-images-idx4-ubyte"), images).unwrap();
    std::fs::write(dir.path().join("train-labels-idx1-ubyte"), file(0x08, &[1], &[4])).unwrap();
    let (train, _) = read_dir("x", dir.path()).unwrap();
    assert_eq!(*train.input(), InputShape::image(3, 2, 2, 5));
}

#[test]
fn a_broken_gzip_stream_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.gz");
    std::fs::write(&path, [0x1f, 0x8b, 8, 0, 0]).unwrap();
    assert!(matches!(read(open(&path).unwrap(), "f"), Err(Error::Malformed { .. })));
}

#[test]
fn a_column_of_a_matrix_of_integers_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels-idx2-int");
    let cells: Vec<u8> = [7i32, 8, -9, 4, 5, 6].iter().flat_map(|cell| cell.to_be_bytes()).collect();
    std::fs::write(&path, file(0x0c, &[2, 3], &cells)).unwrap();
    assert_eq!(read_column(&path, 2).unwrap(), [-9, 6]);
    assert!(read_column(&path, 3).is_err());
    std::fs::write(&path, file(0x08, &[2, 3], &[0; 6])).unwrap();
    assert!(read_column(&path, 2).is_err());
    std::fs::write(&path, file(0x0c, &[0, 0], &[])).unwrap();
    assert!(read_column(&path, 2).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = read(bytes.as_slice(), "f");
        let _ = read(file(0x08, &[2, 3], &bytes).as_slice(), "f");
    }
}
