// SPDX-License-Identifier: MPL-2.0
//! One picture of a measurement: step time and live streams against batch, or latency against live streams.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::combinators::{LogCoord, WithKeyPoints};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::live::{LATEST, Live, Trial};
use super::steps::{Point, Steps};
use crate::failure::Failure;
use crate::picture::{self, Area, COLORS, Drawn, FAINT, INK, anchored, font};

const WIDTH: u32 = 960;
const HEADING: u32 = 72;
const PANEL: u32 = 360;
/// Marks of an axis, at most.
const LABELS: usize = 16;

/// Draws steps: streams in real time above, time below.
pub fn steps(model: &str, seen: &Steps, path: &Path) -> Result<(), Failure> {
    picture::write(render_steps(model, seen), path)
}

/// Draws trials: within what time 95 of 100 chunks' words came.
pub fn live(model: &str, seen: &Live, path: &Path) -> Result<(), Failure> {
    picture::write(render_live(model, seen), path)
}

/// Values of one way to stream.
struct Series {
    name: String,
    marks: Vec<Mark>,
}

/// A value of a [`Series`].
struct Mark {
    x: f64,
    y: f64,
    /// What it stands for is good enough.
    good: bool,
}

fn render_steps(model: &str, seen: &Steps) -> Result<String, Box<dyn Error>> {
    let series = |value: fn(&Point) -> f64| {
        let mut all: Vec<Series> = Vec::new();
        for point in &seen.steps {
            if all.last().is_none_or(|last| last.name != point.way) {
                all.push(Series { name: point.way.clone(), marks: Vec::new() });
            }
            if let Some(last) = all.last_mut() {
                last.marks.push(Mark { x: point.batch as f64, y: value(point), good: true });
            }
        }
        all
    };
    let (streams, times) = (series(|point| point.real_time), series(|point| point.step_seconds * 1e3));
    let title = format!("{model} on {}, {}", seen.backend, seen.device);
    render(&title, &streams, 2, |panels| {
        let chart = |series, y, ys, area| {
            Chart { series, x: "streams in a step", y, xs: span(series, |m| m.x), ys }.draw(area)
        };
        chart(&streams, "streams in real time", span(&streams, |m| m.y), &panels[0])?;
        chart(&times, "time of a step, ms", span(&times, |m| m.y), &panels[1])
    })
}

fn render_live(model: &str, seen: &Live) -> Result<String, Box<dyn Error>> {
    let series: Vec<Series> = seen
        .ways
        .iter()
        .map(|limit| {
            let mark = |trial: &Trial| {
                let y = trial.seen.as_ref()?.latency_seconds.p95 * 1e3;
                // Without a chunk there is no latency.
                (y > 0.0).then_some(Mark { x: trial.streams as f64, y, good: trial.passed })
            };
            let mut marks: Vec<Mark> = limit.trials.iter().filter_map(mark).collect();
            marks.sort_by(|a, b| a.x.total_cmp(&b.x));
            Series { name: format!("{}: {}", limit.way, limit.most), marks }
        })
        .collect();
    let device = seen.ways.iter().flat_map(|limit| &limit.trials).find_map(|trial| trial.seen.as_ref());
    let title = device.map_or_else(|| model.to_owned(), |seen| format!("{model} on {}", seen.device));
    let line = LATEST * 1e3;
    render(&title, &series, 1, |panels| {
        let (xs, ys) = (span(&series, |m| m.x), span(&series, |m| m.y));
        let ys = ys.start..ys.end.max(line * 2.0);
        let y = "chunk complete to words out, p95, ms";
        let chart = Chart { series: &series, x: "live streams (hollow: too many)", y, xs: xs.clone(), ys };
        chart.draw_with(&panels[0], |chart| {
            let across = [(xs.start, line), (xs.end, line)];
            chart.draw_series([DashedPathElement::new(across, 6, 5, INK.stroke_width(1))])?;
            let name = Text::new("limit", (6, -3), anchored(13, HPos::Left, VPos::Bottom));
            chart.draw_series([EmptyElement::at((xs.start, line)) + name])?;
            Ok(())
        })
    })
}

