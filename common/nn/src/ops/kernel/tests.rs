//! Each kind of vector against the definition, with extents that leave every kind of rest.

use super::super::portable::Lanes;
use super::super::{Instructions, tile};
use super::*;

/// One implementation of the inner loops.
type Implementation = unsafe fn(&Operands<f32>);

/// All that run on this machine.
fn implementations() -> Vec<(&'static str, Implementation)> {
    let mut list: Vec<(&str, Implementation)> = vec![("portable", tile::sum_of_products::<Lanes<f32>>)];
    #[cfg(target_arch = "x86_64")]
    {
        use super::super::x86;
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            list.push(("avx2", |operands| unsafe { x86::run_avx2::<x86::Avx2, _>(operands) }));
            list.push(("avx2, rounded twice", |operands| unsafe {
                x86::run_avx2::<tile::Portable<x86::Avx2>, _>(operands);
            }));
        }
        if is_x86_feature_detected!("avx512f") {
            list.push(("avx512", |operands| unsafe { x86::run_avx512::<x86::Avx512, _>(operands) }));
            list.push(("avx512, rounded twice", |operands| unsafe {
                x86::run_avx512::<tile::Portable<x86::Avx512>, _>(operands);
            }));
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use super::super::neon::Neon;
        list.push(("neon", tile::sum_of_products::<Neon>));
        list.push(("neon, rounded twice", tile::sum_of_products::<tile::Portable<Neon>>));
    }
    list
}

/// Small integers, with which every order of summation is exact.
fn integers(len: usize, factor: usize) -> Vec<f32> {
    (0..len).map(|i| (i * factor % 19) as f32 - 9.0).collect()
}

fn definition(sum: &Sum<'_, f32>, result: &mut [f32]) {
    for i in 0..sum.rows {
        for j in 0..sum.columns {
            let c = &mut result[i * sum.columns + j];
            let mut total = match sum.start {
                Start::Zero => 0.0,
                Start::Result => *c,
                Start::Bias(bias) => bias[j],
            };
            for s in 0..sum.segments {
                for p in 0..sum.depth {
                    total += sum.a.data[s * sum.a.segment + i * sum.a.row + p * sum.a.column]
                        * sum.b.data[s * sum.b.segment + p * sum.b.row + j * sum.b.column];
                }
            }
            *c = if sum.rectify && total < 0.0 { 0.0 } else { total };
        }
    }
}

fn check(sum: &Sum<'_, f32>) {
    let before = vec![3.0; sum.rows * sum.columns];
    let mut expected = before.clone();
    definition(sum, &mut expected);
    // The inner loops want rows of `b` in one piece; the packed product comes by `run`.
    for (name, implementation) in implementations().into_iter().filter(|_| sum.b.column == 1) {
        let mut result = before.clone();
        let c = result.as_mut_ptr();
        let (start, start_row) = match sum.start {
            Start::Zero => (ptr::null(), 0),
            Start::Result => (c.cast_const(), sum.columns),
            Start::Bias(bias) => (bias.as_ptr(), 0),
        };
        let operands = Operands {
            rows: sum.rows,
            columns: sum.columns,
            depth: sum.depth,
            segments: sum.segments,
            a: sum.a.data.as_ptr(),
            a_row: sum.a.row,
            a_column: sum.a.column,
            a_segment: sum.a.segment,
            b: sum.b.data.as_ptr(),
            b_row: sum.b.row,
            b_segment: sum.b.segment,
            c,
            c_row: sum.columns,
            start,
            start_row,
            rectify: sum.rectify,
        };
        // SAFETY: the instructions were looked for, and `run` below would refuse operands that are too short.
        unsafe { implementation(&operands) };
        assert!(result == expected, "{name}: {}×{}×{}", sum.rows, sum.depth, sum.columns);
    }
    let mut result = before;
    sum.run(&mut result);
    assert!(result == expected, "{:?}", Instructions::here());
}

#[test]
fn products_agree_with_the_definition_for_all_extents_starts_and_transpositions() {
    for (rows, depth, columns) in [
        (1, 1, 1),
        (3, 7, 5),
        (14, 9, 32),
        (15, 4, 33),
        (17, 300, 31),
        (1, 3, 40),
        (5, 21, 1),
        (29, 2, 17),
        (170, 5, 8),
        (6, 600, 16),
        (4, 0, 3),
        (24, 32, 40),
        (200, 300, 70),
        (97, 130, 1040),
    ] {
        let (a, b, bias) = (integers(rows * depth, 37), integers(depth * columns, 53), integers(columns, 11));
        for a in [Strided::matrix(&a, depth), Strided::matrix(&a, rows).transposed()] {
            for b in [Strided::matrix(&b, columns), Strided::matrix(&b, depth).transposed()] {
                for start in [Start::Zero, Start::Result, Start::Bias(&bias)] {
                    for rectify in [false, true] {
                        check(&Sum { start, rectify, ..Sum::product((rows, depth, columns), a, b) });
                    }
                }
            }
        }
    }
}

#[test]
fn rows_of_a_result_may_be_apart_and_what_is_between_them_stays() {
    let (a, b) = (integers(30 * 40, 37), integers(40 * 20, 53));
    let sum = Sum::product((30, 40, 20), Strided::matrix(&a, 40), Strided::matrix(&b, 20));
    let mut expected = vec![0.0; 30 * 20];
    definition(&sum, &mut expected);
    let mut result = vec![7.0; 30 * 23];
    sum.run_in(&mut result, 23);
    for (row, expected) in result.chunks(23).zip(expected.chunks(20)) {
        assert_eq!((&row[..20], &row[20..]), (expected, [7.0; 3].as_slice()));
    }
}

#[test]
fn a_sum_of_several_products_may_overlap_in_its_operand_as_a_convolution_does() {
    let (image, filters) = (integers(9 * 23, 37), integers(3 * 6 * 5, 53));
    // Three rows of an image of 23 columns, read at every second column with a window of six.
    let a = Strided { data: &image, row: 2, column: 1, segment: 23 };
    let b = Strided { data: &filters, row: 5, column: 1, segment: 30 };
    check(&Sum { rows: 9, columns: 5, depth: 6, segments: 3, a, b, start: Start::Zero, rectify: false });
}

#[test]
fn the_rectifier_keeps_nan() {
    for rows in [1, 20] {
        let a = vec![f32::NAN; rows];
        let sum = Sum::product((rows, 1, 1), Strided::matrix(&a, 1), Strided::matrix(&[1.0], 1));
        assert!(Sum { rectify: true, ..sum }.into_vec().iter().all(|value| value.is_nan()));
    }
}

#[test]
#[should_panic(expected = "a is shorter")]
fn an_operand_that_is_too_short_is_refused() {
    Sum::product((2, 3, 1), Strided::matrix(&[0f32; 5], 3), Strided::matrix(&[0.0; 3], 1)).into_vec();
}
