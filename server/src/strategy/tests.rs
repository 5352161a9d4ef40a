//! The contract of [`Strategy`], run by every kind.

use super::*;

const KINDS: [StrategyKind; 5] = [
    StrategyKind::FedAvg,
    StrategyKind::FedAvgM,
    StrategyKind::FedAdagrad,
    StrategyKind::FedAdam,
    StrategyKind::FedYogi,
];

fn config(kind: StrategyKind) -> StrategyConfig {
    StrategyConfig { kind, learning_rate_decay: 0.5, ..StrategyConfig::default() }
}

/// Means of a few rounds with small, large, zero and alternating coordinates.
fn means() -> Vec<Vec<f32>> {
    (1..=6)
        .map(|round| {
            let sign = if round % 2 == 0 { -1.0 } else { 1.0 };
            vec![0.01 * round as f32, sign * 0.5, 0.0, 1e-7, -3.0 / round as f32]
        })
        .collect()
}

/// Algorithm 2 as written, in f64.
fn naive(kind: StrategyKind, means: &[Vec<f32>]) -> Vec<f64> {
    let (beta1, beta2, tau) = (0.9, 0.99, 1e-3);
    let len = means[0].len();
    let (mut w, mut m, mut v) = (vec![1.0; len], vec![0.0; len], vec![tau * tau; len]);
    for (round, mean) in means.iter().enumerate() {
        let decay = 0.5f64.powi(round as i32);
        for i in 0..len {
            let delta = f64::from(mean[i]);
            let square = delta * delta;
            match kind {
                StrategyKind::FedAvg => w[i] += decay * delta,
                StrategyKind::FedAvgM => {
                    m[i] = beta1 * m[i] + delta;
                    w[i] += decay * m[i];
                }
                StrategyKind::FedAdagrad | StrategyKind::FedAdam | StrategyKind::FedYogi => {
                    let beta1 = if kind == StrategyKind::FedAdagrad { 0.0 } else { beta1 };
                    m[i] = beta1 * m[i] + (1.0 - beta1) * delta;
                    v[i] = match kind {
                        StrategyKind::FedAdagrad => v[i] + square,
                        StrategyKind::FedAdam => beta2 * v[i] + (1.0 - beta2) * square,
                        _ => v[i] - (1.0 - beta2) * square * (v[i] - square).signum(),
                    };
                    w[i] += 0.1 * decay * m[i] / (v[i].sqrt() + tau);
                }
            }
        }
    }
    w
}

#[test]
fn every_kind_matches_the_paper_over_a_few_rounds() {
    for kind in KINDS {
        let mut strategy = from_config(&config(kind), 5);
        let mut w = vec![1.0; 5];
        for (round, mean) in (1..).zip(means()) {
            strategy.step(round, &mean, &mut w);
        }
        for (got, want) in w.iter().zip(naive(kind, &means())) {
            assert!((f64::from(*got) - want).abs() < 2e-6, "{}: {got} instead of {want}", strategy.name());
        }
    }
}

#[test]
fn a_restored_strategy_goes_on_with_the_same_bits() {
    for kind in KINDS {
        let mut original = from_config(&config(kind), 5);
        let mut w = vec![1.0; 5];
        for (round, mean) in (1..=3).zip(means()) {
            original.step(round, &mean, &mut w);
        }
        let mut restored = from_config(&config(kind), 5);
        restored.restore(original.state().into_iter().map(<[f32]>::to_vec).collect()).unwrap();
        let mut again = w.clone();
        for (round, mean) in (4..).zip(&means()[3..]) {
            original.step(round, mean, &mut w);
            restored.step(round, mean, &mut again);
        }
        assert_eq!(w, again, "{}", original.name());
        assert_eq!(original.state(), restored.state(), "{}", original.name());
    }
}

#[test]
fn a_zero_mean_moves_nothing_from_rest() {
    for kind in KINDS {
        let mut strategy = from_config(&config(kind), 3);
        let mut w = vec![0.25, -1.0, 0.0];
        strategy.step(1, &[0.0; 3], &mut w);
        assert_eq!(w, [0.25, -1.0, 0.0], "{}", strategy.name());
    }
}

#[test]
fn large_and_tiny_means_give_finite_models() {
    for kind in KINDS {
        let mut strategy = from_config(&config(kind), 4);
        let mut w = vec![0.0; 4];
        for round in 1..=20 {
            strategy.step(round, &[1e4, -1e4, f32::MIN_POSITIVE, 1e-30], &mut w);
        }
        assert!(w.iter().all(|w| w.is_finite()), "{}: {w:?}", strategy.name());
    }
}

#[test]
fn a_state_of_another_model_or_strategy_is_refused() {
    let mut strategy = from_config(&config(StrategyKind::FedAdam), 2);
    let error = strategy.restore(vec![vec![0.0; 2]]).unwrap_err();
    assert_eq!(error, StateError { strategy: "fedadam", expected: vec![2, 2], found: vec![2] });
    assert!(from_config(&config(StrategyKind::FedAvg), 2).restore(vec![vec![0.0; 2]]).is_err());
}

#[test]
fn the_rate_decays_by_a_factor_each_round_from_the_kinds_default() {
    let rate = ServerRate::new(&config(StrategyKind::FedYogi));
    assert_eq!([rate.at(1), rate.at(2), rate.at(5)], [0.1, 0.05, 0.00625]);
    let set = StrategyConfig { learning_rate: 0.7, ..StrategyConfig::default() };
    assert_eq!(ServerRate::new(&set).at(1000), 0.7);
}
