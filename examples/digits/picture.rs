//! The figure: the rate each method steps with, and its loss, over the steps.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::report::{Entry, short};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Steps across, a logarithmic scale upwards.
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, LogCoord<f64>>>;
type Outcome = Result<(), Box<dyn Error>>;

const SIZE: (u32, u32) = (1180, 520);
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const GRID: RGBColor = RGBColor(0xe8, 0xe8, 0xe8);
/// One colour a method, whether its rate is found or set; readable without colour vision too.
const COLOURS: [(&str, RGBColor); 4] = [
    ("Adam", RGBColor(0x00, 0x72, 0xb2)),
    ("SGD", RGBColor(0xd5, 0x5e, 0x00)),
    ("AdaGrad", RGBColor(0x00, 0x9e, 0x73)),
    ("Adan", RGBColor(0x56, 0xb4, 0xe9)),
];
/// Points a line: more are not seen.
const POINTS: usize = 400;

/// Draws the runs of `entries` into the file at `path`. Losses are averaged over `epoch` steps.
pub fn draw(path: &Path, entries: &[Entry], epoch: usize) -> Outcome {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (title, body) = root.split_vertically(44);
    let font = ("sans-serif", 22).into_font().style(FontStyle::Bold).color(&INK);
    title.draw_text("Handwritten digits: the rate found, and what it is worth", &font, (24, 18))?;
    let (left, right) = body.split_horizontally(SIZE.0 / 2);
    draw_rates(&left, entries)?;
    draw_losses(&right, entries, epoch)?;
    root.present()?;
    Ok(())
}

fn draw_rates(area: &Area, entries: &[Entry]) -> Outcome {
    let best = |entry: &Entry| -> Vec<(f64, f64)> {
        let rates = entry.best().taken.iter().map(|taken| taken.rate);
        rates.enumerate().map(|(step, rate)| (step as f64, rate)).collect()
    };
    let lines: Vec<_> = entries.iter().map(best).collect();
    let (bottom, top) = bounds(&lines);
    let caption = "Rate of the step: d, or d / |first gradient| (SGD)";
    let mut chart = chart(area, caption, lines[0].len(), bottom / 2.0..top * 4.0)?;
    for (entry, points) in entries.iter().zip(lines) {
        line(&mut chart, entry, &points)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .margin(14)
        .legend_area_size(38)
        .background_style(WHITE)
        .label_font(("sans-serif", 14, &INK))
        .draw()?;
    Ok(())
}

fn draw_losses(area: &Area, entries: &[Entry], epoch: usize) -> Outcome {
    let lines: Vec<_> = entries.iter().map(|entry| smoothed(&entry.best().losses, epoch)).collect();
    let (bottom, top) = bounds(&lines);
    // Losses far below the others' would squeeze them.
    let range = bottom.max(1e-6) / 1.5..top * 1.5;
    let caption =
        format!("Training loss, mean over {epoch} steps (thin: the other rates set by hand)");
    let mut chart = chart(area, &caption, lines[0].len(), range.clone())?;
    // Off the scale a line would be drawn along the frame.
    let visible = |points: Vec<(f64, f64)>| -> Vec<(f64, f64)> {
        points.into_iter().filter(|(_, loss)| range.contains(loss)).collect()
    };
    // What a wrong guess costs, behind everything else.
    for entry in entries.iter().filter(|entry| !entry.adapts) {
        for run in entry.runs.iter().filter(|run| !std::ptr::eq(*run, entry.best())) {
            let points = visible(smoothed(&run.losses, epoch));
            let style = colour(entry).mix(0.25).stroke_width(1);
            chart.draw_series(LineSeries::new(thinned(&points), style))?;
        }
    }
    for (entry, points) in entries.iter().zip(lines) {
        line(&mut chart, entry, &visible(points))?;
    }
    Ok(())
}

/// The smallest and the largest value that a logarithmic scale can show.
fn bounds(lines: &[Vec<(f64, f64)>]) -> (f64, f64) {
    let values = lines.iter().flatten().map(|&(_, value)| value);
    let shown = values.filter(|value| value.is_normal() && *value > 0.0);
    shown.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), v| (low.min(v), high.max(v)))
}

fn colour(entry: &Entry) -> RGBColor {
    let found = COLOURS.iter().find(|(name, _)| entry.name.ends_with(name));
    found.map_or(INK, |(_, colour)| *colour)
}

/// A named line: whole where the rate is found, dashed where it was set by hand.
fn line(chart: &mut Chart, entry: &Entry, points: &[(f64, f64)]) -> Outcome {
    let points = thinned(points);
    let rate = short(entry.best().last().rate);
    let style = colour(entry).stroke_width(2);
    if entry.adapts {
        let series = chart.draw_series(LineSeries::new(points, style))?;
        series.label(format!("{}: found {rate}", entry.name));
        series.legend(move |(x, y)| PathElement::new([(x, y), (x + 28, y)], style));
    } else {
        let series = chart.draw_series(DashedLineSeries::new(points, 6, 4, style))?;
        series.label(format!("{}: {rate}, best of {} set by hand", entry.name, entry.runs.len()));
        series.legend(move |at| {
            let dash = |x| PathElement::new([(x, 0), (x + 6, 0)], style);
            EmptyElement::at(at) + dash(0) + dash(11) + dash(22)
        });
    }
    Ok(())
}

/// An empty chart with its frame and labels.
fn chart<'a>(
    area: &Area<'a>,
    caption: &str,
    steps: usize,
    values: Range<f64>,
) -> Result<Chart<'a>, Box<dyn Error>> {
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 15, &INK))
        .margin(16)
        .x_label_area_size(42)
        .y_label_area_size(54)
        .build_cartesian_2d(0.0..steps as f64, values.log_scale())?;
    chart
        .configure_mesh()
        .x_desc("step")
        .x_labels(7)
        .y_labels(8)
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|value| match *value {
            small if small < 0.009 => format!("{small:.0e}"),
            value => format!("{}", (value * 1000.0).round() / 1000.0),
        })
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 13, &INK))
        .axis_desc_style(("sans-serif", 14, &INK))
        .draw()?;
    Ok(chart)
}

/// Mean over a window of steps, at its last step; the window is shorter at the start.
fn smoothed(losses: &[f32], window: usize) -> Vec<(f64, f64)> {
    let mut points = Vec::with_capacity(losses.len());
    for last in 0..losses.len() {
        let part = &losses[(last + 1).saturating_sub(window)..=last];
        let sum: f64 = part.iter().map(|&loss| f64::from(loss)).sum();
        points.push((last as f64, sum / part.len() as f64));
    }
    points
}

/// Every n-th point and the last, so that the file stays small.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(POINTS).max(1);
    points.iter().step_by(every).chain(points.last()).copied().collect()
}
