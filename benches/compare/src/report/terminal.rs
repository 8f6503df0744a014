//! Wiber beside the best of the others, in 80 columns.

use crate::peers::Strength;
use crate::results::{ROWS, Results, three};

/// Prints the tables.
#[expect(clippy::print_stdout, reason = "this is what is asked for on the command line")]
pub(crate) fn terminal(results: &Results) {
    print!("{}", text(results));
}

fn text(results: &Results) -> String {
    let mut out = String::new();
    for (strength, heading) in [
        (Strength::Same, "OK only after the sync, as Wiber"),
        (Strength::Weaker, "OK before the sync, or nothing stored"),
    ] {
        let lines = ROWS.iter().filter_map(|row| {
            let own = results.median(row.work, "wiber", row.figure)?;
            let (setup, figure) = results.best(row, strength)?;
            let ratio = results.ratio(row, figure).map(three).unwrap_or_default();
            let (own, figure) = (row.unit.write(own), row.unit.write(figure));
            let (label, name) = (row.label(), setup.name());
            Some(format!("{label:18} {own:>11}   {figure:>11} {name:18} {ratio:>8}\n"))
        });
        let lines: String = lines.collect();
        if !lines.is_empty() {
            let ratio = "× better";
            out += &format!("\n{heading}\n{:18} {:>11}   {:30} {ratio:>8}\n", "", "Wiber", "best");
            out += &lines;
        }
    }
    let failed = results.runs.iter().filter_map(|run| {
        let error = run.error.as_ref()?;
        Some(format!("FAILED: {} {}, round {}: {error}\n", run.work, run.setup, run.round))
    });
    out.extend(failed);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::SETUPS;
    use crate::results::Run;

    #[test]
    fn the_tables_fit_80_columns() {
        let run = |work: &str, setup: &str, figure: &str| Run {
            round: 1,
            work: work.to_owned(),
            setup: setup.to_owned(),
            figures: [(figure.to_owned(), 1_234_567.0)].into(),
            stolen: 0.0,
            cache_line: 0.0,
            repeats: 0,
            error: None,
        };
        let setups = || SETUPS.iter().map(|setup| setup.id);
        let runs = ROWS.iter().flat_map(|row| setups().map(|id| run(row.work, id, row.figure)));
        let results = Results { runs: runs.collect(), ..Results::default() };
        let text = text(&results);
        assert!(text.lines().count() > 2 * ROWS.len(), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
