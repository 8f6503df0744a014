//! A few seeds with every test run; `wiber-sim` runs as many as there is time for.

use super::{Options, run};

#[test]
fn seeds_keep_every_promise() {
    let count = std::env::var("WIBER_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    for seed in 0..count {
        if let Err(failure) = run(&Options::seed(seed)) {
            panic!("{failure}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_another() {
    let hash = |seed| run(&Options::seed(seed)).unwrap().hash;
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}