/// A picture with a heading, a legend and so many panels below each other.
fn render(
    title: &str,
    series: &[Series],
    panels: u32,
    draw: impl Fn(&[Area<'_>]) -> Drawn,
) -> Result<String, Box<dyn Error>> {
    let mut picture = String::new();
    {
        let size = (WIDTH, HEADING + panels * PANEL);
        let root = SVGBackend::with_string(&mut picture, size).into_drawing_area();
        root.fill(&WHITE)?;
        let (heading, rest) = root.split_vertically(HEADING);
        heading.draw(&Text::new(title, (20, 12), font(20)))?;
        for (place, series) in series.iter().enumerate() {
            let x = 20 + 190 * place as i32;
            heading.draw(&Rectangle::new([(x, 46), (x + 13, 59)], color(place).filled()))?;
            heading.draw(&Text::new(series.name.as_str(), (x + 19, 45), font(14)))?;
        }
        draw(&rest.split_evenly((panels as usize, 1)))?;
        root.present()?;
    }
    Ok(picture)
}

fn color(place: usize) -> RGBColor {
    COLORS[place % COLORS.len()]
}

/// From a bit below the least to a bit above the greatest value.
fn span(series: &[Series], value: fn(&Mark) -> f64) -> Range<f64> {
    let values = || series.iter().flat_map(|series| series.marks.iter().map(value)).filter(|v| *v > 0.0);
    match (values().reduce(f64::min), values().reduce(f64::max)) {
        (Some(least), Some(most)) => least / 1.25..most * 1.25,
        _ => 1.0..10.0,
    }
}

type Axis = WithKeyPoints<LogCoord<f64>>;
type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// Lines over two logarithmic axes.
struct Chart<'a> {
    series: &'a [Series],
    x: &'a str,
    y: &'a str,
    xs: Range<f64>,
    ys: Range<f64>,
}

impl Chart<'_> {
    fn draw(&self, area: &Area<'_>) -> Drawn {
        self.draw_with(area, |_| Ok(()))
    }

    /// `more` goes below the lines.
    fn draw_with<'b>(&self, area: &Area<'b>, more: impl Fn(&mut Plane<'_, 'b>) -> Drawn) -> Drawn {
        let mut chart = ChartBuilder::on(area)
            .margin_top(12)
            .margin_left(16)
            .margin_right(24)
            .margin_bottom(8)
            .set_label_area_size(LabelAreaPosition::Left, 72)
            .set_label_area_size(LabelAreaPosition::Bottom, 44)
            .build_cartesian_2d(axis(&self.xs), axis(&self.ys))?;
        chart
            .configure_mesh()
            .x_labels(LABELS)
            .y_labels(LABELS)
            .x_label_formatter(&figure)
            .y_label_formatter(&figure)
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style(font(14))
            .x_desc(self.x)
            .y_desc(self.y)
            .axis_desc_style(font(14))
            .draw()?;
        more(&mut chart)?;
        for (place, series) in self.series.iter().enumerate() {
            let color = color(place);
            let line: Vec<_> = series.marks.iter().map(|mark| (mark.x, mark.y)).collect();
            chart.draw_series([PathElement::new(line, color.stroke_width(2))])?;
            chart.draw_series(series.marks.iter().map(|mark| {
                let fill = if mark.good { color } else { WHITE };
                Circle::new((mark.x, mark.y), 4, fill.filled())
            }))?;
            let rim = |mark: &Mark| Circle::new((mark.x, mark.y), 4, color.stroke_width(2));
            chart.draw_series(series.marks.iter().map(rim))?;
        }
        Ok(())
    }
}

/// Marked as finely as there is room for, at the powers of ten and between them.
fn axis(range: &Range<f64>) -> Axis {
    const FACTORS: [&[f64]; 3] =
        [&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], &[1.0, 2.0, 5.0], &[1.0]];
    let inside = |factors: &[f64]| -> Vec<f64> {
        let powers = (-9..=12).map(|power| 10.0_f64.powi(power));
        powers.flat_map(|p| factors.iter().map(move |f| f * p)).filter(|v| range.contains(v)).collect()
    };
    let marks = FACTORS.into_iter().map(inside).find(|marks| marks.len() <= LABELS);
    range.clone().log_scale().with_key_points(marks.unwrap_or_default())
}

/// With as many digits as need be.
fn figure(value: &f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::super::Percentiles;
    use super::super::live::{Limit, Seen};
    use super::*;

    fn trial(streams: usize, p95: f64, passed: bool) -> Trial {
        let latency_seconds = Percentiles { p95, ..Percentiles::default() };
        let seen = Seen { device: "a <device>".into(), latency_seconds, ..Seen::default() };
        Trial { streams, passed, reasons: Vec::new(), seen: Some(seen) }
    }

    fn picture(trials: Vec<Trial>) -> String {
        let limit = Limit { way: "look-ahead 0".into(), chunk_ms: 80, most: 4_800, trials };
        let live =
            Live { seconds: 20, spread_seconds: 10, settle_seconds: 6, piece_ms: 20, ways: vec![limit] };
        render_live("m & n", &live).unwrap()
    }

    #[test]
    fn trials_and_their_limit_are_drawn() {
        let refused = Trial { streams: 99_000, passed: false, reasons: vec!["memory".into()], seen: None };
        let picture = picture(vec![
            trial(4_800, 0.012, true),
            trial(9_600, 2.5, false),
            trial(5_000, 0.02, false),
            refused,
        ]);
        for text in ["m &amp; n on a &lt;device&gt;", "look-ahead 0: 4800", "limit", "5000", "1000"] {
            assert!(picture.contains(text), "{text}");
        }
        let filled = |color: &str| picture.matches(&format!("fill=\"{color}\" stroke=\"none\"")).count();
        let marks = picture.split("<circle").skip(1).filter(|mark| mark.contains("stroke=\"none\""));
        assert_eq!(marks.count(), 3, "the trial that didn't run has none");
        // The fill of the picture and of the marks that are hollow.
        assert_eq!(filled("#FFFFFF"), 3);
    }

    #[test]
    fn there_is_a_picture_without_a_trial() {
        assert!(picture(Vec::new()).contains("live streams"));
    }

    #[test]
    fn figures_have_no_digits_to_spare() {
        assert_eq!([0.05, 1.0, 2.5, 10_000.0].map(|value| figure(&value)), ["0.05", "1", "2.5", "10000"]);
    }
}
