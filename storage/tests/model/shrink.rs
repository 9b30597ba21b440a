//! Makes a failing script short: parts are taken out, ever smaller ones, as long as it still fails (Zeller's delta
//! debugging).

use std::time::{Duration, Instant};

use super::steps::Step;

/// Shrinking ends after this, with what it has.
const TIME_MAX: Duration = Duration::from_secs(60);

/// A short script that fails, of one that fails at step `at`.
pub fn shrink(mut steps: Vec<Step>, at: usize, fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let begin = Instant::now();
    if fails(&steps[..=at]) {
        steps.truncate(at + 1);
    }
    let mut part = steps.len() / 2;
    while part > 0 {
        let mut from = 0;
        let mut smaller = false;
        while from < steps.len() && begin.elapsed() < TIME_MAX {
            let mut without = steps.clone();
            without.drain(from..(from + part).min(steps.len()));
            if fails(&without) {
                steps = without;
                smaller = true;
            } else {
                from += part;
            }
        }
        // once more with single steps as long as that helps
        part = if part == 1 && smaller { 1 } else { part / 2 };
    }
    unpack(steps, fails)
}

/// Batches become single steps where that fails as well.
fn unpack(mut steps: Vec<Step>, fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    for index in (0..steps.len()).rev() {
        let Some(Step::Together(parts)) = steps.get(index).cloned() else { continue };
        for part in &parts {
            let mut single = steps.clone();
            single[index] = part.clone();
            if fails(&single) {
                steps = single;
                break;
            }
        }
    }
    steps
}
