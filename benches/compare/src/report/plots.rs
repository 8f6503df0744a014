//! Bar charts, a file each, that can be read on a light and on a dark page.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::can;
use super::document::shows;
use crate::peers::{Peer, SETUPS, Setup, Strength};
use crate::results::{ROWS, Results, Row, Unit};

/// A chart that was drawn: `<name>.svg`.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) name: String,
    pub(super) title: String,
}

const WIDTH: i32 = 760;
/// Where bars begin, and where the longest one ends.
const LEFT: i32 = 170;
const RIGHT: i32 = 630;
/// From one bar to the next.
const STEP: i32 = 24;
const TOP: i32 = 64;

/// Orange for Wiber, blue for its equals, grey for the weaker ones.
const WIBER: RGBColor = RGBColor(0xE8, 0x59, 0x0C);
const EQUAL: RGBColor = RGBColor(0x33, 0x82, 0xD6);
const WEAKER: RGBColor = RGBColor(0x9A, 0xA0, 0xA6);
/// Can be read on white and on black, where a viewer does not know of [`STYLE`].
const TEXT: RGBColor = RGBColor(0x76, 0x76, 0x76);

/// Stronger than [`TEXT`], by the colours that the reader prefers.
const STYLE: &str = "<style>text{fill:#333}\
    @media (prefers-color-scheme:dark){text{fill:#ddd}}</style>";

/// Above this ratio of the longest to the shortest bar, the scale is logarithmic.
const LINEAR_MAX: f64 = 30.0;

/// Draws what the document shows, as far as there are figures of it.
pub(super) fn draw(results: &Results, folder: &Path) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    for row in &ROWS {
        let figure = |setup: &'static Setup| {
            let figure = results.median(row.work, setup.id, row.figure)?;
            (figure > 0.0).then_some((setup, figure))
        };
        let mut bars: Vec<_> =
            SETUPS.iter().filter(|setup| can(row, setup)).filter_map(figure).collect();
        // In the order of the table: equals before weaker ones.
        bars.sort_by_key(|(setup, _)| setup.strength == Strength::Weaker);
        let name = row.label().replace(' ', "-");
        if bars.len() < 2 || !shows(&name) {
            continue;
        }
        let path = folder.join(format!("{name}.svg"));
        let svg = chart(row, &bars)?;
        fs::write(&path, svg).with_context(|| format!("failed to write {}", path.display()))?;
        plots.push(Plot { name, title: row.title.to_owned() });
    }
    Ok(plots)
}

/// From figures to where their bars end.
struct Scale {
    is_logarithmic: bool,
    low: f64,
    high: f64,
}

impl Scale {
    fn new(figures: impl Iterator<Item = f64> + Clone) -> Self {
        let high = figures.clone().fold(f64::MIN, f64::max);
        let low = figures.fold(f64::MAX, f64::min);
        let is_logarithmic = high / low > LINEAR_MAX;
        // A power of ten below all of them, so that every bar has a length.
        let low = if is_logarithmic { 10_f64.powf((low * 0.8).log10().floor()) } else { 0.0 };
        Self { is_logarithmic, low, high }
    }

    /// Pixels from the left.
    fn at(&self, figure: f64) -> i32 {
        let share = if self.is_logarithmic {
            (figure / self.low).log10() / (self.high / self.low).log10()
        } else {
            figure / self.high
        };
        #[expect(clippy::cast_possible_truncation, reason = "a share of the width")]
        let length = (f64::from(RIGHT - LEFT) * share.clamp(0.0, 1.0)).round() as i32;
        LEFT + length
    }

    /// Powers of ten to draw a line at.
    fn lines(&self) -> Vec<f64> {
        let powers = (-3..=12).map(|power| 10_f64.powi(power));
        let is_seen = |power: &f64| self.is_logarithmic && (self.low..=self.high).contains(power);
        powers.filter(is_seen).collect()
    }
}

fn chart(row: &Row, bars: &[(&Setup, f64)]) -> Result<String> {
    let scale = Scale::new(bars.iter().map(|(_, figure)| *figure));
    let lines = i32::try_from(bars.len())?;
    let bottom = TOP + lines * STEP;
    let height = bottom + if scale.is_logarithmic { 28 } else { 8 };
    let mut svg = String::new();
    {
        let size = (u32::try_from(WIDTH)?, u32::try_from(height)?);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let text =
            |size: i32, h, v| ("sans-serif", size).into_font().color(&TEXT).pos(Pos::new(h, v));
        let put = |words: String, at: (i32, i32), style: TextStyle<'static>| {
            area.draw(&Text::new(words, at, style)).map_err(|error| anyhow!("{error}"))
        };
        let direction = if row.more_is_better { "more" } else { "less" };
        let scaled = if scale.is_logarithmic { ", logarithmic scale" } else { "" };
        let unit = if row.unit == Unit::Rate { "messages a second, " } else { "" };
        put(row.title.to_owned(), (12, 10), text(17, HPos::Left, VPos::Top))?;
        let words = format!("{unit}{direction} is better{scaled}");
        put(words, (12, 34), text(12, HPos::Left, VPos::Top))?;
        for power in scale.lines() {
            let (x, line) = (scale.at(power), TEXT.mix(0.35).stroke_width(1));
            let path = PathElement::new(vec![(x, TOP - 4), (x, bottom)], line);
            area.draw(&path).map_err(|error| anyhow!("{error}"))?;
            put(row.unit.write(power), (x, bottom + 6), text(11, HPos::Center, VPos::Top))?;
        }
        for ((setup, figure), line) in bars.iter().zip(0..) {
            let (top, end) = (TOP + line * STEP, scale.at(*figure));
            let middle = top + STEP / 2 - 2;
            let bar = Rectangle::new([(LEFT, top), (end, top + STEP - 6)], color(setup).filled());
            area.draw(&bar).map_err(|error| anyhow!("{error}"))?;
            put(setup.name(), (LEFT - 8, middle), text(13, HPos::Right, VPos::Center))?;
            let words = row.unit.write(*figure);
            put(words, (end + 6, middle), text(13, HPos::Left, VPos::Center))?;
        }
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    let end = svg.find('>').context("no SVG was drawn")? + 1;
    svg.insert_str(end, STYLE);
    Ok(svg)
}

fn color(setup: &Setup) -> RGBColor {
    match (setup.peer, setup.strength) {
        (Peer::Wiber, _) => WIBER,
        (_, Strength::Same) => EQUAL,
        (_, Strength::Weaker) => WEAKER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_far_apart_get_a_logarithmic_scale() {
        let scale = Scale::new([10.0, 1000.0].into_iter());
        assert!(scale.is_logarithmic);
        assert_eq!((scale.at(1.0), scale.at(1000.0)), (LEFT, RIGHT));
        assert_eq!(scale.lines(), [1.0, 10.0, 100.0, 1000.0]);
        let scale = Scale::new([50.0, 100.0].into_iter());
        assert_eq!((scale.at(0.0), scale.at(100.0)), (LEFT, RIGHT));
        assert!(scale.lines().is_empty());
    }

    #[test]
    fn a_chart_names_everyone_and_knows_two_styles() {
        let bars: Vec<_> = SETUPS.iter().map(|setup| (setup, 1000.0)).collect();
        let svg = chart(&ROWS[0], &bars).unwrap();
        for setup in &SETUPS {
            assert!(svg.contains(&setup.name()), "{}", setup.name());
        }
        assert!(svg.contains("prefers-color-scheme"));
        assert!(svg.trim_end().ends_with("</svg>"));
    }
}
