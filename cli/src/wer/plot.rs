// SPDX-License-Identifier: MPL-2.0
//! One picture of a report: errors per file above, the distribution of word latency below.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::report::{Report, Scored, percent, shortened};
use crate::bench::Percentiles;
use crate::failure::Failure;
use crate::picture::{self, Area, COLORS, Drawn, FAINT, INK, anchored, font};

/// Files that there is room for; of more, those with the most errors.
const MOST_FILES: usize = 40;
/// Bars of the histogram, at most.
const MOST_BARS: f64 = 60.0;
const WIDTH: u32 = 960;
const HEADING: u32 = 72;
const ROW: u32 = 24;
const AXIS: u32 = 52;
const HISTOGRAM: u32 = 340;
const NAMES: u32 = 280;
const COUNTS: u32 = 64;
const RIGHT: u32 = 24;

const LATENCY: RGBColor = COLORS[0];
const KINDS: [(&str, RGBColor); 3] =
    [("substitutions", COLORS[0]), ("deletions", COLORS[1]), ("insertions", COLORS[2])];

/// Writes the picture of `report` to `path`.
pub fn draw(report: &Report, path: &Path) -> Result<(), Failure> {
    picture::write(render(report), path)
}

fn render(report: &Report) -> Result<String, Box<dyn Error>> {
    let mut files: Vec<&Scored> = report.files.iter().collect();
    if files.len() > MOST_FILES {
        files.sort_by_key(|file| std::cmp::Reverse(file.words.edits.errors()));
        files.truncate(MOST_FILES);
    }
    let bars = files.len() as u32 * ROW + AXIS;
    let mut picture = String::new();
    {
        let root =
            SVGBackend::with_string(&mut picture, (WIDTH, HEADING + bars + HISTOGRAM)).into_drawing_area();
        root.fill(&WHITE)?;
        let (heading, rest) = root.split_vertically(HEADING);
        let (errors, latency) = rest.split_vertically(bars);
        draw_heading(report, files.len(), &heading)?;
        draw_errors(&files, &errors)?;
        draw_latency(report, &latency)?;
        root.present()?;
    }
    Ok(picture)
}

fn draw_heading(report: &Report, shown: usize, area: &Area) -> Drawn {
    let words = report.total.words.edits;
    let title =
        format!("{}: {} % of {} words wrong", report.heading(), percent(words.rate()), words.reference);
    area.draw(&Text::new(title, (20, 12), font(20)))?;
    let what = match report.files.len() {
        all if all > shown => format!("Word errors in the {shown} files with the most, of {all}"),
        _ => "Word errors per file".into(),
    };
    area.draw(&Text::new(what, (20, 44), font(16)))?;
    for (place, (name, color)) in KINDS.into_iter().enumerate() {
        let x = WIDTH as i32 - RIGHT as i32 - 120 * (KINDS.len() - place) as i32;
        area.draw(&Rectangle::new([(x, 46), (x + 13, 59)], color.filled()))?;
        area.draw(&Text::new(name, (x + 19, 45), font(14)))?;
    }
    Ok(())
}

