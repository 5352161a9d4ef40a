//! Images that move and mirror, and nothing else.

use super::*;
use proptest::prelude::*;

/// An image whose values tell their places.
fn image(input: &InputShape) -> Vec<f32> {
    (1..=input.features()).map(|value| value as f32).collect()
}

fn applied(augment: Augment, input: &InputShape, seed: u64) -> Vec<f32> {
    let mut changed = image(input);
    apply(augment, &mut changed, input, &mut Seed::from_u64(seed).rng());
    changed
}

#[test]
fn nothing_changes_unless_asked() {
    let input = InputShape::image(3, 5, 4, 2);
    assert_eq!(applied(Augment::None, &input, 1), image(&input));
}

#[test]
fn a_flip_mirrors_about_half_of_the_images_in_every_plane() {
    let input = InputShape::image(2, 2, 3, 2);
    let mirrored = [3.0, 2.0, 1.0, 6.0, 5.0, 4.0, 9.0, 8.0, 7.0, 12.0, 11.0, 10.0];
    let mut flips = 0;
    for seed in 0..1000 {
        let changed = applied(Augment::Flip, &input, seed);
        flips += usize::from(changed == mirrored);
        assert!(changed == mirrored || changed == image(&input), "{changed:?}");
    }
    assert!((400..600).contains(&flips), "{flips}");
}

#[test]
fn crops_reach_every_place_and_leave_zeros_outside() {
    let input = InputShape::image(1, 12, 12, 2);
    let original = image(&input);
    let mut places = std::collections::BTreeSet::new();
    for seed in 0..2000 {
        let changed = applied(Augment::CropFlip, &input, seed);
        // The pixel of row 5 and column 5 is never cut off: where it is tells all.
        let at = changed.iter().position(|&value| value == original[5 * 12 + 5]).unwrap();
        let (y, x) = (at / 12, at % 12);
        let down = y as isize - 5;
        let expected = |right: isize, mirrored: bool| -> Vec<f32> {
            (0..144)
                .map(|place: isize| {
                    let (y, x) = (place / 12, place % 12);
                    let x = if mirrored { 11 - x } else { x };
                    let (y, x) = (y - down, x - right);
                    let inside = (0..12).contains(&y) && (0..12).contains(&x);
                    if inside { original[(y * 12 + x) as usize] } else { 0.0 }
                })
                .collect()
        };
        let plain = changed == expected(x as isize - 5, false);
        let mirrored = changed == expected(11 - x as isize - 5, true);
        assert!(plain || mirrored, "seed {seed}");
        places.insert((y, x, plain));
    }
    assert_eq!(places.len(), 2 * 81);
}

#[test]
fn shifts_reach_every_place_and_mirror_nothing() {
    let input = InputShape::image(1, 9, 9, 2);
    let mut places = std::collections::BTreeSet::new();
    for seed in 0..500 {
        let changed = applied(Augment::Shift, &input, seed);
        let at = |value: f32| changed.iter().position(|&other| other == value).unwrap();
        let (middle, right) = (at(41.0), at(42.0));
        assert_eq!(right, middle + 1);
        places.insert((middle / 9, middle % 9));
    }
    assert_eq!(places.len(), 25);
}

proptest! {
    #[test]
    fn images_of_any_size_are_changed_the_same_way_each_time(
        channels in 1usize..4, height in 1usize..12, width in 1usize..12, seed in any::<u64>()
    ) {
        let input = InputShape::image(channels, height, width, 2);
        let changed = applied(Augment::CropFlip, &input, seed);
        let known = image(&input);
        prop_assert!(changed.iter().all(|value| *value == 0.0 || known.contains(value)));
        prop_assert_eq!(changed, applied(Augment::CropFlip, &input, seed));
    }
}

#[test]
fn few_images_become_many_that_differ() {
    let split = crate::data::load(&dunlin_core::recipe::DataConfig::default(), &Seed::from_u64(1)).unwrap();
    let few = Examples::new(split.train, vec![5, 9, 13]).unwrap();
    let many = augmented(&few, Augment::Shift, 60, &Seed::from_u64(2)).unwrap();
    let row = |row| {
        let mut values = Vec::new();
        many.append_row(row, &mut values);
        values
    };
    assert_eq!(many.len(), 60);
    // Every third is of one image, whose label they keep.
    assert!((3..60).all(|i| many.row_labels(i) == many.row_labels(i - 3)));
    let distinct: std::collections::BTreeSet<Vec<u32>> =
        (0..60).map(|i| row(i).iter().map(|value| value.to_bits()).collect()).collect();
    assert!(distinct.len() > 30, "{}", distinct.len());
    assert_eq!(many.labels(), augmented(&few, Augment::Shift, 60, &Seed::from_u64(2)).unwrap().labels());

    let table = Dataset::new("table", InputShape::image(1, 1, 4, 2), vec![0.0; 8], vec![0, 1]).unwrap();
    let refused = augmented(&Examples::all(table.into()), Augment::Flip, 4, &Seed::from_u64(1)).unwrap_err();
    assert_eq!(refused, "the rows of table are no images; \"none\" is right");
}
