//! PNG files, whole and malformed.

use super::*;
use proptest::prelude::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn read(&self) -> Result<(Dataset, Option<Dataset>), Error> {
        read_dir("png:x", self.0.path())
    }

    /// What is wrong, without the folder.
    fn problem(&self) -> String {
        let message = self.read().map(|(train, _)| train.len()).unwrap_err().to_string();
        message.replace(&self.0.path().display().to_string(), "DIR")
    }
}

fn png(colour: ColorType, width: u32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let height = pixels.len() / colour.samples() / width as usize;
    let mut encoder = ::png::Encoder::new(&mut bytes, width, height as u32);
    encoder.set_color(colour);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    bytes
}

fn row(dataset: &Dataset, row: u32) -> Vec<f32> {
    let mut values = Vec::new();
    dataset.append_row(row, &mut values);
    values.iter().map(|value| (value * 255.0).round()).collect()
}

#[test]
fn colour_pixels_become_planes_and_planes_stay() {
    let folder = Folder::new();
    // Four pixels: 0 1 2, 3 4 5, 6 7 8, 9 10 11.
    let interleaved: Vec<u8> = (0..12).collect();
    let planes = [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11];
    folder.write("train_labels.json", "[1, 0]");
    for pixels in [
        png(ColorType::Rgb, 4, &[&interleaved[..], &[0; 12]].concat()),
        png(ColorType::Grayscale, 12, &[planes, [0; 12]].concat()),
    ] {
        folder.write("a.png", pixels);
        let (train, test) = folder.read().unwrap();
        assert_eq!(*train.input(), InputShape::image(3, 2, 2, 2));
        assert_eq!((row(&train, 0), train.labels()), (planes.map(f32::from).to_vec(), [1, 0].as_slice()));
        assert!(test.is_none());
    }
}

#[test]
fn files_follow_each_other_by_name_and_test_files_are_the_test_set() {
    let folder = Folder::new();
    folder.write("b.png", png(ColorType::Grayscale, 4, &[5; 4]));
    folder.write("a.png", png(ColorType::Grayscale, 4, &[1, 2, 3, 4, 0, 0, 0, 0]));
    folder.write("test.png", png(ColorType::Grayscale, 4, &[9; 4]));
    folder.write("train_lables.json", "[0, 1, 2]");
    folder.write("test_labels.json", "[7]");
    let (train, test) = folder.read().unwrap();
    let test = test.unwrap();
    assert_eq!(*train.input(), InputShape::image(1, 2, 2, 8));
    assert_eq!([row(&train, 0), row(&train, 2), row(&test, 0)], [vec![1.0, 2.0, 3.0, 4.0], vec![5.0; 4], vec![9.0; 4]]);
    assert_eq!((train.labels(), test.labels()), ([0, 1, 2].as_slice(), [7].as_slice()));
}

#[test]
fn what_is_missing_or_does_not_fit_is_told() {
    let folder = Folder::new();
    assert_eq!(folder.problem(), "DIR: no PNG file to train on is there");
    let one = png(ColorType::Grayscale, 4, &[1; 4]);
    folder.write("a.png", &one);
    assert_eq!(folder.problem(), "DIR: train_labels.json with the labels is missing");
    folder.write("train_labels.json", "[0, 1]");
    assert_eq!(folder.problem(), "DIR/train_labels.json: 2 labels do not go with the 1 images of DIR");
    folder.write("train_labels.json", "[256]");
    assert_eq!(folder.problem(), "DIR/train_labels.json: label 256 is no label; they are numbers from 0 to 255");
    folder.write("train_labels.json", "[0");
    assert!(folder.problem().starts_with("DIR/train_labels.json: a list of numbers is wanted: EOF"));
    folder.write("train_labels.json", "[-1]");
    assert!(folder.problem().starts_with("DIR/train_labels.json: a list of numbers is wanted: "));
    folder.write("train_labels.json", "[0]");
    folder.write("a.png", "no image");
    assert!(folder.problem().starts_with("DIR/a.png: it is no PNG file: "));
    folder.write("a.png", png(ColorType::Grayscale, 5, &[1; 5]));
    assert_eq!(folder.problem(), "DIR/a.png: a row of 5 Grayscale pixels is no square image");
    folder.write("a.png", png(ColorType::Rgba, 4, &[1; 16]));
    assert!(folder.problem().starts_with("DIR/a.png: Rgba of Eight bits; 8 bits of RGB or grey"));
    folder.write("a.png", &one);
    folder.write("b.png", png(ColorType::Grayscale, 9, &[1; 9]));
    assert_eq!(folder.problem(), "DIR/b.png: images are (1, 3, 3), those of the files before (1, 2, 2)");
    std::fs::remove_file(folder.0.path().join("b.png")).unwrap();
    folder.write("test.png", png(ColorType::Grayscale, 9, &[1; 9]));
    folder.write("test_labels.json", "[0]");
    assert_eq!(folder.problem(), "DIR: test images are 1×3×3 and training images 1×2×2");
    assert!(matches!(read_dir("x", &folder.0.path().join("nowhere")), Err(Error::Io { .. })));
}

#[test]
fn a_file_that_is_cut_off_is_an_error_at_every_length() {
    let folder = Folder::new();
    let whole = png(ColorType::Rgb, 4, &(0..60).collect::<Vec<u8>>());
    folder.write("train_labels.json", "[0, 1, 2, 3, 4]");
    // The last twelve bytes are the end mark, which holds nothing.
    for len in 0..whole.len() - 12 {
        folder.write("a.png", &whole[..len]);
        assert!(folder.read().is_err(), "{len} of {} bytes", whole.len());
    }
}

#[test]
fn a_header_that_promises_too_much_takes_no_memory() {
    let folder = Folder::new();
    let mut bytes = png(ColorType::Grayscale, 4, &[1; 4]);
    // Width and height follow the signature, the length and the name of the first chunk; its checksum follows it.
    bytes[16..24].copy_from_slice(&[0x7f, 0xff, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
    let mut sum = flate2::Crc::new();
    sum.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.sum().to_be_bytes());
    folder.write("a.png", bytes);
    folder.write("train_labels.json", "[0]");
    assert!(folder.problem().starts_with("DIR/a.png: "), "{}", folder.problem());
}

proptest! {
    #[test]
    fn a_changed_byte_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let folder = Folder::new();
        let mut bytes = png(ColorType::Rgb, 4, &[7; 24]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        folder.write("a.png", bytes);
        folder.write("train_labels.json", "[0, 1]");
        let _ = folder.read();
    }
}