fn draw_errors(files: &[&Scored], area: &Area) -> Drawn {
    let share = |file: &Scored| file.words.edits.rate().unwrap_or(0.0) * 100.0;
    // Room for the figures beyond the longest bar.
    let longest = files.iter().map(|file| share(file)).fold(5.0, f64::max) * 1.22;
    let rows = files.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin_right(RIGHT)
        .set_label_area_size(LabelAreaPosition::Left, NAMES)
        .set_label_area_size(LabelAreaPosition::Bottom, AXIS - 4)
        .build_cartesian_2d(0.0..longest, rows..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(9)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style(font(14))
        .x_desc("errors, % of the words in the reference")
        .axis_desc_style(font(14))
        .draw()?;
    for (row, file) in files.iter().enumerate() {
        let (top, bottom) = (row as f64 + 0.16, row as f64 + 0.84);
        let edits = file.words.edits;
        let mut from = 0.0;
        for (count, (_, color)) in
            [edits.substitutions, edits.deletions, edits.insertions].into_iter().zip(KINDS)
        {
            let to = from + count as f64 * 100.0 / edits.reference.max(1) as f64;
            if count > 0 && edits.reference > 0 {
                chart.draw_series([Rectangle::new([(from, top), (to, bottom)], color.filled())])?;
                from = to;
            }
        }
        let name = Text::new(shortened(&file.audio, 38), (-8, 0), anchored(14, HPos::Right, VPos::Center));
        let figures = match edits.rate() {
            Some(_) => format!("{} of {}", edits.errors(), edits.reference),
            None => format!("{} where nothing is said", edits.insertions),
        };
        let figures = Text::new(figures, (6, 0), anchored(13, HPos::Left, VPos::Center));
        let middle = row as f64 + 0.5;
        chart.draw_series([EmptyElement::at((0.0, middle)) + name])?;
        chart.draw_series([EmptyElement::at((from, middle)) + figures])?;
    }
    Ok(())
}

fn draw_latency(report: &Report, area: &Area) -> Drawn {
    area.draw(&Text::new("Latency of words", (20, 14), font(16)))?;
    let Some(Percentiles { p50, p95, p99, most }) = &report.latency.percentiles else {
        area.draw(&Text::new("No word came out before the end of its file.", (20, 50), font(14)))?;
        return Ok(());
    };
    let most = most * 1e3;
    let bar = bar_width(most);
    let mut counts = vec![0_usize; (most / bar) as usize + 1];
    for seconds in &report.latency.seconds {
        counts[(seconds * 1e3 / bar) as usize] += 1;
    }
    // Above the bars there is room for the names of the percentiles.
    let highest = counts.iter().copied().max().unwrap_or(1) as f64 * 1.35;
    let widest = (counts.len() as f64 + 1.0) * bar;
    let mut chart = ChartBuilder::on(area)
        .margin_top(40)
        .margin_left(16)
        .margin_right(RIGHT)
        .margin_bottom(8)
        .set_label_area_size(LabelAreaPosition::Left, COUNTS)
        .set_label_area_size(LabelAreaPosition::Bottom, AXIS - 8)
        .build_cartesian_2d(0.0..widest, 0.0..highest)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(12)
        .y_labels(6)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style(font(14))
        .x_desc("from the end of a word to its output, ms of the stream")
        .y_desc("words")
        .axis_desc_style(font(14))
        .draw()?;
    chart.draw_series(counts.iter().enumerate().filter(|(_, count)| **count > 0).map(
        |(index, &count)| {
            let (from, to) = (index as f64 * bar, (index + 1) as f64 * bar);
            Rectangle::new([(from + bar * 0.06, 0.0), (to - bar * 0.06, count as f64)], LATENCY.filled())
        },
    ))?;
    for (step, (name, seconds)) in [("p50", p50), ("p95", p95), ("p99", p99)].into_iter().enumerate() {
        let (at, top) = (seconds * 1e3, highest * (0.98 - 0.08 * step as f64));
        chart.draw_series([PathElement::new(vec![(at, 0.0), (at, top)], INK.stroke_width(1))])?;
        // Beside its line, where the picture has room.
        let (side, shift) = if at < widest * 0.8 { (HPos::Left, 5) } else { (HPos::Right, -5) };
        let text =
            Text::new(format!("{name} {:.0} ms", at.round()), (shift, 0), anchored(13, side, VPos::Top));
        chart.draw_series([EmptyElement::at((at, top)) + text])?;
    }
    Ok(())
}

/// Milliseconds that a bar of the histogram stands for: an encoder frame, or more if there were too many up to `most`.
fn bar_width(most: f64) -> f64 {
    let mut width = 80.0;
    while most / width > MOST_BARS {
        width *= 2.0;
    }
    width
}

#[cfg(test)]
mod tests {

    use super::super::listen::Heard;
    use super::super::manifest::Utterance;
    use super::*;

    fn report(files: usize, latencies: &[u64]) -> Report {
        let scored = |index: usize| {
            let name = format!("<{index}>.wav");
            let utterance = Utterance { path: (&name).into(), name, reference: "one two".into() };
            let heard = Heard { text: "one".into(), latencies: latencies.to_vec(), ..Heard::default() };
            Scored::new(&utterance, Ok((16_000, heard)))
        };
        Report::new("m & n", "look-ahead 13", 1, None, (0..files).map(scored).collect())
    }

    #[test]
    fn names_are_escaped_and_figures_there() {
        let picture = render(&report(2, &[1_600, 16_000])).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
        for text in
            ["&lt;1&gt;.wav", "m &amp; n, look-ahead 13, clean: 50.0 % of 4 words", "p50 1000 ms", "1 of 2"]
        {
            assert!(picture.contains(text), "{text}");
        }
    }

    #[test]
    fn there_is_room_for_any_report() {
        let many = render(&report(500, &[])).unwrap();
        assert!(many.contains("in the 40 files with the most, of 500") && many.contains("No word came out"));
        assert_eq!(many.matches(".wav").count(), MOST_FILES);
        // An hour.
        assert!(render(&report(1, &[57_600_000])).unwrap().contains("p99 3600000 ms"));
    }
}
